"""Locks on files (flock(2)): at once, with a limited wait, or with an unlimited one.

A lock belongs to an open file. The kernel releases it when the file is closed, so also when the process ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.05
_PAUSE_SECONDS = 0.0002


def lock(descriptor: int, deadline: float = 0.0, pause: float = _PAUSE_SECONDS) -> None:
    """Lock the file, trying again every ``pause`` seconds until ``deadline`` (time.monotonic); once without
    one.

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
    """Lock the file, and return whether that succeeded.

    The reactor waits here, so another process that holds the lock must not stop it: it waits at most 50 ms,
    or ``patience`` in seconds.
    """
    patience = PATIENCE_SECONDS if patience is None else patience
    try:
        lock(descriptor, time.monotonic() + patience)
    except OSError:
        return False
    return True


def release(descriptor: int) -> None:
    """Release the lock."""
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


@contextmanager
def exclusive_file(descriptor: int) -> Iterator[None]:
    """Hold the lock, and close the file at the end. Waits for other processes without a limit: for commands
    and threads, which do nothing else. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(descriptor: int) -> bool:
    """Whether another process holds the lock. Raises OSError.

    A shared lock tests it: two processes that test a file at the same time do not see each other.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    release(descriptor)
    return False
