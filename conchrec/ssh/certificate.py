"""OpenSSH certificates (PROTOCOL.certkeys), and signatures by plain keys and by certificates.

``cryptography`` parses most of them and checks no policy, and it takes security keys for plain ones;
so the whole format is read here, and each check has a place of its own: type, authority, signature,
validity, principals, critical options. SHA-1 and DSA are accepted from one old host, where its rule asks for
that, and never in a certificate.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from conchrec.errors import CertificateRejected, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.wire import Malformed, Reader, string, uint32, uint64
from conchrec.text import quote

#: What the type of every certificate ends with.
CERTIFICATE = b"-cert-v01@openssh.com"
#: "Forever" in ``valid before`` (PROTOCOL.certkeys).
FOREVER = 2**64 - 1
MIN_RSA_BITS = 2048
#: RSA and DSA keys of old hosts, where a rule takes them.
MIN_OLD_BITS = 1024
MAX_RSA_BITS = 16384
#: What OpenSSL takes with large moduli. A longer exponent makes a verification as slow as a signature (8 ms
#: with 3072 bits); 65537 has 17 bits.
MAX_RSA_EXPONENT_BITS = 64
#: As OpenSSH has it (SSHKEY_CERT_MAX_PRINCIPALS), and the same for options.
MAX_PRINCIPALS = 256
#: No certificate of sense is larger.
MAX_BLOB = 64 * 1024

_CURVES: dict[bytes, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    b"nistp256": (ec.SECP256R1(), hashes.SHA256()),
    b"nistp384": (ec.SECP384R1(), hashes.SHA384()),
    b"nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_ECDSA = tuple(b"ecdsa-sha2-" + curve for curve in _CURVES)
SK_ED25519 = b"sk-ssh-ed25519@openssh.com"
SK_ECDSA = b"sk-ecdsa-sha2-nistp256@openssh.com"

#: Key types of plain public keys.
KEY_TYPES = (b"ssh-ed25519", SK_ED25519, *_ECDSA, SK_ECDSA, b"ssh-rsa")
#: Signature algorithms, as ``server-sig-algs`` lists them.
SIGNATURES = (b"ssh-ed25519", SK_ED25519, *_ECDSA, SK_ECDSA, b"rsa-sha2-512", b"rsa-sha2-256")

#: Signatures of old hosts.
WITH_SHA1 = (b"ssh-rsa", b"ssh-dss")

_USER_PRESENT = 0x01
_USER_VERIFIED = 0x04


class CertificateKind(enum.Enum):
    USER = 1
    HOST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """All fields of a certificate; nothing is checked yet but its form.

    ``valid_after`` and ``valid_before`` are seconds since 1970; ``public_key`` and ``authority`` are
    wire blobs of plain keys; ``blob`` is the whole certificate, ``signed`` the part that is signed.
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
        """When it ends; None where it never does (or after the year 9999)."""
        try:
            return datetime.fromtimestamp(self.valid_before, timezone.utc)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def valid_until_text(self) -> str:
        """RFC 3339, or ``forever``."""
        end = self.expires
        return end.isoformat().replace("+00:00", "Z") if end is not None else "forever"


def is_hardware(blob: bytes) -> bool:
    """Does this key, or the one in this certificate, call itself one of a security key (PROTOCOL.u2f)?"""
    return plain_type(key_type_of(blob)).startswith(b"sk-")


def plain_type(algorithm: bytes) -> bytes:
    """The key type of the plain key inside a certificate of type ``algorithm``.

    Also the name inside a signature that belongs to a public key algorithm:
    ``rsa-sha2-512-cert-v01@openssh.com`` signs as ``rsa-sha2-512``, and
    ``sk-ssh-ed25519-cert-v01@openssh.com`` as ``sk-ssh-ed25519@openssh.com``.
    """
    if not algorithm.endswith(CERTIFICATE):
        return algorithm
    plain = algorithm[: -len(CERTIFICATE)]
    return plain + b"@openssh.com" if plain.startswith(b"sk-") else plain


def certificate_type(key_type: bytes) -> bytes:
    """The other way round."""
    return key_type.removesuffix(b"@openssh.com") + CERTIFICATE


