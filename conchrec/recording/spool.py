"""The file that is being written: whole lines at its end, or an error at once.

Knows bytes and descriptors; what the lines mean is the recorder's. While a process writes a file it
holds a lock on it (flock), which the kernel lifts when the process dies, however it dies: that is
how a later start tells a recording that is going on from one that was interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable
from typing import Protocol

from conchrec.errors import RecordingError, SpoolFull, WriteFailed

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolFile(Protocol):
    """What a spool asks of a file. All of it may raise OSError."""

    def write(self, *pieces: bytes | memoryview) -> int:
        """Append some of them, in order; how many bytes."""

    def truncate(self, size: int, /) -> None: ...

    def sync(self) -> None:
        """What was written is on the disk afterwards. Called in a thread."""

    def close(self) -> None: ...


class DiskFile:
    """A SpoolFile of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, *pieces: bytes | memoryview) -> int:
        return os.writev(self._descriptor, pieces)

    def truncate(self, size: int, /) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)
        # Few recordings are ever read, so what is on the disk leaves the page cache: the next lines get
        # memory that is warm, and nobody else's files lose theirs.
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._descriptor)


class Spool:
    """One growing recording. ``size`` and ``digest`` are of the whole lines that the file holds."""

    def __init__(self, file: SpoolFile, entry: Callable[[], None] = lambda: None) -> None:
        """``entry`` makes the file's name durable; it is called once, at the first sync."""
        self.size = 0
        #: What ``size`` was when a sync was last asked for.
        self.asked = 0
        self._file = file
        self._entry = entry
        self._entry_synced = False
        self._hash = hashlib.sha256()
        # The descriptor is closed by one thread while another may be about to sync it; nothing on
        # the data path takes this.
        self._closing = threading.Lock()
        self._closed = False

    @property
    def digest(self) -> str:
        """SHA-256 of the file so far, hexadecimal."""
        return self._hash.hexdigest()

    def append(self, *lines: bytes) -> None:
        """Write whole lines through to the operating system, one or more in each piece.

        Raises SpoolFull or WriteFailed; the file then still ends in a whole line, as far as the disk
        allows it, and ``size`` and ``digest`` say what is there.
        """
        written, size = 0, sum(map(len, lines))
        try:
            while written < size:
                left = (memoryview(b"".join(lines))[written:],) if written else lines
                count = self._file.write(*left)
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            joined = b"".join(lines)
            kept = joined.rfind(b"\n", 0, written) + 1
            self._count(joined[:kept])
            if kept != written:
                try:
                    self._file.truncate(self.size)
                except OSError:
                    pass  # the next start drops the torn line
            raise failure(error) from error
        for piece in lines:
            self._count(piece)

    def _count(self, lines: bytes) -> None:
        self.size += len(lines)
        self._hash.update(lines)

    def sync(self) -> None:
        """What was appended is on the disk afterwards. Blocks: for a thread. Raises RecordingError."""
        with self._closing:
            if not self._closed:
                try:
                    self._file.sync()
                    if not self._entry_synced:
                        self._entry()
                        self._entry_synced = True
                except OSError as error:
                    raise failure(error) from error

    def close(self) -> None:
        """Give the descriptor and the lock back. For a thread; may be called twice."""
        with self._closing:
            if not self._closed:
                self._closed = True
                try:
                    self._file.close()
                except OSError as error:
                    raise failure(error) from error


def create(name: str, directory: int) -> DiskFile:
    """A new, empty, locked file of mode 0600 in the directory with this descriptor. Raises OSError."""
    descriptor = os.open(
        name,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC,
        0o600,
        dir_fd=directory,
    )
    try:
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_size:
            # Another process's recovery was there between the creation and the lock.
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except BaseException:
        os.close(descriptor)
        raise
    return DiskFile(descriptor)


def failure(error: OSError) -> RecordingError:
    """The error of our tree for an error of the operating system."""
    why = error.strerror or "the disk failed"
    kind = SpoolFull if error.errno in _NO_ROOM else WriteFailed
    return kind(f"this session can not be recorded: {why}", repr(error))
