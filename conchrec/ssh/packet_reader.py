"""Reads the packets of one connection: as its socket brings them, in fair turns with other connections, and
not while there is a reason to wait.

Two kinds of reason keep a peer waiting. A *hold* stops the handling of messages; bytes still come in, up to a
limit, so that the end of the connection is noticed. A *brake* stops the socket alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from conchrec.clock import Clock
from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.backpressure import Producer
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.framing import InboundPackets
from conchrec.ssh.peer_limits import EarlyAllowance

#: Bytes of a peer that are kept while nothing of it is handled, or not all of it in this turn, before its
#: socket is not read any more.
MAX_HELD = 64 * 1024
#: The same before its login.
MAX_HELD_EARLY = 16 * 1024
#: In one go from a socket. Twisted's own 64 KiB are two packets, and each turn of the reactor costs.
READ_AT_MOST = 256 * 1024


class PacketHandler(Protocol):
    """Who handles what is read: a transport."""

    @property
    def is_over(self) -> bool:
        """The connection ends, or has ended."""

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Call ``step``; what it raises ends the connection."""

    def read_identification(self) -> bool:
        """Read the peer's identification string, where it is still to come. May packets be handled?"""

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        """Handle one message."""

    def messages_handled(self) -> None:
        """All messages of this slice were handled."""

    def input_ended(self) -> None:
        """The peer is gone, and what it had sent was handled."""


class PacketReader:
    """Hands the messages in ``incoming`` to ``handler``. ``share`` is charged for their handling; without one
    all that has come is handled at once."""

    def __init__(
        self, handler: PacketHandler, incoming: InboundPackets, clock: Clock, share: Share | None
    ) -> None:
        self._handler = handler
        self._incoming = incoming
        self._clock = clock
        self._share = share
        self._early_allowance: EarlyAllowance | None = EarlyAllowance()
        self._socket: Producer | None = None
        self._socket_paused = False
        self._holds: set[str] = set()
        self._brakes: set[str] = set()
        self._is_reading = False
        #: Messages are left for a later turn of the reactor.
        self._is_deferred = False
        #: The peer is gone, and what it has sent is still being handled.
        self._has_ended = False

    def connect(self, socket: Producer) -> None:
        """The socket that is paused where too much waits."""
        self._socket = socket
        self._pace_socket()

    def log_in(self) -> None:
        """The peer has logged in: it may send more."""
        self._early_allowance = None

    def receive(self, data: bytes) -> None:
        """Bytes of the peer, cut anywhere."""
        self._incoming.feed(data)
        if self._is_reading:
            return  # called by what a message has set going: its reader goes on with this, in order
        if self._share is None:
            self.read_slice(lambda: False)
        elif not self._is_deferred:
            self._is_deferred = self._share.read(self)
        self._pace_socket()

    def end(self) -> bool:
        """The peer is gone. Is nothing left to be handled? If something is, ``handler.input_ended`` is called
        after that."""
        self._has_ended = self._is_deferred and not self._handler.is_over and not self._holds
        return not self._has_ended

    def brake(self, reason: str, on: bool) -> None:
        """Take nothing from the socket while there is any reason not to. Bytes already taken are handled."""
        (self._brakes.add if on else self._brakes.discard)(reason)
        self._pace_socket()

    def hold(self, reason: str, on: bool) -> None:
        """Handle no packet of the peer while there is any reason not to. Bytes wait in the buffer, up to
        MAX_HELD; then the socket is not read."""
        before = bool(self._holds)
        (self._holds.add if on else self._holds.discard)(reason)
        if before and not self._holds and not self._handler.is_over:
            self.receive(b"")

    # --- TurnReader

    @property
    def share(self) -> Share | None:
        """Who pays for the handling of messages."""
        return self._share

    @share.setter
    def share(self, share: Share) -> None:
        self._share = share

    def read_slice(self, spent: Callable[[], bool]) -> bool:
        """Handle messages until ``spent`` returns true after one. True if some are left."""
        if self._is_reading:
            return False
        self._is_reading = True
        try:
            self._handler.attempt(self._read, spent)
        finally:
            self._is_reading = False
        remains = self._is_deferred and not self._handler.is_over and not self._holds
        self._is_deferred = remains
        self._pace_socket()
        if self._has_ended and not remains:
            self._has_ended = False
            self._handler.input_ended()
        return remains

    # --- inside

    def _pace_socket(self) -> None:
        """Stop or resume reading from the socket, where that changes."""
        waits = bool(self._holds) or self._is_deferred
        limit = MAX_HELD if self._early_allowance is None else MAX_HELD_EARLY
        paused = bool(self._brakes) or (waits and len(self._incoming) > limit)
        if paused == self._socket_paused or self._socket is None or self._handler.is_over:
            return
        self._socket_paused = paused
        if paused:
            self._socket.pauseProducing()
        else:
            self._socket.resumeProducing()

    def _read(self, spent: Callable[[], bool]) -> None:
        self._is_deferred = False
        handler, incoming = self._handler, self._incoming
        if not handler.read_identification():
            return
        handled = 0
        while not handler.is_over and not self._holds:
            payload = incoming.packet()
            if payload is None:
                break
            handled += len(payload)
            if self._early_allowance is not None and not self._early_allowance.charge(
                self._clock.seconds(), len(payload)
            ):
                raise RemoteViolation("too many messages before the login", code=ReasonCode.TOO_MANY_MESSAGES)
            handler.dispatchMessage(payload[0], payload[1:])
            # Compressed bytes may be eight hundred times as many inside: those count, too.
            if spent() or (handled > READ_AT_MOST and self._share is not None):
                self._is_deferred = len(incoming) > 0
                break
        if not handler.is_over:
            handler.messages_handled()
