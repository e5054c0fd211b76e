"""Key exchange methods: two public values give a shared secret.

RFC 4253 section 8, RFC 5656, RFC 8731, and two post-quantum hybrids. All methods here use two messages: 30
with the client's value; 31 with the host key, the server's value and the signature over the exchange hash.
Values and secrets are encoded as in the exchange hash: a value without its length, a secret with it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, succeed

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.dh_groups import GENERATOR, GROUP1, GROUP14, GROUP16, Group
from conchrec.ssh.kems import MLKEM768, SNTRUP761, Kem, KemKeyPair
from conchrec.ssh.wire import mpint, string

Hash = Callable[[bytes], Any]

#: The two names of one method. Some older releases of OpenSSH have only the second.
SNTRUP_METHODS = (b"sntrup761x25519-sha512", b"sntrup761x25519-sha512@openssh.com")


class KexMethod(Protocol):
    """One run of a method. A client calls ``offer``, then ``complete``; a server calls only ``accept``.

    An invalid value of the peer raises RemoteViolation at once. The Deferreds of fast methods have fired
    already; cancelling a Deferred ends the run.
    """

    def offer(self) -> Deferred[bytes]:
        """Return the client's value."""

    def accept(self, peer_value: bytes) -> Deferred[tuple[bytes, bytes]]:
        """Return the server's value and the secret."""

    def complete(self, peer_value: bytes) -> Deferred[bytes]:
        """Return the secret."""


class ModularPowers(Protocol):
    """Computes ``base ** exponent`` modulo ``modulus`` for each base; see ``conchrec.ssh.kex_helper``.

    The Deferred may fail with a ConchrecError, whose text is sent to the peer.
    """

    def __call__(self, modulus: int, exponent: int, bases: tuple[int, ...], /) -> Deferred[tuple[int, ...]]:
        """Return the powers, in the order of ``bases``."""


class SntrupKeyPairs(Protocol):
    """Makes key pairs of sntrup761 for a client; see ``conchrec.ssh.kex_helper``."""

    def are_available(self) -> bool:
        """Return whether a key pair is available now or soon."""

    def take(self) -> Deferred[KemKeyPair]:
        """Return a key pair that nobody else gets. The Deferred may fail with a ConchrecError."""


class _ImmediateMethod(Protocol):
    """A KexMethod without Deferreds."""

    def offer(self) -> bytes:
        """Return the client's value."""

    def accept(self, peer_value: bytes) -> tuple[bytes, bytes]:
        """Return the server's value and the secret."""

    def complete(self, peer_value: bytes) -> bytes:
        """Return the secret."""


