"""SFTP as it flows by: which files were read and written, and what else was changed.

Requests may be pipelined and their answers may come in any order; they are matched by request id. What grows
with what a peer does (open files, requests without an answer) has a bound. Where the bytes are not SFTP, or
something is done that the account could not name, the reader says so once (``AccountLost``) and reads no
more:

- a packet that is not well-formed, or longer than its fields; another version; INIT twice;
- an answer to no request, one that does not fit its request, more data than was asked for;
- a request with a handle that the target had not given then, and that does not fail;
- a request that no table has (``sftp_requests``) and that does not fail.

No files, no sockets, no clock of its own.
"""

from __future__ import annotations

import posixpath
from collections import OrderedDict
from collections.abc import Callable

from conchrec.recording.capture import sftp_wire as wire
from conchrec.recording.capture.file_contents import EarlyBytes
from conchrec.recording.capture.sftp_requests import (
    NAMED_COST,
    NamedRequest,
    OpenFile,
    SftpRequest,
    parse_request,
    place_of,
)
from conchrec.recording.capture.sftp_wire import Attributes, Cursor, PacketStream, result_text
from conchrec.recording.format.transfer_account import AccountLost, Found, NotFollowed, Operation, path_text

#: Who asks for no more than this gets it, but at the end of a file (sections 3 and 6.4 of the draft).
CERTAIN = 32 * 1024
#: Requests without an answer: paramiko asks for a whole file at once, as far as windows let it.
REQUESTS = 128 * 1024
#: What open files and unanswered changes may take, roughly, in bytes.
NAMES = 4 * 1024 * 1024
#: Sizes that the target told, of how many paths.
SIZES = 1024

