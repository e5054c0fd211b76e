"""Locks on files (flock), with a limited wait."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.05
_PAUSE_SECONDS = 0.0002


def wait_for_lock(descriptor: int, deadline: float, pause: float = _PAUSE_SECONDS) -> None:
    """Lock the file with flock(2), trying again every ``pause`` seconds until ``deadline`` (time.monotonic).

    Raises BlockingIOError if another process still holds the lock, and another OSError if the file system has
    no locks.
    """
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            # flock(2) itself waits without a limit.
            time.sleep(pause)
        else:
            return


def acquire(descriptor: int, *, patience: float | None = None) -> bool:
    """Lock the file with flock(2), and return whether that succeeded.

    The reactor waits here, so another process that holds the lock must not stop it: it waits at most 50 ms,
    or ``patience`` in seconds.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    try:
        wait_for_lock(descriptor, time.monotonic() + patience)
    except OSError:
        return False
    return True


def release(descriptor: int) -> None:
    """Release the lock of ``acquire``."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def brief_lock(descriptor: int) -> Iterator[bool]:
    """Hold the lock; yields whether it was acquired."""
    is_held = acquire(descriptor)
    try:
        yield is_held
    finally:
        if is_held:
            release(descriptor)
