"""A raw client with its logins and its tunnel, and a server's login; in memory or over TCP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.conch.ssh.service import SSHService
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from fuzz.channels import wire as w
from fuzz.limits import Broken

USERAUTH_REQUEST, USERAUTH_SUCCESS, USERAUTH_BANNER = 50, 52, 53
#: Of the tunnel: more than a case sends.
WINDOW = 1 << 31
Received = Callable[[int, bytes], None]


class Raw(SSHService):
    """The connection protocol, unparsed: ``received`` gets each message above 79."""

    name = b"ssh-connection"

    def __init__(self, received: Received, ended: Callable[[], None] = lambda: None) -> None:
        self.transport: Any = None
        self._received = received
        self._ended = ended
        self.on_start: Callable[[], None] = lambda: None

    def serviceStarted(self) -> None:
        """Begin (SSHService)."""
        self.on_start()

    def serviceStopped(self) -> None:
        """End (SSHService)."""
        self.transport = None
        self._ended()

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        self._received(messageNum, packet)

    def send(self, number: int, payload: bytes = b"") -> None:
        """Send a message, while the service runs."""
        if self.transport is not None:
            self.transport.sendPacket(number, payload)


def must_succeed(login: Login, number: int, payload: bytes) -> None:
    """``otherwise`` of a Login that has no reason to fail."""
    raise Broken(f"the login got {number}: {payload!r}")


class Login(SSHService):
    """The client's login: with ``key``, or by ``none`` without one. ``otherwise`` gets what is neither a
    success nor a banner."""

    name = b"ssh-userauth"

    def __init__(
        self,
        user: bytes,
        key: ed25519.Ed25519PrivateKey | None,
        then: Raw,
        otherwise: Callable[[Login, int, bytes], None] = must_succeed,
    ) -> None:
        self.transport: Any = None
        self._user, self._key, self._then, self._otherwise = user, key, then, otherwise

    def serviceStarted(self) -> None:
        """Send the login request (SSHService)."""
        request = w.text(self._user) + w.text(b"ssh-connection")
        if self._key is None:
            request += w.text(b"none")
        else:
            request += w.text(b"publickey") + b"\1" + w.text(b"ssh-ed25519") + w.text(public_blob(self._key))
            signed = w.text(self.transport.session_id) + bytes([USERAUTH_REQUEST]) + request
            signature = w.text(b"ssh-ed25519") + w.text(self._key.sign(signed))
            request += w.text(signature)
        self.transport.sendPacket(USERAUTH_REQUEST, request)

    def serviceStopped(self) -> None:
        """The connection service follows."""

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        if messageNum == USERAUTH_SUCCESS:
            self.transport.setService(self._then)
        elif messageNum != USERAUTH_BANNER:
            self._otherwise(self, messageNum, packet)

    def ask_questions(self) -> None:
        """Go on with keyboard-interactive (RFC 4256)."""
        request = w.text(self._user) + w.text(b"ssh-connection") + w.text(b"keyboard-interactive")
        self.transport.sendPacket(USERAUTH_REQUEST, request + w.text(b"") + w.text(b""))


class Welcome(SSHService):
    """The target's login: everybody may come in."""

    name = b"ssh-userauth"

    def __init__(self, then: Raw) -> None:
        self.transport: Any = None
        self._then = then

    def serviceStarted(self) -> None:
        """The client begins."""

    def serviceStopped(self) -> None:
        """The connection service follows."""

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        if messageNum == USERAUTH_REQUEST:
            self.transport.sendPacket(USERAUTH_SUCCESS, b"")
            self.transport.setService(self._then)


class Tunnel:
    """The channel of the outer connection as the transport of the inner one."""

    def __init__(self, outer: Raw) -> None:
        self._outer = outer
        self.protocol: Any = None
        self.channel: int | None = None
        self.window = 0
        self.packet = 0
        self._unsent = bytearray()
        self.closed = False
        #: The proxy's refusal: what follows the channel number in CHANNEL_OPEN_FAILURE.
        self.refused: bytes | None = None

    def open(self, host: str, port: int) -> None:
        """Ask the proxy for the way to this target."""
        extra = w.text(host.encode()) + w.u32(port) + w.text(b"") + w.u32(0)
        opening = w.text(b"direct-tcpip") + w.u32(0) + w.u32(WINDOW) + w.u32(1 << 15)
        self._outer.send(w.OPEN, opening + extra)

    def takes(self, number: int, payload: bytes) -> bool:
        """Handle a message of the outer connection; False where it is not for this channel."""
        is_ours = w.OPEN < number <= w.FAILURE and payload[:4] == w.u32(0)
        if is_ours and number == w.OPEN_FAILURE:
            self.refused = payload[4:]
        elif is_ours:
            self.received(number, payload)
        return is_ours

    def received(self, number: int, payload: bytes) -> None:
        """Handle a message of the channel that carries the inner connection."""
        if number == w.OPEN_CONFIRMATION:
            _, self.channel, self.window, self.packet = (int.from_bytes(payload[at : at + 4], "big")
                                                         for at in (0, 4, 8, 12))  # fmt: skip
            self.protocol.makeConnection(self)
        elif number == w.ADJUST:
            self.window += int.from_bytes(payload[4:8], "big")
            self._flush()
        elif number == w.DATA:
            self.protocol.dataReceived(payload[8:])
        elif number == w.CLOSE:
            self.closed = True
        elif number == w.OPEN_FAILURE:
            raise Broken(f"the proxy refused the tunnel: {payload!r}")

    def cut(self) -> None:
        """The connection that carries the channel is lost."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionDone()))

    def write(self, data: bytes) -> None:
        """Write bytes (ITransport)."""
        self._unsent += data
        self._flush()

    def _flush(self) -> None:
        while self._unsent and self.window and self.channel is not None:
            piece = bytes(self._unsent[: min(self.window, self.packet)])
            del self._unsent[: len(piece)]
            self.window -= len(piece)
            self._outer.send(w.DATA, w.u32(self.channel) + w.text(piece))

    def loseConnection(self) -> None:
        """Close when all is written (ITransport)."""
        self.closed = True

    abortConnection = loseConnection

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It is never full."""

    def unregisterProducer(self) -> None:
        """It is never full."""

    def pauseProducing(self) -> None:
        """The client reads on."""

    def resumeProducing(self) -> None:
        """The client reads on."""

    def getPeer(self) -> object:
        """Return the address of the peer (ITransport)."""
        return "proxy"

    def getHost(self) -> object:
        """Return the own address (ITransport)."""
        return "user"


def public_blob(key: ed25519.Ed25519PrivateKey) -> bytes:
    """The public key as it goes on the wire."""
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return w.text(b"ssh-ed25519") + w.text(raw)
