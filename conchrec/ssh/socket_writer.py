"""Writes to a socket when a slice ends, instead of in the next turn of the reactor.

A keystroke then does not wait one more turn behind the bulk transfers of others. Most output is sent at once,
so the reactor need not wait for this socket to become writable: that saves two system calls and an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPullProducer, IReadWriteDescriptor
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from conchrec.ssh.backpressure import WriteBackpressure
from conchrec.ssh.fair_turns import READ_AT_MOST, Share

#: The maximum number of bytes that Twisted sends at once.
SEND_AT_MOST = 2 * READ_AT_MOST


class Socket(Protocol):
    """The part of a Twisted TCP transport (``FileDescriptor``) that is used here."""

    #: How many bytes are read at once.
    bufferSize: int

    def write(self, data: bytes) -> None:
        """Send ``data`` when the socket is writable."""

    def writeSomeData(self, data: bytes) -> int | Exception:
        """Send a part of ``data`` now. Return the number of bytes, or the error that has ended the socket."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Call ``resumeProducing`` of a producer that is not streaming when all written bytes were sent."""


class Writer(Protocol):
    """The output of one connection."""

    def write(self, data: bytes, /) -> None:
        """Send ``data``, now or soon."""

    def set_read_size(self, size: int) -> None:
        """Read at most ``size`` bytes at once. If more wait to be sent, the producer is paused."""

    def adapt_read_size(self) -> None:
        """Set the read size to that of the share, after the login."""

    def finish(self) -> None:
        """Give everything to the transport, which is to be closed when all was sent."""

    def close(self) -> None:
        """Drop what was not sent, and send nothing from now on: the transport is, or will be, closed."""


def open_writer(transport: Any, pressure: WriteBackpressure, share: Share | None) -> Writer:
    """Return the writer for a transport, which pauses the producer of ``pressure``.

    Wrappers of Twisted (``haproxy:``) are removed, because they do not pass on what is set.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    if hasattr(transport, "SEND_LIMIT"):
        transport.SEND_LIMIT = SEND_AT_MOST
    if share is not None and IReadWriteDescriptor.providedBy(transport):
        return SocketWriter(transport, pressure, share)
    return TransportWriter(transport, pressure)


class TransportWriter:
    """Writes to a tunnel, or to a socket without a share: the transport sends in its own time."""

    __slots__ = ("_transport", "write")

    def __init__(self, transport: Any, pressure: WriteBackpressure) -> None:
        self._transport = transport
        self.write: Callable[[bytes], None] = transport.write
        transport.registerProducer(pressure, True)

    def set_read_size(self, size: int) -> None:
        """Read at most ``size`` bytes at once, if this is a socket."""
        if hasattr(self._transport, "bufferSize"):
            self._transport.bufferSize = size

    def adapt_read_size(self) -> None:
        """Do nothing: there is no share."""

    def finish(self) -> None:
        """Do nothing: the transport has everything."""

    def close(self) -> None:
        """Do nothing: the transport drops what was not sent."""


class SliceEnd(Protocol):
    """The part of a ``fair_turns.Share`` that a writer needs."""

    @property
    def read_size(self) -> int:
        """The maximum number of bytes to read from a socket at once."""

    def after_slice(self, send: Callable[[], object]) -> None:
        """Call ``send`` when the current slice ends."""


@implementer(IPullProducer)
class SocketWriter:
    """Writes to a socket when a slice of ``share`` ends.

    While the socket accepts no more, the bytes wait in the buffer of Twisted. When more bytes
    wait than may be read at once, ``pressure`` pauses the producer until all were sent.
    """

    __slots__ = (
        "_is_blocked", "_is_closed", "_is_due", "_limit", "_pieces", "_pressure", "_share", "_size",
        "_socket",
    )  # fmt: skip

    def __init__(self, socket: Socket, pressure: WriteBackpressure, share: SliceEnd) -> None:
        self._socket = socket
        self._pressure = pressure
        self._share = share
        self._limit = READ_AT_MOST
        #: What was written since the last call of ``_send``.
        self._pieces: list[bytes] = []
        self._size = 0
        #: Whether ``_send`` will be called.
        self._is_due = False
        #: Whether bytes wait in the buffer of Twisted.
        self._is_blocked = False
        self._is_closed = False
        socket.registerProducer(self, False)

    def write(self, data: bytes) -> None:
        """Send ``data`` with everything else that is written in this slice."""
        if self._is_closed:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit and not self._pressure.full:
            self._send()
            if self._size > self._limit:
                self._pressure.pauseProducing()
        elif not self._is_due and not self._is_blocked:
            self._is_due = True
            self._share.after_slice(self._send)

    def set_read_size(self, size: int) -> None:
        """Read at most ``size`` bytes at once. If more wait to be sent, the producer is paused."""
        self._socket.bufferSize = self._limit = size

    def adapt_read_size(self) -> None:
        """Set the read size to that of the share."""
        self._socket.bufferSize = self._share.read_size

    def finish(self) -> None:
        """Give everything to the socket, which is to be closed when all was sent."""
        pieces = self._pieces
        self.close()
        self._socket.write(b"".join(pieces))

    def close(self) -> None:
        """Drop what was not sent, and send nothing from now on: the socket is closed, or will be at once."""
        self._is_closed = True
        self._pieces = []

    def _send(self) -> None:
        self._is_due = False
        if self._is_blocked or not self._pieces:
            return
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        sent = self._socket.writeSomeData(data)
        # The reactor notices an error itself, when it writes.
        rest = data[sent:] if isinstance(sent, int) else data
        self._pieces = []
        self._size = len(rest)
        if rest:
            self._is_blocked = True
            self._socket.write(rest)

    # --- IPullProducer

    def resumeProducing(self) -> None:
        """Send what has been written since the socket was blocked: it has sent everything before."""
        self._is_blocked = False
        self._size = sum(map(len, self._pieces))
        self._send()
        if self._pressure.full and not self._is_blocked:
            self._pressure.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the transport handles the end of the connection."""
