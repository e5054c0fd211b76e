"""The packet reader without a transport: holds, brakes, slices, and the end of the input."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock

from conchrec.errors import RemoteViolation
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.packet_reader import MAX_HELD, MAX_HELD_EARLY, PacketHandler, PacketReader
from conchrec.ssh.peer_limits import EARLY_BYTES

DATA = 94


class Handler:
    """A PacketHandler that keeps its calls in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.is_over = False
        self.error: Exception | None = None
        self.on_message: Callable[[bytes], None] = lambda payload: None

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        try:
            step(*arguments)
        except RemoteViolation as error:
            self.error, self.is_over = error, True

    def read_identification(self) -> bool:
        return True

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        assert messageNum == DATA
        self.events.append(payload.decode())
        self.on_message(payload)

    def messages_handled(self) -> None:
        self.events.append("handled")

    def input_ended(self) -> None:
        self.events.append("ended")


class Socket:
    """A Producer that keeps whether it is paused."""

    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class Scene:
    """A reader with its handler and socket."""

    def __init__(self) -> None:
        self.handler = Handler()
        handler: PacketHandler = self.handler
        self.socket = Socket()
        self.incoming = InboundPackets()
        self.reader = PacketReader(handler, self.incoming, Clock(), None)
        self.reader.connect(self.socket)
        self.outbound = OutboundPackets()

    def packet(self, text: str) -> bytes:
        return self.outbound.packet(DATA, text.encode())


def test_handles_messages_in_order() -> None:
    scene = Scene()
    stream = scene.packet("one") + scene.packet("two")
    scene.reader.receive(stream[:-1])
    scene.reader.receive(stream[-1:])
    assert scene.handler.events == ["one", "handled", "two", "handled"]


def test_handles_bytes_received_during_message_after_it() -> None:
    """The messages of an inner connection arrive in a message of the outer one."""
    scene = Scene()
    second = scene.packet("second")
    scene.handler.on_message = lambda payload: scene.reader.receive(second) if payload == b"first" else None
    # Without keys a packet does not depend on its sequence number.
    scene.reader.receive(scene.packet("first"))
    assert scene.handler.events == ["first", "second", "handled"]


def test_keeps_reading_up_to_limit_during_hold() -> None:
    for logged_in, most in ((False, MAX_HELD_EARLY), (True, MAX_HELD)):
        scene = Scene()
        if logged_in:
            scene.reader.log_in()
        scene.reader.hold("test", True)
        scene.reader.hold("another", True)
        while not scene.socket.paused:
            scene.reader.receive(scene.packet("x" * 1000))
        assert most < len(scene.incoming) < most + 2000
        scene.reader.hold("test", False)
        assert "x" * 1000 not in scene.handler.events
        scene.reader.hold("another", False)
        assert len(scene.incoming) == 0
        assert not scene.socket.paused


def test_pauses_only_socket_during_brake() -> None:
    scene = Scene()
    scene.reader.brake("test", True)
    assert scene.socket.paused
    scene.reader.receive(scene.packet("read before"))
    assert scene.handler.events == ["read before", "handled"]
    scene.reader.brake("test", False)
    assert not scene.socket.paused


def test_reports_end_after_deferred_messages() -> None:
    scene = Scene()
    scene.incoming.feed(b"".join(map(scene.packet, ("one", "two", "three"))))
    assert scene.reader.run_slice(lambda: True)
    assert not scene.reader.end()
    assert scene.reader.run_slice(lambda: True)
    assert not scene.reader.run_slice(lambda: True)
    assert scene.handler.events == ["one", "handled", "two", "handled", "three", "handled", "ended"]


def test_reports_end_at_once_when_no_message_is_left() -> None:
    scene = Scene()
    scene.reader.receive(scene.packet("one"))
    assert scene.reader.end()
    assert scene.handler.events == ["one", "handled"]


def test_limits_messages_before_login() -> None:
    scene = Scene()
    text = "x" * 30_000
    for _ in range(EARLY_BYTES // len(text) + 1):
        scene.reader.receive(scene.packet(text))
    assert str(scene.handler.error) == "too many messages before the login"
