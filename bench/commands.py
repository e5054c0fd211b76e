"""CPU time of conchrec commands that do little, compared with a Python that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from twisted.internet.threads import deferToThread

from bench.benchmark import Benchmark, Measurement, Run
from bench.figures import Figure, at_most, at_most_ratio

_CONFIG = """\
users: {joe: {roles: [ops]}}
roles: {ops: {logins: [root], hosts: [10.0.0.0/8]}}
listen: ["tcp:3023"]
state_dir: state
recordings: {directory: recordings}
"""
_COMMANDS = ("--help", "recordings ls --help", "can joe root@10.0.0.1", "config check", "recordings ls")


def _cpu(command: Sequence[str]) -> float:
    """Run a command; return its user and system time in milliseconds. Blocks."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return (usage.ru_utime + usage.ru_stime) * 1000


async def _commands(run: Run) -> Measurement:
    config = run.stage.path("config.yaml")
    config.write_text(_CONFIG)
    for name in ("state", "recordings"):
        config.with_name(name).mkdir()
    python = [sys.executable, "-c"]
    start = [*python, "from conchrec.cli.main import run; run()", "-c", str(config)]
    ours: dict[str, list[float]] = {words: [] for words in _COMMANDS}
    base: list[float] = []
    for number in range(run.effort.rounds):
        run.say(f"round {number + 1} of {run.effort.rounds}")
        base.append(await deferToThread(_cpu, [*python, "pass"]))
        for words, values in ours.items():
            values.append(await deferToThread(_cpu, [*start, *words.split()]))
    return Measurement(
        figures=[
            Figure(
                name=f"CPU, conchrec {words}",
                unit="ms",
                ours=tuple(values),
                yardstick=tuple(base),
                must=at_most(150),
                aim=at_most(75),
                gate=at_most_ratio(8 if words.endswith("--help") else 20),
            )
            for words, values in ours.items()
        ],
        notes=["the yardstick is a Python that does nothing; each command is a new process"],
    )


COMMANDS = Benchmark(name="commands", about="CPU of commands that do little", run=_commands)
