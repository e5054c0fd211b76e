"""Splits a stream into an identification string and packets, and joins packets to a stream.

RFC 4253 sections 4.2 and 6. This module does not interpret messages. Time and memory are proportional to
the received bytes: they are copied once into the buffer and once out of it.
"""

from __future__ import annotations

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.compression import Deflate, Inflate
from conchrec.ssh.packetcipher import Clear, Opener, Sealer

#: RFC 4253 section 4.2: at most 255 bytes with CR and LF; and limits for the lines that a server may send
#: before.
MAX_IDENTIFICATION = 255
MAX_GREETING = 8 * 1024
MAX_GREETING_LINES = 50
_WRAP = 0xFFFFFFFF


class InboundPackets:
    """The bytes from the peer: first the identification string, then packets.

    ``sequence`` is the number of the next packet, ``handling`` the number of the last packet that was
    returned. ``counted`` is the number of bytes under the current keys, ``carried`` under all keys. Raises
    RemoteViolation for invalid data.
    """

    __slots__ = (
        "_buffer", "_earlier", "_greeting_size", "_inflate", "_is_compressed", "_is_logged_in",
        "_next", "_opener", "_packet_head", "_rest_length", "_start", "counted", "greeting",
        "handling", "limit", "sequence",
    )  # fmt: skip

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._opener: Opener = Clear()
        self._inflate: Inflate | None = None
        self._is_compressed = self._is_logged_in = False
        #: The keys after the peer's NEWKEYS, with the arguments of ``expect``.
        self._next: tuple[Opener, bool, bool] | None = None
        self._packet_head: bytes | None = None
        self._rest_length = 0
        self._greeting_size = 0
        self.greeting: list[bytes] = []
        self.sequence = 0
        self.handling = 0
        self.counted = 0
        self._earlier = 0
        #: The current maximum packet size in bytes; None: the limit of the cipher.
        self.limit: int | None = None

    def __len__(self) -> int:
        """The number of bytes that were received and not returned."""
        return len(self._buffer) - self._start

    @property
    def carried(self) -> int:
        """Bytes of packets under all keys."""
        return self._earlier + self.counted

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._start > len(self._buffer) // 2:
            # While packets keep arriving, the buffer never becomes empty; remove the used part here.
            self._compact()
        self._buffer += data

    def clear(self) -> None:
        """Discard all bytes."""
        self._buffer.clear()
        self._start = 0

    def identification(self, *, of_client: bool) -> bytes | None:
        """Return the identification string (``SSH-…``) without CR and LF, or None until it is complete.

        A server may send other lines before it, which are kept in ``greeting``; a client may not.
        """
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", 0, MAX_GREETING + 1)
            if end < 0:
                limit = MAX_IDENTIFICATION if of_client else MAX_GREETING
                if len(buffer) > limit or (of_client and not _could_be_identification(buffer)):
                    raise RemoteViolation(
                        "the other side did not send an SSH identification string", code=ReasonCode.NOT_SSH
                    )
                return None
            line = bytes(buffer[:end]).rstrip(b"\r")
            del buffer[: end + 1]
            if line.startswith(b"SSH-"):
                return line
            self._greeting_size += len(line) + 1
            self.greeting.append(line[:MAX_IDENTIFICATION])
            if of_client or self._greeting_size > MAX_GREETING or len(self.greeting) > MAX_GREETING_LINES:
                raise RemoteViolation(
                    "the other side did not send an SSH identification string", code=ReasonCode.NOT_SSH
                )

    def packet(self) -> bytes | None:
        """Return the payload of the next packet, never empty, or None until the packet is complete."""
        opener = self._opener
        if self._packet_head is None:
            if len(self) < opener.head:
                self._compact()
                return None
            head = self._read_bytes(opener.head)
            self._rest_length = opener.rest(self.sequence, head)
            if self.limit is not None and self._rest_length > self.limit:
                raise RemoteViolation(
                    f"the packet is too long: {self._rest_length} bytes, the limit is {self.limit}",
                    code=ReasonCode.PACKET_CORRUPTED,
                )
            self._packet_head = head
        if len(self) < self._rest_length:
            self._compact()
            return None
        head, self._packet_head = self._packet_head, None
        payload = opener.open(self.sequence, head, self._read_bytes(self._rest_length))
        self.counted += len(head) + self._rest_length
        self.handling = self.sequence
        self.sequence = (self.sequence + 1) & _WRAP
        if self._inflate is not None:
            payload = self._inflate(payload)
        if not payload:
            raise RemoteViolation("the packet is empty", code=ReasonCode.PACKET_CORRUPTED)
        return payload

    def log_in(self) -> None:
        """Start decompression with the next packet, if it was negotiated. Called after the login.

        If new keys are expected, decompression starts with those keys.
        """
        self._is_logged_in = True
        if self._is_compressed and self._next is None:
            self._inflate = Inflate()

    def expect(self, opener: Opener, *, reset: bool, compress: bool = False) -> None:
        """Set the keys that ``renew`` puts into use.

        With ``reset`` the sequence number is then set to 0 (strict key exchange). With ``compress`` packets
        are compressed after the login.
        """
        self._next = (opener, reset, compress)

    def renew(self) -> None:
        """Use the expected keys from the next packet on."""
        assert self._next is not None
        (self._opener, reset, self._is_compressed), self._next = self._next, None
        self._inflate = Inflate() if self._is_compressed and self._is_logged_in else None
        self._earlier += self.counted
        self.counted = 0
        if reset:
            self.sequence = 0

    def _read_bytes(self, count: int) -> bytes:
        """Return the next ``count`` bytes of the buffer."""
        begin, self._start = self._start, self._start + count
        with memoryview(self._buffer) as view:
            return bytes(view[begin : self._start])

    def _compact(self) -> None:
        """Remove returned bytes from the buffer."""
        del self._buffer[: self._start]
        self._start = 0


