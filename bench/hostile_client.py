"""A program that floods a jump host as fast as it can, in one of the ways of ``KINDS``.

``python -m bench.hostile_client JSON``; the fields are those of ``Plan``. It says ``flooding`` when the
flood has begun, goes on until its stdin ends, and then says how many messages or requests it has sent.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

from bench.light_client import VERSION, Polite, Through
from conchrec.ssh import assigned as a
from conchrec.ssh import messages as m
from conchrec.ssh.algorithms import COMPATIBLE, MODERN, Algorithms
from conchrec.ssh.compression import DELAYED
from conchrec.ssh.connection import Channel, Connection
from conchrec.ssh.kexinit import Proposal
from conchrec.ssh.keying import Phase
from conchrec.ssh.packetcipher import Clear
from conchrec.ssh.signers import KeySigner, Signer
from conchrec.ssh.stream import Stream
from conchrec.ssh.transport import ClientTransport
from conchrec.ssh.userauth_client import UserAuthClient
from conchrec.ssh.wire import string, uint32
from tests.support.powers import at_once

#: Where a flood comes from, so that limits for each address do not hit the bystander.
SOURCE = "127.0.0.9"
#: Messages that are written at once, and bytes of them that may wait.
BATCH = 256
#: Seconds without anything from the peer after which a raw connection is made again.
DEAF = 10.0
#: How many play one recording at the same time.
VIEWERS = 4
#: Requests that may wait for a start.
HELD = 500
#: What is sent to a target that says nothing: a full window.
SILENT_BYTES = 2 * 1024 * 1024
KEX_GROUPS = (
    b"diffie-hellman-group18-sha512",
    b"diffie-hellman-group16-sha512",
    b"diffie-hellman-group14-sha256",
)
#: A public value of group 18: any number in it will do, for nobody computes the secret.
GUESS = b"\x00" + b"\x5a" * 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``port`` is that of the jump host. ``user`` logs in there and ``login`` at ``target_port``, both with
    the key in the file ``key``. ``count`` connections at one time, with ``channels`` in each of them."""

    kind: str
    port: int
    user: str = ""
    login: str = ""
    key: str = ""
    target_port: int = 0
    count: int = 1
    channels: int = 1

    def words(self) -> str:
        return json.dumps(asdict(self))


class Sent:
    """How many there were; the first one is announced."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, count: int = 1) -> None:
        if not self.count:
            print("flooding", flush=True)
        self.count += count


# --- strangers, with blocking sockets


def _connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.bind((SOURCE, 0))
    connection.settimeout(DEAF)
    connection.connect(("127.0.0.1", port))
    return connection


def _offer(algorithms: Algorithms) -> bytes:
    """A version line and a KEXINIT that asks for ``algorithms``."""
    proposal = Proposal.make(algorithms, (b"ssh-ed25519", b"ssh-ed25519-cert-v01@openssh.com"), ())
    return VERSION + b"\r\n" + Clear().seal(0, proposal.payload)


def _dh(group: bytes) -> Callable[[Plan, Sent], None]:
    algorithms = replace(COMPATIBLE, kex=(group,))

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            connection.sendall(_offer(algorithms) + Clear().seal(1, bytes((a.KEX_FIRST,)), string(GUESS)))
            sent.add()
            # The reply, NEWKEYS, or the server's refusal; then the next connection.
            size = 0
            while size < 2000 and (data := connection.recv(65536)):
                size += len(data)

    return run


def _clear_messages(payload: bytes) -> Callable[[Plan, Sent], None]:
    """Messages before the key exchange, which cost the sender nothing."""
    batch = Clear().seal(0, payload) * 2000

    def run(plan: Plan, sent: Sent) -> None:
        with _connect(plan.port) as connection:
            connection.sendall(VERSION + b"\r\n")
            while True:
                connection.sendall(batch)
                sent.add(2000)

    return run


def _http(plan: Plan, sent: Sent) -> None:
    request = b"GET /webapi/auth/export?type=krl HTTP/1.1\r\nHost: proxy\r\n\r\n"
    with _connect(plan.port) as connection:
        while True:
            connection.sendall(request * 8)
            for _ in range(8):
                _response(connection)
                sent.add()


def _response(connection: socket.socket) -> None:
    heard = b""
    while b"\r\n\r\n" not in heard:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed")
        heard += data
    head, _, body = heard.partition(b"\r\n\r\n")
    size = next(
        int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
    )
    left = size - len(body)
    while left > 0:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed")
        left -= len(data)


RAW: dict[str, Callable[[Plan, Sent], None]] = {
    "dh-group18": _dh(KEX_GROUPS[0]),
    "dh-group16": _dh(KEX_GROUPS[1]),
    "dh-group14": _dh(KEX_GROUPS[2]),
    "ignore-stranger": _clear_messages(bytes((a.IGNORE,)) + string(b"")),
    "debug-stranger": _clear_messages(bytes((a.DEBUG,)) + b"\0" + string(b"") * 2),
    "krl": _http,
}


# --- users, with conchrec's own client


class Session:
    """A channel's user (StreamUser) that reads everything and answers nothing."""

    def __init__(self) -> None:
        self.open: Deferred[None] = Deferred()
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_closed: Callable[[], None] = lambda: None

    def stream_opened(self) -> None:
        self.open.callback(None)

    def stream_refused(self, code: int, text: bytes) -> None:
        self.open.errback(Failure(ConnectionError(text.decode(errors="replace"))))

    def stream_data(self, data: bytes) -> None:
        self.on_data(data)

    def stream_eof(self) -> None:
        """The end follows."""

    def stream_request(self, request: m.ChannelRequest) -> bool:
        return False

    def stream_drained(self, pending: int) -> None:
        """What is written here is bounded by the flood's own valve."""

    def stream_closed(self) -> None:
        self.on_closed()