def _is_certificate(algorithm: bytes) -> bool:
    return algorithm.endswith(CERTIFICATE)


def key_type_of(blob: bytes) -> bytes:
    """The string that a key or certificate blob begins with. Raises RemoteViolation."""
    return Reader(blob).string()


def fingerprint(blob: bytes) -> str:
    """``SHA256:…`` as OpenSSH prints it; of a certificate, that of the key in it."""
    try:
        if key_type_of(blob).endswith(CERTIFICATE):
            blob = decode(blob).public_key
    except RemoteViolation:
        pass  # nonsense has a fingerprint, too
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


# --- reading


def decode(blob: bytes) -> Certificate:
    """Read a certificate. Raises RemoteViolation where it is malformed, or no certificate.

    ``string type, string nonce, key fields, uint64 serial, uint32 kind, string key id,
    string principals, uint64 valid after, uint64 valid before, string critical options,
    string extensions, string reserved, string authority, string signature``
    """
    if len(blob) > MAX_BLOB:
        raise Malformed("a certificate of that size is none")
    r = Reader(blob)
    algorithm = r.string()
    key_type = plain_type(algorithm)
    if not algorithm.endswith(CERTIFICATE) or key_type not in KEY_TYPES:
        raise Malformed("not a certificate")
    r.string()
    public_key = string(key_type) + _key_fields(r, key_type)
    serial = r.uint64()
    number = r.uint32()
    if number not in (CertificateKind.USER.value, CertificateKind.HOST.value):
        raise Malformed(f"a certificate of the unknown kind {number}")
    key_id = r.string()
    principals = _strings(r.string())
    valid_after, valid_before = r.uint64(), r.uint64()
    critical, extensions = _options(r.string()), _options(r.string())
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
        key_id=_text(key_id),
        principals=tuple(_text(name) for name in principals),
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


def _key_fields(r: Reader, key_type: bytes) -> bytes:
    """What a public key has after its type, as it stands (PROTOCOL.certkeys, PROTOCOL.u2f)."""
    if key_type == b"ssh-rsa":
        return string(r.string()) + string(r.string())
    fields = string(r.string())
    if key_type in _ECDSA or key_type == SK_ECDSA:
        fields += string(r.string())
    if key_type in (SK_ED25519, SK_ECDSA):
        fields += string(r.string())
    return fields


def _strings(packed: bytes) -> tuple[bytes, ...]:
    r = Reader(packed)
    found = []
    while not r.at_end:
        found.append(r.string())
        if len(found) > MAX_PRINCIPALS:
            raise Malformed(f"the certificate has more than {MAX_PRINCIPALS} principals")
    return tuple(found)


def _options(packed: bytes) -> dict[str, bytes]:
    """Name and value pairs; the value of most is itself a string inside a string, or empty."""
    r = Reader(packed)
    found: dict[str, bytes] = {}
    while not r.at_end:
        name = _text(r.string())
        if name in found:
            raise Malformed("an option of a certificate is there twice")
        if len(found) >= MAX_PRINCIPALS:
            raise Malformed(f"the certificate has more than {MAX_PRINCIPALS} options")
        found[name] = r.string()
    return found


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("a text in a certificate is not UTF-8") from error


def option_text(value: bytes) -> str:
    """The string inside the value of an option such as ``source-address``."""
    r = Reader(value)
    text = r.text()
    r.end()
    return text


# --- judging

Revoked = Callable[[Certificate], bool]


def nothing_revoked(certificate: Certificate) -> bool:
    return False


def check_user(
    certificate: Certificate,
    *,
    authorities: Collection[bytes],
    now: datetime,
    source: str,
    revoked: Revoked = nothing_revoked,
    obeyed: Collection[str] = (),
) -> None:
    """Is this a good user certificate for a login from ``source``? Who it is for, its caller asks.

    Raises CertificateRejected. ``verify-required`` is checked where the signature is
    (``requires_verification``). ``obeyed`` are the critical options that the caller sees to.
    """
    _check(certificate, CertificateKind.USER, authorities, now, revoked)
    if not certificate.principals:
        raise _no(ReasonCode.CERTIFICATE_WITHOUT_PRINCIPAL, "it names no principal")
    for name, value in certificate.critical_options.items():
        if name == "source-address":
            if not _source_allowed(value, source):
                raise _no(ReasonCode.CERTIFICATE_SOURCE_NOT_ALLOWED, f"it is not for logins from {source}")
        elif name != "verify-required" and name not in obeyed:
            raise _no(
                ReasonCode.CERTIFICATE_OPTION_UNKNOWN,
                f"its critical option {quote(name, 64)} is not known here",
            )


