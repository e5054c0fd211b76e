"""A program that floods a jump host as fast as it can with one of ``KINDS``.

``python -m bench.hostile_client JSON``; the fields are those of ``Plan``. It prints ``flooding`` when
the flood has begun, floods until its stdin ends, and then prints ``sent``, and the number of messages or
requests that it has sent.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

from bench.hostile_plan import Plan, Sent
from bench.hostile_strangers import RAW
from bench.hostile_user import Session, User
from bench.light_client import VERSION
from conchrec.proxy.relay.channel_end import PIECES_MOST
from conchrec.ssh import messages as m
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.channel_stream import LEAST_PACKET, MAX_PACKET, Stream
from conchrec.ssh.compression import DELAYED
from conchrec.ssh.connection import Connection
from conchrec.ssh.kex_table import ExchangePhase
from conchrec.ssh.transport import ClientTransport
from conchrec.ssh.wire import string, uint32

#: Sessions that play one recording at the same time.
VIEWERS = 4
#: Requests that may wait for a start.
HELD = 190
#: Bytes for a target that sends nothing: a full window.
SILENT_BYTES = 2 * 1024 * 1024

Kind = Callable[[User], Any]


async def _early(user: User, number: int, payload: bytes) -> None:
    """Repeat a message between the key exchange and the login."""
    user.repeat(await user.secure(), number, payload)


async def _outer(user: User, number: int, payload: bytes) -> None:
    """Repeat a message on an outer connection after the login."""
    await user.log_in()
    user.repeat(user.outer, number, payload)


async def _session(user: User, command: bytes) -> tuple[ClientTransport, bytes, Session]:
    """Start ``command`` on a terminal; return the transport, the encoded channel number, and the session."""
    await user.log_in()
    transport, connection = await user.inner()
    session = Session()
    stream = Stream.open(connection, b"session", session)
    await session.open
    stream.request(b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b""))
    stream.request(b"exec", string(command))
    return transport, uint32(stream.peer_number or 0), session


def _on_session(number: int, body: bytes, command: bytes = b"stty raw -echo; exec cat >/dev/null") -> Kind:
    """Repeat a message on an inner session."""

    async def run(user: User) -> None:
        transport, channel, _ = await _session(user, command)
        user.repeat(transport, number, channel + body)

    return run


def _on_inner(number: int, payload: bytes) -> Kind:
    """Repeat a message on an inner connection."""

    async def run(user: User) -> None:
        await user.log_in()
        transport, _ = await user.inner()
        user.repeat(transport, number, payload)

    return run


async def _idle(user: User) -> None:
    """Only log in, so that a lock can end the connection."""
    await user.log_in()
    user.sent.add()


async def _use_briefly(user: User) -> None:
    """Open a session that does no harm; its target floods."""
    await _session(user, b"true")
    user.sent.add()


async def _silent(user: User) -> None:
    """Write SILENT_BYTES to each of several channels to a target that sends nothing."""
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
    """Send pings and do not read the replies."""
    await user.log_in()
    user.outer.transport.pauseProducing()
    user.repeat(user.outer, a.PING, string(bytes(1000)))


def _blocks(setup: bytes, data: bytes, first: bytes = b"", terminal: bool = True) -> Kind:
    """Write ``data``, which is slow to parse, without an end, and read the output.

    ``setup`` is the start request and its argument; ``first`` is written once.
    """

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
                user.reactor.callLater(0.0005, again)

        again()

    return run


async def _offers(user: User) -> None:
    """Offer unknown certificates of the largest size before the login."""

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
    """Send requests that wait for the start of their session and are then forwarded together."""
    await user.log_in()
    transport, connection = await user.inner()
    change = m.ChannelRequest(name=b"window-change", want_reply=False, extra=uint32(80) * 4).encode()

    async def again() -> None:
        while transport.lost is None:
            session = Session()
            stream = Stream.open(connection, b"session", session)
            await session.open
            number = uint32(stream.peer_number or 0)
            start = m.ChannelRequest(name=b"exec", want_reply=False, extra=string(b"true")).encode()
            transport.sendPacket(m.CHANNEL_REQUEST, number + start)
            for _ in range(HELD):
                transport.sendPacket(m.CHANNEL_REQUEST, number + change)
            user.sent.add(HELD)
            stream.close()

    for _ in range(4):
        Deferred.fromCoroutine(again()).addErrback(lambda failure: None)


async def _run_on_terminal(user: User, command: bytes) -> bytes:
    """Run a command of the proxy on a large terminal, and return its output."""
    session = Session()
    output = bytearray()
    session.on_data = output.extend
    over: Deferred[None] = Deferred()
    session.on_closed = lambda: over.callback(None)
    stream = Stream.open(user.connection, b"session", session)
    await session.open
    size = uint32(1000) * 2 + uint32(0) * 2
    stream.request(b"pty-req", string(b"xterm") + size + string(b""))
    stream.request(b"exec", string(command))
    await over
    return bytes(output)


async def _replays(user: User) -> None:
    """Play in several sessions a recording of a large screen that is cleared and filled without an end."""
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
    sids: list[bytes] = []
    while not sids:
        sids = re.findall(rb"\b[0-9a-z]{26}\b", await _run_on_terminal(user, b"recordings"))

    async def again() -> None:
        while user.outer.lost is None:
            user.sent.add()
            await _run_on_terminal(user, b"play " + sids[-1])

    for _ in range(VIEWERS):
        Deferred.fromCoroutine(again()).addErrback(lambda failure: None)


async def _rekeys(user: User) -> None:
    """Start a key exchange as soon as the last one is complete."""
    await user.log_in()
    transport = user.outer

    def again() -> None:
        if transport.lost is not None:
            return
        if transport.kex.phase is ExchangePhase.IDLE:
            transport.rekey()
            user.sent.add()
        user.reactor.callLater(0.0005, again)

    again()


async def _tiny_outer(user: User) -> None:
    """Read output through an outer channel with the smallest maximum packet size."""
    await user.log_in()
    _, connection = await user.inner(LEAST_PACKET)
    _read_all(user, connection, MAX_PACKET)


async def _tiny_session(user: User) -> None:
    """Read output in a session with the smallest maximum packet size that does not end it."""
    await user.log_in()
    _, connection = await user.inner()
    _read_all(user, connection, MAX_PACKET // PIECES_MOST)


def _read_all(user: User, connection: Connection, max_packet: int) -> None:
    """Read output without an end in packets of ``max_packet`` bytes."""
    session = Session()
    session.on_data = lambda data: user.sent.add()
    stream = Stream.open(connection, b"session", session, max_packet=max_packet)
    stream.request(b"exec", string(b"exec cat /dev/zero"))


async def _index(user: User) -> None:
    """Make one short session after the other, whose recordings are slow to index."""
    await user.log_in()
    _, connection = await user.inner()
    command = rb"yes '\033[4000Gx\r\n' | head -30000 | xargs printf"

    async def again() -> None:
        while user.outer.lost is None:
            session = Session()
            over: Deferred[None] = Deferred()
            session.on_closed = partial(over.callback, None)
            stream = Stream.open(connection, b"session", session)
            await session.open
            stream.request(
                b"pty-req", string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b"")
            )
            stream.request(b"exec", string(command))
            await over
            user.sent.add()

    for _ in range(4):
        Deferred.fromCoroutine(again()).addErrback(lambda failure: None)


async def _agent(user: User) -> None:
    """Forward an agent to a target, which floods it."""
    await user.log_in()
    _, connection = await user.inner()
    session = Session()
    stream = Stream.open(connection, b"session", session)
    await session.open
    stream.request(b"auth-agent-req@openssh.com")
    stream.request(b"exec", string(b"true"))
    user.sent.add()


async def _screen(user: User) -> None:
    """Write a line of 8 kB, then single keystrokes."""
    transport, number, _ = await _session(user, b"stty raw -echo; exec cat")
    transport.sendPacket(m.CHANNEL_DATA, number + string(b"x" * 8000))

    def key() -> None:
        if transport.lost is None:
            for _ in range(8):
                transport.sendPacket(m.CHANNEL_DATA, number + string(b"a"))
            user.sent.add(8)
            user.reactor.callLater(0.004, key)

    user.reactor.callLater(0.5, key)


async def _zlib(user: User) -> None:
    """Repeat messages of zeros, which are compressed 1 : 800."""
    user.algorithms = replace(MODERN, compressions=(DELAYED,))
    await _outer(user, a.IGNORE, string(bytes(32000)))


async def _sessions(user: User) -> None:
    """Open sessions and close them at once."""
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
            user.reactor.callLater(0, again)

        session.open.addBoth(leave)

    for _ in range(8):
        again()


async def _controls(user: User) -> None:
    """Send requests with names of control characters, which are rejected and audited."""
    await user.log_in()
    transport, connection = await user.inner()
    text = bytes((1,)) * 30_000
    session = Session()
    stream = Stream.open(connection, b"session", session)
    await session.open
    body = uint32(stream.peer_number or 0) + string(text[:200]) + b"\0" + text

    def batch() -> int:
        transport.sendPacket(m.CHANNEL_REQUEST, body)
        transport.sendPacket(m.CHANNEL_OPEN, string(text) + uint32(0) + uint32(1000) * 2)
        return 2

    user.pour(transport, batch)


_SFTP_INIT = string(b"\x01" + uint32(3))


def _sftp_requests() -> Iterator[bytes]:
    """Yield small packets: STAT of the root directory."""
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
    "starts": _on_session(m.CHANNEL_REQUEST, string(b"exec") + b"\0" + string(b"scp;" * 8000)),
    "data": _on_session(m.CHANNEL_DATA, string(b"x")),
    "adjust": _on_session(m.CHANNEL_WINDOW_ADJUST, uint32(1)),
    "idle": _idle,
    "silent": _silent,
    "use-target": _use_briefly,
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
    "tiny-outer": _tiny_outer,
    "tiny-session": _tiny_session,
    "index": _index,
    "agent": _agent,
    "scp": _blocks(b"exec scp -r -t /tmp", b"D0755 0 tmp\nE\n" * 2200, terminal=False),
    "zlib": _zlib,
    "sessions": _sessions,
    "controls": _controls,
}
KINDS = (*RAW, *USERS)
#: The kinds that need no login.
STRANGERS = frozenset({*RAW, "ignore-early", "offers"})


class StdinEnd(TwistedProtocol):
    """Calls ``over`` when stdin ends."""

    def __init__(self, over: Deferred[None]) -> None:
        self._over = over

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        """The connection is closed (Protocol)."""
        self._over.callback(None)


def _raw_forever(plan: Plan, sent: Sent) -> None:
    while True:
        try:
            RAW[plan.kind](plan, sent)
        except OSError:
            # The server has refused or closed the connection: make another after a pause.
            threading.Event().wait(0.01)


async def _users(reactor: Any, plan: Plan, sent: Sent, over: Deferred[None]) -> None:
    users = [User(reactor, plan, sent) for _ in range(plan.count)]
    await gatherResults([Deferred.fromCoroutine(USERS[plan.kind](user)) for user in users])
    await over


def main(words: Sequence[str]) -> None:
    """Run the program with these arguments."""
    plan = Plan(**json.loads(words[0]))
    sent = Sent()

    def start(reactor: Any) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        StandardIO(StdinEnd(over))
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
