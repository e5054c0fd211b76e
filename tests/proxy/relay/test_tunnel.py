"""A tunnel: bytes in order, backpressure both ways, and a protocol that fails."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock as Later
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.proxy.relay.tunnel import HIGH, LOW, WRITE_BYTES, Tunnel
from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import MAX_PACKET, WINDOW, Stream
from conchrec.ssh.fair_turns import TurnScheduler
from tests.ssh.test_channel_stream import User
from tests.support.loop import Handler, Loop
from tests.support.now import Now


class Heard(Protocol):
    """Keeps its data; raises if ``broken``."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = 0
        self.broken = False

    def dataReceived(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("a bug")
        self.data += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost += 1


class FakeProducer:
    """An IPushProducer that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")


class Pair:
    """The user's stream on the left, the tunnel on the right."""

    def __init__(self, clock: Clock | None = None) -> None:
        handler = Handler()
        self.loop = Loop(Handler(), handler)
        self.user = User()
        self.stream = Stream.open(self.loop.left, b"direct-tcpip", self.user)
        self.loop.pump()
        self.tunnel = Tunnel(TurnScheduler(clock or Now()))
        self.tunnel.attach(Stream.accept(handler.openings[0], self.tunnel))
        self.loop.pump()


def test_delivers_early_data_first() -> None:
    pair = Pair()
    pair.stream.write(b"early")
    pair.loop.pump()
    heard = Heard()
    pair.tunnel.start(heard)
    pair.stream.write(b" late")
    pair.loop.pump()
    assert heard.data == b"early late"
    pair.tunnel.write(b"back")
    pair.loop.pump()
    assert pair.user.data == b"back"


def test_accepts_one_window_without_protocol() -> None:
    pair = Pair()
    pair.stream.write(b"x" * (3 * WINDOW))
    pair.loop.pump()
    assert pair.stream.pending == 2 * WINDOW
    heard = Heard()
    pair.tunnel.start(heard)
    pair.loop.pump()
    assert len(heard.data) == 3 * WINDOW


def test_reports_pressure_once_each_way() -> None:
    pair = Pair()
    heard, producer, pressure = Heard(), FakeProducer(), list[bool]()
    pair.tunnel.on_pressure = pressure.append
    pair.tunnel.start(heard)
    pair.tunnel.registerProducer(producer, True)
    pair.stream.pause()
    pair.tunnel.write(b"x" * (WINDOW + HIGH + 1))
    pair.loop.pump()
    pair.tunnel.write(b"x")
    assert (producer.calls, pressure) == (["pause"], [True])
    pair.stream.resume()
    pair.loop.pump()
    assert (producer.calls, pressure) == (["pause", "resume"], [True, False])
    assert pair.tunnel.stream.pending < LOW
    assert len(pair.user.data) == WINDOW + HIGH + 2


def test_closes_only_channel_whose_protocol_raises() -> None:
    pair = Pair()
    heard, over = Heard(), list[bool]()
    pair.tunnel.notify_closed(lambda: over.append(True))
    pair.tunnel.start(heard)
    heard.broken = True
    pair.stream.write(b"boom")
    pair.loop.pump()
    assert heard.lost == 1
    assert over == [True]
    assert pair.user.heard[-1][0] == "closed"
    assert pair.loop.right_wire.disconnected is None


def test_notifies_one_owner_once() -> None:
    pair = Pair()
    over = list[str]()
    pair.tunnel.notify_closed(lambda: over.append("owner"))
    with pytest.raises(AssertionError, match="one owner"):
        pair.tunnel.notify_closed(lambda: over.append("another"))
    pair.tunnel.start(Heard())
    pair.tunnel.abortConnection()
    pair.tunnel.stream_closed()
    assert over == ["owner"]


def test_sends_written_data_before_close() -> None:
    pair = Pair()
    heard = Heard()
    pair.tunnel.start(heard)
    pair.stream.pause()
    pair.tunnel.write(b"x" * (2 * WINDOW))
    pair.tunnel.loseConnection()
    pair.loop.pump()
    pair.stream.resume()
    pair.loop.pump()
    assert len(pair.user.data) == 2 * WINDOW
    assert [name for name, _ in pair.user.heard[1:]] == ["eof", "closed"]
    assert heard.lost == 1


def test_closes_at_eof_of_user() -> None:
    pair = Pair()
    heard = Heard()
    pair.tunnel.start(heard)
    pair.stream.write(b"last")
    pair.stream.write_eof()
    pair.loop.pump()
    assert (heard.data, heard.lost, pair.tunnel.closed) == (b"last", 1, True)


def data_sizes(pair: Pair) -> list[int]:
    """The sizes of the data in the packets that the tunnel has sent and the user has not read."""
    return [len(payload) - 8 for number, payload in pair.loop.right_wire.sent if number == m.CHANNEL_DATA]


def test_sends_writes_of_one_turn_in_full_packets() -> None:
    clock = Later()
    pair = Pair(clock)
    pair.tunnel.start(Heard())
    for _ in range(3):
        pair.tunnel.write(b"x" * (MAX_PACKET + 36))
    assert data_sizes(pair) == []
    clock.advance(0)
    assert data_sizes(pair) == [MAX_PACKET] * 3 + [3 * 36]
    clock.advance(0)
    assert len(data_sizes(pair)) == 4


def test_sends_many_bytes_before_end_of_turn() -> None:
    clock = Later()
    pair = Pair(clock)
    pair.tunnel.start(Heard())
    pair.tunnel.write(b"x" * (WRITE_BYTES - 1))
    assert data_sizes(pair) == []
    pair.tunnel.write(b"yz")
    assert sum(data_sizes(pair)) == WRITE_BYTES + 1
    clock.advance(0)
    assert sum(data_sizes(pair)) == WRITE_BYTES + 1


def test_sends_last_bytes_when_closed_in_same_turn() -> None:
    for end in ("ours", "the user's"):
        pair = Pair(Later())
        pair.tunnel.start(Heard())
        pair.tunnel.write(b"good bye")
        if end == "ours":
            pair.tunnel.loseConnection()
        else:
            pair.stream.write_eof()
        pair.loop.pump()
        assert pair.user.data == b"good bye"


def test_discards_written_data_when_aborted() -> None:
    clock = Later()
    pair = Pair(clock)
    pair.tunnel.start(Heard())
    pair.tunnel.write(b"unsaid")
    pair.tunnel.abortConnection()
    clock.advance(0)
    pair.loop.pump()
    assert pair.user.data == b""


def test_capacity_limits_both_directions() -> None:
    """Its window, and the data that may wait for the user before the target is paused."""
    handler = Handler()
    loop = Loop(Handler(), handler)
    user = User()
    stream = Stream.open(loop.left, b"session", user)
    loop.pump()
    tunnel = Tunnel(TurnScheduler(Now()))
    tunnel.attach(Stream.accept(handler.openings[0], tunnel, window=0))
    stream.write(bytes(WINDOW))
    loop.pump()
    assert tunnel.received == 0, "the window is 0 before start"
    tunnel.set_capacity(64 * 1024)
    heard = Heard()
    tunnel.hold("target", True)
    tunnel.start(heard)
    loop.pump()
    assert len(heard.data) == 0
    tunnel.hold("target", False)
    tunnel.hold("target", True)
    loop.pump()
    assert len(heard.data) == 64 * 1024
    tunnel.hold("target", False)
    loop.pump()
    assert len(heard.data) == WINDOW
    pressed: list[bool] = []
    tunnel.on_pressure = pressed.append
    loop.left.transport = None
    tunnel.write(bytes(WINDOW + 20 * 1024))
    assert pressed == [True]
