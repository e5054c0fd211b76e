"""A program that opens many recorded sessions in one process.

For each session it makes an outer connection to the proxy, an inner one through it, and on that a session
with a terminal and a shell, which then stays idle.

``python -m bench.light_client PROXY_PORT TARGET_PORT USER LOGIN KEY`` reads the number of sessions from
stdin, one number a line, and prints ``N open`` when there are that many and each has received its prompt. To
reduce the number it closes the oldest. At the end of its stdin it closes all sessions and ends.
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


class ClientHandler:
    """Answers channel opens and global requests, such as keepalives, as ssh does (a ConnectionHandler)."""

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
        """Do nothing: the login reports the end."""


class OuterChannel(Tunnel):
    """The outer channel that carries the inner connection; ``protocol`` starts when the channel is open."""

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
        reason = text.decode(errors="replace")
        self.open.errback(Failure(ConnectionLost(f"cannot open the channel to the target: {reason}")))


class Session:
    """A shell that receives no input (a StreamHandler)."""

    def __init__(self) -> None:
        self.prompt: Deferred[None] = Deferred()

    def stream_opened(self) -> None:
        """Do nothing: the requests are queued already."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """The peer has refused the channel."""
        self._fail(text.decode(errors="replace"))

    def stream_data(self, data: bytes) -> None:
        """Handle data of the channel."""
        if not self.prompt.called:
            self.prompt.callback(None)

    def stream_eof(self) -> None:
        """Do nothing: the close follows."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Answer a request on the channel."""
        return False

    def stream_drained(self, pending: int) -> None:
        """Do nothing: the session writes no data."""

    def stream_closed(self) -> None:
        """The channel is closed."""
        self._fail("it was closed")

    def _fail(self, reason: str) -> None:
        if not self.prompt.called:
            self.prompt.errback(Failure(ConnectionLost(f"no session: {reason}")))


class Users:
    """A number of sessions that can be changed."""

    def __init__(
        self, reactor: Any, *, proxy_port: int, target_port: int, user: str, login: str, key: Key
    ) -> None:
        self._reactor = reactor
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy_port)
        self._target_port = target_port
        self._user, self._login = user.encode(), login.encode()
        self._signer = KeySigner(key, label="key")
        self._gate = DeferredSemaphore(AT_ONCE)
        self._sessions: list[ClientTransport] = []
        """The outer connection of each session."""

    async def set_count(self, count: int) -> None:
        """Open or close sessions until there are ``count``."""
        excess = max(0, len(self._sessions) - count)
        oldest, self._sessions = self._sessions[:excess], self._sessions[excess:]
        for outer in oldest:
            outer.loseConnection()
        await gatherResults([outer.when_lost() for outer in oldest])
        missing = range(len(self._sessions), count)
        openings = [self._gate.run(lambda: Deferred.fromCoroutine(self._open_session())) for _ in missing]
        await gatherResults(openings, consumeErrors=True)

    async def _open_session(self) -> None:
        outer = self._transport()
        await connectProtocol(self._endpoint, outer)
        connection = await self._log_in(outer, self._user)
        inner = self._transport()
        channel = OuterChannel(self._reactor, inner)
        address = string(b"localhost") + uint32(self._target_port) + string(b"127.0.0.1") + uint32(0)
        channel.attach(Stream.open(connection, b"direct-tcpip", channel, address))
        await channel.open
        target = await self._log_in(inner, self._login)
        session = Session()
        stream = Stream.open(target, b"session", session)
        stream.request(b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b""))
        stream.request(b"shell")
        await session.prompt
        self._sessions.append(outer)

    def _transport(self) -> ClientTransport:
        return ClientTransport(
            algorithms=MODERN,
            powers=at_once,
            verify_host_key=lambda blob: None,
            host_key_algorithms=(b"ssh-ed25519",),
            identification=VERSION,
            clock=self._reactor,
        )

    async def _log_in(self, transport: ClientTransport, user: bytes) -> Connection:
        await transport.when_secure()
        handler = ClientHandler()
        signers: list[Signer] = [self._signer]
        login = UserAuthClient(
            user,
            lambda methods: succeed(signers.pop() if signers else None),
            Connection(handler),
            on_banner=lambda text: None,
            peer_extensions=lambda: transport.peer_extensions,
            host_key=lambda: transport.host_key_blob,
        )
        transport.request_service(login)
        await login.done
        return await handler.started


class CountReader(LineOnlyReceiver):
    """Reads the number of sessions from stdin."""

    delimiter = b"\n"

    def __init__(self, users: Users, stdin_end: Deferred[None]) -> None:
        self._users = users
        self._stdin_end = stdin_end

    def lineReceived(self, line: bytes) -> None:
        """Handle a line (LineReceiver)."""
        count = int(line)
        Deferred.fromCoroutine(self._users.set_count(count)).addCallbacks(
            lambda _: print(f"{count} open", flush=True), self._stdin_end.errback
        )

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is closed (Protocol)."""
        if not self._stdin_end.called:
            self._stdin_end.callback(None)


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
        stdin_end: Deferred[None] = Deferred()
        StandardIO(CountReader(users, stdin_end))
        return stdin_end

    react(start)


if __name__ == "__main__":
    main(*sys.argv[1:])
