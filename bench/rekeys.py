"""One connection with many GB: CPU time per GB from first to last, over many rekeys."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from bench.benchmark import GB, MB, Benchmark, Measurement, Run
from bench.bulk import NOWHERE, write_text
from bench.figures import Figure, at_most_ratio
from bench.scene import HOST, PATIENCE, make_scene

#: The transfer is measured in this many steps, with about one rekey of each connection in each of them.
STEPS = 20
#: The target prints this on stderr after each step; the text is on stdout.
DONE = b"a step is done\n"
FLAT = 1.1
#: Printed by ``ssh -v`` for new keys of what it reads, and by the ssh that -J starts.
REKEYED = re.compile(rb"set_newkeys: rekeying in")


def _quarters(values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the first quarter of the values, and the last."""
    count = max(1, len(values) // 4)
    return tuple(values[:count]), tuple(values[-count:])


async def _long(run: Run) -> Measurement:
    size = run.effort.long_size // STEPS
    # About as many rekeys at a small size.
    scene = (await make_scene(run.stage)).with_client(f"RekeyLimit {min(size, GB)}")
    route = scene.ours
    text = write_text(run.stage.path("text"), size)
    command = f"while read again; do cat {text}; printf '{DONE.decode().strip()}\\n' >&2; done"
    connection = route.start("-v", HOST, command, stdin=None, stdout=NOWHERE)
    costs, rates, memory = [], [], []
    at = 0
    for number in range(STEPS + 1):
        run.say(f"{number * size / GB:.1f} of {STEPS * size / GB:.1f} GB")
        cpu, began = route.cpu, time.perf_counter()
        connection.write(b"again\n")
        at = await connection.says(DONE, after=at, within=PATIENCE)
        if number:  # the first step has the login in it
            costs.append((route.cpu - cpu) * GB / size)
            rates.append(size / MB / (time.perf_counter() - began))
            memory.append(route.memory / MB)
    connection.close_input()
    (await connection.wait(PATIENCE)).check()
    await route.settled()
    await route.tidy()
    rekeyed = len(REKEYED.findall(bytes(connection.stderr)))
    assert rekeyed >= STEPS, f"{rekeyed} rekeys only"
    (first, last), (slow, fast) = _quarters(costs), _quarters(rates)
    return Measurement(
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
            Figure(name="CPU, all steps", unit="s/GB", ours=tuple(costs)),
        ],
        notes=[
            f"{STEPS * size / GB:g} GB of text in {STEPS} steps through one session, after a first step that"
            " is not measured; the yardstick of the first rows is the same connection at its beginning",
            f"{rekeyed} rekeys, outer and inner connection together, by the output of ssh; rekeys of the"
            " connection to the target are not counted",
            "s/GB of each step: " + " ".join(f"{cost:.1f}" for cost in costs),
        ],
    )


REKEYS = Benchmark(
    name="rekeys",
    about="20 GB through one connection: CPU per GB from first to last",
    run=_long,
    only_named=True,
)
