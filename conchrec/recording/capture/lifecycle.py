"""The states of a recording, as a table: which step is allowed in each state, and which state follows."""

from __future__ import annotations

from enum import Enum

from conchrec.errors import RecordingError, without_traceback
from conchrec.reasons import ReasonCode


class RecordingState(Enum):
    """The state of a recording."""

    OPEN = "open"
    """The file exists and is empty."""
    RUNNING = "running"
    """The header is written."""
    FAILED = "failed"
    """It cannot be written any more, and is not closed yet."""
    SEALING = "sealing"
    """Its manifest is being written."""
    STORED = "stored"
    """It is closed; the outcome is known."""


class RecordingStep(Enum):
    """A step in the life of a recording."""

    START = "start"
    FACT = "fact"
    FAIL = "fail"
    CLOSE = "close"
    SEALED = "sealed"


NEXT: dict[tuple[RecordingState, RecordingStep], RecordingState] = {
    (RecordingState.OPEN, RecordingStep.START): RecordingState.RUNNING,
    # A channel may request a second start where the target refused the first (a subsystem, then exec).
    (RecordingState.RUNNING, RecordingStep.START): RecordingState.RUNNING,
    (RecordingState.RUNNING, RecordingStep.FACT): RecordingState.RUNNING,
    (RecordingState.OPEN, RecordingStep.FAIL): RecordingState.FAILED,
    (RecordingState.RUNNING, RecordingStep.FAIL): RecordingState.FAILED,
    (RecordingState.RUNNING, RecordingStep.CLOSE): RecordingState.SEALING,
    (RecordingState.FAILED, RecordingStep.CLOSE): RecordingState.SEALING,
    (RecordingState.SEALING, RecordingStep.SEALED): RecordingState.STORED,
}
"""The state after each step. A step that is not here raises RecordingError."""


class RecordingLifecycle:
    """The state of one recording, and its failure."""

    __slots__ = ("_failure", "_sid", "state")

    def __init__(self, sid: str) -> None:
        self._sid = sid
        self.state = RecordingState.OPEN
        self._failure: RecordingError | None = None

    @property
    def failure(self) -> RecordingError | None:
        """The first failure, or None. Every further step raises it again."""
        return self._failure

    @property
    def is_writable(self) -> bool:
        """Whether the recording may still grow."""
        return self.state in (RecordingState.OPEN, RecordingState.RUNNING)

    def enter(self, step: RecordingStep) -> None:
        """Take ``step``. Raises the failure, or RecordingError where the table does not allow it."""
        after = NEXT.get((self.state, step))
        if after is None:
            raise self._failure or RecordingError(
                "this recording is closed",
                f"{self._sid}: {step.value} in state {self.state.value}",
                code=ReasonCode.RECORDING_CLOSED,
            )
        self.state = after

    def fail(self, error: RecordingError) -> None:
        """The recording fails with ``error``; only the first failure counts."""
        if self._failure is None:
            self.enter(RecordingStep.FAIL)
            self._failure = error

    def finish(self, error: RecordingError | None) -> None:
        """The recording is closed, or failed with ``error`` while it was; an earlier failure stays."""
        self.enter(RecordingStep.SEALED)
        self._failure = self._failure or error
        if self._failure is not None:
            # Each step that was refused has raised it.
            without_traceback(self._failure)
