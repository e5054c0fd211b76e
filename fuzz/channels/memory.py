"""A reactor without sockets, threads and processes: TCP connections are buffers that somebody delivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IConnector, IListeningPort, IReactorTCP, IReactorTime, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

USER = IPv4Address("TCP", "10.0.0.7", 50022)
TARGET = IPv4Address("TCP", "127.0.0.1", 2222)
PROXY = IPv4Address("TCP", "127.0.0.1", 3023)


@implementer(ITransport)
class End:
    """One end of a TCP connection. ``unsent`` is what was written and not delivered yet."""

    def __init__(self, host: IPv4Address, peer: IPv4Address) -> None:
        self._host, self._peer = host, peer
        self.unsent = bytearray()
        self.protocol: Any = None
        self.disconnecting = False
        self.disconnected = False
        self.paused = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        """Write bytes (ITransport)."""
        if not self.disconnecting and not self.disconnected:
            self.unsent += data

    def writeSequence(self, iovec: list[bytes]) -> None:
        """Write several pieces (ITransport)."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close when all is written (ITransport)."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """Close at once (ITransport)."""
        self.disconnecting = True
        self.unsent.clear()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Remember the producer (ITransport)."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer (ITransport)."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stop until ``resumeProducing`` (IPushProducer)."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Go on (IPushProducer)."""
        self.paused = False

    def stopProducing(self) -> None:
        """Stop for good (IPushProducer)."""
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        """Return the address of the peer (ITransport)."""
        return self._peer

    def getHost(self) -> IPv4Address:
        """Return the own address (ITransport)."""
        return self._host


class Line:
    """A TCP connection: what one end writes is delivered to the other end's protocol."""

    def __init__(self, here: IPv4Address, there: IPv4Address) -> None:
        self.near, self.far = End(here, there), End(there, here)
        self.closed = False

    def connect(self, near: Any, far: Any) -> None:
        """Connect two protocols to the ends of the line."""
        self.near.protocol, self.far.protocol = near, far
        far.makeConnection(self.far)
        near.makeConnection(self.near)

    def deliver(self, source: End, most: int = 0) -> bool:
        """Deliver ``most`` bytes of ``source`` (0: all there are). False if there was nothing to do."""
        there = self.far if source is self.near else self.near
        if self.closed or there.paused or not source.unsent:
            return False
        data = bytes(source.unsent[: most or None])
        del source.unsent[: len(data)]
        there.protocol.dataReceived(data)
        return True

    def close_finished(self) -> bool:
        """End the connection if an end has closed it and nothing it wrote is left."""
        if self.closed or not any(end.disconnecting and not end.unsent for end in (self.near, self.far)):
            return False
        self.cut()
        return True

    def cut(self) -> None:
        """The connection is lost."""
        if self.closed:
            return
        self.closed = True
        for end in (self.near, self.far):
            end.disconnected = True
            # As Twisted does it: the socket forgets the protocol.
            protocol, end.protocol, end.producer = end.protocol, None, None
            protocol.connectionLost(Failure(ConnectionDone()))


@implementer(IListeningPort)
class _Port:
    def startListening(self) -> None:
        """It has no socket."""

    def stopListening(self) -> None:
        """It has no socket."""

    def getHost(self) -> IPv4Address:
        return PROXY


@implementer(IConnector)
class _Connector:
    def __init__(self, address: IPv4Address) -> None:
        self._address = address
        #: None before it is connected.
        self.end: End | None = None

    def getDestination(self) -> IPv4Address:
        return self._address

    def stopConnecting(self) -> None:
        """It is connected at once."""

    def disconnect(self) -> None:
        """End the connection, as if the protocol did it."""
        if self.end is not None:
            self.end.loseConnection()

    def connect(self) -> None:
        """It is connected already."""


@implementer(IReactorTCP, IReactorTime)
class Reactor(Clock):
    """``accept`` makes the protocol of the target for each connection that is dialled; with ``refuses``
    nothing listens there."""

    running = True

    def __init__(self, accept: Callable[[], Any]) -> None:
        super().__init__()
        self._accept = accept
        self.refuses = False
        self.factories: list[Any] = []
        self.lines: list[Line] = []

    @property
    def due(self) -> bool:
        """A call waits for nothing but the next turn."""
        return bool(self.calls) and self.calls[0].getTime() <= self.seconds()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> _Port:
        """Keep the factory; nothing is bound (IReactorTCP)."""
        self.factories.append(factory)
        return _Port()

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> _Connector:
        """Connect to the target in memory (IReactorTCP)."""
        connector = _Connector(TARGET)
        factory.doStart()
        factory.startedConnecting(connector)
        if self.refuses:
            self.callLater(0, factory.clientConnectionFailed, connector, Failure(ConnectionRefusedError()))
            return connector
        line = Line(PROXY, TARGET)
        self.lines.append(line)
        connector.end = line.near
        line.connect(factory.buildProtocol(TARGET), self._accept())
        return connector

    def callFromThread(self, call: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Call it in the next turn (IReactorFromThreads)."""
        self.callLater(0, call, *arguments, **named)

    def spawnProcess(self, *arguments: Any, **named: Any) -> Any:
        """A process that takes what it is told and never answers."""
        return _Child()

    def addSystemEventTrigger(self, *arguments: Any) -> None:
        """Nothing is shut down."""


class _Child:
    pid = 0

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def closeStdin(self) -> None:
        """Nobody reads it."""

    def signalProcess(self, signalID: object) -> None:
        """Nobody is there."""

    def loseConnection(self) -> None:
        """Nobody is there."""


class InlinePool:
    """A ThreadPool whose work is done at once; its result comes in a later turn of the reactor."""

    def __init__(self, minthreads: int = 0, maxthreads: int = 1, name: str = "") -> None:
        self.name = name

    def start(self) -> None:
        """It has no threads."""

    def stop(self) -> None:
        """It has no threads."""

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], Any] | None, work: Callable[..., Any], *args: Any, **named: Any
    ) -> None:
        """Run the work at once, and pass its result on."""
        try:
            result: Any = work(*args, **named)
        except Exception:
            if on_result is not None:
                on_result(False, Failure())
        else:
            if on_result is not None:
                on_result(True, result)

    def callInThread(self, work: Callable[..., Any], *args: Any, **named: Any) -> None:
        """Run the work at once."""
        self.callInThreadWithCallback(None, work, *args, **named)
