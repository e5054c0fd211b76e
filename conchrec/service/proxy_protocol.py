"""``haproxy:`` endpoints: users behind a load balancer, which sends their address in a PROXY header.

Twisted parses the header, versions 1 and 2. This module adds two things: only balancers that the
configuration names may connect, and a user's connection begins with the address in the header in place of
the balancer's, so that limits, roles and the audit use the user's address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from conchrec.access.patterns import IPNetwork, address_of, is_within
from conchrec.clock import Clock, DelayedCall

_log = Logger()

#: How long to wait for the header.
HEADER_SECONDS = 30.0


def service(reactor: Any, description: str, factory: Any, networks: Sequence[IPNetwork]) -> Any:
    """A service on the endpoint after ``haproxy:``; ``factory`` gets the user's own address."""
    balancers: Any = _OnlyFrom(serverFromString(reactor, description), networks)
    users: Any = _Users(factory, reactor)
    listener = StreamServerEndpointService(proxyEndpoint(balancers), users)
    # As in strports: if the port is not available, the start fails.
    listener._raiseSynchronously = True  # noqa: SLF001
    return listener


@implementer(IStreamServerEndpoint)
class _OnlyFrom:
    """An endpoint that closes all connections but those of the configured balancers."""

    def __init__(self, endpoint: Any, networks: Sequence[IPNetwork]) -> None:
        self._endpoint = endpoint
        self._networks = networks

    def listen(self, factory: Any) -> Any:
        return self._endpoint.listen(_Balancers(factory, self._networks))


class _Balancers(Factory):
    """Checks the address of the socket's peer, before anything from it is read."""

    noisy = False

    def __init__(self, factory: Any, networks: Sequence[IPNetwork]) -> None:
        self._factory = factory
        self._networks = networks

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        host = str(getattr(addr, "host", "?"))
        address = address_of(host)
        if address is None or not any(is_within(address, network) for network in self._networks):
            _log.warn("connection refused: {peer} is not in proxy_protocol_from", peer=host)
            return None
        return _Balancer(self._factory.buildProtocol(addr), host)


class _Balancer(Protocol):
    """One connection of a balancer; ``wrapper`` is Twisted's, which reads the header."""

    def __init__(self, wrapper: Any, peer: str) -> None:
        self._wrapper = wrapper
        self._peer = peer

    def connectionMade(self) -> None:
        self._wrapper.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        try:
            self._wrapper.dataReceived(data)
        except (ValueError, LookupError) as error:
            # Twisted's parser rejects some invalid headers and raises other errors for the rest: an address
            # that is not text, a port that is not a number, a family without a transport.
            _log.warn("invalid PROXY header from {peer}: {error}", peer=self._peer, error=repr(error))
            transport: Any = self.transport
            transport.abortConnection()
            return
        # The header may come alone: many clients send nothing before they have heard from the server.
        self._wrapper.wrappedProtocol.begin_if_known()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._wrapper.connectionLost(reason)


class _Users(Factory):
    """Builds the protocols that wait for the header."""

    noisy = False

    def __init__(self, factory: Any, clock: Clock) -> None:
        self._factory = factory
        self._clock = clock

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: Any) -> _User:
        return _User(self._factory, addr, self._clock)


class _User(Protocol):
    """Waits for the header with the user's address; from then on, passes data to the real protocol."""

    def __init__(self, factory: Any, balancer: Any, clock: Clock) -> None:
        self._factory = factory
        self._balancer = balancer
        self._clock = clock
        self._real: Any = None
        self._late: DelayedCall | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._late = self._clock.callLater(HEADER_SECONDS, transport.abortConnection)

    def begin_if_known(self) -> None:
        """Begin the real protocol if the header has given an address."""
        transport: Any = self.transport
        if self._real is None and transport.getPeer() != self._balancer:
            self._begin(transport)

    def dataReceived(self, data: bytes) -> None:
        if self._real is None:
            # Data follows the header. A header without an address (LOCAL, UNKNOWN) keeps the balancer's.
            self._begin(self.transport)
        if self._real is not None:
            self._real.dataReceived(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._in_time()
        if self._real is not None:
            self._real.connectionLost(reason)

    def _in_time(self) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()

    def _begin(self, transport: Any) -> None:
        self._in_time()
        peer = transport.getPeer()
        host = getattr(peer, "host", None)
        if isinstance(host, str) and address_of(host) is None:
            _log.warn("invalid address {host!r} in a PROXY header", host=host)
            transport.abortConnection()
            return
        self._real = self._factory.buildProtocol(peer)
        if self._real is None:
            transport.abortConnection()
        else:
            self._real.makeConnection(transport)
