"""What can sign a login: the protocol, keys in memory, and the choice of a signature algorithm.

RFC 8332 gives RSA keys SHA-2, RFC 8308 lets the server say which it takes, and OpenSSH's
PROTOCOL.certkeys names the certificate forms. SHA-1 is never chosen.
"""

from __future__ import annotations

from typing import Protocol

from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, maybeDeferred

from conchrec.ssh.certificate import certificate_type, plain_type

#: The names in the server's ``server-sig-algs``; ``None`` where it sent none.
Accepted = frozenset[bytes] | None

#: Strongest first.
_RSA = (b"rsa-sha2-512", b"rsa-sha2-256")


class Signer(Protocol):
    """A key or certificate that can be offered and can sign."""

    @property
    def blob(self) -> bytes:
        """The public key or certificate, as it goes on the wire."""

    @property
    def label(self) -> str:
        """What people read; printable."""

    def algorithm(self, accepted: Accepted) -> bytes | None:
        """The name to offer it under; ``None`` where this server takes no algorithm that it can do."""

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """The signature blob (``string name, string signature``) over ``data``."""


def accepted_algorithm(key_type: bytes, accepted: Accepted) -> bytes | None:
    """The public key algorithm name under which a blob of ``key_type`` is offered.

    As OpenSSH does: for RSA the list of the server decides, and without a list the strongest is
    tried. Every other type has one algorithm only and is tried in any case, for servers exist whose
    list is not complete. A certificate is listed by its plain algorithm.
    """
    if plain_type(key_type) != b"ssh-rsa":
        return key_type
    for name in _RSA:
        if accepted is None or name in accepted:
            return name if key_type == b"ssh-rsa" else certificate_type(name)
    return None


class KeySigner:
    """A private key in memory, alone or with a certificate for it."""

    def __init__(self, key: Key, *, label: str, certificate: bytes | None = None) -> None:
        self._key = key
        self.label = label
        self.blob: bytes = key.public().blob() if certificate is None else certificate
        self._key_type = key.sshType() if certificate is None else _key_type_of(certificate)

    def algorithm(self, accepted: Accepted) -> bytes | None:
        return accepted_algorithm(self._key_type, accepted)

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        return maybeDeferred(self._key.sign, data, plain_type(algorithm))


def _key_type_of(blob: bytes) -> bytes:
    return blob[4 : 4 + int.from_bytes(blob[:4], "big")]
