"""A bystander's keystrokes and logins during floods, and the time until a lock ends the flood.

Each row is one kind of flood (``bench.hostile_client``) by a stranger or by another user. Before the flood
and during it, a bystander types and logs in; then the flooding user is locked. The yardstick is the same
flood of a stock sshd as jump host, if it is possible there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from statistics import median

from twisted.internet.defer import Deferred

from bench.benchmark import KIB, Benchmark, Effort, Measurement, Run
from bench.echo import PAUSE, open_terminal
from bench.figures import Bar, Figure, at_most, percentile
from bench.hostile_client import STRANGERS
from bench.hostile_plan import NOTES, Plan
from bench.hostile_target import FLOODS
from bench.scene import HOST, Route, Scene, make_scene
from bench.terminal import Terminal
from conchrec.access.lock_file import Locks
from conchrec.access.locks import Lock, LockKind
from conchrec.ca.revocation import Revocations, Revoked
from conchrec.clock import utc_now
from tests.support.keys import Key
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.proxy import our_environment
from tests.support.sshd import LOGIN, Sshd
from tests.support.wait import TookTooLong, in_thread

#: Bars for a bystander, computed from the time of a keystroke and of a login without a flood.
ECHO_TIMES, ECHO_MORE = 3.0, 5.0
LOGIN_TIMES, LOGIN_MORE = 2.0, 0.5
LOCK_SECONDS = 2.0
#: Bars of the gate: the noise of a busy machine with two cores is below them, and each flood was above them
#: before the proxy limited it.
GATE_ECHO_TIMES, GATE_ECHO_MORE = 10.0, 50.0
GATE_LOGIN_TIMES, GATE_LOGIN_MORE = 4.0, 3.0
GATE_LOCK_SECONDS = 8.0
#: Seconds that count for a login that takes longer.
PATIENCE = 60.0
#: In use, the flooding programs run on other machines. Here they have one core and a low priority: only their
#: messages take time from the proxy and from the bystander.
NICENESS = 10
FLOOD_CORE = max(os.sched_getaffinity(0))
ON_FLOOD_CORE = ("taskset", "-c", str(FLOOD_CORE), "nice", "-n", str(NICENESS))
#: Revoked certificates, so that the list of them is large.
REVOKED = 5000


class Entrance(Enum):
    """A listener of the proxy: for SSH, for SSH behind a load balancer, or for HTTP."""

    SSH = auto()
    BALANCED = auto()
    WEB = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One flood. ``kind`` is that of the client; ``count``: its connections at the same time."""

    name: str
    kind: str
    count: int = 1
    at_sshd: bool = True
    """Whether the flood is possible at a stock sshd."""
    entrance: Entrance = Entrance.SSH
    target: str = ""
    """The flood of a target (``bench.hostile_target``) to which the client connects."""
    lists: bool = False
    """The bystander also lists recordings."""
    channels: int = 1
    silent: bool = False
    """At a target that accepts connections and sends nothing."""
    in_gate: bool = True


