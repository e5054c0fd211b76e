"""One channel between two connections: parsed, admitted, observed, forwarded.

The *near* end asked for the channel, the *far* end grants it: for a session the user is near and the
target far, for a forwarded port it may be the other way round.

Every message takes the same path, and nothing reaches the other end by another one:

1. ``take`` (``intake.py``) parses it by its layout (``ssh/message_layouts.py``) and writes it again from its
   fields. Surplus bytes are dropped; a known request that is malformed is answered FAILURE.
2. ``Direction`` (``admission.py``) admits what the other end takes at this point: start, window, EOF.
3. The observer judges a request (``requested``), and sees the message (``from_near``, ``from_far``).
4. The lane forwards it: at once, or when it is on disk (``proxy-sync``). Data is split to the receiver's
   maximum packet; all other messages are hashed (``control``), so that the record covers each of their bytes.

Windows are the two ends' own and pass through. The relay grants none, except for bytes that it drops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.proxy.held_bytes import ChannelWaiting, UserWaiting
from conchrec.proxy.relay.admission import (
    CHANNEL_CLOSED,
    DATA_HEADER,
    FROM_FAR,
    FROM_FAR_OF_FORWARD,
    FROM_NEAR,
    Direction,
    MessageKind,
    Payload,
    StartPhase,
)
from conchrec.proxy.relay.control_hash import ControlHash
from conchrec.proxy.relay.ends import send_end
from conchrec.proxy.relay.far_end import FarEnd
from conchrec.proxy.relay.intake import STARTS, SURPLUS, take
from conchrec.proxy.relay.lane import Lane, ReplyOrder
from conchrec.proxy.relay.observer import NOT_FORWARDED, Observer, Verdict
from conchrec.proxy.relay.packets import check_split, send_split
from conchrec.proxy.relay.sync_gate import SyncGate
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.format.manifest import Control
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel, Connection, IncomingOpen
from conchrec.ssh.wire import uint32
from conchrec.text import one_line

_log = Logger()

#: What a session that is confirmed before the target's channel exists may send in one packet (RFC 4253, 6.1).
EARLY_MAX_PACKET = 32 * 1024
#: Requests of one end that the other has not answered. PuTTY, which sends most, has a few hundred at once.
UNANSWERED_MOST = 4096
_UNREQUESTED = Reason(ReasonCode.REPLY_WITHOUT_REQUEST, "channel reply without a request")
#: The answer decides what the record says, so that it is always requested of the far end.
_ANSWER_NEEDED = STARTS | {b"pty-req"}


class Relay:
    """One relayed channel. Life: ``early`` (sessions), ``dial``, messages, CLOSE from both ends."""

    __slots__ = (
        "_aborted", "_dialled", "_done", "_early", "_far", "_far_control", "_far_max_packet",
        "_far_replies", "_far_unanswered", "_from_far", "_from_near", "_gate", "_is_session", "_near",
        "_near_control", "_near_replies", "_near_unanswered", "_observer", "_opening", "_to_far",
        "_to_near", "_waiting", "_withheld",
    )  # fmt: skip

    def __init__(
        self, opening: IncomingOpen, observer: Observer, waiting: ChannelWaiting | None = None
    ) -> None:
        """``waiting`` counts what waits in the channel; it is closed at its end."""
        self._waiting = waiting = waiting or UserWaiting().channel()
        self._opening = opening
        self._observer = observer
        self._near: Channel = opening.channel
        self._far: Channel | None = None
        self._is_session = opening.channel.kind == b"session"
        self._early = False
        self._dialled = False
        self._done = False
        self._aborted = False
        self._far_max_packet = EARLY_MAX_PACKET
        #: Of the far end's window, what the near end is told when its start is accepted.
        self._withheld = 0
        #: ``proxy-sync`` only.
        self._gate: SyncGate | None = None
        #: Requests that were forwarded and that the other end has to answer.
        self._far_unanswered: deque[m.ChannelRequest] = deque()
        self._near_unanswered = 0
        self._near_replies = ReplyOrder(lambda success: self._reply_to_near(success))
        self._far_replies = ReplyOrder(lambda success: self._reply_to_far(success))
        self._near_control = ControlHash()
        self._far_control = ControlHash()
        self._to_far = Lane(observer.from_near, self._forward_far, waiting)
        self._to_near = Lane(self._observe_far, self._forward_near, waiting)
        phase = StartPhase.NOT_STARTED if self._is_session else StartPhase.STARTED
        self._from_near = Direction(
            FROM_NEAR,
            phase,
            deliver=self._admit_near,
            refund=self._refund_near,
            dropped=partial(observer.dropped, from_near=True),
            refuse=partial(self._refuse, from_near=True),
            account=waiting,
        )
        self._from_far = Direction(
            FROM_FAR if self._is_session else FROM_FAR_OF_FORWARD,
            phase,
            deliver=self._admit_far,
            refund=self._refund_far,
            dropped=partial(observer.dropped, from_near=False),
            refuse=partial(self._refuse, from_near=False),
            account=waiting,
        )
        self._from_far.window = opening.request.window

    @property
    def request(self) -> m.ChannelOpen:
        return self._opening.request

    @property
    def finished(self) -> bool:
        return self._done

    def control(self, *, from_near: bool) -> Control | None:
        """What was forwarded besides data; None where nothing was."""
        return (self._near_control if from_near else self._far_control).value()

    # --- opening

    def early(self) -> None:
        """Confirm a session with window 0, so that the client says what it has to say first."""
        self._early = True
        self._opening.confirm(self, 0, EARLY_MAX_PACKET)

    def dial(self, far: Connection, sync: Callable[[], Deferred[None]] | None = None) -> None:
        """Ask the far connection for the same channel.

        With ``sync`` every message waits, after it was observed, for the Deferred that it returns.
        Raises Malformed or Truncated where the channel's type-specific data is malformed.
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
        self._from_far.granted = request.window
        self._far = far.open(
            request.kind,
            FarEnd(
                opened=self.far_opened,
                refused=self.far_refused,
                received=self.far_received,
                lost=self.far_lost,
            ),
            window=request.window,
            max_packet=request.max_packet,
            extra=extra,
        )

    def far_opened(self, window: int, max_packet: int, extra: bytes) -> None:
        if self._done or self._aborted:
            assert self._far is not None
            self._far.send(m.CHANNEL_CLOSE)
            return
        if max_packet == 0:
            raise RemoteViolation("invalid maximum packet size: 0 bytes")
        if not self._guard(self._observer.opened):
            return
        if extra:
            self._observer.dropped(m.CHANNEL_OPEN_CONFIRMATION, extra, SURPLUS, from_near=False)
        self._far_max_packet = max_packet
        self._from_near.window = window
        if self._is_session:
            self._withheld = window
            if not self._early:
                self._opening.confirm(self, 0, max_packet)
        else:
            self._from_near.granted = window
            self._opening.confirm(self, window, max_packet)
        gate = self._gate.message_waits if self._gate is not None else None
        self._guard(lambda: self._to_near.open(gate))
        self._guard(lambda: self._to_far.open(gate))

    def far_refused(self, code: int, text: bytes) -> None:
        self._far = None
        if self._done:
            return
        if not self._early:
            # Nothing but what the observer writes down: one line, and one of RFC 4254's codes.
            known = code if m.ADMINISTRATIVELY_PROHIBITED <= code <= m.RESOURCE_SHORTAGE else m.CONNECT_FAILED
            self._opening.refuse(known, one_line(text))
            self._guard(lambda: self._observer.refused(code, text))
            self._finish()
        else:
            self._guard(lambda: self._observer.refused(code, text))

    # --- what the near end sends (ChannelReceiver of the near connection)

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        raise RemoteViolation("unexpected CHANNEL_OPEN_CONFIRMATION: the peer itself opened this channel")

    def refused(self, code: int, text: bytes) -> None:
        raise RemoteViolation("unexpected CHANNEL_OPEN_FAILURE: the peer itself opened this channel")

    def received(self, message: int, body: bytes) -> None:
        if not self._aborted and not self._done:
            self._guard(self._take, self._from_near, message, body)

    def far_received(self, message: int, body: bytes) -> None:
        if not self._aborted and not self._done:
            self._guard(self._take, self._from_far, message, body)

    def _take(self, sender: Direction, message: int, body: bytes) -> None:
        """One message of either end: parse it and write it again, then let the direction admit it."""
        if message == m.CHANNEL_DATA and int.from_bytes(body[:4], "big") == len(body) - 4 >= 0:
            sender.push(MessageKind.DATA, message, body)  # whole as it is, and the most frequent
            return
        from_near = sender is self._from_near
        taken = take(message, body, is_session=self._is_session, from_near=from_near)
        if taken.reason is not None:
            self._observer.dropped(message, taken.dropped, taken.reason, from_near=from_near)
        if taken.kind is MessageKind.CLOSE:
            if from_near:
                sender.discard(CHANNEL_CLOSED)
            else:
                sender.flush()
        sender.push(taken.kind, message, taken.payload)

    def _near_takes(self, size: int) -> None:
        """WINDOW_ADJUST of the near end. What would overflow the window is cut: sshd ends the connection
        for it."""
        if size := self._from_far.receiver_grants(size):
            self._to_far.push(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _far_takes(self, size: int) -> None:
        size = self._from_near.receiver_grants(size)
        if self._from_near.phase is not StartPhase.STARTED:
            self._withheld += size
        elif size:
            self._to_near.push(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    # --- what was admitted

    def _admit_near(self, kind: MessageKind, message: int, payload: Payload) -> None:
        if self._aborted:
            return
        if kind is MessageKind.WINDOW and isinstance(payload, bytes):
            self._near_takes(m.parse_uint32(payload))
            return
        if isinstance(payload, bytes):
            if kind is MessageKind.REPLY:
                if not self._near_unanswered:
                    self._observer.dropped(message, payload, _UNREQUESTED, from_near=True)
                    return
                self._near_unanswered -= 1
            check_split(message, payload, self._far_max_packet)
            self._to_far.push(message, payload)
            return
        request = payload
        if kind is MessageKind.REFUSED:
            if request.want_reply:
                self._near_replies.answer(False)
            return
        try:
            verdict = self._observer.requested(request)
        except RemoteViolation:
            raise
        except ConchrecError:
            if request.want_reply:
                self._near_replies.passed_on()
            raise
        if self._aborted:
            return
        if verdict in (Verdict.ACCEPT, Verdict.REFUSE):
            if request.want_reply:
                self._near_replies.answer(verdict is Verdict.ACCEPT)
            return
        wanted = request.want_reply
        if isinstance(verdict, m.ChannelRequest):
            request = verdict
        if self._is_session and request.name in _ANSWER_NEEDED:
            request = replace(request, want_reply=True)
        if request.want_reply:
            if len(self._far_unanswered) >= UNANSWERED_MOST:
                raise RemoteViolation("too many unanswered requests", code=ReasonCode.TOO_MANY_MESSAGES)
            self._near_replies.passed_on(wanted=wanted)
            self._far_unanswered.append(request)
        if kind is MessageKind.START:
            self._enter(StartPhase.STARTING)
        self._to_far.push(message, request.encode())
        if kind is MessageKind.START and not self._aborted:
            # What the far end said before the start was recorded after it.
            self._from_far.drain()

    def _admit_far(self, kind: MessageKind, message: int, payload: Payload) -> None:
        if self._aborted:
            return
        if isinstance(payload, bytes):
            if kind is MessageKind.WINDOW:
                self._far_takes(m.parse_uint32(payload))
            elif kind is MessageKind.REPLY:
                self._admit_answer(message)
            else:
                check_split(message, payload, self._opening.request.max_packet)
                self._to_near.push(message, payload)
            return
        request = payload
        verdict = Verdict.REFUSE if kind is MessageKind.REFUSED else self._observer.far_requested(request)
        if verdict is not Verdict.PASS:
            if request.want_reply:
                self._far_replies.answer(verdict is Verdict.ACCEPT)
            return
        if request.want_reply:
            if self._near_unanswered >= UNANSWERED_MOST:
                raise RemoteViolation("too many unanswered requests", code=ReasonCode.TOO_MANY_MESSAGES)
            self._far_replies.passed_on()
            self._near_unanswered += 1
        self._to_near.push(message, request.encode())

    def _admit_answer(self, message: int) -> None:
        """The far end's reply to the oldest request that it was forwarded."""
        if not self._far_unanswered:
            self._observer.dropped(message, b"", _UNREQUESTED, from_near=False)
            return
        request, success = self._far_unanswered.popleft(), message == m.CHANNEL_SUCCESS
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
            self._from_near.enter(StartPhase.NOT_STARTED)

    def _enter(self, phase: StartPhase) -> None:
        self._from_near.enter(phase)
        if phase is StartPhase.STARTED:
            self._from_far.enter(phase)
        else:
            # Drained by the caller, once the start has gone on.
            self._from_far.phase = phase

    def _refuse(self, request: m.ChannelRequest, reason: Reason, *, from_near: bool) -> None:
        """A request that is out of place is answered here."""
        name = one_line(request.name, 64)
        text = Reason(reason.code, f"request {name}: {reason}")
        self._observer.dropped(m.CHANNEL_REQUEST, request.extra, text, from_near=from_near)
        if request.want_reply:
            (self._near_replies if from_near else self._far_replies).answer(False)

    def _refund_near(self, size: int) -> None:
        self._send_near(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _refund_far(self, size: int) -> None:
        self._send_far(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    # --- forwarding: the lanes call these after the observer

    def _observe_far(self, message: int, body: bytes) -> None:
        if message not in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._observer.from_far(message, body)

    def _forward_far(self, message: int, body: bytes) -> None:
        far = self._far
        if far is None:
            return
        if message == m.CHANNEL_DATA:
            send_split(far, message, body, self._far_max_packet)
            return
        if message in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._far_replies.replied(message == m.CHANNEL_SUCCESS)
            return
        if message == m.CHANNEL_WINDOW_ADJUST:
            self._from_far.sender_is_told(m.parse_uint32(body))
        self._send_far(message, body)
        if message == m.CHANNEL_CLOSE:
            self._maybe_finished()

    def _forward_near(self, message: int, body: bytes) -> None:
        if message in DATA_HEADER:
            send_split(self._near, message, body, self._opening.request.max_packet)
            return
        if message in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._near_replies.replied(message == m.CHANNEL_SUCCESS)
            return
        if message == m.CHANNEL_WINDOW_ADJUST:
            self._from_near.sender_is_told(m.parse_uint32(body))
        self._send_near(message, body)
        if message == m.CHANNEL_CLOSE:
            self._maybe_finished()

    def _reply_to_near(self, success: bool) -> None:
        self._send_near(m.CHANNEL_SUCCESS if success else m.CHANNEL_FAILURE, b"")

    def _reply_to_far(self, success: bool) -> None:
        self._send_far(m.CHANNEL_SUCCESS if success else m.CHANNEL_FAILURE, b"")

    def _send_near(self, message: int, body: bytes) -> None:
        if self._is_session and not self._near.sent_close:
            self._far_control.add(message, body)
        self._near.send(message, body)

    def _send_far(self, message: int, body: bytes) -> None:
        far = self._far
        if far is None:
            return
        if self._is_session and not far.sent_close:
            self._near_control.add(message, body)
        far.send(message, body)

    # --- ends

    def lost(self) -> None:
        """The near connection is gone, and the owner of both connections ends the far one. No CLOSE precedes
        that: the far end would take what came so far for all of it."""
        self._finish()

    def far_lost(self) -> None:
        """The far connection is gone; the owner of both connections tells the user."""
        if not self._aborted:
            self._guard(self._from_far.flush)
        self._finish()

    def abort(self, text: str, status: int = 255) -> bool:
        """End the channel on both sides, with a line on the user's stderr where there is room. Was there?"""
        if self._done or self._aborted:
            return False
        self._aborted = True
        told = False
        if self._opening.answered:
            # Clients print what follows only where their request was accepted.
            self._near_replies.settle(True)
            told = send_end(self._near, self._from_far, text, status, self._send_near)
        else:
            self._opening.refuse(m.CONNECT_FAILED, text)
        if self._far is not None:
            self._send_far(m.CHANNEL_CLOSE, b"")
        self._finish()
        return told

    def _maybe_finished(self) -> None:
        far = self._far
        if far is not None and far.sent_close and self._near.sent_close:
            self._finish()

    def _finish(self) -> None:
        if not self._done:
            for direction in (self._from_near, self._from_far):
                direction.discard(CHANNEL_CLOSED)
            for lane in (self._to_far, self._to_near):
                for message, body in lane.abandon():
                    if message in DATA_HEADER or message == m.CHANNEL_REQUEST:
                        self._observer.dropped(message, body, NOT_FORWARDED, from_near=lane is self._to_far)
            self._waiting.close()
            self._done = True
            try:
                self._observer.finished()
            except Exception:
                _log.failure("unexpected error at the end of a channel")

    def _guard(self, call: Callable[..., None], *arguments: object) -> bool:
        """Run one step; a refusal or a failed recording ends this channel, and nothing else."""
        try:
            call(*arguments)
        except RemoteViolation:
            raise
        except ConchrecError as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: ConchrecError) -> None:
        """The channel ends because of ``error``."""
        self.abort(self._observer.failed(error))