class Pour:
    """Sends batches as long as the connection takes them (IPushProducer)."""

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
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._again()

    def stopProducing(self) -> None:
        self._paused = True


class User:
    """One outer connection, and where it is needed an inner one to the target."""

    def __init__(self, reactor: Any, plan: Plan, sent: Sent) -> None:
        self._reactor = reactor
        self.plan = plan
        self.sent = sent
        self._signer = KeySigner(Key.fromFile(plan.key), label="key")
        self.algorithms = MODERN
        self.outer: ClientTransport
        self.connection: Connection

    def transport(self) -> ClientTransport:
        return ClientTransport(
            algorithms=self.algorithms,
            powers=at_once,
            verify_host_key=lambda blob: None,
            host_key_algorithms=(b"ssh-ed25519",),
            version=VERSION,
            clock=self._reactor,
        )

    async def secure(self) -> ClientTransport:
        """An outer connection that has not logged in."""
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self.plan.port, bindAddress=(SOURCE, 0))
        transport = self.transport()
        await connectProtocol(endpoint, transport)
        await transport.when_secure()
        return transport

    async def log_in(self) -> None:
        self.outer = await self.secure()
        self.outer.when_lost().addCallback(lambda lost: print("lost", flush=True))
        self.connection = await self._logged_in(self.outer, self.plan.user)

    async def inner(self) -> tuple[ClientTransport, Connection]:
        inner = self.transport()
        through = Through(self._reactor, inner)
        where = string(b"localhost") + uint32(self.plan.target_port) + string(b"127.0.0.1") + uint32(0)
        through.attach(Stream.open(self.connection, b"direct-tcpip", through, where))
        await through.open
        return inner, await self._logged_in(inner, self.plan.login)

    async def _logged_in(self, transport: ClientTransport, user: str) -> Connection:
        await transport.when_secure()
        handler = Polite()
        mine: list[Signer] = [self._signer]
        login = UserAuthClient(
            user.encode(),
            lambda methods: succeed(mine.pop() if mine else None),
            Connection(handler),
            on_banner=lambda text: None,
            peer_extensions=lambda: transport.peer_extensions,
            host_key=lambda: transport.host_key_blob,
        )
        transport.request_service(login)
        await login.done
        return await handler.started

    def pour(self, transport: ClientTransport, batch: Callable[[], int]) -> None:
        Pour(self._reactor, transport, batch, self.sent)

    def repeat(self, transport: ClientTransport, number: int, payload: bytes) -> None:
        """The same message, again and again."""

        def batch() -> int:
            for _ in range(BATCH):
                transport.sendPacket(number, payload)
            return BATCH

        self.pour(transport, batch)


async def _early(user: User, number: int, payload: bytes) -> None:
    """Between the key exchange and the login."""
    user.repeat(await user.secure(), number, payload)


