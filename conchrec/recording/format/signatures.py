"""The signatures of recordings, and their exact form.

Only keys, bytes and texts; no files. ``docs/recordings.md`` describes the same for people who write another
verifier. All signatures are Ed25519 (RFC 8032) over a line that names the kind, followed by what is signed:

- A *checkpoint* is an event of the cast, about one a second while something is written. Its text is
  ``1 SIZE SHA256 SIGNATURE``: the first SIZE bytes of the cast have that digest (hexadecimal). A digest
  of everything before links each line to the one before it, as a chain does, and needs no second hash.
- A *manifest* is a JSON text whose last member is ``signed``; the signature is over all bytes before it.
- An *entry* of the ledger is a line of JSON whose last member is ``signature``, in the same form; so is a
  *head* of the audit log (docs/audit.md).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode

CHECKPOINT = "c"
"""The code of checkpoints in a cast; players ignore codes that they do not know."""

_SIGNED = b',\n "signed": '
_ENTRY = b',"signature":"'
_LEDGER = b"conchrec ledger 1\n"
_AUDIT = b"conchrec audit 1\n"
_CHECKPOINT = re.compile(r"1 ([0-9]{1,18}) ([0-9a-f]{64}) ([A-Za-z0-9+/]{86}==)")
_CHECKPOINT_LINE = re.compile(rb'\[ *[0-9.eE+]+ *, *"c" *,')
_MANIFEST_TAIL = re.compile(
    rb'\{"key": "(SHA256:[A-Za-z0-9+/]{43})", "signature": "([A-Za-z0-9+/]{86}==)"\}\n\}\n'
)
_ENTRY_TAIL = re.compile(rb'([A-Za-z0-9+/]{86}==)"\}\n')


def is_checkpoint(line: bytes) -> bool:
    """Return whether this line of a cast is a checkpoint."""
    return _CHECKPOINT_LINE.match(line) is not None


class NotSigned(RecordingError):
    """There is no signature, or none of a trusted key, or its verification failed."""

    default_code = ReasonCode.SIGNATURE_INVALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint: the first ``size`` bytes of the cast have this digest (hexadecimal)."""

    size: int
    sha256: str
    signature: bytes


