"""Complete sessions over real transports, delivered in pieces of 1 and 3 bytes.

Each receiver must get the same messages in the same order as in one delivery.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, succeed

from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.ssh import messages as m
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import Channel, Connection
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.signers import Signer
from conchrec.ssh.userauth_client import Login, UserAuthClient
from conchrec.ssh.userauth_server import UserAuthServer
from conchrec.ssh.wire import string, uint32
from tests.proxy.relay.test_relay import Watcher
from tests.support.logins import Porter, signer
from tests.support.loop import Handler, Receiver, request_body
from tests.support.now import Now
from tests.support.pair import Pair

FAST = replace(MODERN, kex=(b"curve25519-sha256",))
CHUNKS = (1, 3)
TEXT = bytes(range(256)) * 3


class LoggedIn:
    """Two joined transports with a login by key and a connection. ``pair`` delivers the bytes."""

    def __init__(self, pair: Pair, pump: Callable[[], object] | None = None) -> None:
        self.pair = pair
        self._pump = pump or pair.pump
        self.server_handler, self.client_handler = Handler(), Handler()
        self.server = Connection(self.server_handler)
        self.client = Connection(self.client_handler)
        self.banners: list[bytes] = []
        self.logins: list[Login] = []
        pair.make_userauth = self._userauth
        self._key = signer()

    def _userauth(self) -> SSHService:
        return UserAuthServer(
            Porter({"joe": (self._key.blob,)}),
            connection=lambda identity: self.server,
            clock=self.pair.clock,
            banner="hello",
            host_key=lambda: self.pair.server.host_key_blob,
        )

    def begin(self) -> LoggedIn:
        client = self.pair.client
        keys: list[Signer] = [self._key, signer(number=1)]
        login = UserAuthClient(
            b"joe",
            lambda methods: succeed(keys.pop() if keys else None),
            self.client,
            on_banner=self.banners.append,
            peer_extensions=lambda: client.peer_extensions,
            host_key=lambda: client.host_key_blob,
        )
        login.done.addCallback(self.logins.append)
        self._pump()
        client.request_service(login)
        self._pump()
        assert [event.steps for event in self.logins] == [(b"publickey",)], (
            client.lost,
            self.pair.server.lost,
        )
        assert self.banners == [b"hello\n"]
        return self


def events_of(user: Receiver, target: Receiver) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return list(user.heard), list(target.heard)


def user_says(channel: Channel) -> None:
    """Send the messages of a client in a session."""
    channel.send(m.CHANNEL_REQUEST, request_body(b"env", False, string(b"LANG") + string(b"C")))
    channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"cat")))
    channel.send(m.CHANNEL_DATA, string(TEXT))
    channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(1000))
    channel.send(m.CHANNEL_DATA, string(b""))
    channel.send(m.CHANNEL_EOF)


def target_says(channel: Channel) -> None:
    """Send the messages of a server in a session."""
    channel.send(m.CHANNEL_SUCCESS)
    for at in range(0, len(TEXT), 100):
        channel.send(m.CHANNEL_DATA, string(TEXT[at : at + 100]))
        channel.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + string(b"%d" % at))
    channel.send(m.CHANNEL_REQUEST, m.exit_status(7))
    channel.send(m.CHANNEL_EOF)
    channel.send(m.CHANNEL_CLOSE)


USER_HEARS = [
    ("opened", 3000, 1000, b""),
    (m.CHANNEL_SUCCESS, b""),
    *(
        heard
        for at in range(0, len(TEXT), 100)
        for heard in (
            (m.CHANNEL_DATA, string(TEXT[at : at + 100])),
            (m.CHANNEL_EXTENDED_DATA, uint32(1) + string(b"%d" % at)),
        )
    ),
    (m.CHANNEL_REQUEST, m.exit_status(7)),
    (m.CHANNEL_EOF, b""),
    (m.CHANNEL_CLOSE, b""),
]
TARGET_HEARS = [
    (m.CHANNEL_REQUEST, request_body(b"env", False, string(b"LANG") + string(b"C"))),
    (m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"cat"))),
    (m.CHANNEL_DATA, string(TEXT)),
    (m.CHANNEL_WINDOW_ADJUST, uint32(1000)),
    (m.CHANNEL_DATA, string(b"")),
    (m.CHANNEL_EOF, b""),
    (m.CHANNEL_CLOSE, b""),
]
#: The same through a relay: window comes with the answer to the start, input waits for that, and data without
#: bytes is left out.
RELAYED_USER_HEARS = [
    ("opened", 0, 1000, b""),
    (m.CHANNEL_SUCCESS, b""),
    (m.CHANNEL_WINDOW_ADJUST, uint32(3000)),
    *USER_HEARS[2:],
]
RELAYED_TARGET_HEARS = [
    *TARGET_HEARS[:2],
    (m.CHANNEL_WINDOW_ADJUST, uint32(1000)),
    (m.CHANNEL_DATA, string(TEXT)),
    *TARGET_HEARS[-2:],
]


def session(both: LoggedIn, pump: Callable[[], object], *, rekey: bool = False) -> None:
    """Run a session of the client from open to close, with data in both directions at once."""
    user, target = Receiver(), Receiver()
    channel = both.client.open(b"session", user, window=2000, max_packet=1000)
    pump()
    both.server_handler.openings[-1].confirm(target, 3000, 1000)
    pump()
    if rekey:
        both.pair.server.rekey()
        both.pair.client.rekey()
    user_says(channel)
    target_says(both.server_handler.openings[-1].channel)
    pump()
    channel.send(m.CHANNEL_CLOSE)
    pump()
    assert events_of(user, target) == (USER_HEARS, TARGET_HEARS)
    assert both.client.channel_count == both.server.channel_count == 0


# --- one connection


@pytest.mark.parametrize("rekey", [False, True])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_session_in_pieces_of_any_size(chunk: int, rekey: bool) -> None:
    pair = Pair(algorithms=FAST, chunk=chunk)
    session(LoggedIn(pair).begin(), pair.pump, rekey=rekey)
    assert (pair.client.rekeys, pair.server.rekeys) == (int(rekey), int(rekey))


@pytest.mark.parametrize("cipher", MODERN.ciphers)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_session_under_each_cipher(chunk: int, cipher: bytes) -> None:
    pair = Pair(algorithms=replace(FAST, ciphers=(cipher,)), chunk=chunk)
    session(LoggedIn(pair).begin(), pair.pump)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_compressed_session(chunk: int) -> None:
    pair = Pair(algorithms=replace(FAST, compressions=(b"zlib@openssh.com",)), chunk=chunk)
    session(LoggedIn(pair).begin(), pair.pump, rekey=True)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_keeps_order_of_requests_and_refusals(chunk: int) -> None:
    """Both sides send requests at once; they are answered in another order."""
    pair = Pair(algorithms=FAST, chunk=chunk)
    both = LoggedIn(pair).begin()
    replies: list[tuple[str, int, bool, bytes]] = []

    def ask(side: str, connection: Connection, number: int) -> None:
        def replied(success: bool, extra: bytes) -> None:
            replies.append((side, number, success, extra))

        connection.request(b"tcpip-forward", uint32(number), replied)

    receivers = [Receiver() for _ in range(3)]
    for number in range(3):
        ask("client", both.client, number)
        ask("server", both.server, number)
        both.client.open(b"x%d" % number, receivers[number], window=1, max_packet=1)
    pair.pump()
    for handler in (both.server_handler, both.client_handler):
        for request in reversed(handler.requests):
            request.reply(request.extra != uint32(1), request.extra)
    for opening in reversed(both.server_handler.openings):
        opening.refuse(m.CONNECT_FAILED, opening.channel.kind.decode())
    pair.pump()
    for side in ("client", "server"):
        assert [reply[1:] for reply in replies if reply[0] == side] == [
            (0, True, uint32(0)),
            (1, False, b""),
            (2, True, uint32(2)),
        ]
    refused = [("refused", m.CONNECT_FAILED, b"x%d" % number) for number in range(3)]
    assert [receiver.heard for receiver in receivers] == [[event] for event in refused]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_last_data_before_disconnect(chunk: int) -> None:
    """The session ends, then the connection: no data is lost, and nothing follows."""
    pair = Pair(algorithms=FAST, chunk=chunk)
    both = LoggedIn(pair).begin()
    user, target = Receiver(), Receiver()
    both.client.open(b"session", user, window=2000, max_packet=1000)
    pair.pump()
    both.server_handler.openings[-1].confirm(target, 3000, 1000)
    target_says(both.server_handler.openings[-1].channel)
    both.server.disconnect("the end")
    pair.pump()
    assert user.heard == [*USER_HEARS, ("lost",)]
    assert pair.client.lost is not None
    assert (pair.client.lost.reason, pair.client.lost.description) == (11, b"the end")


# --- an inner connection


class Nested:
    """An inner connection on a channel of an outer one, as with ``ssh -J``.

    At each end of the channel is a tunnel with the inner transport.
    """

    def __init__(self, outer_chunk: int) -> None:
        self._outer = LoggedIn(Pair(algorithms=FAST, chunk=outer_chunk)).begin()
        outer = self._outer
        turns = TurnScheduler(Now())
        client_tunnel, server_tunnel = (Tunnel(turns) for _ in range(2))
        client_tunnel.attach(Stream.open(outer.client, b"direct-tcpip", client_tunnel))
        self.pump()
        server_tunnel.attach(Stream.accept(outer.server_handler.openings[-1], server_tunnel))
        self.pump()
        self.pair = Pair(algorithms=FAST, connect=False)
        inner = LoggedIn(self.pair, self.pump)
        # As in the proxy: earlier messages of the client are delivered first.
        client_tunnel.start(self.pair.client)
        self.pump()
        server_tunnel.start(self.pair.server)
        self.inner = inner.begin()
        self.client_tunnel = client_tunnel

    def pump(self) -> None:
        self._outer.pair.pump()

    @property
    def outer_lives(self) -> bool:
        return self._outer.pair.client.lost is None and self._outer.pair.server.lost is None


@pytest.mark.parametrize(("chunk", "piece"), [(1, 0), (3, 0), (0, 1), (0, 3), (3, 7)])
def test_delivers_session_through_tunnel(chunk: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``chunk`` is the size of outer deliveries, ``piece`` the size of packets in the channel."""
    if piece:
        monkeypatch.setattr("conchrec.ssh.channel_stream.MAX_PACKET", piece)
        monkeypatch.setattr("conchrec.ssh.channel_stream.LEAST_PACKET", piece)
    nested = Nested(chunk)
    session(nested.inner, nested.pump, rekey=True)
    assert nested.pair.client.session_id == nested.pair.server.session_id
    # The end of the inner connection ends the channel only.
    nested.pair.client.loseConnection()
    nested.pump()
    assert nested.pair.server.lost is not None
    assert nested.pair.server.lost.description == b"disconnected by user"
    assert nested.client_tunnel.closed
    assert nested.outer_lives


