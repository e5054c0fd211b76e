"""The open file of an audit log, to which several processes append: its lock, its end, and its writes.

A line, or a batch of lines, is one ``write`` to the end of the file. Under a lock on the file the writer
first checks what the file ends with. A last line without a newline was cut by a crash. Our own lines are
never left incomplete: where the rest of a batch has no room, what was written of it is cut off again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conchrec.errors import WriteFailed
from conchrec.file_lock import acquire, release
from conchrec.ownership import create, reopen
from conchrec.reasons import ReasonCode

WRITE_SECONDS = 0.005
"""Longer than one write takes: the pause before the end of the file is read again, END_READS times."""
END_READS = 4
NO_WAIT_SECONDS = 60.0
"""After a wait for the lock of the file: the time in which nothing waits for it again."""
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open file. A pipe or a terminal is not regular: it has no end to check."""

    descriptor: int
    is_regular: bool


class AuditLogFile:
    """The open file at ``path``, created with mode 0600; a missing directory gets mode 0700.

    ``write`` is ``os.write``. Raises WriteFailed where the file cannot be opened.
    """

    def __init__(
        self, path: Path, *, monotonic: Callable[[], float], write: Callable[[int, bytes], int]
    ) -> None:
        self.path = path
        self._monotonic = monotonic
        self._write = write
        self._no_wait_until = monotonic()
        #: The file's size after our last line; -1 where its end was not checked yet.
        self._size = -1
        #: The file has become shorter since our last line.
        self.is_truncated = False
        self._file = self.open_path()
        self.is_closed = False

    # -- opens

    def open_path(self) -> OpenedFile:
        """Open what is at the path now, for ``replace``. Raises WriteFailed."""
        try:
            _make_directories(self.path.parent)
            flags = os.O_RDWR | os.O_APPEND
            try:
                descriptor = create(self.path, flags)
            except FileExistsError:
                # Where the path is a symbolic link to a missing file, that file is created.
                descriptor = reopen(self.path, flags)
            return OpenedFile(descriptor, stat.S_ISREG(os.fstat(descriptor).st_mode))
        except OSError as error:
            raise self._error(error) from error

    def replace(self, fresh: OpenedFile) -> None:
        """Close the file, and continue with another one."""
        os.close(self._file.descriptor)
        self._file, self._size, self.is_truncated = fresh, -1, False

    def is_moved(self) -> bool:
        """Whether the file was moved away or replaced. Raises WriteFailed."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self._error(error) from error
        return not os.path.samestat(os.fstat(self._file.descriptor), status)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file.descriptor)
        self.is_closed = True

    # -- the lock

    def acquire(self) -> bool:
        """Lock the file, and return whether it is locked; a pipe is not.

        After one wait for a process that keeps the lock, nothing waits for some time.
        """
        if not self._file.is_regular:
            return False
        is_waiting = self._monotonic() >= self._no_wait_until
        is_held = acquire(self._file.descriptor, patience=None if is_waiting else 0.0)
        if not is_held and is_waiting:
            self._no_wait_until = self._monotonic() + NO_WAIT_SECONDS
        return is_held

    def release(self) -> None:
        """Release the lock."""
        release(self._file.descriptor)

    # -- the end of the file

    def check_end(self) -> bytes | None:
        """Check what others did to the file since our last line. Returns an incomplete last line, if any.

        A line that is being written without the lock looks like an incomplete one. So only an end that stays
        the same for some time is reported. Raises WriteFailed.
        """
        if not self._file.is_regular:
            return None
        descriptor = self._file.descriptor
        try:
            size = os.fstat(descriptor).st_size
            if size == self._size:
                return None
            if size < self._size:
                self.is_truncated = True
            self._size = size
            for _ in range(END_READS):
                if self._ends_with_newline():
                    return None
                # Another process may be writing a line, and nothing tells when it has finished.
                time.sleep(WRITE_SECONDS)
                self._size = os.fstat(descriptor).st_size
            if self._ends_with_newline():
                return None
            return self._last_line(self._size)
        except OSError as error:
            raise self._error(error) from error

    def _ends_with_newline(self) -> bool:
        """Whether the file ends with a complete line."""
        size = self._size
        return size == 0 or os.pread(self._file.descriptor, 1, size - 1) == b"\n"

    def _last_line(self, size: int) -> bytes:
        """Return what stands after the last newline."""
        tail, at = b"", size
        while at > 0 and b"\n" not in tail:
            start = max(0, at - _BLOCK)
            tail = os.pread(self._file.descriptor, at - start, start) + tail
            at = start
        return tail.rpartition(b"\n")[2]

    def digest(self, end: bytes) -> tuple[int, str] | None:
        """Return the size and the SHA-256 of the content and ``end``; None where the file is empty.

        Raises OSError.
        """
        if not self._file.is_regular or self._size <= 0:
            return None
        digest, at = hashlib.sha256(), 0
        while at < self._size:
            block = os.pread(self._file.descriptor, min(_BLOCK, self._size - at), at)
            if not block:
                break
            digest.update(block)
            at += len(block)
        digest.update(end)
        return at + len(end), digest.hexdigest()

    # -- writes

    def append(self, data: bytes, *, is_alone: bool) -> None:
        """Append the data; ``is_alone``: no other process appends. Raises WriteFailed."""
        written = 0
        try:
            while written < len(data):
                count = self._write(self._file.descriptor, data[written:])
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            if written and is_alone:
                self._undo_write(self._size + written)
            raise self._error(error) from error
        self._size += len(data)
        self.is_truncated = False

    def _undo_write(self, end: int) -> None:
        """Cut off what was written of a batch, up to ``end``. Where that fails, the next batch repairs it."""
        with suppress(OSError):
            if os.fstat(self._file.descriptor).st_size == end:
                os.ftruncate(self._file.descriptor, self._size)

    def _error(self, error: OSError) -> WriteFailed:
        why = error.strerror or "input/output error"
        return WriteFailed(
            f"the audit log cannot be written: {why}",
            f"{self.path}: {error!r}",
            code=ReasonCode.AUDIT_WRITE_FAILED,
        )


def _make_directories(directory: Path) -> None:
    for missing in (*reversed(directory.parents), directory):
        if not missing.exists():
            with suppress(FileExistsError):  # another process was quicker
                os.mkdir(missing, 0o700)
