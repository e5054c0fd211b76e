"""Messages 80 to 100: pending replies, the end of channels, and peers that misbehave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import LocalViolation
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen
from conchrec.ssh.wire import string, uint32
from tests.support.loop import Handler, Loop, Receiver, Wire, request_body


class Pair:
    def __init__(self) -> None:
        self.asker, self.answerer = Handler(), Handler()
        self.loop = Loop(self.asker, self.answerer)
        self.here, self.there = Receiver(), Receiver()

    def open(self) -> IncomingOpen:
        self.channel = self.loop.left.open(b"session", self.here, window=10, max_packet=20, extra=b"x")
        self.loop.pump()
        return self.answerer.openings[-1]


def test_opens_channel_when_owner_confirms() -> None:
    pair = Pair()
    opening = pair.open()
    assert (opening.request.window, opening.request.max_packet, opening.request.extra) == (10, 20, b"x")
    assert pair.here.heard == []
    opening.confirm(pair.there, 30, 40, b"y")
    pair.loop.pump()
    assert pair.here.heard == [("opened", 30, 40, b"y")]
    with pytest.raises(LocalViolation):
        opening.refuse(1, "twice")


def test_forgets_channel_after_refusal() -> None:
    pair = Pair()
    pair.open().refuse(m.CONNECT_FAILED, "nobody there")
    pair.loop.pump()
    assert pair.here.heard == [("refused", m.CONNECT_FAILED, b"nobody there")]
    assert pair.loop.left.channel_count == pair.loop.right.channel_count == 0


def test_forgets_channel_after_close_in_both_directions() -> None:
    pair = Pair()
    opening = pair.open()
    opening.confirm(pair.there, 30, 40)
    pair.loop.pump()
    pair.channel.send(m.CHANNEL_CLOSE)
    pair.channel.send(m.CHANNEL_DATA, string(b"after the end"))
    pair.loop.pump()
    assert pair.there.heard == [(m.CHANNEL_CLOSE, b"")]
    assert pair.loop.right.channel_count == 1
    opening.channel.send(m.CHANNEL_CLOSE)
    pair.loop.pump()
    assert pair.loop.left.channel_count == pair.loop.right.channel_count == 0
    # The number of a closed channel is used again only after all other numbers.
    pair.open()
    assert pair.channel.number == 1


def test_keeps_order_of_global_replies() -> None:
    pair = Pair()
    replies: list[tuple[int, bool, bytes]] = []

    def ask(number: int) -> None:
        pair.loop.left.request(
            b"tcpip-forward", uint32(number), lambda ok, extra: replies.append((number, ok, extra))
        )

    for number in range(3):
        ask(number)
    pair.loop.left.request(b"no-reply-wanted")
    pair.loop.pump()
    first, second, third, quiet = pair.answerer.requests
    third.reply(True, b"3")
    quiet.reply(True)
    first.reply(False, b"not sent with a failure")
    pair.loop.pump()
    assert replies == [(0, False, b"")]
    second.reply(True, b"2")
    pair.loop.pump()
    assert replies == [(0, False, b""), (1, True, b"2"), (2, True, b"3")]


def test_reports_end_to_each_owner_once() -> None:
    pair = Pair()
    pair.open().confirm(pair.there, 1, 1)
    pair.loop.pump()
    replies: list[bool] = []
    pair.loop.left.request(b"keepalive@openssh.com", b"", lambda ok, extra: replies.append(ok))
    pair.loop.left.serviceStopped()
    pair.loop.left.serviceStopped()
    assert pair.here.heard[-1] == ("lost",)
    assert replies == [False]
    assert pair.asker.stopped == 1
    # Later calls do not raise.
    late = Receiver()
    pair.loop.left.open(b"session", late, window=1, max_packet=1)
    assert late.heard == [("lost",)]
    pair.channel.send(m.CHANNEL_DATA, string(b"x"))


def lone(
    exceeded: Callable[[str], None] | None = None, *, least_packet: int = 1
) -> tuple[Connection, Wire, Handler]:
    handler, wire = Handler(), Wire()
    connection = Connection(handler, max_channels=4, exceeded=exceeded, least_packet=least_packet)
    connection.transport = wire
    connection.serviceStarted()
    return connection, wire, handler


@pytest.mark.parametrize("number", [91, 92, 93, 94, 95, 96, 97, 98, 99, 100])
def test_drops_message_for_closed_channel(number: int) -> None:
    connection, wire, _ = lone()
    connection.packetReceived(number, uint32(77) + b"whatever")
    assert wire.disconnected is None
    assert not wire.sent


def test_drops_reply_without_request() -> None:
    connection, wire, _ = lone()
    connection.packetReceived(m.REQUEST_SUCCESS, b"")
    assert wire.disconnected is None


@pytest.mark.parametrize(
    ("number", "payload"),
    [
        (m.CHANNEL_OPEN, b"\x00\x00\x00\x07ses"),
        (m.CHANNEL_DATA, b"\x00"),
        (m.GLOBAL_REQUEST, string(b"keepalive@openssh.com")),
    ],
)
def test_ends_connection_after_truncated_message(number: int, payload: bytes) -> None:
    connection, wire, _ = lone()
    connection.packetReceived(number, payload)
    assert wire.disconnected is not None
    assert wire.disconnected[0] == 2


def test_answers_unknown_message_with_unimplemented() -> None:
    connection, wire, _ = lone()
    connection.packetReceived(101, b"")
    assert wire.unimplemented == 1


def test_refuses_channels_above_limit() -> None:
    reasons: list[str] = []
    connection, wire, handler = lone(reasons.append)
    for number in range(6):
        connection.packetReceived(
            m.CHANNEL_OPEN,
            m.ChannelOpen(kind=b"session", sender=number, window=1, max_packet=1, extra=b"").encode(),
        )
    assert len(handler.openings) == 4
    assert [number for number, _ in wire.sent] == [m.CHANNEL_OPEN_FAILURE] * 2
    assert reasons == ["too many channels in one connection: the limit is 4"]
    assert wire.disconnected is None


def test_refuses_channel_with_maximum_packet_of_zero() -> None:
    connection, wire, handler = lone()
    connection.packetReceived(
        m.CHANNEL_OPEN, m.ChannelOpen(kind=b"session", sender=0, window=1, max_packet=0, extra=b"").encode()
    )
    assert handler.openings == []
    assert wire.sent[0][0] == m.CHANNEL_OPEN_FAILURE


@pytest.mark.parametrize("size", [255, 256])
def test_refuses_channel_with_too_small_maximum_packet(size: int) -> None:
    """Data of the proxy's own streams would become thousands of packets."""
    connection, wire, handler = lone(least_packet=256)
    connection.packetReceived(
        m.CHANNEL_OPEN,
        m.ChannelOpen(kind=b"session", sender=0, window=1, max_packet=size, extra=b"").encode(),
    )
    assert len(handler.openings) == (size == 256)
    assert [number for number, _ in wire.sent] == [m.CHANNEL_OPEN_FAILURE] * (size == 255)


