"""A stream of bytes, cut into a version line and packets, and packets made into a stream (RFC 4253
sections 4.2 and 6). Knows no message.

Time and memory are proportional to what arrives: bytes are copied into the buffer once, out of it once,
and what has been read goes from its front when it is used up.
"""

from __future__ import annotations

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.compression import Deflate, Inflate
from conchrec.ssh.packetcipher import Clear, Opener, Sealer

#: RFC 4253 section 4.2: 255 with CR and LF; and what a server may say before it.
MAX_IDENTIFICATION = 255
MAX_GREETING = 8 * 1024
MAX_GREETING_LINES = 50
_WRAP = 0xFFFFFFFF


class InboundPackets:
    """What the peer sends: first its version line, then packets.

    ``sequence`` is the number of the next packet, ``handling`` that of the one that was read last;
    ``counted`` are the bytes since the keys are in use, ``carried`` those under all keys. Raises
    RemoteViolation for what is not SSH.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._opener: Opener = Clear()
        self._inflate: Inflate | None = None
        self._is_compressed = self._is_logged_in = False
        #: Keys that follow the peer's NEWKEYS, and the arguments of ``expect``.
        self._next: tuple[Opener, bool, bool] | None = None
        self._packet_head: bytes | None = None
        self._rest_length = 0
        self._greeting_size = 0
        self.greeting: list[bytes] = []
        self.sequence = 0
        self.handling = 0
        self.counted = 0
        self._earlier = 0
        #: Bytes that a packet may have now; None: as many as the cipher takes.
        self.limit: int | None = None

    def __len__(self) -> int:
        """Bytes that wait to be read."""
        return len(self._buffer) - self._start

    @property
    def carried(self) -> int:
        return self._earlier + self.counted

    def feed(self, data: bytes) -> None:
        if self._start > len(self._buffer) // 2:
            # A reader that always has a packet left never comes to the end of the buffer.
            self._compact()
        self._buffer += data

    def clear(self) -> None:
        """Nobody reads any more."""
        self._buffer.clear()
        self._start = 0

    def identification(self, *, of_client: bool) -> bytes | None:
        """The line that begins with ``SSH-``, without its end; None until it is all there.

        A server may say other lines before it, which are kept in ``greeting``; a client may not.
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
        """The payload of the next packet, never empty; None until it is all there."""
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
        """The login is done: the next packet begins a compressed stream, where that was agreed. Where keys
        are expected, the stream begins with those."""
        self._is_logged_in = True
        if self._is_compressed and self._next is None:
            self._inflate = Inflate()

    def expect(self, opener: Opener, *, reset: bool, compress: bool = False) -> None:
        """The keys that ``renew`` takes into use. ``reset``: packets then begin with the number 0 (strict key
        exchange); ``compress``: they are compressed once the login is done."""
        self._next = (opener, reset, compress)

    def renew(self) -> None:
        """The next packet is under the keys that are expected."""
        assert self._next is not None
        (self._opener, reset, self._is_compressed), self._next = self._next, None
        self._inflate = Inflate() if self._is_compressed and self._is_logged_in else None
        self._earlier += self.counted
        self.counted = 0
        if reset:
            self.sequence = 0

    def _read_bytes(self, count: int) -> bytes:
        begin, self._start = self._start, self._start + count
        with memoryview(self._buffer) as view:
            return bytes(view[begin : self._start])

    def _compact(self) -> None:
        del self._buffer[: self._start]
        self._start = 0


class OutboundPackets:
    """What we send, packet by packet. The fields are those of Incoming."""

    def __init__(self) -> None:
        self._sealer: Sealer = Clear()
        self._deflate: Deflate | None = None
        self._is_compressed = self._is_logged_in = False
        self.sequence = 0
        self.counted = 0
        self._earlier = 0

    @property
    def carried(self) -> int:
        return self._earlier + self.counted

    def packet(self, number: int, payload: bytes) -> bytes:
        if self._deflate is None:
            packet = self._sealer.seal(self.sequence, bytes((number,)), payload)
        else:
            packet = self._sealer.seal(self.sequence, self._deflate(bytes((number,)) + payload))
        self.sequence = (self.sequence + 1) & _WRAP
        self.counted += len(packet)
        return packet

    def log_in(self) -> None:
        """The login is done: the next packet begins a compressed stream, where that was agreed."""
        self._is_logged_in = True
        if self._is_compressed:
            self._deflate = Deflate()

    def renew(self, sealer: Sealer, *, reset: bool, compress: bool = False) -> None:
        """The next packet is under new keys (``InboundPackets.expect`` explains the arguments)."""
        self._sealer = sealer
        self._is_compressed = compress
        self._deflate = Deflate() if compress and self._is_logged_in else None
        self._earlier += self.counted
        self.counted = 0
        if reset:
            self.sequence = 0


def _could_be_identification(buffer: bytearray) -> bool:
    return b"SSH-".startswith(bytes(buffer[:4])) or buffer.startswith(b"SSH-")