def check_host(
    certificate: Certificate,
    *,
    authorities: Collection[bytes],
    name: str,
    now: datetime,
    revoked: Revoked = nothing_revoked,
) -> None:
    """Is this a good certificate for the host ``name`` (lower case, or a bare address; no port)?

    Raises CertificateRejected. Principals are compared exactly: empty ones match no host here.
    """
    _check(certificate, CertificateKind.HOST, authorities, now, revoked)
    if certificate.critical_options:
        raise _no(ReasonCode.CERTIFICATE_OPTION_UNKNOWN, "a host certificate has no critical options")
    if not any(_same_host(principal, name) for principal in certificate.principals):
        names = ", ".join(certificate.principals[:4]) or "nobody"
        raise _no(ReasonCode.CERTIFICATE_NAME_MISMATCH, f"it is for {names}, not for {name}")


def _check(
    certificate: Certificate,
    kind: CertificateKind,
    authorities: Collection[bytes],
    now: datetime,
    revoked: Revoked,
) -> None:
    if certificate.kind is not kind:
        raise _no(ReasonCode.CERTIFICATE_TYPE_WRONG, f"it is a {certificate.kind.name.lower()} certificate")
    try:
        authority_type = key_type_of(certificate.authority)
    except RemoteViolation as error:
        raise _no(ReasonCode.CERTIFICATE_MALFORMED, "its authority is malformed") from error
    if authority_type not in KEY_TYPES:
        # A certificate in the place of the authority's key (CVE-2025-49825).
        raise _no(ReasonCode.CERTIFICATE_MALFORMED, "its authority is not a plain key")
    if certificate.authority not in authorities:
        raise _no(ReasonCode.CERTIFICATE_AUTHORITY_UNKNOWN, "its authority is not one that we trust")
    if not signed_by(certificate.authority, certificate.signed, certificate.signature):
        raise _no(ReasonCode.SIGNATURE_INVALID, "its signature is not good")
    seconds = now.timestamp()
    if seconds < certificate.valid_after:
        raise _no(ReasonCode.CERTIFICATE_NOT_YET_VALID, "it is not valid yet")
    if certificate.valid_before != FOREVER and seconds >= certificate.valid_before:
        raise _no(ReasonCode.CERTIFICATE_EXPIRED, "it has expired")
    if certificate.valid_after >= certificate.valid_before:
        raise _no(ReasonCode.VALIDITY_EMPTY, "it is never valid")
    if any(_strange(principal) for principal in certificate.principals):
        raise _no(ReasonCode.CERTIFICATE_MALFORMED, "a principal of it is not a name")
    if revoked(certificate):
        raise _no(ReasonCode.CERTIFICATE_REVOKED, "it is revoked")


def signed_by(authority: bytes, data: bytes, signature: bytes) -> bool:
    """Is this the signature of an authority (the wire blob of its plain key)? Never raises."""
    try:
        algorithm = Reader(signature).string()
    except RemoteViolation:
        return False
    # An authority in a security key signs without a touch, where it was told so.
    touch = algorithm not in (SK_ED25519, SK_ECDSA)
    return _verify(algorithm, authority, data, signature, touch=touch)


def _strange(principal: str) -> bool:
    return not principal or not principal.isprintable() or "," in principal or len(principal) > 256


def _same_host(principal: str, name: str) -> bool:
    if principal.lower() == name.lower():
        return True
    try:
        return ipaddress.ip_address(principal) == ipaddress.ip_address(name)
    except ValueError:
        return False