ROWS: tuple[Row, ...] = (
    Row(name="key exchanges, group18", kind="dh-group18", count=8, in_gate=False),
    Row(name="key exchanges, group16", kind="dh-group16", count=8),
    Row(name="key exchanges, group14", kind="dh-group14", count=8, in_gate=False),
    Row(name="IGNORE before the key exchange", kind="ignore-stranger", count=2),
    Row(name="DEBUG before the key exchange", kind="debug-stranger", count=2, in_gate=False),
    Row(name="IGNORE before the login", kind="ignore-early", count=2),
    Row(name="rekeys by a user", kind="rekeys"),
    Row(name="IGNORE", kind="ignore", in_gate=False),
    Row(name="pings", kind="ping"),
    Row(name="global requests", kind="global-request", in_gate=False),
    Row(name="channels refused, outer", kind="open-refused-outer", in_gate=False),
    Row(name="channels refused", kind="open-refused"),
    Row(name="forwards refused", kind="forward-refused", in_gate=False),
    Row(name="window-change", kind="window-change"),
    Row(name="env", kind="env", in_gate=False),
    Row(name="signal", kind="signal", in_gate=False),
    Row(name="unknown requests", kind="unknown-request", in_gate=False),
    Row(name="second starts", kind="starts", in_gate=False),
    Row(name="data of one byte", kind="data"),
    Row(name="window adjustments", kind="adjust", in_gate=False),
    Row(name="small packets, 20 connections", kind="ignore", count=20, in_gate=False),
    Row(name="own screen, keys on a line of 8 kB", kind="screen"),
    Row(name="small SFTP packets", kind="sftp"),
    Row(name="terminal, clearing the screen", kind="escapes"),
    Row(name="terminal, far columns", kind="columns", in_gate=False),
    Row(name="terminal, short lines", kind="lines", in_gate=False),
    Row(name="unknown keys before the login", kind="offers", count=4, in_gate=False),
    Row(name="requests that wait for a start", kind="held"),
    Row(name="replays of a large screen", kind="replays", at_sshd=False, lists=True),
    Row(name="zlib, 1 : 800", kind="zlib"),
    Row(name="control characters in audited names", kind="controls"),
    Row(name="empty sessions", kind="sessions"),
    Row(name="a target: rekeys", kind="use-target", target="rekeys", at_sshd=False, in_gate=False),
    Row(name="a target: rekeys, group16", kind="use-target", target="rekeys-group16", at_sshd=False),
    Row(name="a target: IGNORE", kind="use-target", target="ignore", at_sshd=False),
    Row(name="a target: global requests", kind="use-target", target="requests", at_sshd=False, in_gate=False),
    Row(name="a target: channels", kind="use-target", target="opens", at_sshd=False, in_gate=False),
    Row(
        name="a target: window adjustments", kind="use-target", target="adjust", at_sshd=False, in_gate=False
    ),
    Row(name="lists of revocations", kind="krl", count=4, at_sshd=False, entrance=Entrance.WEB),
    Row(name="connections closed at once", kind="connections", count=8, in_gate=False),
    Row(name="PROXY headers", kind="balanced", count=8, at_sshd=False, entrance=Entrance.BALANCED),
    Row(
        name="no PROXY headers",
        kind="balanced-no-header",
        count=8,
        at_sshd=False,
        entrance=Entrance.BALANCED,
        in_gate=False,
    ),
    Row(name="outer channel, small packets", kind="tiny-outer", in_gate=False),
    Row(name="session, small packets", kind="tiny-session", in_gate=False),
    Row(name="recordings that are slow to index", kind="index"),
    Row(name="scp lines", kind="scp"),
    Row(
        name="a target: lists of the agent's keys", kind="agent", target="agent", at_sshd=False, in_gate=False
    ),
    Row(name="a target: agent requests", kind="agent", target="agent-refused", at_sshd=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFlood:
    """A flood that fills the memory of the proxy. ``most``: KiB for each channel of each connection."""

    name: str
    kind: str
    count: int
    channels: int
    most: float


MEMORY_FLOODS: tuple[MemoryFlood, ...] = (
    MemoryFlood(
        name="memory of a channel to a silent target", kind="silent", count=2, channels=100, most=128
    ),
    MemoryFlood(
        name="memory of a connection, answers unread", kind="unread", count=20, channels=1, most=1024
    ),
)


@dataclass(slots=True)
class Sample:
    """What a bystander measured: milliseconds of keystrokes, seconds of logins and of lists of recordings."""

    keystrokes: list[float] = field(default_factory=list)
    logins: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)


def watch(terminal: Terminal, route: Route, seconds: float, logins: int, lists: int = 0) -> Sample:
    """Type for this long, then log in and list recordings this many times. Blocks."""
    sample = Sample()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(PAUSE)
        sample.keystrokes.append(terminal.key() * 1000)
    for _ in range(logins):
        sample.logins.append(log_in(route))
    for _ in range(lists):
        sample.lists.append(log_in(route, "proxy", "recordings"))
    return sample


def log_in(route: Route, *command: str) -> float:
    """Return the seconds of one login with a command; PATIENCE if it fails. Blocks."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            route.command(*(command or (HOST, "true"))),
            env=route.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return PATIENCE
    return time.perf_counter() - began if done.returncode == 0 else PATIENCE


#: Measures a bystander by a route, on a terminal that is open there.
FloodTask = Callable[[Route, Terminal, Row], Deferred[Sample]]


class Floods:
    """A scene with the servers that the rows need."""

    def __init__(self, scene: Scene, ports: Mapping[Entrance, int], host_key: Key) -> None:
        self.scene = scene
        self._host_key = host_key
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._silent: int = listening.getsockname()[1]

        async def close() -> None:
            listening.close()

        scene.house.stage.at_end(close)
        self._targets = {flood: free_port() for flood in FLOODS}
        self._target: Process
        self._sshd: Sshd
        self._ports = {Entrance.SSH: scene.house.proxy.port, **ports}
        state = scene.house.proxy.directory / "state"
        self._locks = Locks(state, utc_now)

    async def start_targets(self) -> None:
        """Start the targets, before the proxy reads their keys, once."""
        house = self.scene.house
        authority = house.proxy.directory / "user_ca.pub"
        self._sshd = await house.stage.sshd(users=[house.joe.key], user_authority=authority)
        os.setpriority(os.PRIO_PROCESS, self._sshd.process.pid, NICENESS)
        os.sched_setaffinity(self._sshd.process.pid, {FLOOD_CORE})
        house.proxy.trust(self._sshd.known_as())
        for port in self._targets.values():
            house.proxy.trust(self._host_key.known_as("localhost", port))
        addresses = [f"{flood}={port}" for flood, port in self._targets.items()]
        program = (*ON_FLOOD_CORE, sys.executable, "-m", "bench.hostile_target", str(self._host_key.path))
        self._target = house.stage.process(*program, *addresses, env=our_environment())
        await self._target.says("listening")

    async def target_floods(self, row: Row) -> None:
        """Wait until the target of this row floods; return at once if the row has none."""
        if row.target:
            await self._target.says(f"begins {row.target}\n")

    def _target_port(self, row: Row) -> int:
        if row.silent:
            return self._silent
        return self._targets[row.target] if row.target else self._sshd.port

    def start(self, row: Row, route: Route) -> Process:
        """Start the flood of one route."""
        house = self.scene.house
        if route is self.scene.ours:
            port, user, key = self._ports[row.entrance], house.ann.name, house.ann.key
        else:
            port, user, key = self.scene.jump.port, LOGIN, house.joe.key
        plan = Plan(
            kind=row.kind,
            port=port,
            user=user,
            login=LOGIN,
            key=str(key.path),
            target_port=self._target_port(row),
            count=row.count,
            channels=row.channels,
        )
        return house.stage.process(
            *ON_FLOOD_CORE,
            sys.executable,
            "-m",
            "bench.hostile_client",
            plan.words(),
            env=our_environment(),
            stdin=None,
        )

    async def lock_time(self, flood: Process) -> float:
        """Lock the flooding user; return the seconds until the end of that user's connection."""
        began = time.monotonic()
        self._locks.add(Lock(kind=LockKind.USER, name=self.scene.house.ann.name, by="bench", made=utc_now()))
        try:
            await flood.says("lost\n", within=PATIENCE)
        except TookTooLong:
            return PATIENCE
        finally:
            self._locks.remove(LockKind.USER, self.scene.house.ann.name)
        return time.monotonic() - began


async def make_floods(run: Run) -> Floods:
    """Start the scene, and the targets of the floods."""
    ports = {Entrance.BALANCED: free_port(), Entrance.WEB: free_port()}
    scene = await make_scene(
        run.stage,
        crowd=True,
        settings={
            "algorithms": "compatible",
            "web": {"listen": [f"tcp:{ports[Entrance.WEB]}:interface=127.0.0.1"]},
            "proxy_protocol_from": ["127.0.0.0/8"],
        },
        listen=[f"haproxy:tcp:{ports[Entrance.BALANCED]}:interface=127.0.0.1"],
    )
    state = scene.house.proxy.directory / "state"
    Revocations(state, utc_now).change(add=Revoked(serials=frozenset(range(1, REVOKED))))
    floods = Floods(scene, ports, await run.stage.key("hostile"))
    await floods.start_targets()
    return floods


def _bar(times: float, more: float, idle: float) -> Bar:
    return at_most(round(times * idle + more, 2))


def figures_of(row: Row, idle: Sample, ours: Sample, sshd: Sample | None, lock: float) -> list[Figure]:
    """Return the figures of a row; the bars depend on what the bystander measured before the flood."""
    p99, p50 = percentile(idle.keystrokes, 99), percentile(idle.keystrokes, 50)
    lists = median(idle.lists) if idle.lists else 0.0
    login = median(idle.logins)

    def base(of: Callable[[Sample], Sequence[float]], percent: float) -> tuple[float, ...]:
        return (percentile(of(sshd), percent),) if sshd is not None else ()

    return [
        Figure(
            name=f"{row.name}: keystroke, p99",
            unit="ms",
            ours=(percentile(ours.keystrokes, 99),),
            yardstick=base(lambda sample: sample.keystrokes, 99),
            must=_bar(ECHO_TIMES, ECHO_MORE, p99),
        ),
        Figure(
            name=f"{row.name}: keystroke, p50",
            unit="ms",
            ours=(percentile(ours.keystrokes, 50),),
            yardstick=base(lambda sample: sample.keystrokes, 50),
            gate=_bar(GATE_ECHO_TIMES, GATE_ECHO_MORE, p50),
        ),
        Figure(
            name=f"{row.name}: login",
            unit="s",
            ours=tuple(ours.logins),
            yardstick=tuple(sshd.logins) if sshd is not None else (),
            must=_bar(LOGIN_TIMES, LOGIN_MORE, login),
            gate=_bar(GATE_LOGIN_TIMES, GATE_LOGIN_MORE, login),
        ),
        Figure(
            name=f"{row.name}: lock",
            unit="s",
            ours=(lock,),
            must=at_most(LOCK_SECONDS),
            gate=at_most(GATE_LOCK_SECONDS),
        ),
        *(
            [
                Figure(
                    name=f"{row.name}: list of recordings",
                    unit="s",
                    ours=tuple(ours.lists),
                    must=_bar(LOGIN_TIMES, LOGIN_MORE, lists),
                    gate=_bar(GATE_LOGIN_TIMES, GATE_LOGIN_MORE, lists),
                )
            ]
            if ours.lists
            else []
        ),
    ]


async def _hostile(run: Run, rows: Sequence[Row] = ROWS) -> Measurement:
    floods = await make_floods(run)
    scene, effort = floods.scene, run.effort
    if effort.only:
        rows = [row for row in rows if row.kind in effort.only]
    elif effort.gate:
        rows = [row for row in rows if row.in_gate]
    figures_of_rows: list[Figure] = []
    notes: list[str] = []
    # First: the lock of the last row may still have effect for a moment.
    if not effort.only or set(effort.only) & {memory_flood.kind for memory_flood in MEMORY_FLOODS}:
        figures_of_rows += [await _memory(floods, memory_flood) for memory_flood in MEMORY_FLOODS]

    def run_beside_flood(route: Route, terminal: Terminal, row: Row) -> Deferred[Sample]:
        lists = effort.flood_logins if row.lists else 0
        return in_thread(partial(watch, terminal, route, effort.flood, effort.flood_logins, lists))

    terminals: dict[str, Terminal] = {}
    try:
        for route in scene.routes:
            terminals[route.name] = await in_thread(partial(open_terminal, route))
        for number, row in enumerate(rows):
            run.say(f"{row.name} ({number + 1} of {len(rows)})")
            try:
                figures, rates = await _row(floods, row, terminals, run_beside_flood, effort)
            except (AssertionError, TookTooLong) as error:
                # Do not lose the other rows, which took minutes.
                figures, rates = [_failed(row)], [f"{row.name}: {error}"]
            figures_of_rows += figures
            notes += rates
    finally:
        for terminal in terminals.values():
            terminal.close()
    return Measurement(figures=figures_of_rows, notes=[*NOTES, *notes])


async def _row(
    floods: Floods, row: Row, terminals: Mapping[str, Terminal], run_beside_flood: FloodTask, effort: Effort
) -> tuple[list[Figure], list[str]]:
    """Return the figures of one flood, and a note with its rate."""
    scene = floods.scene
    samples: dict[str, Sample] = {}
    rates: list[str] = []
    idle = await run_beside_flood(scene.ours, terminals[scene.ours.name], row)
    lock = 0.0
    for route in scene.routes:
        if route is scene.yardstick and (effort.gate or not row.at_sshd):
            continue
        flood = floods.start(row, route)
        await flood.says("flooding\n")
        await floods.target_floods(row)
        before = time.monotonic()
        samples[route.name] = await run_beside_flood(route, terminals[route.name], row)
        took = time.monotonic() - before
        if route is scene.ours:
            lock = await _lock(floods, row, flood)
        flood.close_input()
        sent = int((await flood.wait()).text.rpartition("sent ")[2])
        rates.append(f"{row.name}, {route.name}: {sent / took:,.0f} a second")
    sshd = samples.get(scene.yardstick.name)
    return figures_of(row, idle, samples[scene.ours.name], sshd, lock), rates


def _failed(row: Row) -> Figure:
    """Return the figure of a row that could not be measured."""
    bar = at_most(0)
    return Figure(name=f"{row.name}: failed", unit="rows", ours=(1.0,), must=bar, gate=bar)


async def _memory(floods: Floods, memory_flood: MemoryFlood) -> Figure:
    """Measure the memory by which the proxy grows during a flood."""
    route = floods.scene.ours
    await route.ssh(HOST, "true")
    before = route.memory
    row = Row(
        name=memory_flood.name,
        kind=memory_flood.kind,
        count=memory_flood.count,
        channels=memory_flood.channels,
        silent=True,
    )
    flood = floods.start(row, route)
    await flood.says("flooding\n")
    # The proxy handles what was sent before these.
    for _ in range(3):
        await route.ssh(HOST, "true")
    grown = (route.memory - before) / memory_flood.count / memory_flood.channels / KIB
    flood.close_input()
    await flood.wait()
    return Figure(
        name=memory_flood.name,
        unit="KiB",
        ours=(max(grown, 0.0),),
        must=at_most(memory_flood.most),
        gate=at_most(2 * memory_flood.most),
    )


async def _lock(floods: Floods, row: Row, flood: Process) -> float:
    """Measure a lock; of a second user who is logged in, if the flood is by strangers."""
    if row.kind not in STRANGERS:
        return await floods.lock_time(flood)
    idle = floods.start(Row(name="", kind="idle"), floods.scene.ours)
    try:
        await idle.says("flooding\n", within=PATIENCE)
        return await floods.lock_time(idle)
    finally:
        await idle.stop()


HOSTILE = Benchmark(
    name="hostile", about="a bystander's keystrokes and logins while somebody floods the proxy", run=_hostile
)
