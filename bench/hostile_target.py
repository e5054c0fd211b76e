"""A target that accepts every login and then floods the client.

``python -m bench.hostile_target HOST_KEY FLOOD=PORT …``, on 127.0.0.1; a FLOOD is one of ``FLOODS``. When one
begins, the program prints ``begins FLOOD``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from twisted.conch.ssh.service import SSHService
from twisted.internet.protocol import Factory

from bench.hostile_plan import Sent
from bench.hostile_user import Pour
from conchrec.proxy.agents import AGENT_CHANNEL
from conchrec.ssh import messages as m
from conchrec.ssh import numbers as a
from conchrec.ssh import userauth as u
from conchrec.ssh.agent_messages import REQUEST_IDENTITIES, encode_message, frame
from conchrec.ssh.algorithms import COMPATIBLE, Algorithms
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.kex_table import ExchangePhase
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.transport import ServerTransport
from conchrec.ssh.wire import Reader, names, string, uint32
from tests.support.powers import at_once

VERSION = b"SSH-2.0-hostile"
BATCH = 256
#: Seconds between two checks whether the key exchange is complete.
REKEY_PAUSE = 0.0005
#: Requests that agents refuse (5 bytes each) in one write to an agent's channel.
AGENT_REQUESTS = 6000
#: Agent channels that a target opens at one time.
AGENTS = 8


class AnyKeyLogin(SSHService):
    """Accepts the first key (RFC 4252 section 7)."""

    name = b"ssh-userauth"
    transport: Any

    def __init__(self, connection: Callable[[], Connection]) -> None:
        self._connection = connection

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle a message of this service (SSHService)."""
        if messageNum != u.REQUEST:
            return
        r = Reader(packet)
        r.string()
        r.string()
        if r.string() not in (u.PUBLICKEY, u.HOSTBOUND):
            self.transport.sendPacket(u.FAILURE, names((u.PUBLICKEY,)) + b"\0")
        elif r.boolean():
            self.transport.sendPacket(u.SUCCESS, b"")
            self.transport.setService(self._connection())
        else:
            self.transport.sendPacket(u.PK_OK, string(r.string()) + string(r.string()))


class Hostile:
    """One connection (a ConnectionHandler, and the StreamHandler of its sessions)."""

    def __init__(self, reactor: Any, host_keys: ServerHostKeys, flood: str) -> None:
        self._reactor = reactor
        self._flood = flood
        self.transport = ServerTransport(
            identification=VERSION,
            host_keys=host_keys,
            algorithms=ALGORITHMS.get(flood, COMPATIBLE),
            userauth=lambda: AnyKeyLogin(lambda: Connection(self)),
            clock=reactor,
            powers=at_once,
        )

    def connection_started(self, connection: Connection) -> None:
        """Do nothing: the flood begins with a session."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Answer a channel open of the peer."""
        self._connection = opening.channel.connection
        self.number = uint32(opening.request.sender)
        Stream.accept(opening, self)

    def global_requested(self, request: IncomingRequest) -> None:
        """Answer a global request of the peer."""
        request.reply(False)

    def connection_stopped(self) -> None:
        """Do nothing: the flood ends with its transport."""

    def stream_opened(self) -> None:
        """Do nothing: the peer opens the channels."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """Do nothing: the peer opens the channels."""

    def stream_data(self, data: bytes) -> None:
        """Ignore the data."""

    def stream_eof(self) -> None:
        """Do nothing: the flood continues."""

    def stream_drained(self, pending: int) -> None:
        """Do nothing: no data is written to the stream."""

    def stream_closed(self) -> None:
        """Do nothing: the flood continues."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Answer a request on the channel."""
        if request.name in (b"exec", b"shell"):
            self._reactor.callLater(0.1, self._begin)
        return True

    def _begin(self) -> None:
        print(f"begins {self._flood}", flush=True)
        if self._flood.startswith("rekeys"):
            self._rekey()
            return
        if self._flood.startswith("agent"):
            for _ in range(AGENTS):
                _Agent(self._reactor, self._connection, self._flood)
            return
        number, payload = self._message()

        def batch() -> int:
            for _ in range(BATCH):
                self.transport.sendPacket(number, payload)
            return BATCH

        Pour(self._reactor, self.transport, batch, Sent())  # type: ignore[arg-type]

    def _message(self) -> tuple[int, bytes]:
        return {
            "ignore": (a.IGNORE, string(b"")),
            "requests": (m.GLOBAL_REQUEST, string(b"nonsense@example.com") + b"\1"),
            "opens": (m.CHANNEL_OPEN, string(b"forwarded-tcpip") + uint32(0) + uint32(1000) * 2),
            "adjust": (m.CHANNEL_WINDOW_ADJUST, self.number + uint32(1)),
            "data": (m.CHANNEL_DATA, self.number + string(b"")),
        }[self._flood]

    def _rekey(self) -> None:
        if self.transport.lost is None:
            if self.transport.kex.phase is ExchangePhase.IDLE:
                self.transport.rekey()
            self._reactor.callLater(REKEY_PAUSE, self._rekey)


class _Agent:
    """A channel to the user's agent that sends requests without an end (a StreamHandler).

    When it is closed, it is opened again.
    """

    def __init__(self, reactor: Any, connection: Connection, flood: str) -> None:
        self._reactor = reactor
        self._connection = connection
        self._flood = flood
        self._stream = Stream.open(connection, AGENT_CHANNEL, self)

    def stream_opened(self) -> None:
        if self._flood == "agent-refused":
            self._stream.write(frame(b"\x01") * AGENT_REQUESTS)
        self._list_keys()

    def _list_keys(self) -> None:
        self._stream.write(frame(encode_message(REQUEST_IDENTITIES)))

    def stream_data(self, data: bytes) -> None:
        self._list_keys()

    def stream_eof(self) -> None:
        """Do nothing: the close follows."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        return False

    def stream_drained(self, pending: int) -> None:
        """Do nothing: requests are small."""

    def stream_refused(self, code: int, text: bytes) -> None:
        self.stream_closed()

    def stream_closed(self) -> None:
        if not self._connection.stopped:
            self._reactor.callLater(REKEY_PAUSE, _Agent, self._reactor, self._connection, self._flood)


ALGORITHMS: dict[str, Algorithms] = {
    "rekeys-group16": replace(COMPATIBLE, kex=(b"diffie-hellman-group16-sha512",)),
}
FLOODS = (
    "rekeys",
    "rekeys-group16",
    "ignore",
    "requests",
    "opens",
    "adjust",
    "data",
    "agent",
    "agent-refused",
)


class Targets(Factory):
    """Makes a Hostile for each connection."""

    noisy = False

    def __init__(self, reactor: Any, host_keys: ServerHostKeys, flood: str) -> None:
        self._reactor = reactor
        self._host_keys = host_keys
        self._flood = flood

    def buildProtocol(self, addr: object) -> Any:
        """Return the protocol of a new connection (IProtocolFactory)."""
        return Hostile(self._reactor, self._host_keys, self._flood).transport


def main(host_key: str, *addresses: str) -> None:
    """Run the program with these arguments."""
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    private = load_ssh_private_key(Path(host_key).read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    keys = ServerHostKeys(private, None)
    for address in addresses:
        flood, _, port = address.partition("=")
        reactor.listenTCP(int(port), Targets(reactor, keys, flood), interface="127.0.0.1")
    print("listening", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
