"""Logins: until the first prompt, what a whole connection costs, and a crowd of them."""

from __future__ import annotations

import time

from bench.benchmark import Benchmark, Measured, Run
from bench.figures import Figure, at_least_ratio, at_most, at_most_ratio
from bench.scene import HOST, PROMPT, SNTRUP761, Route, make_scene
from bench.terminal import Terminal
from tests.support.client import AccessMethod
from tests.support.wait import in_thread, together


def _prompt(route: Route) -> float:
    """Seconds from the start of ssh to the prompt of the shell. Blocks."""
    with Terminal(route.command("-tt", HOST), route.env) as terminal:
        return terminal.read_until(PROMPT.encode()) - terminal.began


async def _prompts(run: Run) -> Measured:
    scene = await make_scene(run.stage)
    others = [scene.ours_by(AccessMethod.OUTER_AGENT), scene.ours_by(AccessMethod.CERTIFICATE)]
    times: dict[str, list[float]] = {}
    count = run.effort.rounds * run.effort.logins
    routes: tuple[Route, ...] = (scene.yardstick, scene.ours, *others)
    for route in routes:
        await in_thread(lambda route=route: _prompt(route))  # type: ignore[misc]  # what is done once
    for number in range(count):
        run.say(f"login {number + 1} of {count}")
        at = number % len(routes)
        for route in routes[at:] + routes[:at]:
            took = await in_thread(lambda route=route: _prompt(route))  # type: ignore[misc]
            times.setdefault(route.name, []).append(took * 1000)
            await route.settled()
    return Measured(
        figures=[
            Figure(
                name=f"prompt, {method.value}",
                unit="ms",
                ours=tuple(times[route.name]),
                yardstick=tuple(times[scene.yardstick.name]),
                must=at_most_ratio(1.2),
                aim=at_most_ratio(1.0),
                gate=at_most_ratio(2.4),
            )
            for method, route in zip(
                (AccessMethod.INNER_AGENT, AccessMethod.OUTER_AGENT, AccessMethod.CERTIFICATE),
                (scene.ours, *others),
                strict=True,
            )
        ],
        notes=["from the start of ssh, on a terminal, until the prompt of the login shell is shown"],
    )


async def _crowd(route: Route, clients: int, connections: int) -> tuple[float, int]:
    """Connections per second, and how many failed."""
    numbers = iter(range(connections))
    failed = 0

    async def one_client() -> None:
        nonlocal failed
        for number in numbers:
            done = await route.ssh(HOST, f"echo {number}", well=False)
            failed += done.code != 0 or done.text != f"{number}\n"

    began = time.perf_counter()
    await together(one_client() for _ in range(clients))
    return connections / (time.perf_counter() - began), failed


async def _cost(run: Run, route: Route) -> float:
    """Milliseconds of CPU of the server in the middle for one connection, without others."""
    await route.settled()
    cpu = route.cpu
    for _ in range(run.effort.logins):
        await route.ssh(HOST, "true")
    await route.settled()
    return (route.cpu - cpu) / run.effort.logins * 1000


async def _connections(run: Run) -> Measured:
    scene = await make_scene(run.stage, crowd=True)
    effort = run.effort
    costs: dict[str, list[float]] = {route.name: [] for route in scene.routes}
    crowded: dict[str, list[float]] = {route.name: [] for route in scene.routes}
    rates: dict[str, list[float]] = {route.name: [] for route in scene.routes}
    failures: dict[str, list[float]] = {route.name: [] for route in scene.routes}
    for route in scene.routes:
        await route.ssh(HOST, "true")
    for number in range(effort.rounds):
        for route in scene.turn(number):
            run.say(f"one by one, round {number + 1} of {effort.rounds}, {route.name}")
            costs[route.name].append(await _cost(run, route))
            run.say(f"{effort.clients} at once, round {number + 1} of {effort.rounds}, {route.name}")
            cpu = route.cpu
            rate, failed = await _crowd(route, effort.clients, effort.connections)
            rates[route.name].append(rate)
            failures[route.name].append(failed)
            await route.settled()
            crowded[route.name].append((route.cpu - cpu) / effort.connections * 1000)
    ours, base = scene.ours.name, scene.yardstick.name
    return Measured(
        figures=[
            *(
                Figure(
                    name=name,
                    unit="ms",
                    ours=tuple(each[ours]),
                    yardstick=tuple(each[base]),
                    must=at_most(15),
                    aim=at_most(10),
                    gate=at_most_ratio(3),
                )
                for name, each in (
                    ("CPU, one connection alone", costs),
                    (f"CPU, one connection of {effort.clients} clients", crowded),
                )
            ),
            Figure(
                name=f"{effort.clients} clients",
                unit="1/s",
                ours=tuple(rates[ours]),
                yardstick=tuple(rates[base]),
                gate=at_least_ratio(0.5),
            ),
            Figure(
                name=f"failed, {effort.clients} clients",
                unit="connections",
                ours=(sum(failures[ours]),),
                yardstick=(sum(failures[base]),),
                must=at_most(0),
                aim=at_most(0),
                gate=at_most(0),
            ),
        ],
        notes=[
            "each connection: ssh -J, login, one command, its output, and its end; CPU of the server in the"
            " middle alone, with a recording each for conchrec",
            f"{effort.clients} clients: together {effort.connections} connections in each round; all"
            " programs, the clients too, share this machine, and their CPU is most of it",
            "the yardstick's sshds have MaxStartups 1000, for stock ones drop some of a crowd; the target"
            " behind conchrec is a stock one",
        ],
    )


async def _post_quantum(run: Run) -> Measured:
    scene = await make_scene(run.stage, exchange=SNTRUP761)
    costs: dict[str, list[float]] = {route.name: [] for route in scene.routes}
    for route in scene.routes:
        await route.ssh(HOST, "true")
    for number in range(run.effort.rounds):
        for route in scene.turn(number):
            run.say(f"round {number + 1} of {run.effort.rounds}, {route.name}")
            costs[route.name].append(await _cost(run, route))
    return Measured(
        figures=[
            Figure(
                name="CPU, one connection, sntrup761 with the target",
                unit="ms",
                ours=tuple(costs[scene.ours.name]),
                yardstick=tuple(costs[scene.yardstick.name]),
                gate=at_most_ratio(5),
            )
        ],
        notes=[
            f"as in *connections*, but the target offers {SNTRUP761} only: CPU of the proxy and of its helper"
            " process, which makes a key pair for each connection",
        ],
    )


PROMPTS = Benchmark(name="prompt", about="from ssh to the first prompt", run=_prompts)
CONNECTIONS = Benchmark(
    name="connections", about="CPU of a whole connection, and a crowd of clients", run=_connections
)
POST_QUANTUM = Benchmark(
    name="sntrup761", about="CPU of a connection with a post-quantum key exchange", run=_post_quantum
)
