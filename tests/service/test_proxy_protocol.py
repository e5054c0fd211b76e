"""PROXY headers in memory: an invalid one ends its connection, with one line in the log."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport

from conchrec.service.proxy_protocol import service

BALANCER = IPv4Address("TCP", "127.0.0.1", 40000)
V2 = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 10.0.0.1 10.0.0.2 http 22\r\n",
        b"PROXY TCP6 fd00::\xfe fd00::2 50000 22\r\n",
        b"PROXY TCP5 10.0.0.1 10.0.0.2 50000 22\r\n",
        V2 + b"\x21\x13\x00\x0c" + bytes(12),
        V2 + b"\x21\x41\x00\x0c" + bytes(12),
        V2 + b"\x21\x11\x00\x00",
        b"GET / HTTP/1.0\r\n\r\n",
        b"PROXY TCP4 joe\x1b[31m 10.0.0.2 50000 22\r\n",
        b"PROXY TCP4  10.0.0.2 50000 22\r\n",
    ],
)
def test_rejects_invalid_headers(header: bytes) -> None:
    reactor: Any = MemoryReactorClock()
    listener = service(reactor, "tcp:3023", Factory(), [ipaddress.ip_network("127.0.0.0/8")])
    listener.privilegedStartService()
    ((_, factory, _, _),) = reactor.tcpServers
    protocol = factory.buildProtocol(BALANCER)
    transport: Any = StringTransport(peerAddress=BALANCER)
    protocol.makeConnection(transport)
    protocol.dataReceived(header)
    assert transport.disconnecting or transport.disconnected
