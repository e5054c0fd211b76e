"""A channel that ends in this process, as a byte stream with its own windows (RFC 4254 section 5.2).

All outgoing messages pass one queue; so EOF does not overtake data, and CLOSE is last. The receive window
is returned when the bytes were consumed, not when they arrive; so a paused reader stops the sender.

A peer that accepts small packets only gets its data in the turns of its user's share (``fair_turns``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.slim_queue import SlimQueue
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel, Connection, IncomingOpen
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.wire import Reader, string, uint32

#: The window and packet size of sshd and ssh for their own channels.
WINDOW = 2 * 1024 * 1024
MAX_PACKET = 32 * 1024
#: A smaller maximum packet size would create thousands of packets in one turn of the reactor.
LEAST_PACKET = 512
#: Data that needs more packets than this is sent in the turns of the share.
PACKETS_AT_ONCE = 4
#: Some peers exceed the window a little. More bytes than this are a violation.
SLACK = 256 * 1024


class StreamHandler(Protocol):
    """Handles the events of one stream."""

    def stream_opened(self) -> None:
        """The peer confirmed the channel that we opened."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """The peer refused the channel that we opened, with a reason code and text (RFC 4254 section 5.1)."""

    def stream_data(self, data: bytes) -> None:
        """The peer sent data."""

    def stream_eof(self) -> None:
        """The peer sends no more data."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Handle a channel request. The result is the reply, if the peer wants one."""

    def stream_drained(self, pending: int) -> None:
        """Data was sent; ``pending`` bytes still wait for the peer's window."""

    def stream_closed(self) -> None:
        """The channel or the connection has ended. Called once, as the last event."""


