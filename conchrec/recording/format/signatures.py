"""What makes a recording evidence: signatures over what was written, and their exact form.

Pure: a key, bytes, texts. ``docs/recordings.md`` says the same for those who write a verifier of their
own. All signatures are Ed25519 (RFC 8032) over a line that names what is signed, then the thing itself:

- A *checkpoint* is an event of the cast, about one a second while something is written. Its text is
  ``1 SIZE SHA256 SIGNATURE``: the first SIZE bytes of the cast have that digest (hexadecimal). A digest
  of everything before holds each line to the one before it, as a chain does, and needs no second hash.
- A *manifest* is a JSON text whose last member is ``signed``; the signature is over all bytes before it.
- An *entry* of the ledger is a line of JSON whose last member is ``signature``, in the same way; so is a
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
"""The code of checkpoints in a cast; players pass by what they do not know."""

_SIGNED = b',\n "signed": '
_ENTRY = b',"signature":"'
_LEDGER = b"conchrec ledger 1\n"
_AUDIT = b"conchrec audit 1\n"
_POINT = re.compile(r"1 ([0-9]{1,18}) ([0-9a-f]{64}) ([A-Za-z0-9+/]{86}==)")
_LINE = re.compile(rb'\[ *[0-9.eE+]+ *, *"c" *,')
_TAIL = re.compile(rb'\{"key": "(SHA256:[A-Za-z0-9+/]{43})", "signature": "([A-Za-z0-9+/]{86}==)"\}\n\}\n')
_ENTRY_TAIL = re.compile(rb'([A-Za-z0-9+/]{86}==)"\}\n')


def is_checkpoint(line: bytes) -> bool:
    """Is this line of a cast one?"""
    return _LINE.match(line) is not None


class NotSigned(RecordingError):
    """There is no signature, or none of a key that is trusted, or it is not over this."""

    default_code = ReasonCode.SIGNATURE_INVALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says: the first ``size`` bytes of the cast have this digest (hexadecimal)."""

    size: int
    sha256: str
    signature: bytes


class RecordingSigner:
    """The key of an installation, with which everything that it records is signed."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key()
        self.name = fingerprint(public)
        self.public_line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")

    @classmethod
    def generate(cls) -> RecordingSigner:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: bytes) -> RecordingSigner:
        """Read a private key in OpenSSH's format, without a passphrase; ValueError where it is none."""
        try:
            key = load_ssh_private_key(text, None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("it is not an ed25519 key")
        return cls(key)

    def keys(self) -> TrustedKeys:
        """What verifies what this one signs."""
        return TrustedKeys((self._key.public_key(),))

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """The text of a checkpoint event."""
        return f"1 {size} {sha256} {_base64(self._key.sign(_point(sid, size, sha256)))}"

    def manifest(self, document: bytes) -> bytes:
        """``document``, a JSON object as ``Manifest.encode`` writes it, signed."""
        body = document.removesuffix(b"\n}\n")
        signature = _base64(self._key.sign(b"conchrec manifest 1\n" + body))
        return body + _SIGNED + f'{{"key": "{self.name}", "signature": "{signature}"}}\n}}\n'.encode("ascii")

    def entry(self, line: bytes) -> bytes:
        """``line``, a JSON object without spaces or newline, signed, as a line."""
        return self._signed_line(_LEDGER, line)

    def audit_head(self, line: bytes) -> bytes:
        """The same for a head of the audit log."""
        return self._signed_line(_AUDIT, line)

    def _signed_line(self, context: bytes, line: bytes) -> bytes:
        body = line.removesuffix(b"}")
        signature = _base64(self._key.sign(context + body))
        return body + _ENTRY + signature.encode("ascii") + b'"}\n'


class TrustedKeys:
    """Public keys that are trusted to have signed recordings: of an installation, and of its past."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {fingerprint(key): key for key in keys}
        self.names = tuple(self._keys)

    @classmethod
    def parse(cls, text: bytes) -> TrustedKeys:
        """One ``ssh-ed25519 …`` a line; ValueError where a line is none, or there is no line."""
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
        """What a checkpoint of the recording ``sid`` says. NotSigned where it is none of ours."""
        found = _POINT.fullmatch(text)
        if found is None:
            raise NotSigned("a checkpoint is malformed", code=ReasonCode.NOT_SIGNED)
        size, digest = int(found[1]), found[2]
        point = Checkpoint(size=size, sha256=digest, signature=_decoded(found[3]))
        self._check_any(point.signature, _point(sid, size, digest), "a checkpoint")
        return point

    def manifest(self, text: bytes) -> None:
        """Raises NotSigned where this is not a manifest that one of the keys has signed."""
        body, found, tail = text.rpartition(_SIGNED)
        if not found:
            raise NotSigned("the manifest is not signed", code=ReasonCode.NOT_SIGNED)
        parts = _TAIL.fullmatch(tail)
        if parts is None:
            raise NotSigned("the signature of the manifest is malformed", code=ReasonCode.NOT_SIGNED)
        name = parts[1].decode("ascii")
        if name not in self._keys:
            raise NotSigned(
                f"the manifest is signed by an unknown key: {name}", code=ReasonCode.SIGNED_BY_OTHER_KEY
            )
        self._check(name, _decoded(parts[2].decode("ascii")), b"conchrec manifest 1\n" + body, "the manifest")

    def entry(self, line: bytes) -> None:
        """Raises NotSigned where this is not a line of a ledger that one of the keys has signed."""
        self._check_line(_LEDGER, line, "a line of the ledger")

    def audit_head(self, line: bytes) -> None:
        """Raises NotSigned where this is not a head of an audit log that one of the keys has signed."""
        self._check_line(_AUDIT, line, "a head of the audit log")

    def _check_line(self, context: bytes, line: bytes, what: str) -> None:
        body, found, tail = line.rpartition(_ENTRY)
        parts = _ENTRY_TAIL.fullmatch(tail)
        if not found or parts is None:
            raise NotSigned(f"{what} is not signed", code=ReasonCode.NOT_SIGNED)
        signature = _decoded(parts[1].decode("ascii"))
        self._check_any(signature, context + body, what)

    def _check_any(self, signature: bytes, message: bytes, what: str) -> None:
        for name in self.names:
            with contextlib.suppress(NotSigned):
                self._check(name, signature, message, what)
                return
        raise NotSigned(f"signature verification failed for {what}")

    def _check(self, name: str, signature: bytes, message: bytes, what: str) -> None:
        try:
            self._keys[name].verify(signature, message)
        except InvalidSignature:
            raise NotSigned(f"signature verification failed for {what}") from None


def fingerprint(key: Ed25519PublicKey) -> str:
    """As ``ssh-keygen -l`` prints it."""
    blob = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    digest = hashlib.sha256(binascii.a2b_base64(blob)).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _point(sid: str, size: int, sha256: str) -> bytes:
    return f"conchrec checkpoint 1\n{sid} {size} {sha256}".encode("ascii")


def _decoded(text: str) -> bytes:
    """The one text for a signature is taken, and no other that decodes to the same (RFC 4648, 3.5)."""
    signature = base64.b64decode(text)
    if _base64(signature) != text:
        raise NotSigned("a signature is malformed: it is not canonical base64")
    return signature


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
