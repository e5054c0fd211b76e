"""OpenSSH certificates (PROTOCOL.certkeys): the fields, a parser and an encoder.

``cryptography`` parses most certificates but treats security keys as plain keys; so this module parses the
whole format. ``signatures`` and ``certificate_checks`` decide whether a certificate is accepted.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import enum
import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from conchrec.errors import CertificateRejected, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.wire import Malformed, Reader, string, uint32, uint64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519

#: The suffix of every certificate type.
CERTIFICATE = b"-cert-v01@openssh.com"
#: "Forever" in ``valid before`` (PROTOCOL.certkeys).
FOREVER = 2**64 - 1
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16384
#: OpenSSH's limit (SSHKEY_CERT_MAX_PRINCIPALS); here also the limit for options.
MAX_PRINCIPALS = 256
#: The maximum length of a certificate, in bytes.
MAX_BLOB = 64 * 1024

ECDSA = (b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521")
SK_ED25519 = b"sk-ssh-ed25519@openssh.com"
SK_ECDSA = b"sk-ecdsa-sha2-nistp256@openssh.com"

#: Key types of plain public keys.
KEY_TYPES = (b"ssh-ed25519", SK_ED25519, *ECDSA, SK_ECDSA, b"ssh-rsa")


class CertificateKind(enum.Enum):
    """The certificate type (PROTOCOL.certkeys): for a user or for a host."""

    USER = 1
    HOST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """All fields of a certificate. Only the form has been checked.

    ``valid_after`` and ``valid_before`` are seconds since 1970. ``public_key`` and ``authority`` are wire
    blobs of plain keys. ``blob`` is the whole certificate, ``signed`` the part that the signature covers.
    """

    algorithm: bytes
    kind: CertificateKind
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: Mapping[str, bytes]
    extensions: Mapping[str, bytes]
    public_key: bytes
    authority: bytes
    signature: bytes
    signed: bytes
    blob: bytes

    @property
    def expires(self) -> datetime | None:
        """The end of the validity; None if the certificate never expires (or after the year 9999)."""
        try:
            return datetime.fromtimestamp(self.valid_before, timezone.utc)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def valid_until_text(self) -> str:
        """The end of the validity as RFC 3339 text, or ``forever``."""
        end = self.expires
        return end.isoformat().replace("+00:00", "Z") if end is not None else "forever"


def is_hardware(blob: bytes) -> bool:
    """Return whether a key, or the key in a certificate, has the type of a security key (PROTOCOL.u2f)."""
    return plain_type(key_type_of(blob)).startswith(b"sk-")


def plain_type(algorithm: bytes) -> bytes:
    """Return the key type of the plain key in a certificate of type ``algorithm``.

    This is also the algorithm name in a signature that belongs to a public key algorithm:
    ``rsa-sha2-512-cert-v01@openssh.com`` signs as ``rsa-sha2-512``, and
    ``sk-ssh-ed25519-cert-v01@openssh.com`` as ``sk-ssh-ed25519@openssh.com``.
    """
    if not algorithm.endswith(CERTIFICATE):
        return algorithm
    plain = algorithm[: -len(CERTIFICATE)]
    return plain + b"@openssh.com" if plain.startswith(b"sk-") else plain


def certificate_type(key_type: bytes) -> bytes:
    """Return the certificate type for a plain key type: the inverse of ``plain_type``."""
    return key_type.removesuffix(b"@openssh.com") + CERTIFICATE


def key_type_of(blob: bytes) -> bytes:
    """Return the first string of a key or certificate blob: its type. Raises RemoteViolation."""
    return Reader(blob).string()


def public_line(blob: bytes) -> str:
    """``type base64``, as in authorized_keys."""
    return f"{key_type_of(blob).decode()} {base64.b64encode(blob).decode()}"


def blob_of(lines: Iterable[str], kinds: Collection[bytes]) -> bytes | None:
    """The wire blob of the only key in these lines (``type base64 comment``).

    None where there is no key, or more than one, or one of another type.
    """
    filled = [line for line in lines if line.strip()]
    with contextlib.suppress(IndexError, ValueError, binascii.Error, RemoteViolation):
        kind, encoded = filled[0].split()[:2]
        blob = base64.b64decode(encoded, validate=True)
        if len(filled) == 1 and key_type_of(blob) == kind.encode() and kind.encode() in kinds:
            return blob
    return None


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a key as OpenSSH prints it (``SHA256:…``).

    For a certificate it is the fingerprint of the key in it.
    """
    try:
        if key_type_of(blob).endswith(CERTIFICATE):
            blob = decode(blob).public_key
    except RemoteViolation:
        pass  # malformed data also gets a fingerprint
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


# --- reading


def decode(blob: bytes) -> Certificate:
    """Parse a certificate. Raises RemoteViolation if it is malformed or not a certificate.

    ``string type, string nonce, key fields, uint64 serial, uint32 kind, string key id, string principals,
    uint64 valid after, uint64 valid before, string critical options, string extensions, string reserved,
    string authority, string signature``
    """
    if len(blob) > MAX_BLOB:
        raise Malformed(f"the certificate is too long: {len(blob)} bytes, the limit is {MAX_BLOB}")
    r = Reader(blob)
    algorithm = r.string()
    key_type = plain_type(algorithm)
    if not algorithm.endswith(CERTIFICATE) or key_type not in KEY_TYPES:
        raise Malformed("not a certificate")
    r.string()
    public_key = string(key_type) + _read_key_fields(r, key_type)
    serial = r.uint64()
    number = r.uint32()
    if number not in (CertificateKind.USER.value, CertificateKind.HOST.value):
        raise Malformed(f"unknown certificate type {number}")
    key_id = r.string()
    principals = _parse_strings(r.string())
    valid_after, valid_before = r.uint64(), r.uint64()
    critical, extensions = _parse_options(r.string()), _parse_options(r.string())
    r.string()
    authority = r.string()
    signed = blob[: len(blob) - len(r.rest())]
    rest = Reader(blob[len(signed) :])
    signature = rest.string()
    rest.end()
    return Certificate(
        algorithm=algorithm,
        kind=CertificateKind(number),
        serial=serial,
        key_id=_decode_utf8(key_id),
        principals=tuple(_decode_utf8(name) for name in principals),
        valid_after=valid_after,
        valid_before=valid_before,
        critical_options=critical,
        extensions=extensions,
        public_key=public_key,
        authority=authority,
        signature=signature,
        signed=signed,
        blob=blob,
    )


