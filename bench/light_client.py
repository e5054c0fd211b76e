"""Many users in one process, each with connections of its own: an outer one to the proxy, an inner one
through it, one session with a terminal and a shell on that, and then silence.

``python -m bench.light_client PROXY_PORT TARGET_PORT USER LOGIN KEY``: on stdin it is told how many sessions
there are to be, one number a line, and says ``N open`` when each of them has seen its prompt, or when those
that are too many have left, the oldest first. It ends with its stdin, and all of them with it.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.ssh import messages as m
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.signers import KeySigner, Signer
from conchrec.ssh.transport import ClientTransport
from conchrec.ssh.userauth_client import UserAuthClient
from conchrec.ssh.wire import string, uint32
from tests.support.powers import at_once

#: Sessions that are being opened at one time.
AT_ONCE = 16
VERSION = b"SSH-2.0-bench"


class Polite:
    """Answers what the proxy asks for, keepalives above all, as ssh does (a ConnectionHandler)."""

    def __init__(self) -> None:
        self.started: Deferred[Connection] = Deferred()

    def connection_started(self, connection: Connection) -> None:
        """The connection layer has started."""
        self.started.callback(connection)

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Answer a channel open of the peer."""
        opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, "no")

    def global_requested(self, request: IncomingRequest) -> None:
        """Answer a global request of the peer."""
        request.reply(False)

    def connection_stopped(self) -> None:
        """Whoever waits hears of it from the login."""


class Through(Tunnel):
    """The outer channel that the inner connection runs on; ``protocol`` begins when it is open."""

    def __init__(self, clock: Clock, protocol: ClientTransport) -> None:
        super().__init__(TurnScheduler(clock))
        self._inner: Any = protocol
        self.open: Deferred[None] = Deferred()

    def stream_opened(self) -> None:
        """The peer has opened the channel."""
        self.start(self._inner)
        self.open.callback(None)

    def stream_refused(self, code: int, text: bytes) -> None:
        """The peer has refused the channel."""
        self.open.errback(Failure(ConnectionLost(f"no way to the target: {text.decode(errors='replace')}")))


class Session:
    """A shell that nobody types at (a StreamHandler)."""

    def __init__(self) -> None:
        self.prompt: Deferred[None] = Deferred()

    def stream_opened(self) -> None:
        """What is asked for is queued already."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """The peer has refused the channel."""
        self._over(text.decode(errors="replace"))

    def stream_data(self, data: bytes) -> None:
        """Handle data of the channel."""
        if not self.prompt.called:
            self.prompt.callback(None)

    def stream_eof(self) -> None:
        """There is more to come: the end."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Answer a request on the channel."""
        return False

    def stream_drained(self, pending: int) -> None:
        """It writes nothing."""

    def stream_closed(self) -> None:
        """The channel is closed."""
        self._over("it was closed")

    def _over(self, why: str) -> None:
        if not self.prompt.called:
            self.prompt.errback(Failure(ConnectionLost(f"no session: {why}")))


class Users:
    """As many as they are told to be."""

    def __init__(
        self, reactor: Any, *, proxy_port: int, target_port: int, user: str, login: str, key: Key
    ) -> None:
        self._reactor = reactor
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy_port)
        self._target_port = target_port
        self._user, self._login = user.encode(), login.encode()
        self._signer = KeySigner(key, label="key")
        self._gate = DeferredSemaphore(AT_ONCE)
        self._there: list[ClientTransport] = []
        """The outer connection of each session."""

    async def become(self, count: int) -> None:
        """Let so many be there."""
        excess = max(0, len(self._there) - count)
        leaving, self._there = self._there[:excess], self._there[excess:]
        for outer in leaving:
            outer.loseConnection()
        await gatherResults([outer.when_lost() for outer in leaving])
        missing = range(len(self._there), count)
        coming = [self._gate.run(lambda: Deferred.fromCoroutine(self._come())) for _ in missing]
        await gatherResults(coming, consumeErrors=True)

    async def _come(self) -> None:
        outer = self._transport()
        await connectProtocol(self._endpoint, outer)
        connection = await self._logged_in(outer, self._user)
        inner = self._transport()
        through = Through(self._reactor, inner)
        where = string(b"localhost") + uint32(self._target_port) + string(b"127.0.0.1") + uint32(0)
        through.attach(Stream.open(connection, b"direct-tcpip", through, where))
        await through.open
        target = await self._logged_in(inner, self._login)
        session = Session()
        stream = Stream.open(target, b"session", session)
        stream.request(b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b""))
        stream.request(b"shell")
        await session.prompt
        self._there.append(outer)

    def _transport(self) -> ClientTransport:
        return ClientTransport(
            algorithms=MODERN,
            powers=at_once,
            verify_host_key=lambda blob: None,
            host_key_algorithms=(b"ssh-ed25519",),
            identification=VERSION,
            clock=self._reactor,
        )

    async def _logged_in(self, transport: ClientTransport, user: bytes) -> Connection:
        await transport.when_secure()
        handler = Polite()
        mine: list[Signer] = [self._signer]
        login = UserAuthClient(
            user,
            lambda methods: succeed(mine.pop() if mine else None),
            Connection(handler),
            on_banner=lambda text: None,
            peer_extensions=lambda: transport.peer_extensions,
            host_key=lambda: transport.host_key_blob,
        )
        transport.request_service(login)
        await login.done
        return await handler.started


class Orders(LineOnlyReceiver):
    """What is read from stdin."""

    delimiter = b"\n"

    def __init__(self, users: Users, over: Deferred[None]) -> None:
        self._users = users
        self._over = over

    def lineReceived(self, line: bytes) -> None:
        """Handle a line (LineReceiver)."""
        count = int(line)
        Deferred.fromCoroutine(self._users.become(count)).addCallbacks(
            lambda _: print(f"{count} open", flush=True), self._over.errback
        )

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is closed (Protocol)."""
        if not self._over.called:
            self._over.callback(None)


def main(proxy_port: str, target_port: str, user: str, login: str, key: str) -> None:
    """Run the program with these arguments."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def start(reactor: Any) -> Deferred[None]:
        users = Users(
            reactor,
            proxy_port=int(proxy_port),
            target_port=int(target_port),
            user=user,
            login=login,
            key=Key.fromFile(key),
        )
        over: Deferred[None] = Deferred()
        StandardIO(Orders(users, over))
        return over

    react(start)


if __name__ == "__main__":
    main(*sys.argv[1:])
