"""Memory of the proxy while a client reads an endless stream slowly."""

from __future__ import annotations

import os
import subprocess
import time

from bench.benchmark import KIB, Benchmark, Measurement, Run
from bench.figures import Figure, at_most
from bench.scene import HOST, Recorded, make_scene
from tests.support.client import AccessMethod
from tests.support.wait import in_thread

MIB = KIB * KIB
#: Bytes per second, and reads per second.
RATE = 1000
READS = 10
STREAM = "yes 'an endless stream of text'"


def _growth(route: Recorded, seconds: float) -> float:
    """Return the most MiB by which the proxy grows while RATE bytes are read per second. Blocks."""
    before = most = route.memory
    with subprocess.Popen(
        route.command(HOST, STREAM), env=route.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert os.read(reader.stdout.fileno(), RATE // READS), "the stream has ended"
                most = max(most, route.memory)
                time.sleep(1 / READS)
        finally:
            reader.terminate()
    return (most - before) / MIB


async def _slow(run: Run) -> Measurement:
    scene = await make_scene(run.stage)
    grown = []
    for number in range(run.effort.rounds):
        run.say(f"round {number + 1} of {run.effort.rounds}")
        if number:
            await scene.house.proxy.restart()
        route = scene.ours_by(AccessMethod.INNER_AGENT)
        await route.ssh(HOST, "true")
        await route.settled()
        grown.append(await in_thread(lambda route=route: _growth(route, run.effort.slow)))  # type: ignore[misc]
        await route.settled()
        await route.tidy()
    return Measurement(
        figures=[
            Figure(
                name=f"memory, a reader of {RATE // 1000} kB/s",
                unit="MiB",
                ours=tuple(grown),
                must=at_most(8),
                aim=at_most(4),
                gate=at_most(16),
            )
        ],
        notes=[
            f"the most resident memory during {run.effort.slow:g} s, minus the memory after one login; the"
            " proxy is restarted before each round",
        ],
    )


SLOW = Benchmark(name="slow", about="memory with a reader of 1 kB/s on an endless stream", run=_slow)
