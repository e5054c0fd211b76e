"""Conch's own services on our transports: a password login, a global request, and a channel."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.conch.avatar import ConchUser
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.transport import SSHTransportBase
from twisted.conch.ssh.userauth import SSHUserAuthClient, SSHUserAuthServer
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import succeed

from conchrec.ssh.transport import ClientTransport, ServerTransport
from tests.support.pair import Pair

PASSWORD = b"a password"


class Echo(SSHChannel):
    """A channel that returns the received data."""

    name = b"session"

    def dataReceived(self, data: bytes) -> None:
        self.write(data)  # type: ignore[no-untyped-call]


class Asker(SSHChannel):
    """A channel that sends a text when it opens, and keeps the answer."""

    name = b"session"
    text = b"x" * 100_000
    answer = b""

    def channelOpen(self, data: bytes) -> None:
        self.write(self.text)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        self.answer += data


class User(ConchUser):
    """The avatar of a user who has logged in at Conch's server."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channelLookup[b"session"] = Echo

    def global_greeting(self, data: bytes) -> tuple[int, bytes]:
        return 1, b"hello, " + data


class Realm:
    """Gives every user a User."""

    def requestAvatar(self, name: object, mind: object, *interfaces: object) -> tuple[Any, User, Any]:
        return interfaces[0], User(), lambda: None


class Login(SSHUserAuthClient):
    """Logs in by password after the key exchange."""

    def getPassword(self, prompt: bytes | None = None) -> Any:
        assert self.transport is not None
        assert self.transport.isEncrypted("out")
        return succeed(PASSWORD)

    def getPublicKey(self) -> None:
        """Return no key."""


class Requests(SSHConnection):
    """Sends a global request and opens a channel when it starts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.greetings: list[bytes] = []
        self.channel = Asker(conn=self)

    def serviceStarted(self) -> None:
        super().serviceStarted()  # type: ignore[no-untyped-call]
        request = self.sendGlobalRequest(b"greeting", b"joe", wantReply=1)  # type: ignore[no-untyped-call]
        request.addCallback(self.greetings.append)
        self.openChannel(self.channel)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("chunk", [0, 700])
def test_carries_services_of_conch(chunk: int) -> None:
    pair = Pair(chunk=chunk)
    factory: Any = SSHFactory()
    checker: Any = InMemoryUsernamePasswordDatabaseDontUse(joe=PASSWORD)
    factory.portal = Portal(Realm(), [checker])  # type: ignore[arg-type]
    pair.server.factory = factory
    login: Any = SSHUserAuthServer()
    login.clock = pair.clock
    pair.server_ear = login
    pair.pump()
    requests = Requests()
    pair.client.request_service(Login(b"joe", requests))
    pair.pump()
    assert (pair.server.lost, pair.client.lost) == (None, None)
    assert requests.greetings == [b"hello, joe"]
    assert requests.channel.answer == Asker.text
    pair.server.rekey()
    pair.pump()
    requests.channel.write(b"under new keys")  # type: ignore[no-untyped-call]
    pair.pump()
    assert requests.channel.answer == Asker.text + b"under new keys"
    assert pair.client.rekeys == 1


@pytest.mark.parametrize("ours", [ServerTransport, ClientTransport])
def test_inherits_nothing_from_transports_of_conch(ours: type) -> None:
    """So no message of a peer can reach a handler of Conch's transports."""
    assert not issubclass(ours, SSHTransportBase)
    assert [name for name in dir(ours) if name.startswith("ssh_")] == []
