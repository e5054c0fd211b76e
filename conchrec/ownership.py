"""Files that root makes in somebody else's directory: theirs, like the others that are there.

``conchrec lock`` and its like are run by root; what they leave is read by the proxy, a user of its own.
"""

from __future__ import annotations

import os
from pathlib import Path


def create(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a new file. Raises FileExistsError where there is one, or a link; and OSError."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        hand_over(descriptor, path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def hand_over(descriptor: int, directory: Path | int) -> None:
    """Of a file that was made just now, and by nobody else. Raises OSError."""
    if os.geteuid() == 0:
        there = os.stat(directory)
        os.fchown(descriptor, there.st_uid, there.st_gid)
