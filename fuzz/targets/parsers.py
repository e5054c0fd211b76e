"""Values off the wire: each parser takes its message or raises RemoteViolation, and what it took can be
written again."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.errors import AccessDenied, RemoteViolation
from conchrec.proxy.inner.server import mirrored_identification
from conchrec.proxy.target_names import parse_subsystem
from conchrec.ssh import messages as m
from conchrec.ssh.algorithms import COMPATIBLE
from conchrec.ssh.kexinit import STRICT_CLIENT, Proposal, negotiate
from conchrec.ssh.wire import Reader, mpint, names, string, uint32, uint64
from conchrec.text import one_line
from fuzz.limits import Broken
from fuzz.target import Each, Target, chosen

Parser = Callable[[bytes], object]


def _same(parse: Callable[[bytes], m.ChannelOpen | m.ChannelRequest]) -> Parser:
    def parse_and_write(data: bytes) -> None:
        value = parse(data)
        if parse(value.encode()) != value:
            raise Broken(f"{value} is written as something else")

    return parse_and_write


def _values(data: bytes) -> None:
    """Types of RFC 4251, as the first bytes say: ``byte count, count bytes, the values``."""
    count = data[0] if data else 0
    r = Reader(data[1 + count :])
    readers: tuple[Callable[[], object], ...] = (
        r.byte, r.boolean, r.uint32, r.uint64, r.string, r.text, r.names, r.rest,
    )  # fmt: skip
    for kind in data[1 : 1 + count]:
        if kind % 9 < len(readers):
            readers[kind % 9]()
        else:
            number = r.mpint()
            if Reader(mpint(number)).mpint() != number:
                raise Broken(f"{number:x} is written as another number")
    r.end()


def _proposal(data: bytes) -> None:
    theirs = Proposal.read(data)
    ours = Proposal.make(COMPATIBLE, (b"ssh-ed25519",), (STRICT_CLIENT,))
    for is_client in (True, False):
        try:
            agreed = negotiate(ours, theirs, is_client=is_client)
        except RemoteViolation as violation:
            _shown(violation.public)
            continue
        if agreed.kex not in ours.kex or agreed.kex not in theirs.kex:
            raise Broken(f"agreed on {agreed.kex!r}")


def _shown(text: str) -> None:
    if not text.isprintable():
        raise Broken(f"not printable: {text!r}")


def _version(data: bytes) -> None:
    line = mirrored_identification(data)
    if len(line) > 255 or not line.startswith(b"SSH-2.0-") or not line.decode("ascii").isprintable():
        raise Broken(f"copied as {line!r}")


def _parse_target(data: bytes) -> None:
    target = parse_subsystem(data, "main")
    if not (target.host and target.host.isprintable() and 0 < target.port < 65536):
        raise Broken(f"{target} is no place")


def proposal(kex: tuple[bytes, ...] = COMPATIBLE.kex) -> bytes:
    """A KEXINIT without its number, of a client or a server; the cookie is no secret here."""
    algorithms = COMPATIBLE
    return b"".join(
        (
            bytes(16),
            names((*kex, STRICT_CLIENT, b"ext-info-c")),
            names((b"ssh-ed25519", b"rsa-sha2-512")),
            names(algorithms.ciphers) * 2,
            names(algorithms.macs) * 2,
            names((b"none", b"zlib@openssh.com")) * 2,
            names(()) * 2,
            b"\0",
            uint32(0),
        )
    )


OPEN = m.ChannelOpen(kind=b"session", sender=3, window=2 << 20, max_packet=32768, extra=b"").encode()
FORWARDED = string(b"10.0.0.1") + uint32(80) + string(b"127.0.0.1") + uint32(50000)
PTY = string(b"xterm-256color") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b"\x81\0\0\x96\0\0")
EXIT_SIGNAL = string(b"TERM") + b"\0" + string(b"killed") + string(b"")
_ALL = bytes((1, 0)) + uint32(7) + uint64(9) + string(b"name") + string("ü".encode()) + names((b"a", b"b"))

#: Parser, and inputs that it takes.
PARSERS: tuple[tuple[Parser, tuple[bytes, ...]], ...] = (
    (_same(m.ChannelOpen.parse), (OPEN, OPEN + FORWARDED)),
    (_same(m.ChannelRequest.parse), (string(b"exec") + b"\1" + string(b"ls -l"), string(b"shell") + b"\0")),
    (m.PtyRequest.parse, (PTY,)),
    (m.WindowChange.parse, (uint32(132) + uint32(43) + uint32(0) * 2,)),
    (m.EnvRequest.parse, (string(b"LANG") + string(b"C.UTF-8"),)),
    (m.ExitSignal.parse, (EXIT_SIGNAL,)),
    (m.parse_uint32, (uint32(255),)),
    (m.parse_string, (string(b"sftp"),)),
    (m.Forwarded.parse, (FORWARDED,)),
    (_values, (bytes((9, 0, 1, 2, 3, 4, 5, 6, 8, 7)) + _ALL + mpint(-(1 << 70)),)),
    (_proposal, (proposal(),)),
    (lambda data: _shown(one_line(data)), (b"\x1b[31m red \xc3\xbc\xff\r\n",)),
    (_version, (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7",)),
    (_parse_target, (b"web1", b"web1:22", b"[fd00::1]:2222", b"fd00::1:22", b"10.0.0.1:22@main")),
)

TARGET = Target(
    name="parsers",
    about="the parsers of single messages: conchrec/ssh/messages.py, wire.py, kexinit.py",
    corpus=lambda: [bytes((number,)) + entry for number, (_, valid) in enumerate(PARSERS) for entry in valid],
    begin=lambda: Each(chosen([parse for parse, _ in PARSERS]), (RemoteViolation, AccessDenied)),
)
