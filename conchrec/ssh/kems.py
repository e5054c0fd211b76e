"""Key encapsulation mechanisms for the hybrid key exchange methods.

The client makes a key pair and sends the public key. The server encapsulates: it makes a secret, and a
ciphertext that only the private key opens. The client decapsulates the ciphertext and has the same secret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm

try:
    from cryptography.hazmat.primitives.asymmetric import mlkem
except ImportError:  # cryptography is older than ML-KEM
    mlkem = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class KemKeyPair:
    """A key pair for one key exchange.

    ``decapsulate`` holds the private key, and returns the secret for a ciphertext of the right length.
    """

    public: bytes
    decapsulate: Callable[[bytes], bytes]

    def __repr__(self) -> str:
        """Leave the private key out."""
        return f"KemKeyPair(public={len(self.public)} bytes)"


class Kem(Protocol):
    """A key encapsulation mechanism; sizes are in bytes."""

    name: str
    public_size: int
    ciphertext_size: int

    def is_available(self) -> bool:
        """Return whether this machine supports it."""

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Return a ciphertext and its secret. Raises ValueError for an invalid public key."""


class MlKem768:
    """ML-KEM-768 (FIPS 203), by OpenSSL. It needs 0.1 ms for each step."""

    name = "ML-KEM"
    public_size = 1184
    ciphertext_size = 1088

    def is_available(self) -> bool:
        """Return whether cryptography and its OpenSSL have ML-KEM."""
        try:
            self.generate()
        except (AttributeError, UnsupportedAlgorithm):
            return False
        return True

    def generate(self) -> KemKeyPair:
        """Make a key pair."""
        private = mlkem.MLKEM768PrivateKey.generate()
        return KemKeyPair(public=private.public_key().public_bytes_raw(), decapsulate=private.decapsulate)

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Return a ciphertext and its secret. Raises ValueError for an invalid public key."""
        secret, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        return ciphertext, secret


class Sntrup761:
    """Streamlined NTRU Prime 761, by pqcrypto.

    Encapsulation needs 0.2 ms and decapsulation 0.4 ms. A key pair needs 20 ms with the interpreter's lock
    held, so ``conchrec.ssh.kex_worker`` makes it. Every public key and every ciphertext of the right length
    is valid: after decapsulation of a wrong one the two sides have different secrets.
    """

    name = "sntrup761"
    public_size = 1158
    ciphertext_size = 1039

    def is_available(self) -> bool:
        """Return whether pqcrypto is installed and has sntrup761."""
        try:
            _sntrup761()
        except (ImportError, AttributeError):
            return False
        return True

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Return a ciphertext and its secret. Raises ValueError for a public key of another length."""
        ciphertext, secret = _sntrup761().encaps(public)
        return ciphertext, secret

    def key_pair(self, public: bytes, private: bytes) -> KemKeyPair:
        """Return a key pair for its encoded keys."""

        def decapsulate(ciphertext: bytes) -> bytes:
            secret: bytes = _sntrup761().decaps(private, ciphertext)
            return secret

        return KemKeyPair(public=public, decapsulate=decapsulate)


def _sntrup761() -> Any:
    """Import pqcrypto, which is optional and takes 10 ms. Raises ImportError or AttributeError."""
    from pqcrypto import pqcrypto

    return pqcrypto.Sntrup761


MLKEM768 = MlKem768()
SNTRUP761 = Sntrup761()
