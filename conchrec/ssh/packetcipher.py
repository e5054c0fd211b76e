"""Encryption and decryption of one packet.

RFC 4253 section 6, RFC 5647, OpenSSH's PROTOCOL and PROTOCOL.chacha20poly1305. A packet is ``uint32 packet
length, byte padding length, payload, padding`` and, with most ciphers, a tag or MAC. A Sealer makes a
packet from a payload. An Opener gets the first ``head`` bytes, returns how many bytes follow, and returns
the payload; it raises RemoteViolation. Except for the length, no byte is used before it is authenticated.
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
from conchrec.ssh.context_pool import CONTEXTS

#: OpenSSH's limit (PACKET_MAX_SIZE). RFC 4253 section 6.1 requires only 35000.
MAX_PACKET = 256 * 1024
#: The limit before the first key exchange, when the peer is unknown: the minimum of RFC 4253 section 6.1.
MAX_CLEAR = 35_000


class Sealer(Protocol):
    """Encrypts packets of one direction."""

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """Return the whole packet. The payload may have several pieces."""


class Opener(Protocol):
    """Decrypts packets of one direction."""

    @property
    def head(self) -> int:
        """The number of bytes that ``rest`` needs."""

    def rest(self, sequence: int, head: bytes) -> int:
        """Return how many bytes follow the head of a packet. Called once for each packet."""

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """Return the payload."""


class _RandomPool:
    """Random bytes for padding, read from the operating system in larger pieces.

    One system call for each packet costs more than building the packet.
    """

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return ``size`` random bytes."""
        begin, self._at = self._at, self._at + size
        if self._at > len(self._bytes):
            self._bytes = os.urandom(4096)
            begin, self._at = 0, size
        return self._bytes[begin : self._at]


_random_pool = _RandomPool()


def _pad(payload: tuple[bytes, ...], block: int, counted: int) -> bytes:
    """Return the packet from the padding length on.

    ``counted`` is the number of other bytes that are part of the blocks: 4 if the length is encrypted.
    """
    padding = block - (counted + 1 + sum(map(len, payload))) % block
    if padding < 4:
        padding += block
    return b"".join((bytes((padding,)), *payload, _random_pool.take(padding)))


def _unpad(packet: bytes) -> bytes:
    """Return the payload of ``byte padding length, payload, padding``. Raises RemoteViolation."""
    padding = packet[0]
    if padding < 4 or padding + 1 >= len(packet):
        raise RemoteViolation("corrupt packet: invalid padding", code=ReasonCode.PACKET_CORRUPTED)
    return packet[1 : len(packet) - padding]


def _check_length(length: int, block: int, counted: int, limit: int = MAX_PACKET) -> int:
    """Return a packet length.

    Raises RemoteViolation if it is out of range or not a multiple of the block size.
    """
    if not 5 <= length <= limit:
        raise RemoteViolation(
            f"invalid packet length: {length} bytes, must be from 5 to {limit}",
            code=ReasonCode.PACKET_CORRUPTED,
        )
    if (length + counted) % block:
        raise RemoteViolation(
            "invalid packet length: not a multiple of the block size", code=ReasonCode.PACKET_CORRUPTED
        )
    return length


class Clear:
    """No encryption: the packets before the first key exchange."""

    head = 4

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """Return ``uint32 packet length, byte padding length, payload, padding``."""
        body = _pad(payload, 8, 4)
        return len(body).to_bytes(4, "big") + body

    def rest(self, sequence: int, head: bytes) -> int:
        """Return how many bytes follow the length field."""
        return _check_length(int.from_bytes(head, "big"), 8, 4, MAX_CLEAR)

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """Return the payload."""
        return _unpad(rest)


class Gcm:
    """aes*-gcm@openssh.com (RFC 5647): the length is authenticated and not encrypted."""

    head = 4
    _TAG = 16
    __slots__ = ("__weakref__", "_aead", "_counter", "_fixed", "_key")

    def __init__(self, key: bytes, iv: bytes, mac: bytes) -> None:
        self._key = key
        self._aead: AESGCM | None = None
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:12], "big")

    def drop_context(self) -> None:
        """Release the context; the next packet makes another one."""
        self._aead = None

    def _make_context(self) -> AESGCM:
        self._aead = aead = AESGCM(self._key)
        CONTEXTS.add(self)
        return aead

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """Return ``uint32 packet length``, then the ciphertext and a tag of 16 bytes over both."""
        body = _pad(payload, 16, 0)
        head = len(body).to_bytes(4, "big")
        return head + (self._aead or self._make_context()).encrypt(self._nonce(), body, head)

    def rest(self, sequence: int, head: bytes) -> int:
        """Return how many bytes follow the length field."""
        return _check_length(int.from_bytes(head, "big"), 16, 0) + self._TAG

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """Verify the tag and return the payload."""
        aead = self._aead or self._make_context()
        try:
            return _unpad(aead.decrypt(self._nonce(), rest, head))
        except InvalidTag:
            raise RemoteViolation(
                "corrupt packet: tag verification failed", code=ReasonCode.PACKET_CORRUPTED
            ) from None


