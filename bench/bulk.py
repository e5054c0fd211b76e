"""Bulk transfers of text through ``-J``, each a command in a connection that is open already: how fast, and
what they cost the proxy. With the login in it, small sizes would measure that."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.benchmark import GB, MB, Benchmark, Measured, Run
from bench.figures import Bar, Figure, at_least_ratio, at_most, at_most_ratio
from bench.scene import HOST, PATIENCE, Route, Scene, make_scene
from tests.support.process import run as run_program

LINE = b"The quick brown fox jumps over the lazy dog, and over %09d again.\n"
NOWHERE = Path(os.devnull)

MUST, AIM = at_least_ratio(0.8), at_least_ratio(1.0)
#: What is read and recorded line by line is the slowest: measured between 0.46 and 0.61 in November 2026.
GATE, TEXT_GATE = at_least_ratio(0.4), at_least_ratio(0.25)
CPU_MUST, CPU_AIM = at_most(10), at_most(5)
#: sshd needs one or two seconds of CPU for each GB.
CPU_GATE = at_most_ratio(15)


def write_text(path: Path, size: int) -> Path:
    """A file of ``size`` bytes, all lines different; ``path`` again."""
    number = 0
    left = size
    with path.open("wb") as file:
        while left > 0:
            block = b"".join(LINE % n for n in range(number, number + 10_000))[:left]
            file.write(block)
            number += 10_000
            left -= len(block)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """``text`` goes over, ``copy`` is where it may end up."""

    text: Path
    copy: Path

    def check(self) -> None:
        """The copy is complete; it goes away."""
        assert self.copy.stat().st_size == self.text.stat().st_size, "not all of it arrived"
        self.copy.unlink()


Job = Callable[[Route, Files], Awaitable[object]]


async def _download(route: Route, files: Files) -> None:
    await route.ssh(HOST, f"cat {files.text}", stdout=NOWHERE)


async def _upload(route: Route, files: Files) -> None:
    await route.ssh(HOST, "cat > /dev/null", stdin=files.text)


async def _scp_up(route: Route, files: Files) -> None:
    await route.program("scp", "-q", files.text, f"{HOST}:{files.copy}")


async def _scp_down(route: Route, files: Files) -> None:
    await route.program("scp", "-q", f"{HOST}:{files.text}", files.copy)


async def _sftp_up(route: Route, files: Files) -> None:
    await route.program("sftp", "-q", "-b", "-", HOST, stdin=f"put {files.text} {files.copy}\n".encode())


async def _sftp_down(route: Route, files: Files) -> None:
    await route.program("sftp", "-q", "-b", "-", HOST, stdin=f"get {files.text} {files.copy}\n".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one transfer took: seconds on the clock, and of CPU in the middle."""

    clock: float
    cpu: float


async def _timed(route: Route, job: Job, files: Files) -> Cost:
    await route.calm()
    cpu, began = route.cpu, time.perf_counter()
    await job(route, files)
    clock = time.perf_counter() - began
    if files.copy.exists():
        files.check()
    await route.tidy()
    await route.calm()
    return Cost(clock=clock, cpu=route.cpu - cpu)


async def _measure(run: Run, jobs: dict[str, Job]) -> dict[str, dict[str, list[Cost]]]:
    """For each job and route the rounds; one after the other, and in turns."""
    scene: Scene = await make_scene(run.stage)
    files = Files(
        text=write_text(run.stage.path("text"), run.effort.size), copy=run.stage.path("copies/copy")
    )
    # Written back now, or it would be in the middle of a round.
    (await run_program("sync", files.text, within=PATIENCE)).check()
    costs: dict[str, dict[str, list[Cost]]] = {
        name: {route.name: [] for route in scene.routes} for name in jobs
    }
    for route in scene.routes:
        await route.keep_open()
    for name, job in jobs.items():
        for number in range(run.effort.rounds):
            for route in scene.turn(number):
                run.say(f"{name}, round {number + 1} of {run.effort.rounds}, {route.name}")
                costs[name][route.name].append(await _timed(route, job, files))
    return {
        name: {"ours": by[scene.ours.name], "yardstick": by[scene.yardstick.name]}
        for name, by in costs.items()
    }


def _throughput(name: str, size: int, by: dict[str, list[Cost]], gate: Bar) -> Figure:
    rates = {who: tuple(size / MB / cost.clock for cost in costs) for who, costs in by.items()}
    return Figure(name=name, unit="MB/s", must=MUST, aim=AIM, gate=gate, **rates)


def _cpu(name: str, size: int, by: dict[str, list[Cost]]) -> Figure:
    costs = {who: tuple(cost.cpu * GB / size for cost in measurements) for who, measurements in by.items()}
    return Figure(name=name, unit="s/GB", must=CPU_MUST, aim=CPU_AIM, gate=CPU_GATE, **costs)


def _benchmark(name: str, about: str, jobs: dict[str, Job], gate: Bar = GATE) -> Benchmark:
    async def measured(run: Run) -> Measured:
        measurements = await _measure(run, jobs)
        size = run.effort.size
        return Measured(
            figures=[_throughput(job, size, by, gate) for job, by in measurements.items()],
            notes=[f"{size / GB:g} GB of text; the connection is open before, so the login is not in it"],
        )

    return Benchmark(name=name, about=about, run=measured)


async def _costs(run: Run) -> Measured:
    measurements = await _measure(run, {"download": _download, "upload": _upload, "scp download": _scp_down})
    size = run.effort.size
    return Measured(
        figures=[_cpu(f"CPU, {job}", size, by) for job, by in measurements.items()],
        notes=[
            f"{size / GB:g} GB of text; user and system time of the server in the middle, without the"
            " login, with the manifest of the recording",
        ],
    )


DOWNLOAD = _benchmark("download", "ssh HOST 'cat FILE', recorded", {"download": _download}, TEXT_GATE)
UPLOAD = _benchmark("upload", "ssh HOST 'cat > /dev/null', recorded", {"upload": _upload})
SCP = _benchmark("scp", "scp both ways, recorded", {"scp upload": _scp_up, "scp download": _scp_down})
SFTP = _benchmark("sftp", "sftp both ways, recorded", {"sftp upload": _sftp_up, "sftp download": _sftp_down})
CPU = Benchmark(name="cpu", about="CPU of the proxy for each GB, recorded", run=_costs)
