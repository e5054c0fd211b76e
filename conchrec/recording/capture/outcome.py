"""What a recording has become, and the one answer for everyone who closes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred

from conchrec.errors import RecordingError
from conchrec.recording.format.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRecording:
    """A recording that is on the disk, with its manifest beside it; ``head`` is the ledger's, with it."""

    path: Path
    manifest: Manifest
    head: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the .cast file, hexadecimal."""
        return self.manifest.cast_sha256

    @property
    def size(self) -> int:
        """Bytes of the .cast file."""
        return self.manifest.cast_size


class RecordingOutcome:
    """Fires a Deferred for each caller who waits: with the recording, or with the error that it failed of."""

    __slots__ = ("_outcome", "_waiting")

    def __init__(self) -> None:
        self._outcome: ClosedRecording | RecordingError | None = None
        self._waiting: list[Deferred[ClosedRecording]] = []

    def wait(self) -> Deferred[ClosedRecording]:
        """Fires when the outcome is known: at once where it is."""
        done: Deferred[ClosedRecording] = Deferred()
        if self._outcome is None:
            self._waiting.append(done)
        else:
            _fire(done, self._outcome)
        return done

    def settle(self, outcome: ClosedRecording | RecordingError) -> None:
        """The outcome is known. Called once."""
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            _fire(done, outcome)


def _fire(done: Deferred[ClosedRecording], outcome: ClosedRecording | RecordingError) -> None:
    if isinstance(outcome, RecordingError):
        done.errback(outcome)
    else:
        done.callback(outcome)
