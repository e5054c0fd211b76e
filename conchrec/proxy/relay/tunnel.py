"""The inner SSH connection's byte stream: a channel of the outer connection as an ITransport.

No socket and no pipe. What goes wrong in the protocol that runs on it ends that channel alone.

What the inner transport writes in one turn of the reactor goes together, in outer packets that are full: a
packet of the target, with the head and tag of the inner connection, is a little more than one of them.

Pressure: the outer window is returned as the inner transport consumes, unless the target's socket does
not drain (``pause``); and what the user's client does not take shows as ``pending``, of which whoever
produces hears in ``on_pressure``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from conchrec.clock import Clock
from conchrec.ssh import messages as m
from conchrec.ssh.backpressure import Producer
from conchrec.ssh.channel_stream import WINDOW, Stream

_log = Logger()

#: Bytes that wait for the user's window before the target is asked to pause, and before it may go on.
HIGH = 512 * 1024
LOW = 128 * 1024
#: More than this does not wait for the end of the turn.
TOGETHER = 128 * 1024


class ByteProtocol(Protocol):
    """The part of Twisted's IProtocol that a tunnel drives."""

    def makeConnection(self, transport: object) -> None: ...

    def dataReceived(self, data: bytes) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...


@implementer(ITransport)
class Tunnel:
    """See the module. Made for a channel that is about to be confirmed; ``start`` gives it a protocol."""

    def __init__(self, clock: Clock, *, peer: object, host: object, room: int = WINDOW) -> None:
        """``room``: bytes of this tunnel that may wait here, on their way to the target."""
        self._clock = clock
        self.give_room(room)
        self._peer = peer
        self._host = host
        self._stream: Stream | None = None
        self._protocol: ByteProtocol | None = None
        self._early: list[bytes] = []
        self._written: list[bytes] = []
        self._written_bytes = 0
        self._turn_ends = False
        self._eof = False
        self._lost = False
        self._pressed = False
        self._producer: Producer | None = None
        self.disconnecting = False
        self.received = 0
        self.sent = 0
        #: Called with True when too much waits for the user, with False when it has gone.
        self.on_pressure: Callable[[bool], None] = lambda pressed: None
        self._on_closed: Callable[[], None] | None = None
        #: Hears how many bytes have passed, where somebody counts.
        self.on_bytes: Callable[[int], None] | None = None
        self._holds: set[str] = set()
        #: What the user's own bytes cost, for idle clocks.
        self.on_request: Callable[[m.ChannelRequest], bool] = lambda request: False

    def attach(self, stream: Stream) -> None:
        """The channel. Until ``start`` its window is not returned: what comes before is that much. Where it
        has a window of 0, that is nothing."""
        self._stream = stream
        stream.pause()

    def give_room(self, room: int) -> None:
        """Before ``start``."""
        self._room = room
        self._high = min(HIGH, room // 4)
        self._low = self._high * LOW // HIGH

    @property
    def stream(self) -> Stream:
        assert self._stream is not None
        return self._stream

    @property
    def closed(self) -> bool:
        return self._lost

    def start(self, protocol: ByteProtocol) -> None:
        """From now on the bytes are ``protocol``'s; what came before it is delivered first."""
        self._protocol = protocol
        protocol.makeConnection(self)
        early, self._early = self._early, []
        for data in early:
            self._deliver(data)
        if self._stream is not None:
            self._stream.widen(self._room)
            if not self._holds:
                self._stream.resume()
        if self._eof:
            self._lose()

    def notify_closed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when the channel is over. A tunnel has one owner, who calls this once."""
        assert self._on_closed is None, "a tunnel has one owner"
        self._on_closed = callback

    def hold(self, reason: str, on: bool) -> None:
        """Give the user's client no window back while there is any reason not to."""
        (self._holds.add if on else self._holds.discard)(reason)
        if self._stream is None or self._lost:
            return
        if self._holds:
            self._stream.pause()
        elif self._protocol is not None:
            self._stream.resume()

    # --- ITransport

    def write(self, data: bytes) -> None:
        if self._stream is None or self.disconnecting:
            return
        self.sent += len(data)
        if self.on_bytes is not None:
            self.on_bytes(len(data))
        self._written.append(data)
        self._written_bytes += len(data)
        if self._written_bytes >= TOGETHER:
            self._pass_on()
        elif not self._turn_ends:
            self._turn_ends = True
            self._clock.callLater(0, self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        self._pass_on()

    def _pass_on(self) -> None:
        if self._stream is not None and self._written:
            written, self._written = self._written, []
            self._written_bytes = 0
            self._stream.write(b"".join(written))
            self._look(self._stream.pending)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close, once all that was written has gone."""
        if not self.disconnecting:
            self.disconnecting = True
            self._pass_on()
            if self._stream is not None:
                self._stream.write_eof()
                self._stream.close()

    def abortConnection(self) -> None:
        """Close at once."""
        self.disconnecting = True
        self._written.clear()
        if self._stream is not None:
            self._stream.abort()
        self._lose()

    def getPeer(self) -> object:
        return self._peer

    def getHost(self) -> object:
        return self._host

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """``producer`` hears when too much waits for the user, as from a socket (IConsumer)."""
        self._producer = producer
        if self._pressed:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        """The inner transport handles nothing for a while (IPushProducer)."""
        self.hold("inner transport", True)

    def resumeProducing(self) -> None:
        self.hold("inner transport", False)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """The outer connection has seen to that."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """The outer connection has seen to that."""

    # --- StreamUser

    def stream_opened(self) -> None:
        """Streams of ours are accepted, never asked for."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """Streams of ours are accepted, never asked for."""

    def stream_data(self, data: bytes) -> None:
        self.received += len(data)
        if self.on_bytes is not None:
            self.on_bytes(len(data))
        if self._protocol is None:
            self._early.append(data)
        else:
            self._deliver(data)

    def stream_eof(self) -> None:
        self._eof = True
        if self._protocol is not None:
            self._lose()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        return self.on_request(request)

    def stream_drained(self, pending: int) -> None:
        self._look(pending)

    def stream_closed(self) -> None:
        self._lose()

    def _look(self, pending: int) -> None:
        if self._pressed:
            if pending < self._low:
                self._pressed = False
                if self._producer is not None:
                    self._producer.resumeProducing()
                self.on_pressure(False)
        elif pending > self._high:
            self._pressed = True
            if self._producer is not None:
                self._producer.pauseProducing()
            self.on_pressure(True)

    def _deliver(self, data: bytes) -> None:
        if self._lost or self._protocol is None:
            return
        try:
            self._protocol.dataReceived(data)
        except Exception:
            # The outer connection and its other streams live on.
            _log.failure("unexpected error in an inner connection, which is closed")
            self.abortConnection()

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        if self._stream is not None and not self._stream.closed:
            self._pass_on()
        self._written.clear()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            try:
                protocol.connectionLost(Failure(ConnectionDone()))
            except Exception:
                _log.failure("unexpected error at the end of an inner connection")
        if self._stream is not None and not self._stream.closed:
            self._stream.close()
        if self._on_closed is not None:
            self._on_closed()


class OuterWindow:
    """The tunnel as the producer of the target's socket (IPushProducer): while that does not drain, the
    user's client gets no window back."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def pauseProducing(self) -> None:
        self._tunnel.hold("target", True)

    def resumeProducing(self) -> None:
        self._tunnel.hold("target", False)

    def stopProducing(self) -> None:
        self._tunnel.hold("target", False)
