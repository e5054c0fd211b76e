"""Packet ciphers: both directions, independent implementations, and corrupted packets."""

from __future__ import annotations

import hashlib
import hmac
import itertools

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.errors import RemoteViolation
from conchrec.ssh.algorithms import LEGACY
from conchrec.ssh.context_pool import CONTEXTS
from conchrec.ssh.packetcipher import MAX_PACKET, Clear, Gcm, Opener, Sealer, is_aead, suite

SUITES = [
    (cipher, mac)
    for cipher in LEGACY.ciphers
    for mac in (LEGACY.macs[:1] if is_aead(cipher) else LEGACY.macs)
]
PLAIN = (b"", b"")


def pair(cipher: bytes, mac: bytes) -> tuple[Sealer, Opener]:
    """Return a Sealer and an Opener with fixed keys."""
    if not cipher:
        return Clear(), Clear()
    made = suite(cipher, mac)
    keys = bytes(range(made.key)), bytes(range(100, 100 + made.iv)), bytes(range(150, 150 + made.mac))
    return made.make(*keys), made.make(*keys)


def unseal(opener: Opener, sequence: int, packet: bytes) -> bytes:
    """Open a packet as a stream does. Raises LookupError if it needs more bytes."""
    head = packet[: opener.head]
    rest = packet[opener.head :]
    if len(rest) != opener.rest(sequence, head):
        raise LookupError
    return opener.open(sequence, head, rest)


@settings(max_examples=300, deadline=None)
@given(
    names=st.sampled_from([PLAIN, *SUITES]),
    payloads=st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=6),
    first=st.integers(0, 2**32 - 1),
)
def test_opens_sealed_packet(names: tuple[bytes, bytes], payloads: list[bytes], first: int) -> None:
    sealer, opener = pair(*names)
    for number, payload in enumerate(payloads, first):
        sequence = number & 0xFFFFFFFF
        assert unseal(opener, sequence, sealer.seal(sequence, payload)) == payload


@pytest.mark.parametrize("sealer_keeps", [False, True])
@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_continues_after_context_was_dropped(
    cipher: bytes, mac: bytes, sealer_keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of one side makes its context again; the other side keeps its own."""
    sealer, opener = pair(cipher, mac)
    payloads = [bytes([number]) * 40 * number for number in range(1, 6)]
    with monkeypatch.context() as patch:
        if not sealer_keeps:
            patch.setattr(CONTEXTS, "most", 0)
        packets = [sealer.seal(sequence, payload) for sequence, payload in enumerate(payloads)]
    if sealer_keeps:
        monkeypatch.setattr(CONTEXTS, "most", 0)
    assert [unseal(opener, sequence, packet) for sequence, packet in enumerate(packets)] == payloads


@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_rejects_packet_with_any_bit_changed(cipher: bytes, mac: bytes) -> None:
    """The packet is rejected, or its changed length needs more bytes."""
    packet = pair(cipher, mac)[0].seal(7, b"hello, world")
    for at, bit in itertools.product(range(len(packet)), (1, 0x80)):
        broken = bytearray(packet)
        broken[at] ^= bit
        with pytest.raises((RemoteViolation, LookupError)):
            unseal(pair(cipher, mac)[1], 7, bytes(broken))
    assert unseal(pair(cipher, mac)[1], 7, packet) == b"hello, world"


@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_rejects_packet_with_another_sequence_number(cipher: bytes, mac: bytes) -> None:
    """A packet is valid at one position only."""
    sealer, opener = pair(cipher, mac)
    first, second = sealer.seal(0, b"first"), sealer.seal(1, b"second")
    with pytest.raises((RemoteViolation, LookupError)):
        unseal(pair(cipher, mac)[1], 0, second)
    assert unseal(opener, 0, first) == b"first"
    with pytest.raises((RemoteViolation, LookupError)):
        unseal(opener, 1, first)


@pytest.mark.parametrize(("cipher", "mac"), [PLAIN, *SUITES])
def test_pads_to_block_size(cipher: bytes, mac: bytes) -> None:
    """At least 4 random bytes (RFC 4253 section 6), whole blocks, and no more than needed."""
    sizes = set()
    for size in range(1, 70):
        sealer, opener = pair(cipher, mac)
        packet = sealer.seal(0, bytes(size))
        sizes.add(len(packet))
        length = opener.head + opener.rest(0, packet[: opener.head])
        assert length == len(packet)
        assert len(packet) - size <= 4 + 1 + 4 + 15 + 64
    assert len(sizes) >= 4
    if not is_aead(cipher) or cipher.startswith(b"chacha"):
        assert pair(cipher, mac)[0].seal(0, b"x") != pair(cipher, mac)[0].seal(0, b"x")


@pytest.mark.parametrize("length", [0, 1, 4, 5, 11, 13, MAX_PACKET + 4, 2**32 - 1])
def test_rejects_invalid_cleartext_length(length: int) -> None:
    with pytest.raises(RemoteViolation):
        Clear().rest(0, length.to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("cipher", "mac"),
    [(b"aes128-gcm@openssh.com", b""), (b"aes128-ctr", b"hmac-sha2-256-etm@openssh.com")],
)
@pytest.mark.parametrize("length", [0, 8, 15, 17, 20, MAX_PACKET + 16, 2**32 - 1])
def test_rejects_invalid_length_under_cipher(cipher: bytes, mac: bytes, length: int) -> None:
    with pytest.raises(RemoteViolation):
        pair(cipher, mac)[1].rest(0, length.to_bytes(4, "big"))


def test_accepts_largest_packet() -> None:
    assert pair(b"aes128-gcm@openssh.com", b"")[1].rest(0, MAX_PACKET.to_bytes(4, "big")) == MAX_PACKET + 16


@pytest.mark.parametrize(
    "body", [bytes((3,)) + bytes(11), bytes((12,)) + bytes(11), bytes((11,)) + bytes(11)]
)
def test_rejects_invalid_padding(body: bytes) -> None:
    """Too short, longer than the packet, and an empty payload."""
    with pytest.raises(RemoteViolation, match="padding"):
        Clear().open(0, len(body).to_bytes(4, "big"), body)


# --- independent implementations


def body_of(packet: bytes, payload: bytes) -> None:
    """``byte padding length, payload, padding``"""
    assert packet[1 : 1 + len(payload)] == payload
    assert len(packet) == 1 + len(payload) + packet[0]
    assert packet[0] >= 4


@pytest.mark.parametrize("bits", [128, 256])
def test_gcm_follows_rfc5647(bits: int) -> None:
    """RFC 5647 section 7.1: four fixed bytes and a counter of eight bytes; the length is associated data."""
    key, iv = bytes(range(bits // 8)), bytes(range(12))
    sealer = suite(b"aes%d-gcm@openssh.com" % bits, b"").make(key, iv, b"")
    for number in range(3):
        packet = sealer.seal(0, b"payload")
        counter = (int.from_bytes(iv[4:], "big") + number).to_bytes(8, "big")
        length = int.from_bytes(packet[:4], "big")
        assert (length % 16, length + 4 + 16) == (0, len(packet))
        body_of(AESGCM(key).decrypt(iv[:4] + counter, packet[4:], packet[:4]), b"payload")


def test_wraps_gcm_counter() -> None:
    iv = b"\1\2\3\4" + b"\xff" * 8
    sealer, opener = Gcm(bytes(16), iv, b""), Gcm(bytes(16), iv, b"")
    for payload in (b"last", b"first"):
        assert unseal(opener, 0, sealer.seal(0, payload)) == payload


@pytest.mark.parametrize("sequence", [0, 1, 0xFFFFFFFF])
def test_chacha_follows_protocol_file(sequence: int) -> None:
    """PROTOCOL.chacha20poly1305: the second half of the key encrypts the length. The tag's key is block 0
    of the first half, and the payload starts at block 1.

    The test computes it block by block with the IETF's layout of the state: a counter of 32 bits, and a
    nonce of 96 bits whose first 32 bits are the upper half of the counter.
    """
    key = bytes(range(64))
    packet = suite(b"chacha20-poly1305@openssh.com", b"").make(key, b"", b"").seal(sequence, b"payload")

    def stream(half: bytes, block: int, data: bytes) -> bytes:
        state = block.to_bytes(4, "little") + bytes(4) + bytes(4) + sequence.to_bytes(4, "big")
        return Cipher(algorithms.ChaCha20(half, state), None).encryptor().update(data)

    length = int.from_bytes(stream(key[32:], 0, packet[:4]), "big")
    assert (length % 8, length + 4 + 16) == (0, len(packet))
    Poly1305.verify_tag(stream(key[:32], 0, bytes(32)), packet[:-16], packet[-16:])
    body_of(stream(key[:32], 1, packet[4:-16]), b"payload")


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
@pytest.mark.parametrize("etm", [False, True])
def test_ctr_follows_rfc4344(bits: int, digest: str, etm: bool) -> None:
    """RFC 4344 section 4: one stream over all packets; the MAC covers the ciphertext (ETM) or the
    plaintext.
    """
    key, iv = bytes(range(bits // 8)), b"\xff" * 16
    size = hashlib.new(digest).digest_size
    mac_key = bytes(range(size))
    name = b"hmac-sha2-%d" % (size * 8) + (b"-etm@openssh.com" if etm else b"")
    sealer = suite(b"aes%d-ctr" % bits, name).make(key, iv, mac_key)
    stream = Cipher(algorithms.AES(key), modes.CTR(iv)).decryptor()
    for sequence in (5, 6):
        packet = sealer.seal(sequence, b"payload")
        sent, tag = packet[:-size], packet[-size:]
        plain = sent[:4] + stream.update(sent[4:]) if etm else stream.update(sent)
        signed = sequence.to_bytes(4, "big") + (sent if etm else plain)
        assert tag == hmac.new(mac_key, signed, digest).digest()
        length = int.from_bytes(plain[:4], "big")
        assert (length + (0 if etm else 4)) % 16 == 0
        assert length == len(plain) - 4
        body_of(plain[4:], b"payload")


def test_suite_sizes_match_ciphers() -> None:
    """The sizes are those of OpenSSH's cipher.c and mac.c."""
    for cipher, size, iv in (
        (b"aes128-gcm@openssh.com", 16, 12),
        (b"aes256-gcm@openssh.com", 32, 12),
        (b"chacha20-poly1305@openssh.com", 64, 0),
        (b"aes128-ctr", 16, 16),
        (b"aes192-ctr", 24, 16),
        (b"aes256-ctr", 32, 16),
    ):
        made = suite(cipher, b"hmac-sha2-512")
        assert (made.key, made.iv, made.mac) == (size, iv, 0 if is_aead(cipher) else 64)