async def _outer(user: User, number: int, payload: bytes) -> None:
    await user.log_in()
    user.repeat(user.outer, number, payload)


async def _session(user: User, command: bytes) -> tuple[ClientTransport, Channel, Session]:
    """An inner session that runs ``command`` on a terminal."""
    await user.log_in()
    transport, connection = await user.inner()
    session = Session()
    stream = Stream.open(connection, b"session", session)
    await session.open
    stream.request(b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b""))
    stream.request(b"exec", string(command))
    channel = stream._channel
    assert channel is not None
    return transport, channel, session


def _on_session(number: int, body: bytes, command: bytes = b"stty raw -echo; exec cat >/dev/null") -> Kind:
    """The same message on an inner session."""

    async def run(user: User) -> None:
        transport, channel, _ = await _session(user, command)
        user.repeat(transport, number, uint32(channel.peer_number or 0) + body)

    return run


def _on_inner(number: int, payload: bytes) -> Kind:
    """The same message on an inner connection."""

    async def run(user: User) -> None:
        await user.log_in()
        transport, _ = await user.inner()
        user.repeat(transport, number, payload)

    return run


async def _idle(user: User) -> None:
    """No flood at all: somebody who is there, and can be locked."""
    await user.log_in()
    user.sent.add()


async def _visit(user: User) -> None:
    """An honest session; what floods is its target."""
    await _session(user, b"true")
    user.sent.add()


async def _silent(user: User) -> None:
    """Channels to a target that says nothing, each with as many bytes as it takes."""
    await user.log_in()
    subsystem = b"proxy:localhost:%d" % user.plan.target_port
    for _ in range(user.plan.channels):
        session = Session()
        stream = Stream.open(user.connection, b"session", session)
        await session.open
        stream.request(b"subsystem", string(subsystem))
        stream.write(VERSION + b"\r\n" + bytes(SILENT_BYTES))
    user.sent.add(user.plan.channels)


async def _unread(user: User) -> None:
    """Questions whose answers are not read."""
    await user.log_in()
    user.outer.transport.pauseProducing()
    user.repeat(user.outer, a.PING, string(bytes(1000)))


def _blocks(setup: bytes, data: bytes, first: bytes = b"", terminal: bool = True) -> Kind:
    """Packets as large as they may be, full of something that is laborious to read; what comes back is read.
    ``setup`` is the start request."""

    async def run(user: User) -> None:
        await user.log_in()
        _, connection = await user.inner()
        session = Session()
        stream = Stream.open(connection, b"session", session)
        await session.open
        if terminal:
            stream.request(
                b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b"")
            )
        name, _, argument = setup.partition(b" ")
        stream.request(name, string(argument))
        stream.write(first)

        def batch() -> int:
            if stream.pending < 4 * len(data):
                stream.write(data)
                return 1
            return 0

        def again() -> None:
            if not stream.closed:
                user.sent.add(batch())
                user._reactor.callLater(0.0005, again)

        again()

    return run


async def _offers(user: User) -> None:
    """Keys and certificates that nobody knows, without a login, as large as a packet may be."""

    async def again() -> None:
        while True:
            transport = await user.secure()
            transport.sendPacket(a.SERVICE_REQUEST, string(b"ssh-userauth"))
            blob = string(b"ssh-ed25519-cert-v01@openssh.com") + string(bytes(32)) * 2 + bytes(30_000)
            for number in range(90):
                head = string(b"user%d" % number) + string(b"ssh-connection") + string(b"publickey")
                key = b"\0" + string(b"ssh-ed25519-cert-v01@openssh.com") + string(blob)
                transport.sendPacket(50, head + key)
                user.sent.add()
            await transport.when_lost()

    Deferred.fromCoroutine(again()).addErrback(lambda failure: None)


async def _held(user: User) -> None:
    """Requests that wait for the start of their session, and then go on all at once."""
    await user.log_in()
    transport, connection = await user.inner()
    change = m.ChannelRequest(name=b"window-change", want_reply=False, extra=uint32(80) * 4).encode()

    async def again() -> None:
        while transport.lost is None:
            session = Session()
            stream = Stream.open(connection, b"session", session)
            await session.open
            channel = stream._channel
            assert channel is not None
            number = uint32(channel.peer_number or 0)
            start = m.ChannelRequest(name=b"exec", want_reply=False, extra=string(b"true")).encode()
            transport.sendPacket(m.CHANNEL_REQUEST, number + start)
            for _ in range(HELD):
                transport.sendPacket(m.CHANNEL_REQUEST, number + change)
            user.sent.add(HELD)
            stream.close()

    for _ in range(4):
        Deferred.fromCoroutine(again()).addErrback(lambda failure: None)


