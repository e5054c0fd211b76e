"""SFTP as it flows by: which files were read and written, and what else was changed.

Version 3 (draft-ietf-secsh-filexfer-02) with the extensions of OpenSSH's PROTOCOL, section 4. Requests
may be pipelined and their answers may come in any order; they are matched by request id. The bytes of
files are hashed as they pass and are never kept, but for a few that come out of order. What grows with
what a peer does (open files, requests without an answer) has a bound. A reader that does not
understand a packet says so once and reads nothing more. No files, no sockets, no clock of its own.

A packet is ``uint32 length, byte type``, and after that, but for INIT and VERSION, ``uint32 request id``.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from conchrec.recording.account import PATH_MAX, Found, Lost, Operation, path_text

VERSION = 3

#: The longest packet that is not a file's data: sftp-server's own limit.
PACKET = 256 * 1024
#: The longest with a file's data. Servers of other makers take some MiB.
DATA_PACKET = 16 * 1024 * 1024
#: A handle is no longer than this (section 3 of the draft).
HANDLE = 256
#: Who asks for no more than this gets it, but at the end of a file (sections 3 and 6.4).
CERTAIN = 32 * 1024
#: Requests without an answer: paramiko asks for a whole file at once, as far as windows let it.
REQUESTS = 128 * 1024
#: What open files and unanswered changes may take, roughly, in bytes; each costs its paths and this.
NAMES = 4 * 1024 * 1024
_EACH = 1024
#: Bytes that came before their turn, of all files; each packet costs its data and this.
WINDOW = 4 * 1024 * 1024
_EARLY = 256
#: Sizes that the target told, of how many paths.
SIZES = 1024
#: Extended attributes of one file; there are none in use.
PAIRS = 64

INIT, VERSION_REPLY = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE_REPLY, DATA, NAME, ATTRS = range(101, 106)
EXTENDED = 200

FXF_READ, FXF_WRITE, FXF_APPEND, FXF_CREAT, FXF_TRUNC, FXF_EXCL = 1, 2, 4, 8, 16, 32

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

#: Requests with one path that they change.
_CHANGES = {REMOVE: "remove", MKDIR: "mkdir", RMDIR: "rmdir"}
_EXTENDED_CHANGES = {
    b"posix-rename@openssh.com": "posix-rename",
    b"hardlink@openssh.com": "hardlink",
    b"copy-file": "copy-file",
}
#: Extended requests that only ask, or that change nothing which an auditor looks for.
_ASKING = frozenset(
    {
        b"statvfs@openssh.com",
        b"fstatvfs@openssh.com",
        b"fsync@openssh.com",
        b"limits@openssh.com",
        b"expand-path@openssh.com",
        b"home-directory",
        b"users-groups-by-id@openssh.com",
    }
)


class _Astray(Exception):
    """The thread is lost, for this reason."""


_UNFIT = "an answer that does not fit its request"


class _Cursor:
    """Reads one packet. Each method takes the next value, or raises _Astray."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def uint32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def uint64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.uint32())

    def handle(self) -> bytes:
        handle = self.string()
        if len(handle) > HANDLE:
            raise _Astray("a handle is too long")
        return handle

    def attributes(self) -> _Attributes:
        """``uint32 flags`` and what they announce (section 5): ``uint64 size``, ``uint32 uid, gid``, ``uint32
        permissions``, ``uint32 atime, mtime``, ``uint32 count`` and pairs of strings."""
        flags = self.uint32()
        found = _Attributes()
        if flags & 0x1:
            found.size = self.uint64()
        if flags & 0x2:
            found.owner = (self.uint32(), self.uint32())
        if flags & 0x4:
            found.permissions = self.uint32()
        if flags & 0x8:
            self.uint32()
            found.modified = self.uint32()
        if flags & 0x80000000:
            if (pairs := self.uint32()) > PAIRS:
                raise _Astray("too many attributes")
            for _ in range(2 * pairs):
                self.string()
        return found

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _Astray("a packet is cut short")
        piece = self._data[self._at : end]
        self._at = end
        return piece


