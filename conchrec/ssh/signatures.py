"""Signature verification with plain keys and certificates.

RFC 4253 section 6.6, RFC 5656, RFC 8332, PROTOCOL.u2f. SHA-1 and DSA are accepted only if a rule of the
configuration selects that for one old target, and never in a certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from conchrec.errors import RemoteViolation
from conchrec.ssh.certificate import (
    CERTIFICATE,
    ECDSA,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    SK_ECDSA,
    SK_ED25519,
    decode,
    key_type_of,
    plain_type,
)
from conchrec.ssh.wire import Reader, uint32

#: The minimum size of a target's RSA or DSA key with SHA-1, if a rule accepts it.
MIN_OLD_BITS = 1024
#: OpenSSL's limit for large moduli. A longer exponent makes verification as slow as signing (8 ms with 3072
#: bits). 65537 has 17 bits.
MAX_RSA_EXPONENT_BITS = 64
_CURVES: dict[bytes, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    b"nistp256": (ec.SECP256R1(), hashes.SHA256()),
    b"nistp384": (ec.SECP384R1(), hashes.SHA384()),
    b"nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
#: The accepted signature algorithms, as ``server-sig-algs`` lists them.
SIGNATURES = (b"ssh-ed25519", SK_ED25519, *ECDSA, SK_ECDSA, b"rsa-sha2-512", b"rsa-sha2-256")

#: Signature algorithms of older targets.
WITH_SHA1 = (b"ssh-rsa", b"ssh-dss")

_USER_PRESENT = 0x01
_USER_VERIFIED = 0x04


def verify_signature(
    algorithm: bytes, blob: bytes, data: bytes, signature: bytes, *, sha1: bool = False
) -> bool:
    """Return whether the key or certificate ``blob`` has signed ``data``. Never raises.

    ``algorithm`` is the negotiated public key algorithm. The algorithm in the signature must match it, so
    that a peer cannot fall back to SHA-1. With ``sha1`` the algorithm may be ``ssh-rsa`` or ``ssh-dss``,
    with a plain key.
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
    """Verify a signature with the plain key ``key``.

    ``string algorithm, string signature[, byte flags, uint32 counter]``
    """
    try:
        r = Reader(signature)
        if r.string() != algorithm or algorithm not in SIGNATURES:
            return False
        raw = r.string()
        if algorithm in (SK_ED25519, SK_ECDSA):
            data = _security_key_data(key, data, r.byte(), r.uint32(), touch=touch, verified=verified)
        r.end()
        _verifier(algorithm, key)(raw, data)
    except (RemoteViolation, InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _verify_sha1(algorithm: bytes, key: bytes, data: bytes, signature: bytes) -> bool:
    """Verify ``ssh-rsa`` and ``ssh-dss`` (RFC 4253 section 6.6): ``string algorithm, string signature``."""
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


def _security_key_data(
    key: bytes, data: bytes, flags: int, counter: int, *, touch: bool, verified: bool
) -> bytes:
    """Return the data that a security key signs (PROTOCOL.u2f, "SSH U2F signatures").

    Raises InvalidSignature if touch or verification is required and missing.
    """
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
    """Return whether a public RSA exponent is valid and cheap to use."""
    return exponent >= 3 and exponent.bit_length() <= MAX_RSA_EXPONENT_BITS


def _verifier(algorithm: bytes, blob: bytes) -> Callable[[bytes, bytes], None]:
    """Return a function of signature and data that raises InvalidSignature, as this does for a wrong key."""
    r = Reader(blob)
    key_type = r.string()
    if key_type in (b"ssh-ed25519", SK_ED25519):
        if algorithm != key_type:
            raise InvalidSignature
        return ed25519.Ed25519PublicKey.from_public_bytes(r.string()).verify
    if key_type in ECDSA or key_type == SK_ECDSA:
        curve_name, point = r.string(), r.string()
        if algorithm != key_type or (key_type in ECDSA and key_type != b"ecdsa-sha2-" + curve_name):
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
        # Some implementations omit leading zeros.
        return lambda raw, data: rsa_key.verify(
            raw.rjust(length, b"\0"), data, padding.PKCS1v15(), rsa_digest
        )
    raise InvalidSignature


def is_signed_by(authority: bytes, data: bytes, signature: bytes) -> bool:
    """Return whether a CA (the wire blob of its plain key) has signed ``data``. Never raises."""
    try:
        algorithm = Reader(signature).string()
    except RemoteViolation:
        return False
    # A CA in a security key may be configured to sign without a touch.
    touch = algorithm not in (SK_ED25519, SK_ECDSA)
    return _verify(algorithm, authority, data, signature, touch=touch)


def _is_certificate(algorithm: bytes) -> bool:
    return algorithm.endswith(CERTIFICATE)
