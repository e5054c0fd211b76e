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
from collections.abc import Callable, Sequence
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


class Packer(Protocol):
    """Makes a file smaller while it is written."""

    def pack(self, lines: Sequence[bytes]) -> bytes:
        """What stands for these lines; readable without anything that follows."""

    def cut(self) -> bytes:
        """What ends a part that can be read by itself; empty where none has begun."""


class Spool:
    """One growing recording. ``size``, ``lines`` and ``digest`` are of the whole lines that the file holds
    (before they were packed, where they are), ``stored`` is the file's own size."""

    def __init__(
        self, file: SpoolFile, entry: Callable[[], None] = lambda: None, packer: Packer | None = None
    ) -> None:
        """``entry`` makes the file's name durable; it is called once, at the first sync."""
        self.size = 0
        self.lines = 0
        self.stored = 0
        #: What ``size`` was when a sync was last asked for.
        self.asked = 0
        self._file = file
        self._entry = entry
        self._packer = packer
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
        allows it, and ``size``, ``lines`` and ``digest`` say what is there.
        """
        if self._packer is not None:
            self._store((self._packer.pack(lines),))
        else:
            try:
                self._store(lines)
            except RecordingError:
                joined = b"".join(lines)
                self._count(joined[: self.stored - self.size])
                raise
        for piece in lines:
            self._count(piece)

    def cut(self) -> None:
        """What was appended can be read whatever becomes of the rest. Raises like ``append``."""
        if self._packer is not None and (end := self._packer.cut()):
            self._store((end,))

    def _store(self, pieces: Sequence[bytes]) -> None:
        """Write all of it; or as many whole lines as there is room for (packed: nothing), and raise."""
        written, size = 0, sum(map(len, pieces))
        try:
            while written < size:
                left = (memoryview(b"".join(pieces))[written:],) if written else pieces
                count = self._file.write(*left)
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            kept = 0 if self._packer else b"".join(pieces).rfind(b"\n", 0, written) + 1
            self.stored += kept
            if kept != written:
                try:
                    self._file.truncate(self.stored)
                except OSError:
                    pass  # the next start drops the torn line
            raise failure(error) from error
        self.stored += written

    def _count(self, lines: bytes) -> None:
        self.size += len(lines)
        self.lines += lines.count(b"\n")
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
    why = error.strerror or "input/output error"
    kind = SpoolFull if error.errno in _NO_ROOM else WriteFailed
    return kind(f"this session cannot be recorded: {why}", repr(error))
