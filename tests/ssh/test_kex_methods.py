"""Key exchange methods: vectors of the RFCs, both sides against each other, and invalid values."""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.errors import RemoteViolation
from conchrec.ssh import kex_methods
from conchrec.ssh.algorithms import COMPATIBLE, LEGACY, MODERN, UPSTREAM
from conchrec.ssh.dh_groups import GROUP1, GROUP14, GROUP16
from conchrec.ssh.kex_methods import derive, kex_hash, new_kex_method
from conchrec.ssh.wire import Reader, mpint, string
from tests.support.pair import Pair
from tests.support.powers import Later, Run

HYBRID = b"mlkem768x25519-sha256"
NIST = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}


@pytest.mark.parametrize("name", LEGACY.kex)
def test_gives_both_sides_same_secret(name: bytes) -> None:
    seen = set()
    for _ in range(2):
        client = Run(name)
        answer, secret = Run(name).accept(client.offer())
        assert client.complete(answer) == secret
        r = Reader(secret)
        assert r.string()
        r.end()
        seen.add(secret)
    assert len(seen) == 2, "each run has its own"


@pytest.mark.parametrize("name", LEGACY.kex)
def test_rejects_invalid_public_values(name: bytes) -> None:
    client, server = Run(name), Run(name)
    offer = client.offer()
    answer, _ = server.accept(offer)
    for junk in (b"", b"\0", b"\1", offer[:-1], answer[:-1] + b"", bytes(len(offer)), offer + b"\0" * 400):
        if name.startswith(b"diffie") and junk in (offer[:-1], answer[:-1]):
            continue  # also a valid number
        with pytest.raises(RemoteViolation):
            Run(name).accept(junk)
    for junk in (b"", b"\0", answer[:-1], bytes(len(answer)), answer + b"\0" * 400):
        if name.startswith(b"diffie") and junk == answer[:-1]:
            continue
        with pytest.raises(RemoteViolation):
            client.complete(junk)


# --- curve25519


def test_encodes_secret_with_leading_zeros_as_mpint() -> None:
    """The secret is a big-endian number (RFC 8731 section 3.1). One of 256 has fewer bytes, one of two
    starts with a zero byte.
    """
    run = Run(b"curve25519-sha256")
    ours = x25519.X25519PublicKey.from_public_bytes(run.offer())
    for _ in range(3000):
        other = x25519.X25519PrivateKey.generate()
        shared = other.exchange(ours)
        secret = run.complete(other.public_key().public_bytes_raw())
        stripped = shared.lstrip(b"\0")
        assert secret == string((b"\0" if stripped[0] & 0x80 else b"") + stripped)


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\1" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
)
def test_rejects_points_of_small_order(point: bytes) -> None:
    """RFC 8731 section 3: an all-zero secret is rejected, also in the hybrid."""
    with pytest.raises(RemoteViolation):
        Run(b"curve25519-sha256").accept(point)
    client = Run(HYBRID)
    offer = client.offer()
    with pytest.raises(RemoteViolation):
        Run(HYBRID).accept(offer[:-32] + point)
    answer, _ = Run(HYBRID).accept(offer)
    with pytest.raises(RemoteViolation):
        client.complete(answer[:-32] + point)


# --- the hybrid


def test_hybrid_client_follows_draft() -> None:
    """draft-ietf-sshm-mlkem-hybrid-kex: C_INIT = C_PK2 || C_PK1, S_REPLY = S_CT2 || S_PK1,
    K = SHA-256(K_PQ || K_CL), encoded as a string and not as an mpint."""
    client = Run(HYBRID)
    offer = client.offer()
    assert len(offer) == 1184 + 32
    post_quantum, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(offer[:1184]).encapsulate()
    ours = x25519.X25519PrivateKey.generate()
    classic = ours.exchange(x25519.X25519PublicKey.from_public_bytes(offer[1184:]))
    assert len(ciphertext) == 1088
    secret = client.complete(ciphertext + ours.public_key().public_bytes_raw())
    assert secret == string(hashlib.sha256(post_quantum + classic).digest())


def test_hybrid_server_follows_draft() -> None:
    pq, classic = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    offer = pq.public_key().public_bytes_raw() + classic.public_key().public_bytes_raw()
    answer, secret = Run(HYBRID).accept(offer)
    shared = pq.decapsulate(answer[:1088]) + classic.exchange(
        x25519.X25519PublicKey.from_public_bytes(answer[1088:])
    )
    assert secret == string(hashlib.sha256(shared).digest())


def test_hybrid_gives_other_secret_for_ciphertext_of_other_key() -> None:
    """ML-KEM rejects implicitly; the signature over the exchange hash fails instead."""
    client = Run(HYBRID)
    answer, secret = Run(HYBRID).accept(client.offer())
    assert client.complete(os.urandom(1088) + answer[1088:]) != secret


def test_rejects_mlkem_value_out_of_range() -> None:
    """FIPS 203 section 7.2: coefficients are below q."""
    offer = Run(HYBRID).offer()
    with pytest.raises(RemoteViolation):
        Run(HYBRID).accept(b"\xff" * 384 + offer[384:])


def test_rejects_reply_before_offer() -> None:
    with pytest.raises(RemoteViolation):
        Run(HYBRID).complete(bytes(1088 + 32))


