"""The outcome of a recording, which is the same for everyone who closes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.errors import RecordingError, WriteFailed
from conchrec.recording.format.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRecording:
    """A recording that is on the disk, with its manifest; ``head`` is the head of the ledger with its
    line."""

    path: Path
    manifest: Manifest
    head: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the cast, in hexadecimal."""
        return self.manifest.cast_sha256

    @property
    def size(self) -> int:
        """The number of bytes of the cast."""
        return self.manifest.cast_size


class RecordingOutcome:
    """Fires a Deferred for each caller that waits: with the recording, or with the error that it failed
    with."""

    __slots__ = ("_outcome", "_waiting")

    def __init__(self) -> None:
        self._outcome: ClosedRecording | RecordingError | None = None
        self._waiting: list[Deferred[ClosedRecording]] = []

    def wait(self) -> Deferred[ClosedRecording]:
        """Return a Deferred that fires when the outcome is known."""
        done: Deferred[ClosedRecording] = Deferred()
        if self._outcome is None:
            self._waiting.append(done)
        else:
            _fire(done, self._outcome)
        return done

    def settle(self, outcome: ClosedRecording | RecordingError) -> None:
        """Set the outcome. Called once."""
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            _fire(done, outcome)


def recording_error_of(failure: Failure) -> RecordingError:
    """Return the error of a failed close; one that is not a RecordingError becomes one."""
    if isinstance(failure.value, RecordingError):
        return failure.value
    return WriteFailed("this session cannot be recorded", repr(failure.value))


def _fire(done: Deferred[ClosedRecording], outcome: ClosedRecording | RecordingError) -> None:
    if isinstance(outcome, RecordingError):
        done.errback(outcome)
    else:
        done.callback(outcome)
