"""A tunnel: bytes in order, pressure both ways, and a failing protocol that ends nothing but itself."""

from __future__ import annotations

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from conchrec.proxy.tunnel import HIGH, LOW, Tunnel
from conchrec.ssh.stream import WINDOW, Stream
from tests.ssh.test_stream import User
from tests.support.loop import Handler, Loop


class Heard(Protocol):
    """Keeps what it hears; raises where it is told to."""

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


class Valve:
    """An IPushProducer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")


class Pair:
    """The user's stream on the left, the tunnel on the right."""

    def __init__(self) -> None:
        handler = Handler()
        self.loop = Loop(Handler(), handler)
        self.user = User()
        self.stream = Stream.open(self.loop.left, b"direct-tcpip", self.user)
        self.loop.pump()
        self.tunnel = Tunnel(peer="user", host="proxy")
        self.tunnel.attach(Stream.accept(handler.openings[0], self.tunnel))
        self.loop.pump()


def test_what_comes_before_the_protocol_is_delivered_first() -> None:
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


def test_without_a_protocol_no_more_than_one_window_comes() -> None:
    pair = Pair()
    pair.stream.write(b"x" * (3 * WINDOW))
    pair.loop.pump()
    assert pair.stream.pending == 2 * WINDOW
    heard = Heard()
    pair.tunnel.start(heard)
    pair.loop.pump()
    assert len(heard.data) == 3 * WINDOW


def test_pressure_is_told_once_each_way() -> None:
    pair = Pair()
    heard, valve, told = Heard(), Valve(), list[bool]()
    pair.tunnel.on_pressure = told.append
    pair.tunnel.start(heard)
    pair.tunnel.registerProducer(valve, True)
    pair.stream.pause()
    pair.tunnel.write(b"x" * (WINDOW + HIGH + 1))
    pair.loop.pump()
    pair.tunnel.write(b"x")
    assert (valve.told, told) == (["pause"], [True])
    pair.stream.resume()
    pair.loop.pump()
    assert (valve.told, told) == (["pause", "resume"], [True, False])
    assert pair.tunnel.stream.pending < LOW
    assert len(pair.user.data) == WINDOW + HIGH + 2


def test_a_protocol_that_raises_ends_its_channel_alone() -> None:
    pair = Pair()
    heard, over = Heard(), list[bool]()
    pair.tunnel.on_closed = lambda: over.append(True)
    pair.tunnel.start(heard)
    heard.broken = True
    pair.stream.write(b"boom")
    pair.loop.pump()
    assert heard.lost == 1
    assert over == [True]
    assert pair.user.heard[-1][0] == "closed"
    assert pair.loop.right_wire.disconnected is None


def test_closing_waits_for_what_was_written() -> None:
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


def test_the_users_end_is_the_end() -> None:
    pair = Pair()
    heard = Heard()
    pair.tunnel.start(heard)
    pair.stream.write(b"last")
    pair.stream.write_eof()
    pair.loop.pump()
    assert (heard.data, heard.lost, pair.tunnel.closed) == (b"last", 1, True)
