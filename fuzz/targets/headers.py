"""A load balancer's PROXY header, and what follows it: service/proxy_protocol.py around Twisted's parser."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from conchrec.service.proxy_protocol import service
from fuzz.limits import Broken
from fuzz.mutation import MAX_LARGE
from fuzz.target import Each, Target

BALANCER = IPv4Address("TCP", "127.0.0.1", 40000)


class Users(Factory):
    """Keeps what reaches the real protocol."""

    noisy = False

    def __init__(self) -> None:
        self.heard = b""
        self.begun = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        """Return the protocol of a new connection (IProtocolFactory)."""
        self.begun += 1
        factory = self

        class User(Protocol):
            def dataReceived(self, data: bytes) -> None:
                factory.heard += data

        return User()


def _connection(data: bytes) -> None:
    """The first byte says where the rest is cut."""
    reactor: Any = MemoryReactorClock()
    users = Users()
    service(reactor, "tcp:3023", users, [ipaddress.ip_network("127.0.0.0/8")]).privilegedStartService()
    ((_, factory, _, _),) = reactor.tcpServers
    protocol = factory.buildProtocol(BALANCER)
    transport: Any = StringTransport(peerAddress=BALANCER)
    protocol.makeConnection(transport)
    step = (data[0] if data else 0) or MAX_LARGE
    for at in range(1, len(data), step):
        if not transport.disconnecting and not transport.disconnected:
            protocol.dataReceived(data[at : at + step])
    protocol.connectionLost(Failure(ConnectionDone()))
    if reactor.getDelayedCalls() or users.begun > 1:
        raise Broken(f"{users.begun} users, {len(reactor.getDelayedCalls())} timers left")


_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_IPV4 = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + b"\xc3\x50\x00\x16"
_HEADERS = (
    b"PROXY TCP4 10.0.0.1 10.0.0.2 50000 22\r\n",
    b"PROXY TCP6 fd00::1 fd00::2 50000 22\r\n",
    b"PROXY UNKNOWN x\r\n",
    _V2 + b"\x21\x11\x00\x0c" + _IPV4,
    _V2 + b"\x21\x21\x00\x24" + bytes(36),
    _V2 + b"\x21\x31\x00\xd8" + b"/a".ljust(108, b"\0") * 2,
    _V2 + b"\x20\x00\x00\x00",
    _V2 + b"\x21\x11\x00\x13" + _IPV4 + b"\x04\x00\x04pads",
)

TARGET = Target(
    name="headers",
    about="PROXY headers of load balancers: conchrec/service/proxy_protocol.py",
    corpus=lambda: [bytes((cut,)) + entry + b"SSH-2.0-x\r\n" for entry in _HEADERS for cut in (0, 20)],
    begin=lambda: Each(_connection),
)
