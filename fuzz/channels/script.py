"""What happens in one case, drawn from a seed: the manners of the server, and steps of all three parties.

A step is a tuple of a name and plain values, so that a case can be printed, shortened and run again.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzz.channels import programs as p
from fuzz.channels import wire as w
from fuzz.channels.client import BACK
from fuzz.channels.server import STARTS, Manners

Step = tuple[object, ...]

OPEN_ROLE: dict[str, object] = {"port_forwarding": True, "x11_forwarding": True, "forward_agent": True}


@dataclass(frozen=True, slots=True)
class Variant:
    """What the proxy is configured as: settings, and options of the user's role; and how often both ends
    renew their keys."""

    name: str
    settings: dict[str, object]
    options: dict[str, object]
    rekey_bytes: int = 1 << 30


VARIANTS = (
    Variant("plain", {}, OPEN_ROLE),
    Variant("input", {"recordings": {"input": True}}, OPEN_ROLE | {"unknown_requests": False}),
    Variant("sync", {"session_recording": "proxy-sync"}, OPEN_ROLE, 100_000),
    # Without an agent it takes a while until the target's connection is there: channels open before it.
    Variant("early", {"upstream_auth": ["agent", "certificate"]}, OPEN_ROLE),
)
PACKET = 32768
#: What a case is about, and how often.
PROFILES = {"honest": 25, "rude": 40, "sftp": 10, "rude-sftp": 10, "forward": 5, "back": 6, "mixed": 10}


@dataclass(frozen=True, slots=True)
class Case:
    """One case. ``honest``: neither side does what an honest one does not."""

    variant: int
    manners: tuple[Manners, ...]
    steps: tuple[Step, ...]
    honest: bool
    profile: str


class Draw:
    """Random values of the protocol; ``token`` is a text that occurs nowhere else."""

    def __init__(self, rng: random.Random, *, honest: bool) -> None:
        self.rng = rng
        self._honest = honest

    def chance(self, share: float) -> bool:
        """Return True with this probability."""
        return self.rng.random() < share

    def token(self, size: int = 12) -> bytes:
        """Return a random word."""
        return "".join(self.rng.choices("abcdefghijkmnpqrstuvwxyz23456789", k=size)).encode()

    def value(self) -> bytes:
        """A text of the user's: mostly plain, sometimes long, binary or empty."""
        number = self.rng.random()
        if number < 0.6:
            return self.token()
        if number < 0.7:
            ends = (b"\xff\xfe\x80", b"\x1b[31m\r\n", "grün ☃".encode(), b"\xc3")
            return self.token() + self.rng.choice(ends)
        if number < 0.8:
            return self.rng.randbytes(self.rng.choice((1, 8, 40, 300)))
        if number < 0.84:
            return self.token(self.rng.choice((1000, 5000, 20000)))
        if number < 0.85:
            return self.token(4000 if self._honest else 200_000)
        if number < 0.9:
            return b""
        return self.token(4) + b" " + self.token(6) + b"; " + self.token()

    def body(self) -> bytes:
        """Bytes where none belong."""
        if self.chance(0.7):
            return self.token(self.rng.choice((8, 30)))
        return self.rng.randbytes(self.rng.choice((1, 16, 3000, 30000)))

    def data(self) -> bytes:
        """Bytes of a stream; sizes around the limits among them."""
        size = self.rng.choice((1, 3, 10, 50, 50, 300, 300, 2000, 9000))
        if self.chance(0.12):
            size = self.rng.choice((PACKET - 1, PACKET, PACKET + 1, 35000, 70000))
        if self.chance(0.15):
            return self.rng.randbytes(size)
        return (self.token(min(size, 40)) * (size // 12 + 1))[:size]

    def pty(self) -> bytes:
        """Return the body of a pty-req."""
        modes = self.rng.choice((b"\0", b"\0", b"\x35\0\0\0\1\0", b"", self.rng.randbytes(40)))
        term = self.rng.choice((b"xterm-256color", b"vt100", self.value()[:100]))
        sizes = b"".join(w.u32(self.rng.choice((80, 24, 0, 200))) for _ in range(4))
        return w.text(term) + sizes + w.text(modes)

    def env(self) -> bytes:
        """Return the body of an env request."""
        name = self.rng.choice((b"LANG", b"LC_" + self.token(5).upper(), self.value()[:200]))
        return w.text(name) + w.text(self.value())

    def start(self) -> tuple[bytes, bytes]:
        """Return the name and the body of a start request."""
        name = self.rng.choice((*STARTS, b"exec", b"exec"))
        if name == b"shell":
            return name, b""
        if name == b"subsystem":
            return name, w.text(self.rng.choice((b"sftp", b"netconf", b"bogus-" + self.token(4))))
        value = self.value()
        command = self.rng.choice((b"", b"", b"", b"scp -t /", b"sh -c ", b"git-upload-pack ")) + value
        return name, w.text(command.replace(b"\0", b"_") if self._honest or self.chance(0.9) else command)

    def request(self) -> tuple[bytes, bytes]:
        """Any request but a start."""
        choices: tuple[tuple[bytes, Callable[[], bytes]], ...] = (
            (b"env", self.env),
            (b"env", self.env),
            (b"pty-req", self.pty),
            (b"window-change", lambda: b"".join(w.u32(self.rng.randrange(300)) for _ in range(4))),
            (b"signal", lambda: w.text(b"INT" if self._honest or self.chance(0.6) else self.value()[:300])),
            (b"break", lambda: w.u32(self.rng.randrange(1 << 32))),
            (b"xon-xoff", lambda: b"\1"),
            (b"eow@openssh.com", lambda: b""),
            (b"keepalive@openssh.com", lambda: b""),
            (b"simple@putty.projects.tartarus.org", lambda: b""),
            (b"winadj@putty.projects.tartarus.org", lambda: b""),
            (b"auth-agent-req@openssh.com", lambda: b""),
            (b"x11-req", lambda: b"\0" + w.text(b"MIT-MAGIC-COOKIE-1") + w.text(self.token(32)) + w.u32(0)),
            (self.token(6) + b"@example.com", self.body),
        )
        name, make = self.rng.choice(choices)
        return name, make()

    def any_request(self) -> tuple[bytes, bytes]:
        """Any request, sometimes broken, sometimes with bytes behind it."""
        name, extra = self.start() if self.chance(0.3) else self.request()
        number = self.rng.random()
        if number < 0.2:
            extra += self.body()
        elif number < 0.25:
            extra = extra[:-1]
        return name, extra

    def request_name(self) -> bytes:
        """A request that wants nothing."""
        return self.rng.choice((b"keepalive@openssh.com", self.token(9)))

    def exit_status(self) -> bytes:
        """Return the body of an exit-status."""
        return w.u32(self.rng.randrange(300)) + self.rng.choice((b"", self.body()))

    def exit_signal(self) -> bytes:
        """Return the body of an exit-signal."""
        return w.text(self.value()[:200]) + b"\0" + w.text(self.value()) + w.text(self.token())

    def manners(self, *, honest: bool) -> Manners:
        """Return how a server treats its channels."""
        rng = self.rng
        accepts = tuple(self.chance(0.75) for _ in range(3))
        if honest:
            accepts = (*(False for _ in range(rng.choice((0, 0, 0, 1)))), True)
        small = self.chance(0.2)
        return Manners(
            window=rng.choice((0, 0, 0, 1 << 21, 100)),
            later=rng.choice((60, 1000)) if small else rng.choice((40_000, 1 << 21)),
            packet=rng.choice((7, 500)) if small else rng.choice((PACKET, PACKET, 20_000, 1 << 18)),
            accepts=accepts,
            refuses=tuple(name for name in (b"env", b"pty-req", b"x11-req") if self.chance(0.15)),
            prompt=self.chance(0.6),
            silent=not honest and self.chance(0.05),
            stingy=self.chance(0.3),
            opens=honest or self.chance(0.95),
            extra=b"" if honest or self.chance(0.8) else self.body(),
            program=rng.choice(("echo", "sink", "source")),
        )


class Writer:
    """Writes the steps of a case."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.steps: list[Step] = []

    def add(self, *step: object) -> None:
        """Add a step."""
        self.steps.append(step)

    def flow(self) -> None:
        """Some of what was sent arrives."""
        number = self.draw.rng.random()
        if number < 0.35:
            self.add("pump")
        elif number < 0.5:
            self.add("up", self.draw.rng.choice((0, 0, 100)))
        elif number < 0.6:
            self.add("down", self.draw.rng.choice((0, 0, 100)))
        elif number < 0.65:
            self.add("tick", self.draw.rng.choice((0.01, 0.5, 2.0)))

    def open(self, index: int, *, honest: bool, kind: bytes = b"session") -> None:
        """Add the open of a channel."""
        draw = self.draw
        window = draw.rng.choice((1 << 21, 1 << 21, 100_000, 50_000 if honest else 0, 100))
        packet = draw.rng.choice((PACKET, PACKET, 1 << 14, 100))
        extra = b"" if honest or draw.chance(0.85) else draw.body()
        if kind == b"direct-tcpip":
            extra = w.text(draw.token(8)) + w.u32(80) + w.text(b"127.0.0.1") + w.u32(4000) + extra
        self.add("c.open", index, kind, window, packet, extra, draw.chance(0.7))
        if draw.chance(0.8):
            self.add("pump")

    def honest_session(self, index: int) -> None:
        """Add a session as a stock client makes it."""
        draw = self.draw
        self.open(index, honest=True)
        if draw.chance(0.9):
            self.add("pump")
        for _ in range(draw.rng.randrange(4)):
            name, extra = draw.request()
            # An unknown name is up to the role; honest clients go on after a refusal.
            self.add("c.req", index, name, draw.chance(0.5), extra)
            self.flow()
        while True:
            name, extra = draw.start()
            self.add("c.req", index, name, draw.chance(0.8), extra)
            if draw.chance(0.7):
                self.add("pump")
            self.add("s.reply", index, 1000)
            self.add("pump")
            if draw.chance(0.7):
                break

    def honest_talk(self, index: int, count: int) -> None:
        """Add messages that a stock client sends in a session."""
        draw = self.draw
        for _ in range(count):
            number = draw.rng.random()
            if number < 0.45:
                self.add("c.data", index, draw.data())
            elif number < 0.7:
                self.add("s.out", index, draw.chance(0.3), draw.data())
            elif number < 0.8:
                name, extra = draw.request()
                self.add("c.req", index, name, draw.chance(0.5), extra)
            elif number < 0.85:
                self.add("c.adjust", index, draw.rng.choice((1, 1000, 100_000)))
            elif number < 0.9:
                self.add("s.reply", index, draw.rng.choice((1, 1000)))
            elif number < 0.93:
                self.add("s.req", index, b"keepalive@openssh.com", True, b"")
            elif number < 0.95:
                self.add("c.ask", b"keepalive@openssh.com", True, b"")
            elif number < 0.97:
                self.add("s.req", index, b"eow@openssh.com", False, b"")
            else:
                self.add("c.answer", draw.chance(0.5), b"")
            self.flow()

    def rude_talk(self, index: int, count: int) -> None:
        """Anything at any time."""
        draw, rng = self.draw, self.draw.rng
        acts: tuple[Callable[[], Step], ...] = (
            lambda: ("c.req", index, (request := draw.any_request())[0], draw.chance(0.6), request[1]),
            lambda: ("c.req", index, (request := draw.any_request())[0], draw.chance(0.6), request[1]),
            lambda: ("c.req", index, (request := draw.start())[0], draw.chance(0.6), request[1]),
            lambda: ("c.data", index, draw.data()),
            lambda: ("c.data", index, draw.data()),
            lambda: ("c.rude", index, draw.data()),
            lambda: ("c.big", index, draw.data()),
            lambda: ("c.say", index, w.EXTENDED, w.u32(rng.choice((0, 1, 1, 2))) + w.text(draw.data())),
            lambda: ("c.say", index, w.EOF, draw.body() if draw.chance(0.5) else b""),
            lambda: ("c.say", index, rng.choice((w.SUCCESS, w.FAILURE)), draw.body()),
            lambda: ("c.say", index, w.ADJUST, w.u32(rng.randrange(1, 1000)) + draw.body()),
            lambda: ("c.say", index, w.DATA, w.text(draw.data()) + draw.body()),
            lambda: ("c.eof", index),
            lambda: ("c.close", index, draw.body() if draw.chance(0.3) else b""),
            lambda: ("c.adjust", index, rng.choice((0, 1, 1000, 100_000))),
            lambda: ("c.ask", draw.request_name(), draw.chance(0.7), draw.body()),
            lambda: ("c.answer", draw.chance(0.5), draw.body()),
            lambda: ("s.reply", index, rng.choice((1, 1000))),
            lambda: ("s.out", index, draw.chance(0.3), draw.data()),
            lambda: ("s.out", index, draw.chance(0.3), draw.data()),
            lambda: ("s.early", index, draw.chance(0.3), draw.data()),
            lambda: ("s.rude", index, rng.choice((0, 0, 1, 2, 7)), draw.data()),
            lambda: ("s.req", index, draw.request_name(), draw.chance(0.6), draw.body()),
            lambda: ("s.req", index, b"exit-status", False, draw.exit_status()),
            lambda: ("s.req", index, b"exit-signal", False, draw.exit_signal()),
            lambda: ("s.say", index, rng.choice((w.SUCCESS, w.FAILURE)), draw.body()),
            lambda: ("s.adjust", index, rng.choice((1, 1000, 100_000))),
            lambda: ("s.eof", index, draw.body() if draw.chance(0.3) else b""),
            lambda: ("s.close", index, draw.body() if draw.chance(0.3) else b""),
            lambda: ("s.ask", draw.request_name(), draw.chance(0.7), draw.body()),
            lambda: ("s.answer", draw.chance(0.5), draw.body()),
        )  # fmt: skip
        weights = [1.0] * len(acts)
        for ending in (8, 12, 13, 27, 28):
            weights[ending] = 0.25
        for _ in range(count):
            (act,) = rng.choices(acts, weights)
            self.add(*act())
            self.flow()

    def sftp(self, index: int, *, honest: bool) -> None:
        """A client of files. An honest one waits for its handles; the other knows which it will get, and
        sends packets of any size."""
        draw, rng = self.draw, self.draw.rng
        for packets in self._packets():
            stream = b"".join(map(w.text, packets))
            at = 0
            while at < len(stream):
                size = rng.choice((1, 5, 100, 4000, 33_000, 33_000))
                piece = stream[at : at + size]
                at += size
                self.add("c.data" if honest or draw.chance(0.6) else "c.big", index, piece)
                if not honest and draw.chance(0.1):
                    self.rude_talk(index, 1)
                self.flow()
            if honest:
                self.add("settle")

    def _packets(self) -> list[list[bytes]]:
        """In groups, each of which can be sent when the answers to the one before it are there."""
        draw, rng = self.draw, self.draw.rng
        groups = [[bytes([p.INIT]) + w.u32(3)]]
        ids = itertools.count(1)
        handles = 0
        for _ in range(rng.randrange(1, 6)):
            path = rng.choice((b"/tmp/" + draw.token(6), b"/tmp/x", b"/etc/motd"))
            what = rng.random()
            if what < 0.6:
                groups += self._transfer(ids, path, w.text(w.u32(handles)))
                handles += 1
            elif what < 0.75:
                groups.append([bytes([p.REMOVE]) + w.u32(next(ids)) + w.text(path)])
            elif what < 0.9:
                new = b"/tmp/" + draw.token(4)
                groups.append([bytes([p.RENAME]) + w.u32(next(ids)) + w.text(path) + w.text(new)])
            else:
                groups.append([bytes([p.MKDIR]) + w.u32(next(ids)) + w.text(path) + w.u32(0)])
        return groups

    def _transfer(self, ids: Iterator[int], path: bytes, handle: bytes) -> list[list[bytes]]:
        """A file that is opened, read or written, and mostly closed."""
        draw, rng = self.draw, self.draw.rng
        write = p.WRITE_FLAG | p.CREATE
        flags = rng.choice((write | p.TRUNCATE, p.READ_FLAG, p.READ_FLAG | write, write | p.APPEND))
        if flags == p.READ_FLAG:
            path = b"/etc/passwd"
        opening = bytes([p.OPEN]) + w.u32(next(ids)) + w.text(path) + w.u32(flags) + w.u32(0)
        packets = []
        at = 0
        for _ in range(rng.randrange(4)):
            where = w.u32(next(ids)) + handle + w.u32(0) + w.u32(at)
            if flags & p.WRITE_FLAG:
                data = draw.data()
                packets.append(bytes([p.WRITE]) + where + w.text(data))
                at += len(data)
            else:
                packets.append(bytes([p.READ]) + where + w.u32(200))
                at += 200
        closing = [bytes([p.CLOSE]) + w.u32(next(ids)) + handle]
        return [[opening], packets, closing] if draw.chance(0.8) else [[opening], packets]

    def back(self, *, honest: bool) -> None:
        """The target opens a channel to the client: a forwarded port, or X11."""
        draw, rng = self.draw, self.draw.rng
        if draw.chance(0.7):
            kind = b"forwarded-tcpip"
            self.add("c.ask", b"tcpip-forward", True, w.text(b"127.0.0.1") + w.u32(8022))
            for step in (("pump",), ("s.answer", True, b""), ("pump",)):
                self.add(*step)
            extra = w.text(b"127.0.0.1") + w.u32(8022) + w.text(draw.token(8)) + w.u32(4000)
        else:
            kind = b"x11"
            self.open(0, honest=True)
            x11 = b"\0" + w.text(b"MIT-MAGIC-COOKIE-1") + w.text(draw.token(32)) + w.u32(0)
            self.add("pump")
            self.add("c.req", 0, b"x11-req", True, x11)
            self.add("pump")
            extra = w.text(draw.token(9)) + w.u32(5000)
        if not honest and draw.chance(0.3):
            extra += draw.body()
        for _ in range(rng.choice((1, 1, 2))):
            self.add("s.open", kind, rng.choice((0, 100, 1 << 20)), rng.choice((100, PACKET)), extra)
            if draw.chance(0.8):
                self.add("pump")
        for _ in range(rng.randrange(1, 12)):
            index = BACK + rng.choice((0, 0, 0, 1))
            if honest:
                self.honest_talk(index, 1)
            else:
                self.rude_talk(index, 1)

    def end(self, index: int) -> None:
        """Add the end of a channel, in one of several orders."""
        draw = self.draw
        number = draw.rng.random()
        if number < 0.4:
            self.add("c.eof", index)
            self.flow()
        if number < 0.8:
            self.add("s.req", index, b"exit-status", False, w.u32(draw.rng.randrange(256)))
            self.flow()


def make_case(seed: int, number: int) -> Case:
    """Case ``number`` of ``seed``, the same one each time."""
    rng = random.Random(f"{seed}/{number}")
    variant = rng.randrange(len(VARIANTS))
    profile = rng.choices(tuple(PROFILES), tuple(PROFILES.values()))[0]
    honest = profile in ("honest", "sftp")
    draw = Draw(rng, honest=honest)
    writer = Writer(draw)
    manners = [draw.manners(honest=honest) for _ in range(3)]
    if profile == "honest":
        writer.honest_session(0)
        writer.honest_talk(0, rng.randrange(12))
        writer.end(0)
    elif profile == "rude":
        writer.open(0, honest=False)
        writer.rude_talk(0, rng.randrange(1, 25))
    elif profile in ("sftp", "rude-sftp"):
        writer.open(0, honest=True)
        if profile == "rude-sftp":
            for _ in range(rng.choice((0, 1, 2))):
                writer.rude_talk(0, 1)
        writer.add("c.req", 0, b"subsystem", draw.chance(0.8), w.text(b"sftp"))
        writer.add("pump")
        writer.add("s.reply", 0, 1000)
        writer.add("pump")
        writer.sftp(0, honest=honest)
        writer.end(0)
    elif profile == "forward":
        writer.open(0, honest=True, kind=b"direct-tcpip")
        writer.add("pump")
        if draw.chance(0.5):
            writer.honest_talk(0, rng.randrange(1, 12))
        else:
            writer.rude_talk(0, rng.randrange(1, 12))
    elif profile == "back":
        writer.back(honest=draw.chance(0.4))
    else:
        writer.honest_session(0)
        writer.open(1, honest=False, kind=rng.choice((b"session", b"session", b"direct-tcpip")))
        for _ in range(rng.randrange(1, 10)):
            writer.honest_talk(0, 1)
            writer.rude_talk(1, 2)
        writer.end(0)
    return Case(variant, tuple(manners), tuple(writer.steps), honest, profile)


def shown(step: Step) -> str:
    """A step on one line, long values shortened."""
    return " ".join(_shown(value) for value in step)


def _shown(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 60:
        return f"{value[:40]!r}…({len(value)})"
    return value if isinstance(value, str) else repr(value)
