"""Key exchange methods: vectors of the RFCs, both sides against each other, and invalid values."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, succeed

from conchrec.errors import RemoteViolation
from conchrec.ssh import kems, kex_methods
from conchrec.ssh.algorithms import COMPATIBLE, LEGACY, MODERN, UPSTREAM
from conchrec.ssh.dh_groups import GROUP1, GROUP14, GROUP16
from conchrec.ssh.kems import SNTRUP761, KemKeyPair
from conchrec.ssh.kex_methods import SNTRUP_METHODS, derive, kex_hash, new_kex_method
from conchrec.ssh.wire import Reader, mpint, string
from tests.support.pair import Pair
from tests.support.powers import KeyPairsAtOnce, Later, Run, at_once, result_of

HYBRID = b"mlkem768x25519-sha256"
HYBRIDS = (HYBRID, *SNTRUP_METHODS)
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


@pytest.mark.parametrize("hybrid", HYBRIDS)
@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\1" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
)
def test_rejects_points_of_small_order(point: bytes, hybrid: bytes) -> None:
    """RFC 8731 section 3: an all-zero secret is rejected, also in the hybrids."""
    with pytest.raises(RemoteViolation):
        Run(b"curve25519-sha256").accept(point)
    client = Run(hybrid)
    offer = client.offer()
    with pytest.raises(RemoteViolation):
        Run(hybrid).accept(offer[:-32] + point)
    answer, _ = Run(hybrid).accept(offer)
    with pytest.raises(RemoteViolation):
        client.complete(answer[:-32] + point)


# --- mlkem768x25519


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


@pytest.mark.parametrize(("name", "size"), [(HYBRID, 1088), (SNTRUP_METHODS[0], 1039)])
def test_rejects_reply_before_offer(name: bytes, size: int) -> None:
    with pytest.raises(RemoteViolation):
        Run(name).complete(bytes(size + 32))


# --- sntrup761x25519


def vectors() -> list[dict[str, bytes]]:
    """Return the vectors of the submission to NIST: ``pk``, ``sk``, ``ct`` and ``ss``."""
    blocks = (Path(__file__).parent / "vectors" / "sntrup761.rsp").read_text().split("\n\n")
    fields = [dict(line.split(" = ") for line in block.splitlines()) for block in blocks[1:] if block.strip()]
    return [{key: bytes.fromhex(value) for key, value in block.items() if key != "count"} for block in fields]


@pytest.mark.parametrize("vector", vectors(), ids=["0", "1"])
def test_sntrup761_decapsulates_published_vectors(vector: dict[str, bytes]) -> None:
    pair = SNTRUP761.key_pair(vector["pk"], vector["sk"])
    assert pair.decapsulate(vector["ct"]) == vector["ss"]
    changed = bytearray(vector["ct"])
    changed[500] ^= 1
    assert pair.decapsulate(bytes(changed)) != vector["ss"]
    ciphertext, secret = SNTRUP761.encapsulate(vector["pk"])
    assert ciphertext != vector["ct"]
    assert pair.decapsulate(ciphertext) == secret


class VectorKeys(KeyPairsAtOnce):
    """The key pair of a published vector."""

    def __init__(self, vector: dict[str, bytes]) -> None:
        super().__init__()
        self._vector = vector

    def take(self) -> Deferred[KemKeyPair]:
        return succeed(SNTRUP761.key_pair(self._vector["pk"], self._vector["sk"]))


@pytest.mark.parametrize("name", SNTRUP_METHODS)
def test_sntrup761_client_follows_draft(name: bytes) -> None:
    """draft-josefsson-ntruprime-ssh section 3, as in OpenSSH: Q_C = sntrup761 key || X25519 key, Q_S =
    ciphertext || X25519 key, K = SHA-512(sntrup761 secret || X25519 secret), encoded as a string."""
    vector = vectors()[0]
    client = new_kex_method(name, at_once, VectorKeys(vector))
    offer = result_of(client.offer())
    assert len(offer) == 1158 + 32
    assert offer[:1158] == vector["pk"]
    ours = x25519.X25519PrivateKey.generate()
    classic = ours.exchange(x25519.X25519PublicKey.from_public_bytes(offer[1158:]))
    secret = result_of(client.complete(vector["ct"] + ours.public_key().public_bytes_raw()))
    assert secret == string(hashlib.sha512(vector["ss"] + classic).digest())


@pytest.mark.parametrize("name", SNTRUP_METHODS)
def test_sntrup761_server_follows_draft(name: bytes) -> None:
    vector, classic = vectors()[1], x25519.X25519PrivateKey.generate()
    # A server needs no key pair.
    server = new_kex_method(name, at_once)
    answer, secret = result_of(server.accept(vector["pk"] + classic.public_key().public_bytes_raw()))
    assert len(answer) == 1039 + 32
    shared = SNTRUP761.key_pair(vector["pk"], vector["sk"]).decapsulate(answer[:1039])
    shared += classic.exchange(x25519.X25519PublicKey.from_public_bytes(answer[1039:]))
    assert secret == string(hashlib.sha512(shared).digest())


def test_sntrup761_accepts_values_of_right_length() -> None:
    """Every public key and every ciphertext has a secret, as in OpenSSH; the peer has another one."""
    client, server = Run(SNTRUP_METHODS[0]), Run(SNTRUP_METHODS[0])
    point = client.offer()[1158:]
    for byte in (b"\0", b"\xff", b"\x55"):
        answer, secret = server.accept(byte * 1158 + point)
        assert (len(answer), len(secret)) == (1039 + 32, 4 + 64)
    for byte in (b"\0", b"\xff", b"\x55"):
        client = Run(SNTRUP_METHODS[0])
        answer, secret = server.accept(client.offer())
        assert client.complete(byte * 1039 + answer[1039:]) != secret


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrid_uses_private_key_once(name: bytes) -> None:
    client = Run(name)
    answer, secret = Run(name).accept(client.offer())
    assert client.complete(answer) == secret
    with pytest.raises(RemoteViolation):
        client.complete(answer)


def test_does_not_show_private_key_in_representation() -> None:
    vector = vectors()[0]
    assert repr(SNTRUP761.key_pair(vector["pk"], vector["sk"])) == "KemKeyPair(public=1158 bytes)"


# --- what a machine lacks


def lack_mlkem(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(kems, "mlkem", None)


def lack_algorithm(patch: pytest.MonkeyPatch) -> None:
    def generate() -> None:
        raise UnsupportedAlgorithm("this OpenSSL is too old")

    patch.setattr(mlkem.MLKEM768PrivateKey, "generate", generate)


def lack_pqcrypto(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "pqcrypto", None)


@pytest.mark.parametrize(
    ("lack", "missing"),
    [(lack_mlkem, HYBRIDS[:1]), (lack_algorithm, HYBRIDS[:1]), (lack_pqcrypto, HYBRIDS[1:])],
)
def test_omits_hybrid_on_machine_that_lacks_it(
    lack: Callable[[pytest.MonkeyPatch], None], missing: tuple[bytes, ...]
) -> None:
    """The next method is used."""
    with pytest.MonkeyPatch.context() as patch:
        lack(patch)
        kex_methods.is_usable.cache_clear()
        assert tuple(name for name in MODERN.kex if not kex_methods.is_usable(name)) == missing
        pair = Pair(algorithms=MODERN).secure()
    kex_methods.is_usable.cache_clear()
    expected = tuple(name for name in MODERN.kex if name not in missing)
    assert pair.client.kex.agreed_names[0] == expected[0]
    for end in (pair.server, pair.client):
        end.rekey()
        assert end.kex.proposal is not None
        assert end.kex.proposal.kex[: len(expected)] == expected
        assert not set(missing) & set(end.kex.proposal.kex)


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
