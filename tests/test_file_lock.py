"""Locks on files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conchrec.file_lock import acquire, brief_lock, exclusive_file, is_locked, lock, release


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@contextmanager
def other(file: int, how: int = fcntl.LOCK_EX) -> Iterator[int]:
    """The same file, open and locked a second time: for flock(2) as in another process."""
    descriptor = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    fcntl.flock(descriptor, how)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_locks_at_once_or_fails(file: int) -> None:
    with other(file), pytest.raises(BlockingIOError):
        lock(file)
    lock(file)
    with pytest.raises(BlockingIOError), other(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass


def test_waits_until_deadline(file: int) -> None:
    with other(file):
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            lock(file, began + 0.05, pause=0.001)
        assert 0.05 <= time.monotonic() - began < 5


def test_locks_when_other_process_releases(file: int) -> None:
    with other(file) as descriptor:
        timer = threading.Timer(0.05, release, (descriptor,))
        timer.start()
        lock(file, time.monotonic() + 10)
        timer.join()


def test_acquires_only_free_lock(file: int) -> None:
    with other(file):
        assert not acquire(file, patience=0.0)
        with brief_lock(file) as is_held:
            assert not is_held
    with brief_lock(file) as is_held:
        assert is_held
    assert acquire(file, patience=0.0)


def test_brief_lock_is_released_after_error(file: int) -> None:
    with pytest.raises(ValueError, match="inside"), brief_lock(file):
        raise ValueError("inside")
    with other(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass


def test_closes_file_after_exclusive_use(file: int, tmp_path: Path) -> None:
    descriptor = os.dup(os.open(tmp_path / "file", os.O_RDWR))
    with exclusive_file(descriptor), pytest.raises(BlockingIOError):
        lock(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_waits_for_exclusive_use_by_other_process(file: int, tmp_path: Path) -> None:
    program = (
        "import os, sys; from conchrec.file_lock import exclusive_file\n"
        "with exclusive_file(os.open(sys.argv[1], os.O_RDWR)): print('locked', flush=True)"
    )
    with other(file):
        command = [sys.executable, "-c", program, str(tmp_path / "file")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
    assert process.communicate(timeout=20)[0] == b"locked\n"


def test_sees_locks_of_others_without_being_seen(file: int) -> None:
    with other(file):
        assert is_locked(file)
    with other(file, fcntl.LOCK_SH):
        assert not is_locked(file)
    assert not is_locked(file)
    with other(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass
