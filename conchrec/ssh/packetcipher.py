"""Sealing and opening one packet (RFC 4253 section 6, PROTOCOL, PROTOCOL.chacha20poly1305, RFC 5647).

A packet is ``uint32 packet length, byte padding length, payload, padding`` and, with most ciphers, a tag.
A Sealer makes one from a payload. An Opener is told the first ``head`` bytes, says how many more belong
to the packet, and makes a payload of them; both raise RemoteViolation, and nothing is believed of what
has not been authenticated but its length.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode

#: OpenSSH's own limit (PACKET_MAX_SIZE); 35000 is all that RFC 4253 section 6.1 asks for.
MAX_PACKET = 256 * 1024
#: The same before the first key exchange, from anybody at all: what RFC 4253 section 6.1 asks for.
MAX_CLEAR = 35_000


class Sealer(Protocol):
    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """The whole packet, of a payload that may come in pieces."""


class Opener(Protocol):
    @property
    def head(self) -> int:
        """How many bytes ``rest`` wants to see."""

    def rest(self, sequence: int, head: bytes) -> int:
        """How many bytes follow the head of this packet. Called once for each."""

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """The payload."""


class _RandomPool:
    """Random bytes. Asked for packet by packet, the operating system costs more than the joining of one."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        if self._at > len(self._bytes):
            self._bytes = os.urandom(4096)
            begin, self._at = 0, size
        return self._bytes[begin : self._at]


_random_pool = _RandomPool()


def _pad(payload: tuple[bytes, ...], block: int, counted: int) -> bytes:
    """The packet from the padding length on. ``counted`` is what else has to fill the blocks: 4 where the
    length is encrypted with the rest."""
    padding = block - (counted + 1 + sum(map(len, payload))) % block
    if padding < 4:
        padding += block
    return b"".join((bytes((padding,)), *payload, _random_pool.take(padding)))


def _unpad(packet: bytes) -> bytes:
    """The payload of ``byte padding length, payload, padding``."""
    padding = packet[0]
    if padding < 4 or padding + 1 >= len(packet):
        raise RemoteViolation("corrupt packet: invalid padding", code=ReasonCode.PACKET_CORRUPTED)
    return packet[1 : len(packet) - padding]


def _check_length(length: int, block: int, counted: int, limit: int = MAX_PACKET) -> int:
    if not 5 <= length <= limit:
        raise RemoteViolation(
            f"invalid packet length: {length} bytes, allowed are 5 to {limit}",
            code=ReasonCode.PACKET_CORRUPTED,
        )
    if (length + counted) % block:
        raise RemoteViolation(
            "invalid packet length: not a multiple of the block size", code=ReasonCode.PACKET_CORRUPTED
        )
    return length


class Clear:
    """Before the first key exchange: nothing is hidden, nothing proved."""

    head = 4

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        body = _pad(payload, 8, 4)
        return len(body).to_bytes(4, "big") + body

    def rest(self, sequence: int, head: bytes) -> int:
        return _check_length(int.from_bytes(head, "big"), 8, 4, MAX_CLEAR)

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        return _unpad(rest)


class Gcm:
    """aes*-gcm@openssh.com (RFC 5647): the length in the clear, and authenticated."""

    head = 4
    _TAG = 16

    def __init__(self, key: bytes, iv: bytes, mac: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:12], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        body = _pad(payload, 16, 0)
        head = len(body).to_bytes(4, "big")
        return head + self._aead.encrypt(self._nonce(), body, head)

    def rest(self, sequence: int, head: bytes) -> int:
        return _check_length(int.from_bytes(head, "big"), 16, 0) + self._TAG

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        try:
            return _unpad(self._aead.decrypt(self._nonce(), rest, head))
        except InvalidTag:
            raise RemoteViolation(
                "corrupt packet: tag verification failed", code=ReasonCode.PACKET_CORRUPTED
            ) from None


class ChaCha:
    """chacha20-poly1305@openssh.com: the length under a key of its own."""

    head = 4
    _TAG = 16

    def __init__(self, key: bytes, iv: bytes, mac: bytes) -> None:
        self._main, self._length = (
            Cipher(algorithms.ChaCha20(half, bytes(16)), None).encryptor() for half in (key[:32], key[32:64])
        )

    @staticmethod
    def _seek(stream: CipherContext, sequence: int) -> CipherContext:
        """At the first block of this packet."""
        # The 16 bytes are the block counter, little endian, and the nonce: a 64 bit sequence number.
        stream.reset_nonce(bytes(8) + sequence.to_bytes(8, "big"))
        return stream

    def _keys(self, sequence: int) -> tuple[bytes, CipherContext]:
        """The key of the tag, and the stream for the packet, which begins with the next block."""
        stream = self._seek(self._main, sequence)
        return stream.update(bytes(64))[:32], stream

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        body = _pad(payload, 8, 0)
        tag_key, stream = self._keys(sequence)
        head = self._seek(self._length, sequence).update(len(body).to_bytes(4, "big"))
        sealed = stream.update(body)
        tag = Poly1305(tag_key)
        tag.update(head)
        tag.update(sealed)
        return b"".join((head, sealed, tag.finalize()))

    def rest(self, sequence: int, head: bytes) -> int:
        length = int.from_bytes(self._seek(self._length, sequence).update(head), "big")
        return _check_length(length, 8, 0) + self._TAG

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        tag_key, stream = self._keys(sequence)
        sealed = memoryview(rest)[: -self._TAG]
        tag = Poly1305(tag_key)
        tag.update(head)
        tag.update(sealed)
        try:
            tag.verify(rest[-self._TAG :])
        except InvalidSignature:
            raise RemoteViolation(
                "corrupt packet: tag verification failed", code=ReasonCode.PACKET_CORRUPTED
            ) from None
        return _unpad(stream.update(sealed))


