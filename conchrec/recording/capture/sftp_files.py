"""The files that are open in an SFTP session, and what the target has reported of their sizes."""

from __future__ import annotations

import posixpath
from collections import OrderedDict

from conchrec.recording.capture import sftp_wire as wire
from conchrec.recording.capture.file_contents import EarlyBytes
from conchrec.recording.capture.sftp_requests import (
    NAMED_COST,
    NamedRequest,
    OpenFile,
    SftpRequest,
    normalized_path,
)
from conchrec.recording.capture.sftp_wire import Attributes, Cursor
from conchrec.recording.format.transfer_account import NotFollowed

#: The most bytes that open files and unanswered changes may need, roughly.
NAMES = 4 * 1024 * 1024
#: The most paths whose reported sizes are kept.
SIZES = 1024

_CHANGED_ELSEWHERE = "changed through another request"


class OpenFiles:
    """The open files, by the handles that the target has given them. Limits the memory that they need."""

    def __init__(self) -> None:
        self.handles: dict[bytes, OpenFile] = {}
        #: Files that were not reported yet, in the order in which they were opened.
        self._unreported: dict[OpenFile, None] = {}
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._window = EarlyBytes()
        self._names_size = 0

    def bind(self, request: SftpRequest) -> None:
        """Look up the files of a request's handles, and note what the request does to them."""
        files = [self.handles.get(handle) for handle in request.handles]
        if files:
            request.file = files[0]
        if request.kind == wire.CLOSE:
            self.handles.pop(request.handles[0], None)
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
            self._change_elsewhere(request.path)
        self._names_size += request.cost
        if self._names_size > NAMES:
            raise NotFollowed("too many files are open")

    def _change_elsewhere(self, path: bytes) -> bool:
        """A request opens a file for changes, or cuts it, by its path: what is written to it through another
        handle need not be its contents. Returns whether there is such a handle."""
        normalized = normalized_path(path)
        others = [
            file for file in self._unreported if file.normalized == normalized and file.flags & wire.MODIFIES
        ]
        for file in others:
            file.written.give_up(_CHANGED_ELSEWHERE)
        return bool(others)

    def settle(self, request: NamedRequest) -> None:
        """Free the memory of a request that was answered."""
        self._names_size -= request.cost

    def open(self, request: NamedRequest, handle: bytes) -> None:
        """Add the file that the target has opened."""
        if handle in self.handles:
            raise NotFollowed("a handle is given twice")
        self._names_size += request.cost  # until it is closed
        file = OpenFile.opened(request, self._window, self._sizes.get(request.path))
        if file.flags & wire.MODIFIES and self._change_elsewhere(file.path):
            file.written.give_up(_CHANGED_ELSEWHERE)
        self.handles[handle] = file
        self._unreported[file] = None

    def take_done(self, file: OpenFile) -> bool:
        """Return whether nothing more can happen to the file, the first time."""
        if not file.closed or file.pending or file not in self._unreported:
            return False
        del self._unreported[file]
        self._names_size -= len(file.path) + len(file.detail) + NAMED_COST
        return True

    def take_all(self) -> tuple[OpenFile, ...]:
        """Remove everything. Return the files that were not reported."""
        unreported = tuple(self._unreported)
        self._unreported.clear()
        self.handles.clear()
        self._sizes.clear()
        return unreported

    # --- sizes that the target reports

    def note_size(self, path: bytes, size: int | None) -> None:
        """Note the size of a file that the target reports: a client may stop reading at it."""
        if size is None or len(path) > NAMED_COST:
            return
        self._sizes[path] = size
        self._sizes.move_to_end(path)
        if len(self._sizes) > SIZES:
            self._sizes.popitem(last=False)

    def read_names(self, request: SftpRequest, cursor: Cursor) -> None:
        """Read ``uint32 count``, and of each ``string name, string long name, ATTRS``. At most SIZES are
        read. The sizes in a directory are noted."""
        directory = request.file.path if request.file is not None else b""
        count = cursor.uint32()
        for _ in range(min(count, SIZES)):
            name = cursor.string()
            cursor.string()
            attributes = Attributes.parse(cursor)
            if request.kind == wire.READDIR:
                self.note_size(posixpath.join(directory, name), attributes.file_size)
        if count <= SIZES:
            cursor.finish()
