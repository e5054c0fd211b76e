"""Limits under load: thousands who never log in, while somebody works; bandwidth; channels and commands."""

from __future__ import annotations

import resource
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import paramiko
import pytest

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.otherclients import paramiko_connections
from tests.support.process import Process
from tests.support.stage import Stage
from tests.support.wait import LONG, becomes, fact, in_thread

FLOOD = 2000
#: What one who has not logged in may cost, in KiB.
MOST = 64.0


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 8192), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def echoes(process: Process, count: int) -> float:
    """How long a line takes, there and back: the median, in seconds."""
    took = []
    for _ in range(count):
        number = process.stdout.count(b"\n")
        began = time.monotonic()
        process.write(f"line {number}.\n".encode())
        await process.says(f"got line {number}.\n")
        took.append(time.monotonic() - began)
    return statistics.median(took)


def connect(
    house: House, number: int, *, network: int = 1, of: int = 8, halfway: bool = False
) -> socket.socket:
    """Somebody at one ``of`` so many other addresses, who is silent, or stops after the version."""
    connection = socket.socket()
    connection.bind((f"127.0.{network}.{number % of + 1}", 0))
    connection.settimeout(20)
    connection.connect((house.proxy.host, house.proxy.port))
    if halfway:
        connection.sendall(b"SSH-2.0-flood\r\n")
    return connection


@pytest.mark.usefixtures("many_files")
async def test_serves_users_during_2000_idle_connections(stage: Stage) -> None:
    house = await build(stage)
    worker = house.client().start("web1", "while read x; do echo got $x; done", stdin=None)
    before = await echoes(worker, 20)
    with ExitStack() as crowd:

        def flood() -> None:
            for number in range(FLOOD):
                crowd.enter_context(connect(house, number, halfway=number % 2 == 0))

        pushing = in_thread(flood)
        during = await echoes(worker, 20)
        await pushing
        # Ten times as long is no longer the same; a tenth of a second nobody notices.
        assert max(before, during) < max(0.1, 10 * before)
        refused = await house.proxy.audited("connection.refused")
        assert {str(event["addr"])[:8] for event in refused} == {"127.0.1."}
        assert (await house.client().ssh("web1", "echo in")).check().stdout == b"in\n"
        assert await echoes(worker, 20) < max(0.1, 10 * before)
    assert (await house.client().ssh("web1", "echo in")).check().stdout == b"in\n"
    await fact(lambda: house.proxy.open_files() < 60, lambda: f"{house.proxy.open_files()} files are open")
    await worker.stop()


@pytest.mark.usefixtures("many_files")
async def test_bounds_memory_of_unauthenticated_connection(stage: Stage) -> None:
    """Silent, after the version, and after the key exchange."""
    limits = {"unauthenticated": "3000:30:3000", "per_address": 3000, "connections": 3000}
    house = await build(stage, settings={"limits": limits})

    def cost(count: int, halfway: bool) -> float:
        with ExitStack() as crowd:
            before = house.proxy.memory()
            for number in range(count):
                network = 3 if halfway else 2
                connection = crowd.enter_context(
                    connect(house, number, network=network, of=200, halfway=halfway)
                )
                # The proxy has met them once it has said its version.
                assert connection.recv(64).startswith(b"SSH-2.0-conchrec")
            return (house.proxy.memory() - before) / count / 1024

    for halfway in (False, True):
        assert await in_thread(partial(cost, 1000, halfway)) < MOST

    def exchanged(count: int) -> float:
        transports = []
        before = house.proxy.memory()
        try:
            for number in range(count):
                transport = paramiko.Transport(connect(house, number, network=4, of=200))
                transports.append(transport)
                transport.start_client(timeout=20)
            return (house.proxy.memory() - before) / count / 1024
        finally:
            for transport in transports:
                transport.close()

    assert await in_thread(lambda: exchanged(100)) < MOST


@pytest.mark.parametrize("method", ["bandwidth_per_user", "bandwidth_per_target"])
async def test_limits_bandwidth(stage: Stage, method: str) -> None:
    size, rate = 3_000_000, 1_000_000
    house = await build(stage, settings={"limits": {method: f"{rate}B"}})
    client = house.client(AccessMethod.INNER_AGENT)
    for command, stdin in ((f"head -c {size} /dev/zero", b""), ("cat >/dev/null", bytes(size))):
        began = time.monotonic()
        result = (await client.ssh("web1", command, stdin=stdin)).check()
        took = time.monotonic() - began
        assert len(result.stdout) == (0 if stdin else size)
        # The SSH of the inner connection counts, too, and what may pass at once does not.
        assert 0.7 < took / (size / rate) < 3


async def test_limits_rate_of_sessions_and_commands(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"sessions_per_user": 2, "commands": 1}})
    shared = ("-o", f"ControlPath={stage.short / 'control'}")
    client = house.client()
    first = client.start("-M", *shared, "web1", "echo ready; cat", stdin=None)
    await first.says("ready")
    other = client.start(*shared, "web1", "echo ready; cat", stdin=None)
    await other.says("ready")
    third = await client.ssh("web1", "echo never")
    assert third.code == 255 and "joe has 2 open, which is the limit" in third.errors, str(third)
    await house.proxy.audited("session.rejected", rule="sessions_per_user")
    connections = [client.start("-v", "-N", "web1") for _ in range(2)]
    limit = "joe has 2 open, which is the limit (sessions_per_user)"
    reason = f"too many channels to targets: {limit}. Close one, then try again"
    await house.proxy.audited("session.rejected", reason=reason)
    for method in connections:
        await method.stop()
    held = house.client().start("proxy", "requests", "--wait", stdin=None)

    async def is_refused() -> bool:
        result = await house.client().ssh("proxy", "hosts")
        return result.code == 1 and "joe has 1 open, which is the limit (commands)" in result.errors

    await becomes(is_refused, True, "nothing is refused")
    await held.stop()
    await first.stop()


async def test_limits_rate_of_channels(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"channels": 3}})

    def too_many() -> list[str]:
        outer, inner = paramiko_connections(house)
        try:
            held, reasons = [], []
            for _ in range(5):
                try:
                    held.append(inner.open_session(timeout=LONG))
                except paramiko.ChannelException as error:
                    reasons.append(str(error))
            held.pop().close()
            end = time.monotonic() + LONG
            while time.monotonic() < end:
                # The channel is free once its end went both ways.
                try:
                    held.append(inner.open_session(timeout=LONG))
                    break
                except paramiko.ChannelException:
                    pass
            assert len(held) == 3
            return reasons
        finally:
            inner.close()
            outer.close()

    assert len(await in_thread(too_many)) == 2
    [event] = await house.proxy.audited("session.rejected", rule="channels")
    assert event["reason"] == "too many channels in one connection: the limit is 3" and event["user"] == "joe"
