"""Output reaches the socket at the end of the slice, complete and in order, and pauses its producer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from conchrec.ssh.backpressure import WriteBackpressure
from conchrec.ssh.fair_turns import READ_AT_MOST, READ_WHILE_TYPING, SLICE_MESSAGES, TurnScheduler
from conchrec.ssh.socket_writer import SocketWriter
from conchrec.ssh.transport_base import READ_EARLY
from tests.support.pair import Line, Pair
from tests.support.turns import finish

LIMIT = 100


class FakeSocket:
    """A socket that accepts ``room`` bytes. ``drain`` makes room, as a reactor would notice it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.bufferSize = 0
        self.sent = b""
        self.waiting = b""
        self.calls = 0
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self.waiting += data

    def writeSomeData(self, data: bytes) -> int | Exception:
        assert not self.waiting, "overtakes bytes that wait"
        self.calls += 1
        if self.room < 0:
            return ConnectionLost()
        piece = data[: self.room]
        self.sent += piece
        self.room -= len(piece)
        return len(piece)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        assert not streaming
        self.producer = producer
        self.producer.resumeProducing()

    def drain(self, room: int) -> None:
        self.room += room
        if self.waiting:
            piece, self.waiting = self.waiting[: self.room], self.waiting[self.room :]
            self.sent += piece
            self.room -= len(piece)
            if not self.waiting:
                self.producer.resumeProducing()


class Producer:
    def __init__(self) -> None:
        self.is_paused = False

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False


class Scene:
    def __init__(self, room: int) -> None:
        self.socket = FakeSocket(room)
        self.pressure = WriteBackpressure()
        self.producer = Producer()
        self.pressure.attach(self.producer)
        self.due: list[Callable[[], object]] = []
        self.read_size = 2 * LIMIT
        self.writer = SocketWriter(self.socket, self.pressure, self)
        self.writer.set_read_size(LIMIT)

    def after_slice(self, send: Callable[[], object]) -> None:
        self.due.append(send)

    def end_slice(self) -> None:
        due, self.due[:] = self.due[:], []
        for send in due:
            send()


def test_joins_output_of_slice() -> None:
    scene = Scene(room=1000)
    for piece in (b"one ", b"two ", b"three"):
        scene.writer.write(piece)
    assert (scene.socket.sent, len(scene.due)) == (b"", 1)
    scene.end_slice()
    assert (scene.socket.sent, scene.socket.calls) == (b"one two three", 1)
    scene.writer.write(b"!")
    scene.end_slice()
    assert scene.socket.sent == b"one two three!"


def test_leaves_rest_to_reactor_when_socket_accepts_no_more() -> None:
    scene = Scene(room=5)
    scene.writer.write(b"0123456789")
    scene.end_slice()
    assert (scene.socket.sent, scene.socket.waiting) == (b"01234", b"56789")
    scene.writer.write(b"abc")
    scene.end_slice()
    assert scene.socket.calls == 1
    scene.socket.drain(1000)
    assert scene.socket.sent == b"0123456789abc"


def test_pauses_producer_until_all_is_sent() -> None:
    scene = Scene(room=10)
    scene.writer.write(b"x" * LIMIT)
    assert not scene.producer.is_paused
    scene.writer.write(b"x" * 11)
    assert (scene.producer.is_paused, scene.pressure.full) == (True, True)
    scene.socket.drain(50)
    assert scene.producer.is_paused
    scene.socket.drain(1000)
    assert (scene.producer.is_paused, scene.pressure.full) == (False, False)
    assert len(scene.socket.sent) == LIMIT + 11


def test_sends_much_output_before_slice_ends() -> None:
    scene = Scene(room=1000)
    scene.writer.write(b"x" * (LIMIT + 1))
    assert (len(scene.socket.sent), scene.producer.is_paused) == (LIMIT + 1, False)


def test_leaves_error_of_socket_to_reactor() -> None:
    scene = Scene(room=-1)
    scene.writer.write(b"lost")
    scene.end_slice()
    assert scene.socket.waiting == b"lost"


@pytest.mark.parametrize("room", [0, 3, 1000])
def test_gives_everything_to_socket_that_is_to_be_closed(room: int) -> None:
    scene = Scene(room=room)
    scene.writer.write(b"first")
    scene.end_slice()
    scene.writer.write(b" last words")
    scene.writer.finish()
    scene.end_slice()
    assert scene.socket.sent + scene.socket.waiting == b"first last words"


def test_discards_output_when_connection_is_dropped() -> None:
    scene = Scene(room=1000)
    scene.writer.write(b"nobody reads")
    scene.writer.close()
    scene.writer.write(b"x" * (LIMIT + 1))
    scene.end_slice()
    assert (scene.socket.calls, scene.socket.waiting) == (0, b"")


Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 3 * LIMIT)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("drain"), st.integers(1, 4 * LIMIT)),
    ),
    max_size=60,
)


