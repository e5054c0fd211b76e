"""The file of a ledger: opened, created, locked, and moved out of the way."""

from __future__ import annotations

import errno
import os
import weakref
from datetime import datetime, timezone
from pathlib import Path

from conchrec.file_lock import lock, release
from conchrec.files import open_regular
from conchrec.ownership import create

_RETRY_SECONDS = 0.002
_FLAGS = os.O_RDWR | os.O_APPEND


def sync_and_close(descriptor: int) -> None:
    """Sync the file to the disk, and close this descriptor of it. Blocks."""
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


class LedgerFile:
    """The file at ``path``. Its methods raise OSError. ``descriptor`` is None while it is not open.

    It stays open, and is closed with this object, also where nobody calls ``close``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None
        self._closer: weakref.finalize[..., LedgerFile] | None = None

    def open(self) -> None:
        """Open the existing file. Links are not followed."""
        self._keep(open_regular(self.path, _FLAGS))

    def create(self) -> int:
        """Create the file, in place of one that was open. Return the descriptor."""
        new = create(self.path, _FLAGS)
        self.close()
        self._keep(new)
        return new

    def close(self) -> None:
        """Close the file, which also releases its lock."""
        if self._closer is not None:
            self._closer()
        self.descriptor = self._closer = None

    def lock(self, deadline: float) -> bool:
        """Lock the open file. Return whether it is still the one at ``path``."""
        assert self.descriptor is not None
        try:
            lock(self.descriptor, deadline, _RETRY_SECONDS)
        except BlockingIOError:
            raise lock_error() from None
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self.descriptor), status)

    def unlock(self) -> None:
        """Release the lock, if the file is open."""
        if self.descriptor is not None:
            release(self.descriptor)

    def duplicate(self) -> int | None:
        """Return another descriptor of the open file, which the caller closes; None where it is not open."""
        return None if self.descriptor is None else os.dup(self.descriptor)

    def move_away(self, now: datetime) -> None:
        """Give what is at ``path`` the name ``NAME.broken-TIME-NUMBER``."""
        moment = now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        for number in range(1000):
            name = self.path.with_name(f"{self.path.name}.broken-{moment}-{number}")
            if not os.path.lexists(name):
                os.rename(self.path, name)
                return
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _keep(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._closer = weakref.finalize(self, os.close, descriptor)


def lock_error() -> OSError:
    """Return the error for a lock that somebody else holds for too long."""
    return OSError(errno.EAGAIN, "the ledger is locked by another process")


def truncate(descriptor: int, end: int) -> None:
    """Cut a file that is longer than ``end`` bytes."""
    if os.fstat(descriptor).st_size > end:
        os.ftruncate(descriptor, end)


def append(descriptor: int, text: bytes, end: int) -> None:
    """Append all of ``text``, or nothing: ``end`` is the size before. Raises OSError."""
    written = os.write(descriptor, text)
    if written != len(text):
        os.ftruncate(descriptor, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
