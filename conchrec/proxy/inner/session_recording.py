"""The recording of one session, with what its role says where something cannot be recorded.

``record: strict``: the session ends. ``best_effort``: it goes on without, and the audit says so.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.options import Record
from conchrec.errors import RecordingError, WriteFailed
from conchrec.proxy import refusals
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder

_log = Logger()


class SessionRecording:
    """Opens, writes and closes the recording of the session ``sid``.

    ``complete`` is called with the recorder before it is closed, to add what only the session knows.
    ``failed`` is called where a strict session must end because of a write that nobody waited for.
    """

    __slots__ = (
        "_access",
        "_complete",
        "_failed",
        "_is_announced",
        "_sid",
        "is_given_up",
        "recorder",
        "was_opened",
    )

    def __init__(
        self,
        access: TargetAccess,
        sid: str,
        *,
        complete: Callable[[SessionRecorder], None],
        failed: Callable[[RecordingError], None],
    ) -> None:
        self._access = access
        self._sid = sid
        self._complete = complete
        self._failed = failed
        #: None where nothing is recorded: not yet, or not any more.
        self.recorder: SessionRecorder | None = None
        self.was_opened = False
        #: The session goes on unrecorded: the recording has failed, and the role lets that be.
        self.is_given_up = False
        #: The audit has, or is about to get, what the recording failed of.
        self._is_announced = False

    def open(self) -> None:
        """Make the recording. Raises RecordingError where the role is strict."""
        access, services = self._access, self._access.services
        info = access.session_info(self._sid)
        if access.strict:
            services.disks.check()
        try:
            recorder = services.store.open(info)
        except RecordingError as error:
            if access.strict:
                raise
            self.is_given_up = True
            self._emit_failure(error, Record.BEST_EFFORT)
            return
        self.recorder, self.was_opened = recorder, True
        recorder.on_failure(self._lost)

    def write(self, write: Callable[[SessionRecorder], None]) -> None:
        """Call ``write`` with the recorder, if there is one. Raises RecordingError for a strict role."""
        if self.recorder is None:
            return
        try:
            write(self.recorder)
        except RecordingError as error:
            if self._access.strict:
                self._is_announced = True  # by the relay, which ends the session
                raise
            self._give_up(error)

    def mark_quietly(self, text: str) -> None:
        """A marker, if it can be written."""
        if self.recorder is not None:
            try:
                self.recorder.marker(text)
            except RecordingError as error:
                _log.info("cannot write a marker to recording {sid}: {why}", sid=self._sid, why=error.public)

    def on_disk(self) -> Deferred[None]:
        """Fires when all that was recorded is on the disk, or when nothing is recorded any more."""
        if self.recorder is None:
            return succeed(None)
        synced = self.recorder.sync()
        synced.addErrback(self._not_on_disk)
        return synced

    def close(
        self, recorder: SessionRecorder, reason: str, closed: Callable[[ClosedRecording | None], None]
    ) -> None:
        """Close what was the recorder; ``closed`` hears of the recording, or None where it is not whole."""

        def on_result(result: ClosedRecording | Failure) -> None:
            if isinstance(result, Failure):
                error = result.value
                if not isinstance(error, RecordingError):
                    _log.failure("unexpected error: cannot close {sid}", failure=result, sid=self._sid)
                    error = WriteFailed(
                        "the recording could not be completed",
                        str(error),
                        code=ReasonCode.RECORDING_INCOMPLETE,
                    )
                if not self._is_announced:
                    self._is_announced = True
                    self._emit_failure(error, Record.STRICT if self._access.strict else Record.BEST_EFFORT)
            closed(result if isinstance(result, ClosedRecording) else None)

        self._complete(recorder)
        recorder.close(reason).addBoth(on_result)

    def _lost(self, error: RecordingError) -> None:
        """A write that nobody waited for has failed."""
        if self._access.strict:
            self._is_announced = True
            self._failed(error)
        else:
            self._give_up(error)

    def _not_on_disk(self, failure: Failure) -> Failure | None:
        if not isinstance(failure.value, RecordingError):
            return failure
        if self._access.strict:
            self._is_announced = True
            return failure
        self._give_up(failure.value)
        return None

    def _give_up(self, error: RecordingError) -> None:
        """The session goes on unrecorded."""
        recorder, self.recorder = self.recorder, None
        if recorder is None:
            return
        self.is_given_up = self._is_announced = True
        reason = Reason(ReasonCode.RECORDING_GIVEN_UP, "recording failed; the session went on without it")
        self.close(recorder, reason, lambda closed: None)
        self._emit_failure(error, Record.BEST_EFFORT)

    def _emit_failure(self, error: RecordingError, policy: Record) -> None:
        access = self._access
        access.context.emit(refusals.event(error, access.who(self._sid), policy=policy.value))