async def _looked(user: User, command: bytes) -> bytes:
    """All that a command of the proxy says, on a large terminal."""
    session = Session()
    heard = bytearray()
    session.on_data = heard.extend
    over: Deferred[None] = Deferred()
    session.on_closed = lambda: over.callback(None)
    stream = Stream.open(user.connection, b"session", session)
    await session.open
    size = uint32(1000) * 2 + uint32(0) * 2
    stream.request(b"pty-req", string(b"xterm") + size + string(b""))
    stream.request(b"exec", string(command))
    await over
    return bytes(heard)


async def _replays(user: User) -> None:
    """A recording of a large screen that is cleared and filled again and again, looked at by several."""
    await user.log_in()
    _, connection = await user.inner()
    session = Session()
    over: Deferred[None] = Deferred()
    session.on_closed = lambda: over.callback(None)
    stream = Stream.open(connection, b"session", session)
    await session.open
    stream.request(b"pty-req", string(b"xterm") + uint32(1000) * 2 + uint32(0) * 2 + string(b""))
    frame = r"\033[2J\033[1;1Hx\033[1000;1000Hy"
    stream.request(b"exec", string(f"yes '{frame}' | head -20000 | xargs printf".encode()))
    await over
    found: list[bytes] = []
    while not found:
        found = re.findall(rb"\b[0-9a-z]{26}\b", await _looked(user, b"recordings"))

    async def again() -> None:
        while user.outer.lost is None:
            user.sent.add()
            await _looked(user, b"play " + found[-1])

    for _ in range(VIEWERS):
        Deferred.fromCoroutine(again()).addErrback(lambda failure: None)


async def _rekeys(user: User) -> None:
    """New keys as soon as the last ones are there."""
    await user.log_in()
    transport = user.outer

    def again() -> None:
        if transport.lost is not None:
            return
        if transport._phase is Phase.IDLE:
            transport._begin_exchange()
            user.sent.add()
        user._reactor.callLater(0.0005, again)

    again()


async def _screen(user: User) -> None:
    """A line of 8 kB on a screen of one's own, then single keys."""
    transport, channel, _ = await _session(user, b"stty raw -echo; exec cat")
    number = uint32(channel.peer_number or 0)
    transport.sendPacket(m.CHANNEL_DATA, number + string(b"x" * 8000))

    def key() -> None:
        if transport.lost is None:
            for _ in range(8):
                transport.sendPacket(m.CHANNEL_DATA, number + string(b"a"))
            user.sent.add(8)
            user._reactor.callLater(0.004, key)

    user._reactor.callLater(0.5, key)


async def _zlib(user: User) -> None:
    """Messages of zeros, 1 : 800."""
    user.algorithms = replace(MODERN, compressions=(DELAYED,))
    await _outer(user, a.IGNORE, string(bytes(32000)))


async def _sessions(user: User) -> None:
    """Sessions that are opened and left."""
    await user.log_in()
    transport, connection = await user.inner()

    def again() -> None:
        if transport.lost is not None:
            return
        user.sent.add()
        session = Session()
        stream = Stream.open(connection, b"session", session)

        def leave(result: object) -> None:
            stream.close()
            user._reactor.callLater(0, again)

        session.open.addBoth(leave)

    for _ in range(8):
        again()


async def _controls(user: User) -> None:
    """Names of control characters, in requests that are refused and audited."""
    await user.log_in()
    transport, connection = await user.inner()
    text = bytes((1,)) * 30_000
    session = Session()
    stream = Stream.open(connection, b"session", session)
    await session.open
    channel = stream._channel
    assert channel is not None
    body = uint32(channel.peer_number or 0) + string(text[:200]) + b"\0" + text

    def batch() -> int:
        transport.sendPacket(m.CHANNEL_REQUEST, body)
        transport.sendPacket(m.CHANNEL_OPEN, string(text) + uint32(0) + uint32(1000) * 2)
        return 2

    user.pour(transport, batch)