class ChaCha:
    """chacha20-poly1305@openssh.com: the length is encrypted with a separate key."""

    head = 4
    _TAG = 16
    __slots__ = ("__weakref__", "_key", "_streams")

    def __init__(self, key: bytes, iv: bytes, mac: bytes) -> None:
        self._key = key
        #: The streams of the packet and of its length.
        self._streams: tuple[CipherContext, CipherContext] | None = None

    def drop_context(self) -> None:
        """Release the contexts; the next packet makes others."""
        self._streams = None

    def _make_context(self) -> tuple[CipherContext, CipherContext]:
        key, start = self._key, bytes(16)
        self._streams = streams = (
            Cipher(algorithms.ChaCha20(key[:32], start), None).encryptor(),
            Cipher(algorithms.ChaCha20(key[32:64], start), None).encryptor(),
        )
        CONTEXTS.add(self)
        return streams

    @staticmethod
    def _seek(stream: CipherContext, sequence: int) -> CipherContext:
        """Return ``stream`` at the first block for a packet."""
        # The 16 bytes are the block counter (little-endian) and the nonce, a 64-bit sequence number.
        stream.reset_nonce(bytes(8) + sequence.to_bytes(8, "big"))
        return stream

    def _keys(self, sequence: int) -> tuple[bytes, CipherContext]:
        """Return the key for the tag, and the stream for the packet, which starts at the next block."""
        main, _ = self._streams or self._make_context()
        stream = self._seek(main, sequence)
        return stream.update(bytes(64))[:32], stream

    def _crypt_length(self, sequence: int, head: bytes) -> bytes:
        """Encrypt or decrypt the length field."""
        _, stream = self._streams or self._make_context()
        return self._seek(stream, sequence).update(head)

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """Return the encrypted length, the ciphertext and a tag of 16 bytes over both."""
        body = _pad(payload, 8, 0)
        tag_key, stream = self._keys(sequence)
        head = self._crypt_length(sequence, len(body).to_bytes(4, "big"))
        sealed = stream.update(body)
        tag = Poly1305(tag_key)
        tag.update(head)
        tag.update(sealed)
        return b"".join((head, sealed, tag.finalize()))

    def rest(self, sequence: int, head: bytes) -> int:
        """Decrypt the length, and return how many bytes follow it."""
        length = int.from_bytes(self._crypt_length(sequence, head), "big")
        return _check_length(length, 8, 0) + self._TAG

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """Verify the tag, then decrypt and return the payload."""
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
    """A cipher without authentication. ``make`` gets key and IV; ``key`` and ``block`` are in bytes.

    ``is_counter``: the state depends only on the number of blocks, so that a context can be made again.
    """

    key: int
    block: int
    make: Callable[[bytes, bytes], Cipher[modes.CTR] | Cipher[modes.CBC]]
    is_counter: bool = False


def _ctr(key: bytes, iv: bytes) -> Cipher[modes.CTR]:
    return Cipher(algorithms.AES(key), modes.CTR(iv))


def _cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(key), modes.CBC(iv))


