"""Two ends of the connection protocol joined in memory, message by message and in order."""

from __future__ import annotations

from collections import deque
from typing import Any

from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, ConnectionHandler, IncomingOpen, IncomingRequest
from conchrec.ssh.fair_turns import Share


class Wire:
    """The part of a transport that a Connection needs; what is sent waits for ``Loop.pump``."""

    def __init__(self) -> None:
        self.share: Share | None = None
        self.sent: deque[tuple[int, bytes]] = deque()
        self.disconnected: tuple[int, bytes] | None = None
        self.unimplemented = 0

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Keep a message that is sent."""
        if self.disconnected is None:
            self.sent.append((messageType, payload))

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Keep a DISCONNECT that is sent."""
        if self.disconnected is None:
            self.disconnected = (reason, desc)

    def sendUnimplemented(self) -> None:
        """Count an UNIMPLEMENTED that is sent."""
        self.unimplemented += 1


class Handler:
    """A ConnectionHandler that keeps what it hears."""

    def __init__(self) -> None:
        self.openings: list[IncomingOpen] = []
        self.requests: list[IncomingRequest] = []
        self.stopped = 0

    def connection_started(self, connection: Connection) -> None:
        """The test has it already."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Keep a channel open."""
        self.openings.append(opening)

    def global_requested(self, request: IncomingRequest) -> None:
        """Keep a global request."""
        self.requests.append(request)

    def connection_stopped(self) -> None:
        """Count the end of the connection."""
        self.stopped += 1


class Receiver:
    """A ChannelReceiver that keeps what it hears: (what, ...) tuples in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        """Keep the confirmation of an open."""
        self.heard.append(("opened", window, max_packet, extra))

    def refused(self, code: int, text: bytes) -> None:
        """Keep the refusal of an open."""
        self.heard.append(("refused", code, text))

    def received(self, message: int, body: bytes) -> None:
        """Keep a message of the channel."""
        self.heard.append((message, body))

    def lost(self) -> None:
        """Keep that the connection was lost."""
        self.heard.append(("lost",))


class Loop:
    """``left`` and ``right`` talk to each other; ``pump`` delivers until nobody has anything to say."""

    def __init__(self, left: ConnectionHandler, right: ConnectionHandler) -> None:
        self.left_wire, self.right_wire = Wire(), Wire()
        self.left, self.right = Connection(left), Connection(right)
        for connection, wire in ((self.left, self.left_wire), (self.right, self.right_wire)):
            connection.transport = wire
            connection.serviceStarted()

    def pump(self) -> None:
        """Deliver messages until none is left."""
        pairs = ((self.left_wire, self.right), (self.right_wire, self.left))
        while any(wire.sent for wire, _ in pairs):
            for wire, there in pairs:
                while wire.sent:
                    there.packetReceived(*wire.sent.popleft())


def request_body(name: bytes, want_reply: bool = False, extra: bytes = b"") -> bytes:
    """Return the body of a channel request."""
    return m.ChannelRequest(name=name, want_reply=want_reply, extra=extra).encode()