@dataclass(frozen=True, slots=True)
class _CipherSpec:
    """A cipher that authenticates nothing. ``make`` takes key and IV; ``block`` and ``key`` are in bytes."""

    key: int
    block: int
    make: Callable[[bytes, bytes], Cipher[modes.CTR] | Cipher[modes.CBC]]


def _ctr(key: bytes, iv: bytes) -> Cipher[modes.CTR]:
    return Cipher(algorithms.AES(key), modes.CTR(iv))


def _cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(key), modes.CBC(iv))


def _triple_des(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    # Few ever come here, and older releases of cryptography have it elsewhere.
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

    return Cipher(TripleDES(key), modes.CBC(iv))


class _MacCipher:
    """A cipher that needs an HMAC beside it.

    In CBC the length of a packet is believed before anything is proved, so someone in between may learn
    a few bits by what we do then (CPNI-957037): one of the reasons why only ``LEGACY`` has it.
    """

    def __init__(
        self, stream: _CipherSpec, key: bytes, iv: bytes, mac: bytes, digest: str, size: int
    ) -> None:
        cipher = stream.make(key, iv)
        self._block = stream.block
        self._encrypt = cipher.encryptor()
        self._decrypt = cipher.decryptor()
        self._mac_key = mac
        self._digest = digest
        self._tag = size

    def _mac(self, sequence: int, data: bytes) -> bytes:
        return hmac.digest(self._mac_key, sequence.to_bytes(4, "big") + data, self._digest)


class EncryptThenMac(_MacCipher):
    """With an ``-etm@openssh.com`` MAC (PROTOCOL 1.5): the length in the clear, the MAC over the rest."""

    head = 4

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        body = _pad(payload, self._block, 0)
        sealed = len(body).to_bytes(4, "big") + self._encrypt.update(body)
        return sealed + self._mac(sequence, sealed)

    def rest(self, sequence: int, head: bytes) -> int:
        return _check_length(int.from_bytes(head, "big"), self._block, 0) + self._tag

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        body, tag = rest[: -self._tag], rest[-self._tag :]
        if not hmac.compare_digest(tag, self._mac(sequence, head + body)):
            raise RemoteViolation("corrupt packet: MAC verification failed", code=ReasonCode.PACKET_CORRUPTED)
        return _unpad(self._decrypt.update(body))


class EncryptAndMac(_MacCipher):
    """With a MAC over the plain text (RFC 4253 section 6.4): the first block is opened to see the length."""

    def __init__(
        self, stream: _CipherSpec, key: bytes, iv: bytes, mac: bytes, digest: str, size: int
    ) -> None:
        super().__init__(stream, key, iv, mac, digest, size)
        self.head = stream.block
        self._first = b""

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        body = _pad(payload, self._block, 4)
        packet = len(body).to_bytes(4, "big") + body
        return self._encrypt.update(packet) + self._mac(sequence, packet)

    def rest(self, sequence: int, head: bytes) -> int:
        self._first = self._decrypt.update(head)
        return (
            _check_length(int.from_bytes(self._first[:4], "big"), self._block, 4)
            + 4
            - self._block
            + self._tag
        )

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        packet = self._first + self._decrypt.update(rest[: -self._tag])
        if not hmac.compare_digest(rest[-self._tag :], self._mac(sequence, packet)):
            raise RemoteViolation("corrupt packet: MAC verification failed", code=ReasonCode.PACKET_CORRUPTED)
        return _unpad(packet[4:])


@dataclass(frozen=True, slots=True)
class Suite:
    """How much key material a cipher with its MAC takes, in bytes, and what is made of it.

    ``make`` takes key, IV and MAC key, and gives what seals and opens (one object for one direction).
    """

    key: int
    iv: int
    mac: int
    make: Callable[[bytes, bytes, bytes], Clear | Gcm | ChaCha | EncryptThenMac | EncryptAndMac]


_AEAD = {
    b"aes128-gcm@openssh.com": Suite(16, 12, 0, Gcm),
    b"aes256-gcm@openssh.com": Suite(32, 12, 0, Gcm),
    b"chacha20-poly1305@openssh.com": Suite(64, 0, 0, ChaCha),
}
_STREAMS = {
    b"aes128-ctr": _CipherSpec(16, 16, _ctr),
    b"aes192-ctr": _CipherSpec(24, 16, _ctr),
    b"aes256-ctr": _CipherSpec(32, 16, _ctr),
    b"aes128-cbc": _CipherSpec(16, 16, _cbc),
    b"aes192-cbc": _CipherSpec(24, 16, _cbc),
    b"aes256-cbc": _CipherSpec(32, 16, _cbc),
    b"3des-cbc": _CipherSpec(24, 8, _triple_des),
}
_MACS = {b"hmac-sha2-256": ("sha256", 32), b"hmac-sha2-512": ("sha512", 64), b"hmac-sha1": ("sha1", 20)}
_ETM = b"-etm@openssh.com"


def is_aead(cipher: bytes) -> bool:
    """True where the cipher authenticates by itself and no MAC is negotiated."""
    return cipher in _AEAD


def suite(cipher: bytes, mac: bytes) -> Suite:
    """For names that we offered; ``mac`` is not looked at where ``is_aead``."""
    if cipher in _AEAD:
        return _AEAD[cipher]
    digest, size = _MACS[mac.removesuffix(_ETM)]
    kind = EncryptThenMac if mac.endswith(_ETM) else EncryptAndMac
    stream = _STREAMS[cipher]
    return Suite(
        stream.key,
        stream.block,
        size,
        lambda key, iv, mac_key: kind(stream, key, iv, mac_key, digest, size),
    )