@pytest.mark.parametrize("lack", ["module", "algorithm"])
def test_omits_hybrid_on_machine_without_mlkem(lack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next method is used."""

    def generate() -> None:
        raise UnsupportedAlgorithm("this OpenSSL is too old")

    if lack == "module":
        monkeypatch.setattr(kex_methods, "mlkem", None)
    else:
        monkeypatch.setattr(mlkem.MLKEM768PrivateKey, "generate", generate)
    kex_methods.is_usable.cache_clear()
    try:
        assert [name for name in MODERN.kex if not kex_methods.is_usable(name)] == [HYBRID]
        pair = Pair(algorithms=MODERN).secure()
    finally:
        kex_methods.is_usable.cache_clear()
    pair.server.rekey()
    assert pair.server.kex.proposal is not None
    assert HYBRID not in pair.server.kex.proposal.kex
    assert pair.client.peer_identification is not None


# --- NIST curves


@pytest.mark.parametrize("bits", NIST)
def test_gives_shared_secret_on_nist_curves(bits: int) -> None:
    curve = NIST[bits]
    ours = ec.generate_private_key(curve)
    encoded = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    answer, secret = Run(b"ecdh-sha2-nistp%d" % bits).accept(encoded)
    shared = ours.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, answer))
    assert secret == mpint(int.from_bytes(shared, "big"))


@pytest.mark.parametrize("bits", NIST)
def test_rejects_point_outside_curve(bits: int) -> None:
    name = b"ecdh-sha2-nistp%d" % bits
    offer = bytearray(Run(name).offer())
    offer[-1] ^= 1
    for junk in (bytes(offer), b"\0", Run(b"ecdh-sha2-nistp%d" % (521 if bits != 521 else 256)).offer()):
        with pytest.raises(RemoteViolation):
            Run(name).accept(junk)


# --- MODP


def pi_digits(bits: int) -> int:
    """floor(2^bits * pi), by Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    guard = 64
    unit = 1 << (bits + guard)

    def arctan_inverse(x: int) -> int:
        power = total = unit // x
        square, n, sign = x * x, 3, -1
        while power:
            power //= square
            total += sign * (power // n)
            sign, n = -sign, n + 2
        return total

    return (16 * arctan_inverse(5) - 4 * arctan_inverse(239)) >> guard


GROUPS = {1024: GROUP1, 2048: GROUP14, 4096: GROUP16}


@pytest.mark.parametrize(("bits", "offset"), [(1024, 129093), (2048, 124476), (4096, 240904)])
def test_uses_primes_of_rfc(bits: int, offset: int) -> None:
    """RFC 2409 and 3526: p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + offset)."""
    prime = (1 << bits) - (1 << (bits - 64)) - 1 + ((pi_digits(bits - 130) + offset) << 64)
    assert GROUPS[bits].prime == prime


@pytest.mark.parametrize("bits", GROUPS)
def test_uses_safe_primes(bits: int) -> None:
    """p and (p - 1) / 2 pass Fermat's test: with the RFC's formula and its length, nothing else does."""
    prime = GROUPS[bits].prime
    half = (prime - 1) // 2
    assert pow(2, prime - 1, prime) == 1
    assert pow(3, half - 1, half) == 1


@pytest.mark.parametrize(("bits", "least"), [(1024, 160), (2048, 320), (4096, 480)])
def test_draws_exponents_of_fixed_length(bits: int, least: int) -> None:
    """RFC 3526 section 8, the higher estimates."""
    exponents = {GROUPS[bits].exponent() for _ in range(20)}
    assert len(exponents) == 20
    assert {exponent.bit_length() for exponent in exponents} == {GROUPS[bits].exponent_bits + 1}
    assert GROUPS[bits].exponent_bits >= least


@pytest.mark.parametrize("bits", GROUPS)
def test_rejects_public_values_out_of_range(bits: int) -> None:
    """1 < e < p - 1, for servers and clients; nothing is computed for another value."""
    name = {1024: b"group1-sha1", 2048: b"group14-sha256", 4096: b"group16-sha512"}[bits]
    prime, later = GROUPS[bits].prime, Later()
    for value in (-2, -1, 0, 1, prime - 1, prime, prime + 1, prime + 2, 2 * prime, 1 << 20_000):
        run = new_kex_method(b"diffie-hellman-" + name, later)
        for method in (run.accept, run.complete):
            with pytest.raises(RemoteViolation):
                method(mpint(value)[4:])
    assert not later.waiting
    for value in (2, prime - 2):
        Run(b"diffie-hellman-" + name).accept(mpint(value)[4:])


def test_does_not_offer_largest_group() -> None:
    """group18 needs 30 ms with Python's lock held, with any library."""
    for offer in (MODERN, COMPATIBLE, UPSTREAM, LEGACY):
        assert not any(b"group18" in name for name in offer.kex)


# --- keys


def test_derives_keys_longer_than_hash() -> None:
    """RFC 4253 section 7.2: K1 = HASH(K || H || X || id), Kn = HASH(K || H || K1 ... Kn-1)."""
    k, h, session = mpint(123456789), b"h" * 32, b"i" * 32
    first = hashlib.sha256(k + h + b"C" + session).digest()
    second = hashlib.sha256(k + h + first).digest()
    third = hashlib.sha256(k + h + first + second).digest()
    whole = derive(hashlib.sha256, k, h, session, b"C", 96)
    assert whole == first + second + third
    for size in (0, 1, 16, 32, 33, 64, 65):
        assert derive(hashlib.sha256, k, h, session, b"C", size) == whole[:size]


@pytest.mark.parametrize("name", LEGACY.kex)
def test_uses_hash_of_each_method(name: bytes) -> None:
    size = kex_hash(name)(b"").digest_size * 8
    digest_bits = {b"1": 160, b"256": 256, b"384": 384, b"512": 512}
    if name.startswith(b"ecdh-sha2-nistp"):
        assert size == {b"256": 256, b"384": 384, b"521": 512}[name[-3:]]  # RFC 5656 section 6.2.1
    else:
        assert size == digest_bits[name.partition(b"@")[0].rpartition(b"-sha")[2]]
