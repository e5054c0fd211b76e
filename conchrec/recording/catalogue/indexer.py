"""Keeps the index up to date: a process of its own, at the lowest priority, so that no session notices.

``python -m conchrec.recording.catalogue.indexer DIRECTORY`` looks for recordings that are not in the index
whenever a line comes on its standard input, and ends when that does. Reading what was recorded (by anybody,
of anything) is also done better outside of the process that holds keys.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import RecordingError
from conchrec.text import decode_text, one_line

STOPPED = "the indexer stopped while it read this recording"
DELAY_SECONDS = 1.0
"""Recordings that end within this time are looked for together."""


class Child(Protocol):
    """The part of IProcessTransport that is used here."""

    def write(self, data: bytes, /) -> object: ...

    def closeStdin(self) -> object: ...


class Processes(Clock, Protocol):
    """The part of a reactor that is used here."""

    def spawnProcess(
        self,
        protocol: ProcessProtocol,
        executable: str,
        args: list[str],
        env: dict[str, str] | None,
    ) -> Child: ...


class Indexer(ProcessProtocol):
    """The process, from its parent's side: begun when there is something to do first, and again if it ends.

    ``failed`` hears, line by line, what it complains of.
    """

    def __init__(self, reactor: Processes, directory: Path, failed: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._directory = directory
        self._failed = failed
        self._child: Child | None = None
        self._stopped = False
        self._poke: DelayedCall | None = None

    def schedule(self) -> None:
        """There may be something that is not in the index yet."""
        if self._poke is None and not self._stopped:
            self._poke = self._reactor.callLater(DELAY_SECONDS, self._look)

    def stop(self) -> None:
        """No more; it ends when it has done what it is at."""
        self._stopped = True
        if self._poke is not None:
            self._poke.cancel()
            self._poke = None
        if self._child is not None:
            self._child.closeStdin()

    def _look(self) -> None:
        self._poke = None
        if self._child is None:
            command = [sys.executable, "-m", "conchrec.recording.catalogue.indexer", str(self._directory)]
            env = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
            self._child = self._reactor.spawnProcess(self, sys.executable, command, env)
        self._child.write(b"\n")

    def errReceived(self, data: bytes) -> None:
        for line in decode_text(data).splitlines():
            self._failed(one_line(line))

    def processEnded(self, reason: Failure) -> None:
        self._child = None


def fill(
    directory: Path, did: Callable[[int, int], None] = lambda done, of: None, *, rebuild: bool = False
) -> list[str]:
    """Put everything that is missing into the index; problems, one line each. Raises RecordingError, OSError.

    ``did`` is called with how many of how many are done. With ``rebuild`` every recording is read again. A
    damaged index is removed first.
    """
    from conchrec.recording.catalogue.index import NAME, IndexBroken, remove

    try:
        return _fill(directory, did, rebuild=rebuild)
    except IndexBroken:
        remove(directory / NAME)
        return _fill(directory, did, rebuild=False)


def _fill(directory: Path, did: Callable[[int, int], None], *, rebuild: bool) -> list[str]:
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
                problems.append(f"{sid} is not in the index: {error}")
            except Exception as error:
                index.skip(sid, repr(error))
                problems.append(f"{sid} was skipped and cannot be searched: {error!r}")
            did(number, len(missing))
    return problems


def forget(directory: Path) -> None:
    """What is not there any more leaves the index; at the next ``fill``, where that cannot be now."""
    from conchrec.recording.catalogue.index import Index, IndexUnusable

    with contextlib.suppress(IndexUnusable), Index(directory) as index:
        _, gone = index.differences()
        if gone:
            index.remove(gone)


def main(directory: Path) -> None:
    with contextlib.suppress(OSError):  # a sandbox may not allow it
        os.nice(19)
    for _ in sys.stdin:
        try:
            problems = fill(directory)
        except (OSError, RecordingError) as error:
            problems = [str(error)]
        for problem in problems:
            sys.stderr.write(f"{problem}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
