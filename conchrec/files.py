"""Writes files atomically, reads regular files only, and detects changed files.

``write_atomic`` and ``NewFile`` replace a file; they write all files but those that only grow.
``open_regular`` and ``read_regular`` are for files in a directory to which other accounts may be able to
write. ``FileStamp`` shows whether a file was changed since it was read.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from conchrec.ownership import create


class NewFile:
    """A file that is written under a temporary name and gets its final name by ``commit``.

    Other programs see the old file until then, also after a crash. A context manager: a file that was not
    committed is removed at the end.
    """

    def __init__(
        self, path: str | Path, mode: int = 0o600, *, dir_fd: int | None = None, replaces: bool = True
    ) -> None:
        """Create the empty file with at most this mode (the umask applies).

        ``path`` may be relative to ``dir_fd``. Only one process at a time may replace a file, because all
        use the name ``NAME.new``; a file that a crash left there is removed. Without ``replaces``,
        ``commit`` fails if the file exists, and each caller has a temporary name of its own. Raises OSError.
        """
        directory, name = os.path.split(path)
        self._path = path
        self._replaces = replaces
        self._dir_fd = dir_fd
        partial = f"{name}.new" if replaces else f".{name[:100]}.{secrets.token_hex(4)}"
        self._partial = Path(directory, partial)
        self._is_there = True
        try:
            try:
                descriptor = create(self._partial, os.O_WRONLY, mode, dir_fd=dir_fd)
            except FileExistsError:
                if not replaces:
                    raise
                self._remove()
                descriptor = create(self._partial, os.O_WRONLY, mode, dir_fd=dir_fd)
        except OSError as error:
            # The caller, and the user, know the file by this name.
            error.filename = str(path)
            raise
        self.file = os.fdopen(descriptor, "wb")
        """Takes the contents; the caller may lock it."""

    def commit(self, *, durable: bool = True) -> None:
        """Give the file its final name; it stays open. Raises OSError; without ``replaces``, FileExistsError.

        With ``durable`` the contents are on the disk before that. The directory's entry is not:
        ``sync_directory``. Blocks.
        """
        self.file.flush()
        if durable:
            os.fsync(self.file.fileno())
        if self._replaces:
            os.rename(self._partial, self._path, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
            self._is_there = False
        else:
            os.link(self._partial, self._path, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)

    def close(self) -> None:
        """Close the file, and remove it if it was not committed."""
        try:
            self.file.close()
        finally:
            if self._is_there:
                self._remove()

    def _remove(self) -> None:
        try:
            os.unlink(self._partial, dir_fd=self._dir_fd)
        except FileNotFoundError:
            pass

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_atomic(path: Path, contents: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically: after a crash it has either the old contents or the new ones.

    The contents and the directory entry are on the disk afterwards. Blocks. Raises OSError.
    """
    with NewFile(path, mode) as new:
        new.file.write(contents)
        new.commit()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Write the entries of a directory to the disk. Blocks. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: str | Path, flags: int = os.O_RDONLY, *, dir_fd: int | None = None) -> int:
    """A descriptor of a regular file. Links are not followed and pipes do not block. Raises OSError."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file")
    return descriptor


def read_regular(path: str | Path, limit: int, *, dir_fd: int | None = None) -> bytes:
    """The contents of a regular file of at most ``limit`` bytes. Raises OSError (EFBIG for a larger one)."""
    with open(open_regular(path, dir_fd=dir_fd), "rb") as file:
        contents = file.read(limit + 1)
    if len(contents) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return contents


class FileStamp(NamedTuple):
    """The identity and the times of a file: with another stamp, the file must be read again.

    ``changed`` is the ctime, which no program can set: it shows a change also if ``modified`` was restored.
    """

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """The stamp of a file of which this is the status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def at(cls, path: Path) -> FileStamp | None:
        """The stamp of the file there; None without one. Follows links. Raises OSError."""
        try:
            return cls.of(os.stat(path))
        except FileNotFoundError:
            return None
