"""The user's SSH agents: the one of the outer connection and the one of the inner connection.

The user's client opens its agent as often as the proxy requests it. Each connection to a target gets its own
agent channel, because an agent binds a channel to one connection (``session-bind@openssh.com``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.agent import AgentClient, AgentError, AgentKeyManager
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.certificate import Certificate, decode
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import Connection

AGENT_CHANNEL = b"auth-agent@openssh.com"
ANSWER_SECONDS = 60.0
"""How long an agent may take to open and to answer: it may ask the user for a confirmation."""

_Client = TypeVar("_Client", bound=AgentClient)
#: Makes a client from two functions: one that writes to the channel, one that closes it.
_Kind = Callable[[Callable[[bytes], None], Callable[[], None]], _Client]


def issued_certificate(identity: AgentIdentity, authorities: Collection[bytes]) -> Certificate | None:
    """The certificate in an agent, if one of our ``authorities`` (wire blobs) has signed it."""
    if not identity.is_certificate:
        return None
    try:
        certificate = decode(identity.blob)
    except RemoteViolation:
        return None
    return certificate if certificate.authority in authorities else None


class AgentSource:
    """The agent of one connection of the user. ``path`` is ``outer`` or ``inner``.

    ``announced`` says that the client has requested agent forwarding. If the proxy opens an agent that was
    not announced, and forwarding is off, OpenSSH's client prints a warning.
    """

    __slots__ = (
        "announced", "connection", "path", "refused",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        self.path = path
        self.announced = False
        #: The client refused to open it; it would refuse again.
        self.refused = False
        self.connection: Connection | None = None

    def open(self) -> Deferred[AgentClient]:
        """Open a new channel to the agent. Fails with AgentError where the client refuses."""
        return self._open(AgentClient)

    def open_key_manager(self) -> Deferred[AgentKeyManager]:
        """Open a channel that may also add and remove keys: only for a command of the user."""
        return self._open(AgentKeyManager)

    def _open(self, kind: _Kind[_Client]) -> Deferred[_Client]:
        connection = self.connection
        if connection is None or connection.stopped:
            failed: Deferred[_Client] = Deferred()
            failed.errback(
                AgentError("the connection that forwards your agent is closed", code=ReasonCode.AGENT_GONE)
            )
            return failed
        return _AgentChannel(self, connection, kind).opened


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAgents:
    """The agents of one user at one target."""

    outer: AgentSource
    inner: AgentSource = field(default_factory=lambda: AgentSource("inner"))


class _AgentChannel(Generic[_Client]):
    """A stream whose reader is an AgentClient."""

    def __init__(
        self,
        source: AgentSource,
        connection: Connection,
        kind: _Kind[_Client],
    ) -> None:
        self._source = source
        self.opened: Deferred[_Client] = Deferred(lambda _: self._cancel())
        self._fired = False
        self._stream = Stream.open(connection, AGENT_CHANNEL, self)
        self._client = kind(self._stream.write, self._stream.close)

    def _cancel(self) -> None:
        self._fired = True

    def stream_opened(self) -> None:
        if self._fired:
            self._stream.close()
            return
        self._fired = True
        self.opened.callback(self._client)

    def stream_refused(self, code: int, text: bytes) -> None:
        self._source.refused = True
        self._fail("your SSH client refused to open your agent. Is the agent running (ssh-add -l)?")

    def stream_data(self, data: bytes) -> None:
        self._client.data_received(data)

    def stream_eof(self) -> None:
        self._client.close()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        return False

    def stream_drained(self, pending: int) -> None:
        """Nothing waits for this: requests to an agent are small."""

    def stream_closed(self) -> None:
        self._client.connection_lost()
        self._fail("your SSH client closed the connection to your agent")

    def _fail(self, reason: str) -> None:
        if not self._fired:
            self._fired = True
            self.opened.errback(AgentError(reason, code=ReasonCode.AGENT_GONE))
