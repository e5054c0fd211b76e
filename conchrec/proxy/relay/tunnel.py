"""The byte stream of an inner SSH connection: a channel of the outer connection as an ITransport.

There is no socket and no pipe. An error in the protocol that runs on a tunnel ends that channel alone.

Bytes that the inner transport writes in one slice (``fair_turns``) are sent together, in full outer packets:
a packet of the target, with the length and MAC of the inner connection, is a little longer than one of them.

Backpressure works in both directions. The outer window is returned as the inner transport consumes the data,
but not while somebody holds it (``hold``), as when the target's socket does not drain. Data that the user's
client does not accept is pending in the stream, and ``on_pressure`` tells the producer when it is too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from conchrec.ssh import messages as m
from conchrec.ssh.backpressure import Backpressure, Producer, change_reasons
from conchrec.ssh.channel_stream import WINDOW, Stream
from conchrec.ssh.fair_turns import TurnScheduler

_log = Logger()

#: While more bytes than this wait for the user's window, the producer is paused.
HIGH = 512 * 1024
#: When fewer bytes than this wait, the producer is resumed.
LOW = 128 * 1024
#: Written bytes beyond this number are sent before the end of the slice.
WRITE_BYTES = 128 * 1024


class ByteProtocol(Protocol):
    """The part of Twisted's IProtocol that a tunnel drives."""

    def makeConnection(self, transport: object) -> None:
        """Start on this transport."""

    def dataReceived(self, data: bytes) -> None:
        """Handle bytes of the user."""

    def connectionLost(self, reason: Failure) -> None:
        """Stop, because the tunnel is closed."""


