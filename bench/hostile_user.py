"""A user who floods: an outer connection, and for some floods an inner one to a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.python.failure import Failure

from bench.hostile_plan import SOURCE, Plan, Sent
from bench.light_client import VERSION, ClientHandler, OuterChannel
from conchrec.proxy.agents import AGENT_CHANNEL
from conchrec.ssh import agent_messages as a
from conchrec.ssh import messages as m
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.channel_stream import MAX_PACKET, Stream
from conchrec.ssh.connection import Connection, IncomingOpen
from conchrec.ssh.signers import KeySigner, Signer
from conchrec.ssh.transport import ClientTransport
from conchrec.ssh.userauth_client import UserAuthClient
from conchrec.ssh.wire import string, uint32
from tests.support.powers import at_once

#: Messages of one batch.
BATCH = 256


class Session:
    """A session that reads all data and sends none (a StreamHandler)."""

    def __init__(self) -> None:
        self.open: Deferred[None] = Deferred()
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_closed: Callable[[], None] = lambda: None

    def stream_opened(self) -> None:
        """The peer has opened the channel."""
        self.open.callback(None)

    def stream_refused(self, code: int, text: bytes) -> None:
        """The peer has refused the channel."""
        self.open.errback(Failure(ConnectionError(text.decode(errors="replace"))))

    def stream_data(self, data: bytes) -> None:
        """Handle data of the channel."""
        self.on_data(data)

    def stream_eof(self) -> None:
        """Do nothing: the close follows."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Answer a request on the channel."""
        return False

    def stream_drained(self, pending: int) -> None:
        """Do nothing: the flood limits what it writes."""

    def stream_closed(self) -> None:
        """The channel is closed."""
        self.on_closed()


class AgentOwner(ClientHandler):
    """The handler of a user who has an agent without keys."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Answer a channel open of the peer."""
        if opening.request.kind == AGENT_CHANNEL:
            user = _Agent()
            user.stream = Stream.accept(opening, user)
        else:
            super().channel_requested(opening)


class _Agent(Session):
    """An agent that accepts all bindings and has no keys (draft-ietf-sshm-ssh-agent)."""

    stream: Stream

    def __init__(self) -> None:
        super().__init__()
        self._frames = a.AgentFrames()

    def stream_data(self, data: bytes) -> None:
        self._frames.feed(data)
        while (request := self._frames.next_message()) is not None:
            is_list = request[0] == a.REQUEST_IDENTITIES
            self.stream.write(a.frame(a.identities_answer(()) if is_list else a.encode_message(a.SUCCESS)))


class Pour:
    """Sends batches whenever the connection accepts data (IPushProducer)."""

    def __init__(
        self, reactor: Any, transport: ClientTransport, batch: Callable[[], int], sent: Sent
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._batch = batch
        self._sent = sent
        self._paused = False
        self._scheduled = False
        transport.registerProducer(self, True)
        self._again()

    def _again(self) -> None:
        if not self._scheduled and not self._paused and self._transport.lost is None:
            self._scheduled = True
            self._reactor.callLater(0, self._pour)

    def _pour(self) -> None:
        self._scheduled = False
        for _ in range(16):
            if self._paused or self._transport.lost is not None:
                return
            self._sent.add(self._batch())
        self._again()

    def pauseProducing(self) -> None:
        """Stop until ``resumeProducing`` (IPushProducer)."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Continue (IPushProducer)."""
        self._paused = False
        self._again()

    def stopProducing(self) -> None:
        """Stop (IPushProducer)."""
        self._paused = True


class User:
    """One outer connection, and for some floods an inner one to the target."""

    def __init__(self, reactor: Any, plan: Plan, sent: Sent) -> None:
        self.reactor = reactor
        self.plan = plan
        self.sent = sent
        self._signer = KeySigner(Key.fromFile(plan.key), label="key")
        self.algorithms = MODERN
        self.outer: ClientTransport
        self.connection: Connection

    def transport(self) -> ClientTransport:
        """Return a transport with the algorithms of this user."""
        return ClientTransport(
            algorithms=self.algorithms,
            powers=at_once,
            verify_host_key=lambda blob: None,
            host_key_algorithms=(b"ssh-ed25519",),
            identification=VERSION,
            clock=self.reactor,
        )

    async def secure(self) -> ClientTransport:
        """Return an outer connection after the key exchange and before the login."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.plan.port, bindAddress=(SOURCE, 0))
        transport = self.transport()
        await connectProtocol(endpoint, transport)
        await transport.when_secure()
        return transport

    async def log_in(self) -> None:
        """Log in at the proxy."""
        self.outer = await self.secure()
        self.outer.when_lost().addCallback(lambda lost: print("lost", flush=True))
        self.connection = await self._log_in(self.outer, self.plan.user)

    async def inner(self, max_packet: int = MAX_PACKET) -> tuple[ClientTransport, Connection]:
        """Return a connection to the target. ``max_packet`` is that of the channel that carries it."""
        inner = self.transport()
        channel = OuterChannel(self.reactor, inner)
        address = string(b"localhost") + uint32(self.plan.target_port) + string(b"127.0.0.1") + uint32(0)
        stream = Stream.open(self.connection, b"direct-tcpip", channel, address, max_packet=max_packet)
        channel.attach(stream)
        await channel.open
        return inner, await self._log_in(inner, self.plan.login)

    async def _log_in(self, transport: ClientTransport, user: str) -> Connection:
        await transport.when_secure()
        handler = AgentOwner()
        signers: list[Signer] = [self._signer]
        login = UserAuthClient(
            user.encode(),
            lambda methods: succeed(signers.pop() if signers else None),
            Connection(handler),
            on_banner=lambda text: None,
            peer_extensions=lambda: transport.peer_extensions,
            host_key=lambda: transport.host_key_blob,
        )
        transport.request_service(login)
        await login.done
        return await handler.started

    def pour(self, transport: ClientTransport, batch: Callable[[], int]) -> None:
        """Send batches as fast as the transport accepts them."""
        Pour(self.reactor, transport, batch, self.sent)

    def repeat(self, transport: ClientTransport, number: int, payload: bytes) -> None:
        """Send the same message without an end."""

        def batch() -> int:
            for _ in range(BATCH):
                transport.sendPacket(number, payload)
            return BATCH

        self.pour(transport, batch)
