"""Endpoint descriptions, on their way to Twisted."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from conchrec.service.listen import ACCEPTS, BACKLOG, listener, with_backlog
from tests.support.wait import reactor


@pytest.mark.parametrize(
    ("description", "backlog"),
    [
        ("tcp:3023", BACKLOG),
        ("tcp:3023:interface=127.0.0.1", BACKLOG),
        ("tcp:interface=127.0.0.1:port=3023", BACKLOG),
        ("tcp6:3023", BACKLOG),
        (r"tcp6:3023:interface=\:\:1", BACKLOG),
        ("tcp:3023:127.0.0.1", BACKLOG),
        ("tcp:3023:127.0.0.1:7", 7),
        ("tcp:3023:backlog=7", 7),
        ("tcp:backlog=7:port=3023", 7),
    ],
)
def test_sets_backlog(description: str, backlog: int) -> None:
    reactor = MemoryReactor()
    serverFromString(reactor, with_backlog(description)).listen(Factory())
    [(port, _, backlog, _)] = reactor.tcpServers
    assert (port, backlog) == (3023, backlog)


@pytest.mark.parametrize("description", ["unix:/run/conchrec", "systemd:domain=INET:index=0", "fd:3"])
def test_keeps_endpoint_without_backlog(description: str) -> None:
    assert with_backlog(description) == description


class Silent(Factory):
    """Counts who comes, and lets nobody in."""

    came = 0

    def buildProtocol(self, addr: object) -> None:
        self.came += 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_accepts_few_connections_in_one_turn(kind: str, tmp_path: Path) -> None:
    """However many come: each of them is work, and others wait meanwhile."""
    factory = Silent()
    path = str(tmp_path / "socket")
    service = listener(
        f"unix:{path}" if kind == "unix" else "tcp:0:interface=127.0.0.1", factory, [], reactor
    )
    port: Any = await service.endpoint.listen(service.factory)
    try:
        with ExitStack() as crowd:
            for _ in range(10 * ACCEPTS):
                client = crowd.enter_context(
                    socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
                )
                client.connect(path if kind == "unix" else ("127.0.0.1", port.getHost().port))
            for turns in range(1, 11):
                port.doRead()
                assert factory.came == turns * ACCEPTS
    finally:
        await port.stopListening()