@dataclass(slots=True)
class _Attributes:
    size: int | None = None
    owner: tuple[int, int] | None = None
    permissions: int | None = None
    modified: int | None = None

    @property
    def file_size(self) -> int | None:
        """The size, of what may be a regular file."""
        kind = stat.S_IFMT(self.permissions or 0)
        return self.size if kind in (0, stat.S_IFREG) else None

    def __str__(self) -> str:
        said = []
        if self.size is not None:
            said.append(f"size={self.size}")
        if self.owner is not None:
            said.append(f"owner={self.owner[0]}:{self.owner[1]}")
        if self.permissions is not None:
            said.append(f"mode={stat.S_IMODE(self.permissions):04o}")
        if self.modified is not None:
            said.append(f"mtime={self.modified}")
        return " ".join(said)


class _Window:
    """How much of all files is kept because it came before its turn."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class _Contents:
    """What passes of one file in one direction, hashed in the order of its offsets.

    ``passed`` are the bytes that passed at all, ``next`` those that are hashed, all from the beginning;
    ``why`` says, once that is so, why they will not be hashed.
    """

    __slots__ = ("_early", "_hash", "_window", "next", "passed", "why")

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._hash = hashlib.sha256()
        self._early: dict[int, bytearray] = {}
        self.next = 0
        self.passed = 0
        self.why = ""

    def begin(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Where the bytes of this packet go, in pieces."""
        if not length or self.why:
            return self._count
        if offset == self.next:
            return self._in_turn
        if offset < self.next or offset in self._early:
            self.give_up("a part of it passed twice")
        elif self._window.held + length + _EARLY > WINDOW:
            self.give_up("not from its beginning" if not self.next else "too far out of order")
        else:
            self._window.held += length + _EARLY
            early = self._early[offset] = bytearray()
            return partial(self._before_its_turn, early)
        return self._count

    def catch_up(self) -> None:
        """A packet is complete: hash what now has its turn."""
        while self._early and (early := self._early.pop(self.next, None)) is not None:
            self._window.held -= len(early) + _EARLY
            self._hash.update(early)
            self.next += len(early)

    def give_up(self, why: str) -> None:
        self.why = self.why or why
        self._window.held -= sum(len(early) + _EARLY for early in self._early.values())
        self._early.clear()

    def close(self, end: int | None, unless: str) -> tuple[str, str]:
        """The hash, where all up to ``end`` was hashed, or why there is none: ``unless``, where nobody said
        what the end is, or it was not reached."""
        if self._early:
            self.give_up("a part of it is missing" if self.next else "not from its beginning")
        if not self.why and (end is None or end > self.next):
            self.why = unless
        return ("", self.why) if self.why else (self._hash.hexdigest(), "")

    def _count(self, piece: memoryview) -> None:
        self.passed += len(piece)

    def _in_turn(self, piece: memoryview) -> None:
        self.passed += len(piece)
        self.next += len(piece)
        self._hash.update(piece)

    def _before_its_turn(self, early: bytearray, piece: memoryview) -> None:
        self.passed += len(piece)
        early += piece


@dataclass(slots=True, eq=False)
class _Open:
    """A file or a directory that is open, or was until its last answers have come."""

    path: bytes
    flags: int
    began: float
    directory: bool
    read: _Contents
    written: _Contents
    #: Reads and writes without an answer.
    pending: int = 0
    #: Where the target said that the file ends, where it had less than it was asked for, and what it said of
    #: the size.
    ends: int | None = None
    short: int | None = None
    size: int | None = None
    #: As far as this reader knows, nothing of what was in the file before is behind this.
    cleared: int | None = None
    result: str = ""
    closed: bool = False

    @property
    def end(self) -> int | None:
        """The end of what there is to read, as far as that can be known: a client may stop where it was told
        that the end is, where it got less than it wanted, or at the size that it was told before."""
        read = self.read.next
        if self.ends is not None:
            return read if read == self.short else self.ends
        return read if read == self.size else None

    def failed(self, result: str) -> None:
        """The first failure is the one that is told."""
        self.result = self.result or result


@dataclass(slots=True)
class _Asked:
    """A request that waits for its answer."""

    kind: int
    open: _Open | None = None
    offset: int = 0
    length: int = 0


@dataclass(slots=True)
class _Named(_Asked):
    """One with paths, which cost something while it waits; ``operation`` is what it changes, if it does."""

    path: bytes = b""
    other: bytes = b""
    detail: str = ""
    operation: str = ""
    flags: int = 0
    size: int | None = None
    began: float = 0.0

    @property
    def cost(self) -> int:
        return len(self.path) + len(self.other) + _EACH


