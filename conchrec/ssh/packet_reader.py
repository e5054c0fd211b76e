"""Reads the packets of one connection, in fair turns with other connections.

Two kinds of reasons can stop reading. A *hold* stops the handling of messages; bytes are still received up
to a limit, so that the end of the connection is noticed. A *brake* only stops reading from the socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from conchrec.clock import Clock
from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.backpressure import Backpressure, Producer, change_reasons
from conchrec.ssh.fair_turns import READ_AT_MOST, Share
from conchrec.ssh.framing import InboundPackets
from conchrec.ssh.peer_limits import EarlyAllowance

#: How many bytes of a peer wait before its socket is paused.
MAX_HELD = 64 * 1024
#: The same before the peer's login.
MAX_HELD_EARLY = 16 * 1024


class PacketHandler(Protocol):
    """Handles the packets that were read: a transport."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended or is ending."""

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Call ``step``. If it raises, the connection ends."""

    def read_identification(self) -> bool:
        """Read the peer's identification string, if needed. Return whether packets may be handled."""

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        """Handle one message."""

    def messages_handled(self) -> None:
        """All messages of this slice were handled."""

    def input_ended(self) -> None:
        """The peer has closed the connection, and all its messages were handled."""


class PacketReader:
    """Gives the messages in ``inbound`` to ``handler``.

    ``share`` is charged for the work; without a share all received messages are handled at once.
    """

    __slots__ = (
        "_brakes", "_clock", "_early_allowance", "_handler", "_has_ended", "_holds", "_inbound",
        "_is_deferred", "_is_reading", "_share", "_socket",
    )  # fmt: skip

    def __init__(
        self, handler: PacketHandler, inbound: InboundPackets, clock: Clock, share: Share | None
    ) -> None:
        #: None after the end.
        self._handler: PacketHandler | None = handler
        self._inbound = inbound
        self._clock = clock
        self._share = share
        self._early_allowance: EarlyAllowance | None = EarlyAllowance()
        self._socket = Backpressure()
        self._holds: tuple[str, ...] = ()
        self._brakes: tuple[str, ...] = ()
        self._is_reading = False
        #: Whether messages are left for a later turn of the reactor.
        self._is_deferred = False
        #: Whether the peer has closed the connection while its messages are still being handled.
        self._has_ended = False

    def connect(self, socket: Producer) -> None:
        """Set the socket, which is paused when too many bytes wait."""
        self._socket.attach(socket)
        self._pace_socket()

    def log_in(self) -> None:
        """Allow the peer to send more after its login."""
        self._early_allowance = None

    def receive(self, data: bytes) -> None:
        """Handle bytes from the peer, in pieces of any size."""
        self._inbound.feed(data)
        if self._is_reading:
            return  # called while a message is handled: the loop there continues with this data
        if self._share is None:
            self.run_slice(lambda: False)
        elif not self._is_deferred:
            self._is_deferred = self._share.run(self)
        self._pace_socket()

    def end(self) -> bool:
        """Handle the end of the connection. Return whether all messages were handled.

        If messages are left, ``handler.input_ended`` is called after them.
        """
        self._has_ended = self._is_deferred and not self._is_over and not self._holds
        return not self._has_ended

    def release(self) -> None:
        """Forget the handler, which has ended."""
        self._handler = None

    def brake(self, reason: str, on: bool) -> None:
        """Do not read from the socket while there is a reason not to. Received bytes are still handled."""
        self._brakes = change_reasons(self._brakes, reason, on)
        self._pace_socket()

    def hold(self, reason: str, on: bool) -> None:
        """Do not handle packets while there is a reason not to.

        Up to MAX_HELD bytes wait in the buffer; then the socket is not read.
        """
        before = bool(self._holds)
        self._holds = change_reasons(self._holds, reason, on)
        if before and not self._holds and not self._is_over:
            self.receive(b"")

    # --- SlicedWork

    @property
    def share(self) -> Share | None:
        """The share that is charged for the work."""
        return self._share

    @share.setter
    def share(self, share: Share) -> None:
        self._share = share

    def run_slice(self, spent: Callable[[], bool]) -> bool:
        """Handle messages until ``spent`` returns true after one. Return whether messages are left."""
        handler = self._handler
        if self._is_reading or handler is None:
            return False
        self._is_reading = True
        try:
            handler.attempt(self._read, handler, spent)
        finally:
            self._is_reading = False
        remains = self._is_deferred and not handler.is_over and not self._holds
        self._is_deferred = remains
        self._pace_socket()
        if self._has_ended and not remains:
            self._has_ended = False
            handler.input_ended()
        return remains

    # --- inside

    @property
    def _is_over(self) -> bool:
        return self._handler is None or self._handler.is_over

    def _pace_socket(self) -> None:
        """Pause or resume the socket, if that has changed."""
        waits = bool(self._holds) or self._is_deferred
        limit = MAX_HELD if self._early_allowance is None else MAX_HELD_EARLY
        paused = bool(self._brakes) or (waits and len(self._inbound) > limit)
        if not self._is_over:
            self._socket.set("reader", paused)

    def _read(self, handler: PacketHandler, spent: Callable[[], bool]) -> None:
        """Handle the packets of one slice."""
        self._is_deferred = False
        inbound = self._inbound
        if not handler.read_identification():
            return
        handled = 0
        while not handler.is_over and not self._holds:
            payload = inbound.packet()
            if payload is None:
                break
            handled += len(payload)
            if self._early_allowance is not None and not self._early_allowance.charge(
                self._clock.seconds(), len(payload)
            ):
                raise RemoteViolation("too many messages before the login", code=ReasonCode.TOO_MANY_MESSAGES)
            handler.dispatchMessage(payload[0], payload[1:])
            # Count decompressed bytes too: they can be eight hundred times as many.
            if spent() or (handled > READ_AT_MOST and self._share is not None):
                self._is_deferred = len(inbound) > 0
                break
        if not handler.is_over:
            handler.messages_handled()
