"""Keeps the index up to date, in a process of its own with the lowest priority, so that no session notices.

``python -m conchrec.recording.catalogue.indexer DIRECTORY`` adds recordings that are not in the index
whenever a line comes on its standard input, and ends at the end of the input. It is also safer to read
recordings (which may hold anything) outside the process that holds keys.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import RecordingError, error_text
from conchrec.file_lock import lock
from conchrec.text import decode_text, one_line

STOPPED = "the indexer stopped while it read this recording"
DELAY_SECONDS = 1.0
"""Recordings that end within this time are read in one run."""
LOCK_NAME = "index.lock"
PATIENCE_SECONDS = 60.0
"""How long one process waits while another one fills the index."""
_PAUSE_SECONDS = 0.05
BUSY = (
    "another process is filling the index: recordings that are not in it yet cannot be found. Try again later"
)


class Child(Protocol):
    """The part of IProcessTransport that is used here."""

    def write(self, data: bytes, /) -> object:
        """Write to the standard input of the process."""

    def closeStdin(self) -> object:
        """Close the standard input of the process."""


class Processes(Clock, Protocol):
    """The part of a reactor that is used here."""

    def spawnProcess(
        self,
        protocol: ProcessProtocol,
        executable: str,
        args: list[str],
        env: dict[str, str] | None,
    ) -> Child:
        """Start a process."""


class Indexer(ProcessProtocol):
    """The process, in its parent: started when there is something to do, and again after it ended.

    ``on_problem`` is called with each line that it writes to its standard error.
    """

    def __init__(self, reactor: Processes, directory: Path, on_problem: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._directory = directory
        self._on_problem = on_problem
        self._child: Child | None = None
        self._stopped = False
        self._call: DelayedCall | None = None

    def schedule(self) -> None:
        """Run soon: there may be recordings that are not in the index."""
        if self._call is None and not self._stopped:
            self._call = self._reactor.callLater(DELAY_SECONDS, self._run)

    def stop(self) -> None:
        """Start no more runs; the process ends after its current one."""
        self._stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._child is not None:
            self._child.closeStdin()

    def _run(self) -> None:
        self._call = None
        if self._child is None:
            command = [sys.executable, "-m", "conchrec.recording.catalogue.indexer", str(self._directory)]
            env = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
            self._child = self._reactor.spawnProcess(self, sys.executable, command, env)
        self._child.write(b"\n")

    def errReceived(self, data: bytes) -> None:
        """Report each line."""
        for line in decode_text(data).splitlines():
            self._on_problem(one_line(line))

    def processEnded(self, reason: Failure) -> None:
        """Start the process again at the next run."""
        self._child = None


def fill(
    directory: Path,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
    *,
    rebuild: bool = False,
    patience: float = PATIENCE_SECONDS,
) -> list[str]:
    """Add everything that is missing to the index. Returns problems, one line each. Raises RecordingError and
    OSError.

    ``on_progress`` is called with the number of recordings that are done, and their total. With ``rebuild``
    every recording is read again. A damaged index is removed first.

    One process at a time fills an index: another one would find the recording that this one is reading, and
    take it for one that ended its reader. The others wait for ``patience`` seconds.
    """
    from conchrec.recording.catalogue.index import NAME, IndexBroken, remove

    with _lock(directory, patience) as is_held:
        if not is_held:
            return [BUSY]
        try:
            return _fill(directory, on_progress, rebuild=rebuild)
        except IndexBroken:
            remove(directory / NAME)
            return _fill(directory, on_progress, rebuild=False)


@contextlib.contextmanager
def _lock(directory: Path, patience: float) -> Iterator[bool]:
    """Hold the lock of the index; yields False if another process still holds it after ``patience`` seconds.

    Where there can be no lock (a read-only directory, a file system without locks) it is not waited for.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(directory / LOCK_NAME, flags, 0o600)
    except OSError:
        yield True
        return
    try:
        yield _is_locked(descriptor, time.monotonic() + patience)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, deadline: float) -> bool:
    try:
        lock(descriptor, deadline, _PAUSE_SECONDS)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _fill(directory: Path, on_progress: Callable[[int, int], None], *, rebuild: bool) -> list[str]:
    from conchrec.recording.catalogue.index import Index, IndexBroken

    problems = []
    with Index(directory, make=True) as index:
        if rebuild:
            index.clear()
        missing, gone = index.differences()
        if gone:
            index.remove(gone)
        for number, sid in enumerate(missing, 1):
            try:
                if index.begin(sid):
                    index.add(sid)
                else:
                    index.skip(sid, STOPPED)
                    problems.append(f"{sid} was skipped and cannot be searched: {STOPPED}")
            except IndexBroken:
                raise
            except (OSError, RecordingError) as error:
                with contextlib.suppress(RecordingError):
                    index.forget(sid)
                problems.append(f"{sid} is not in the index: {error_text(error)}")
            except Exception as error:
                index.skip(sid, repr(error))
                problems.append(f"{sid} was skipped and cannot be searched: {error!r}")
            on_progress(number, len(missing))
    return problems


def forget(directory: Path) -> None:
    """Remove recordings that do not exist any more from the index; where this fails now, the next ``fill``
    does it."""
    from conchrec.recording.catalogue.index import Index, IndexUnusable

    with contextlib.suppress(IndexUnusable), Index(directory) as index:
        _, gone = index.differences()
        if gone:
            index.remove(gone)


def main(directory: Path) -> None:
    """Fill the index whenever a line comes on the standard input."""
    with contextlib.suppress(OSError):  # a sandbox may not allow it
        os.nice(19)
    for _ in sys.stdin:
        try:
            problems = fill(directory)
        except (OSError, RecordingError) as error:
            problems = [error_text(error)]
        for problem in problems:
            sys.stderr.write(f"{problem}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
