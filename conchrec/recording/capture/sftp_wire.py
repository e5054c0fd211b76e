"""The packets of SFTP version 3: numbers, fields, and how a stream is split into packets.

draft-ietf-secsh-filexfer-02, with the extensions of OpenSSH's PROTOCOL, section 4. A packet is ``uint32
length, byte type``, then (except in INIT and VERSION) ``uint32 request id``, then the fields of its type.
Everything here raises NotFollowed for a packet that is too short or too long. It has no files and no sockets.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass

from conchrec.recording.format.transfer_account import NotFollowed, path_text

VERSION = 3

#: The longest packet that is not a file's data: sftp-server's own limit.
PACKET = 256 * 1024
#: The longest packet with a file's data. Some other servers accept several MiB.
DATA_PACKET = 16 * 1024 * 1024
#: A handle is no longer than this (section 3 of the draft).
HANDLE = 256
#: Extended attributes of one file; there are none in use.
PAIRS = 64
#: The most bytes of extensions in INIT and VERSION. OpenSSH's VERSION has 300 bytes.
INIT_SIZE = 1024
VERSION_SIZE = 8 * 1024
#: The longest text of a STATUS.
STATUS_TEXT = 4 * 1024

INIT, VERSION_REPLY = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE_REPLY, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

FXF_READ, FXF_WRITE, FXF_APPEND, FXF_CREAT, FXF_TRUNC, FXF_EXCL = 1, 2, 4, 8, 16, 32
_FLAGS = {
    FXF_READ: "read",
    FXF_WRITE: "write",
    FXF_APPEND: "append",
    FXF_CREAT: "create",
    FXF_TRUNC: "truncate",
    FXF_EXCL: "exclusive",
}
_KNOWN_FLAGS = sum(_FLAGS)
#: OPEN may change the file that it opens.
MODIFIES = FXF_WRITE | FXF_APPEND | FXF_CREAT | FXF_TRUNC

OK, EOF = 0, 1
_RESULTS = {
    OK: "ok",
    EOF: "end of file",
    2: "no such file",
    3: "permission denied",
    4: "failure",
    5: "bad message",
    6: "no connection",
    7: "connection lost",
    8: "not supported",
}
#: The most bytes of the names of extended attributes that are kept.
_NAMES_SHOWN = 256


def result_text(code: int) -> str:
    """Return a status code as an account shows it."""
    return _RESULTS.get(code, f"status {code}")


def flags_text(flags: int) -> str:
    """Return the flags of OPEN (section 6.3): ``flags=write,create,truncate``; unknown bits in
    hexadecimal."""
    names = [name for bit, name in _FLAGS.items() if flags & bit]
    if other := flags & ~_KNOWN_FLAGS:
        names.append(f"{other:#x}")
    return f"flags={','.join(names)}"


class Cursor:
    """Reads one packet. Each method takes the next value, or raises NotFollowed."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether everything was read."""
        return self._at >= len(self._data)

    def uint32(self) -> int:
        """Take a number of 32 bits."""
        return int.from_bytes(self._take(4), "big")

    def uint64(self) -> int:
        """Take a number of 64 bits."""
        return int.from_bytes(self._take(8), "big")

    def boolean(self) -> bool:
        """Take a byte; anything but 0 is true."""
        return self._take(1) != b"\0"

    def string(self) -> bytes:
        """Take a string: ``uint32 length``, and so many bytes."""
        return self._take(self.uint32())

    def handle(self) -> bytes:
        """Take a string that is no longer than a handle may be."""
        handle = self.string()
        if len(handle) > HANDLE:
            raise NotFollowed("a handle is too long")
        return handle

    def rest(self) -> bytes:
        """Take everything up to the end of the packet."""
        return self._take(len(self._data) - self._at)

    def finish(self) -> None:
        """Check that the packet ends here. A server skips what follows, so anything could stand there."""
        if not self.at_end:
            raise NotFollowed("a packet is longer than its fields")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise NotFollowed("a packet is cut short")
        piece = self._data[self._at : end]
        self._at = end
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a request sets, or an answer reports, of a file. ``extended`` are names of extended attributes."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    permissions: int | None = None
    times: tuple[int, int] | None = None
    extended: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, cursor: Cursor) -> Attributes:
        """Read ``uint32 flags`` and what they announce (section 5): ``uint64 size``, ``uint32 uid, gid``,
        ``uint32 permissions``, ``uint32 atime, mtime``, ``uint32 count`` and pairs of strings."""
        flags = cursor.uint32()
        size = cursor.uint64() if flags & 0x1 else None
        owner = (cursor.uint32(), cursor.uint32()) if flags & 0x2 else None
        permissions = cursor.uint32() if flags & 0x4 else None
        times = (cursor.uint32(), cursor.uint32()) if flags & 0x8 else None
        names = []
        if flags & 0x80000000:
            if (pairs := cursor.uint32()) > PAIRS:
                raise NotFollowed("too many attributes")
            for _ in range(pairs):
                names.append(cursor.string())
                cursor.string()
        return cls(size=size, owner=owner, permissions=permissions, times=times, extended=tuple(names))

    @property
    def file_size(self) -> int | None:
        """The size, where this may be a regular file."""
        kind = stat.S_IFMT(self.permissions or 0)
        return self.size if kind in (0, stat.S_IFREG) else None

    def __str__(self) -> str:
        """As an account has it: ``size=7 owner=1:2 mode=4755 atime=3 mtime=4 extended=name``."""
        words = []
        if self.size is not None:
            words.append(f"size={self.size}")
        if self.owner is not None:
            words.append(f"owner={self.owner[0]}:{self.owner[1]}")
        if self.permissions is not None:
            words.append(f"mode={stat.S_IMODE(self.permissions):04o}")
        if self.times is not None:
            words.append(f"atime={self.times[0]} mtime={self.times[1]}")
        if self.extended:
            names = b",".join(self.extended)
            cut = "…" if len(names) > _NAMES_SHOWN else ""
            words.append(f"extended={path_text(names[:_NAMES_SHOWN])}{cut}")
        return " ".join(words)