class _X25519:
    """curve25519-sha256 (RFC 8731)."""

    def __init__(self) -> None:
        self._private = x25519.X25519PrivateKey.generate()

    def offer(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def accept(self, peer_value: bytes) -> tuple[bytes, bytes]:
        return self.offer(), self.complete(peer_value)

    def complete(self, peer_value: bytes) -> bytes:
        return mpint(int.from_bytes(self.shared(peer_value), "big"))

    def shared(self, peer_value: bytes) -> bytes:
        """Return the shared X25519 value. Raises RemoteViolation."""
        try:
            return self._private.exchange(x25519.X25519PublicKey.from_public_bytes(peer_value))
        except ValueError as error:
            raise RemoteViolation(
                "invalid X25519 public value", code=ReasonCode.KEY_EXCHANGE_FAILED
            ) from error


class _Nist:
    """ecdh-sha2-nistp* (RFC 5656 section 4)."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve
        self._private = ec.generate_private_key(curve)

    def offer(self) -> bytes:
        return self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def accept(self, peer_value: bytes) -> tuple[bytes, bytes]:
        return self.offer(), self.complete(peer_value)

    def complete(self, peer_value: bytes) -> bytes:
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, peer_value)
            shared = self._private.exchange(ec.ECDH(), point)
        except ValueError as error:
            raise RemoteViolation(
                "invalid ECDH public value: not a point on the curve", code=ReasonCode.KEY_EXCHANGE_FAILED
            ) from error
        return mpint(int.from_bytes(shared, "big"))


class _Hybrid:
    """A key encapsulation mechanism with X25519: the secret is a hash of both secrets.

    mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex), and sntrup761x25519-sha512
    (draft-josefsson-ntruprime-ssh). The client's value is ``KEM public key, X25519 public key``, the
    server's ``ciphertext, X25519 public key``. ``generate`` makes the client's key pair.
    """

    def __init__(self, kem: Kem, hash_: Hash, generate: Callable[[], Deferred[KemKeyPair]]) -> None:
        self._kem = kem
        self._hash = hash_
        self._generate = generate
        self._classic = _X25519()
        #: The client's private key, until it is used.
        self._decapsulate: Callable[[bytes], bytes] | None = None

    def offer(self) -> Deferred[bytes]:
        return self._generate().addCallback(self._offer)

    def _offer(self, pair: KemKeyPair) -> bytes:
        self._decapsulate = pair.decapsulate
        return pair.public + self._classic.offer()

    def accept(self, peer_value: bytes) -> Deferred[tuple[bytes, bytes]]:
        size = self._kem.public_size
        if len(peer_value) != size + 32:
            raise RemoteViolation(
                f"invalid {self._kem.name} public value: wrong length", code=ReasonCode.KEY_EXCHANGE_FAILED
            )
        shared = self._classic.shared(peer_value[size:])
        try:
            ciphertext, secret = self._kem.encapsulate(peer_value[:size])
        except ValueError as error:
            raise RemoteViolation(
                f"invalid {self._kem.name} public value", code=ReasonCode.KEY_EXCHANGE_FAILED
            ) from error
        return succeed((ciphertext + self._classic.offer(), self._mix(secret, shared)))

    def complete(self, peer_value: bytes) -> Deferred[bytes]:
        size = self._kem.ciphertext_size
        if len(peer_value) != size + 32 or self._decapsulate is None:
            raise RemoteViolation(
                f"invalid {self._kem.name} ciphertext: wrong length", code=ReasonCode.KEY_EXCHANGE_FAILED
            )
        shared = self._classic.shared(peer_value[size:])
        decapsulate, self._decapsulate = self._decapsulate, None
        return succeed(self._mix(decapsulate(peer_value[:size]), shared))

    def _mix(self, secret: bytes, shared: bytes) -> bytes:
        """Return the encoded secret of the exchange, for the secrets of the two methods."""
        return string(self._hash(secret + shared).digest())


class _Modp:
    """diffie-hellman-group14 and 16 (RFC 8268), and the older methods of RFC 4253.

    Powers take milliseconds, so they are computed elsewhere.
    """

    def __init__(self, group: Group, powers: ModularPowers) -> None:
        self._group = group
        self._exponent = group.exponent()
        self._powers = powers

    def _compute_powers(self, *bases: int) -> Deferred[tuple[int, ...]]:
        return self._powers(self._group.prime, self._exponent, bases)

    def offer(self) -> Deferred[bytes]:
        return self._compute_powers(GENERATOR).addCallback(lambda powers: mpint(powers[0])[4:])

    def accept(self, peer_value: bytes) -> Deferred[tuple[bytes, bytes]]:
        value = self._group.public_value(peer_value)
        return self._compute_powers(GENERATOR, value).addCallback(
            lambda powers: (mpint(powers[0])[4:], mpint(powers[1]))
        )

    def complete(self, peer_value: bytes) -> Deferred[bytes]:
        value = self._group.public_value(peer_value)
        return self._compute_powers(value).addCallback(lambda powers: mpint(powers[0]))


class _DeferredMethod:
    """A method that takes less than a millisecond, as a KexMethod."""

    def __init__(self, method: _ImmediateMethod) -> None:
        self._method = method

    def offer(self) -> Deferred[bytes]:
        return succeed(self._method.offer())

    def accept(self, peer_value: bytes) -> Deferred[tuple[bytes, bytes]]:
        return succeed(self._method.accept(peer_value))

    def complete(self, peer_value: bytes) -> Deferred[bytes]:
        return succeed(self._method.complete(peer_value))


#: The methods with their hash: those that need ModularPowers, the hybrids, and the others.
_MODP_METHODS: dict[bytes, tuple[Group, Hash]] = {
    b"diffie-hellman-group16-sha512": (GROUP16, hashlib.sha512),
    b"diffie-hellman-group14-sha256": (GROUP14, hashlib.sha256),
    b"diffie-hellman-group14-sha1": (GROUP14, hashlib.sha1),
    b"diffie-hellman-group1-sha1": (GROUP1, hashlib.sha1),
}
_HYBRIDS: dict[bytes, tuple[Kem, Hash]] = {
    b"mlkem768x25519-sha256": (MLKEM768, hashlib.sha256),
    **dict.fromkeys(SNTRUP_METHODS, (SNTRUP761, hashlib.sha512)),
}
_IMMEDIATE_METHODS: dict[bytes, tuple[Callable[[], _ImmediateMethod], Hash]] = {
    b"curve25519-sha256": (_X25519, hashlib.sha256),
    b"curve25519-sha256@libssh.org": (_X25519, hashlib.sha256),
    b"ecdh-sha2-nistp256": (lambda: _Nist(ec.SECP256R1()), hashlib.sha256),
    b"ecdh-sha2-nistp384": (lambda: _Nist(ec.SECP384R1()), hashlib.sha384),
    b"ecdh-sha2-nistp521": (lambda: _Nist(ec.SECP521R1()), hashlib.sha512),
}


def new_kex_method(name: bytes, powers: ModularPowers, key_pairs: SntrupKeyPairs | None = None) -> KexMethod:
    """Return a new run of the method ``name``, which must be an offered one.

    Only a client that offers SNTRUP_METHODS needs ``key_pairs``.
    """
    if name in _MODP_METHODS:
        return _Modp(_MODP_METHODS[name][0], powers)
    if name in _HYBRIDS:
        kem, hash_ = _HYBRIDS[name]
        if name in SNTRUP_METHODS:
            return _Hybrid(kem, hash_, key_pairs.take if key_pairs is not None else _no_key_pair)
        return _Hybrid(kem, hash_, lambda: succeed(MLKEM768.generate()))
    return _DeferredMethod(_IMMEDIATE_METHODS[name][0]())


def _no_key_pair() -> Deferred[KemKeyPair]:
    """Stand for the key pairs of a server, which needs none."""
    raise AssertionError("a client without key pairs does not offer sntrup761")


@functools.cache
def is_usable(name: bytes) -> bool:
    """Return whether this machine supports the method: not every OpenSSL has ML-KEM, pqcrypto is optional."""
    return name not in _HYBRIDS or _HYBRIDS[name][0].is_available()


def kex_hash(name: bytes) -> Hash:
    """Return the hash function of the method ``name``."""
    return next(table[name][1] for table in (_MODP_METHODS, _HYBRIDS, _IMMEDIATE_METHODS) if name in table)


def derive(
    hash_: Hash, secret: bytes, exchange_hash: bytes, session_id: bytes, letter: bytes, size: int
) -> bytes:
    """Return ``size`` bytes of key material (RFC 4253 section 7.2); ``letter`` is A to F."""
    key: bytes = hash_(secret + exchange_hash + letter + session_id).digest()
    while len(key) < size:
        key += hash_(secret + exchange_hash + key).digest()
    return key[:size]
