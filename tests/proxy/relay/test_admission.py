"""What one end of a channel may send to the other: the tables, and the windows under any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from conchrec.errors import RemoteViolation
from conchrec.proxy.relay.admission import (
    FROM_FAR,
    FROM_FAR_OF_FORWARD,
    FROM_NEAR,
    MAX_WINDOW,
    QUEUED_BYTES,
    QUEUED_MESSAGES,
    SLACK,
    Direction,
    Disposition,
    MessageKind,
    Payload,
    StartPhase,
    Table,
)
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.wire import string, uint32

#: A message of each kind.
SAMPLES: dict[MessageKind, tuple[int, Payload]] = {
    MessageKind.DATA: (m.CHANNEL_DATA, string(b"abc")),
    MessageKind.EXTENDED: (m.CHANNEL_EXTENDED_DATA, uint32(1) + string(b"abc")),
    MessageKind.EOF: (m.CHANNEL_EOF, b""),
    MessageKind.REPLY: (m.CHANNEL_SUCCESS, b""),
    MessageKind.UNKNOWN_DATA: (m.CHANNEL_EXTENDED_DATA, uint32(2) + string(b"abc")),
    MessageKind.WINDOW: (m.CHANNEL_WINDOW_ADJUST, uint32(1)),
    MessageKind.CLOSE: (m.CHANNEL_CLOSE, b""),
    **{
        kind: (m.CHANNEL_REQUEST, m.ChannelRequest(name=name, want_reply=True, extra=b""))
        for kind, name in (
            (MessageKind.START, b"shell"),
            (MessageKind.SETUP, b"env"),
            (MessageKind.EXIT, b"exit-status"),
            (MessageKind.REQUEST, b"signal"),
            (MessageKind.REFUSED, b"pty-req"),
        )
    },
}


class Log:
    """A direction, and its calls."""

    def __init__(self, table: Table, phase: StartPhase, *, window: int = 0, granted: int = 0) -> None:
        self.delivered: list[MessageKind] = []
        self.data = b""
        self.dropped = b""
        self.refunded = 0
        self.refused = 0
        self.direction = Direction(
            table,
            phase,
            deliver=self._deliver,
            refund=self._refund,
            dropped=self._dropped,
            refuse=self._refuse,
        )
        self.direction.window = window
        self.direction.granted = granted

    def _deliver(self, kind: MessageKind, message: int, payload: Payload) -> None:
        self.delivered.append(kind)
        if message == m.CHANNEL_DATA:
            assert isinstance(payload, bytes)
            assert int.from_bytes(payload[:4], "big") == len(payload) - 4
            self.data += payload[4:]

    def _refund(self, size: int) -> None:
        self.refunded += size

    def _dropped(self, message: int, payload: bytes, reason: str) -> None:
        self.dropped += payload[4:] if message == m.CHANNEL_DATA else payload[8:]

    def _refuse(self, request: m.ChannelRequest, reason: str) -> None:
        self.refused += 1

    def push(self, kind: MessageKind) -> None:
        self.direction.push(kind, *SAMPLES[kind])


@pytest.mark.parametrize("table", [FROM_NEAR, FROM_FAR, FROM_FAR_OF_FORWARD])
def test_follows_each_row_of_tables(table: Table) -> None:
    """Each message in each phase, alone and with enough window."""
    for (phase, kind), disposition in table.items():
        log = Log(table, phase, window=100, granted=100)
        log.push(kind)
        outcome = {
            Disposition.PASS: ([kind], 0, 0, 0),
            Disposition.OVERTAKE: ([kind], 0, 0, 0),
            Disposition.WAIT: ([], 1, 0, 0),
            Disposition.KEEP: ([], 0, 0, 0),
            Disposition.DROP: ([], 0, 3, 0),
            Disposition.REFUSE: ([], 0, 0, 1),
        }[disposition]
        result = (log.delivered, log.direction.queue_length, len(log.dropped), log.refused)
        assert result == outcome, (phase, kind, disposition)
        assert log.refunded == len(log.dropped), (phase, kind)


@pytest.mark.parametrize("table", [FROM_NEAR, FROM_FAR, FROM_FAR_OF_FORWARD])
def test_has_row_for_each_kind_and_phase(table: Table) -> None:
    assert set(table) == {(phase, kind) for phase in StartPhase for kind in MessageKind}
    assert set(SAMPLES) == set(MessageKind)


def test_queues_messages_after_start_and_refuses_second_start() -> None:
    log = Log(FROM_NEAR, StartPhase.NOT_STARTED, window=100, granted=100)
    for kind in (MessageKind.SETUP, MessageKind.START):
        log.push(kind)
    log.direction.enter(StartPhase.STARTING)
    for kind in (MessageKind.START, MessageKind.DATA, MessageKind.REQUEST, MessageKind.EOF):
        log.push(kind)
    assert log.delivered == [MessageKind.SETUP, MessageKind.START]
    log.direction.enter(StartPhase.STARTED)
    assert log.delivered[2:] == [MessageKind.DATA, MessageKind.REQUEST, MessageKind.EOF]
    assert log.refused == 1


def test_admits_next_start_after_refusal() -> None:
    log = Log(FROM_NEAR, StartPhase.STARTING)
    log.push(MessageKind.START)
    log.push(MessageKind.DATA)
    log.direction.enter(StartPhase.NOT_STARTED)
    # Only the relay enters STARTING when the start is delivered. The data was sent without a window.
    assert log.delivered == [MessageKind.START]
    assert (log.dropped, log.refunded) == (b"abc", 0)


def test_keeps_early_eof_until_start() -> None:
    log = Log(FROM_NEAR, StartPhase.NOT_STARTED, window=100, granted=100)
    log.push(MessageKind.EOF)
    log.push(MessageKind.DATA)
    log.push(MessageKind.START)
    assert log.delivered == [MessageKind.START]
    assert (log.dropped, log.refunded) == (b"abc", 3)
    log.direction.enter(StartPhase.STARTING)
    log.direction.enter(StartPhase.STARTED)
    assert log.delivered == [MessageKind.START, MessageKind.EOF]


def test_drops_data_after_eof() -> None:
    log = Log(FROM_FAR, StartPhase.STARTED, window=100, granted=100)
    for kind in (MessageKind.EOF, MessageKind.DATA, MessageKind.EXTENDED, MessageKind.EOF, MessageKind.EXIT):
        log.push(kind)
    assert log.delivered == [MessageKind.EOF, MessageKind.EXIT]
    assert log.refunded == 6


def test_splits_data_to_window_in_order() -> None:
    log = Log(FROM_NEAR, StartPhase.STARTED, window=2, granted=2)
    log.push(MessageKind.DATA)
    log.push(MessageKind.EOF)
    assert (log.data, log.delivered) == (b"ab", [MessageKind.DATA])
    log.direction.add_window(5)
    assert (log.data, log.delivered) == (b"abc", [MessageKind.DATA, MessageKind.DATA, MessageKind.EOF])
    assert log.direction.window == 4


def test_cuts_window_at_maximum() -> None:
    log = Log(FROM_NEAR, StartPhase.STARTED, window=MAX_WINDOW - 1)
    assert log.direction.add_window(5) == 1
    assert log.direction.add_window(5) == 0


def test_rejects_floods() -> None:
    log = Log(FROM_NEAR, StartPhase.STARTING)
    log.direction.push(MessageKind.DATA, m.CHANNEL_DATA, string(bytes(SLACK)))
    with pytest.raises(RemoteViolation):
        log.push(MessageKind.DATA)
    log = Log(FROM_NEAR, StartPhase.STARTING)
    for _ in range(QUEUED_MESSAGES):
        log.push(MessageKind.REQUEST)
    with pytest.raises(RemoteViolation):
        log.push(MessageKind.REQUEST)
    log = Log(FROM_NEAR, StartPhase.STARTING)
    with pytest.raises(RemoteViolation):
        log.direction.push(
            MessageKind.REQUEST,
            m.CHANNEL_REQUEST,
            m.ChannelRequest(name=b"x", want_reply=False, extra=bytes(QUEUED_BYTES + 1)),
        )


def test_reports_queued_messages_when_channel_closes() -> None:
    log = Log(FROM_NEAR, StartPhase.STARTED)
    log.push(MessageKind.DATA)
    log.direction.discard(Reason(ReasonCode.CHANNEL_CLOSED, "closed"))
    assert (log.data, log.dropped, log.direction.queue_length) == (b"", b"abc", 0)
    far = Log(FROM_FAR, StartPhase.NOT_STARTED, window=2)
    far.push(MessageKind.DATA)
    far.direction.flush()
    assert (far.data, far.dropped) == (b"ab", b"c")


class Windows(RuleBasedStateMachine):
    """A sender that mostly respects its window, a receiver that grants, a start, and an EOF.

    Only data that the receiver accepts is delivered, dropped data is refunded, and the sender never stalls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(FROM_NEAR, StartPhase.NOT_STARTED)
        self.direction = self.log.direction
        self.granted_by_receiver = 0
        self.granted_to_sender = 0
        self.sent = b""
        self.next = 0
        self.eof = False

    def credit(self) -> int:
        """How many bytes an honest sender may send now."""
        return self.granted_to_sender + self.log.refunded - len(self.sent)

    @rule(size=st.integers(0, 50))
    def grant(self, size: int) -> None:
        self.granted_by_receiver += self.direction.add_window(size)

    @rule()
    def tell(self) -> None:
        """Grant the receiver's window to the sender, as the relay does after the start."""
        if self.direction.phase is StartPhase.STARTED and self.granted_to_sender < self.granted_by_receiver:
            self.direction.add_granted(self.granted_by_receiver - self.granted_to_sender)
            self.granted_to_sender = self.granted_by_receiver

    @rule(size=st.integers(1, 60), honest=st.booleans())
    def send(self, size: int, honest: bool) -> None:
        size = min(size, self.credit()) if honest else size
        if size <= 0:
            return
        data = bytes((self.next + at) % 251 for at in range(size))
        self.next += size
        self.sent += data
        self.direction.push(MessageKind.DATA, m.CHANNEL_DATA, string(data))

    @rule()
    def start(self) -> None:
        if self.direction.phase is StartPhase.NOT_STARTED:
            self.direction.enter(StartPhase.STARTING)

    @rule(accepted=st.booleans())
    def answer(self, accepted: bool) -> None:
        if self.direction.phase is StartPhase.STARTING:
            self.direction.enter(StartPhase.STARTED if accepted else StartPhase.NOT_STARTED)

    @rule()
    def end(self) -> None:
        self.eof = True
        self.log.push(MessageKind.EOF)

    @invariant()
    def window_is_never_exceeded(self) -> None:
        assert len(self.log.data) <= self.granted_by_receiver
        assert self.direction.window == self.granted_by_receiver - len(self.log.data)

    @invariant()
    def each_byte_is_delivered_dropped_or_queued(self) -> None:
        gone = len(self.log.data) + len(self.log.dropped)
        assert gone <= len(self.sent)
        if not self.direction.queue_length:
            assert gone == len(self.sent)
        assert self.log.refunded <= len(self.log.dropped)

    @invariant()
    def sender_never_stalls(self) -> None:
        """Data waits only for a start or for window, and an honest sender can always use up the window."""
        if self.direction.phase is StartPhase.STARTED and self.direction.window and not self.direction.ended:
            assert not self.direction.queue_length
        if self.direction.granted >= 0 and not self.eof and self.direction.phase is StartPhase.STARTED:
            assert self.granted_to_sender + self.log.refunded - len(self.sent) <= self.direction.window + max(
                0, self.granted_to_sender - self.granted_by_receiver
            )


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from(sorted(MessageKind, key=lambda kind: kind.value)), max_size=30))
def test_keeps_order_after_start(kinds: list[MessageKind]) -> None:
    """Messages after a start are delivered in the order in which they were pushed."""
    log = Log(FROM_FAR, StartPhase.STARTED, window=1000, granted=1000)
    for kind in kinds:
        log.push(kind)
    expected: list[MessageKind] = []
    for kind in kinds:
        if kind is MessageKind.UNKNOWN_DATA:
            continue
        if MessageKind.EOF in expected and kind in (MessageKind.DATA, MessageKind.EXTENDED, MessageKind.EOF):
            continue
        expected.append(kind)
    assert log.delivered == expected
