"""Key exchanges: two public values become one secret (RFC 4253 section 8, 5656, 8731; ML-KEM hybrid).

Every method that we offer has the same two messages: 30 carries the client's value, 31 the host key,
the server's value and the signature over the exchange hash. Values and secrets are handed over as they
stand in the hash: a value without its length, a secret with it.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.errors import RemoteViolation
from conchrec.ssh.wire import mpint, string

try:
    from cryptography.hazmat.primitives.asymmetric import mlkem
except ImportError:  # older than ML-KEM
    mlkem = None  # type: ignore[assignment]

Hash = Callable[[bytes], Any]


class KeyExchange(Protocol):
    """One run. A client calls ``offer`` and then ``complete``, a server ``accept`` alone.

    All raise RemoteViolation for a value that is no value.
    """

    def offer(self) -> bytes:
        """The client's value."""

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        """The server's value, and the secret."""

    def complete(self, theirs: bytes) -> bytes:
        """The secret."""


class _X25519:
    """curve25519-sha256 (RFC 8731)."""

    def __init__(self) -> None:
        self._private = x25519.X25519PrivateKey.generate()

    def offer(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        return self.offer(), self.complete(theirs)

    def complete(self, theirs: bytes) -> bytes:
        return mpint(int.from_bytes(self.shared(theirs), "big"))

    def shared(self, theirs: bytes) -> bytes:
        try:
            return self._private.exchange(x25519.X25519PublicKey.from_public_bytes(theirs))
        except ValueError as error:
            raise RemoteViolation("not a public value of X25519") from error


class _Nist:
    """ecdh-sha2-nistp* (RFC 5656 section 4)."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve
        self._private = ec.generate_private_key(curve)

    def offer(self) -> bytes:
        return self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        return self.offer(), self.complete(theirs)

    def complete(self, theirs: bytes) -> bytes:
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, theirs)
            shared = self._private.exchange(ec.ECDH(), point)
        except ValueError as error:
            raise RemoteViolation("not a point on the curve") from error
        return mpint(int.from_bytes(shared, "big"))


class _Hybrid:
    """mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex): both secrets, hashed together."""

    _ENCAPSULATION = 1184
    _CIPHERTEXT = 1088

    def __init__(self) -> None:
        self._classic = _X25519()
        self._private: mlkem.MLKEM768PrivateKey | None = None

    def offer(self) -> bytes:
        self._private = mlkem.MLKEM768PrivateKey.generate()
        return self._private.public_key().public_bytes_raw() + self._classic.offer()

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        if len(theirs) != self._ENCAPSULATION + 32:
            raise RemoteViolation("a hybrid public value of the wrong length")
        try:
            public = mlkem.MLKEM768PublicKey.from_public_bytes(theirs[: self._ENCAPSULATION])
        except ValueError as error:
            raise RemoteViolation("not a public value of ML-KEM") from error
        secret, ciphertext = public.encapsulate()
        shared = self._classic.shared(theirs[self._ENCAPSULATION :])
        return ciphertext + self._classic.offer(), _hashed(secret + shared)

    def complete(self, theirs: bytes) -> bytes:
        if len(theirs) != self._CIPHERTEXT + 32 or self._private is None:
            raise RemoteViolation("a hybrid answer of the wrong length")
        secret = self._private.decapsulate(theirs[: self._CIPHERTEXT])
        return _hashed(secret + self._classic.shared(theirs[self._CIPHERTEXT :]))


def _hashed(secret: bytes) -> bytes:
    return string(hashlib.sha256(secret).digest())


class _Modp:
    """diffie-hellman-group14/16/18 (RFC 8268): the groups of RFC 3526, generator 2; and the one of RFC
    2409 section 6.2, which RFC 4253 calls group1."""

    def __init__(self, bits: int) -> None:
        self._prime = modp_prime(bits)
        # Twice the strength of the group is enough of an exponent (RFC 4419 section 6.2).
        self._secret = secrets.randbits(512) | 1 << 511
        self._public = pow(2, self._secret, self._prime)

    def offer(self) -> bytes:
        return mpint(self._public)[4:]

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        return self.offer(), self.complete(theirs)

    def complete(self, theirs: bytes) -> bytes:
        value = int.from_bytes(theirs, "big", signed=True)
        if not 1 < value < self._prime - 1:
            raise RemoteViolation("a Diffie-Hellman value out of range")
        return mpint(pow(value, self._secret, self._prime))


#: RFC 2409 and RFC 3526: p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + offset).
_MODP_OFFSETS = {1024: 129093, 2048: 124476, 4096: 240904, 8192: 4743158}


@functools.cache
def modp_prime(bits: int) -> int:
    """The prime of RFC 3526 (or 2409) with that many bits, from its own formula."""
    prime: int = (1 << bits) - (1 << (bits - 64)) - 1 + ((_pi(bits - 130) + _MODP_OFFSETS[bits]) << 64)
    return prime


def _pi(bits: int) -> int:
    """floor(2^bits * pi), by Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    guard = 64
    one = 1 << (bits + guard)

    def arctan_inverse(x: int) -> int:
        power = total = one // x
        square, n, sign = x * x, 3, -1
        while power:
            power //= square
            total += sign * (power // n)
            sign, n = -sign, n + 2
        return total

    return (16 * arctan_inverse(5) - 4 * arctan_inverse(239)) >> guard


_METHODS: dict[bytes, tuple[Callable[[], KeyExchange], Hash]] = {
    b"mlkem768x25519-sha256": (_Hybrid, hashlib.sha256),
    b"curve25519-sha256": (_X25519, hashlib.sha256),
    b"curve25519-sha256@libssh.org": (_X25519, hashlib.sha256),
    b"ecdh-sha2-nistp256": (lambda: _Nist(ec.SECP256R1()), hashlib.sha256),
    b"ecdh-sha2-nistp384": (lambda: _Nist(ec.SECP384R1()), hashlib.sha384),
    b"ecdh-sha2-nistp521": (lambda: _Nist(ec.SECP521R1()), hashlib.sha512),
    b"diffie-hellman-group18-sha512": (lambda: _Modp(8192), hashlib.sha512),
    b"diffie-hellman-group16-sha512": (lambda: _Modp(4096), hashlib.sha512),
    b"diffie-hellman-group14-sha256": (lambda: _Modp(2048), hashlib.sha256),
    b"diffie-hellman-group14-sha1": (lambda: _Modp(2048), hashlib.sha1),
    b"diffie-hellman-group1-sha1": (lambda: _Modp(1024), hashlib.sha1),
}


def exchange(name: bytes) -> KeyExchange:
    """A new run of the method ``name``, which is one that we offered."""
    return _METHODS[name][0]()


@functools.cache
def usable(name: bytes) -> bool:
    """Can this machine do it? Not every OpenSSL has ML-KEM."""
    if _METHODS[name][0] is not _Hybrid:
        return True
    try:
        _Hybrid().offer()
    except (AttributeError, UnsupportedAlgorithm):
        return False
    return True


def hash_of(name: bytes) -> Hash:
    """The hash of the method ``name``."""
    return _METHODS[name][1]


def derive(
    hash_: Hash, secret: bytes, exchange_hash: bytes, session_id: bytes, letter: bytes, size: int
) -> bytes:
    """``size`` bytes of key material (RFC 4253 section 7.2); ``letter`` is A to F."""
    key: bytes = hash_(secret + exchange_hash + letter + session_id).digest()
    while len(key) < size:
        key += hash_(secret + exchange_hash + key).digest()
    return key[:size]