def _read_key_fields(r: Reader, key_type: bytes) -> bytes:
    """Return the encoded fields of a public key that follow its type (PROTOCOL.certkeys, PROTOCOL.u2f)."""
    if key_type == b"ssh-rsa":
        return string(r.string()) + string(r.string())
    fields = string(r.string())
    if key_type in ECDSA or key_type == SK_ECDSA:
        fields += string(r.string())
    if key_type in (SK_ED25519, SK_ECDSA):
        fields += string(r.string())
    return fields


def _parse_strings(packed: bytes) -> tuple[bytes, ...]:
    """Parse the principals: ``string name`` repeated."""
    r = Reader(packed)
    strings = []
    while not r.at_end:
        strings.append(r.string())
        if len(strings) > MAX_PRINCIPALS:
            raise Malformed(f"the certificate has more than {MAX_PRINCIPALS} principals")
    return tuple(strings)


def _parse_options(packed: bytes) -> dict[str, bytes]:
    """Parse options: ``string name, string value`` repeated. A value is often a string in a string."""
    r = Reader(packed)
    options: dict[str, bytes] = {}
    while not r.at_end:
        name = _decode_utf8(r.string())
        if name in options:
            raise Malformed("the certificate has an option twice")
        if len(options) >= MAX_PRINCIPALS:
            raise Malformed(f"the certificate has more than {MAX_PRINCIPALS} options")
        options[name] = r.string()
    return options


def _decode_utf8(raw: bytes) -> str:
    """Decode a text of a certificate. Raises Malformed."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("the certificate has a text that is not UTF-8") from error


def option_text(value: bytes) -> str:
    """Return the string in the value of an option such as ``source-address``. Raises RemoteViolation."""
    r = Reader(value)
    text = r.text()
    r.end()
    return text


# --- signing


def is_valid_principal(name: str) -> bool:
    """Return whether a certificate may be issued for the principal ``name``."""
    return bool(name) and name.isprintable() and "," not in name and len(name) <= 256


class CertificateSigner(Protocol):
    """A certificate authority (CA) that can sign certificates."""

    @property
    def blob(self) -> bytes:
        """The wire blob of the CA's plain public key."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``: ``string algorithm, string signature``."""


class Ed25519Authority:
    """A CertificateSigner with an Ed25519 key in memory."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.blob = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``: ``string algorithm, string signature``."""
        return string(b"ssh-ed25519") + string(self._key.sign(data))


def issue(
    *,
    authority: CertificateSigner,
    public_key: bytes,
    kind: CertificateKind,
    serial: int,
    key_id: str,
    principals: Sequence[str],
    valid_after: int,
    valid_before: int,
    critical_options: Mapping[str, bytes] | None = None,
    extensions: Mapping[str, bytes] | None = None,
) -> Certificate:
    """Sign a certificate for a plain public key.

    Raises CertificateRejected for a missing or invalid principal, a key that is a certificate, an RSA key
    that is too short, or an empty validity period.
    """
    r = Reader(public_key)
    key_type = r.string()
    if key_type not in KEY_TYPES:
        raise CertificateRejected(
            "only a plain public key can be certified", code=ReasonCode.KEY_NOT_CERTIFIABLE
        )
    fields = _read_key_fields(r, key_type)
    r.end()
    if key_type == b"ssh-rsa" and _rsa_bits(public_key) < MIN_RSA_BITS:
        raise CertificateRejected(
            f"the RSA key is too short: it must have at least {MIN_RSA_BITS} bits",
            code=ReasonCode.KEY_NOT_CERTIFIABLE,
        )
    if not principals or not all(map(is_valid_principal, principals)):
        raise CertificateRejected(
            "invalid principal: must be 1 to 256 printable characters without commas",
            code=ReasonCode.INVALID_PRINCIPAL,
        )
    if valid_after >= valid_before:
        raise CertificateRejected(
            "the validity period of the certificate is empty", code=ReasonCode.VALIDITY_EMPTY
        )
    signed = (
        string(certificate_type(key_type))
        + string(secrets.token_bytes(32))
        + fields
        + uint64(serial)
        + uint32(kind.value)
        + string(key_id.encode())
        + string(b"".join(string(principal.encode()) for principal in principals))
        + uint64(valid_after)
        + uint64(valid_before)
        + string(_encode_options(critical_options or {}))
        + string(_encode_options(extensions or {}))
        + string(b"")
        + string(authority.blob)
    )
    return decode(signed + string(authority.sign(signed)))


def _encode_options(options: Mapping[str, bytes]) -> bytes:
    """Encode options, sorted by name as PROTOCOL.certkeys requires."""
    return b"".join(string(name.encode()) + string(options[name]) for name in sorted(options))


def _rsa_bits(blob: bytes) -> int:
    """Return the size of the modulus of an RSA key blob, in bits."""
    r = Reader(blob)
    r.string()
    r.mpint()
    return r.mpint().bit_length()
