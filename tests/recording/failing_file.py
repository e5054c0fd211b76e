"""A SpoolFile in memory that fails when the test wants it."""

from __future__ import annotations

import errno
import os


class FailingFile:
    """Takes ``room`` bytes, ``at_most`` of them in one call, then raises the error with this ``number``."""

    def __init__(
        self,
        *,
        room: int | None = None,
        at_most: int | None = None,
        number: int = errno.ENOSPC,
        truncates: bool = True,
        syncs: bool = True,
    ) -> None:
        self.contents = b""
        self.room = room
        self.at_most = at_most
        self.number = number
        self.truncates = truncates
        self.syncs = syncs
        self.synced = 0
        self.closed = 0

    def write(self, *pieces: bytes | memoryview) -> int:
        data = b"".join(pieces)
        count = len(data) if self.at_most is None else min(len(data), self.at_most)
        if self.room is not None:
            if data and self.room <= len(self.contents):
                raise OSError(self.number, os.strerror(self.number))
            count = min(count, self.room - len(self.contents))
        self.contents += data[:count]
        return count

    def truncate(self, size: int, /) -> None:
        if not self.truncates:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.contents = self.contents[:size]

    def sync(self) -> None:
        if not self.syncs:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced += 1

    def close(self) -> None:
        self.closed += 1
