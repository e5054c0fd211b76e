"""Users who flood the proxy: the memory that they take, and the time until a lock ends their connections."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from bench.hostile_client import SILENT_BYTES
from bench.hostile_plan import Plan
from conchrec.proxy.session_rate import SESSION_BURST
from tests.support.house import House, build
from tests.support.process import Process
from tests.support.proxy import our_environment
from tests.support.sshd import LOGIN
from tests.support.stage import Stage

#: MiB that a hundred channels, or ten connections, may take. Without limits: 200 and 10 times as much.
MOST = 40
MIB = 1024 * 1024
#: A lock has effect within 2 s; on a busy machine it may take this long.
LOCK_SECONDS = 10.0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A target that accepts connections and sends nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        yield listening.getsockname()[1]


def flood(house: House, kind: str, *, count: int = 1, channels: int = 1, port: int = 0) -> Process:
    """Start a flood by ``ann``; it ends when its input is closed, or with the test."""
    plan = Plan(
        kind=kind,
        port=house.proxy.port,
        user=house.ann.name,
        login=LOGIN,
        key=str(house.ann.key.path),
        target_port=port or house.target.port,
        count=count,
        channels=channels,
    )
    words = (sys.executable, "-m", "bench.hostile_client", plan.words())
    return house.stage.process(*words, env=our_environment(), stdin=None)


async def echo(worker: Process, number: int) -> None:
    worker.write(b"line %d.\n" % number)
    await worker.says(f"got line {number}.\n")


async def test_bounds_memory_of_channels_to_silent_target(stage: Stage, silent_port: int) -> None:
    house = await build(stage)
    before = house.proxy.memory()
    client = flood(house, "silent", channels=100, port=silent_port)
    await client.says("flooding\n")
    # The proxy answers a login after it has read what came before.
    await house.client().ssh("web1", "true")
    grown = (house.proxy.memory() - before) / MIB
    assert grown < MOST < 100 * SILENT_BYTES / MIB


async def test_bounds_memory_of_unread_replies(stage: Stage) -> None:
    house = await build(stage)
    before = house.proxy.memory()
    client = flood(house, "unread", count=10)
    await client.says("flooding\n")
    worker = house.client().start("web1", "while read x; do echo got $x; done", stdin=None)
    for number in range(50):
        await echo(worker, number)
    assert (house.proxy.memory() - before) / MIB < MOST
    await worker.stop()


async def test_queues_sessions_that_are_opened_and_abandoned(stage: Stage) -> None:
    house = await build(stage)
    client = flood(house, "sessions")
    [event] = await house.proxy.audited("session.delayed", user="ann")
    assert isinstance(event["seconds"], float) and event["seconds"] > 0
    # Somebody else does not wait.
    (await house.client().ssh("web1", "true")).check()
    assert not house.proxy.audit("session.delayed", user="joe")
    client.close_input()
    sent = int((await client.wait()).text.rpartition("sent ")[2])
    assert sent >= SESSION_BURST


@pytest.mark.parametrize("kind", ["ping", "window-change"])
async def test_ends_flood_when_user_is_locked(stage: Stage, kind: str) -> None:
    house = await build(stage)
    worker = house.client().start("web1", "while read x; do echo got $x; done", stdin=None)
    await echo(worker, 0)
    client = flood(house, kind)
    await client.says("flooding\n")
    for number in range(1, 20):
        await echo(worker, number)
    assert b"lost" not in client.stdout, "it is delayed, and not disconnected"
    began = time.monotonic()
    (await house.proxy.command("lock", "--user", "ann", "--reason", "flood")).check()
    await client.says("lost\n", within=LOCK_SECONDS + time.monotonic() - began)
    await echo(worker, 20)
    await worker.stop()