def _source_allowed(value: bytes, source: str) -> bool:
    """``source-address``: CIDR networks with commas between them."""
    try:
        address = ipaddress.ip_address(source)
        networks = [ipaddress.ip_network(one.strip(), strict=False) for one in option_text(value).split(",")]
    except (ValueError, RemoteViolation):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _no(code: ReasonCode, why: str) -> CertificateRejected:
    return CertificateRejected(f"the certificate is not accepted: {why}", code=code)


# --- signatures


def verify_signature(
    algorithm: bytes, blob: bytes, data: bytes, signature: bytes, *, sha1: bool = False
) -> bool:
    """Is this a signature over ``data`` by the key or certificate ``blob``? Never raises.

    ``algorithm`` is the public key algorithm that was negotiated; the signature's own name has to be
    the one that belongs to it, so nobody falls back to SHA-1. With ``sha1`` it may be ``ssh-rsa`` or
    ``ssh-dss``, by a plain key.
    """
    verified_required = False
    try:
        key_type = key_type_of(blob)
        if sha1 and algorithm == key_type and algorithm in WITH_SHA1:
            return _verify_sha1(algorithm, blob, data, signature)
        if key_type.endswith(CERTIFICATE):
            certificate = decode(blob)
            verified_required = "verify-required" in certificate.critical_options
            blob = certificate.public_key
        expected = b"ssh-rsa" if algorithm.startswith(b"rsa-") else plain_type(algorithm)
        if key_type_of(blob) != expected or _is_certificate(algorithm) != _is_certificate(key_type):
            return False
    except RemoteViolation:
        return False
    return _verify(plain_type(algorithm), blob, data, signature, verified=verified_required)


def _verify(
    algorithm: bytes, key: bytes, data: bytes, signature: bytes, *, touch: bool = True, verified: bool = False
) -> bool:
    """``string algorithm, string signature[, byte flags, uint32 counter]`` by the plain key ``key``."""
    try:
        r = Reader(signature)
        if r.string() != algorithm or algorithm not in SIGNATURES:
            return False
        raw = r.string()
        if algorithm in (SK_ED25519, SK_ECDSA):
            data = _with_flags(key, data, r.byte(), r.uint32(), touch=touch, verified=verified)
        r.end()
        _verifier(algorithm, key)(raw, data)
    except (RemoteViolation, InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _verify_sha1(algorithm: bytes, key: bytes, data: bytes, signature: bytes) -> bool:
    """``ssh-rsa`` and ``ssh-dss`` as RFC 4253 section 6.6 has them."""
    r = Reader(signature)
    try:
        name, raw = r.string(), r.string()
        r.end()
        if name != algorithm:
            return False
        fields = Reader(key)
        fields.string()
        if algorithm == b"ssh-rsa":
            exponent, modulus = fields.mpint(), fields.mpint()
            if not MIN_OLD_BITS <= modulus.bit_length() <= MAX_RSA_BITS or not _is_exponent(exponent):
                return False
            rsa_key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
            length = (modulus.bit_length() + 7) // 8
            rsa_key.verify(raw.rjust(length, b"\0"), data, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
            return True
        p, q, g, y = (fields.mpint() for _ in range(4))
        if len(raw) != 40 or not MIN_OLD_BITS <= p.bit_length() <= 3072:
            return False
        numbers = dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g))
        encoded = encode_dss_signature(int.from_bytes(raw[:20], "big"), int.from_bytes(raw[20:], "big"))
        numbers.public_key().verify(encoded, data, hashes.SHA1())  # noqa: S303
    except (RemoteViolation, InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _with_flags(key: bytes, data: bytes, flags: int, counter: int, *, touch: bool, verified: bool) -> bytes:
    """What a security key really signs (PROTOCOL.u2f, "SSH U2F signatures")."""
    if (touch and not flags & _USER_PRESENT) or (verified and not flags & _USER_VERIFIED):
        raise InvalidSignature
    r = Reader(key)
    key_type = r.string()
    if key_type == SK_ECDSA:
        r.string()
    r.string()
    application = r.string()
    r.end()
    return (
        hashlib.sha256(application).digest()
        + bytes((flags,))
        + uint32(counter)
        + hashlib.sha256(data).digest()
    )


def _is_exponent(exponent: int) -> bool:
    """Is this a public exponent of RSA that costs us little?"""
    return exponent >= 3 and exponent.bit_length() <= MAX_RSA_EXPONENT_BITS


def _verifier(algorithm: bytes, blob: bytes) -> Callable[[bytes, bytes], None]:
    """A function of signature and data that raises InvalidSignature."""
    r = Reader(blob)
    key_type = r.string()
    if key_type in (b"ssh-ed25519", SK_ED25519):
        if algorithm != key_type:
            raise InvalidSignature
        return ed25519.Ed25519PublicKey.from_public_bytes(r.string()).verify
    if key_type in _ECDSA or key_type == SK_ECDSA:
        curve_name, point = r.string(), r.string()
        if algorithm != key_type or (key_type in _ECDSA and key_type != b"ecdsa-sha2-" + curve_name):
            raise InvalidSignature
        curve, digest = _CURVES[b"nistp256" if key_type == SK_ECDSA else curve_name]
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)

        def verify_ecdsa(raw: bytes, data: bytes) -> None:
            parts = Reader(raw)
            first, second = parts.mpint(), parts.mpint()
            parts.end()
            if first <= 0 or second <= 0:
                raise InvalidSignature
            public.verify(encode_dss_signature(first, second), data, ec.ECDSA(digest))

        return verify_ecdsa
    if key_type == b"ssh-rsa":
        exponent, modulus = r.mpint(), r.mpint()
        if modulus <= 0 or not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
            raise InvalidSignature
        if not _is_exponent(exponent):
            raise InvalidSignature
        rsa_key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        rsa_digest = {b"rsa-sha2-256": hashes.SHA256(), b"rsa-sha2-512": hashes.SHA512()}.get(algorithm)
        if rsa_digest is None:
            raise InvalidSignature
        length = (modulus.bit_length() + 7) // 8
        # Some implementations leave leading zeros out.
        return lambda raw, data: rsa_key.verify(
            raw.rjust(length, b"\0"), data, padding.PKCS1v15(), rsa_digest
        )
    raise InvalidSignature


