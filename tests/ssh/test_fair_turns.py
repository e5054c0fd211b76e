"""The work in one turn of the reactor is bounded, and shares are fair."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.ssh import framing
from conchrec.ssh import messages as m
from conchrec.ssh import numbers as a
from conchrec.ssh.channel_stream import MAX_PACKET, WINDOW, Stream
from conchrec.ssh.fair_turns import (
    READ_AT_MOST,
    READ_WHILE_TYPING,
    SLICE_MESSAGES,
    SLICE_SECONDS,
    TURN_MESSAGES,
    TYPING_SECONDS,
    WAITING_MESSAGES,
    WAITING_SECONDS,
    Share,
    TurnScheduler,
)
from conchrec.ssh.packet_reader import MAX_HELD, MAX_HELD_EARLY
from conchrec.ssh.wire import string, uint32
from tests.support.loop import Handler, Loop, Receiver
from tests.support.pair import Pair
from tests.support.turns import finish, turn


class Messages:
    """A reader with a number of messages that take a given time each. Several readers share ``log``."""

    def __init__(
        self, clock: Clock, share: Share, count: int, log: list[Messages], seconds: float = 0.0
    ) -> None:
        self.share = share
        self.left = count
        self.on_message: Callable[[], None] = lambda: None
        self._clock = clock
        self._log = log
        self._seconds = seconds

    def run_slice(self, spent: Callable[[], bool]) -> bool:
        while self.left:
            self.left -= 1
            self._log.append(self)
            self._clock.rightNow += self._seconds
            self.on_message()
            if spent():
                break
        return self.left > 0


@given(counts=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300)), min_size=1, max_size=40))
def test_handles_all_messages_within_turn_budget(counts: list[tuple[int, int]]) -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    # The scheduler has only weak references to shares.
    readers = [Messages(clock, turns.of_user(str(user)), count, log) for user, count in counts]
    for reader in readers:
        reader.share.run(reader)
    # One more message for each reader: the budget is checked after a message.
    assert len(log) <= TURN_MESSAGES + len(readers)
    while clock.getDelayedCalls():
        before = len(log)
        turn(clock)
        assert len(log) - before <= WAITING_MESSAGES
    assert all(reader.left == 0 for reader in readers)
    assert len(log) == sum(count for _, count in counts)


def test_ends_slice_by_time_after_slow_messages() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    reader = Messages(clock, turns.of_user("joe"), 100, log, seconds=SLICE_SECONDS / 4)
    reader.share.run(reader)
    assert len(log) == 4
    turn(clock)
    assert len(log) == 4 + round(WAITING_SECONDS / SLICE_SECONDS) * 4
    finish(clock)
    assert len(log) == 100


def test_gives_users_equal_turns_for_any_number_of_connections() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    many = [Messages(clock, turns.of_user("many"), 1000, log) for _ in range(50)]
    single = Messages(clock, turns.of_user("one"), 1000, log)
    for reader in (*many, single):
        reader.share.run(reader)
    while single.left:
        turn(clock)
    assert log.count(single) == 1000
    assert len(log) - 1000 <= 1000 + TURN_MESSAGES + WAITING_MESSAGES


def test_charges_time_of_slow_messages() -> None:
    """Shares are measured in time, not in messages."""
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    slow = Messages(clock, turns.of_user("slow"), 100, log, seconds=20 * SLICE_SECONDS)
    quick = Messages(clock, turns.of_user("quick"), 100 * SLICE_MESSAGES, log, seconds=SLICE_SECONDS / 64)
    for reader in (slow, quick):
        reader.share.run(reader)
    while quick.left:
        turn(clock)
    assert log.count(slow) * 20 * SLICE_SECONDS <= 1.5 * 100 * SLICE_SECONDS


def test_serves_light_user_at_once() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    flood = [Messages(clock, turns.of_user("flood"), 10_000, log) for _ in range(20)]
    for reader in flood:
        reader.share.run(reader)
    for _ in range(10):
        turn(clock)
        key = Messages(clock, turns.of_user("joe"), 1, log)
        assert not key.share.run(key)
        assert log[-1] is key


def test_charges_nested_reader_to_current_slice() -> None:
    """The bytes of an inner connection arrive in a message of the outer one."""
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    share = turns.of_user("joe")
    outer, inner = Messages(clock, share, 10, log), Messages(clock, share, 1000, log)

    def bytes_for_inner() -> None:
        share.run(inner)

    outer.on_message = bytes_for_inner
    share.run(outer)
    assert len(log) <= SLICE_MESSAGES + 1
    finish(clock)
    assert (outer.left, inner.left) == (0, 0)


def test_gives_turns_to_others_after_error() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    sent: list[str] = []
    broken, other = (Messages(clock, turns.of_user(user), 200, log) for user in ("broken", "other"))

    def fail_later() -> None:
        if log.count(broken) == SLICE_MESSAGES + 1:
            turns.after_slice(lambda: sent.append("what was written before"))
            raise OSError("no such socket")

    broken.on_message = fail_later
    for reader in (broken, other):
        reader.share.run(reader)
    finish(clock)
    assert (other.left, sent) == (0, ["what was written before"])
    late = Messages(clock, broken.share, 200, log)
    late.share.run(late)
    finish(clock)
    assert late.left == 0


def test_sends_output_at_end_of_slice() -> None:
    """Also what a sender causes others to write; an error stops nobody else."""
    clock = Clock()
    turns = TurnScheduler(clock)
    share = turns.of_user("joe")
    log: list[Messages] = []
    sent: list[tuple[str, int]] = []
    reader = Messages(clock, share, 3, log)

    def send_inner() -> None:
        sent.append(("inner", len(log)))
        share.after_slice(lambda: sent.append(("outer", len(log))))

    def fail() -> None:
        raise OSError("no such socket")

    def write_once() -> None:
        if len(log) == 1:
            share.after_slice(fail)
            share.after_slice(send_inner)

    reader.on_message = write_once
    share.run(reader)
    assert sent == [("inner", 3), ("outer", 3)]
    assert clock.getDelayedCalls() == []


def test_sends_output_in_next_turn_without_slice() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    sent: list[str] = []
    for name in ("first", "second"):
        turns.after_slice(lambda name=name: sent.append(name))  # type: ignore[misc]
    assert (sent, len(clock.getDelayedCalls())) == ([], 1)
    turn(clock)
    assert sent == ["first", "second"]


def test_reads_less_at_once_for_a_second_after_each_key() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    sizes = [turns.read_size]
    clock.advance(TYPING_SECONDS)
    turns.note_keystroke()
    for _ in range(2):
        clock.advance(TYPING_SECONDS / 2)
        sizes.append(turns.read_size)
    assert sizes == [READ_AT_MOST, READ_WHILE_TYPING, READ_AT_MOST]


def test_gives_busy_shares_one_slice_of_each_turn_while_somebody_types() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    transfers = [Messages(clock, turns.of_user(f"user{n}"), 0, log, SLICE_SECONDS / 4) for n in range(4)]
    typist = Messages(clock, turns.of_user("joe"), 0, log, SLICE_SECONDS / 10)

    def read_all() -> list[Messages]:
        """Let one turn pass, in which all sockets are read; return whose messages were handled."""
        log.clear()
        turn(clock)
        for reader in (*transfers, typist):
            reader.left += 2
            reader.share.run(reader)
        return list(log)

    for _ in range(400):
        assert len(read_all()) == 10, "nobody types: all are served in each turn"
    turns.note_keystroke()
    assert set(read_all()) == {typist}
    seen: set[Messages] = set()
    for _ in range(20):
        *bulk, first, second = read_all()
        assert first is second is typist
        assert len(set(bulk)) == 1, "one slice of one transfer"
        seen.add(bulk[0])
    assert seen == set(transfers)
    clock.advance(TYPING_SECONDS)
    finish(clock)
    assert len(read_all()) == 10


def test_serves_share_at_once_that_is_not_busy_any_more() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    reader = Messages(clock, turns.of_user("joe"), 100, log, SLICE_SECONDS)
    while reader.left:
        reader.share.run(reader)
        turn(clock)
    turns.note_keystroke()
    reader.left = 1
    assert reader.share.run(reader), "it has used 50 milliseconds"
    finish(clock)
    clock.advance(1)
    turns.note_keystroke()
    reader.left = 1
    assert not reader.share.run(reader)


def test_moves_reader_when_share_changes() -> None:
    clock = Clock()
    turns = TurnScheduler(clock)
    log: list[Messages] = []
    stranger, user = turns.of_address("192.0.2.1"), turns.of_user("joe")
    reader = Messages(clock, stranger, 1000, log)

    def log_in() -> None:
        reader.share = user

    reader.on_message = log_in
    stranger.run(reader)
    assert (list(stranger.waiting), list(user.waiting)) == ([], [reader])


# --- with transports


@pytest.fixture
def pair() -> Pair:
    pair = Pair().log_in()
    pair.server.charge_to(TurnScheduler(pair.clock).of_user("joe"))
    return pair


def pings(pair: Pair, count: int) -> None:
    for number in range(count):
        pair.client.sendPacket(a.PING, string(uint32(number)))


def deliver(pair: Pair) -> None:
    """Deliver all that the client has sent, at once."""
    data = bytes(pair.client_line.unsent)
    pair.client_line.unsent.clear()
    pair.server.dataReceived(data)


def test_handles_flood_in_slices_and_in_order(pair: Pair) -> None:
    heard: list[int] = []
    pair.server_ear.on_packet = lambda number, payload: heard.append(int.from_bytes(payload, "big"))
    for number in range(1000):
        pair.client.sendPacket(94, uint32(number))
    before = pair.server.packets_read
    deliver(pair)
    assert 0 < pair.server.packets_read - before <= SLICE_MESSAGES
    while pair.clock.getDelayedCalls() and len(heard) < 1000:
        before = len(heard)
        turn(pair.clock)
        assert len(heard) - before <= WAITING_MESSAGES
    assert heard == list(range(1000))


def test_pauses_socket_while_many_bytes_wait(pair: Pair) -> None:
    pings(pair, 5000)
    deliver(pair)
    assert len(pair.server.inbound) > MAX_HELD
    assert pair.server_line.paused
    while pair.server_line.paused:
        turn(pair.clock)
    assert len(pair.server.inbound) <= MAX_HELD


def test_frees_buffer_of_handled_messages(pair: Pair) -> None:
    """A peer that always sends faster than we read must not need more and more memory."""
    tracemalloc.start()
    try:
        for _ in range(200):
            pings(pair, SLICE_MESSAGES + 10)
            deliver(pair)
            turn(pair.clock)
        buffers = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, framing.__file__)])
    finally:
        tracemalloc.stop()
    assert 0 < sum(trace.size for trace in buffers.traces) < 64 * 1024


def test_handles_received_messages_before_end(pair: Pair) -> None:
    heard: list[int] = []
    pair.server_ear.on_packet = lambda number, payload: heard.append(pair.server_ear.stopped)
    for _ in range(500):
        pair.client.sendPacket(94, b"last words")
    deliver(pair)
    pair.server.connectionLost(Failure(ConnectionDone()))
    assert pair.server.lost is None
    while pair.server.lost is None:
        turn(pair.clock)
    assert heard == [0] * 500
    assert pair.server_ear.stopped == 1


def test_ends_dropped_connection_at_once(pair: Pair) -> None:
    pings(pair, 500)
    deliver(pair)
    pair.server.abort()
    pair.server.connectionLost(Failure(ConnectionDone()))
    assert pair.server.lost is not None


def test_handles_inner_connection_in_slices() -> None:
    """Its bytes come through a tunnel, which returns no window while too many bytes wait."""
    pair = Pair(connect=False)
    clock = pair.clock
    turns = TurnScheduler(clock)
    tunnel = Tunnel(turns, capacity=64 * 1024)
    pair.server.charge_to(turns.of_user("joe"))
    user, handler = Receiver(), Handler()
    loop = Loop(Handler(), handler)
    channel = loop.left.open(b"direct-tcpip", user, window=WINDOW, max_packet=MAX_PACKET)
    loop.pump()
    tunnel.attach(Stream.accept(handler.openings[0], tunnel, window=64 * 1024))
    tunnel.start(pair.server)
    loop.pump()
    flood = b"SSH-2.0-flood\r\n"
    flood += b"".join(uint32(12) + b"\x06" + bytes((a.IGNORE,)) + uint32(0) + bytes(6) for _ in range(3_500))
    channel.send(m.CHANNEL_DATA, string(flood))
    loop.pump()
    returned = (m.CHANNEL_WINDOW_ADJUST, uint32(len(flood)))
    assert pair.server.packets_read <= SLICE_MESSAGES
    assert returned not in user.heard
    while returned not in user.heard and pair.server.lost is None:
        assert len(pair.server.inbound) > MAX_HELD_EARLY, "it returns the window when few bytes wait"
        before = pair.server.packets_read
        turn(clock)
        loop.pump()
        assert pair.server.packets_read - before <= WAITING_MESSAGES
    assert returned in user.heard