Kind = Callable[[User], Any]


_SFTP_INIT = string(b"\x01" + uint32(3))


def _sftp_requests() -> Iterator[bytes]:
    """The smallest packets: STAT of the root directory."""
    for number in range(1700):
        yield string(b"\x11" + uint32(number) + string(b"/"))


def _outer_kind(number: int, payload: bytes) -> Kind:
    return lambda user: _outer(user, number, payload)


def _early_kind(number: int, payload: bytes) -> Kind:
    return lambda user: _early(user, number, payload)


_OPEN = string(b"nonsense") + uint32(0) + uint32(1000) * 2
_NOWHERE = string(b"localhost") + uint32(1) + string(b"127.0.0.1") + uint32(0)

USERS: dict[str, Kind] = {
    "ignore-early": _early_kind(a.IGNORE, string(b"")),
    "ignore": _outer_kind(a.IGNORE, string(b"")),
    "ping": _outer_kind(a.PING, string(b"")),
    "global-request": _outer_kind(m.GLOBAL_REQUEST, string(b"keepalive@openssh.com") + b"\1"),
    "open-refused-outer": _outer_kind(m.CHANNEL_OPEN, _OPEN),
    "open-refused": _on_inner(m.CHANNEL_OPEN, _OPEN),
    "forward-refused": _on_inner(
        m.CHANNEL_OPEN, string(b"direct-tcpip") + uint32(0) + uint32(1000) * 2 + _NOWHERE
    ),
    "window-change": _on_session(m.CHANNEL_REQUEST, string(b"window-change") + b"\0" + uint32(80) * 4),
    "env": _on_session(m.CHANNEL_REQUEST, string(b"env") + b"\0" + string(b"LC_X") + string(b"y")),
    "signal": _on_session(m.CHANNEL_REQUEST, string(b"signal") + b"\0" + string(b"USR1")),
    "unknown-request": _on_session(m.CHANNEL_REQUEST, string(b"nonsense@example.com") + b"\0"),
    "data": _on_session(m.CHANNEL_DATA, string(b"x")),
    "adjust": _on_session(m.CHANNEL_WINDOW_ADJUST, uint32(1)),
    "idle": _idle,
    "silent": _silent,
    "visit": _visit,
    "unread": _unread,
    "rekeys": _rekeys,
    "offers": _offers,
    "held": _held,
    "replays": _replays,
    "sftp": _blocks(b"subsystem sftp", b"".join(_sftp_requests()), _SFTP_INIT, terminal=False),
    "escapes": _blocks(b"exec stty raw -echo; exec cat", b"\x1b[1;1H\x1b[2Jx" * 2600),
    "columns": _blocks(b"exec stty raw -echo; exec cat", b"\x1b[4000Gx\r\n" * 3000),
    "lines": _blocks(b"exec stty raw echo; exec cat", b"x\r\n" * 10_000),
    "screen": _screen,
    "zlib": _zlib,
    "sessions": _sessions,
    "controls": _controls,
}
KINDS = (*RAW, *USERS)


class Until(TwistedProtocol):
    """Ends with stdin."""

    def __init__(self, over: Deferred[None]) -> None:
        self._over = over

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._over.callback(None)


def _raw_forever(plan: Plan, sent: Sent) -> None:
    while True:
        try:
            RAW[plan.kind](plan, sent)
        except OSError:
            # Refused, or ended by the server: come again, as an attacker would, but let it breathe.
            threading.Event().wait(0.01)


async def _users(reactor: Any, plan: Plan, sent: Sent, over: Deferred[None]) -> None:
    users = [User(reactor, plan, sent) for _ in range(plan.count)]
    await gatherResults([Deferred.fromCoroutine(USERS[plan.kind](user)) for user in users])
    await over


def main(words: Sequence[str]) -> None:
    plan = Plan(**json.loads(words[0]))
    sent = Sent()

    def start(reactor: Any) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        StandardIO(Until(over))
        if plan.kind not in RAW:
            return Deferred.fromCoroutine(_users(reactor, plan, sent, over))
        for _ in range(plan.count):
            threading.Thread(target=_raw_forever, args=(plan, sent), daemon=True).start()
        return over

    try:
        react(start)
    finally:
        print(f"sent {sent.count}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
