"""Relays one channel between two connections: parses, admits, observes and forwards its messages.

The *near* end requested the channel, the *far* end grants it. For a session the user is near and the target
is far; for a forwarded port it may be the other way round.

Each message takes the same path (``message_flow.py``), and nothing reaches the other end by another path:

1. ``parse_message`` (``message_parser.py``) parses it by its layout (``ssh/message_layouts.py``), and writes
   it again from its fields. Surplus bytes are dropped; a malformed known request is answered with FAILURE.
2. ``Direction`` (``admission.py``) admits what the other end accepts at this point: start, window, EOF.
3. The observer decides about a request (``requested``) and records the message (``from_near``, ``from_far``).
4. The lane (``lane.py``) forwards it to the ``ChannelEnd`` (``channel_end.py``), at once, or when it is on
   disk (``proxy-sync``). Data is split to the receiver's maximum packet size; all other messages are hashed
   (``control``), so that the recording covers each of their bytes.

The two ends' own windows are forwarded. The relay grants none, except for bytes that it drops.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from conchrec.errors import ConchrecError, LocalViolation, RemoteViolation, without_traceback
from conchrec.proxy.held_bytes import ChannelHeldBytes, UserHeldBytes
from conchrec.proxy.relay.channel_end import FarReceiver
from conchrec.proxy.relay.message_flow import EARLY_MAX_PACKET, MessageFlow
from conchrec.proxy.relay.message_parser import SURPLUS
from conchrec.proxy.relay.observer import Observer
from conchrec.proxy.relay.sync_gate import SyncGate
from conchrec.reasons import INTERNAL_ERROR
from conchrec.recording.format.manifest import Control
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel, Connection, IncomingOpen
from conchrec.text import one_line

_log = Logger()


class Relay:
    """One relayed channel, and the ChannelReceiver of its near end.

    Its life: ``confirm_early`` (some sessions), ``open_far``, messages, CLOSE from both ends.
    """

    __slots__ = (
        "_early",
        "_far",
        "_finished",
        "_flow",
        "_gate",
        "_held_bytes",
        "_is_requested",
        "_observer",
        "_opening",
    )

    def __init__(
        self, opening: IncomingOpen, observer: Observer, held_bytes: ChannelHeldBytes | None = None
    ) -> None:
        """``held_bytes`` counts the messages that wait in this channel; the relay closes it at its end."""
        self._held_bytes = held_bytes or UserHeldBytes().channel()
        self._opening = opening
        self._observer = observer
        self._early = False
        self._is_requested = False
        self._finished = False
        #: The channel of the far end; None before it is requested.
        self._far: Channel | None = None
        #: None without ``proxy-sync``.
        self._gate: SyncGate | None = None
        self._flow = MessageFlow(opening, observer, self._held_bytes, self._finish_if_closed)

    @property
    def request(self) -> m.ChannelOpen:
        """The near end's request for the channel."""
        return self._opening.request

    @property
    def finished(self) -> bool:
        """Whether the channel is over; the observer's ``finished`` was called."""
        return self._finished

    def control(self, *, from_near: bool) -> Control | None:
        """Return the sum of the forwarded messages that are not data; None without any."""
        return (self._flow.far if from_near else self._flow.near).control.value()

    def release(self) -> None:
        """Drop the parts, which refer to each other; the observer calls it in the turn after the end."""
        if self._gate is not None:
            self._gate.release()
        self._flow.release()
        del self._flow, self._gate, self._observer

    # --- opening

    def confirm_early(self) -> None:
        """Confirm a session with window 0, so that the client sends its first requests."""
        self._early = True
        self._opening.confirm(self, 0, EARLY_MAX_PACKET)

    def open_far(self, far: Connection, sync: Callable[[], Deferred[None]] | None = None) -> None:
        """Request the same channel from the far connection.

        With ``sync`` each message waits, after it was observed, for the Deferred that ``sync`` returns.
        Raises Malformed or Truncated if the channel's type-specific data is malformed.
        """
        if self._finished or self._is_requested:
            return
        request = self._opening.request
        extra, surplus = message_layouts.rewrite(message_layouts.CHANNEL_OPENS[request.kind], request.extra)
        if surplus:
            self._observer.dropped(m.CHANNEL_OPEN, surplus, SURPLUS, from_near=True)
        self._is_requested = True
        if sync is not None:
            self._gate = SyncGate(
                sync,
                (self._flow.to_far, self._flow.to_near),
                failed=lambda error: self._fail(error),
                is_over=lambda: self._finished or self._flow.is_stopped,
            )
        self._flow.far.incoming.granted = request.window
        self._far = self._flow.far.channel = far.open(
            request.kind,
            FarReceiver(
                opened=self._far_opened,
                refused=self._far_refused,
                received=self._far_received,
                lost=self._far_lost,
            ),
            window=request.window,
            max_packet=request.max_packet,
            extra=extra,
        )

    def _far_opened(self, window: int, max_packet: int, extra: bytes) -> None:
        if self._finished or self._flow.is_stopped:
            assert self._far is not None
            self._far.send(m.CHANNEL_CLOSE)
            return
        flow = self._flow
        if max_packet == 0:
            raise RemoteViolation("invalid maximum packet size: 0 bytes")
        if not self._guard(self._observer.opened):
            return
        if extra:
            self._observer.dropped(m.CHANNEL_OPEN_CONFIRMATION, extra, SURPLUS, from_near=False)
        near_window = flow.set_far_window(window, max_packet)
        if not self._early:
            self._opening.confirm(self, near_window, max_packet)
        gate = self._gate.message_waits if self._gate is not None else None
        self._guard(lambda: flow.to_near.open(gate))
        self._guard(lambda: flow.to_far.open(gate))

    def _far_refused(self, code: int, text: bytes) -> None:
        if self._finished:
            return
        self._flow.far.channel = None
        if not self._early:
            # Only what the observer records is forwarded: one line, and one of the codes of RFC 4254.
            known = code if m.ADMINISTRATIVELY_PROHIBITED <= code <= m.RESOURCE_SHORTAGE else m.CONNECT_FAILED
            self._opening.refuse(known, one_line(text))
            self._guard(lambda: self._observer.refused(code, text))
            self._finish()
        else:
            self._guard(lambda: self._observer.refused(code, text))

    # --- received messages

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        """Reject a confirmation from the near end."""
        raise RemoteViolation("unexpected CHANNEL_OPEN_CONFIRMATION: the peer itself opened this channel")

    def refused(self, code: int, text: bytes) -> None:
        """Reject a refusal from the near end."""
        raise RemoteViolation("unexpected CHANNEL_OPEN_FAILURE: the peer itself opened this channel")

    def received(self, message: int, body: bytes) -> None:
        """Handle a message of the near end: its number, and what follows the channel number."""
        if not self._finished and not self._flow.is_stopped:
            self._guard(self._flow.receive, self._flow.near, message, body)

    def _far_received(self, message: int, body: bytes) -> None:
        if not self._finished and not self._flow.is_stopped:
            self._guard(self._flow.receive, self._flow.far, message, body)

    # --- ends

    def lost(self) -> None:
        """Finish, because the near connection is lost; the owner of both connections ends the far one.

        The far end gets no CLOSE: it would take the data so far for all of the data.
        """
        self._finish()

    def _far_lost(self) -> None:
        """Finish, because the far connection is lost; the owner of both connections tells the user."""
        if not self._finished and not self._flow.is_stopped:
            self._guard(self._flow.far.incoming.flush)
        self._finish()

    def abort(self, text: str, status: int = 255) -> bool:
        """End the channel on both sides. Returns whether ``text`` was sent to the user's stderr."""
        if self._finished or self._flow.is_stopped:
            return False
        near, far = self._flow.near, self._flow.far
        self._flow.is_stopped = True
        was_sent = False
        if self._opening.answered:
            # Clients print the text only if their request was accepted.
            near.replies.settle(True)
            was_sent = near.send_end(far.incoming, text, status)
        else:
            self._opening.refuse(m.CONNECT_FAILED, text)
        far.send(m.CHANNEL_CLOSE)
        self._finish()
        return was_sent

    def _finish_if_closed(self) -> None:
        near, far = self._flow.near.channel, self._flow.far.channel
        if near is not None and far is not None and far.sent_close and near.sent_close:
            self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._flow.discard()
        self._held_bytes.close()
        self._finished = True
        try:
            self._observer.finished()
        except Exception:
            _log.failure("unexpected error at the end of a channel")

    def _guard(self, call: Callable[..., None], *arguments: object) -> bool:
        """Call a function. If it is refused or cannot be recorded, end this channel and return False."""
        try:
            call(*arguments)
        except RemoteViolation:
            raise
        except ConchrecError as error:
            self._fail(error)
            return False
        except LocalViolation:
            _log.failure("internal error in a channel, which is closed")
            self._fail(ConchrecError(INTERNAL_ERROR, code=INTERNAL_ERROR.code))
            return False
        return True

    def _fail(self, error: ConchrecError) -> None:
        self.abort(self._observer.failed(without_traceback(error)))
