"""A channel whose end is here: bytes in and out, with windows of its own (RFC 4254 section 5.2).

Everything that goes out waits in one queue, so EOF never overtakes data and CLOSE comes last. The
window towards the peer is returned when the bytes have been taken, not when they arrive, so a reader
that pauses stops the sender.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel, Connection, IncomingOpen
from conchrec.ssh.wire import Reader, string, uint32

#: What sshd and ssh grant on their own channels.
WINDOW = 2 * 1024 * 1024
MAX_PACKET = 32 * 1024
#: Whoever takes fewer bytes in a packet would have thousands made in one turn of the reactor.
LEAST_PACKET = 512
#: Some peers overshoot a little; more than this beyond the window is no accident.
SLACK = 256 * 1024


class StreamHandler(Protocol):
    """Who reads from a stream."""

    def stream_opened(self) -> None: ...

    def stream_refused(self, code: int, text: bytes) -> None: ...

    def stream_data(self, data: bytes) -> None: ...

    def stream_eof(self) -> None: ...

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """A channel request; the result is the reply, where one is wanted."""

    def stream_drained(self, pending: int) -> None:
        """Something was written; ``pending`` bytes still wait for the peer's window."""

    def stream_closed(self) -> None:
        """The peer closed, or the connection is gone. Called once; nothing follows."""


