"""Streams: data arrives complete and in order, within the granted windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import LEAST_PACKET, MAX_PACKET, PACKETS_AT_ONCE, SLACK, WINDOW, Stream
from conchrec.ssh.fair_turns import SLICE_MESSAGES, WAITING_MESSAGES, TurnScheduler
from conchrec.ssh.wire import string, uint32
from tests.support.loop import Handler, Loop, Receiver, request_body
from tests.support.turns import finish, turn


class User:
    """A StreamHandler that keeps its events."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []
        self.data = b""
        self.pending = 0

    def stream_opened(self) -> None:
        self.heard.append(("opened", None))

    def stream_refused(self, code: int, text: bytes) -> None:
        self.heard.append(("refused", text))

    def stream_data(self, data: bytes) -> None:
        self.data += data

    def stream_eof(self) -> None:
        self.heard.append(("eof", len(self.data)))

    def stream_request(self, request: m.ChannelRequest) -> bool:
        self.heard.append(("request", request.name))
        return request.name == b"yes"

    def stream_drained(self, pending: int) -> None:
        self.pending = pending

    def stream_closed(self) -> None:
        self.heard.append(("closed", len(self.data)))


class Pair:
    """A stream at each end of one channel."""

    def __init__(self) -> None:
        handler = Handler()
        self.loop = Loop(Handler(), handler)
        self.left_user, self.right_user = User(), User()
        self.left = Stream.open(self.loop.left, b"session", self.left_user)
        self.loop.pump()
        self.right = Stream.accept(handler.openings[0], self.right_user)
        self.loop.pump()


@given(st.lists(st.binary(max_size=100_000), max_size=8))
def test_delivers_all_data_before_eof(pieces: list[bytes]) -> None:
    pair = Pair()
    for piece in pieces:
        pair.left.write(piece)
    pair.left.write_eof()
    pair.left.close()
    pair.loop.pump()
    whole = b"".join(pieces)
    assert pair.right_user.data == whole
    assert pair.right_user.heard == [("eof", len(whole)), ("closed", len(whole))]
    assert pair.left_user.heard == [("opened", None), ("closed", 0)]
    assert pair.loop.left.channel_count == pair.loop.right.channel_count == 0


def test_returns_window_while_reader_reads() -> None:
    pair = Pair()
    pair.left.write(b"x" * (3 * WINDOW + 5))
    pair.loop.pump()
    assert len(pair.right_user.data) == 3 * WINDOW + 5
    assert pair.left.pending == 0


def test_stops_writer_after_one_window_when_reader_pauses() -> None:
    pair = Pair()
    pair.right.pause()
    pair.left.write(b"x" * (2 * WINDOW))
    pair.left.write_eof()
    pair.loop.pump()
    assert len(pair.right_user.data) == WINDOW
    assert pair.left.pending == WINDOW
    assert pair.right_user.heard == []  # EOF waits behind the data
    pair.right.resume()
    pair.loop.pump()
    assert len(pair.right_user.data) == 2 * WINDOW
    assert pair.left_user.pending == 0
    assert pair.right_user.heard == [("eof", 2 * WINDOW)]


def test_queues_data_until_channel_is_open() -> None:
    handler, user = Handler(), User()
    loop = Loop(Handler(), handler)
    stream = Stream.open(loop.left, b"auth-agent@openssh.com", user)
    stream.write(b"early")
    loop.pump()
    there = User()
    Stream.accept(handler.openings[0], there)
    loop.pump()
    assert there.data == b"early"


def test_reports_refused_channel() -> None:
    handler, user = Handler(), User()
    loop = Loop(Handler(), handler)
    stream = Stream.open(loop.left, b"auth-agent@openssh.com", user)
    loop.pump()
    handler.openings[0].refuse(1, "no agent")
    loop.pump()
    assert user.heard == [("refused", b"no agent")]
    assert stream.closed


def test_answers_requests_in_order_with_data() -> None:
    handler, receiver = Handler(), Receiver()
    loop = Loop(Handler(), handler)
    channel = loop.left.open(b"session", receiver, window=4, max_packet=100)
    loop.pump()
    user = User()
    stream = Stream.accept(handler.openings[0], user)
    channel_requests = [(b"yes", True), (b"no", True), (b"quiet", False)]
    loop.pump()
    for name, wanted in channel_requests:
        channel.send(m.CHANNEL_REQUEST, request_body(name, wanted))
    loop.pump()
    assert [entry[0] for entry in receiver.heard] == ["opened", m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE]
    stream.write(b"0123456789")
    stream.request(b"exit-status", uint32(0))
    stream.close()
    loop.pump()
    assert [entry[0] for entry in receiver.heard[3:]] == [m.CHANNEL_DATA]
    channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(100))
    loop.pump()
    assert [entry[0] for entry in receiver.heard[4:]] == [
        m.CHANNEL_DATA,
        m.CHANNEL_REQUEST,
        m.CHANNEL_CLOSE,
    ]


def test_limits_packets_to_maximum_size_of_peer() -> None:
    handler, receiver = Handler(), Receiver()
    loop = Loop(Handler(), handler)
    loop.left.open(b"session", receiver, window=1000, max_packet=7)
    loop.pump()
    stream = Stream.accept(handler.openings[0], User())
    stream.write(b"x" * 100)
    stream.write_error(b"y" * 10)
    loop.pump()
    lengths = [len(body) - 4 for number, body in receiver.heard[1:] if number == m.CHANNEL_DATA]
    errors = [len(body) - 8 for number, body in receiver.heard[1:] if number == m.CHANNEL_EXTENDED_DATA]
    assert (max(lengths), sum(lengths)) == (7, 100)
    assert (max(errors), sum(errors)) == (7, 10)


