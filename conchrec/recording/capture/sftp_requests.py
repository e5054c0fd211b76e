"""The requests of SFTP version 3: one table of their fields, and what each of them changes at the target.

A request that is in no table may change anything: its name, its size and its beginning are kept.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from enum import Enum, auto

from conchrec.recording.capture import sftp_wire as wire
from conchrec.recording.capture.file_contents import EarlyBytes, FileContents
from conchrec.recording.capture.sftp_wire import Attributes, Cursor
from conchrec.recording.format.transfer_account import PATH_MAX, path_text

#: The bytes that a request with names needs in addition to the names, roughly.
NAMED_COST = 1024
#: What is kept of an unknown request: so many bytes of its name, and of its body.
_NAME_SHOWN = 64
_BODY_SHOWN = 256


def normalized_path(path: bytes) -> bytes:
    """Return the path without ``.``, ``..`` and double slashes."""
    normalized = posixpath.normpath(path)
    return normalized[1:] if normalized.startswith(b"//") else normalized


@dataclass(slots=True, eq=False)
class OpenFile:
    """A file or a directory that is open, or was until its last answers have arrived."""

    path: bytes
    flags: int
    detail: str
    began: float
    directory: bool
    read: FileContents
    written: FileContents
    #: ``normalized_path`` the path. Links are the target's to know.
    normalized: bytes
    #: Reads and writes without an answer.
    pending: int = 0
    #: The end that the target reported, the end of an answer that was shorter than requested, and the size
    #: that the target reported.
    ends: int | None = None
    short: int | None = None
    size: int | None = None
    #: No earlier contents of the file are after this offset, as far as this reader knows.
    cleared: int | None = None
    closed: bool = False

    @classmethod
    def opened(cls, request: NamedRequest, window: EarlyBytes, size: int | None) -> OpenFile:
        """Return the file that the target has opened. ``size`` is what it reported before for this path."""
        file = cls(
            path=request.path,
            flags=request.flags,
            detail=request.detail,
            began=request.began,
            directory=request.kind == wire.OPENDIR,
            read=FileContents(window),
            written=FileContents(window),
            normalized=normalized_path(request.path),
            size=size,
        )
        new = wire.FXF_CREAT | wire.FXF_EXCL
        if request.flags & wire.FXF_APPEND:
            file.written.give_up("appended")
        elif request.flags & wire.FXF_TRUNC or request.flags & new == new:
            file.cleared = 0
        return file

    @property
    def end(self) -> int | None:
        """The end of what there is to read, as far as it is known. A client may stop where the target
        reported the end, where it got less than it requested, or at the size that was reported before."""
        read = self.read.next
        if self.ends is not None:
            return read if read == self.short else self.ends
        return read if read == self.size else None

    @property
    def was_read(self) -> bool:
        """Whether the file was read, or opened only for reading."""
        return bool(self.read.passed) or not self.was_written

    @property
    def was_written(self) -> bool:
        """Whether the file was written. OPEN alone may have created or emptied it."""
        if self.written.passed or self.flags & (wire.FXF_CREAT | wire.FXF_TRUNC):
            return True
        return not self.read.passed and bool(self.flags & wire.MODIFIES)

    def failed(self, result: str) -> None:
        """Note a failure that concerns both directions."""
        self.read.failed(result)
        self.written.failed(result)


@dataclass(slots=True)
class SftpRequest:
    """A request that waits for its answer. ``handles`` are its handles, and ``file`` is what the first of
    them stands for; None where the target has not given that handle."""

    kind: int
    handles: tuple[bytes, ...] = ()
    file: OpenFile | None = None
    offset: int = 0
    length: int = 0


@dataclass(slots=True)
class NamedRequest(SftpRequest):
    """A request with names, which need memory while it waits.

    ``operation`` is what it changes at the target, empty where it changes nothing. ``detail`` has its flags
    and attributes as an account shows them. ``known`` is False where no table has it.
    """

    path: bytes = b""
    other: bytes = b""
    detail: str = ""
    operation: str = ""
    flags: int = 0
    size: int | None = None
    began: float = 0.0
    known: bool = True

    @property
    def cost(self) -> int:
        """The bytes of memory that it needs, roughly."""
        return len(self.path) + len(self.other) + len(self.detail) + NAMED_COST


class RequestField(Enum):
    """A field of a request, after its request id."""

    PATH = auto()
    """``string``: the path."""
    OTHER = auto()
    """``string``: the second path."""
    HANDLE = auto()
    """``string``, from an answer of the target."""
    ATTRIBUTES = auto()
    """ATTRS: the attributes to set."""
    FLAGS = auto()
    """``uint32``: how to open a file."""
    OFFSET = auto()
    """``uint64``"""
    LENGTH = auto()
    """``uint32``"""
    COPY_LENGTH = auto()
    """``uint64``: 0 is everything."""
    BOOLEAN = auto()
    """``byte``: has no effect on the account."""
    REST = auto()
    """Everything that follows, in a request that changes nothing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of a request. ``operation`` is what it changes, empty where it changes nothing."""

    fields: tuple[RequestField, ...]
    operation: str = ""


_PATH, _HANDLE = (RequestField.PATH,), (RequestField.HANDLE,)
_TWO_PATHS = (RequestField.PATH, RequestField.OTHER)
_PATH_ATTRIBUTES = (RequestField.PATH, RequestField.ATTRIBUTES)

#: By type. WRITE is not here: its data is not collected (``SftpReader``).
REQUESTS: dict[int, Layout] = {
    wire.OPEN: Layout((RequestField.PATH, RequestField.FLAGS, RequestField.ATTRIBUTES)),
    wire.CLOSE: Layout(_HANDLE),
    wire.READ: Layout((RequestField.HANDLE, RequestField.OFFSET, RequestField.LENGTH)),
    wire.LSTAT: Layout(_PATH),
    wire.FSTAT: Layout(_HANDLE),
    wire.SETSTAT: Layout(_PATH_ATTRIBUTES, "setstat"),
    wire.FSETSTAT: Layout((RequestField.HANDLE, RequestField.ATTRIBUTES), "setstat"),
    wire.OPENDIR: Layout(_PATH),
    wire.READDIR: Layout(_HANDLE),
    wire.REMOVE: Layout(_PATH, "remove"),
    wire.MKDIR: Layout(_PATH_ATTRIBUTES, "mkdir"),
    wire.RMDIR: Layout(_PATH, "rmdir"),
    wire.REALPATH: Layout(_PATH),
    wire.STAT: Layout(_PATH),
    wire.RENAME: Layout(_TWO_PATHS, "rename"),
    wire.READLINK: Layout(_PATH),
    wire.SYMLINK: Layout(_TWO_PATHS, "symlink"),
}
#: Extended requests by name: those of OpenSSH's PROTOCOL, section 4, then those of other servers.
EXTENSIONS: dict[bytes, Layout] = {
    b"posix-rename@openssh.com": Layout(_TWO_PATHS, "posix-rename"),
    b"hardlink@openssh.com": Layout(_TWO_PATHS, "hardlink"),
    b"lsetstat@openssh.com": Layout(_PATH_ATTRIBUTES, "lsetstat"),
    b"copy-data": Layout(
        (
            RequestField.HANDLE,
            RequestField.OFFSET,
            RequestField.COPY_LENGTH,
            RequestField.HANDLE,
            RequestField.OFFSET,
        ),
        "copy-data",
    ),
    b"statvfs@openssh.com": Layout(_PATH),
    b"fstatvfs@openssh.com": Layout(_HANDLE),
    b"fsync@openssh.com": Layout(_HANDLE),
    b"limits@openssh.com": Layout(()),
    b"expand-path@openssh.com": Layout(_PATH),
    b"home-directory": Layout(_PATH),
    b"users-groups-by-id@openssh.com": Layout(_TWO_PATHS),
    b"copy-file": Layout((*_TWO_PATHS, RequestField.BOOLEAN), "copy-file"),
    b"check-file-handle": Layout((RequestField.HANDLE, RequestField.REST)),
    b"check-file-name": Layout((RequestField.PATH, RequestField.REST)),
    b"md5-hash": Layout((RequestField.PATH, RequestField.REST)),
    b"md5-hash-handle": Layout((RequestField.HANDLE, RequestField.REST)),
    b"space-available": Layout(_PATH),
    b"vendor-id": Layout((RequestField.REST,)),
}


def parse_request(kind: int, cursor: Cursor, began: float) -> SftpRequest:
    """Read the request whose fields ``cursor`` reads, after the request id. Raises NotFollowed."""
    layout = REQUESTS.get(kind)
    name = b""
    if kind == wire.EXTENDED:
        name = cursor.string()
        layout = EXTENSIONS.get(name)
    if layout is None:
        what = path_text(name[:_NAME_SHOWN]) if kind == wire.EXTENDED else f"type {kind}"
        detail = " ".join(filter(None, (what, _body_text(cursor.rest()))))
        return NamedRequest(kind, detail=detail, operation="extended", began=began, known=False)
    if layout.fields == _HANDLE and not layout.operation:
        request = SftpRequest(kind, (cursor.handle(),))
        cursor.finish()
        return request
    return _Parser(kind, layout, began).parse(cursor)


class _Parser:
    """Reads the fields of one request, by its layout."""

    def __init__(self, kind: int, layout: Layout, began: float) -> None:
        self._request = NamedRequest(kind, operation=layout.operation, began=began)
        self._fields = layout.fields
        self._offsets: list[int] = []
        self._copied = 0

    def parse(self, cursor: Cursor) -> NamedRequest:
        """Return the request. Raises NotFollowed."""
        request = self._request
        words = []
        for field in self._fields:
            if field is RequestField.PATH:
                request.path = _cut(cursor.string())
            elif field is RequestField.OTHER:
                request.other = _cut(cursor.string())
            elif field is RequestField.HANDLE:
                request.handles += (cursor.handle(),)
            elif field is RequestField.ATTRIBUTES:
                attributes = Attributes.parse(cursor)
                request.size = attributes.size
                words.append(str(attributes))
            elif field is RequestField.FLAGS:
                request.flags = cursor.uint32()
                if request.flags != wire.FXF_READ:
                    words.append(wire.flags_text(request.flags))
            else:
                self._number(field, cursor)
        cursor.finish()
        if request.operation == "copy-data":
            words.append(self._copy_text())
        request.detail = " ".join(filter(None, words))
        return request

    def _number(self, field: RequestField, cursor: Cursor) -> None:
        """Read a field that is not a name."""
        if field is RequestField.OFFSET:
            self._offsets.append(cursor.uint64())
            self._request.offset = self._offsets[0]
        elif field is RequestField.LENGTH:
            self._request.length = cursor.uint32()
        elif field is RequestField.COPY_LENGTH:
            self._copied = cursor.uint64()
        elif field is RequestField.BOOLEAN:
            cursor.boolean()
        else:
            cursor.rest()

    def _copy_text(self) -> str:
        source, target = self._offsets
        return f"{self._copied or 'all'} bytes from {source}" + (f" to {target}" if target else "")


def _cut(path: bytes) -> bytes:
    """Return as much of a path as is kept, and one byte more where there is more."""
    return path[: PATH_MAX + 1]


def _body_text(body: bytes) -> str:
    if len(body) <= _BODY_SHOWN:
        return path_text(body)
    return f"{path_text(body[:_BODY_SHOWN])}… ({len(body)} bytes)"
