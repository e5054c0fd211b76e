"""Follows SFTP: which files were read and written, and what else was changed.

Requests may be pipelined and their answers may come in any order; they are matched by request id. What grows
with the work of a peer (open files, requests without an answer) has a limit. Where the bytes are not SFTP, or
something is done that the account could not name, the reader reports that once (``AccountLost``) and reads no
more:

- a malformed packet, or one longer than its fields; another version; a second INIT;
- an answer to no request, one that does not fit its request, more data than was requested;
- a request with a handle that the target had not given, and that does not fail;
- a request that no table has (``sftp_requests``) and that does not fail.

It has no files, no sockets, and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.recording.capture import sftp_wire as wire
from conchrec.recording.capture.sftp_files import OpenFiles
from conchrec.recording.capture.sftp_report import SftpReport
from conchrec.recording.capture.sftp_requests import NamedRequest, OpenFile, SftpRequest, parse_request
from conchrec.recording.capture.sftp_wire import Attributes, Cursor, PacketStream, result_text
from conchrec.recording.format.transfer_account import NotFollowed, TransferFact

#: A request of at most so many bytes gets all of them, except at the end of a file (sections 3 and 6.4 of the
#: draft).
CERTAIN = 32 * 1024
#: The most requests without an answer: paramiko requests a whole file at once, as far as windows allow it.
REQUESTS = 128 * 1024
_UNFIT = "an answer that does not fit its request"
_UNKNOWN_HANDLE = "an unknown handle"
#: The requests whose answer is a list of names.
_LISTED = (wire.READDIR, wire.READLINK, wire.REALPATH, wire.EXTENDED)


class SftpReader:
    """A ProtocolReader of SFTP version 3. ``monotonic`` returns seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._report = SftpReport(monotonic)
        self._is_over = False
        self._has_init = False
        self._has_version = False
        self._files = OpenFiles()
        self._unanswered: dict[int, SftpRequest] = {}
        #: The file of the data in the current packet, in each direction.
        self._writing: OpenFile | None = None
        self._reading: OpenFile | None = None
        self._requests = PacketStream(wire.WRITE, self._write, self._written, self._request)
        self._answers = PacketStream(wire.DATA, self._data, self._data_over, self._answer)

    def from_user(self, data: bytes) -> tuple[TransferFact, ...]:
        """Read bytes to the target. Returns what they complete."""
        return self._feed(self._requests, data)

    def from_target(self, data: bytes) -> tuple[TransferFact, ...]:
        """Read bytes from the target. Returns what they complete."""
        return self._feed(self._answers, data)

    def end(self) -> tuple[TransferFact, ...]:
        """No more bytes follow. Returns what was not completed."""
        if not self._is_over:
            if any(map(_may_change_unknown, self._unanswered.values())):
                # The target may have done it: a client need not wait for the answer.
                self._lose(_UNKNOWN_HANDLE)
            elif self._requests.unread or self._answers.unread:
                self._lose("the session ends within a packet")
            elif self._unanswered and not self._has_version:
                self._lose("the target did not answer")
            self._give_up("not closed", "no answer")
        # These refer to this object. Nothing is read any more.
        self._requests = self._answers = _ENDED
        return self._report.take()

    def _feed(self, packets: PacketStream, data: bytes) -> tuple[TransferFact, ...]:
        if self._is_over:
            return ()
        try:
            packets.feed(data)
        except NotFollowed as problem:
            self._lose(str(problem))
            self._give_up("not known", "not known")
        return self._report.take()

    def _lose(self, reason: str) -> None:
        self._report.add_loss(reason, from_user=self._requests.unread, from_target=self._answers.unread)

    # --- requests

    def _request(self, kind: int, body: bytes) -> None:
        cursor = Cursor(body)
        if not self._has_init:
            self._init(kind, cursor)
            return
        if kind == wire.INIT:
            raise NotFollowed("INIT was sent twice")
        number = cursor.uint32()
        if kind == wire.READ:
            handle = cursor.handle()
            file = self._files.handles.get(handle)
            request = SftpRequest(kind, (handle,), file, cursor.uint64(), cursor.uint32())
            cursor.finish()
            if file is not None:
                file.pending += 1
        else:
            request = parse_request(kind, cursor, self._report.monotonic())
            self._files.bind(request)
        self._ask(number, request)

    def _init(self, kind: int, cursor: Cursor) -> None:
        """Read INIT: ``uint32 version``, and pairs of strings that no client of version 3 sends."""
        if kind != wire.INIT:
            raise NotFollowed("the client does not begin with INIT")
        cursor.uint32()
        if len(cursor.rest()) > wire.INIT_SIZE:
            raise NotFollowed("INIT is too long")
        self._has_init = True

    def _ask(self, number: int, request: SftpRequest) -> None:
        if number in self._unanswered:
            raise NotFollowed("a request id is used twice")
        if len(self._unanswered) >= REQUESTS:
            raise NotFollowed("too many requests have no answer")
        self._unanswered[number] = request

    def _write(self, head: bytes) -> Callable[[memoryview], None]:
        """Read ``string handle, uint64 offset, string data``, up to the data."""
        if not self._has_init:
            raise NotFollowed("the client does not begin with INIT")
        cursor = Cursor(head)
        number, handle = cursor.uint32(), cursor.handle()
        file = self._files.handles.get(handle)
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
        if not self._has_version:
            self._version_answer(kind, cursor)
            return
        number = cursor.uint32()
        request = self._request_answered(number)
        if kind == wire.STATUS:
            self._status(number, request, _status_code(cursor))
            return
        if request.handles and request.file is None:
            raise NotFollowed(_UNKNOWN_HANDLE)
        if isinstance(request, NamedRequest) and not request.known:
            self._settle(number, request)
            self._report.add_change(request, "ok")
            raise NotFollowed(_unknown_request_text(request))
        if isinstance(request, NamedRequest) and request.operation:
            # The answer to a change is always a status.
            raise NotFollowed(_UNFIT)
        if kind == wire.HANDLE_REPLY and isinstance(request, NamedRequest) and _opens(request):
            handle = cursor.handle()
            cursor.finish()
            self._files.open(request, handle)
        elif kind == wire.NAME and request.kind in _LISTED:
            self._files.read_names(request, cursor)
        elif kind == wire.ATTRS and request.kind in (wire.LSTAT, wire.STAT, wire.FSTAT):
            size = Attributes.parse(cursor).file_size
            cursor.finish()
            if isinstance(request, NamedRequest):
                self._files.note_size(request.path, size)
            elif request.file is not None:
                request.file.size = size
        elif kind != wire.EXTENDED_REPLY or request.kind != wire.EXTENDED:
            raise NotFollowed(_UNFIT)
        self._settle(number, request)

    def _version_answer(self, kind: int, cursor: Cursor) -> None:
        """Read ``uint32 version``, and of each extension ``string name, string data``."""
        if kind != wire.VERSION_REPLY:
            raise NotFollowed("the target does not begin with VERSION")
        if (version := cursor.uint32()) != wire.VERSION:
            raise NotFollowed(f"version {version} instead of 3")
        size = 0
        while not cursor.at_end:
            name, data = cursor.string(), cursor.string()
            self._report.is_openssh |= name.endswith(b"@openssh.com")
            size += len(name) + len(data)
        if size > wire.VERSION_SIZE:
            raise NotFollowed("VERSION is too long")
        if not self._has_init:
            raise NotFollowed("an answer without a request")
        self._has_version = True

    def _request_answered(self, number: int) -> SftpRequest:
        """Return the request that this answer is to."""
        request = self._unanswered.get(number)
        if request is None:
            raise NotFollowed("an answer without a request")
        return request

    def _settle(self, number: int, request: SftpRequest) -> None:
        """The answer fits the request, which does not wait any more."""
        del self._unanswered[number]
        if isinstance(request, NamedRequest):
            self._files.settle(request)

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
                contents = file.read if request.kind == wire.READ else file.written
                contents.failed(result_text(code))
                contents.give_up("a part of it failed")
        if file is not None:
            self._finish_if_done(file)

    def _named_status(self, request: NamedRequest, code: int) -> None:
        if request.operation:
            self._report.add_change(request, result_text(code))
            if code == wire.OK and not request.known:
                raise NotFollowed(_unknown_request_text(request))
            if code == wire.OK and request.kind == wire.FSETSTAT and request.size is not None:
                assert request.file is not None
                request.file.cleared = request.size
        elif _opens(request):
            self._report.add_refused_open(request, result_text(code))

    def _data(self, head: bytes) -> Callable[[memoryview], None]:
        """Read ``string data``, up to the data."""
        cursor = Cursor(head)
        number, length = cursor.uint32(), cursor.uint32()
        request = self._request_answered(number)
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

    # --- the end of a file, and of the account

    def _finish_if_done(self, file: OpenFile) -> None:
        if self._files.take_done(file):
            self._report.add_file(file)

    def _give_up(self, open_result: str, unanswered_result: str) -> None:
        """Read nothing more: report open files as ``open_result``, and requests without an answer as
        ``unanswered_result``."""
        self._is_over = True
        for file in self._files.take_all():
            file.failed(open_result)
            file.read.give_up(open_result)
            file.written.give_up(open_result)
            self._report.add_file(file)
        for request in self._unanswered.values():
            if not isinstance(request, NamedRequest):
                continue
            if request.operation:
                self._report.add_change(request, unanswered_result)
            else:
                self._report.add_refused_open(request, unanswered_result)
        self._unanswered.clear()


def _count_nowhere(piece: memoryview) -> None:
    """Ignore data for an unknown handle: the answer says what became of it."""


def _may_change_unknown(request: SftpRequest) -> bool:
    """Return whether the request changes something through an unknown handle."""
    if not request.handles or request.file is not None:
        return False
    return request.kind == wire.WRITE or (isinstance(request, NamedRequest) and bool(request.operation))


def _opens(request: SftpRequest) -> bool:
    return request.kind in (wire.OPEN, wire.OPENDIR)


def _status_code(cursor: Cursor) -> int:
    """Read ``uint32 code, string message, string language``; old servers leave out the texts."""
    code = cursor.uint32()
    size = 0
    for _ in range(2):
        if not cursor.at_end:
            size += len(cursor.string())
    cursor.finish()
    if size > wire.STATUS_TEXT:
        raise NotFollowed("the text of a status is too long")
    return code


def _unknown_request_text(request: NamedRequest) -> str:
    return f"the target carried out an unknown request: {request.detail.split(' ')[0]}"


#: In place of both streams of a reader that has ended.
_ENDED = PacketStream(wire.WRITE, lambda _: _count_nowhere, lambda: None, lambda *_: None)
