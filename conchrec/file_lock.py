"""A lock on a file that is held for microseconds, and never waited for longer than a moment."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.05
_PAUSE_SECONDS = 0.0002


def acquire(descriptor: int, *, patience: float | None = None) -> bool:
    """Take flock(2) on the file; False where it could not be had, and the caller goes on without.

    The reactor waits here, so somebody who keeps the lock must not stop it: 50 ms are the most, or
    ``patience`` in seconds.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    end = 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            now = time.monotonic()
            end = end or now + patience
            if now >= end:
                return False
            time.sleep(_PAUSE_SECONDS)
        except OSError:
            return False  # not a file that can be locked


def release(descriptor: int) -> None:
    """Give back what ``acquire`` took."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def brief_lock(descriptor: int) -> Iterator[bool]:
    """Hold the lock meanwhile; yields whether we have it."""
    is_held = acquire(descriptor)
    try:
        yield is_held
    finally:
        if is_held:
            release(descriptor)