class _Packets:
    """One direction, cut into packets, whatever pieces it comes in.

    ``streamed`` is the type whose data is not collected: ``begin`` gets what stands before it, without length
    and type, and says where the data goes; ``done`` is called after that. ``packet`` gets each other packet,
    its type and the rest of it.
    """

    __slots__ = (
        "_begin", "_done", "_head", "_kind", "_left", "_length", "_packet", "_skip", "_streamed", "_take",
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
        self._head = bytearray()
        self._wanted = 5
        self._kind = -1
        self._length = 0
        #: Bytes of data that are still to come, and after them bytes that mean nothing.
        self._left = 0
        self._skip = 0
        self._take: Callable[[memoryview], None] | None = None

    def feed(self, data: bytes) -> None:
        """Raises _Astray."""
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._take is not None:
                piece = view[at : at + self._left]
                self._take(piece)
                at += len(piece)
                self._left -= len(piece)
                self._end_of_data()
            elif self._skip:
                step = min(self._skip, end - at)
                at += step
                self._skip -= step
            else:
                step = min(self._wanted - len(self._head), end - at)
                self._head += view[at : at + step]
                at += step
                if len(self._head) == self._wanted:
                    self._grown()

    def _grown(self) -> None:
        """What was wanted of the packet is there."""
        head = self._head
        if self._wanted == 5:
            length, self._kind = struct.unpack(">IB", head)
            streams = self._kind == self._streamed
            if length < (9 if streams else 5):
                raise _Astray("a packet is too short")
            if length > (DATA_PACKET if streams else PACKET):
                raise _Astray("a packet is too long")
            self._length = length + 4
            self._wanted = 13 if streams else self._length
        elif self._kind != self._streamed:
            self._head = bytearray()
            self._wanted = 5
            self._packet(self._kind, bytes(head[5:]))
        elif self._kind == WRITE and self._wanted == 13:
            handle = int.from_bytes(head[9:13], "big")
            if handle > HANDLE:
                raise _Astray("a handle is too long")
            self._wanted += handle + 12
        else:
            self._left = int.from_bytes(head[-4:], "big")
            self._skip = self._length - self._wanted - self._left
            if self._skip < 0:
                raise _Astray("a packet is cut short")
            self._head = bytearray()
            self._wanted = 5
            self._take = self._begin(bytes(head[5:]))
            self._end_of_data()

    def _end_of_data(self) -> None:
        if not self._left:
            self._take = None
            self._done()


class SftpReader:
    """See the module; an ``account.Reader``. ``monotonic`` are seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        #: The target announces extensions of OpenSSH's, and so takes SYMLINK's paths the other way round than
        #: the draft has them (OpenSSH's PROTOCOL, section 4.1).
        self._openssh = False
        self._found: list[Found] = []
        self._over = False
        self._version_asked = False
        self._version = False
        self._handles: dict[bytes, _Open] = {}
        self._asked: dict[int, _Asked] = {}
        #: Files whose end was not told yet, in the order of their opening.
        self._files: dict[_Open, None] = {}
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._window = _Window()
        self._names = 0
        #: What the data of the packet that is passing belongs to.
        self._writing: _Open | None = None
        self._reading: _Open | None = None
        self._requests = _Packets(WRITE, self._write, self._written, self._request)
        self._answers = _Packets(DATA, self._data, self._data_over, self._answer)

    def from_user(self, data: bytes) -> tuple[Found, ...]:
        return self._feed(self._requests, data)

    def from_target(self, data: bytes) -> tuple[Found, ...]:
        return self._feed(self._answers, data)

    def end(self) -> tuple[Found, ...]:
        if not self._over:
            self._give_up("not closed", "no answer")
        return self._taken()

    def _feed(self, packets: _Packets, data: bytes) -> tuple[Found, ...]:
        if self._over:
            return ()
        try:
            packets.feed(data)
        except _Astray as lost:
            self._found.append(Lost(reason=str(lost)))
            self._give_up("not known", "not known")
        return self._taken() if self._found else ()

    def _taken(self) -> tuple[Found, ...]:
        found, self._found = self._found, []
        return tuple(found)

    # --- requests

    def _request(self, kind: int, body: bytes) -> None:
        cursor = _Cursor(body)
        if not self._version_asked:
            if kind != INIT:
                raise _Astray("it does not begin with INIT")
            self._version_asked = True
            cursor.uint32()
            return
        number = cursor.uint32()
        asked: _Asked
        if kind in (OPEN, OPENDIR):
            asked = self._opening(kind, cursor)
        elif kind == CLOSE:
            asked = _Asked(kind, self._handles.pop(cursor.handle(), None))
        elif kind == READ:
            asked = _Asked(kind, self._handles.get(cursor.handle()), cursor.uint64(), cursor.uint32())
            if asked.open is not None:
                asked.open.pending += 1
        elif kind in (FSTAT, READDIR):
            asked = _Asked(kind, self._handles.get(cursor.handle()))
        elif kind in (LSTAT, STAT):
            asked = self._named(kind, cursor.string())
        elif kind == FSETSTAT:
            asked = self._setting(self._handles.get(cursor.handle()), cursor)
        elif kind == SETSTAT:
            asked = self._change("setstat", cursor.string(), detail=str(cursor.attributes()))
        elif kind == SYMLINK:
            first, second = cursor.string(), cursor.string()
            link, points_to = (second, first) if self._openssh else (first, second)
            asked = self._change("symlink", link, points_to)
        elif kind in _CHANGES:
            asked = self._change(_CHANGES[kind], cursor.string())
        elif kind == RENAME:
            asked = self._change("rename", cursor.string(), cursor.string())
        elif kind == EXTENDED:
            asked = self._extended(cursor)
        elif kind in (REALPATH, READLINK):
            asked = _Asked(kind)
        else:
            asked = self._change("extended", b"", detail=f"type {kind}")
        self._ask(number, asked)

    def _opening(self, kind: int, cursor: _Cursor) -> _Named:
        """``string path, uint32 flags, ATTRS`` of OPEN; the path alone of OPENDIR."""
        asked = self._named(kind, cursor.string())
        if kind == OPEN:
            asked.flags = cursor.uint32()
            if asked.flags & (FXF_WRITE | FXF_APPEND):
                self._sizes.pop(asked.path, None)
        return asked

    def _setting(self, file: _Open | None, cursor: _Cursor) -> _Named:
        attributes = cursor.attributes()
        path = file.path if file is not None else b""
        asked = self._change("setstat", path, detail=str(attributes))
        if attributes.size is not None and file is not None:
            asked.open, asked.size = file, attributes.size
            if attributes.size < file.written.next:
                file.written.give_up(f"cut to {attributes.size} bytes")
        return asked

    def _extended(self, cursor: _Cursor) -> _Asked:
        """``string name`` and what belongs to it."""
        name = cursor.string()
        if name in _EXTENDED_CHANGES:
            return self._change(_EXTENDED_CHANGES[name], cursor.string(), cursor.string())
        if name == b"lsetstat@openssh.com":
            return self._change("lsetstat", cursor.string(), detail=str(cursor.attributes()))
        if name == b"copy-data":
            return self._copying(cursor)
        if name in _ASKING:
            return _Asked(EXTENDED)
        # Who knows what it does, and how it is answered.
        return self._change("extended", b"", detail=path_text(name[:64]))

    def _copying(self, cursor: _Cursor) -> _Named:
        """``string read handle, uint64 offset, uint64 length, string write handle, uint64 offset``."""
        source, offset, length = self._handles.get(cursor.handle()), cursor.uint64(), cursor.uint64()
        copy = self._handles.get(cursor.handle())
        if copy is not None:
            copy.written.give_up("copied at the target")
        return self._change(
            "copy-data",
            source.path if source is not None else b"",
            copy.path if copy is not None else b"",
            detail=f"{length or 'all'} bytes from {offset}",
        )

    def _change(self, operation: str, path: bytes, other: bytes = b"", detail: str = "") -> _Named:
        """A request that changes something, to be told when its answer has come."""
        asked = self._named(0, path, other)
        asked.operation, asked.detail = operation, detail
        return asked

    def _named(self, kind: int, path: bytes, other: bytes = b"") -> _Named:
        path, other = path[: PATH_MAX + 1], other[: PATH_MAX + 1]
        asked = _Named(kind, path=path, other=other, began=self._monotonic())
        self._names += asked.cost
        if self._names > NAMES:
            raise _Astray("too much is open at once")
        return asked

    def _ask(self, number: int, asked: _Asked) -> None:
        if number in self._asked:
            raise _Astray("a request id is used twice")
        if len(self._asked) >= REQUESTS:
            raise _Astray("too many requests have no answer")
        self._asked[number] = asked

    def _write(self, head: bytes) -> Callable[[memoryview], None]:
        """``string handle, uint64 offset, string data``, up to the data."""
        if not self._version_asked:
            raise _Astray("it does not begin with INIT")
        cursor = _Cursor(head)
        number, file = cursor.uint32(), self._handles.get(cursor.handle())
        self._ask(number, _Asked(WRITE, file))
        self._writing = file
        if file is None:
            return _nowhere
        file.pending += 1
        return file.written.begin(cursor.uint64(), cursor.uint32())

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.written.catch_up()

    # --- answers

    def _answer(self, kind: int, body: bytes) -> None:
        cursor = _Cursor(body)
        if not self._version:
            if kind != VERSION_REPLY:
                raise _Astray("the target does not begin with VERSION")
            if (version := cursor.uint32()) != VERSION:
                raise _Astray(f"it is version {version}")
            self._version = True
            while not cursor.at_end:
                self._openssh |= cursor.string().endswith(b"@openssh.com")
                cursor.string()
            return
        asked = self._answered(cursor.uint32())
        if isinstance(asked, _Named):
            self._named_answer(asked, kind, cursor)
        elif kind == STATUS:
            self._status(asked, cursor.uint32())
        elif kind == NAME and asked.kind in (READDIR, READLINK, REALPATH):
            if asked.kind == READDIR and asked.open is not None:
                self._listed(asked.open.path, cursor)
        elif kind == ATTRS and asked.kind == FSTAT:
            if asked.open is not None:
                asked.open.size = cursor.attributes().file_size
        elif asked.kind != EXTENDED:
            raise _Astray(_UNFIT)

    def _answered(self, number: int) -> _Asked:
        asked = self._asked.pop(number, None)
        if asked is None:
            raise _Astray("an answer without a request")
        if isinstance(asked, _Named):
            self._names -= asked.cost
        return asked

    def _named_answer(self, asked: _Named, kind: int, cursor: _Cursor) -> None:
        opens = asked.kind in (OPEN, OPENDIR)
        if kind == STATUS:
            code = cursor.uint32()
            if asked.operation:
                self._changed(asked, code)
            elif opens:
                if code == OK:
                    raise _Astray("a file is open without a handle")
                self._refused(asked, _result(code))
        elif kind == HANDLE_REPLY and opens:
            self._handle(asked, cursor.handle())
        elif kind == ATTRS and asked.kind in (LSTAT, STAT):
            self._size(asked.path, cursor.attributes().file_size)
        elif asked.operation == "extended":
            self._changed(asked, OK)
        else:
            raise _Astray(_UNFIT)

    def _status(self, asked: _Asked, code: int) -> None:
        file = asked.open
        if file is None:
            if asked.kind == WRITE and code == OK:
                raise _Astray("a handle that nobody gave")
            return
        if asked.kind == CLOSE:
            file.closed = True
            if code != OK:
                file.failed(_result(code))
        elif asked.kind in (READ, WRITE):
            file.pending -= 1
            if asked.kind == READ and code == EOF:
                file.ends = asked.offset if file.ends is None else min(file.ends, asked.offset)
            elif code != OK:
                file.failed(_result(code))
                (file.read if asked.kind == READ else file.written).give_up("a part of it failed")
        self._finish_if_done(file)

    def _changed(self, asked: _Named, code: int) -> None:
        self._tell_change(asked, _result(code))
        if asked.open is not None and code == OK:
            asked.open.cleared = asked.size

    def _handle(self, asked: _Named, handle: bytes) -> None:
        if handle in self._handles:
            raise _Astray("a handle is given twice")
        self._names += asked.cost  # until it is closed
        file = _Open(
            path=asked.path,
            flags=asked.flags,
            began=asked.began,
            directory=asked.kind == OPENDIR,
            read=_Contents(self._window),
            written=_Contents(self._window),
            size=self._sizes.get(asked.path),
        )
        new = FXF_CREAT | FXF_EXCL
        if asked.flags & FXF_APPEND:
            file.written.give_up("appended")
        elif asked.flags & FXF_TRUNC or asked.flags & new == new:
            file.cleared = 0
        self._handles[handle] = file
        self._files[file] = None

    def _listed(self, directory: bytes, cursor: _Cursor) -> None:
        """``uint32 count``, and of each ``string name, string long name, ATTRS``. More than are kept are not
        looked at."""
        for _ in range(min(cursor.uint32(), SIZES)):
            name = cursor.string()
            cursor.string()
            self._size(posixpath.join(directory, name), cursor.attributes().file_size)

    def _size(self, path: bytes, size: int | None) -> None:
        """The target says how large a file is; for a client that does not read until it hears of the end."""
        if size is None or len(path) > _EACH:
            return
        self._sizes[path] = size
        self._sizes.move_to_end(path)
        if len(self._sizes) > SIZES:
            self._sizes.popitem(last=False)

    def _data(self, head: bytes) -> Callable[[memoryview], None]:
        """``string data``, up to the data."""
        cursor = _Cursor(head)
        asked = self._answered(cursor.uint32())
        if asked.kind != READ:
            raise _Astray(_UNFIT)
        if asked.open is None:
            raise _Astray("a handle that nobody gave")
        self._reading = asked.open
        length = cursor.uint32()
        if length < asked.length <= CERTAIN:
            asked.open.short = asked.offset + length
        return asked.open.read.begin(asked.offset, length)

    def _data_over(self) -> None:
        file, self._reading = self._reading, None
        if file is not None:
            file.read.catch_up()
            file.pending -= 1
            self._finish_if_done(file)

    # --- what is found

    def _finish_if_done(self, file: _Open) -> None:
        if file.closed and not file.pending and file in self._files:
            del self._files[file]
            self._names -= len(file.path) + _EACH
            self._tell(file)

    def _tell(self, file: _Open) -> None:
        """Whatever passed of a file, each way; where nothing did, what it was opened for."""
        if file.directory:
            return
        writes = bool(file.written.passed) or (not file.read.passed and bool(file.flags & FXF_WRITE))
        if file.read.passed or not writes:
            told = file.read.close(file.end, "not read to its end")
            self._tell_file(file, "read", file.read.passed, *told)
        if writes:
            told = file.written.close(file.cleared, "what was in the file before is not known")
            self._tell_file(file, "write", file.written.passed, *told)

    def _tell_file(self, file: _Open, operation: str, size: int, sha256: str, unhashed: str) -> None:
        self._found.append(
            Operation(
                operation=operation,
                path=path_text(file.path),
                size=size,
                sha256=sha256,
                unhashed=unhashed,
                result=file.result or "ok",
                duration=self._monotonic() - file.began,
            )
        )

    def _refused(self, asked: _Named, result: str) -> None:
        if asked.kind == OPEN:
            self._found.append(
                Operation(
                    operation="write" if asked.flags & FXF_WRITE else "read",
                    path=path_text(asked.path),
                    size=0,
                    unhashed="not opened",
                    result=result,
                    duration=self._monotonic() - asked.began,
                )
            )

    def _tell_change(self, asked: _Named, result: str) -> None:
        self._found.append(
            Operation(
                operation=asked.operation,
                path=path_text(asked.path),
                other=path_text(asked.other),
                detail=asked.detail,
                result=result,
                duration=self._monotonic() - asked.began,
            )
        )

    def _give_up(self, opened: str, asked: str) -> None:
        """Nothing more is read: tell what is open as ``opened``, and what has no answer as ``asked``."""
        self._over = True
        for file in self._files:
            file.failed(opened)
            file.read.give_up(opened)
            file.written.give_up(opened)
            self._tell(file)
        for request in self._asked.values():
            if not isinstance(request, _Named):
                continue
            if request.operation:
                self._tell_change(request, asked)
            elif request.kind == OPEN:
                self._refused(request, asked)
        self._files.clear()
        self._handles.clear()
        self._asked.clear()
        self._sizes.clear()


def _nowhere(piece: memoryview) -> None:
    """Data for a handle that nobody gave: the target will say so."""


def _result(code: int) -> str:
    return _RESULTS.get(code, f"status {code}")
