"""``zlib@openssh.com``: compression that starts after the login (OpenSSH's PROTOCOL, section 1.1).

Nothing is decompressed before the login, so that unauthenticated peers cannot attack zlib. Each key
exchange starts a new stream (RFC 4253 section 6.2). Every packet is flushed, so that it can be read when it
arrives.
"""

from __future__ import annotations

import zlib

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.packetcipher import MAX_PACKET

NONE = b"none"
DELAYED = b"zlib@openssh.com"
#: OpenSSH's level. Higher levels cost much time and save little.
LEVEL = 6


class Deflate:
    """Compresses the payloads of one direction."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(LEVEL)

    def __call__(self, payload: bytes) -> bytes:
        """Return the compressed payload."""
        return self._stream.compress(payload) + self._stream.flush(zlib.Z_PARTIAL_FLUSH)


class Inflate:
    """Decompresses the payloads of the other direction.

    Raises RemoteViolation for data that is not zlib, and for a payload that would be longer than
    MAX_PACKET.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def __call__(self, payload: bytes) -> bytes:
        """Return the decompressed payload. Raises RemoteViolation."""
        try:
            inflated = self._stream.decompress(payload, MAX_PACKET)
        except zlib.error:
            raise RemoteViolation(
                "corrupt packet: decompression failed", code=ReasonCode.PACKET_CORRUPTED
            ) from None
        if self._stream.eof:
            raise RemoteViolation(
                "corrupt packet: the compressed stream has ended", code=ReasonCode.PACKET_CORRUPTED
            )
        if len(inflated) >= MAX_PACKET:
            raise RemoteViolation(
                f"the decompressed packet is too long: the limit is {MAX_PACKET} bytes",
                code=ReasonCode.PACKET_CORRUPTED,
            )
        return inflated