def test_handles_no_message_after_violation() -> None:
    """The state of the connection is unreliable after a violation."""
    handler = Handler()
    loop = Loop(handler, Handler())
    opening = m.ChannelOpen(kind=b"session", sender=0, window=1, max_packet=1, extra=b"").encode()
    loop.left.packetReceived(m.CHANNEL_OPEN, opening)
    loop.left.packetReceived(m.CHANNEL_OPEN, b"")
    loop.left.packetReceived(m.CHANNEL_OPEN, opening)
    assert loop.left_wire.disconnected is not None
    assert len(handler.openings) == 1


def test_rejects_message_on_channel_that_is_not_open() -> None:
    connection, wire, handler = lone()
    connection.packetReceived(
        m.CHANNEL_OPEN, m.ChannelOpen(kind=b"session", sender=0, window=1, max_packet=1, extra=b"").encode()
    )
    number = handler.openings[0].channel.number
    connection.packetReceived(m.CHANNEL_REQUEST, uint32(number) + request_body(b"x"))
    assert wire.disconnected is not None


@given(st.lists(st.tuples(st.integers(80, 110), st.binary(max_size=40)), max_size=30))
def test_never_raises_for_any_message(packets: list[tuple[int, bytes]]) -> None:
    connection, _, handler = lone()
    connection.open(b"session", Receiver(), window=5, max_packet=5)
    for number, payload in packets:
        connection.packetReceived(number, payload)
        for opening in handler.openings:
            if not opening.answered:
                opening.confirm(Receiver(), 5, 5)
