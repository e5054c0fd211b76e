"""Bulk transfers of text through ``ssh -J``: their speed, and the CPU time of the server in the middle.

Each transfer is a command in a connection that is open already, so that small sizes do not measure logins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.benchmark import GB, MB, Benchmark, Measurement, Run
from bench.figures import Bars, Figure, at_least_ratio, at_most_ratio
from bench.scene import HOST, PATIENCE, Route, Scene, make_scene
from tests.support.process import run as run_program

LINE = b"The quick brown fox jumps over the lazy dog, and over %09d again.\n"
NOWHERE = Path(os.devnull)


def write_text(path: Path, size: int) -> Path:
    """Write a file of ``size`` bytes of text, in which each line is different; return its path."""
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
    """``text`` is transferred. ``copy`` is where programs that write a file put it."""

    text: Path
    copy: Path

    def check(self) -> None:
        """Check the size of the copy, and remove the copy."""
        assert self.copy.stat().st_size == self.text.stat().st_size, "the copy is incomplete"
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


#: Gates: 1.6 times what must be reached, or less by this factor. On a shared machine with two cores the
#: ratios of single rounds differ by up to this factor, and six of seven rounds have to miss.
DOWN_SPEED = Bars(must=at_least_ratio(0.9), aim=at_least_ratio(1.0), gate=at_least_ratio(0.56))
DOWN_SPEED_CHACHA = Bars(must=at_least_ratio(0.65), aim=at_least_ratio(1.0), gate=at_least_ratio(0.4))
UP_SPEED = Bars(must=at_least_ratio(1.0), aim=at_least_ratio(1.2), gate=at_least_ratio(0.62))
ONLY_GATED_SPEED = Bars(gate=at_least_ratio(0.4))
#: With AES-GCM on both routes, sshd needs two thirds of the CPU that it needs with its default, ChaCha20.
AES_CPU = Bars(gate=at_most_ratio(8))
CPU = Bars(must=at_most_ratio(2.2), aim=at_most_ratio(1.8), gate=at_most_ratio(3.5))
CPU_CHACHA = Bars(must=at_most_ratio(3.2), aim=at_most_ratio(1.8), gate=at_most_ratio(5.1))
#: With hashes of the files: up to 3.6 times on a busy machine.
ONLY_GATED_CPU = Bars(gate=at_most_ratio(5))

AES_ONLY = "Ciphers aes128-gcm@openssh.com"
CHACHA_ONLY = "Ciphers chacha20-poly1305@openssh.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One kind of transfer. ``client``: a line of ssh_config for both connections of the client."""

    name: str
    job: Job
    speed: Bars
    cpu: Bars
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one transfer took: seconds on the clock, and seconds of CPU of the server in the middle."""

    clock: float
    cpu: float


async def _cost(route: Route, job: Job, files: Files) -> Cost:
    await route.calm()
    cpu, began = route.cpu, time.perf_counter()
    await job(route, files)
    clock = time.perf_counter() - began
    if files.copy.exists():
        files.check()
    await route.tidy()
    await route.calm()
    return Cost(clock=clock, cpu=route.cpu - cpu)


async def _costs(run: Run, scene: Scene, transfer: Transfer, files: Files) -> dict[Route, list[Cost]]:
    """Measure one kind of transfer in all rounds, by both routes in turns."""
    if transfer.client:
        scene = scene.with_client(transfer.client)
    costs: dict[Route, list[Cost]] = {scene.ours: [], scene.yardstick: []}
    for route in scene.routes:
        await route.keep_open()
    for number in range(run.effort.rounds):
        for route in scene.turn(number):
            run.say(f"{transfer.name}, round {number + 1} of {run.effort.rounds}, {route.name}")
            costs[route].append(await _cost(route, transfer.job, files))
    for route in scene.routes:
        await route.close()
    return costs


def _figures(transfer: Transfer, size: int, ours: Sequence[Cost], yardstick: Sequence[Cost]) -> list[Figure]:
    return [
        Figure(
            name=transfer.name,
            unit="MB/s",
            ours=tuple(size / MB / cost.clock for cost in ours),
            yardstick=tuple(size / MB / cost.clock for cost in yardstick),
            must=transfer.speed.must,
            aim=transfer.speed.aim,
            gate=transfer.speed.gate,
        ),
        Figure(
            name=f"CPU, {transfer.name}",
            unit="s/GB",
            ours=tuple(cost.cpu * GB / size for cost in ours),
            yardstick=tuple(cost.cpu * GB / size for cost in yardstick),
            must=transfer.cpu.must,
            aim=transfer.cpu.aim,
            gate=transfer.cpu.gate,
        ),
    ]


_NOTES = (
    "the connection is open before the transfer, so the login is not measured",
    "CPU: user and system time of the server in the middle, with the end of the recording for conchrec",
)
_CIPHER_NOTE = (
    "without a cipher in the name: OpenSSH's defaults (conchrec chooses AES-GCM if the client offers it, the"
    " sshd in the middle the client's first cipher, ChaCha20); with one: both connections of the client offer"
    " only aes128-gcm@openssh.com or chacha20-poly1305@openssh.com, by both routes"
)


def _benchmark(name: str, about: str, *transfers: Transfer) -> Benchmark:
    async def measured(run: Run) -> Measurement:
        scene, size = await make_scene(run.stage), run.effort.size
        files = Files(text=write_text(run.stage.path("text"), size), copy=run.stage.path("copies/copy"))
        # Written back now: otherwise the disk would be busy during a round.
        (await run_program("sync", files.text, within=PATIENCE)).check()
        figures: list[Figure] = []
        for transfer in transfers:
            costs = list((await _costs(run, scene, transfer, files)).values())
            figures += _figures(transfer, size, *costs)
        ciphers = (_CIPHER_NOTE,) if any(transfer.client for transfer in transfers) else ()
        return Measurement(figures=figures, notes=(f"{size / GB:g} GB of text", *_NOTES, *ciphers))

    return Benchmark(name=name, about=about, run=measured)


DOWNLOAD = _benchmark(
    "download",
    "download by ssh HOST 'cat FILE', recorded: speed, and CPU of the proxy",
    Transfer(name="download", job=_download, speed=DOWN_SPEED, cpu=CPU),
    Transfer(name="download, AES-GCM", job=_download, speed=ONLY_GATED_SPEED, cpu=AES_CPU, client=AES_ONLY),
    Transfer(
        name="download, ChaCha20", job=_download, speed=DOWN_SPEED_CHACHA, cpu=CPU_CHACHA, client=CHACHA_ONLY
    ),
)
UPLOAD = _benchmark(
    "upload",
    "upload by ssh HOST 'cat > /dev/null', recorded: speed, and CPU of the proxy",
    Transfer(name="upload", job=_upload, speed=UP_SPEED, cpu=CPU),
    Transfer(name="upload, AES-GCM", job=_upload, speed=ONLY_GATED_SPEED, cpu=AES_CPU, client=AES_ONLY),
    Transfer(
        name="upload, ChaCha20", job=_upload, speed=ONLY_GATED_SPEED, cpu=CPU_CHACHA, client=CHACHA_ONLY
    ),
)
SCP = _benchmark(
    "scp",
    "scp in both directions, recorded: speed, and CPU of the proxy",
    Transfer(name="scp upload", job=_scp_up, speed=UP_SPEED, cpu=ONLY_GATED_CPU),
    Transfer(name="scp download", job=_scp_down, speed=UP_SPEED, cpu=ONLY_GATED_CPU),
)
SFTP = _benchmark(
    "sftp",
    "sftp in both directions, recorded: speed, and CPU of the proxy",
    Transfer(name="sftp upload", job=_sftp_up, speed=UP_SPEED, cpu=ONLY_GATED_CPU),
    Transfer(name="sftp download", job=_sftp_down, speed=UP_SPEED, cpu=ONLY_GATED_CPU),
)
