"""The file that a recording is written to: it ends with complete lines, or an error is raised at once.

Knows bytes and descriptors; what the lines mean is known to the recorder. A process that writes a file holds
a lock on it (flock), which the kernel releases when the process ends, in any way. So a later start can tell a
running recording from an interrupted one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from conchrec.errors import RecordingError, SpoolFull, WriteFailed
from conchrec.file_lock import lock

#: More pieces than this are joined: a system call takes 1,024 (IOV_MAX), but many small pieces cost more.
_PIECES = 64
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolFile(Protocol):
    """What a spool needs of a file. Each method may raise OSError."""

    def write(self, *pieces: bytes | memoryview) -> int:
        """Append some of the pieces, in order. Returns the number of bytes."""

    def truncate(self, size: int, /) -> None:
        """Cut the file to this size."""

    def sync(self) -> None:
        """Sync the file to the disk. Called in a thread."""

    def close(self) -> None:
        """Close the file, which releases its lock."""


class DiskFile:
    """A SpoolFile of the operating system."""

    __slots__ = (
        "_descriptor",
    )  # fmt: skip

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, *pieces: bytes | memoryview) -> int:
        """Append some of the pieces, in order. Returns the number of bytes."""
        return os.writev(self._descriptor, pieces)

    def truncate(self, size: int, /) -> None:
        """Cut the file to this size."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """Sync the data to the disk. Called in a thread."""
        os.fdatasync(self._descriptor)
        # Few recordings are ever read, so synced pages leave the page cache: the next lines reuse memory that
        # is in the CPU's cache, and files of others stay in the page cache.
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the descriptor, which releases the lock."""
        os.close(self._descriptor)


class Compressor(Protocol):
    """Compresses a file while it is written."""

    def compress(self, lines: Sequence[bytes]) -> bytes:
        """Return the compressed lines, which can be read without anything that follows."""

    def cut(self) -> bytes:
        """Return the end of a part that can be read by itself; empty where none has begun."""


class Spool:
    """A recording that grows. ``size``, ``lines`` and ``digest`` are of the complete lines in the file,
    before compression; ``stored`` is the size of the file itself."""

    __slots__ = (
        "_closed", "_closing", "_compressor", "_file", "_hash", "_is_entry_synced", "_sync_entry",
        "_sync_problem", "lines", "size", "stored", "sync_requested",
    )  # fmt: skip

    def __init__(
        self, file: SpoolFile, entry: Callable[[], None] = lambda: None, packer: Compressor | None = None
    ) -> None:
        """``entry`` syncs the directory entry of the file; it is called once, at the first sync."""
        self.size = 0
        self.lines = 0
        self.stored = 0
        #: The value of ``size`` when a sync was last requested.
        self.sync_requested = 0
        self._file = file
        self._sync_entry = entry
        self._compressor = packer
        self._is_entry_synced = False
        #: Why a sync failed; None if none did.
        self._sync_problem: OSError | None = None
        self._hash = hashlib.sha256()
        # One thread may close the descriptor while another is about to sync it. The data path does not use
        # this lock.
        self._closing = threading.Lock()
        self._closed = False

    @property
    def digest(self) -> str:
        """SHA-256 of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()

    def append(self, *lines: bytes) -> None:
        """Write complete lines through to the operating system.

        Raises SpoolFull or WriteFailed. Then the file still ends with a complete line, as far as the disk
        allows it, and ``size``, ``lines`` and ``digest`` say what is there.
        """
        pieces: Sequence[bytes] = lines if len(lines) <= _PIECES else (b"".join(lines),)
        if self._compressor is not None:
            self._store((self._compressor.compress(pieces),))
        else:
            try:
                self._store(pieces)
            except RecordingError:
                kept = b"".join(pieces)[: self.stored - self.size]
                self._count((kept,), kept.count(b"\n"))
                raise
        self._count(pieces, len(lines))

    def cut(self) -> None:
        """End the current part: what was appended can be read without the rest. Raises like ``append``."""
        if self._compressor is not None and (end := self._compressor.cut()):
            self._store((end,))

    def _store(self, pieces: Sequence[bytes]) -> None:
        """Write all pieces; else keep as many complete lines as there is room for (compressed: nothing) and
        raise."""
        written, size = 0, sum(map(len, pieces))
        try:
            while written < size:
                left = (memoryview(b"".join(pieces))[written:],) if written else pieces
                count = self._file.write(*left)
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            kept = 0 if self._compressor else b"".join(pieces).rfind(b"\n", 0, written) + 1
            self.stored += kept
            if kept != written:
                try:
                    self._file.truncate(self.stored)
                except OSError:
                    pass  # the next start removes the incomplete line
            raise recording_error(error) from error
        self.stored += written

    def _count(self, pieces: Sequence[bytes], lines: int) -> None:
        self.lines += lines
        for piece in pieces:
            self.size += len(piece)
            self._hash.update(piece)

    def sync(self) -> None:
        """Sync the file to the disk. Blocks, so it runs in a thread. Raises RecordingError.

        After a failure each sync fails: the kernel reports lost data once (fsync(2)).
        """
        with self._closing:
            if self._closed:
                return
            if self._sync_problem is not None:
                raise recording_error(self._sync_problem)
            try:
                self._file.sync()
                if not self._is_entry_synced:
                    self._sync_entry()
                    self._is_entry_synced = True
            except OSError as error:
                self._sync_problem = OSError(error.errno, error.strerror)
                raise recording_error(error) from error

    def close(self) -> None:
        """Close the file, which releases its lock. Runs in a thread; may be called twice."""
        with self._closing:
            if not self._closed:
                self._closed = True
                try:
                    self._file.close()
                except OSError as error:
                    raise recording_error(error) from error


def create(name: str, directory: int) -> DiskFile:
    """Create an empty, locked file with mode 0600 in the directory with this descriptor. Raises OSError."""
    descriptor = os.open(
        name,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC,
        0o600,
        dir_fd=directory,
    )
    try:
        os.fchmod(descriptor, 0o600)
        lock(descriptor)
        if os.fstat(descriptor).st_size:
            # The recovery of another process wrote to it between the creation and the lock.
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except BaseException:
        os.close(descriptor)
        raise
    return DiskFile(descriptor)


def recording_error(error: OSError) -> RecordingError:
    """Return the RecordingError for an error of the operating system."""
    why = error.strerror or "input/output error"
    kind = SpoolFull if error.errno in _NO_ROOM else WriteFailed
    return kind(f"this session cannot be recorded: {why}", repr(error))
