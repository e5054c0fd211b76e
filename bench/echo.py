"""The time from a keystroke to its echo on the screen: idle, and beside bulk transfers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.benchmark import GB, MB, Benchmark, Measurement, Run
from bench.bulk import NOWHERE, write_text
from bench.figures import Bars, Figure, at_most_difference, at_most_ratio, percentile
from bench.meter import written
from bench.scene import HOST, Recorded, Route, Scene, make_scene
from bench.terminal import Terminal
from tests.support.client import AccessMethod, Person
from tests.support.process import Process
from tests.support.wait import fact, in_thread

#: Seconds between an echo and the next keystroke, so that all programs are idle at each keystroke.
PAUSE = 0.01
#: Bytes that each bulk transfer has carried before keys are typed beside it.
GOING = 20 * MB
#: Other users with a bulk transfer each.
CROWD = ("bulk1", "bulk2", "bulk3", "bulk4")
#: The terminal of the target does not echo; cat does.
READY = b"ready for keys"
COMMAND = f"stty raw -echo; echo {READY.decode()}; exec cat"


def open_terminal(route: Route) -> Terminal:
    """Start a session on a terminal, and type keys until all programs are warm. Blocks."""
    terminal = Terminal(route.command("-tt", HOST, COMMAND), route.env)
    try:
        terminal.read_until(READY + b"\n")
        for _ in range(20):
            terminal.key()
    except BaseException:
        terminal.close()
        raise
    return terminal


def type_keys(terminals: Sequence[Terminal], count: int) -> list[list[float]]:
    """Type keys on all terminals in turns; return the milliseconds of each keystroke. Blocks."""
    times: list[list[float]] = [[] for _ in terminals]
    for _ in range(count):
        for terminal, delays in zip(terminals, times, strict=True):
            time.sleep(PAUSE)
            delays.append(terminal.key() * 1000)
    return times


#: Gates. Idle: 1.6 times what must be reached. Beside one transfer: between 7.3 (a busy machine) and 12.6
#: (without the limits on reads). Beside four: 20, as it was 11 on a busy machine. p99 has no gate: with two
#: cores for clients, servers and target it depends more on the scheduler than on the proxy.
IDLE_P50 = Bars(must=at_most_ratio(2), aim=at_most_ratio(1.5), gate=at_most_ratio(3.2))
LOADED_P50 = Bars(must=at_most_ratio(5), aim=at_most_ratio(2), gate=at_most_ratio(11))
CROWDED_P50 = Bars(must=at_most_ratio(5), aim=at_most_ratio(2), gate=at_most_ratio(20))
NO_BARS = Bars()
LOADED_P99 = Bars(must=at_most_difference(4), aim=at_most_difference(1))


class Percentiles:
    """p50 and p99 of each round, by both routes."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene = scene
        self._name = name
        self._rounds: dict[tuple[Route, int], list[float]] = {}

    def add(self, route: Route, samples: Sequence[float]) -> None:
        """Add the milliseconds of the keystrokes of one round."""
        for percent in (50, 99):
            self._rounds.setdefault((route, percent), []).append(percentile(samples, percent))

    def figure(self, percent: int, bars: Bars = NO_BARS) -> Figure:
        """Return the figure of all rounds."""
        return Figure(
            name=f"{self._name}, p{percent}",
            unit="ms",
            ours=tuple(self._rounds[self._scene.ours, percent]),
            yardstick=tuple(self._rounds[self._scene.yardstick, percent]),
            must=bars.must,
            aim=bars.aim,
            gate=bars.gate,
        )


async def _keys_beside(
    transfers: Sequence[Route], text: Path, route: Route, terminal: Terminal, keys: int
) -> list[float]:
    """Type keys while ``text`` is downloaded again and again by each of the routes ``transfers``."""
    command = f"while cat {text}; do :; done"
    loads: list[Process] = []
    try:
        for transfer in transfers:
            loads.append(transfer.start(HOST, command, stdout=NOWHERE))
        for load in loads:
            await fact(
                lambda load=load: load.is_running and written(load.pid) > GOING,  # type: ignore[misc]
                "the transfer does not begin",
            )
        (samples,) = await in_thread(lambda: type_keys([terminal], keys))
        for load in loads:
            assert load.is_running, f"the transfer has ended:\n{load}"
    finally:
        for load in loads:
            await load.stop()
    await route.calm()
    return samples


async def _echo(run: Run) -> Measurement:
    people = [Person(name=name, key=await run.stage.key(name)) for name in CROWD]
    users = {person.name: {"authorized_keys": [person.key.line], "roles": ["ops"]} for person in people}
    scene = await make_scene(run.stage, settings={"users": users})
    crowds: dict[Route, list[Route]] = {
        scene.ours: [
            Recorded("conchrec", scene.house, AccessMethod.CERTIFICATE, person=person) for person in people
        ],
        # sshd has a process for each connection, and no limits for a user: four users are four connections.
        scene.yardstick: [scene.yardstick] * len(people),
    }
    text = write_text(run.stage.path("text"), min(run.effort.size, GB // 10))
    rounds, keys = run.effort.rounds, run.effort.keys
    idle = Percentiles(scene, "keystroke, idle")
    loaded = Percentiles(scene, "keystroke, beside a transfer")
    crowded = Percentiles(scene, "keystroke, beside four users' transfers")
    with ExitStack() as open_terminals:
        terminals: dict[Route, Terminal] = {}
        for route in scene.routes:
            terminals[route] = open_terminals.enter_context(await in_thread(partial(open_terminal, route)))
        for number in range(rounds):
            order = scene.turn(number)
            run.say(f"{keys} keys, idle, round {number + 1} of {rounds}")
            times = await in_thread(partial(type_keys, [terminals[route] for route in order], keys))
            for route, samples in zip(order, times, strict=True):
                idle.add(route, samples)
            for percentiles, transfers in ((loaded, {route: [route] for route in order}), (crowded, crowds)):
                for route in order:
                    run.say(f"{keys} keys, beside transfers, round {number + 1} of {rounds}, {route.name}")
                    samples = await _keys_beside(transfers[route], text, route, terminals[route], keys)
                    percentiles.add(route, samples)
    return Measurement(
        figures=[
            idle.figure(50, IDLE_P50),
            idle.figure(99),
            loaded.figure(50, LOADED_P50),
            loaded.figure(99, LOADED_P99),
            crowded.figure(50, CROWDED_P50),
            crowded.figure(99, LOADED_P99),
        ],
        notes=[
            f"{keys} keystrokes in each round, in a session that was open before, on a terminal; cat on the"
            f" target's terminal sends each back; {PAUSE * 1000:g} ms between an echo and the next",
            "idle: keystrokes by both routes in turns",
            "beside a transfer: an endless download of text in another connection of the same user; beside"
            " four users' transfers: such downloads of four other users; clients, servers and target share"
            " this machine's cores",
        ],
    )


ECHO = Benchmark(
    name="echo", about="the time from a keystroke to its echo: idle, and beside transfers", run=_echo
)