# --- signing


class Signs(Protocol):
    """An authority: the blob of its plain key, and signatures by it."""

    @property
    def blob(self) -> bytes: ...

    def sign(self, data: bytes) -> bytes:
        """``string algorithm, string signature``."""


class Ed25519Authority:
    """An ed25519 key in memory."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.blob = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return string(b"ssh-ed25519") + string(self._key.sign(data))


def issue(
    *,
    authority: Signs,
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
    """A certificate for a plain public key, signed. Raises CertificateRejected for what must not be
    signed: no principal, one that is no name, a key that is a certificate, or a small RSA key."""
    r = Reader(public_key)
    key_type = r.string()
    if key_type not in KEY_TYPES:
        raise CertificateRejected(
            "only a plain public key can be certified", code=ReasonCode.KEY_NOT_CERTIFIABLE
        )
    fields = _key_fields(r, key_type)
    r.end()
    if key_type == b"ssh-rsa" and _rsa_bits(public_key) < MIN_RSA_BITS:
        raise CertificateRejected(
            f"an RSA key of less than {MIN_RSA_BITS} bits is not certified",
            code=ReasonCode.KEY_NOT_CERTIFIABLE,
        )
    if not principals or any(_strange(principal) for principal in principals):
        raise CertificateRejected(
            "a principal has to be a name, without commas or control characters",
            code=ReasonCode.INVALID_PRINCIPAL,
        )
    if valid_after >= valid_before:
        raise CertificateRejected("the certificate would never be valid", code=ReasonCode.VALIDITY_EMPTY)
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
        + string(_packed(critical_options or {}))
        + string(_packed(extensions or {}))
        + string(b"")
        + string(authority.blob)
    )
    return decode(signed + string(authority.sign(signed)))


def _packed(options: Mapping[str, bytes]) -> bytes:
    """In the order of their names, as PROTOCOL.certkeys demands."""
    return b"".join(string(name.encode()) + string(options[name]) for name in sorted(options))


def _rsa_bits(blob: bytes) -> int:
    r = Reader(blob)
    r.string()
    r.mpint()
    return r.mpint().bit_length()
