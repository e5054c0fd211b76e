"""What the proxy costs, as ratios in one run: the same work straight to a target, through a stock sshd as
jump host (which tunnels and records nothing), and through conchrec (which ends, records and relays).

    .venv/bin/python -m bench.compare [--size MiB] [--rounds N]

Machines are noisy: each figure is the best of some rounds, and only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.support.client import Way
from tests.support.house import House, build
from tests.support.process import environment, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage

Job = Callable[["Route"], Awaitable[None]]


class Route:
    """One way to the target: the words of ssh before its name."""

    def __init__(self, name: str, words: Sequence[str], env: dict[str, str], host: str) -> None:
        self.name = name
        self._words = tuple(words)
        self._env = env
        self._host = host

    async def ssh(self, command: str, stdin: bytes | Path = b"", stdout: Path | None = None) -> None:
        done = await run(
            "ssh", *self._words, self._host, command, env=self._env, stdin=stdin, stdout=stdout, within=600
        )
        if done.code != 0:
            raise SystemExit(f"{self.name}: {done}")


def routes(house: House, directory: Path, jump_port: int) -> list[Route]:
    client = house.client(Way.INNER_AGENT)
    assert house.joe.agent is not None
    env = environment(SSH_AUTH_SOCK=str(house.joe.agent.socket))
    plain = directory / "plain_config"
    common = (
        f"  User {LOGIN}\n  IdentityFile {house.joe.key.path}\n  StrictHostKeyChecking no\n"
        "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
    )
    plain.write_text(
        f"Host jump\n  HostName 127.0.0.1\n  Port {jump_port}\n{common}"
        f"Host web1\n  HostName 127.0.0.1\n  Port {house.target.port}\n{common}"
    )
    return [
        Route("straight", ["-F", str(plain)], env, "web1"),
        Route("ssh -J sshd", ["-F", str(plain), "-J", "jump"], env, "web1"),
        Route("ssh -J conchrec", client.options, env, "web1"),
    ]


def jobs(size: int, directory: Path) -> dict[str, Job]:
    block = directory / "block"
    block.write_bytes(os.urandom(1 << 20) * size)
    text = directory / "text"
    line = b"The quick brown fox jumps over the lazy dog, and over %06d again.\n"
    text.write_bytes(b"".join(line % number for number in range((size << 20) // len(line))))
    nothing = Path(os.devnull)
    return {
        "login and one command": lambda route: route.ssh("true"),
        f"{size} MiB up": lambda route: route.ssh("cat >/dev/null", stdin=block),
        f"{size} MiB of text down": lambda route: route.ssh(f"cat {text}", stdout=nothing),
        f"{size} MiB of bytes down": lambda route: route.ssh(f"cat {block}", stdout=nothing),
    }


async def best(job: Job, route: Route, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        await job(route)
        times.append(time.perf_counter() - began)
    return min(times)


async def compare(size: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="conchrec-bench-") as name:
        directory = Path(name)
        stage = Stage(directory=directory)
        try:
            house = await build(stage)
            jump = await stage.sshd(users=[house.joe.key])
            ways = routes(house, directory, jump.port)
            print(f"{'':<26}" + "".join(f"{route.name:>22}" for route in ways))
            for what, job in jobs(size, directory).items():
                times = [await best(job, route, rounds) for route in ways]
                cells = [f"{took:.2f} s ({took / times[0]:.1f}x)" for took in times]
                print(f"{what:<26}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
            print(f"memory of conchrec: {house.proxy.memory() / (1 << 20):.0f} MiB")
        finally:
            await stage.close()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="ratios: straight, through a tunnel, through conchrec")
    parser.add_argument("--size", type=int, default=64, metavar="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)

    def start(_: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(compare(args.size, args.rounds))

    react(start)


if __name__ == "__main__":
    main(sys.argv[1:])
