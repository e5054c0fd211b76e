"""The messages between the two ends of a relayed channel, from their receipt to their lane.

Each message of either end is parsed (``message_parser``) and admitted (``admission``). Then a request goes to
the observer for its decision, and what is to be forwarded goes into a lane (``lane``), which records it and
gives it to the other end (``channel_end``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.proxy.held_bytes import ChannelHeldBytes
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
from conchrec.proxy.relay.channel_end import ChannelEnd
from conchrec.proxy.relay.lane import Lane
from conchrec.proxy.relay.message_parser import STARTS, parse_message
from conchrec.proxy.relay.observer import NOT_FORWARDED, Observer, Verdict
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.connection import IncomingOpen
from conchrec.ssh.wire import uint32

#: What a session that is confirmed before the target's channel exists may send in one packet (RFC 4253, 6.1).
EARLY_MAX_PACKET = 32 * 1024
_UNREQUESTED = Reason(ReasonCode.REPLY_WITHOUT_REQUEST, "channel reply without a request")
#: Requests that are always forwarded with want_reply: the answer decides what the recording says.
_ANSWER_NEEDED = STARTS | {b"pty-req"}


class MessageFlow:
    """The two ends of one relayed channel, the lanes between them, and the path of each message.

    ``on_close`` is called when CLOSE was sent to one of the ends. After ``is_stopped`` was set nothing is
    forwarded any longer.
    """

    __slots__ = (
        "_is_session", "_observer", "_withheld", "far", "is_stopped", "near", "to_far", "to_near",
    )  # fmt: skip

    def __init__(
        self,
        opening: IncomingOpen,
        observer: Observer,
        held_bytes: ChannelHeldBytes,
        on_close: Callable[[], None],
    ) -> None:
        self._observer = observer
        self._is_session = is_session = opening.channel.kind == b"session"
        self.is_stopped = False
        #: The part of the far end's window that the near end gets when its start is accepted.
        self._withheld = 0
        self.near = ChannelEnd(
            opening.channel,
            opening.request.max_packet,
            FROM_NEAR,
            is_session=is_session,
            admit=self._admit_near,
            drop=partial(observer.dropped, from_near=True),
            on_close=on_close,
            held_bytes=held_bytes,
        )
        self.far = ChannelEnd(
            None,
            EARLY_MAX_PACKET,
            FROM_FAR if is_session else FROM_FAR_OF_FORWARD,
            is_session=is_session,
            admit=self._admit_far,
            drop=partial(observer.dropped, from_near=False),
            on_close=on_close,
            held_bytes=held_bytes,
        )
        self.far.incoming.window = opening.request.window
        self.to_far = Lane(observer.from_near, self.far.forward, held_bytes)
        self.to_near = Lane(self._observe_far, self.near.forward, held_bytes)

    def set_far_window(self, window: int, max_packet: int) -> int:
        """Set what the far end accepts; returns the window that the near end gets now.

        The near end of a session gets none before its start is accepted.
        """
        self.far.max_packet = max_packet
        self.near.incoming.window = window
        if self._is_session:
            self._withheld = window
            return 0
        self.near.incoming.granted = window
        return window

    def discard(self) -> None:
        """Drop all messages that wait, and report those that were recorded and not forwarded."""
        for end in (self.near, self.far):
            end.incoming.discard(CHANNEL_CLOSED)
        for lane in (self.to_far, self.to_near):
            for message, body in lane.abandon():
                if message in DATA_HEADER or message == m.CHANNEL_REQUEST:
                    self._observer.dropped(message, body, NOT_FORWARDED, from_near=lane is self.to_far)

    def release(self) -> None:
        """Drop the ends and the lanes, which refer to this object."""
        self.near.release()
        self.far.release()
        del self.near, self.far, self.to_near, self.to_far, self._observer

    def receive(self, sender: ChannelEnd, message: int, body: bytes) -> None:
        """Parse a message of one end, and let its direction admit it."""
        direction = sender.incoming
        if message == m.CHANNEL_DATA and int.from_bytes(body[:4], "big") == len(body) - 4 >= 0:
            # The most frequent message, and already in its canonical form.
            direction.push(MessageKind.DATA, message, body)
            return
        from_near = sender is self.near
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
        if self.is_stopped:
            return
        if not isinstance(payload, bytes):
            self._admit_near_request(kind, payload)
        elif kind is MessageKind.WINDOW:
            self._add_near_window(m.parse_uint32(payload))
        elif kind is MessageKind.REPLY and not self.near.unanswered:
            self._observer.dropped(message, payload, _UNREQUESTED, from_near=True)
        else:
            if kind is MessageKind.REPLY:
                self.near.unanswered.popleft()
            self.far.check_size(message, payload)
            self.to_far.push(message, payload)

    def _admit_near_request(self, kind: MessageKind, request: m.ChannelRequest) -> None:
        replies = self.near.replies
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
        if self.is_stopped:
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
            self.far.expect_reply(request)
            replies.expect(wanted=is_reply_wanted)
        if kind is MessageKind.START:
            self._enter(StartPhase.STARTING)
        self.to_far.push(m.CHANNEL_REQUEST, request.encode())
        if kind is MessageKind.START and not self.is_stopped:
            # Messages that the far end sent before the start are recorded after it.
            self.far.incoming.drain()

    def _admit_far(self, kind: MessageKind, message: int, payload: Payload) -> None:
        if self.is_stopped:
            return
        if not isinstance(payload, bytes):
            self._admit_far_request(kind, payload)
        elif kind is MessageKind.WINDOW:
            self._add_far_window(m.parse_uint32(payload))
        elif kind is MessageKind.REPLY:
            self._admit_answer(message)
        else:
            self.near.check_size(message, payload)
            self.to_near.push(message, payload)

    def _admit_far_request(self, kind: MessageKind, request: m.ChannelRequest) -> None:
        verdict = Verdict.REFUSE if kind is MessageKind.REFUSED else self._observer.far_requested(request)
        if verdict is not Verdict.PASS:
            if request.want_reply:
                self.far.replies.answer(verdict is Verdict.ACCEPT)
            return
        if request.want_reply:
            self.near.expect_reply(request)
            self.far.replies.expect()
        self.to_near.push(m.CHANNEL_REQUEST, request.encode())

    def _admit_answer(self, message: int) -> None:
        """Handle the far end's reply to its oldest unanswered request."""
        if not self.far.unanswered:
            self._observer.dropped(message, b"", _UNREQUESTED, from_near=False)
            return
        request, success = self.far.unanswered.popleft(), message == m.CHANNEL_SUCCESS
        self._observer.answered(request, success)
        self.to_near.push(message, b"")
        if not self._is_session or request.name not in STARTS or self.is_stopped:
            return
        if success:
            if self._withheld:
                self.to_near.push(m.CHANNEL_WINDOW_ADJUST, uint32(self._withheld))
                self._withheld = 0
            self._enter(StartPhase.STARTED)
        else:
            self.near.incoming.enter(StartPhase.NOT_STARTED)

    def _add_near_window(self, size: int) -> None:
        """Forward a WINDOW_ADJUST of the near end, cut so that the window does not overflow.

        sshd ends the connection for an overflow.
        """
        if size := self.far.incoming.add_window(size):
            self.to_far.push(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _add_far_window(self, size: int) -> None:
        size = self.near.incoming.add_window(size)
        if self.near.incoming.phase is not StartPhase.STARTED:
            self._withheld += size
        elif size:
            self.to_near.push(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _enter(self, phase: StartPhase) -> None:
        self.near.incoming.enter(phase)
        if phase is StartPhase.STARTED:
            self.far.incoming.enter(phase)
        else:
            # The caller drains it, when the start request was forwarded.
            self.far.incoming.phase = phase

    def _observe_far(self, message: int, body: bytes) -> None:
        if message not in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._observer.from_far(message, body)