class RecordingSigner:
    """The key of an installation, which signs its recordings, its ledger and its audit log."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key()
        self.name = fingerprint(public)
        self.public_line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")

    @classmethod
    def generate(cls) -> RecordingSigner:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: bytes) -> RecordingSigner:
        """Read a private key in OpenSSH's format, without a passphrase. Raises ValueError."""
        try:
            key = load_ssh_private_key(text, None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("it is not an ed25519 key")
        return cls(key)

    def keys(self) -> TrustedKeys:
        """Return the public key, as trusted keys."""
        return TrustedKeys((self._key.public_key(),))

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """Return the text of a checkpoint event."""
        return f"1 {size} {sha256} {_base64(self._key.sign(_checkpoint_message(sid, size, sha256)))}"

    def manifest(self, document: bytes) -> bytes:
        """Sign ``document``, a JSON object in the form of ``Manifest.encode``."""
        body = document.removesuffix(b"\n}\n")
        signature = _base64(self._key.sign(b"conchrec manifest 1\n" + body))
        return body + _SIGNED + f'{{"key": "{self.name}", "signature": "{signature}"}}\n}}\n'.encode("ascii")

    def entry(self, line: bytes) -> bytes:
        """Sign ``line``, a JSON object without spaces or newline. Returns a line of the ledger."""
        return self._signed_line(_LEDGER, line)

    def audit_head(self, line: bytes) -> bytes:
        """Sign ``line``, a JSON object without spaces or newline. Returns a head of the audit log."""
        return self._signed_line(_AUDIT, line)

    def _signed_line(self, context: bytes, line: bytes) -> bytes:
        body = line.removesuffix(b"}")
        signature = _base64(self._key.sign(context + body))
        return body + _ENTRY + signature.encode("ascii") + b'"}\n'


class TrustedKeys:
    """Public keys that are trusted to have signed recordings: the current and earlier keys of an
    installation."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {fingerprint(key): key for key in keys}
        self.names = tuple(self._keys)

    @classmethod
    def parse(cls, text: bytes) -> TrustedKeys:
        """Read one ``ssh-ed25519 …`` key on each line. Raises ValueError for an invalid line, and where there
        is no key."""
        keys = []
        for line in text.splitlines():
            if line.strip() and not line.startswith(b"#"):
                try:
                    key = load_ssh_public_key(line)
                except UnsupportedAlgorithm as error:
                    raise ValueError(str(error)) from error
                if not isinstance(key, Ed25519PublicKey):
                    raise ValueError("it is not an ed25519 key")
                keys.append(key)
        if not keys:
            raise ValueError("the file has no key")
        return cls(keys)

    def checkpoint(self, sid: str, text: str) -> Checkpoint:
        """Verify a checkpoint of the recording ``sid``. Raises NotSigned."""
        match = _CHECKPOINT.fullmatch(text)
        if match is None:
            raise NotSigned("a checkpoint is malformed", code=ReasonCode.NOT_SIGNED)
        size, digest = int(match[1]), match[2]
        point = Checkpoint(size=size, sha256=digest, signature=_decode_signature(match[3]))
        self._verify_with_any(point.signature, _checkpoint_message(sid, size, digest), "a checkpoint")
        return point

    def manifest(self, text: bytes) -> None:
        """Verify a manifest. Raises NotSigned."""
        body, separator, tail = text.rpartition(_SIGNED)
        if not separator:
            raise NotSigned("the manifest is not signed", code=ReasonCode.NOT_SIGNED)
        parts = _MANIFEST_TAIL.fullmatch(tail)
        if parts is None:
            raise NotSigned("the signature of the manifest is malformed", code=ReasonCode.NOT_SIGNED)
        name = parts[1].decode("ascii")
        if name not in self._keys:
            raise NotSigned(
                f"the manifest is signed by an unknown key: {name}", code=ReasonCode.SIGNED_BY_OTHER_KEY
            )
        self._verify(
            name, _decode_signature(parts[2].decode("ascii")), b"conchrec manifest 1\n" + body, "the manifest"
        )

    def entry(self, line: bytes) -> None:
        """Verify a line of a ledger. Raises NotSigned."""
        self._verify_line(_LEDGER, line, "a line of the ledger")

    def audit_head(self, line: bytes) -> None:
        """Verify a head of an audit log. Raises NotSigned."""
        self._verify_line(_AUDIT, line, "a head of the audit log")

    def _verify_line(self, context: bytes, line: bytes, what: str) -> None:
        body, separator, tail = line.rpartition(_ENTRY)
        parts = _ENTRY_TAIL.fullmatch(tail)
        if not separator or parts is None:
            raise NotSigned(f"{what} is not signed", code=ReasonCode.NOT_SIGNED)
        signature = _decode_signature(parts[1].decode("ascii"))
        self._verify_with_any(signature, context + body, what)

    def _verify_with_any(self, signature: bytes, message: bytes, what: str) -> None:
        for name in self.names:
            with contextlib.suppress(NotSigned):
                self._verify(name, signature, message, what)
                return
        raise NotSigned(f"signature verification failed for {what}")

    def _verify(self, name: str, signature: bytes, message: bytes, what: str) -> None:
        try:
            self._keys[name].verify(signature, message)
        except InvalidSignature:
            raise NotSigned(f"signature verification failed for {what}") from None


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the fingerprint that ``ssh-keygen -l`` prints."""
    blob = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    digest = hashlib.sha256(binascii.a2b_base64(blob)).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _checkpoint_message(sid: str, size: int, sha256: str) -> bytes:
    return f"conchrec checkpoint 1\n{sid} {size} {sha256}".encode("ascii")


def _decode_signature(text: str) -> bytes:
    """Decode a signature. Only the canonical base64 text is accepted, and no other that decodes to the same
    (RFC 4648, section 3.5)."""
    signature = base64.b64decode(text)
    if _base64(signature) != text:
        raise NotSigned("a signature is malformed: it is not canonical base64")
    return signature


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
