"""Keys that can sign a login: the interface, keys in memory, and the choice of the signature algorithm.

RFC 8332 defines SHA-2 for RSA keys, RFC 8308 the server's list of algorithms, and PROTOCOL.certkeys the
names for certificates. SHA-1 is never chosen.
"""

from __future__ import annotations

from typing import Protocol

from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, maybeDeferred

from conchrec.ssh.certificate import certificate_type, plain_type

#: The names in the server's ``server-sig-algs``; ``None`` without that extension.
Accepted = frozenset[bytes] | None

#: Strongest first.
_RSA = (b"rsa-sha2-512", b"rsa-sha2-256")


class Signer(Protocol):
    """A key or certificate that can be offered and can sign."""

    @property
    def blob(self) -> bytes:
        """The wire blob of the public key or certificate."""

    @property
    def label(self) -> str:
        """The name of the key for people; printable."""

    def algorithm(self, accepted: Accepted) -> bytes | None:
        """Return the public key algorithm to offer, or ``None`` if the server accepts none of this key."""

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """Return the signature over ``data``: ``string algorithm, string signature``."""


def accepted_algorithm(key_type: bytes, accepted: Accepted) -> bytes | None:
    """Return the public key algorithm for a blob of type ``key_type``, or ``None``.

    As in OpenSSH, the server's list decides for RSA; without a list the strongest algorithm is used. Other
    types have one algorithm, which is offered in any case, because some servers send an incomplete list.
    The list contains plain algorithms, also for certificates.
    """
    if plain_type(key_type) != b"ssh-rsa":
        return key_type
    for name in _RSA:
        if accepted is None or name in accepted:
            return name if key_type == b"ssh-rsa" else certificate_type(name)
    return None


class KeySigner:
    """A Signer with a private key in memory, and optionally a certificate for it."""

    def __init__(self, key: Key, *, label: str, certificate: bytes | None = None) -> None:
        self._key = key
        self.label = label
        self.blob: bytes = key.public().blob() if certificate is None else certificate
        self._key_type = key.sshType() if certificate is None else _key_type_of(certificate)

    def algorithm(self, accepted: Accepted) -> bytes | None:
        """Return the public key algorithm to offer, or ``None``."""
        return accepted_algorithm(self._key_type, accepted)

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """Return the signature over ``data``: ``string algorithm, string signature``."""
        return maybeDeferred(self._key.sign, data, plain_type(algorithm))


def _key_type_of(blob: bytes) -> bytes:
    """Return the first string of a blob."""
    return blob[4 : 4 + int.from_bytes(blob[:4], "big")]
