"""The host keys of our servers, which sign in each key exchange (RFC 4253, section 8)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.ssh.certificate import CERTIFICATE
from conchrec.ssh.wire import string


class ServerHostKey:
    """An Ed25519 host key of a server, plain or with a certificate."""

    def __init__(self, key: ed25519.Ed25519PrivateKey, certificate: bytes | None = None) -> None:
        self._key = key
        self._blob = certificate or string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())

    def blob(self) -> bytes:
        """Return the wire blob of the key or certificate."""
        return self._blob

    def sign(self, data: bytes, signatureType: bytes = b"ssh-ed25519") -> bytes:
        """Return a signature over ``data``: ``string algorithm, string signature``."""
        return string(b"ssh-ed25519") + string(self._key.sign(data))


class ServerHostKeys:
    """The host keys of one server: the certificate first, then the plain key for clients without the CA."""

    def __init__(self, key: ed25519.Ed25519PrivateKey, certificate: bytes | None) -> None:
        self._keys: dict[bytes, ServerHostKey] = {}
        if certificate is not None:
            self._keys[b"ssh-ed25519" + CERTIFICATE] = ServerHostKey(key, certificate)
        self._keys[b"ssh-ed25519"] = ServerHostKey(key)

    @property
    def algorithms(self) -> tuple[bytes, ...]:
        """The host key algorithms to offer, in order of preference."""
        return tuple(self._keys)

    def get(self, algorithm: bytes) -> ServerHostKey:
        """Return the key for an offered algorithm. Raises KeyError for another one."""
        return self._keys[algorithm]