@implementer(ITransport)
class Tunnel:
    """An ITransport on a channel: ``attach`` gives it the channel's stream, ``start`` its protocol."""

    __slots__ = (
        "_capacity", "_early", "_got_eof", "_high", "_holds", "_is_flush_scheduled",
        "_is_lost", "_low", "_on_closed", "_output", "_protocol", "_stream", "_turns",
        "_written", "_written_bytes", "disconnecting", "on_bytes", "on_pressure", "on_request",
        "received", "sent",
    )  # fmt: skip

    def __init__(self, turns: TurnScheduler, *, capacity: int = WINDOW) -> None:
        """``capacity`` is the number of bytes that may wait here on their way to the target."""
        self._turns = turns
        self.set_capacity(capacity)
        self._stream: Stream | None = None
        self._protocol: ByteProtocol | None = None
        #: Data that arrived before ``start``.
        self._early: list[bytes] = []
        self._written: list[bytes] = []
        self._written_bytes = 0
        self._is_flush_scheduled = False
        self._got_eof = False
        self._is_lost = False
        #: Pauses the inner transport's producer.
        self._output = Backpressure()
        self.disconnecting = False
        self.received = 0
        self.sent = 0
        #: Called with True when too many bytes wait for the user, and with False when few do.
        self.on_pressure: Callable[[bool], None] = lambda on: None
        self._on_closed: Callable[[], None] | None = None
        #: Called with the number of bytes of each write and of each delivery; None if nobody counts.
        self.on_bytes: Callable[[int], None] | None = None
        #: The reasons not to return window to the user's client.
        self._holds: tuple[str, ...] = ()
        #: Answers the user's requests on this channel.
        self.on_request: Callable[[m.ChannelRequest], bool] = lambda request: False

    def attach(self, stream: Stream) -> None:
        """Take the channel's stream. Until ``start`` its window is not returned to the user's client."""
        self._stream = stream
        stream.pause()

    def set_capacity(self, capacity: int) -> None:
        """Set the number of bytes that may wait here; before ``start`` only."""
        self._capacity = capacity
        self._high = min(HIGH, capacity // 4)
        self._low = self._high * LOW // HIGH

    @property
    def stream(self) -> Stream:
        """The channel's stream."""
        assert self._stream is not None
        return self._stream

    @property
    def closed(self) -> bool:
        """Whether the tunnel carries no more bytes."""
        return self._is_lost

    def start(self, protocol: ByteProtocol) -> None:
        """Give all bytes to ``protocol``, first those that arrived before."""
        self._protocol = protocol
        protocol.makeConnection(self)
        early, self._early = self._early, []
        for data in early:
            self._deliver(data)
        if self._stream is not None:
            self._stream.widen(self._capacity)
            if not self._holds:
                self._stream.resume()
        if self._got_eof:
            self._lose()

    def notify_closed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when the tunnel is closed. Its one owner calls this method, once."""
        assert self._on_closed is None, "a tunnel has one owner"
        self._on_closed = callback

    def hold(self, reason: str, on: bool) -> None:
        """Return no window to the user's client while ``reason``, or another one, is on."""
        self._holds = change_reasons(self._holds, reason, on)
        if self._stream is None or self._is_lost:
            return
        if self._holds:
            self._stream.pause()
        elif self._protocol is not None:
            self._stream.resume()

    # --- ITransport

    def write(self, data: bytes) -> None:
        """Send ``data`` to the user, with everything else that is written in this slice."""
        if self._stream is None or self.disconnecting:
            return
        self.sent += len(data)
        if self.on_bytes is not None:
            self.on_bytes(len(data))
        self._written.append(data)
        self._written_bytes += len(data)
        if self._written_bytes >= WRITE_BYTES:
            self._flush()
        elif not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._turns.after_slice(self._end_slice)

    def _end_slice(self) -> None:
        self._is_flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._stream is not None and self._written:
            written, self._written = self._written, []
            self._written_bytes = 0
            self._stream.write(b"".join(written))
            self._update_pressure(self._stream.pending)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces of data."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close the channel when all written data was sent."""
        if not self.disconnecting:
            self.disconnecting = True
            self._flush()
            if self._stream is not None:
                self._stream.write_eof()
                self._stream.close()

    def abortConnection(self) -> None:
        """Close the channel at once, and discard written data."""
        self.disconnecting = True
        self._written.clear()
        if self._stream is not None:
            self._stream.abort()
        self._lose()

    def getPeer(self) -> None:
        """Return None: a tunnel has no address."""

    def getHost(self) -> None:
        """Return None: a tunnel has no address."""

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Pause ``producer`` while too many bytes wait for the user (IConsumer)."""
        self._output.attach(producer)

    def unregisterProducer(self) -> None:
        """Forget the producer (IConsumer)."""
        self._output.attach(None)

    def pauseProducing(self) -> None:
        """Return no window while the inner transport handles no data (IPushProducer)."""
        self.hold("inner transport", True)

    def resumeProducing(self) -> None:
        """Return window again: the inner transport handles data (IPushProducer)."""
        self.hold("inner transport", False)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: the outer connection has set this option."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing: the outer connection has set this option."""

    # --- StreamHandler

    def stream_opened(self) -> None:
        """Do nothing: the proxy accepted this stream, and did not request it."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """Do nothing: the proxy accepted this stream, and did not request it."""

    def stream_data(self, data: bytes) -> None:
        """Deliver data of the user, or keep it until ``start``."""
        self.received += len(data)
        if self.on_bytes is not None:
            self.on_bytes(len(data))
        if self._protocol is None:
            self._early.append(data)
        else:
            self._deliver(data)

    def stream_eof(self) -> None:
        """Close the tunnel: after EOF of the user's client no inner message can arrive."""
        self._got_eof = True
        if self._protocol is not None:
            self._lose()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Answer a request on this channel."""
        return self.on_request(request)

    def stream_drained(self, pending: int) -> None:
        """Resume the producer if few bytes wait."""
        self._update_pressure(pending)

    def stream_closed(self) -> None:
        """Close the tunnel, because the channel is closed."""
        self._lose()

    def _update_pressure(self, pending: int) -> None:
        is_too_much = pending >= self._low if self._output.is_paused else pending > self._high
        if self._output.set("pending bytes", is_too_much):
            self.on_pressure(is_too_much)

    def _deliver(self, data: bytes) -> None:
        if self._is_lost or self._protocol is None:
            return
        try:
            self._protocol.dataReceived(data)
        except Exception:
            # The outer connection and its other channels stay open.
            _log.failure("unexpected error in an inner connection, which is closed")
            self.abortConnection()

    def _lose(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if self._stream is not None and not self._stream.closed:
            self._flush()
        self._written.clear()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            try:
                protocol.connectionLost(Failure(ConnectionDone()))
            except Exception:
                _log.failure("unexpected error at the end of an inner connection")
        if self._stream is not None and not self._stream.closed:
            self._stream.close()
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()
        # What these call refers to this tunnel.
        self.on_pressure, self.on_bytes = lambda on: None, None
        self._output.attach(None)


class OuterWindow:
    """The tunnel as the producer of the target's socket (IPushProducer).

    While the socket does not drain, no window is returned to the user's client.
    """

    __slots__ = (
        "_tunnel",
    )  # fmt: skip

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def pauseProducing(self) -> None:
        """Hold the window: the target's socket does not drain."""
        self._tunnel.hold("target", True)

    def resumeProducing(self) -> None:
        """Return window again: the target's socket drains."""
        self._tunnel.hold("target", False)

    def stopProducing(self) -> None:
        """Return window again: the target's socket is gone."""
        self._tunnel.hold("target", False)