def _triple_des(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    # Imported here because it is rarely needed, and older releases of cryptography have it in another
    # module.
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

    return Cipher(TripleDES(key), modes.CBC(iv))


class _BlockStream:
    """Encrypts or decrypts the whole blocks of one direction."""

    __slots__ = ("__weakref__", "_blocks", "_cipher", "_context", "_decrypts", "_iv", "_key")

    def __init__(self, cipher: _CipherSpec, key: bytes, iv: bytes, *, decrypts: bool) -> None:
        self._cipher = cipher
        self._key = key
        self._iv = iv
        self._decrypts = decrypts
        self._blocks = 0
        self._context: CipherContext | None = None

    def update(self, data: bytes) -> bytes:
        """Return the next blocks, encrypted or decrypted."""
        context = self._context or self._make_context()
        self._blocks += len(data) // self._cipher.block
        return context.update(data)

    def drop_context(self) -> None:
        """Release the context; the next packet makes another one."""
        self._context = None

    def _make_context(self) -> CipherContext:
        iv = self._iv
        if self._cipher.is_counter:
            size = len(iv)
            counter = (int.from_bytes(iv, "big") + self._blocks) % (1 << 8 * size)
            iv = counter.to_bytes(size, "big")
            CONTEXTS.add(self)
        cipher = self._cipher.make(self._key, iv)
        self._context = context = cipher.decryptor() if self._decrypts else cipher.encryptor()
        return context


class _MacCipher:
    """A cipher with a separate HMAC.

    In CBC the length is used before the packet is authenticated, so an attacker may learn some bits from
    our reaction (CPNI-957037). This is one reason why only ``LEGACY`` has CBC.
    """

    def __init__(
        self, stream: _CipherSpec, key: bytes, iv: bytes, mac: bytes, digest: str, size: int
    ) -> None:
        self._block = stream.block
        self._encrypt = _BlockStream(stream, key, iv, decrypts=False)
        self._decrypt = _BlockStream(stream, key, iv, decrypts=True)
        self._mac_key = mac
        self._digest = digest
        self._tag = size

    def _mac(self, sequence: int, data: bytes) -> bytes:
        return hmac.digest(self._mac_key, sequence.to_bytes(4, "big") + data, self._digest)


class EncryptThenMac(_MacCipher):
    """A cipher with an ``-etm@openssh.com`` MAC (PROTOCOL 1.5).

    The length is not encrypted, and the MAC covers the ciphertext.
    """

    head = 4

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """Return ``uint32 packet length``, then the ciphertext and a MAC over both."""
        body = _pad(payload, self._block, 0)
        sealed = len(body).to_bytes(4, "big") + self._encrypt.update(body)
        return sealed + self._mac(sequence, sealed)

    def rest(self, sequence: int, head: bytes) -> int:
        """Return how many bytes follow the length field."""
        return _check_length(int.from_bytes(head, "big"), self._block, 0) + self._tag

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """Verify the MAC, then decrypt and return the payload."""
        body, tag = rest[: -self._tag], rest[-self._tag :]
        if not hmac.compare_digest(tag, self._mac(sequence, head + body)):
            raise RemoteViolation("corrupt packet: MAC verification failed", code=ReasonCode.PACKET_CORRUPTED)
        return _unpad(self._decrypt.update(body))


class EncryptAndMac(_MacCipher):
    """A cipher with a MAC over the plaintext (RFC 4253 section 6.4).

    The first block is decrypted to get the length.
    """

    def __init__(
        self, stream: _CipherSpec, key: bytes, iv: bytes, mac: bytes, digest: str, size: int
    ) -> None:
        super().__init__(stream, key, iv, mac, digest, size)
        self.head = stream.block
        self._first = b""

    def seal(self, sequence: int, *payload: bytes) -> bytes:
        """Return the ciphertext and a MAC over the plaintext."""
        body = _pad(payload, self._block, 4)
        packet = len(body).to_bytes(4, "big") + body
        return self._encrypt.update(packet) + self._mac(sequence, packet)

    def rest(self, sequence: int, head: bytes) -> int:
        """Decrypt the first block, and return how many bytes follow it."""
        self._first = self._decrypt.update(head)
        return (
            _check_length(int.from_bytes(self._first[:4], "big"), self._block, 4)
            + 4
            - self._block
            + self._tag
        )

    def open(self, sequence: int, head: bytes, rest: bytes) -> bytes:
        """Decrypt the rest, verify the MAC, and return the payload."""
        packet = self._first + self._decrypt.update(rest[: -self._tag])
        if not hmac.compare_digest(rest[-self._tag :], self._mac(sequence, packet)):
            raise RemoteViolation("corrupt packet: MAC verification failed", code=ReasonCode.PACKET_CORRUPTED)
        return _unpad(packet[4:])


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher with its MAC: the sizes of the key material in bytes, and a constructor.

    ``make`` gets key, IV and MAC key, and returns an object that seals and opens packets of one direction.
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
    b"aes128-ctr": _CipherSpec(16, 16, _ctr, is_counter=True),
    b"aes192-ctr": _CipherSpec(24, 16, _ctr, is_counter=True),
    b"aes256-ctr": _CipherSpec(32, 16, _ctr, is_counter=True),
    b"aes128-cbc": _CipherSpec(16, 16, _cbc),
    b"aes192-cbc": _CipherSpec(24, 16, _cbc),
    b"aes256-cbc": _CipherSpec(32, 16, _cbc),
    b"3des-cbc": _CipherSpec(24, 8, _triple_des),
}
_MACS = {b"hmac-sha2-256": ("sha256", 32), b"hmac-sha2-512": ("sha512", 64), b"hmac-sha1": ("sha1", 20)}
_ETM = b"-etm@openssh.com"


def is_aead(cipher: bytes) -> bool:
    """Return whether the cipher authenticates packets itself, so that no MAC is negotiated."""
    return cipher in _AEAD


def suite(cipher: bytes, mac: bytes) -> Suite:
    """Return the Suite for offered names; ``mac`` is ignored if ``is_aead``."""
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
