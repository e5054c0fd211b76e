"""Files that must not be half written, or be something else than a file.

``write_atomic`` is for small files of our own; ``open_regular`` and ``read_regular`` are for files in a
directory that other accounts may be able to write to.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from conchrec.ownership import create


def write_atomic(path: Path, contents: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole: after a crash it has the old contents or the new ones.

    The contents and the directory entry are on the disk afterwards. Blocks. Raises OSError.
    """
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = create(partial, os.O_WRONLY, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_directory(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_directory(path: Path) -> None:
    """The entries of a directory are on the disk afterwards. Blocks. Raises OSError."""
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
