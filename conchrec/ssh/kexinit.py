"""KEXINIT: the proposals of both sides, and the agreement (RFC 4253 section 7.1). Pure values."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.kex_methods import derive, is_usable, kex_hash
from conchrec.ssh.numbers import KEXINIT
from conchrec.ssh.packetcipher import Suite, is_aead, suite
from conchrec.ssh.wire import Reader, names, uint32
from conchrec.text import one_line

#: Names in the list of key exchange methods that are not methods (OpenSSH's PROTOCOL, RFC 8308 section
#: 2.1).
STRICT_CLIENT = b"kex-strict-c-v00@openssh.com"
STRICT_SERVER = b"kex-strict-s-v00@openssh.com"
EXT_INFO_CLIENT = b"ext-info-c"
MARKERS = (STRICT_CLIENT, STRICT_SERVER, EXT_INFO_CLIENT, b"ext-info-s")
#: The maximum number of algorithm names in one KEXINIT.
MAX_NAMES = 1024

#: A name: printable US-ASCII without blanks and commas, at most 64 characters (RFC 4251 section 6).
_NAME = re.compile(rb"[!-+\--~]{1,64}")


class NoCommonAlgorithm(RemoteViolation):
    """The two sides have no common algorithm for one purpose."""

    default_code = ReasonCode.NO_COMMON_ALGORITHM


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The KEXINIT of one side.

    ``payload`` is the whole message with its number, as it is hashed. Pairs are for the direction from
    client to server and from server to client.
    """

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
        """Create our proposal: the same in both directions, without a guess."""
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
        """Parse the peer's proposal, without the message number. Raises RemoteViolation.

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
    """The algorithms that both sides use.

    ``ciphers``, ``suites`` and ``compressions`` are pairs: client to server, server to client.
    ``guess_wrong`` means that the peer's next key exchange message is a wrong guess and must be ignored.
    """

    kex: bytes
    host_key: bytes
    ciphers: tuple[bytes, bytes]
    suites: tuple[Suite, Suite]
    compressions: tuple[bytes, bytes]
    #: Key exchange, host key, ciphers and MACs without repetition, for people.
    names: tuple[bytes, ...]
    guess_wrong: bool

    def derive_ciphers(self, secret: bytes, exchange_hash: bytes, session_id: bytes) -> tuple[Any, Any]:
        """Return what seals and opens packets from client to server, and from server to client.

        The keys are derived as in RFC 4253 section 7.2.
        """
        hash_ = kex_hash(self.kex)

        def make(suite: Suite, letters: bytes) -> Any:
            iv, key, mac = (
                derive(hash_, secret, exchange_hash, session_id, bytes((letter,)), size)
                for letter, size in zip(letters, (suite.iv, suite.key, suite.mac), strict=True)
            )
            return suite.make(key, iv, mac)

        to_server, to_client = self.suites
        return make(to_server, b"ACE"), make(to_client, b"BDF")


def negotiate(ours: Proposal, theirs: Proposal, *, is_client: bool) -> Agreement:
    """Choose the algorithms: for each purpose the client's first that the server also has.

    Raises NoCommonAlgorithm.
    """

    def pick(purpose: str, our_names: tuple[bytes, ...], peer_names: tuple[bytes, ...]) -> bytes:
        client, server = (our_names, peer_names) if is_client else (peer_names, our_names)
        for name in client:
            if name in server:
                return name
        # Within our sentence, so nothing but names: a target could go on with a sentence of its own.
        valid = b",".join(name for name in peer_names if _NAME.fullmatch(name))
        shown = one_line(valid, 400) or "invalid names"
        raise NoCommonAlgorithm(f"no common {purpose} algorithm: the other side offers only {shown}")

    def pick_suite(direction: int) -> tuple[bytes, bytes]:
        cipher = pick("cipher", ours.ciphers[direction], theirs.ciphers[direction])
        # An AEAD cipher has no MAC, whatever the lists contain.
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
        # RFC 4253 section 7: a guess is right if both sides have the same first key exchange and host key
        # algorithm.
        guess_wrong=theirs.guess_follows
        and (theirs.kex[:1] != ours.kex[:1] or theirs.host_keys[:1] != ours.host_keys[:1]),
    )


def select_usable(algorithms: Algorithms) -> Algorithms:
    """Return the algorithms without key exchange methods that this installation does not support."""
    return replace(algorithms, kex=tuple(filter(is_usable, algorithms.kex)))


def prefer_ciphers(algorithms: Algorithms, theirs: Proposal) -> Algorithms:
    """Return the algorithms with only the preferred ciphers, if the peer supports one in each direction."""
    preferred = algorithms.preferred_ciphers
    if preferred and not any(map(set(preferred).isdisjoint, theirs.ciphers)):
        return replace(algorithms, ciphers=preferred)
    return algorithms