@pytest.mark.parametrize("size", [PACKETS_AT_ONCE * LEAST_PACKET, 300_000])
def test_sends_many_small_packets_in_turns_of_share(size: int) -> None:
    handler, receiver, clock = Handler(), Receiver(), Clock()
    loop = Loop(Handler(), handler)
    share = loop.right_wire.share = TurnScheduler(clock).of_user("joe")
    channel = loop.left.open(b"session", receiver, window=size // 2, max_packet=LEAST_PACKET)
    loop.pump()
    stream = Stream.accept(handler.openings[0], User())
    loop.pump()
    stream.write(b"x" * size)
    stream.write_error(b"y" * 10)
    stream.close()
    channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(size))
    loop.pump()
    while clock.getDelayedCalls():
        before = len(receiver.heard)
        turn(clock)
        loop.pump()
        assert len(receiver.heard) - before <= WAITING_MESSAGES
    assert share.waiting == {}
    data = [body for number, body in receiver.heard[1:] if number == m.CHANNEL_DATA]
    assert b"".join(body[4:] for body in data) == b"x" * size
    assert [entry[0] for entry in receiver.heard[-2:]] == [m.CHANNEL_EXTENDED_DATA, m.CHANNEL_CLOSE]


def test_discards_output_that_waits_for_turn_when_stream_is_aborted() -> None:
    handler, receiver, clock = Handler(), Receiver(), Clock()
    loop = Loop(Handler(), handler)
    loop.right_wire.share = TurnScheduler(clock).of_user("joe")
    loop.left.open(b"session", receiver, window=1 << 20, max_packet=LEAST_PACKET)
    loop.pump()
    stream = Stream.accept(handler.openings[0], User())
    stream.write(b"x" * 100_000)
    stream.abort()
    loop.pump()
    sent = len(receiver.heard)
    assert receiver.heard[-1] == (m.CHANNEL_CLOSE, b"")
    finish(clock)
    loop.pump()
    assert len(receiver.heard) == sent <= SLICE_MESSAGES + 2


def test_disconnects_peer_with_too_small_maximum_packet() -> None:
    """A jump host could otherwise make us create thousands of packets from each piece of data."""
    handler = Handler()
    loop = Loop(Handler(), handler)
    Stream.open(loop.left, b"direct-tcpip", User())
    loop.pump()
    handler.openings[0].confirm(Receiver(), 2**32 - 1, LEAST_PACKET - 1)
    loop.pump()
    assert loop.left_wire.disconnected is not None


def test_disconnects_peer_that_exceeds_window() -> None:
    handler = Handler()
    loop = Loop(Handler(), handler)
    channel = loop.left.open(b"session", Receiver(), window=1, max_packet=1)
    loop.pump()
    stream = Stream.accept(handler.openings[0], User())
    stream.pause()
    loop.pump()
    for _ in range((WINDOW + SLACK) // MAX_PACKET + 1):
        channel.send(m.CHANNEL_DATA, string(b"x" * MAX_PACKET))
    loop.pump()
    assert loop.right_wire.disconnected is not None


def test_ends_stream_when_connection_ends() -> None:
    pair = Pair()
    pair.left.write(b"x")
    pair.loop.left.serviceStopped()
    pair.loop.left.serviceStopped()
    assert pair.left_user.heard[-1] == ("closed", 0)
    assert pair.left.closed
    pair.left.write(b"nobody hears")
    pair.left.close()


def accepted(window: int) -> tuple[Loop, Stream, User, Stream]:
    """Return a stream that the peer opened with this window, the peer's stream, and their handlers."""
    handler = Handler()
    loop = Loop(Handler(), handler)
    user = User()
    peer = Stream.open(loop.left, b"session", User())
    loop.pump()
    stream = Stream.accept(handler.openings[0], user, window=window)
    loop.pump()
    return loop, peer, user, stream


def test_receives_nothing_before_window_is_granted() -> None:
    loop, peer, user, stream = accepted(0)
    peer.write(bytes(100_000))
    loop.pump()
    assert (user.data, peer.pending) == (b"", 100_000)
    stream.widen(40_000)
    loop.pump()
    assert len(user.data) == 100_000, "taken bytes are granted again"


def test_widens_window_while_reading_is_paused() -> None:
    loop, peer, user, stream = accepted(10_000)
    stream.pause()
    peer.write(bytes(100_000))
    stream.widen(30_000)
    loop.pump()
    assert len(user.data) == 10_000, "it is paused"
    stream.resume()
    loop.pump()
    assert len(user.data) == 100_000


def test_disconnects_peer_that_sends_without_window() -> None:
    handler = Handler()
    loop = Loop(Handler(), handler)
    channel = loop.left.open(b"session", Receiver(), window=WINDOW, max_packet=MAX_PACKET)
    loop.pump()
    Stream.accept(handler.openings[0], User(), window=0)
    loop.pump()
    channel.send(m.CHANNEL_DATA, string(b"x"))
    loop.pump()
    assert loop.right_wire.disconnected is not None
