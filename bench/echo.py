"""How long a key takes to be shown, when nothing else goes on and beside a bulk transfer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench.benchmark import GB, MB, Benchmark, Measured, Run
from bench.bulk import NOWHERE, write_text
from bench.figures import Bar, Figure, at_most_more, at_most_ratio, percentile
from bench.meter import written
from bench.scene import HOST, Route, Scene, make_scene
from bench.terminal import Terminal
from tests.support.wait import fact, in_thread

#: Between two keys, so that each finds everything idle.
PAUSE = 0.01
#: What the other connection has carried before keys are typed beside it.
GOING = 20 * MB
#: The target's terminal does nothing of its own: cat answers.
READY = b"it takes keys"
COMMAND = f"stty raw -echo; echo {READY.decode()}; exec cat"


def _terminal(route: Route) -> Terminal:
    terminal = Terminal(route.command("-tt", HOST, COMMAND), route.env)
    try:
        terminal.read_until(READY + b"\n")
    except BaseException:
        terminal.close()
        raise
    return terminal


def _type(terminals: Sequence[Terminal], keys: int) -> list[list[float]]:
    """Milliseconds of each key on each terminal, in turns. Blocks."""
    times: list[list[float]] = [[] for _ in terminals]
    for _ in range(keys):
        for terminal, delays in zip(terminals, times, strict=True):
            time.sleep(PAUSE)
            delays.append(terminal.key() * 1000)
    return times


class _Percentiles:
    """p50 and p99 of each round."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, int], list[float]] = {}

    def add(self, route: Route, samples: Sequence[float]) -> None:
        for percent in (50, 99):
            self._rounds.setdefault((route.name, percent), []).append(percentile(samples, percent))

    def figure(self, scene: Scene, what: str, percent: int, must: Bar | None, aim: Bar | None) -> Figure:
        return Figure(
            name=f"key, {what}, p{percent}",
            unit="ms",
            ours=tuple(self._rounds[scene.ours.name, percent]),
            yardstick=tuple(self._rounds[scene.yardstick.name, percent]),
            must=must,
            aim=aim,
            gate=at_most_ratio(5) if percent == 50 else None,
        )


async def _echo(run: Run) -> Measured:
    scene = await make_scene(run.stage)
    text = write_text(run.stage.path("text"), min(run.effort.size, GB // 10))
    rounds, keys = run.effort.rounds, run.effort.keys
    idle, loaded = _Percentiles(), _Percentiles()
    with ExitStack() as open_terminals:
        terminals: dict[Route, Terminal] = {}
        for route in scene.routes:
            terminal = await in_thread(lambda route=route: _terminal(route))  # type: ignore[misc]
            terminals[route] = open_terminals.enter_context(terminal)
        await in_thread(lambda: _type(list(terminals.values()), 20))
        for number in range(rounds):
            order = scene.turn(number)
            run.say(f"{keys} keys, idle, round {number + 1} of {rounds}")
            times = await in_thread(lambda order=order: _type([terminals[name] for name in order], keys))  # type: ignore[misc]
            for route, samples in zip(order, times, strict=True):
                idle.add(route, samples)
            for route in order:
                run.say(f"{keys} keys, beside a transfer, round {number + 1} of {rounds}, {route.name}")
                loaded.add(route, await _beside_a_transfer(route, terminals[route], str(text), keys))
    return Measured(
        figures=[
            idle.figure(scene, "idle", 50, None, None),
            idle.figure(scene, "idle", 99, at_most_more(2), at_most_more(0.5)),
            loaded.figure(scene, "loaded", 50, None, None),
            loaded.figure(scene, "loaded", 99, at_most_more(10), at_most_more(3)),
        ],
        notes=[
            f"{keys} keys in each round, in a session that was open before, on a terminal; cat on the"
            f" target's terminal sends each back; {PAUSE * 1000:g} ms between an answer and the next key",
            "idle: both sessions in turns; loaded: beside an endless download of text in another connection"
            " by the same way, while clients and servers share this machine's cores",
        ],
    )


async def _beside_a_transfer(route: Route, terminal: Terminal, text: str, keys: int) -> list[float]:
    load = route.start(HOST, f"while cat {text}; do :; done", stdout=NOWHERE)
    try:
        await fact(lambda: load.is_running and written(load.pid) > GOING, "the transfer does not begin")
        (samples,) = await in_thread(lambda: _type([terminal], keys))
        assert load.is_running, f"the transfer has ended:\n{load}"
    finally:
        await load.stop()
    await route.calm()
    return samples


ECHO = Benchmark(name="echo", about="one key's way to the screen, idle and beside a transfer", run=_echo)
