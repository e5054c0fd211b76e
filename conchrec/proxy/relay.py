"""One channel, carried between two connections by two lanes and an observer.

The *near* end asked for the channel, the *far* end grants it: for a session the user is near and the
target far, for a forwarded port it is the other way round. Windows and packet sizes are the two ends'
own and pass through; the relay grants none. It only counts what was granted, so that it knows when
a peer sends what nobody allowed and when a last line of its own still fits.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.proxy.lane import Lane, ReplyOrder
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel, Connection, IncomingOpen
from conchrec.ssh.wire import string, uint32

_log = Logger()

#: What an end that is confirmed before the far one exists may send in one packet (RFC 4253 section 6.1).
EARLY_MAX_PACKET = 32 * 1024
#: Peers have overshot windows by a little for ages; this much more is no accident.
SLACK = 256 * 1024
#: What stands before the bytes that count, in the body of a data message: their length, and for extended
#: data its type (RFC 4254 section 5.2).
_HEADS = {m.CHANNEL_DATA: 4, m.CHANNEL_EXTENDED_DATA: 8}


class Verdict(enum.Enum):
    """What becomes of a channel request of the near end."""

    PASS = "pass"  # noqa: S105
    ACCEPT = "accept"
    REFUSE = "refuse"


class Observer(Protocol):
    """Who watches a relay. What these raise ends the channel, and the message is not passed on."""

    def requested(self, request: m.ChannelRequest) -> Verdict | m.ChannelRequest:
        """The near end asks; called on arrival, perhaps long before it can be passed on. Another request:
        that goes on in its place, and wants a reply where this one does."""

    def from_near(self, message: int, body: bytes) -> None:
        """About to go to the far end."""

    def from_far(self, message: int, body: bytes) -> None:
        """About to go to the near end."""

    def opened(self) -> None:
        """The far end granted the channel; nothing has passed yet."""

    def refused(self, code: int, text: bytes) -> None:
        """The far end refused. Where the near end was confirmed early, the observer ends it."""

    def failed(self, error: ConchrecError) -> str:
        """The channel ends because of ``error``; the result is the line for the user, or ``""``."""

    def finished(self) -> None:
        """CLOSE has gone both ways, or a connection is gone. Called once, last."""


class Relay:
    """See the module. Life: ``early`` (perhaps), ``dial``, then nothing but messages."""

    __slots__ = (
        "_aborted", "_dialled", "_done", "_early", "_far", "_far_credit", "_far_end", "_near", "_near_credit",
        "_observer", "_opening", "_replies", "_split", "_sync", "_syncing", "_to_far", "_to_near",
    )

    def __init__(self, opening: IncomingOpen, observer: Observer) -> None:
        self._opening = opening
        self._observer = observer
        self._near: Channel = opening.channel
        self._far: Channel | None = None
        self._far_end = _FarEnd(self)
        self._early = False
        self._dialled = False
        self._done = False
        self._aborted = False
        self._split = 0
        self._near_credit = opening.request.window
        self._far_credit = 0
        self._sync: Callable[[], Deferred[None]] | None = None
        self._syncing = False
        self._replies = ReplyOrder(
            lambda success: self._near.send(m.CHANNEL_SUCCESS if success else m.CHANNEL_FAILURE)
        )
        self._to_far = Lane(observer.from_near, self._forward_far)
        self._to_near = Lane(observer.from_far, self._forward_near)

    @property
    def request(self) -> m.ChannelOpen:
        return self._opening.request

    @property
    def finished(self) -> bool:
        return self._done

    # --- opening

    def early(self) -> None:
        """Confirm the near end with window 0, so that it says what it has to say first."""
        self._early = True
        self._opening.confirm(self, 0, EARLY_MAX_PACKET)

    def dial(self, far: Connection, sync: Callable[[], Deferred[None]] | None = None) -> None:
        """Ask the far connection for the same channel.

        With ``sync`` every message waits, after it was observed, for the Deferred that it returns.
        """
        if self._done or self._dialled:
            return
        self._dialled = True
        self._sync = sync
        request = self._opening.request
        self._far = far.open(
            request.kind,
            self._far_end,
            window=request.window,
            max_packet=request.max_packet,
            extra=request.extra,
        )

    def far_opened(self, window: int, max_packet: int, extra: bytes) -> None:
        if self._done or self._aborted:
            assert self._far is not None
            self._far.send(m.CHANNEL_CLOSE)
            return
        if max_packet == 0:
            raise RemoteViolation("a maximum packet size of 0 can carry nothing")
        self._far_credit = window
        if not self._guard(self._observer.opened):
            return
        if self._early:
            if max_packet < EARLY_MAX_PACKET:
                self._split = max_packet
            if window:
                self._near.send(m.CHANNEL_WINDOW_ADJUST, uint32(window))
        else:
            self._opening.confirm(self, window, max_packet, extra)
        gate = self._gate if self._sync is not None else None
        self._guard(lambda: self._to_near.open(gate))
        self._guard(lambda: self._to_far.open(gate))

    def far_refused(self, code: int, text: bytes) -> None:
        self._far = None
        if self._done:
            return
        if not self._early:
            self._opening.refuse(code, text.decode("utf-8", "replace"))
            self._guard(lambda: self._observer.refused(code, text))
            self._finish()
        else:
            self._guard(lambda: self._observer.refused(code, text))

    # --- what the near end sends (ChannelReceiver of the near connection)

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        raise RemoteViolation("a confirmation for a channel that the peer opened")

    def refused(self, code: int, text: bytes) -> None:
        raise RemoteViolation("a refusal of a channel that the peer opened")

    def received(self, message: int, body: bytes) -> None:
        if self._aborted:
            self._end_of_aborted()
            return
        if message in _HEADS:
            self._far_credit -= len(body) - _HEADS[message]
            if self._far_credit < -SLACK:
                raise RemoteViolation("more data than the window allows")
        elif message == m.CHANNEL_REQUEST:
            request = m.ChannelRequest.parse(body)
            try:
                verdict = self._observer.requested(request)
            except RemoteViolation:
                raise
            except ConchrecError as error:
                if request.want_reply:
                    self._replies.passed_on()
                self.abort(self._observer.failed(error))
                return
            if self._aborted:
                return
            if isinstance(verdict, m.ChannelRequest):
                body = verdict.encode()
            elif verdict is not Verdict.PASS:
                if request.want_reply:
                    self._replies.answer(verdict is Verdict.ACCEPT)
                return
            if request.want_reply:
                self._replies.passed_on()
        if not self._done:
            self._guard(lambda: self._to_far.push(message, body))

    def _forward_far(self, message: int, body: bytes) -> None:
        far = self._far
        if far is None:
            return
        if message == m.CHANNEL_WINDOW_ADJUST:
            self._near_credit += m.parse_uint32(body)
        elif message == m.CHANNEL_DATA and self._split and len(body) - 4 > self._split:
            for start in range(4, len(body), self._split):
                far.send(message, string(body[start : start + self._split]))
            return
        far.send(message, body)
        if message == m.CHANNEL_CLOSE:
            self._maybe_finished()

    # --- what the far end sends

    def far_received(self, message: int, body: bytes) -> None:
        if self._aborted:
            self._end_of_aborted()
            return
        if message in _HEADS:
            self._near_credit -= len(body) - _HEADS[message]
            if self._near_credit < -SLACK:
                raise RemoteViolation("more data than the window allows")
        if not self._done:
            self._guard(lambda: self._to_near.push(message, body))

    def _forward_near(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_WINDOW_ADJUST:
            self._far_credit += m.parse_uint32(body)
        elif message in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._replies.replied(message == m.CHANNEL_SUCCESS)
            return
        self._near.send(message, body)
        if message == m.CHANNEL_CLOSE:
            self._maybe_finished()

    # --- ends

    def lost(self) -> None:
        """The near connection is gone: nobody is left to carry anything for."""
        if self._far is not None:
            self._far.send(m.CHANNEL_CLOSE)
        self._finish()

    def far_lost(self) -> None:
        """The far connection is gone; whoever owns both says so to the user."""
        self._finish()

    def abort(self, text: str, status: int = 255) -> bool:
        """End the channel on both sides, with a line on the user's stderr where there is room. Was there?"""
        if self._done or self._aborted:
            return False
        self._aborted = True
        told, near = False, self._near
        if self._opening.answered:
            # Clients print what follows only where their request was accepted.
            self._replies.settle(True)
            if text and near.kind == b"session":
                line = (text + "\r\n").encode("utf-8", "replace")
                told = len(line) <= self._near_credit
                if told:
                    near.send(m.CHANNEL_EXTENDED_DATA, uint32(m.STDERR) + string(line))
                near.send(m.CHANNEL_REQUEST, m.exit_status(status))
            near.send(m.CHANNEL_EOF)
            near.send(m.CHANNEL_CLOSE)
        else:
            self._opening.refuse(m.CONNECT_FAILED, text)
        if self._far is not None:
            self._far.send(m.CHANNEL_CLOSE)
        self._finish()
        return told

    def _end_of_aborted(self) -> None:
        """After an abort only the peers' CLOSE matters, and the connection itself keeps count of it."""

    def _maybe_finished(self) -> None:
        far = self._far
        if far is not None and far.sent_close and self._near.sent_close:
            self._finish()

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            try:
                self._observer.finished()
            except Exception:
                _log.failure("while a channel ends")

    def _guard(self, call: Callable[[], None]) -> bool:
        """Run one step; a refusal or a failed recording ends this channel, and nothing else."""
        try:
            call()
        except RemoteViolation:
            raise
        except ConchrecError as error:
            self.abort(self._observer.failed(error))
            return False
        return True

    # --- proxy-sync

    def _gate(self) -> None:
        if self._syncing or self._sync is None:
            return
        self._syncing = True
        # What is pushed while this sync runs is covered by the next one.
        to_far, to_near = self._to_far.mark(), self._to_near.mark()
        self._sync().addCallbacks(lambda _: self._synced(to_far, to_near), self._sync_failed)

    def _synced(self, to_far: int, to_near: int) -> None:
        self._syncing = False
        if self._aborted:
            return
        self._to_far.release(to_far)
        self._to_near.release(to_near)
        if self._to_far.waiting or self._to_near.waiting:
            self._gate()

    def _sync_failed(self, failure: Failure) -> None:
        self._syncing = False
        error = failure.value
        if not isinstance(error, ConchrecError):
            error = ConchrecError("the recording can not be kept on disk", str(error))
        self.abort(self._observer.failed(error))


class _FarEnd:
    """The far connection's view of a relay."""

    __slots__ = ("_relay",)

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        self._relay.far_opened(window, max_packet, extra)

    def refused(self, code: int, text: bytes) -> None:
        self._relay.far_refused(code, text)

    def received(self, message: int, body: bytes) -> None:
        self._relay.far_received(message, body)

    def lost(self) -> None:
        self._relay.far_lost()
