"""The time of a list of thousands of recordings, and of a search in their output."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from bench.benchmark import Benchmark, Measurement, Run
from bench.figures import Figure, at_most_difference, at_most_ratio
from conchrec.model import SessionInfo, Target
from conchrec.recording.catalogue.indexer import fill
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.settings import Fsync
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.store import LocalStore

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
#: Between the starts of two recordings.
APART = timedelta(minutes=10)
LINES = 20
#: With 500 recordings, 1.6 times the slowest command that was measured.
GATE = at_most_ratio(32)
WORDS = tuple(f"word{number}" for number in range(5000))
#: A text in every recording, and a text in one.
COMMON, RARE = "last login", "drop table customers"


def record(directory: Path, count: int) -> None:
    """Record ``count`` shells, each with LINES lines of words."""
    clock, rng = Clock(), random.Random(1)
    store = LocalStore(
        finisher=Finisher(RecordingTree(directory), RecordingSigner.generate(), lambda: began),
        clock=clock,
        in_thread=execute,
        fsync=Fsync.NEVER,
        monotonic=clock.seconds,
        now=lambda: began,
    )
    for number in range(count):
        began = BEGAN + APART * number
        recorder = store.open(
            SessionInfo(
                sid=new_session_id(began),
                cid="c",
                user=rng.choice(("joe", "ann", "bob")),
                login="root",
                target=Target(host=f"web{number % 50}"),
                address="192.0.2.7:50000",
                started=began,
            )
        )
        recorder.start("shell")
        lines = [COMMON, *(" ".join(rng.choices(WORDS, k=10)) for _ in range(LINES))]
        if number == count // 2:
            lines.append(RARE)
        recorder.output("".join(f"{line}\r\n" for line in lines).encode())
        recorder.close("the session ended")


def time_command(command: Sequence[str], lines: int | None = None) -> float:
    """Run a command and return the seconds; ``lines``: how many lines it must print. Blocks."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    seconds = time.perf_counter() - began
    assert lines is None or done.stdout.count(b"\n") == lines, done.stdout[:1000]
    return seconds


async def _find(run: Run) -> Measurement:
    count, directory, config = run.effort.recordings, run.stage.path("recordings"), run.stage.path("config")
    config.write_text(f"users: {{}}\nroles: {{}}\nrecordings: {{directory: {directory}}}\n")
    run.say(f"{count} recordings")
    await deferToThread(lambda: record(directory, count))
    began = time.perf_counter()
    problems = await deferToThread(
        lambda: fill(directory, lambda done, of: run.say(f"{done} of {of} in the index"))
    )
    assert not problems, problems[:3]
    filled = time.perf_counter() - began
    python = [sys.executable, "-c"]
    ask = [*python, "from conchrec.cli.main import run; run()", "recordings"]
    limit = min(100, count)
    queries = {
        "list": ([*ask, "ls", "-c", str(config)], count, 0.2),
        "search, one match": ([*ask, "search", RARE, "-c", str(config)], 1, 1.0),
        "search, a match in each": (
            [*ask, "search", COMMON, "--limit", str(limit), "-c", str(config)],
            limit,
            1.0,
        ),
    }
    ours: dict[str, list[float]] = {name: [] for name in queries}
    starts: list[float] = []
    for number in range(run.effort.rounds):
        run.say(f"round {number + 1} of {run.effort.rounds}")
        starts.append(await deferToThread(lambda: time_command([*python, "pass"])))
        for name, (command, lines, _) in queries.items():
            ours[name].append(await deferToThread(time_command, command, lines))
    return Measurement(
        figures=[
            Figure(
                name=f"{name}, of {count}",
                unit="s",
                ours=tuple(ours[name]),
                yardstick=tuple(starts),
                must=at_most_difference(most),
                gate=GATE,
            )
            for name, (_, _, most) in queries.items()
        ],
        notes=[
            "the yardstick is a Python that does nothing; each command is a new process",
            f"the files are in the page cache; making the index took {filled:.0f} s",
        ],
    )


FIND = Benchmark(
    name="find",
    about="a list of thousands of recordings, and a search in them",
    run=_find,
)