_UNFIT = "an answer that does not fit its request"
_UNKNOWN_HANDLE = "an unknown handle"
_CHANGED_ELSEWHERE = "changed through another request"
#: Requests that are answered by names.
_LISTED = (wire.READDIR, wire.READLINK, wire.REALPATH, wire.EXTENDED)


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
        self._handles: dict[bytes, OpenFile] = {}
        self._asked: dict[int, SftpRequest] = {}
        #: Files whose end was not told yet, in the order of their opening.
        self._files: dict[OpenFile, None] = {}
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._window = EarlyBytes()
        self._names = 0
        #: What the data of the packet that is passing belongs to.
        self._writing: OpenFile | None = None
        self._reading: OpenFile | None = None
        self._requests = PacketStream(wire.WRITE, self._write, self._written, self._request)
        self._answers = PacketStream(wire.DATA, self._data, self._data_over, self._answer)

    def from_user(self, data: bytes) -> tuple[Found, ...]:
        return self._feed(self._requests, data)

    def from_target(self, data: bytes) -> tuple[Found, ...]:
        return self._feed(self._answers, data)

    def end(self) -> tuple[Found, ...]:
        if not self._over:
            if any(map(_changes_unknown, self._asked.values())):
                # It may have been done: a client need not wait for the answer.
                self._lose(_UNKNOWN_HANDLE)
            elif self._requests.unread or self._answers.unread:
                self._lose("the session ends within a packet")
            elif self._asked and not self._version:
                self._lose("the target did not answer")
            self._give_up("not closed", "no answer")
        return self._taken()

    def _feed(self, packets: PacketStream, data: bytes) -> tuple[Found, ...]:
        if self._over:
            return ()
        try:
            packets.feed(data)
        except NotFollowed as problem:
            self._lose(str(problem))
            self._give_up("not known", "not known")
        return self._taken() if self._found else ()

    def _lose(self, reason: str) -> None:
        unread = {"from_user": self._requests.unread, "from_target": self._answers.unread}
        self._found.append(AccountLost(reason=reason, **unread))

    def _taken(self) -> tuple[Found, ...]:
        found, self._found = self._found, []
        return tuple(found)

    # --- requests

    def _request(self, kind: int, body: bytes) -> None:
        cursor = Cursor(body)
        if not self._version_asked:
            self._init(kind, cursor)
            return
        if kind == wire.INIT:
            raise NotFollowed("INIT was sent twice")
        number = cursor.uint32()
        if kind == wire.READ:
            handle = cursor.handle()
            request = SftpRequest(
                kind, (handle,), self._handles.get(handle), cursor.uint64(), cursor.uint32()
            )
            cursor.finish()
            if request.file is not None:
                request.file.pending += 1
        else:
            request = parse_request(kind, cursor, self._monotonic())
            self._bind(request)
        self._ask(number, request)

    def _init(self, kind: int, cursor: Cursor) -> None:
        """``uint32 version``, and pairs of strings that no client of version 3 sends."""
        if kind != wire.INIT:
            raise NotFollowed("the client does not begin with INIT")
        cursor.uint32()
        if len(cursor.rest()) > wire.INIT_SIZE:
            raise NotFollowed("INIT is too long")
        self._version_asked = True

    def _bind(self, request: SftpRequest) -> None:
        """Find the files that its handles stand for, and say what it does to them."""
        files = [self._handles.get(handle) for handle in request.handles]
        if files:
            request.file = files[0]
        if request.kind == wire.CLOSE:
            self._handles.pop(request.handles[0], None)
        if not isinstance(request, NamedRequest):
            return
        if request.operation and None in files:
            unknown = request.handles[files.index(None)]
            request.detail = f"{request.detail} unknown handle {unknown.hex()}".lstrip()
            request.file = None
        if request.kind == wire.FSETSTAT and request.file is not None:
            request.path = request.file.path
            if request.size is not None and request.size < request.file.written.reach:
                request.file.written.give_up(f"cut to {request.size} bytes")
        elif request.operation == "copy-data":
            source, copy = files
            request.path = source.path if source is not None else b""
            if copy is not None:
                request.other = copy.path
                copy.written.give_up("copied at the target")
        elif request.flags & wire.MODIFIES or request.size is not None:
            self._sizes.pop(request.path, None)
            self._changed_elsewhere(request.path)
        self._names += request.cost
        if self._names > NAMES:
            raise NotFollowed("too many files are open")

    def _changed_elsewhere(self, path: bytes) -> bool:
        """A request opens a file to change it, or cuts it, by its path: what is written to it through another
        handle is not known to be what it holds. Is there such a handle?"""
        place = place_of(path)
        others = [file for file in self._files if file.place == place and file.flags & wire.MODIFIES]
        for file in others:
            file.written.give_up(_CHANGED_ELSEWHERE)
        return bool(others)

    def _ask(self, number: int, request: SftpRequest) -> None:
        if number in self._asked:
            raise NotFollowed("a request id is used twice")
        if len(self._asked) >= REQUESTS:
            raise NotFollowed("too many requests have no answer")
        self._asked[number] = request

    def _write(self, head: bytes) -> Callable[[memoryview], None]:
        """``string handle, uint64 offset, string data``, up to the data."""
        if not self._version_asked:
            raise NotFollowed("the client does not begin with INIT")
        cursor = Cursor(head)
        number, handle = cursor.uint32(), cursor.handle()
        file = self._handles.get(handle)
        self._ask(number, SftpRequest(wire.WRITE, (handle,), file))
        self._writing = file
        if file is None:
            return _count_nowhere
        file.pending += 1
        return file.written.begin(cursor.uint64(), cursor.uint32())

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.written.catch_up()

    # --- answers

    def _answer(self, kind: int, body: bytes) -> None:
        cursor = Cursor(body)
        if not self._version:
            self._version_answer(kind, cursor)
            return
        number = cursor.uint32()
        request = self._waiting(number)
        if kind == wire.STATUS:
            self._status(number, request, _status_code(cursor))
            return
        if request.handles and request.file is None:
            raise NotFollowed(_UNKNOWN_HANDLE)
        if isinstance(request, NamedRequest) and not request.known:
            self._settle(number, request)
            self._tell_change(request, "ok")
            raise NotFollowed(_unknown(request))
        if isinstance(request, NamedRequest) and request.operation:
            # A change is answered by a status and by nothing else.
            raise NotFollowed(_UNFIT)
        if kind == wire.HANDLE_REPLY and isinstance(request, NamedRequest) and _opens(request):
            handle = cursor.handle()
            cursor.finish()
            self._handle(request, handle)
        elif kind == wire.NAME and request.kind in _LISTED:
            directory = request.file.path if request.file is not None else b""
            self._name_list(directory, cursor, keep=request.kind == wire.READDIR)
        elif kind == wire.ATTRS and request.kind in (wire.LSTAT, wire.STAT, wire.FSTAT):
            size = Attributes.parse(cursor).file_size
            cursor.finish()
            if isinstance(request, NamedRequest):
                self._size(request.path, size)
            elif request.file is not None:
                request.file.size = size
        elif kind != wire.EXTENDED_REPLY or request.kind != wire.EXTENDED:
            raise NotFollowed(_UNFIT)
        self._settle(number, request)

    def _version_answer(self, kind: int, cursor: Cursor) -> None:
        """``uint32 version``, and of each extension ``string name, string data``."""
        if kind != wire.VERSION_REPLY:
            raise NotFollowed("the target does not begin with VERSION")
        if (version := cursor.uint32()) != wire.VERSION:
            raise NotFollowed(f"version {version} instead of 3")
        size = 0
        while not cursor.at_end:
            name, data = cursor.string(), cursor.string()
            self._openssh |= name.endswith(b"@openssh.com")
            size += len(name) + len(data)
        if size > wire.VERSION_SIZE:
            raise NotFollowed("VERSION is too long")
        if not self._version_asked:
            raise NotFollowed("an answer without a request")
        self._version = True

    def _waiting(self, number: int) -> SftpRequest:
        """The request that this answer is to."""
        request = self._asked.get(number)
        if request is None:
            raise NotFollowed("an answer without a request")
        return request

    def _settle(self, number: int, request: SftpRequest) -> None:
        """Its answer fits: it does not wait any more."""
        del self._asked[number]
        if isinstance(request, NamedRequest):
            self._names -= request.cost

    def _status(self, number: int, request: SftpRequest, code: int) -> None:
        file = request.file
        if code == wire.OK:
            if request.handles and file is None:
                raise NotFollowed(_UNKNOWN_HANDLE)
            if request.kind in (wire.READ, wire.OPEN, wire.OPENDIR):
                raise NotFollowed("a file was opened without a handle" if _opens(request) else _UNFIT)
        self._settle(number, request)
        if isinstance(request, NamedRequest):
            self._named_status(request, code)
        elif file is None:
            return
        elif request.kind == wire.CLOSE:
            file.closed = True
            if code != wire.OK:
                file.failed(result_text(code))
        elif request.kind in (wire.READ, wire.WRITE):
            file.pending -= 1
            if request.kind == wire.READ and code == wire.EOF:
                file.ends = request.offset if file.ends is None else min(file.ends, request.offset)
            elif code != wire.OK:
                file.failed(result_text(code))
                contents = file.read if request.kind == wire.READ else file.written
                contents.give_up("a part of it failed")
        if file is not None:
            self._finish_if_done(file)

    def _named_status(self, request: NamedRequest, code: int) -> None:
        if request.operation:
            self._tell_change(request, result_text(code))
            if code == wire.OK and not request.known:
                raise NotFollowed(_unknown(request))
            if code == wire.OK and request.kind == wire.FSETSTAT and request.size is not None:
                assert request.file is not None
                request.file.cleared = request.size
        elif _opens(request):
            self._refused(request, result_text(code))

    def _handle(self, request: NamedRequest, handle: bytes) -> None:
        if handle in self._handles:
            raise NotFollowed("a handle is given twice")
        self._names += request.cost  # until it is closed
        file = OpenFile.opened(request, self._window, self._sizes.get(request.path))
        if file.flags & wire.MODIFIES and self._changed_elsewhere(file.path):
            file.written.give_up(_CHANGED_ELSEWHERE)
        self._handles[handle] = file
        self._files[file] = None

    def _name_list(self, directory: bytes, cursor: Cursor, *, keep: bool) -> None:
        """``uint32 count``, and of each ``string name, string long name, ATTRS``. At most SIZES are read."""
        count = cursor.uint32()
        for _ in range(min(count, SIZES)):
            name = cursor.string()
            cursor.string()
            attributes = Attributes.parse(cursor)
            if keep:
                self._size(posixpath.join(directory, name), attributes.file_size)
        if count <= SIZES:
            cursor.finish()

    def _size(self, path: bytes, size: int | None) -> None:
        """The target says how large a file is; for a client that does not read until it hears of the end."""
        if size is None or len(path) > NAMED_COST:
            return
        self._sizes[path] = size
        self._sizes.move_to_end(path)
        if len(self._sizes) > SIZES:
            self._sizes.popitem(last=False)

    def _data(self, head: bytes) -> Callable[[memoryview], None]:
        """``string data``, up to the data."""
        cursor = Cursor(head)
        number, length = cursor.uint32(), cursor.uint32()
        request = self._waiting(number)
        if request.kind != wire.READ:
            raise NotFollowed(_UNFIT)
        if request.file is None:
            raise NotFollowed(_UNKNOWN_HANDLE)
        if length > request.length:
            raise NotFollowed("more data than was requested")
        self._settle(number, request)
        self._reading = request.file
        if length < request.length <= CERTAIN:
            request.file.short = request.offset + length
        return request.file.read.begin(request.offset, length)

    def _data_over(self) -> None:
        file, self._reading = self._reading, None
        if file is not None:
            file.read.catch_up()
            file.pending -= 1
            self._finish_if_done(file)

    # --- what is found

    def _finish_if_done(self, file: OpenFile) -> None:
        if file.closed and not file.pending and file in self._files:
            del self._files[file]
            self._names -= len(file.path) + len(file.detail) + NAMED_COST
            self._tell(file)

    def _tell(self, file: OpenFile) -> None:
        """Whatever passed of a file, each way; where nothing did, what opening it did."""
        if file.directory:
            return
        if file.was_read:
            told = file.read.close(file.end, "not read to its end")
            self._tell_file(file, "read", file.read.passed, *told)
        if file.was_written:
            told = file.written.close(file.cleared, "what was in the file before is not known")
            self._tell_file(file, "write", file.written.passed, *told)

    def _tell_file(self, file: OpenFile, operation: str, size: int, sha256: str, unhashed: str) -> None:
        self._found.append(
            Operation(
                operation=operation,
                path=path_text(file.path),
                detail=file.detail,
                size=size,
                sha256=sha256,
                unhashed=unhashed,
                result=file.result or "ok",
                duration=self._monotonic() - file.began,
            )
        )

    def _refused(self, request: NamedRequest, result: str) -> None:
        if request.kind == wire.OPEN:
            self._found.append(
                Operation(
                    operation="write" if request.flags & wire.MODIFIES else "read",
                    path=path_text(request.path),
                    detail=request.detail,
                    size=0,
                    unhashed="not opened",
                    result=result,
                    duration=self._monotonic() - request.began,
                )
            )

    def _tell_change(self, request: NamedRequest, result: str) -> None:
        path, other = request.path, request.other
        if request.kind == wire.SYMLINK and self._openssh:
            path, other = other, path
        self._found.append(
            Operation(
                operation=request.operation,
                path=path_text(path),
                other=path_text(other),
                detail=request.detail,
                result=result,
                duration=self._monotonic() - request.began,
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
            if not isinstance(request, NamedRequest):
                continue
            if request.operation:
                self._tell_change(request, asked)
            elif request.kind == wire.OPEN:
                self._refused(request, asked)
        self._files.clear()
        self._handles.clear()
        self._asked.clear()
        self._sizes.clear()


def _count_nowhere(piece: memoryview) -> None:
    """Data for an unknown handle: the answer says what became of it."""


def _changes_unknown(request: SftpRequest) -> bool:
    """Does it change something through an unknown handle?"""
    if not request.handles or request.file is not None:
        return False
    return request.kind == wire.WRITE or (isinstance(request, NamedRequest) and bool(request.operation))


def _opens(request: SftpRequest) -> bool:
    return request.kind in (wire.OPEN, wire.OPENDIR)


def _status_code(cursor: Cursor) -> int:
    """``uint32 code, string message, string language``; old servers leave out the texts."""
    code = cursor.uint32()
    size = 0
    for _ in range(2):
        if not cursor.at_end:
            size += len(cursor.string())
    cursor.finish()
    if size > wire.STATUS_TEXT:
        raise NotFollowed("the text of a status is too long")
    return code


def _unknown(request: NamedRequest) -> str:
    return f"the target carried out an unknown request: {request.detail.split(' ')[0]}"
