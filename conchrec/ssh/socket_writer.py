"""Writes to a socket when a slice ends, instead of in the next turn of the reactor.

A key then takes no extra turn behind the bulk transfers of others. Most output is sent whole, so that the
reactor never waits for this socket to become writable: that saves two system calls and an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPullProducer
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from conchrec.ssh.backpressure import WriteBackpressure

_NO_BYTES = b""


class Socket(Protocol):
    """The part of a Twisted TCP transport (``FileDescriptor``) that is used here."""

    def write(self, data: bytes) -> None:
        """Send ``data`` when the socket is writable."""

    def writeSomeData(self, data: bytes) -> int | Exception:
        """Send a part of ``data`` now. Return the number of bytes, or the error that has ended the socket."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Call ``resumeProducing`` of a producer that is not streaming when all written bytes were sent."""


def socket_of(transport: Any) -> Any:
    """Return the transport without wrappers of Twisted (``haproxy:``), which do not pass on what is set."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


@implementer(IPullProducer)
class SocketWriter:
    """The output of one connection. ``after_slice`` is that of its share (``fair_turns``).

    While the socket accepts no more, the bytes wait in the buffer of Twisted. When more than ``limit`` bytes
    wait, ``pressure`` pauses the producer until all were sent.
    """

    __slots__ = (
        "_after_slice", "_is_blocked", "_is_closed", "_is_due", "_pieces", "_pressure", "_size", "_socket",
        "limit",
    )  # fmt: skip

    def __init__(
        self,
        socket: Socket,
        pressure: WriteBackpressure,
        after_slice: Callable[[Callable[[], object]], None],
        limit: int,
    ) -> None:
        self.limit = limit
        self._socket = socket
        self._pressure = pressure
        self._after_slice = after_slice
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
        if self._size > self.limit and not self._pressure.full:
            self._send()
            if self._size > self.limit:
                self._pressure.pauseProducing()
        elif not self._is_due and not self._is_blocked:
            self._is_due = True
            self._after_slice(self._send)

    def finish(self) -> None:
        """Give everything to the socket, which is to be closed when all was sent."""
        pieces = self._pieces
        self.close()
        self._socket.write(_NO_BYTES.join(pieces))

    def close(self) -> None:
        """Drop what was not sent, and send nothing from now on: the socket is closed, or will be at once."""
        self._is_closed = True
        self._pieces = []

    def _send(self) -> None:
        self._is_due = False
        if self._is_blocked or not self._pieces:
            return
        data = self._pieces[0] if len(self._pieces) == 1 else _NO_BYTES.join(self._pieces)
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