# --- a relayed connection


class Relayed:
    """The user's and the target's connection with a relay between them, delivered in pieces."""

    def __init__(self, chunk: int) -> None:
        near = self.near = LoggedIn(Pair(algorithms=FAST, chunk=chunk)).begin()
        far = self.far = LoggedIn(Pair(algorithms=FAST, chunk=chunk)).begin()
        self.user, self.target = Receiver(), Receiver()
        self.watcher = Watcher()
        self.channel = near.client.open(b"session", self.user, window=2000, max_packet=1000)
        self.pump()
        self.relay = Relay(near.server_handler.openings[-1], self.watcher)
        self._far = far

    def pump(self) -> None:
        for _ in range(3):
            self.near.pair.pump()
            self.far.pair.pump()

    def dial(self, sync: Callable[[], Deferred[None]] | None = None) -> Channel:
        self.relay.open_far(self._far.client, sync)
        self.pump()
        opening = self._far.server_handler.openings[-1]
        opening.confirm(self.target, 3000, 1000)
        return opening.channel


@pytest.mark.parametrize("rekey", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_relayed_session(chunk: int, gated: bool, rekey: bool) -> None:
    """The target has its own window, every byte is observed before it is forwarded, and both ends send at
    once.
    """
    stage = Relayed(chunk)
    channel = stage.dial((lambda: succeed(None)) if gated else None)
    stage.pump()
    if rekey:
        stage.near.pair.server.rekey()
        stage.far.pair.server.rekey()
    user_says(stage.channel)
    target_says(channel)
    stage.pump()
    stage.channel.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert events_of(stage.user, stage.target) == (RELAYED_USER_HEARS, RELAYED_TARGET_HEARS)
    seen = stage.watcher.seen
    assert [event[1:] for event in seen if event[0] == "near"] == RELAYED_TARGET_HEARS
    assert [event[1:] for event in seen if event[0] == "far"] == RELAYED_USER_HEARS[2:]
    assert seen[-1] == ("finished",)
    for connection in (stage.near.client, stage.near.server, stage.far.client, stage.far.server):
        assert connection.channel_count == 0


@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_relayed_session_when_target_is_late(chunk: int) -> None:
    """Messages before the target's confirmation are forwarded first, in order."""
    stage = Relayed(chunk)
    stage.relay.confirm_early()
    stage.pump()
    stage.channel.send(m.CHANNEL_REQUEST, request_body(b"env", False, string(b"LANG") + string(b"C")))
    stage.channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"cat")))
    stage.pump()
    assert stage.target.heard == []
    channel = stage.dial()
    stage.pump()
    stage.channel.send(m.CHANNEL_DATA, string(TEXT))
    stage.channel.send(m.CHANNEL_EOF)
    target_says(channel)
    stage.pump()
    assert stage.user.heard[1:] == RELAYED_USER_HEARS[1:]
    kinds = [message for message, _ in stage.target.heard]
    assert kinds == [m.CHANNEL_REQUEST, m.CHANNEL_REQUEST, m.CHANNEL_DATA, m.CHANNEL_EOF]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_delivers_data_before_target_disappears(chunk: int) -> None:
    """The data is forwarded completely; then the relay ends."""
    stage = Relayed(chunk)
    channel = stage.dial()
    stage.pump()
    channel.send(m.CHANNEL_DATA, string(TEXT))
    stage.far.server.disconnect("gone")
    stage.pump()
    assert stage.user.heard[-1] == (m.CHANNEL_DATA, string(TEXT))
    assert stage.relay.finished
    assert stage.near.pair.client.lost is None