class Stream:
    """One end of a channel, as a byte stream with backpressure both ways."""

    __slots__ = (
        "_channel",
        "_consumed",
        "_handler",
        "_is_closed",
        "_is_reading",
        "_max_packet",
        "_pending",
        "_queue",
        "_receive_window",
        "_send_window",
        "_sent_eof",
        "_window",
    )

    def __init__(self, handler: StreamHandler, window: int = WINDOW) -> None:
        self._handler = handler
        #: What the peer may have sent that was not taken yet.
        self._window = window
        self._channel: Channel | None = None
        self._send_window = 0
        self._max_packet = MAX_PACKET
        self._receive_window = window
        self._consumed = 0
        self._is_reading = True
        self._pending = 0
        self._queue: deque[tuple[int, bytes]] = deque()
        self._sent_eof = False
        self._is_closed = False

    @classmethod
    def accept(cls, opening: IncomingOpen, handler: StreamHandler, window: int = WINDOW) -> Stream:
        """Confirm a channel that the peer asked for, and be its end. With a ``window`` of 0 the peer may
        send nothing before ``widen``."""
        stream = cls(handler, window)
        stream._channel = opening.channel
        stream._send_window = opening.request.window
        stream._max_packet = min(opening.request.max_packet, MAX_PACKET)
        opening.confirm(stream, window, MAX_PACKET)
        return stream

    @classmethod
    def open(
        cls,
        connection: Connection,
        kind: bytes,
        handler: StreamHandler,
        extra: bytes = b"",
        *,
        max_packet: int = MAX_PACKET,
    ) -> Stream:
        """Ask the peer for a channel; the user hears ``stream_opened`` or ``stream_refused``."""
        stream = cls(handler)
        channel = connection.open(kind, stream, window=WINDOW, max_packet=max_packet, extra=extra)
        stream._channel = channel
        return stream

    @property
    def closed(self) -> bool:
        return self._is_closed

    @property
    def pending(self) -> int:
        """Bytes that were written and wait for the peer's window."""
        return self._pending

    # --- out

    def write(self, data: bytes) -> None:
        if data and not self._sent_eof:
            self._pending += len(data)
            self._queue.append((m.CHANNEL_DATA, data))
            self._flush()

    def write_error(self, data: bytes) -> None:
        """The same to the peer's stderr."""
        if data and not self._sent_eof:
            self._pending += len(data)
            self._queue.append((m.CHANNEL_EXTENDED_DATA, data))
            self._flush()

    def request(self, name: bytes, extra: bytes = b"") -> None:
        """A channel request that wants no reply, in its place among the data."""
        self._queue.append(
            (m.CHANNEL_REQUEST, m.ChannelRequest(name=name, want_reply=False, extra=extra).encode())
        )
        self._flush()

    def write_eof(self) -> None:
        if not self._sent_eof:
            self._sent_eof = True
            self._queue.append((m.CHANNEL_EOF, b""))
            self._flush()

    def close(self) -> None:
        """CLOSE, after all that was written has gone."""
        self._sent_eof = True
        self._queue.append((m.CHANNEL_CLOSE, b""))
        self._flush()

    def abort(self) -> None:
        """CLOSE at once; what was not sent is dropped."""
        self._queue.clear()
        self._pending = 0
        self.close()

    def _flush(self) -> None:
        channel, queue = self._channel, self._queue
        if channel is None or channel.peer_number is None:
            return
        before = self._pending
        while queue:
            message, data = queue[0]
            if message not in (m.CHANNEL_DATA, m.CHANNEL_EXTENDED_DATA):
                queue.popleft()
                channel.send(message, data)
                continue
            capacity = min(self._send_window, self._max_packet)
            if capacity <= 0:
                break
            queue.popleft()
            if len(data) > capacity:
                self._send_in_pieces(channel, message, data)
            else:
                self._send_data(channel, message, data)
        if self._pending != before:
            self._handler.stream_drained(self._pending)

    def _send_in_pieces(self, channel: Channel, message: int, data: bytes) -> None:
        """Cut ``data`` to packets while the window lasts; the rest goes back to the head of the queue."""
        view, start = memoryview(data), 0
        while start < len(data):
            capacity = min(self._send_window, self._max_packet)
            if capacity <= 0:
                self._queue.appendleft((message, bytes(view[start:])))
                return
            piece = bytes(view[start : start + capacity])
            start += len(piece)
            self._send_data(channel, message, piece)

    def _send_data(self, channel: Channel, message: int, data: bytes) -> None:
        self._send_window -= len(data)
        self._pending -= len(data)
        prefix = uint32(m.STDERR) if message == m.CHANNEL_EXTENDED_DATA else b""
        channel.send(message, prefix + string(data))

    # --- in

    def pause(self) -> None:
        """Return no window until ``resume``: at most what was granted still arrives."""
        self._is_reading = False

    def resume(self) -> None:
        self._is_reading = True
        self._return_window()

    def widen(self, window: int) -> None:
        """Grant a larger window, from now on."""
        self._consumed += max(0, window - self._window)
        self._window = max(window, self._window)
        self._return_window()

    def _return_window(self) -> None:
        due = self._consumed and self._consumed >= self._window // 16
        if self._is_reading and due and self._channel is not None:
            self._channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(self._consumed))
            self._receive_window += self._consumed
            self._consumed = 0

    # --- ChannelReceiver

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        if max_packet < LEAST_PACKET:
            raise RemoteViolation(
                f"the maximum packet size is too small: {max_packet} bytes, the minimum is {LEAST_PACKET}"
            )
        self._send_window = window
        self._max_packet = min(max_packet, MAX_PACKET)
        self._handler.stream_opened()
        self._flush()

    def refused(self, code: int, text: bytes) -> None:
        self._is_closed = True
        self._handler.stream_refused(code, text)

    def received(self, message: int, body: bytes) -> None:
        if self._channel is not None and self._channel.sent_close and message != m.CHANNEL_CLOSE:
            return
        if message == m.CHANNEL_DATA:
            r = Reader(body)
            data = r.string()
            r.end()
            self._count_received(len(data))
            self._handler.stream_data(data)
            self._return_window()
        elif message == m.CHANNEL_WINDOW_ADJUST:
            self._send_window = min(self._send_window + m.parse_uint32(body), 0xFFFFFFFF)
            self._flush()
        elif message == m.CHANNEL_REQUEST:
            request = m.ChannelRequest.parse(body)
            accepted = self._handler.stream_request(request)
            if request.want_reply and self._channel is not None:
                self._channel.send(m.CHANNEL_SUCCESS if accepted else m.CHANNEL_FAILURE)
        elif message == m.CHANNEL_EOF:
            self._handler.stream_eof()
        elif message == m.CHANNEL_CLOSE:
            if self._channel is not None:
                self._channel.send(m.CHANNEL_CLOSE)
            self._end()
        elif message == m.CHANNEL_EXTENDED_DATA:
            r = Reader(body)
            r.uint32()
            data = r.string()
            r.end()
            self._count_received(len(data))
            self._return_window()

    def _count_received(self, size: int) -> None:
        self._receive_window -= size
        if self._receive_window < -min(SLACK, self._window):
            raise RemoteViolation("more data than the window allows", code=ReasonCode.WINDOW_EXCEEDED)
        self._consumed += size

    def lost(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._queue.clear()
            self._pending = 0
            self._handler.stream_closed()
