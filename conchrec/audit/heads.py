"""The last heads of the audit log, kept in the state directory: they show that the end of a log was cut.

``audit_heads`` has the last head line of each chain that no later chain has named yet. A new chain names them
in its opening line and replaces them. A chain that is still written adds its own next head again.
"""

from __future__ import annotations

import os
from pathlib import Path

from conchrec.audit.chain import Head, head_of
from conchrec.file_lock import brief_lock
from conchrec.ownership import create

NAME = "audit_heads"
MOST = 32
"""The most chains: a list of an audit event has room for these."""
_LONGEST = 1024 * 1024


class AuditHeadFile:
    """The heads of one installation. The file is created with the first head, mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether any chain was ever begun here."""
        return self.path.exists()

    def heads(self) -> tuple[Head, ...]:
        """Return all heads; lines that cannot be read are left out. Raises OSError."""
        return tuple(head for line in self.lines() if (head := head_of(line)) is not None)

    def lines(self) -> tuple[bytes, ...]:
        """Return the head lines as they stand in the log, oldest first; none without a file. Raises
        OSError."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        try:
            with brief_lock(descriptor):
                return _lines(descriptor)
        finally:
            os.close(descriptor)

    def put(self, line: bytes, *, replaces_all: bool = False) -> None:
        """Keep this head in place of the earlier one of its chain, or of all heads. Raises OSError.

        The file is written in place and without fsync: this happens every few seconds while somebody waits.
        Where the machine crashes, a warning about the last seconds is lost.
        """
        chain = _chain(line)
        descriptor = self._open()
        try:
            with brief_lock(descriptor):
                others = () if replaces_all else _lines(descriptor)
                kept = [*(other for other in others if _chain(other) != chain), line][-MOST:]
                content = b"".join(kept)
                os.pwrite(descriptor, content, 0)
                os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return create(self.path, os.O_RDWR)
        except FileExistsError:
            return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


def _lines(descriptor: int) -> tuple[bytes, ...]:
    content = os.pread(descriptor, _LONGEST, 0)
    return tuple(line for line in content.splitlines(keepends=True) if _chain(line))


def _chain(line: bytes) -> str:
    head = head_of(line)
    return head.chain if head is not None else ""