class OutboundPackets:
    """The packets to the peer. The attributes are those of InboundPackets."""

    __slots__ = (
        "_deflate", "_earlier", "_is_compressed", "_is_logged_in", "_sealer", "counted", "sequence",
    )  # fmt: skip

    def __init__(self) -> None:
        self._sealer: Sealer = Clear()
        self._deflate: Deflate | None = None
        self._is_compressed = self._is_logged_in = False
        self.sequence = 0
        self.counted = 0
        self._earlier = 0

    @property
    def carried(self) -> int:
        """Bytes of packets under all keys."""
        return self._earlier + self.counted

    def packet(self, number: int, payload: bytes) -> bytes:
        """Return the packet for the message ``number, payload``."""
        if self._deflate is None:
            packet = self._sealer.seal(self.sequence, bytes((number,)), payload)
        else:
            packet = self._sealer.seal(self.sequence, self._deflate(bytes((number,)) + payload))
        self.sequence = (self.sequence + 1) & _WRAP
        self.counted += len(packet)
        return packet

    def log_in(self) -> None:
        """Start compression with the next packet, if it was negotiated. Called after the login."""
        self._is_logged_in = True
        if self._is_compressed:
            self._deflate = Deflate()

    def renew(self, sealer: Sealer, *, reset: bool, compress: bool = False) -> None:
        """Use new keys from the next packet on.

        ``InboundPackets.expect`` explains ``reset`` and ``compress``.
        """
        self._sealer = sealer
        self._is_compressed = compress
        self._deflate = Deflate() if compress and self._is_logged_in else None
        self._earlier += self.counted
        self.counted = 0
        if reset:
            self.sequence = 0


def _could_be_identification(buffer: bytearray) -> bool:
    """Return whether more bytes can complete ``buffer`` to an identification string."""
    return b"SSH-".startswith(bytes(buffer[:4])) or buffer.startswith(b"SSH-")
