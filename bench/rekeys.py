"""One connection that carries a lot: CPU for each GB as it grows, with the rekeys that come of it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from bench.benchmark import GB, MB, Benchmark, Measured, Run
from bench.bulk import NOWHERE, write_text
from bench.figures import Figure, at_most, at_most_ratio
from bench.scene import HOST, PATIENCE, make_scene

#: Steps that the whole is measured in.
STEPS = 20
#: The target says so after each step, on stderr; the text is on stdout.
DONE = b"a step is done\n"
FLAT = 1.1
#: What ``ssh -v`` says of new keys for what it reads, and the ssh that -J has started with it.
REKEYED = re.compile(rb"set_newkeys: rekeying in")


def _quarters(values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The first quarter, and the last."""
    count = max(1, len(values) // 4)
    return tuple(values[:count]), tuple(values[-count:])


async def _long(run: Run) -> Measured:
    scene = await make_scene(run.stage)
    route = scene.ours
    size = run.effort.long_size // STEPS
    text = write_text(run.stage.path("text"), size)
    command = f"while read again; do cat {text}; printf '{DONE.decode().strip()}\\n' >&2; done"
    connection = route.start("-v", HOST, command, stdin=None, stdout=NOWHERE)
    costs, rates, memory = [], [], []
    heard = 0
    for number in range(STEPS + 1):
        run.say(f"{number * size / GB:.1f} of {STEPS * size / GB:.1f} GB")
        cpu, began = route.cpu, time.perf_counter()
        connection.write(b"again\n")
        heard = await connection.says(DONE, after=heard, within=PATIENCE)
        if number:  # the first one has the login in it
            costs.append((route.cpu - cpu) * GB / size)
            rates.append(size / MB / (time.perf_counter() - began))
            memory.append(route.memory / MB)
    connection.close_input()
    (await connection.wait(PATIENCE)).check()
    await route.settled()
    rekeyed = len(REKEYED.findall(bytes(connection.stderr)))
    (first, last), (slow, fast) = _quarters(costs), _quarters(rates)
    return Measured(
        figures=[
            Figure(
                name="CPU, last quarter by first",
                unit="s/GB",
                ours=last,
                yardstick=first,
                must=at_most_ratio(FLAT),
                aim=at_most_ratio(FLAT),
                gate=at_most_ratio(1.5),
            ),
            Figure(name="throughput, last quarter by first", unit="MB/s", ours=fast, yardstick=slow),
            Figure(
                name="memory, last quarter by first",
                unit="MB",
                ours=_quarters(memory)[1],
                yardstick=_quarters(memory)[0],
                gate=at_most_ratio(1.5),
            ),
            Figure(name="CPU, all of it", unit="s/GB", ours=tuple(costs), must=at_most(10), aim=at_most(5)),
        ],
        notes=[
            f"{STEPS * size / GB:g} GB of text in {STEPS} steps through one session, after a first step for"
            " warmth; the yardstick of the first rows is the same connection when it was young",
            f"rekeyed {rekeyed} times, outer and inner connection together, as ssh has it; that to the target"
            " is counted by nobody here",
            "s/GB of each step: " + " ".join(f"{cost:.1f}" for cost in costs),
        ],
    )


REKEYS = Benchmark(
    name="rekeys",
    about="20 GB through one connection: CPU for each GB as it grows",
    run=_long,
    only_named=True,
    in_gate=False,
)
