"""Our two transports joined in memory: bytes go over in pieces of any size, and nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.conch.ssh.service import SSHService
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from conchrec.ssh.algorithms import COMPATIBLE, Algorithms
from conchrec.ssh.kex_methods import ModularPowers, SntrupKeyPairs
from conchrec.ssh.numbers import USERAUTH_SUCCESS
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.transport import ClientTransport, HostKeys, ServerTransport
from tests.support.powers import KeyPairsAtOnce, at_once

HOST_KEY = ServerHostKeys(ed25519.Ed25519PrivateKey.generate(), None)
SERVER_VERSION = b"SSH-2.0-server of the tests"
CLIENT_VERSION = b"SSH-2.0-client of the tests"
KEY_PAIRS = KeyPairsAtOnce()


class Ear(SSHService):
    """A service that keeps what it hears."""

    def __init__(self, name: bytes = b"ssh-userauth") -> None:
        self.name = name
        self.heard: list[tuple[int, bytes]] = []
        self.started = 0
        self.stopped = 0
        self.on_packet: Callable[[int, bytes], None] = lambda number, payload: None

    def serviceStarted(self) -> None:
        """Begin (SSHService)."""
        self.started += 1

    def serviceStopped(self) -> None:
        """End (SSHService)."""
        self.stopped += 1

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        self.heard.append((messageNum, packet))
        self.on_packet(messageNum, packet)


class Line:
    """One end's socket. ``unsent`` is what nobody has delivered yet; ``stuck``: it is never empty."""

    def __init__(self) -> None:
        self.unsent = bytearray()
        self.closing = False
        self.aborted = False
        self.stuck = False
        self.producer: Any = None
        #: This end takes nothing from the peer.
        self.paused = False

    def pauseProducing(self) -> None:
        """Stop until ``resumeProducing`` (IPushProducer)."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Go on (IPushProducer)."""
        self.paused = False

    def write(self, data: bytes) -> None:
        """Write bytes (ITransport)."""
        assert isinstance(data, bytes)
        if not self.closing:
            self.unsent += data

    def loseConnection(self) -> None:
        """Close when all is written (ITransport)."""
        self.closing = True

    def abortConnection(self) -> None:
        """Close at once (ITransport)."""
        self.closing = self.aborted = True
        self.unsent.clear()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Remember the producer (ITransport)."""
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer (ITransport)."""
        self.producer = None

    def getPeer(self) -> str:
        """Return the address of the peer (ITransport)."""
        return "peer"

    def getHost(self) -> str:
        """Return the own address (ITransport)."""
        return "host"


class Pair:
    """A server and a client. ``chunk``: how many bytes are delivered at a time, 0 for all there are."""

    def __init__(
        self,
        *,
        algorithms: Algorithms = COMPATIBLE,
        server_algorithms: Algorithms | None = None,
        host_keys: HostKeys = HOST_KEY,
        host_key_algorithms: tuple[bytes, ...] = (b"ssh-ed25519",),
        verify_host_key: Callable[[bytes], None] = lambda blob: None,
        chunk: int = 0,
        server_rekey_bytes: int = 1 << 30,
        client_rekey_bytes: int = 1 << 30,
        early_packet: int | None = None,
        client_version: bytes | None = CLIENT_VERSION,
        server_type: type[ServerTransport] = ServerTransport,
        client_type: type[ClientTransport] = ClientTransport,
        server_powers: ModularPowers = at_once,
        client_powers: ModularPowers = at_once,
        client_key_pairs: SntrupKeyPairs | None = KEY_PAIRS,
        connect: bool = True,
    ) -> None:
        self.chunk = chunk
        self.clock = Clock()
        self.server_ear, self.client_ear = Ear(), Ear()
        #: Makes the service that the server starts when the client requests the login.
        self.make_userauth: Callable[[], SSHService] = lambda: self.server_ear
        self.server = server_type(
            identification=SERVER_VERSION,
            host_keys=host_keys,
            algorithms=server_algorithms or algorithms,
            powers=server_powers,
            userauth=lambda: self.make_userauth(),
            clock=self.clock,
            handshake_time=timedelta(seconds=30),
            rekey_bytes=server_rekey_bytes,
            early_packet=early_packet,
        )
        self.client = client_type(
            algorithms=algorithms,
            powers=client_powers,
            key_pairs=client_key_pairs,
            verify_host_key=verify_host_key,
            host_key_algorithms=host_key_algorithms,
            identification=client_version,
            clock=self.clock,
            rekey_bytes=client_rekey_bytes,
        )
        self.server_line, self.client_line = Line(), Line()
        if connect:
            self.connect()

    def connect(self) -> None:
        """Connect the two transports."""
        self.server.makeConnection(self.server_line)  # type: ignore[no-untyped-call]
        self.client.makeConnection(self.client_line)  # type: ignore[no-untyped-call]

    def pump(self, rounds: int = 1_000_000) -> None:
        """Deliver until nobody has anything to say; who has closed is gone when it has said all."""
        directions: tuple[tuple[Line, Line, Any], ...] = (
            (self.client_line, self.server_line, self.server),
            (self.server_line, self.client_line, self.client),
        )
        for _ in range(rounds):
            moved = False
            for line, reader, there in directions:
                if line.unsent and not line.stuck and not reader.paused:
                    moved = True
                    piece = bytes(line.unsent[: self.chunk or None])
                    del line.unsent[: len(piece)]
                    there.dataReceived(piece)
            for line in (self.client_line, self.server_line):
                if line.closing and not line.unsent:
                    self.cut()
                    return
            if not moved:
                return

    def cut(self) -> None:
        """The connection is gone, and the turn is over."""
        for end in (self.client, self.server):
            end.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0)

    def secure(self) -> Pair:
        """Through the key exchange, and with a service at both ends."""
        self.pump()
        self.client.request_service(self.client_ear)
        self.pump()
        assert self.server_ear.started == self.client_ear.started == 1, (self.server.lost, self.client.lost)
        return self

    def log_in(self) -> Pair:
        """Through the key exchange and the login, with a service at both ends."""
        if not self.server_ear.started:
            self.secure()
        self.server.sendPacket(USERAUTH_SUCCESS, b"")
        self.pump()
        self.client_ear.heard.clear()
        return self

    def rounds(self, count: int) -> None:
        """Let ``count`` deliveries happen in each direction."""
        self.pump(rounds=count)
