"""Decides what one end of a channel may send to the other at this point.

An SSH server silently drops what it does not accept: data before a start request was accepted, data after
EOF, extended data from a client, a second start request, more than its window. A recorder in front of it
would record what was never delivered. So each message passes a ``Direction`` before it is observed, and is
forwarded only if the receiver accepts it at this point. Other messages wait, or are dropped and their bytes
are returned to the sender's window, so that the sender never stalls.

The table for the direction from the near end of a session (the user) to its far end (the target):

====================  ===============  =============  ==================
message               not started      starting       started
====================  ===============  =============  ==================
data                  drop             wait           pass, by window
extended data         drop             drop           drop
EOF                   keep             wait           pass, once
start request         pass             wait           refuse
set-up request        pass             wait           refuse
other request, reply  pass             wait           pass
====================  ===============  =============  ==================

WINDOW_ADJUST and CLOSE pass at once in every state. From the far end of a session data, EOF and the exit
status wait until a start request was forwarded. Other channels have no start: they are always *started*.

Pure: no transport, no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from conchrec.errors import RemoteViolation
from conchrec.proxy.held_bytes import ChannelHeldBytes, UserHeldBytes
from conchrec.reasons import Reason, ReasonCode
from conchrec.slim_queue import SlimQueue
from conchrec.ssh import messages as m
from conchrec.ssh.wire import string

#: Peers overshoot their window a little; more than this, in bytes, is a protocol violation.
SLACK = 256 * 1024
#: The most bytes that may wait in one direction of one channel.
QUEUED_BYTES = 1024 * 1024
#: The most messages that may wait there; all of them are delivered in one turn of the reactor.
QUEUED_MESSAGES = 512
#: The largest window (RFC 4254, 5.2).
MAX_WINDOW = 2**32 - 1

#: The number of bytes before the data: its length, and for extended data the type (RFC 4254, 5.2).
DATA_HEADER = {m.CHANNEL_DATA: 4, m.CHANNEL_EXTENDED_DATA: 8}


class StartPhase(enum.Enum):
    """How far the start of a session is: its request for a shell, a command or a subsystem."""

    NOT_STARTED = "no start request was forwarded, or the last one was refused"
    STARTING = "a start request was forwarded and is not answered yet"
    STARTED = "a start request was accepted, or the channel has none"


class MessageKind(enum.Enum):
    """The kinds of messages that the tables below distinguish."""

    DATA = "data"
    EXTENDED = "extended data"
    EOF = "EOF"
    START = "a start request"
    SETUP = "a request that belongs before the start"
    EXIT = "exit-status or exit-signal"
    REQUEST = "another request"
    REPLY = "a reply to a request"
    REFUSED = "a request that the proxy itself answers with FAILURE"
    UNKNOWN_DATA = "extended data of an unknown type (RFC 4254 section 5.2)"
    WINDOW = "WINDOW_ADJUST"
    CLOSE = "CLOSE"


class Disposition(enum.Enum):
    """What is done with a message."""

    PASS = enum.auto()
    """Deliver it after the messages that wait before it."""
    OVERTAKE = enum.auto()
    """Deliver it at once."""
    WAIT = enum.auto()
    """Keep it in the queue until the phase changes."""
    KEEP = enum.auto()
    """EOF: deliver it when the start is accepted, and accept no more data."""
    DROP = enum.auto()
    """Do not deliver it."""
    REFUSE = enum.auto()
    """Do not deliver it, and answer it with FAILURE."""


Table = Mapping[tuple[StartPhase, MessageKind], Disposition]


def _table(rows: Mapping[MessageKind, tuple[Disposition, Disposition, Disposition]]) -> Table:
    return {
        (phase, kind): disposition
        for kind, dispositions in rows.items()
        for phase, disposition in zip(StartPhase, dispositions, strict=True)
    }


_P, _O, _W, _D, _R = (
    Disposition.PASS,
    Disposition.OVERTAKE,
    Disposition.WAIT,
    Disposition.DROP,
    Disposition.REFUSE,
)

#: Messages of the end that opened the channel. Columns: not started, starting, started.
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

#: Messages of the end that granted a session.
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

#: Messages of the end that granted a forward: as above, without extended data.
FROM_FAR_OF_FORWARD = {**FROM_FAR, (StartPhase.STARTED, MessageKind.EXTENDED): Disposition.DROP}

Payload = bytes | m.ChannelRequest
CHANNEL_CLOSED = Reason(ReasonCode.CHANNEL_CLOSED, "the channel was closed")
_ALREADY_STARTED = Reason(ReasonCode.ALREADY_STARTED, "a shell, command or subsystem was already started")


class Direction:
    """The messages from one end of a channel (the sender) to the other (the receiver).

    ``window`` is the number of bytes that the receiver still accepts, and ``granted`` the number that the
    sender still may send. The owner of the channel increases them (``add_window``, ``add_granted``).

    ``deliver(kind, message, payload)`` gets the messages to forward, in order; data is split to the window.
    ``refund(size)`` must return ``size`` bytes to the sender's window. ``dropped(message, payload, reason)``
    and ``refuse(request, reason)`` get the other messages; the latter must answer FAILURE if the request
    wants a reply.
    """

    __slots__ = (
        "_deliver", "_dropped", "_held_bytes", "_is_draining", "_keeps_eof", "_queue", "_queued_bytes",
        "_refund", "_refuse", "_table", "ended", "granted", "phase", "window",
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
        held_bytes: ChannelHeldBytes | None = None,
    ) -> None:
        self._held_bytes = held_bytes or UserHeldBytes().channel()
        self._table = table
        self._deliver = deliver
        self._refund = refund
        self._dropped = dropped
        self._refuse = refuse
        self.phase = phase
        self.window = 0
        self.granted = 0
        #: EOF was delivered, or is kept until the start: no more data is accepted.
        self.ended = False
        self._keeps_eof = False
        self._queue: SlimQueue[tuple[MessageKind, int, Payload]] = SlimQueue()
        self._queued_bytes = 0
        self._is_draining = False

    @property
    def queue_length(self) -> int:
        """The number of messages that wait."""
        return len(self._queue)

    def add_window(self, size: int) -> int:
        """Increase the receiver's window; returns by how much, since a window has a maximum."""
        size = min(size, MAX_WINDOW - self.window)
        self.window += size
        if self._queue:
            self.drain()
        return size

    def add_granted(self, size: int) -> None:
        """Let the sender send ``size`` more bytes: a WINDOW_ADJUST was sent to it."""
        self.granted += size

    def enter(self, phase: StartPhase) -> None:
        """Change the phase, and deliver what may be delivered in it."""
        self.phase = phase
        self.drain()
        if phase is StartPhase.STARTED and self._keeps_eof:
            self._keeps_eof = False
            self._deliver(MessageKind.EOF, m.CHANNEL_EOF, b"")

    def push(self, kind: MessageKind, message: int, payload: Payload) -> None:
        """Handle a message of the sender, which was rewritten from its fields (``ssh.message_layouts``).

        Raises RemoteViolation if the sender exceeds its window, or sends too much before the start.
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
            if is_common and not self._queue and not self.ended:
                self.window -= size
                self._deliver(kind, message, payload)
                return
        disposition = self._table[self.phase, kind]
        is_ordered = disposition in (Disposition.PASS, Disposition.REFUSE)
        if disposition is Disposition.WAIT or (is_ordered and self._queue):
            self._enqueue(kind, message, payload)
        else:
            self._handle(kind, message, payload, disposition)

    def drain(self) -> None:
        """Handle the waiting messages, as far as phase and window allow."""
        if self._is_draining:
            return
        self._is_draining = True
        try:
            while self._queue:
                kind, message, payload = self._queue[0]
                disposition = self._table[self.phase, kind]
                is_stuck = disposition is Disposition.PASS and self._needs_window(kind)
                if disposition is Disposition.WAIT or is_stuck:
                    return
                self._queue.popleft()
                self._queued_bytes -= _size(payload)
                self._held_bytes.remove(_size(payload))
                self._handle(kind, message, payload, disposition)
        finally:
            self._is_draining = False

    def flush(self) -> None:
        """Empty the queue, because the sender has closed the channel.

        Messages that wait for a start are delivered as far as the window allows; others are dropped.
        """
        if self.phase is StartPhase.NOT_STARTED:
            self.enter(StartPhase.STARTING)
        self.discard(CHANNEL_CLOSED)

    def discard(self, reason: Reason) -> None:
        """Drop all messages that wait."""
        self._queued_bytes = 0
        for _, message, payload in self._queue.take():
            self._held_bytes.remove(_size(payload))
            self._dropped(message, payload if isinstance(payload, bytes) else payload.encode(), reason)

    # --- inside

    def _needs_window(self, kind: MessageKind) -> bool:
        return kind in (MessageKind.DATA, MessageKind.EXTENDED) and not self.window and not self.ended

    def _enqueue(self, kind: MessageKind, message: int, payload: Payload) -> None:
        self._queued_bytes += _size(payload)
        if self._queued_bytes > QUEUED_BYTES or len(self._queue) >= QUEUED_MESSAGES:
            raise RemoteViolation(
                "too much was sent before the other side could accept it", code=ReasonCode.TOO_MANY_MESSAGES
            )
        self._held_bytes.add(_size(payload))
        self._queue.append((kind, message, payload))

    def _handle(self, kind: MessageKind, message: int, payload: Payload, disposition: Disposition) -> None:
        if disposition is Disposition.REFUSE:
            assert isinstance(payload, m.ChannelRequest)
            self._refuse(payload, _ALREADY_STARTED)
        elif isinstance(payload, bytes) and message in DATA_HEADER:
            if disposition is Disposition.DROP or self.ended:
                self._drop_data(kind, message, payload)
            else:
                self._deliver_data(kind, message, payload)
        elif kind is MessageKind.EOF:
            if self.ended:
                return
            self.ended = True
            if disposition is Disposition.KEEP:
                self._keeps_eof = True
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
        # Bytes beyond the window were never granted, and are not returned.
        refund = min(size, size + self.granted)
        if refund > 0:
            self.granted += refund
            self._refund(refund)

    def _deliver_data(self, kind: MessageKind, message: int, payload: bytes) -> None:
        header = DATA_HEADER[message]
        size = len(payload) - header
        if size > self.window:
            prefix = payload[: header - 4]
            rest = prefix + string(payload[header + self.window :])
            self._queue.appendleft((kind, message, rest))
            self._queued_bytes += len(rest)
            self._held_bytes.add(len(rest))
            if not self.window:
                return
            payload = prefix + string(payload[header : header + self.window])
            size = self.window
        self.window -= size
        self._deliver(kind, message, payload)


def _size(payload: Payload) -> int:
    """Return the number of bytes that count against the limits."""
    return len(payload) if isinstance(payload, bytes) else len(payload.extra)
