"""Peers that keep a connection and say nothing, or nonsense: they cost little, and not for long."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import paramiko
import pytest

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import block, fact, in_thread

SECONDS = 30.0
HELLO = b"SSH-2.0-OpenSSH_9.2p1\r\n"


@pytest.fixture(scope="module")
def hasty(shared_stage: Stage) -> House:
    """Who has not logged in after two seconds is sent away; no more than ten may try at once."""
    limits = {"login_time": "2s", "unauthenticated": 10}
    return block(build(shared_stage, settings={"limits": limits}))


def until_it_hangs_up(house: House, sent: bytes) -> Callable[[], int]:
    """Say this and then nothing; how much came back before the end. For a thread."""

    def talk() -> int:
        received = 0
        with socket.create_connection((house.proxy.host, house.proxy.port), timeout=SECONDS) as connection:
            try:
                connection.sendall(sent)
                while data := connection.recv(65536):
                    received += len(data)
            except ConnectionError:
                pass
        return received

    return talk


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"SSH-2.0",
        HELLO,
        b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n",
        HELLO + b"\xff\xff\xff\xff" + b"x" * 1000,
        HELLO + b"\x00\x03\x00\x00\x04" + b"\x14" + b"x" * 100,
        HELLO + b"\x00\x00\x00\x00" * 100,
        HELLO + b"\x00\x00\x00\x0c\x0a\x14" + b"\x00" * 10,
        b"\r\n" * 5000,
        b"x" * 200_000,
        os.urandom(50_000),
    ],
    ids=["nothing", "half", "hello", "http", "4 GB", "196 KB", "empty", "kexinit", "lines", "line", "noise"],
)
async def test_disconnects_silent_peers_before_login(hasty: House, sent: bytes) -> None:
    memory = hasty.proxy.memory()
    assert await in_thread(until_it_hangs_up(hasty, sent)) < 10_000
    assert hasty.proxy.memory() - memory < 4 * 1024 * 1024
    assert "Traceback" not in hasty.proxy.log, hasty.proxy.log[-5000:]


async def test_closes_silent_tunnel(hasty: House) -> None:
    """Logged in outside, and nothing comes through the tunnel: that ends, and not the connection."""

    def talk() -> bool:
        key = paramiko.Ed25519Key.from_private_key_file(str(hasty.keyless.key.path))
        with paramiko.Transport((hasty.proxy.host, hasty.proxy.port)) as outer:
            outer.connect(username="joe", pkey=key)
            where = ("localhost", hasty.target.port)
            tunnel = outer.open_channel("direct-tcpip", where, ("127.0.0.1", 1), timeout=SECONDS)
            tunnel.settimeout(SECONDS)
            while tunnel.recv(65536):
                pass
            again = outer.open_channel("direct-tcpip", where, ("127.0.0.1", 1), timeout=SECONDS)
            again.settimeout(SECONDS)
            return again.recv(8) == b"SSH-2.0-"

    assert await in_thread(talk)


async def test_drops_connections_above_startup_limit(hasty: House) -> None:
    crowd = [socket.create_connection((hasty.proxy.host, hasty.proxy.port)) for _ in range(30)]
    try:
        await fact(lambda: "(unauthenticated)" in hasty.proxy.log, lambda: hasty.proxy.log[-3000:])
    finally:
        for connection in crowd:
            connection.close()

    files = hasty.proxy.open_files
    await fact(lambda: files() < 25, "those who have gone are forgotten")
    result = await hasty.client(AccessMethod.CERTIFICATE).ssh("web1", "echo there")
    assert (result.stdout, result.code) == (b"there\n", 0), str(result)


async def test_keeps_authenticated_idle_connections(hasty: House) -> None:
    """The time for a login is no time for a session."""
    process = hasty.client(AccessMethod.CERTIFICATE).start("web1", "echo begun; sleep 4; cat")
    await process.says("begun")
    process.write(b"still here\n")
    await process.says("still here")
    process.close_input()
    assert (await process.wait()).code == 0
