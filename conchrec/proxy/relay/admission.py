"""What one end of a channel may send to the other: start, window, maximum packet and end of data.

A far end silently drops what it does not take: data before a start request was accepted, data after EOF,
extended data from a client, a second start request, more than its window. A recorder in front of it would
record what was never delivered. So each message passes a ``Direction`` before it is observed, and only what
the far end takes at this point goes on. The rest waits, or is dropped and its bytes are returned to the
sender's window, so that the sender never stalls.

The table for the direction from the near end of a session (the user) to its far end (the target):

====================  ===============  =============  ==================
message               not started      starting       started
====================  ===============  =============  ==================
data                  drop             wait           pass, by window
extended data         drop             drop           drop
EOF                   keep for later   wait           pass, once
start request         pass             wait           refuse
set-up request        pass             wait           refuse
other request, reply  pass             wait           pass
====================  ===============  =============  ==================

WINDOW_ADJUST and CLOSE pass at once in every state. From the far end of a session data, EOF and the exit
status wait until a start request has been forwarded. Other channels have no start: they are *started*.

Pure: no transport, no clock.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping

from conchrec.errors import RemoteViolation
from conchrec.proxy.held_bytes import ChannelWaiting, UserWaiting
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.wire import string

#: Peers overshoot their window a little; more than this, in bytes, is a protocol violation.
SLACK = 256 * 1024
#: What may wait in one direction of one channel, in bytes and messages.
WAITING_BYTES = 1024 * 1024
#: They go on in one turn of the reactor.
WAITING_MESSAGES = 512
#: The largest window (RFC 4254, 5.2).
MAX_WINDOW = 2**32 - 1

#: The bytes in front of the data: its length, and for extended data the type (RFC 4254, 5.2).
DATA_HEADER = {m.CHANNEL_DATA: 4, m.CHANNEL_EXTENDED_DATA: 8}


class StartPhase(enum.Enum):
    """The start of a session: the request for a shell, a command or a subsystem."""

    NOT_STARTED = "no start request was forwarded, or the last one was refused"
    STARTING = "a start request was forwarded and not answered yet"
    STARTED = "a start request was accepted, or the channel has none"


class MessageKind(enum.Enum):
    """A message, by what its admission depends on."""

    DATA = "data"
    EXTENDED = "extended data"
    EOF = "EOF"
    START = "a start request"
    SETUP = "a request that belongs before the start"
    EXIT = "exit-status or exit-signal"
    REQUEST = "another request"
    REPLY = "a reply to a request"
    REFUSED = "a request that is answered with FAILURE in its turn"
    UNKNOWN_DATA = "extended data of an unknown type (RFC 4254 section 5.2)"
    WINDOW = "WINDOW_ADJUST"
    CLOSE = "CLOSE"


class Disposition(enum.Enum):
    """What becomes of a message."""

    PASS = enum.auto()
    """Goes on when nothing waits before it."""
    OVERTAKE = enum.auto()
    """Goes on at once."""
    WAIT = enum.auto()
    KEEP = enum.auto()
    """EOF: sent when the start is accepted; no data follows it."""
    DROP = enum.auto()
    REFUSE = enum.auto()
    """Dropped, and answered with FAILURE."""


Table = Mapping[tuple[StartPhase, MessageKind], Disposition]


def _table(rows: Mapping[MessageKind, tuple[Disposition, Disposition, Disposition]]) -> Table:
    return {
        (phase, kind): act for kind, acts in rows.items() for phase, act in zip(StartPhase, acts, strict=True)
    }


_P, _O, _W, _D, _R = (
    Disposition.PASS,
    Disposition.OVERTAKE,
    Disposition.WAIT,
    Disposition.DROP,
    Disposition.REFUSE,
)

#: The end that opened the channel. Columns: not started, starting, started.
FROM_NEAR = _table(
    {
        MessageKind.DATA: (_D, _W, _P),
        MessageKind.EXTENDED: (_D, _D, _D),
        MessageKind.EOF: (Disposition.KEEP, _W, _P),
        MessageKind.START: (_P, _W, _R),
        MessageKind.SETUP: (_P, _W, _R),
        MessageKind.EXIT: (_P, _W, _P),
        MessageKind.REQUEST: (_P, _W, _P),
        MessageKind.REPLY: (_P, _W, _P),
        MessageKind.REFUSED: (_P, _W, _P),
        MessageKind.UNKNOWN_DATA: (_D, _D, _D),
        MessageKind.WINDOW: (_O, _O, _O),
        MessageKind.CLOSE: (_O, _O, _O),
    }
)

#: The end that granted a session.
FROM_FAR = _table(
    {
        MessageKind.DATA: (_W, _P, _P),
        MessageKind.EXTENDED: (_W, _P, _P),
        MessageKind.EOF: (_W, _P, _P),
        MessageKind.START: (_O, _P, _P),
        MessageKind.SETUP: (_O, _P, _P),
        MessageKind.EXIT: (_W, _P, _P),
        MessageKind.REQUEST: (_O, _P, _P),
        MessageKind.REPLY: (_O, _P, _P),
        MessageKind.REFUSED: (_O, _P, _P),
        MessageKind.UNKNOWN_DATA: (_D, _D, _D),
        MessageKind.WINDOW: (_O, _O, _O),
        MessageKind.CLOSE: (_O, _O, _O),
    }
)

#: The end that granted a forward: as above, without extended data.
FROM_FAR_OF_FORWARD = {**FROM_FAR, (StartPhase.STARTED, MessageKind.EXTENDED): Disposition.DROP}

Payload = bytes | m.ChannelRequest
CHANNEL_CLOSED = Reason(ReasonCode.CHANNEL_CLOSED, "the channel was closed")
_ALREADY_STARTED = Reason(ReasonCode.ALREADY_STARTED, "a shell, command or subsystem was already started")


class Direction:
    """The messages from one end of a channel (the sender) to the other (the receiver).

    ``window`` is what the receiver still takes, ``granted`` what the sender was told and has not used; the
    owner of the channel raises both (``receiver_grants``, ``sender_is_told``).

    ``deliver(kind, message, payload)`` gets what goes on, in order; data is split to the window.
    ``refund(size)`` must return ``size`` bytes to the sender's window. ``dropped(message, payload, reason)``
    and ``refuse(request)`` hear what does not go on; the latter must answer FAILURE where a reply is wanted.
    """

    __slots__ = (
        "_account", "_deliver", "_draining", "_dropped", "_kept_eof", "_refund", "_refuse", "_table",
        "_waiting", "_waiting_bytes", "ended", "granted", "phase", "window",
    )  # fmt: skip

    def __init__(
        self,
        table: Table,
        phase: StartPhase,
        *,
        deliver: Callable[[MessageKind, int, Payload], None],
        refund: Callable[[int], None],
        dropped: Callable[[int, bytes, Reason], None],
        refuse: Callable[[m.ChannelRequest, Reason], None],
        account: ChannelWaiting | None = None,
    ) -> None:
        self._account = account or UserWaiting().channel()
        self._table = table
        self._deliver = deliver
        self._refund = refund
        self._dropped = dropped
        self._refuse = refuse
        self.phase = phase
        self.window = 0
        self.granted = 0
        #: EOF has passed, or will at the start: no data follows.
        self.ended = False
        self._kept_eof = False
        self._waiting: deque[tuple[MessageKind, int, Payload]] = deque()
        self._waiting_bytes = 0
        self._draining = False

    @property
    def waiting(self) -> int:
        """Messages that came and have not gone on."""
        return len(self._waiting)

    def receiver_grants(self, size: int) -> int:
        """The receiver takes ``size`` bytes more; returns how much of that its window can hold."""
        size = min(size, MAX_WINDOW - self.window)
        self.window += size
        if self._waiting:
            self.drain()
        return size

    def sender_is_told(self, size: int) -> None:
        """The sender was told that it may send ``size`` bytes more."""
        self.granted += size

    def enter(self, phase: StartPhase) -> None:
        """The start has come that far."""
        self.phase = phase
        self.drain()
        if phase is StartPhase.STARTED and self._kept_eof:
            self._kept_eof = False
            self._deliver(MessageKind.EOF, m.CHANNEL_EOF, b"")

    def push(self, kind: MessageKind, message: int, payload: Payload) -> None:
        """A message of the sender, rewritten from its fields (``ssh.message_layouts``).

        Raises RemoteViolation where the sender ignores its window, or floods a channel that is not open.
        """
        if (header := DATA_HEADER.get(message)) is not None:
            assert isinstance(payload, bytes)
            size = len(payload) - header
            if not size:
                return
            self.granted -= size
            if self.granted < -SLACK:
                raise RemoteViolation(
                    "more data than the channel's window allows", code=ReasonCode.WINDOW_EXCEEDED
                )
            is_common = kind is MessageKind.DATA and self.phase is StartPhase.STARTED and size <= self.window
            if is_common and not self._waiting and not self.ended:
                self.window -= size
                self._deliver(kind, message, payload)
                return
        act = self._table[self.phase, kind]
        if act is Disposition.WAIT or (act in (Disposition.PASS, Disposition.REFUSE) and self._waiting):
            self._wait(kind, message, payload)
        else:
            self._handle(kind, message, payload, act)

    def drain(self) -> None:
        """Let go on what may now."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._waiting:
                kind, message, payload = self._waiting[0]
                act = self._table[self.phase, kind]
                if act is Disposition.WAIT or (act is Disposition.PASS and self._is_stuck(kind)):
                    return
                self._waiting.popleft()
                self._waiting_bytes -= _size(payload)
                self._account.remove(_size(payload))
                self._handle(kind, message, payload, act)
        finally:
            self._draining = False

    def flush(self) -> None:
        """The sender has closed the channel: what waits for a start goes on, as far as the window allows;
        what waits for window is dropped."""
        if self.phase is StartPhase.NOT_STARTED:
            self.enter(StartPhase.STARTING)
        self.discard(CHANNEL_CLOSED)

    def discard(self, reason: Reason) -> None:
        """Drop what waits."""
        waiting, self._waiting = self._waiting, deque()
        self._waiting_bytes = 0
        for _, message, payload in waiting:
            self._account.remove(_size(payload))
            self._dropped(message, payload if isinstance(payload, bytes) else payload.encode(), reason)

    # --- inside

    def _is_stuck(self, kind: MessageKind) -> bool:
        return kind in (MessageKind.DATA, MessageKind.EXTENDED) and not self.window and not self.ended

    def _wait(self, kind: MessageKind, message: int, payload: Payload) -> None:
        self._waiting_bytes += _size(payload)
        if self._waiting_bytes > WAITING_BYTES or len(self._waiting) >= WAITING_MESSAGES:
            raise RemoteViolation(
                "too much was sent before the other side could accept it", code=ReasonCode.TOO_MANY_MESSAGES
            )
        self._account.add(_size(payload))
        self._waiting.append((kind, message, payload))

    def _handle(self, kind: MessageKind, message: int, payload: Payload, act: Disposition) -> None:
        if act is Disposition.REFUSE:
            assert isinstance(payload, m.ChannelRequest)
            self._refuse(payload, _ALREADY_STARTED)
        elif isinstance(payload, bytes) and message in DATA_HEADER:
            if act is Disposition.DROP or self.ended:
                self._drop_data(kind, message, payload)
            else:
                self._pass_data(kind, message, payload)
        elif kind is MessageKind.EOF:
            if self.ended:
                return
            self.ended = True
            if act is Disposition.KEEP:
                self._kept_eof = True
            else:
                self._deliver(kind, message, payload)
        else:
            self._deliver(kind, message, payload)

    def _drop_data(self, kind: MessageKind, message: int, payload: bytes) -> None:
        if self.ended:
            reason = Reason(ReasonCode.DATA_AFTER_EOF, "data after EOF")
        elif kind is MessageKind.UNKNOWN_DATA:
            reason = Reason(ReasonCode.UNKNOWN_DATA_TYPE, kind.value)
        elif message == m.CHANNEL_EXTENDED_DATA:
            text = "extended data from a side that may not send it"
            reason = Reason(ReasonCode.EXTENDED_DATA_NOT_ALLOWED, text)
        else:
            text = "data before a shell, command or subsystem was started"
            reason = Reason(ReasonCode.DATA_BEFORE_START, text)
        self._dropped(message, payload, reason)
        size = len(payload) - DATA_HEADER[message]
        # What was sent beyond the window was never granted, and is not given back.
        entitled = min(size, size + self.granted)
        if entitled > 0:
            self.granted += entitled
            self._refund(entitled)

    def _pass_data(self, kind: MessageKind, message: int, payload: bytes) -> None:
        header = DATA_HEADER[message]
        size = len(payload) - header
        if size > self.window:
            prefix = payload[: header - 4]
            rest = prefix + string(payload[header + self.window :])
            self._waiting.appendleft((kind, message, rest))
            self._waiting_bytes += len(rest)
            self._account.add(len(rest))
            if not self.window:
                return
            payload = prefix + string(payload[header : header + self.window])
            size = self.window
        self.window -= size
        self._deliver(kind, message, payload)


def _size(payload: Payload) -> int:
    return len(payload) if isinstance(payload, bytes) else len(payload.extra)
