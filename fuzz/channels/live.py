"""The raw client over TCP, at a real proxy, and the sequences that it sends to a real sshd behind it."""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from conchrec.ssh.transport import ClientTransport
from fuzz.channels import wire as w
from fuzz.channels.client import Client
from fuzz.channels.ends import Login, Raw, Tunnel
from fuzz.channels.script import Draw, Step, shown
from fuzz.targets.linked import FAST
from tests.support.powers import at_once

#: The only channel of a sequence.
CHANNEL = 0


class LiveClient:
    """One connection through a proxy. ``client`` is ready for steps when ``ready`` is true."""

    def __init__(self, reactor: Any, key: Path, *, user: str, login: str) -> None:
        self._reactor = reactor
        loaded = load_ssh_private_key(key.read_bytes(), None)
        assert isinstance(loaded, ed25519.Ed25519PrivateKey)
        self._key, self._user, self._login = loaded, user.encode(), login.encode()
        self.client = Client(lambda number, payload: self._raw.send(number, payload))
        self._raw = Raw(self.client.received)
        self._outer: ClientTransport | None = None
        self._inner: ClientTransport | None = None

    async def connect(self, host: str, port: int, target: int) -> None:
        """Log in at the proxy, then at the target behind it."""
        tunnel: list[Tunnel] = []
        outer = Raw(lambda number, payload: tunnel[0].received(number, payload))
        tunnel.append(Tunnel(outer))
        self._inner = tunnel[0].protocol = self._transport()
        transport = self._outer = self._transport()
        await connectProtocol(TCP4ClientEndpoint(self._reactor, host, port), transport)
        await transport.when_secure()
        outer.on_start = lambda: tunnel[0].open("localhost", target)
        transport.request_service(Login(self._user, self._key, outer))
        await self._inner.when_secure()
        self._inner.request_service(Login(self._login, self._key, self._raw))

    def _transport(self) -> ClientTransport:
        return ClientTransport(
            algorithms=FAST,
            powers=at_once,
            verify_host_key=lambda blob: None,
            host_key_algorithms=(b"ssh-ed25519-cert-v01@openssh.com", b"ssh-ed25519"),
            identification=b"SSH-2.0-raw",
            clock=self._reactor,
        )

    @property
    def ready(self) -> bool:
        """Tell whether the inner connection is logged in."""
        return self._raw.transport is not None

    @property
    def over(self) -> bool:
        """The channel is closed, or the connection is gone."""
        channel = self.client.channels.get(CHANNEL)
        gone = self._inner is None or self._inner.is_over or self._outer is None or self._outer.is_over
        return gone or (channel is not None and channel.closed)

    def close(self) -> None:
        """Close the connections."""
        if self._outer is not None:
            self._outer.abort()


@dataclass(frozen=True, slots=True)
class Sequence:
    """Steps of a client, and the command of each exec among them by the token in it."""

    steps: tuple[Step, ...]
    commands: dict[str, bytes]

    def __str__(self) -> str:
        return "\n".join(map(shown, self.steps))


def make_sequence(seed: int, number: int, helper: str) -> Sequence:
    """Random messages around starts of a helper that logs what it is given; the last start is one that sshd
    accepts if it has accepted none before. A shell and the subsystem ``account`` are the helper, too."""
    rng = random.Random(f"live {seed}/{number}")
    draw = Draw(rng, honest=False)
    steps: list[Step] = [("c.open", CHANNEL, b"session", 1 << 21, 32768, b"", True), ("settle",)]
    commands: dict[str, bytes] = {}

    def start(want_reply: bool | None = None) -> Step:
        kind = rng.choice((b"exec", b"exec", b"shell", b"subsystem"))
        extra = b""
        if kind == b"exec":
            token = draw.token(16).decode()
            command = commands[token] = f"{helper} {token} ".encode() + _quoted(draw.value()[:3000])
            extra = w.text(command)
        elif kind == b"subsystem":
            extra = w.text(b"account")
        wanted = rng.random() < 0.6 if want_reply is None else want_reply
        return ("c.req", CHANNEL, kind, wanted, extra)

    acts: tuple[Callable[[], Step], ...] = (
        lambda: ("c.rude", CHANNEL, draw.data()[:60_000]),
        lambda: ("c.data", CHANNEL, draw.data()[:60_000]),
        lambda: ("c.data", CHANNEL, draw.data()[:60_000]),
        lambda: ("c.big", CHANNEL, rng.randbytes(rng.choice((32768, 32769, 40_000)))),
        lambda: ("c.say", CHANNEL, w.EXTENDED, w.u32(1) + w.text(draw.data()[:30_000])),
        lambda: ("c.req", CHANNEL, b"env", rng.random() < 0.5, _environment(draw)),
        lambda: ("c.req", CHANNEL, b"keepalive@openssh.com", rng.random() < 0.5, draw.body()),
        lambda: ("c.req", CHANNEL, b"winadj@putty.projects.tartarus.org", True, b""),
        lambda: ("c.req", CHANNEL, draw.token(6) + b"@example.com", rng.random() < 0.5, draw.body()),
        start,
        lambda: ("c.req", CHANNEL, b"subsystem", rng.random() < 0.6, w.text(b"no-such-" + draw.token(4))),
        lambda: ("settle",),
    )
    for _ in range(rng.randrange(2, 14)):
        steps.append(rng.choice(acts)())
    early = rng.random() < 0.3
    if early:
        steps += [("settle",), ("c.eof", CHANNEL), ("c.rude", CHANNEL, b"after the end")]
    steps += [start(True), ("settle",), ("c.data", CHANNEL, draw.data()[:30_000]), ("settle",)]
    # After an EOF before the start sshd tells its process of no other one. A CLOSE overtakes what waits for
    # the reply to a start, so the caller waits for the last reply before it.
    steps.append(("c.close", CHANNEL, b"") if early else ("c.eof", CHANNEL))
    return Sequence(tuple(steps), commands)


def _quoted(value: bytes) -> bytes:
    """As one word of a shell, NUL bytes left out."""
    return shlex.quote(value.replace(b"\0", b"").decode("latin-1")).encode("latin-1")


def _environment(draw: Draw) -> bytes:
    value = draw.value()[:5000].replace(b"\0", b"")
    return w.text(b"LC_X" + draw.token(5).upper()) + w.text(value)
