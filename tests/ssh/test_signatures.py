"""Signature verification: algorithms, key sizes, and security keys."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timezone

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.ssh import certificate as c
from conchrec.ssh import certificate_checks as checks
from conchrec.ssh import signatures
from conchrec.ssh.wire import mpint, string, uint32
from tests.support.logins import authority, key

CA = authority()


def raw_rsa(digest: hashes.HashAlgorithm, private: rsa.RSAPrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import padding

    return private.sign(data, padding.PKCS1v15(), digest)


def test_verifies_rsa_signature_only_by_its_algorithm() -> None:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    by_name: dict[bytes, bytes] = {
        b"ssh-rsa": raw_rsa(hashes.SHA1(), private, b"data"),
        b"rsa-sha2-256": raw_rsa(hashes.SHA256(), private, b"data"),
        b"rsa-sha2-512": raw_rsa(hashes.SHA512(), private, b"data"),
    }
    for algorithm in by_name:
        for named in by_name:
            for used, raw in by_name.items():
                good = algorithm == named == used and used != b"ssh-rsa"
                assert (
                    signatures.verify_signature(algorithm, blob, b"data", string(named) + string(raw)) == good
                )


def test_accepts_rsa_signature_without_leading_zeros() -> None:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    for count in range(2000):
        data = b"%d" % count
        raw = raw_rsa(hashes.SHA512(), private, data)
        if raw[0] == 0:
            short = raw.lstrip(b"\0")
            assert signatures.verify_signature(
                b"rsa-sha2-512", blob, data, string(b"rsa-sha2-512") + string(short)
            )
            return
    pytest.fail("one signature in 256 begins with a zero")


def test_rejects_signature_of_short_rsa_key() -> None:
    private = rsa.generate_private_key(65537, 1024)
    numbers = private.public_key().public_numbers()
    blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    raw = raw_rsa(hashes.SHA256(), private, b"data")
    assert not signatures.verify_signature(
        b"rsa-sha2-256", blob, b"data", string(b"rsa-sha2-256") + string(raw)
    )


class SecurityKey:
    """A security key in memory (PROTOCOL.u2f): Ed25519 or ECDSA."""

    def __init__(self, kind: bytes, application: bytes = b"ssh:") -> None:
        self.kind = kind
        self.application = application
        self.private = ed25519.Ed25519PrivateKey.generate()
        self.ecdsa = ec.generate_private_key(ec.SECP256R1())

    @property
    def blob(self) -> bytes:
        if self.kind == c.SK_ED25519:
            return string(self.kind) + string(self.private.public_key().public_bytes_raw()) + self._tail
        point = self.ecdsa.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return string(self.kind) + string(b"nistp256") + string(point) + self._tail

    @property
    def _tail(self) -> bytes:
        return string(self.application)

    def sign(self, data: bytes, flags: int = 1, counter: int = 9) -> bytes:
        signed = (
            hashlib.sha256(self.application).digest()
            + bytes((flags,))
            + uint32(counter)
            + hashlib.sha256(data).digest()
        )
        if self.kind == c.SK_ED25519:
            raw = self.private.sign(signed)
        else:
            first, second = decode_dss_signature(self.ecdsa.sign(signed, ec.ECDSA(hashes.SHA256())))
            raw = mpint(first) + mpint(second)
        return string(self.kind) + string(raw) + bytes((flags,)) + uint32(counter)


@pytest.mark.parametrize("kind", [c.SK_ED25519, c.SK_ECDSA])
def test_requires_touch_of_security_key(kind: bytes) -> None:
    token = SecurityKey(kind)
    assert signatures.verify_signature(kind, token.blob, b"data", token.sign(b"data"))
    assert signatures.verify_signature(kind, token.blob, b"data", token.sign(b"data", flags=5))
    assert not signatures.verify_signature(kind, token.blob, b"data", token.sign(b"data", flags=0))
    assert not signatures.verify_signature(kind, token.blob, b"data", token.sign(b"data", flags=4))
    assert not signatures.verify_signature(kind, token.blob, b"other", token.sign(b"data"))
    good = token.sign(b"data")
    assert not signatures.verify_signature(kind, token.blob, b"data", good[:-1] + b"\x0a")
    assert not signatures.verify_signature(kind, token.blob, b"data", good[:-5])
    assert not signatures.verify_signature(kind, token.blob, b"data", good + b"x")
    # The same key with another application is another key.
    other = SecurityKey(kind, b"https:")
    other.private, other.ecdsa = token.private, token.ecdsa
    assert not signatures.verify_signature(kind, token.blob, b"data", other.sign(b"data"))
    # A plain signature by the same key is invalid.
    plain = string(b"ssh-ed25519") + string(token.private.sign(b"data"))
    assert not signatures.verify_signature(b"ssh-ed25519", token.blob, b"data", plain)


@pytest.mark.parametrize("kind", [c.SK_ED25519, c.SK_ECDSA])
def test_requires_user_verification_when_certificate_does(kind: bytes) -> None:
    token = SecurityKey(kind)
    certified = c.issue(
        authority=CA, public_key=token.blob, kind=c.CertificateKind.USER,
        serial=1, key_id="joe", principals=("joe",),
        valid_after=0, valid_before=c.FOREVER, critical_options={"verify-required": b""},
    )  # fmt: skip
    algorithm = c.certificate_type(kind)
    assert signatures.verify_signature(algorithm, certified.blob, b"data", token.sign(b"data", flags=5))
    assert not signatures.verify_signature(algorithm, certified.blob, b"data", token.sign(b"data", flags=1))
    # A certificate algorithm is valid only with a certificate, and a plain one only with a plain key.
    assert not signatures.verify_signature(kind, certified.blob, b"data", token.sign(b"data", flags=5))
    assert not signatures.verify_signature(algorithm, token.blob, b"data", token.sign(b"data", flags=5))


@pytest.mark.parametrize("kind", [c.SK_ED25519, c.SK_ECDSA])
def test_accepts_authority_in_security_key_without_touch(kind: bytes) -> None:
    """``ssh-keygen -O no-touch-required`` creates such a CA key."""

    class Token(SecurityKey):
        def sign(self, data: bytes, flags: int = 0, counter: int = 9) -> bytes:
            return super().sign(data, flags, counter)

    token = Token(kind)
    certified = c.issue(
        authority=token, public_key=key().public().blob(), kind=c.CertificateKind.USER,
        serial=1, key_id="joe",
        principals=("joe",), valid_after=0, valid_before=c.FOREVER,
    )  # fmt: skip
    checks.check_user(
        certified, authorities=(token.blob,), now=datetime.now(timezone.utc), source="192.0.2.7"
    )


def test_accepts_sha1_and_dsa_only_on_request() -> None:
    private = rsa.generate_private_key(65537, 1024)
    numbers = private.public_key().public_numbers()
    rsa_blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    rsa_made = string(b"ssh-rsa") + string(raw_rsa(hashes.SHA1(), private, b"data"))
    old = dsa.generate_private_key(1024)
    y = old.public_key().public_numbers()
    p, q, g = y.parameter_numbers.p, y.parameter_numbers.q, y.parameter_numbers.g
    dsa_blob = string(b"ssh-dss") + mpint(p) + mpint(q) + mpint(g) + mpint(y.y)
    first, second = decode_dss_signature(old.sign(b"data", hashes.SHA1()))
    dsa_made = string(b"ssh-dss") + string(first.to_bytes(20, "big") + second.to_bytes(20, "big"))
    for name, blob, made_ in ((b"ssh-rsa", rsa_blob, rsa_made), (b"ssh-dss", dsa_blob, dsa_made)):
        assert signatures.verify_signature(name, blob, b"data", made_, sha1=True)
        assert not signatures.verify_signature(name, blob, b"data", made_)
        assert not signatures.verify_signature(name, blob, b"other", made_, sha1=True)
        for rubbish in (
            b"",
            made_[:-1],
            made_ + b"x",
            string(name) + string(b""),
            string(b"none") + made_[11:],
        ):
            assert not signatures.verify_signature(name, blob, b"data", rubbish, sha1=True)
        assert not signatures.verify_signature(name, blob[:-9], b"data", made_, sha1=True)
        assert not signatures.verify_signature(c.certificate_type(name), blob, b"data", made_, sha1=True)
    # SHA-2 algorithms are not affected.
    assert not signatures.verify_signature(b"rsa-sha2-512", rsa_blob, b"data", rsa_made, sha1=True)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (-1, 1), (1, -5)])
def test_rejects_invalid_ecdsa_numbers(numbers: tuple[int, int]) -> None:
    blob = key("ecdsa256").public().blob()
    raw = mpint(numbers[0]) + mpint(numbers[1])
    name = b"ecdsa-sha2-nistp256"
    assert not signatures.verify_signature(name, blob, b"data", string(name) + string(raw))


@pytest.mark.parametrize(("exponent", "sign"), [(-3, 1), (65537, -1), (-3, -1), (0, 1)])
def test_rejects_rsa_key_with_negative_numbers(exponent: int, sign: int) -> None:
    """An mpint may be negative; cryptography raises OverflowError for it."""
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
    blob = string(b"ssh-rsa") + mpint(exponent) + mpint(sign * modulus)
    signature = string(b"rsa-sha2-256") + string(bytes(256))
    assert not signatures.verify_signature(b"rsa-sha2-256", blob, b"data", signature)


@pytest.mark.parametrize(("bits", "good"), [(2, True), (17, True), (64, True), (65, False), (2047, False)])
@pytest.mark.parametrize("name", [b"rsa-sha2-256", b"ssh-rsa"])
def test_rejects_rsa_key_with_long_exponent(name: bytes, bits: int, good: bool) -> None:
    """Verification takes as many steps as the exponent has bits: 8 ms with 3072. No real key has such an
    exponent.
    """
    numbers = rsa.generate_private_key(3 if bits == 2 else 65537, 2048).private_numbers()
    p, q = numbers.p, numbers.q
    phi = (p - 1) * (q - 1)
    exponent = 1 << (bits - 1) | 1
    while math.gcd(exponent, phi) != 1:
        exponent += 2
    assert exponent.bit_length() == bits
    d = pow(exponent, -1, phi)
    digest = {b"rsa-sha2-256": "sha256", b"ssh-rsa": "sha1"}[name]
    info = {
        "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
        "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    }[digest] + hashlib.new(digest, b"data").digest()
    size = ((p * q).bit_length() + 7) // 8
    padded = b"\0\1" + b"\xff" * (size - 3 - len(info)) + b"\0" + info
    raw = pow(int.from_bytes(padded, "big"), d, p * q).to_bytes(size, "big")
    blob = string(b"ssh-rsa") + mpint(exponent) + mpint(p * q)
    signature = string(name) + string(raw)
    assert signatures.verify_signature(name, blob, b"data", signature, sha1=True) is good
