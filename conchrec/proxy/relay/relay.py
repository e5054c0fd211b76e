"""Relays one channel between two connections: parses, admits, observes and forwards its messages.

The *near* end requested the channel, the *far* end grants it. For a session the user is near and the target
is far; for a forwarded port it may be the other way round.

Each message takes the same path, and nothing reaches the other end by another path:

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
from dataclasses import replace
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from conchrec.errors import ConchrecError, LocalViolation, RemoteViolation
from conchrec.proxy.held_bytes import ChannelHeldBytes, UserHeldBytes
from conchrec.proxy.relay.admission import (
    CHANNEL_CLOSED,
    DATA_HEADER,
    FROM_FAR,
    FROM_FAR_OF_FORWARD,
    FROM_NEAR,
    MessageKind,
    Payload,
    StartPhase,
)
from conchrec.proxy.relay.channel_end import ChannelEnd, FarReceiver
from conchrec.proxy.relay.lane import Lane
from conchrec.proxy.relay.message_parser import STARTS, SURPLUS, parse_message
from conchrec.proxy.relay.observer import NOT_FORWARDED, Observer, Verdict
from conchrec.proxy.relay.sync_gate import SyncGate
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.format.manifest import Control
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen
from conchrec.ssh.wire import uint32
from conchrec.text import one_line

_log = Logger()

#: What a session that is confirmed before the target's channel exists may send in one packet (RFC 4253, 6.1).
EARLY_MAX_PACKET = 32 * 1024
_UNREQUESTED = Reason(ReasonCode.REPLY_WITHOUT_REQUEST, "channel reply without a request")
#: Requests that are always forwarded with want_reply: the answer decides what the recording says.
_ANSWER_NEEDED = STARTS | {b"pty-req"}


class Relay:
    """One relayed channel, and the ChannelReceiver of its near end.

    Its life: ``early`` (some sessions), ``dial``, messages, CLOSE from both ends.
    """

    __slots__ = (
        "_aborted", "_dialled", "_done", "_early", "_far", "_gate", "_held_bytes", "_is_session", "_near",
        "_observer", "_opening", "_to_far", "_to_near", "_withheld",
    )  # fmt: skip

    def __init__(
        self, opening: IncomingOpen, observer: Observer, held_bytes: ChannelHeldBytes | None = None
    ) -> None:
        """``held_bytes`` counts the messages that wait in this channel; the relay closes it at its end."""
        self._held_bytes = held_bytes = held_bytes or UserHeldBytes().channel()
        self._opening = opening
        self._observer = observer
        self._is_session = is_session = opening.channel.kind == b"session"
        self._early = False
        self._dialled = False
        self._done = False
        self._aborted = False
        #: The part of the far end's window that the near end gets when its start is accepted.
        self._withheld = 0
        #: None without ``proxy-sync``.
        self._gate: SyncGate | None = None
        self._near = ChannelEnd(
            opening.channel,
            opening.request.max_packet,
            FROM_NEAR,
            is_session=is_session,
            admit=self._admit_near,
            drop=partial(observer.dropped, from_near=True),
            on_close=self._finish_if_closed,
            held_bytes=held_bytes,
        )
        self._far = ChannelEnd(
            None,
            EARLY_MAX_PACKET,
            FROM_FAR if is_session else FROM_FAR_OF_FORWARD,
            is_session=is_session,
            admit=self._admit_far,
            drop=partial(observer.dropped, from_near=False),
            on_close=self._finish_if_closed,
            held_bytes=held_bytes,
        )
        self._far.incoming.window = opening.request.window
        self._to_far = Lane(observer.from_near, self._far.forward, held_bytes)
        self._to_near = Lane(self._observe_far, self._near.forward, held_bytes)

    @property
    def request(self) -> m.ChannelOpen:
        """The near end's request for the channel."""
        return self._opening.request

    @property
    def finished(self) -> bool:
        """Whether the channel is over; the observer's ``finished`` was called."""
        return self._done

    def control(self, *, from_near: bool) -> Control | None:
        """Return the sum of the forwarded messages that are not data; None without any."""
        return (self._far if from_near else self._near).control.value()

    # --- opening

    def early(self) -> None:
        """Confirm a session with window 0, so that the client sends its first requests."""
        self._early = True
        self._opening.confirm(self, 0, EARLY_MAX_PACKET)

    def dial(self, far: Connection, sync: Callable[[], Deferred[None]] | None = None) -> None:
        """Request the same channel from the far connection.

        With ``sync`` each message waits, after it was observed, for the Deferred that ``sync`` returns.
        Raises Malformed or Truncated if the channel's type-specific data is malformed.
        """
        if self._done or self._dialled:
            return
        request = self._opening.request
        extra, surplus = message_layouts.rewrite(message_layouts.CHANNEL_OPENS[request.kind], request.extra)
        if surplus:
            self._observer.dropped(m.CHANNEL_OPEN, surplus, SURPLUS, from_near=True)
        self._dialled = True
        if sync is not None:
            self._gate = SyncGate(
                sync,
                (self._to_far, self._to_near),
                failed=lambda error: self._fail(error),
                is_over=lambda: self._aborted,
            )
        self._far.incoming.granted = request.window
        self._far.channel = far.open(
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
        if self._done or self._aborted:
            assert self._far.channel is not None
            self._far.channel.send(m.CHANNEL_CLOSE)
            return
        if max_packet == 0:
            raise RemoteViolation("invalid maximum packet size: 0 bytes")
        if not self._guard(self._observer.opened):
            return
        if extra:
            self._observer.dropped(m.CHANNEL_OPEN_CONFIRMATION, extra, SURPLUS, from_near=False)
        self._far.max_packet = max_packet
        self._near.incoming.window = window
        if self._is_session:
            self._withheld = window
            if not self._early:
                self._opening.confirm(self, 0, max_packet)
        else:
            self._near.incoming.granted = window
            self._opening.confirm(self, window, max_packet)
        gate = self._gate.message_waits if self._gate is not None else None
        self._guard(lambda: self._to_near.open(gate))
        self._guard(lambda: self._to_far.open(gate))

    def _far_refused(self, code: int, text: bytes) -> None:
        self._far.channel = None
        if self._done:
            return
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
        if not self._aborted and not self._done:
            self._guard(self._parse_and_admit, self._near, message, body)

    def _far_received(self, message: int, body: bytes) -> None:
        if not self._aborted and not self._done:
            self._guard(self._parse_and_admit, self._far, message, body)

    def _parse_and_admit(self, sender: ChannelEnd, message: int, body: bytes) -> None:
        direction = sender.incoming
        if message == m.CHANNEL_DATA and int.from_bytes(body[:4], "big") == len(body) - 4 >= 0:
            # The most frequent message, and already in its canonical form.
            direction.push(MessageKind.DATA, message, body)
            return
        from_near = sender is self._near
        parsed = parse_message(message, body, is_session=self._is_session, from_near=from_near)
        if parsed.reason is not None:
            self._observer.dropped(message, parsed.dropped, parsed.reason, from_near=from_near)
        if parsed.kind is MessageKind.CLOSE:
            if from_near:
                direction.discard(CHANNEL_CLOSED)
            else:
                direction.flush()
        direction.push(parsed.kind, message, parsed.payload)

    # --- admitted messages

    def _admit_near(self, kind: MessageKind, message: int, payload: Payload) -> None:
        if self._aborted:
            return
        if not isinstance(payload, bytes):
            self._admit_near_request(kind, payload)
        elif kind is MessageKind.WINDOW:
            self._add_near_window(m.parse_uint32(payload))
        elif kind is MessageKind.REPLY and not self._near.unanswered:
            self._observer.dropped(message, payload, _UNREQUESTED, from_near=True)
        else:
            if kind is MessageKind.REPLY:
                self._near.unanswered.popleft()
            self._far.check_size(message, payload)
            self._to_far.push(message, payload)

    def _admit_near_request(self, kind: MessageKind, request: m.ChannelRequest) -> None:
        replies = self._near.replies
        if kind is MessageKind.REFUSED:
            if request.want_reply:
                replies.answer(False)
            return
        try:
            verdict = self._observer.requested(request)
        except RemoteViolation:
            raise
        except ConchrecError:
            if request.want_reply:
                replies.expect()
            raise
        if self._aborted:
            return
        if verdict in (Verdict.ACCEPT, Verdict.REFUSE):
            if request.want_reply:
                replies.answer(verdict is Verdict.ACCEPT)
            return
        is_reply_wanted = request.want_reply
        if isinstance(verdict, m.ChannelRequest):
            request = verdict
        if self._is_session and request.name in _ANSWER_NEEDED:
            request = replace(request, want_reply=True)
        if request.want_reply:
            self._far.expect_reply(request)
            replies.expect(wanted=is_reply_wanted)
        if kind is MessageKind.START:
            self._enter(StartPhase.STARTING)
        self._to_far.push(m.CHANNEL_REQUEST, request.encode())
        if kind is MessageKind.START and not self._aborted:
            # Messages that the far end sent before the start are recorded after it.
            self._far.incoming.drain()

    def _admit_far(self, kind: MessageKind, message: int, payload: Payload) -> None:
        if self._aborted:
            return
        if not isinstance(payload, bytes):
            self._admit_far_request(kind, payload)
        elif kind is MessageKind.WINDOW:
            self._add_far_window(m.parse_uint32(payload))
        elif kind is MessageKind.REPLY:
            self._admit_answer(message)
        else:
            self._near.check_size(message, payload)
            self._to_near.push(message, payload)

    def _admit_far_request(self, kind: MessageKind, request: m.ChannelRequest) -> None:
        verdict = Verdict.REFUSE if kind is MessageKind.REFUSED else self._observer.far_requested(request)
        if verdict is not Verdict.PASS:
            if request.want_reply:
                self._far.replies.answer(verdict is Verdict.ACCEPT)
            return
        if request.want_reply:
            self._near.expect_reply(request)
            self._far.replies.expect()
        self._to_near.push(m.CHANNEL_REQUEST, request.encode())

    def _admit_answer(self, message: int) -> None:
        """Handle the far end's reply to its oldest unanswered request."""
        if not self._far.unanswered:
            self._observer.dropped(message, b"", _UNREQUESTED, from_near=False)
            return
        request, success = self._far.unanswered.popleft(), message == m.CHANNEL_SUCCESS
        self._observer.answered(request, success)
        self._to_near.push(message, b"")
        if not self._is_session or request.name not in STARTS or self._aborted:
            return
        if success:
            if self._withheld:
                self._to_near.push(m.CHANNEL_WINDOW_ADJUST, uint32(self._withheld))
                self._withheld = 0
            self._enter(StartPhase.STARTED)
        else:
            self._near.incoming.enter(StartPhase.NOT_STARTED)

    def _add_near_window(self, size: int) -> None:
        """Forward a WINDOW_ADJUST of the near end, cut so that the window does not overflow.

        sshd ends the connection for an overflow.
        """
        if size := self._far.incoming.add_window(size):
            self._to_far.push(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _add_far_window(self, size: int) -> None:
        size = self._near.incoming.add_window(size)
        if self._near.incoming.phase is not StartPhase.STARTED:
            self._withheld += size
        elif size:
            self._to_near.push(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _enter(self, phase: StartPhase) -> None:
        self._near.incoming.enter(phase)
        if phase is StartPhase.STARTED:
            self._far.incoming.enter(phase)
        else:
            # The caller drains it, when the start request was forwarded.
            self._far.incoming.phase = phase

    def _observe_far(self, message: int, body: bytes) -> None:
        if message not in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._observer.from_far(message, body)

    # --- ends

    def lost(self) -> None:
        """Finish, because the near connection is lost; the owner of both connections ends the far one.

        The far end gets no CLOSE: it would take the data so far for all of the data.
        """
        self._finish()

    def _far_lost(self) -> None:
        """Finish, because the far connection is lost; the owner of both connections tells the user."""
        if not self._aborted:
            self._guard(self._far.incoming.flush)
        self._finish()

    def abort(self, text: str, status: int = 255) -> bool:
        """End the channel on both sides. Returns whether ``text`` was sent to the user's stderr."""
        if self._done or self._aborted:
            return False
        self._aborted = True
        was_sent = False
        if self._opening.answered:
            # Clients print the text only if their request was accepted.
            self._near.replies.settle(True)
            was_sent = self._near.send_end(self._far.incoming, text, status)
        else:
            self._opening.refuse(m.CONNECT_FAILED, text)
        self._far.send(m.CHANNEL_CLOSE)
        self._finish()
        return was_sent

    def _finish_if_closed(self) -> None:
        near, far = self._near.channel, self._far.channel
        if near is not None and far is not None and far.sent_close and near.sent_close:
            self._finish()

    def _finish(self) -> None:
        if self._done:
            return
        for end in (self._near, self._far):
            end.incoming.discard(CHANNEL_CLOSED)
        for lane in (self._to_far, self._to_near):
            for message, body in lane.abandon():
                if message in DATA_HEADER or message == m.CHANNEL_REQUEST:
                    self._observer.dropped(message, body, NOT_FORWARDED, from_near=lane is self._to_far)
        self._held_bytes.close()
        self._done = True
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
            if isinstance(error, LocalViolation):
                _log.failure("unexpected error in a channel, which is closed: {detail}", detail=error.detail)
            self._fail(error)
            return False
        return True

    def _fail(self, error: ConchrecError) -> None:
        self.abort(self._observer.failed(error))
