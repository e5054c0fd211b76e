"""The memory that each idle recorded session takes in the proxy, at several numbers of sessions."""

from __future__ import annotations

import sys
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bench.benchmark import KIB, Benchmark, Measurement, Run
from bench.figures import Figure, at_most, at_most_ratio
from bench.meter import resident
from conchrec.service import freed_memory
from tests.support.house import House, build
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.proxy import our_environment
from tests.support.sshd import LOGIN
from tests.support.wait import fact, reactor

#: Sessions before the first measurement: they load what a process needs once.
FIRST = 20
#: Seconds that one step may take.
PATIENCE = 1800.0
#: Seconds between two measurements, which must agree.
INTERVAL = 1.0
#: Bytes by which they may differ.
TOLERANCE = 64 * KIB


async def _house(run: Run) -> tuple[House, Process]:
    """Start a proxy that accepts many connections from one address, and the program that opens sessions."""
    stage, most = run.stage, max(run.effort.sessions)
    key, port = await stage.key("host"), free_port()
    target = stage.process(
        sys.executable, "-m", "bench.light_target", str(port), key.path, env=our_environment()
    )
    await target.says("listening")
    known = stage.file("light_known_hosts", key.known_as("localhost", port))
    house = await build(
        stage,
        settings={
            "limits": dict.fromkeys(
                ("connections", "per_address", "sessions_per_user", "unauthenticated"), FIRST + most + 100
            ),
            "trusted_hosts": {"known_hosts": [str(known)]},
        },
    )
    joe = house.keyless
    words = (str(house.proxy.port), str(port), joe.name, LOGIN, str(joe.key.path))
    users = stage.process(
        sys.executable, "-m", "bench.light_client", *words, env=our_environment(), stdin=None
    )
    return house, users


async def _set_sessions(users: Process, count: int) -> None:
    users.write(b"%d\n" % count)
    await users.says(f"{count} open\n", within=PATIENCE)


async def _end_sessions(house: House, users: Process, total: int) -> None:
    """End all sessions, and wait until ``total`` have ended since the start of the proxy."""
    await _set_sessions(users, 0)
    ended = lambda: len(house.proxy.audit("session.end")) >= total  # noqa: E731
    await fact(ended, "sessions did not end", within=PATIENCE)


async def _stable_memory(pid: int) -> int:
    """Return the resident memory when two measurements agree."""
    before = -TOLERANCE - 1
    while abs((now := resident(pid)) - before) > TOLERANCE:
        before = now
        await deferLater(cast(IReactorTime, reactor), INTERVAL)
    return now


async def _idle(run: Run) -> Measurement:
    counts = run.effort.sessions
    each: dict[int, list[float]] = {count: [] for count in counts}
    # One proxy for all steps; another round would need another process.
    run.say("starting")
    house, users = await _house(run)
    assert house.proxy.process is not None
    pid = house.proxy.process.pid
    await _set_sessions(users, FIRST)
    base = await _stable_memory(pid)
    for count in counts:
        run.say(f"{count} sessions")
        await _set_sessions(users, FIRST + count)
        each[count].append((await _stable_memory(pid) - base) / count / KIB)
    await house.proxy.audited("session.start", count=FIRST + counts[-1])
    assert len(house.proxy.casts()) == FIRST + counts[-1], "not every session is recorded"
    run.say("no sessions")
    await _end_sessions(house, users, FIRST + counts[-1])
    if FIRST + counts[-1] >= freed_memory.LEAST:
        # The proxy notices it with one check, and waits for another.
        await deferLater(cast(IReactorTime, reactor), 2.5 * freed_memory.SECONDS)
    kept = (await _stable_memory(pid) - base) / KIB**2
    run.say(f"{counts[-1]} sessions again")
    await _set_sessions(users, FIRST + counts[-1])
    again = (await _stable_memory(pid) - base) / counts[-1] / KIB
    await _end_sessions(house, users, 2 * (FIRST + counts[-1]))
    users.close_input()
    (await users.wait()).check()
    figures = [
        Figure(
            name=f"memory of a session, {count}",
            unit="KiB",
            ours=tuple(each[count]),
            must=at_most(64),
            aim=at_most(40),
            # 1.6 times what must be reached.
            gate=at_most(100),
        )
        for count in counts
    ]
    few, many = counts[0], counts[-1]
    figures.append(
        Figure(
            name=f"the same, {many} by {few}",
            unit="KiB",
            ours=tuple(each[many]),
            yardstick=tuple(each[few]),
            must=at_most_ratio(1.1),
            aim=at_most_ratio(1.1),
            gate=at_most_ratio(1.5),
        )
    )
    figures.append(
        Figure(
            name=f"memory kept after {many} have ended",
            unit="MiB",
            ours=(kept,),
            yardstick=(each[many][0] * many / KIB,),
            must=at_most_ratio(0.5),
            aim=at_most_ratio(0.1),
        )
    )
    figures.append(
        Figure(
            name=f"memory of a session, {many} after {many}",
            unit="KiB",
            ours=(again,),
            yardstick=tuple(each[many]),
            must=at_most_ratio(1.1),
            aim=at_most_ratio(1.02),
            # If nothing were freed, it would be 2.
            gate=at_most_ratio(1.3),
        )
    )
    return Measurement(
        figures=figures,
        notes=[
            f"resident memory of the proxy above what it has with {FIRST} sessions, for each session more",
            "each session has one outer TCP connection, one inner connection through it, one connection to"
            " the target, a terminal, a shell that has printed its prompt, and an open recording; the login"
            " at the target is by the proxy's certificate",
            "clients are one process of bench.light_client (conchrec's own client classes), the target is one"
            " of bench.light_target (stock Conch, without checks); one round, because a process grows once",
            f"the same, {many} by {few}: the yardstick is the same proxy with {few} sessions",
            f"memory kept: the memory above that with {FIRST} sessions; its yardstick is what {many} had"
            " added; the proxy checks every few seconds whether most connections have ended, and then frees"
            " memory",
            f"{many} after {many}: as many sessions again, in the same proxy, after the first have ended; the"
            " yardstick are the first. What ended sessions leave behind makes it more",
        ],
    )


IDLE = Benchmark(name="idle", about="memory of each idle recorded session", run=_idle)
