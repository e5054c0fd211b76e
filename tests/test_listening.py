"""Endpoint descriptions, on their way to Twisted."""

from __future__ import annotations

import pytest
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from conchrec.listening import BACKLOG, with_backlog


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
def test_backlog(description: str, backlog: int) -> None:
    reactor = MemoryReactor()
    serverFromString(reactor, with_backlog(description)).listen(Factory())
    [(port, _, said, _)] = reactor.tcpServers
    assert (port, said) == (3023, backlog)


@pytest.mark.parametrize("description", ["unix:/run/conchrec", "systemd:domain=INET:index=0", "fd:3"])
def test_what_has_none(description: str) -> None:
    assert with_backlog(description) == description
