"""KEXINIT: what each side proposes, and what comes of it (RFC 4253 section 7.1). Pure values."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.kex_methods import is_usable
from conchrec.ssh.numbers import KEXINIT
from conchrec.ssh.packetcipher import Suite, is_aead, suite
from conchrec.ssh.wire import Reader, names, uint32
from conchrec.text import one_line

#: OpenSSH's PROTOCOL and RFC 8308 section 2.1: words among the key exchange methods that are none.
STRICT_CLIENT = b"kex-strict-c-v00@openssh.com"
STRICT_SERVER = b"kex-strict-s-v00@openssh.com"
EXT_INFO_CLIENT = b"ext-info-c"
MARKERS = (STRICT_CLIENT, STRICT_SERVER, EXT_INFO_CLIENT, b"ext-info-s")
#: More names than anybody has use for.
MAX_NAMES = 1024
#: So much under one pair of keys is a transfer, which ``Algorithms.bulk`` is for.
BULK_BYTES = 16 * 1024 * 1024


class NoCommonAlgorithm(RemoteViolation):
    """The two sides have no algorithm that both take."""

    default_code = ReasonCode.NO_COMMON_ALGORITHM


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One side's KEXINIT. ``payload`` is the whole message with its number, as it is hashed; pairs are
    for client to server and server to client."""

    kex: tuple[bytes, ...]
    host_keys: tuple[bytes, ...]
    ciphers: tuple[tuple[bytes, ...], tuple[bytes, ...]]
    macs: tuple[tuple[bytes, ...], tuple[bytes, ...]]
    compressions: tuple[tuple[bytes, ...], tuple[bytes, ...]]
    guess_follows: bool
    payload: bytes

    @classmethod
    def make(
        cls, algorithms: Algorithms, host_keys: tuple[bytes, ...], markers: tuple[bytes, ...]
    ) -> Proposal:
        """Ours: the same both ways, nothing guessed."""
        kex = (*algorithms.kex, *markers)
        payload = b"".join(
            (
                bytes((KEXINIT,)),
                os.urandom(16),
                names(kex),
                names(host_keys),
                names(algorithms.ciphers) * 2,
                names(algorithms.macs) * 2,
                names(algorithms.compressions) * 2,
                names(()) * 2,
                b"\0",
                uint32(0),
            )
        )
        return cls(
            kex=kex,
            host_keys=host_keys,
            ciphers=(algorithms.ciphers, algorithms.ciphers),
            macs=(algorithms.macs, algorithms.macs),
            compressions=(algorithms.compressions, algorithms.compressions),
            guess_follows=False,
            payload=payload,
        )

    @classmethod
    def read(cls, payload: bytes) -> Proposal:
        """Theirs, without the message's number. Raises RemoteViolation.

        ``16 bytes cookie, 10 name-lists, boolean first_kex_packet_follows, uint32 reserved``
        """
        r = Reader(payload)
        r.take(16)
        lists = tuple(r.names() for _ in range(10))
        follows = r.boolean()
        r.uint32()
        r.end()
        if sum(map(len, lists)) > MAX_NAMES:
            raise RemoteViolation(
                f"too many algorithm names in KEXINIT: the limit is {MAX_NAMES}",
                code=ReasonCode.KEY_EXCHANGE_FAILED,
            )
        kex, host_keys, *rest = lists
        return cls(
            kex=kex,
            host_keys=host_keys,
            ciphers=(rest[0], rest[1]),
            macs=(rest[2], rest[3]),
            compressions=(rest[4], rest[5]),
            guess_follows=follows,
            payload=bytes((KEXINIT,)) + payload,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What both use. ``ciphers``, ``suites`` and ``compressions`` are those of client to server and of server
    to client; ``guess_wrong``: the peer has sent a first key exchange message that is to be thrown away."""

    kex: bytes
    host_key: bytes
    ciphers: tuple[bytes, bytes]
    suites: tuple[Suite, Suite]
    compressions: tuple[bytes, bytes]
    #: Kex, host key, ciphers and MACs, each once: for people.
    names: tuple[bytes, ...]
    guess_wrong: bool


def negotiate(ours: Proposal, theirs: Proposal, *, is_client: bool) -> Agreement:
    """The first of the client's that the server has, too. Raises NoCommonAlgorithm."""

    def pick(purpose: str, our_names: tuple[bytes, ...], peer_names: tuple[bytes, ...]) -> bytes:
        client, server = (our_names, peer_names) if is_client else (peer_names, our_names)
        for name in client:
            if name in server:
                return name
        shown = one_line(b",".join(peer_names), 400)
        raise NoCommonAlgorithm(f"no common {purpose} algorithm: the other side offers {shown}")

    def pick_suite(direction: int) -> tuple[bytes, bytes]:
        cipher = pick("cipher", ours.ciphers[direction], theirs.ciphers[direction])
        # One that authenticates by itself has no MAC, whatever the lists say.
        return cipher, b"" if is_aead(cipher) else pick("MAC", ours.macs[direction], theirs.macs[direction])

    def pick_compression(direction: int) -> bytes:
        return pick("compression", ours.compressions[direction], theirs.compressions[direction])

    methods = tuple(name for name in theirs.kex if name not in MARKERS)
    kex = pick("key exchange", tuple(name for name in ours.kex if name not in MARKERS), methods)
    host_key = pick("host key", ours.host_keys, theirs.host_keys)
    up, down = pick_suite(0), pick_suite(1)
    return Agreement(
        kex=kex,
        host_key=host_key,
        ciphers=(up[0], down[0]),
        suites=(suite(*up), suite(*down)),
        names=tuple(dict.fromkeys(name for name in (kex, host_key, *up, *down) if name)),
        compressions=(pick_compression(0), pick_compression(1)),
        # RFC 4253 section 7: a guess is right where the first of both lists are the same on both sides.
        guess_wrong=theirs.guess_follows
        and (theirs.kex[:1] != ours.kex[:1] or theirs.host_keys[:1] != ours.host_keys[:1]),
    )


class Proposals:
    """What one side proposes in its exchanges, one after the other: first all its ``algorithms``, and once
    much has been carried under another cipher, those for bulk transfers alone."""

    def __init__(self, algorithms: Algorithms) -> None:
        self._algorithms = replace(algorithms, kex=tuple(filter(is_usable, algorithms.kex)))
        #: The peer has a cipher for bulk transfers, and another is in use.
        self._may_change = False

    def due(self, limit: int) -> int:
        """Bytes under one pair of keys after which new ones are asked for, at most ``limit``."""
        return min(limit, BULK_BYTES) if self._may_change else limit

    def make(self, host_keys: tuple[bytes, ...], markers: tuple[bytes, ...], counted: int) -> Proposal:
        """The next KEXINIT; ``counted`` are the bytes under the keys of now."""
        if self._may_change and counted > BULK_BYTES:
            self._algorithms = replace(self._algorithms, ciphers=self._algorithms.bulk)
            self._may_change = False
        return Proposal.make(self._algorithms, host_keys, markers)

    def agreed(self, agreement: Agreement, theirs: Proposal) -> None:
        """What came of the last one."""
        bulk = set(self._algorithms.bulk)
        self._may_change = not bulk.issuperset(agreement.ciphers) and not any(
            map(bulk.isdisjoint, theirs.ciphers)
        )