@given(room=st.integers(0, 500), plan=steps)
def test_keeps_order_of_output(room: int, plan: list[Step]) -> None:
    scene = Scene(room=room)
    written = b""
    for step, size in plan:
        if step == "write":
            data = bytes((len(written) + index) % 251 for index in range(size))
            scene.writer.write(data)
            written += data
        elif step == "end":
            scene.end_slice()
        else:
            scene.socket.drain(size)
        assert written.startswith(scene.socket.sent + scene.socket.waiting)
        waits = len(written) - len(scene.socket.sent)
        assert not scene.producer.is_paused or waits > 0
        assert scene.producer.is_paused or waits <= LIMIT
    scene.end_slice()
    scene.socket.drain(len(written) + 1)
    assert scene.socket.sent == written
    assert not scene.producer.is_paused


# --- a transport over a socket


@implementer(IReadWriteDescriptor)
class SocketLine(Line):
    """A line that is a socket of Twisted. ``at_once`` is what was sent without its buffer."""

    bufferSize = 64 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.at_once: list[bytes] = []

    def writeSomeData(self, data: bytes) -> int:
        self.unsent += data
        self.at_once.append(data)
        return len(data)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self.producer = producer
        if not streaming:
            writer: Any = producer
            writer.resumeProducing()


class OverSocket:
    """A server on a socket, whose work is charged, and a client."""

    def __init__(self, *, wraps: bool = False) -> None:
        self.pair = pair = Pair(connect=False)
        self.turns = TurnScheduler(pair.clock)
        self.share = self.turns.of_user("joe")
        pair.server.charge_to(self.share)
        self.line = pair.server_line = SocketLine()
        if wraps:
            # As behind a ``haproxy:`` endpoint. ``makeConnection`` of the wrapper calls that of the server.
            server: Any = pair.server
            wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), server)
            wrapper.makeConnection(self.line)
            client: Any = pair.client
            client.makeConnection(pair.client_line)
        else:
            pair.connect()
        self.settle()

    def settle(self) -> None:
        while finish(self.pair.clock) or self.pair.server_line.unsent or self.pair.client_line.unsent:
            self.pair.pump()

    def log_in(self) -> OverSocket:
        self.pair.client.request_service(self.pair.client_ear)
        self.settle()
        self.pair.server.sendPacket(52, b"")
        self.settle()
        return self


def test_sends_answers_of_slice_together() -> None:
    scene = OverSocket().log_in()
    scene.line.at_once.clear()
    for _ in range(3):
        scene.pair.client.sendPacket(192, b"\0\0\0\1x")
    data = bytes(scene.pair.client_line.unsent)
    scene.pair.client_line.unsent.clear()
    scene.pair.server.dataReceived(data)
    assert len(scene.line.at_once) == 1


@pytest.mark.parametrize("wraps", [False, True])
def test_sets_read_size_of_socket(wraps: bool) -> None:
    scene = OverSocket(wraps=wraps)
    sizes = [scene.line.bufferSize]
    scene.log_in()
    for _ in range(2):
        scene.pair.client.sendPacket(2, b"\0\0\0\0")
        scene.settle()
        sizes.append(scene.line.bufferSize)
        scene.turns.note_keystroke()
    assert sizes == [READ_EARLY, READ_AT_MOST, READ_WHILE_TYPING]


def test_delivers_reason_of_disconnect() -> None:
    scene = OverSocket().log_in()
    scene.pair.server.sendDisconnect(11, b"last words")
    scene.settle()
    assert scene.pair.client.lost is not None
    assert scene.pair.client.lost.description == b"last words"


def test_sends_nothing_after_connection_is_dropped() -> None:
    scene = OverSocket().log_in()
    scene.line.at_once.clear()
    scene.pair.server.sendPacket(2, b"\0\0\0\0")
    scene.pair.server.abort()
    finish(scene.pair.clock)
    assert scene.line.at_once == []


def test_writes_nothing_when_connection_is_lost_while_messages_wait() -> None:
    """Many messages that are answered, then the end: the rest is handled without a socket."""
    scene = OverSocket().log_in()
    for _ in range(3 * SLICE_MESSAGES):
        scene.pair.client.sendPacket(192, b"\0\0\0\1x")
    scene.pair.server.dataReceived(bytes(scene.pair.client_line.unsent))
    scene.pair.client_line.unsent.clear()
    scene.line.at_once.clear()
    scene.pair.server.connectionLost(Failure(ConnectionDone()))
    assert scene.pair.server.lost is None
    finish(scene.pair.clock)
    assert scene.pair.server.lost is not None
    assert scene.line.at_once == []