class Stream:
    """One end of a channel, as a byte stream with backpressure in both directions."""

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
        #: The maximum number of bytes that the peer may send before they are consumed.
        self._window = window
        self._channel: Channel | None = None
        self._send_window = 0
        self._max_packet = MAX_PACKET
        self._receive_window = window
        self._consumed = 0
        self._is_reading = True
        self._pending = 0
        self._queue: SlimQueue[tuple[int, bytes]] = SlimQueue()
        self._sent_eof = False
        self._is_closed = False

    @classmethod
    def accept(cls, opening: IncomingOpen, handler: StreamHandler, window: int = WINDOW) -> Stream:
        """Confirm a channel that the peer opens, and return its stream.

        With a ``window`` of 0 the peer cannot send data before ``widen`` is called.
        """
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
        """Open a channel to the peer. ``handler`` gets ``stream_opened`` or ``stream_refused``."""
        stream = cls(handler)
        channel = connection.open(kind, stream, window=WINDOW, max_packet=max_packet, extra=extra)
        stream._channel = channel
        return stream

    @property
    def peer_number(self) -> int | None:
        """The peer's number of the channel; None before it is open."""
        return None if self._channel is None else self._channel.peer_number

    @property
    def closed(self) -> bool:
        """Whether the channel has ended."""
        return self._is_closed

    @property
    def pending(self) -> int:
        """Bytes that were written and wait for the peer's window."""
        return self._pending

    # --- out

    def write(self, data: bytes) -> None:
        """Send data; it waits in the queue until the peer's window allows it."""
        if data and not self._sent_eof:
            self._pending += len(data)
            self._queue.append((m.CHANNEL_DATA, data))
            self._flush()

    def write_error(self, data: bytes) -> None:
        """Send data to the peer's stderr."""
        if data and not self._sent_eof:
            self._pending += len(data)
            self._queue.append((m.CHANNEL_EXTENDED_DATA, data))
            self._flush()

    def request(self, name: bytes, extra: bytes = b"") -> None:
        """Send a channel request without a reply, in its order between the data."""
        self._queue.append(
            (m.CHANNEL_REQUEST, m.ChannelRequest(name=name, want_reply=False, extra=extra).encode())
        )
        self._flush()

    def write_eof(self) -> None:
        """Send EOF after all data that was written."""
        if not self._sent_eof:
            self._sent_eof = True
            self._queue.append((m.CHANNEL_EOF, b""))
            self._flush()

    def close(self) -> None:
        """Send CLOSE after all data that was written."""
        self._sent_eof = True
        self._queue.append((m.CHANNEL_CLOSE, b""))
        self._flush()

    def abort(self) -> None:
        """Send CLOSE now, and discard what was not sent."""
        self._queue.take()
        self._pending = 0
        self.close()

    def _flush(self) -> None:
        """Send queued messages as far as the peer's window allows: now, or in the turns of the share."""
        share = self.share if self._pending > PACKETS_AT_ONCE * self._max_packet else None
        if share is None:
            self.run_slice(lambda: False)
        else:
            share.run(self)

    # --- SlicedWork

    @property
    def share(self) -> Share | None:
        """The share of the connection; None if all output is sent at once."""
        transport = None if self._channel is None else self._channel.connection.transport
        return None if transport is None else transport.share

    def run_slice(self, spent: Callable[[], bool]) -> bool:
        """Send queued messages as far as the peer's window allows, until ``spent`` returns true after one.

        Return whether messages are left that the window allows.
        """
        channel, queue = self._channel, self._queue
        if channel is None or channel.peer_number is None:
            return False
        before, remains = self._pending, False
        while queue and not remains:
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
                remains = self._send_in_pieces(channel, message, data, spent)
            else:
                self._send_data(channel, message, data)
                remains = spent() and bool(queue)
        if self._pending != before and not self._is_closed:
            self._handler.stream_drained(self._pending)
        return remains

    def _send_in_pieces(
        self, channel: Channel, message: int, data: bytes, spent: Callable[[], bool]
    ) -> bool:
        """Send ``data`` in packets as far as the window and ``spent`` allow.

        The rest returns to the head of the queue. Return whether the slice is over.
        """
        view, start, is_over = memoryview(data), 0, False
        while start < len(data):
            capacity = min(self._send_window, self._max_packet)
            if is_over or capacity <= 0:
                self._queue.appendleft((message, bytes(view[start:])))
                break
            piece = bytes(view[start : start + capacity])
            start += len(piece)
            self._send_data(channel, message, piece)
            is_over = spent()
        return is_over and bool(self._queue)

    def _send_data(self, channel: Channel, message: int, data: bytes) -> None:
        """Send one data message, and count it against the window."""
        self._send_window -= len(data)
        self._pending -= len(data)
        prefix = uint32(m.STDERR) if message == m.CHANNEL_EXTENDED_DATA else b""
        channel.send(message, prefix + string(data))

    # --- in

    def pause(self) -> None:
        """Return no receive window until ``resume``. The peer can still send what was granted before."""
        self._is_reading = False

    def resume(self) -> None:
        """Return the receive window again."""
        self._is_reading = True
        self._return_window()

    def widen(self, window: int) -> None:
        """Increase the receive window to ``window`` bytes."""
        self._consumed += max(0, window - self._window)
        self._window = max(window, self._window)
        self._return_window()

    def _return_window(self) -> None:
        """Send WINDOW_ADJUST if at least 1/16 of the window was consumed."""
        due = self._consumed and self._consumed >= self._window // 16
        if self._is_reading and due and self._channel is not None:
            self._channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(self._consumed))
            self._receive_window += self._consumed
            self._consumed = 0

    # --- ChannelReceiver

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        """Handle CHANNEL_OPEN_CONFIRMATION."""
        if max_packet < LEAST_PACKET:
            raise RemoteViolation(
                f"the maximum packet size is too small: {max_packet} bytes, the minimum is {LEAST_PACKET}"
            )
        self._send_window = window
        self._max_packet = min(max_packet, MAX_PACKET)
        self._handler.stream_opened()
        self._flush()

    def refused(self, code: int, text: bytes) -> None:
        """Handle CHANNEL_OPEN_FAILURE."""
        self._is_closed = True
        self._handler.stream_refused(code, text)
        del self._handler

    def received(self, message: int, body: bytes) -> None:
        """Handle one message of the channel (93 to 100); ``body`` follows the channel number."""
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
        """Count received data against the window that was granted. Raises RemoteViolation."""
        self._receive_window -= size
        if self._receive_window < -min(SLACK, self._window):
            raise RemoteViolation("more data than the window allows", code=ReasonCode.WINDOW_EXCEEDED)
        self._consumed += size

    def lost(self) -> None:
        """Handle the end of the connection."""
        self._end()

    def _end(self) -> None:
        """End the stream, once."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.take()
            self._pending = 0
            self._handler.stream_closed()
            # It refers to this stream.
            del self._handler
