"""The life of a recording, as a table: what may happen in each state, and where it leads."""

from __future__ import annotations

from enum import Enum

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode


class RecordingState(Enum):
    """The life of a recording."""

    OPEN = "open"
    """The file is there, and empty."""
    RUNNING = "running"
    """The header is written."""
    FAILED = "failed"
    SEALING = "sealing"
    STORED = "stored"


class RecordingStep(Enum):
    """What can happen to a recording."""

    START = "start"
    FACT = "fact"
    FAIL = "fail"
    CLOSE = "close"
    SEALED = "sealed"


NEXT: dict[tuple[RecordingState, RecordingStep], RecordingState] = {
    (RecordingState.OPEN, RecordingStep.START): RecordingState.RUNNING,
    # A channel may ask again where the target refused the first request (a subsystem, then exec).
    (RecordingState.RUNNING, RecordingStep.START): RecordingState.RUNNING,
    (RecordingState.RUNNING, RecordingStep.FACT): RecordingState.RUNNING,
    (RecordingState.OPEN, RecordingStep.FAIL): RecordingState.FAILED,
    (RecordingState.RUNNING, RecordingStep.FAIL): RecordingState.FAILED,
    (RecordingState.RUNNING, RecordingStep.CLOSE): RecordingState.SEALING,
    (RecordingState.FAILED, RecordingStep.CLOSE): RecordingState.SEALING,
    (RecordingState.SEALING, RecordingStep.SEALED): RecordingState.STORED,
}
"""Where each step leads. What is not here raises RecordingError."""


class RecordingLifecycle:
    """The state of one recording, and what it failed of."""

    __slots__ = ("_sid", "failure", "state")

    def __init__(self, sid: str) -> None:
        self._sid = sid
        self.state = RecordingState.OPEN
        #: The first failure, or None. Every further step raises that again.
        self.failure: RecordingError | None = None

    def enter(self, step: RecordingStep) -> None:
        """Take ``step``. Raises the failure, or RecordingError where the table does not have it."""
        after = NEXT.get((self.state, step))
        if after is None:
            raise self.failure or RecordingError(
                "this recording is closed",
                f"{self._sid}: {step.value} in state {self.state.value}",
                code=ReasonCode.RECORDING_CLOSED,
            )
        self.state = after

    def fail(self, error: RecordingError) -> None:
        """The recording fails of ``error``; only the first one counts."""
        if self.failure is None:
            self.enter(RecordingStep.FAIL)
            self.failure = error

    def is_writable(self) -> bool:
        """The recording may still grow."""
        return self.state in (RecordingState.OPEN, RecordingState.RUNNING)