class PacketStream:
    """One direction, split into packets, in whatever pieces it comes.

    ``streamed`` is the type whose data is not collected: ``begin`` gets what stands before the data, without
    length and type, and returns a function that takes the data; ``done`` is called after it. ``packet`` gets
    the type and the rest of each other packet. Both may raise NotFollowed.
    """

    __slots__ = (
        "_begin", "_done", "_head", "_kind", "_left", "_length", "_packet", "_streamed", "_take", "_unread",
        "_wanted",
    )  # fmt: skip

    def __init__(
        self,
        streamed: int,
        begin: Callable[[bytes], Callable[[memoryview], None]],
        done: Callable[[], None],
        packet: Callable[[int, bytes], None],
    ) -> None:
        self._streamed = streamed
        self._begin = begin
        self._done = done
        self._packet = packet
        #: The received part of the incomplete packet, without a file's data.
        self._head = bytearray()
        self._wanted = 5
        self._kind = -1
        self._length = 0
        #: The bytes of data that are missing.
        self._left = 0
        self._take: Callable[[memoryview], None] | None = None
        self._unread = b""

    @property
    def unread(self) -> bytes:
        """The bytes that are in no packet that was read: those of the incomplete packet, and after
        NotFollowed those of the packet that raised it and of everything after it."""
        return bytes(self._head) + self._unread

    def feed(self, data: bytes) -> None:
        """Read bytes. Raises NotFollowed; must not be called again after that."""
        view = memoryview(data)
        at, end = 0, len(view)
        try:
            while at < end:
                if self._take is not None:
                    piece = view[at : at + self._left]
                    self._take(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    self._end_of_data()
                else:
                    step = min(self._wanted - len(self._head), end - at)
                    self._head += view[at : at + step]
                    at += step
                    if len(self._head) == self._wanted:
                        self._head_complete()
        except NotFollowed:
            self._unread = bytes(view[at:])
            raise

    def _head_complete(self) -> None:
        """The wanted part of the packet is complete."""
        head = self._head
        if self._wanted == 5:
            length, self._kind = struct.unpack(">IB", head)
            streams = self._kind == self._streamed
            if length < (9 if streams else 5):
                raise NotFollowed("a packet is too short")
            if length > (DATA_PACKET if streams else PACKET):
                raise NotFollowed("a packet is too long")
            self._length = length + 4
            self._wanted = 13 if streams else self._length
        elif self._kind != self._streamed:
            self._packet(self._kind, bytes(head[5:]))
            self._next()
        elif self._kind == WRITE and self._wanted == 13:
            handle = int.from_bytes(head[9:13], "big")
            if handle > HANDLE:
                raise NotFollowed("a handle is too long")
            self._wanted += handle + 12
        else:
            left = int.from_bytes(head[-4:], "big")
            if left > self._length - self._wanted:
                raise NotFollowed("a packet is cut short")
            if left < self._length - self._wanted:
                raise NotFollowed("a packet is longer than its fields")
            take = self._begin(bytes(head[5:]))
            self._next()
            self._left, self._take = left, take
            self._end_of_data()

    def _next(self) -> None:
        """The packet was read: the next one begins."""
        self._head = bytearray()
        self._wanted = 5

    def _end_of_data(self) -> None:
        if not self._left:
            self._take = None
            self._done()
