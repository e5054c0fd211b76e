"""The recording of one session, and what happens when it fails.

With ``record: strict`` the session ends. With ``best_effort`` it continues without a recording, which is
audited.
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

    ``complete`` is called with the recorder before it is closed, to add facts that only the session knows.
    ``failed`` is called if a write in the background failed and the session must end (``record: strict``).
    """

    __slots__ = (
        "_access",
        "_complete",
        "_failed",
        "_is_audited",
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
        #: None before the recording is opened, and after it was closed or given up.
        self.recorder: SessionRecorder | None = None
        self.was_opened = False
        #: The recording failed, and the session continues without it, as the role allows.
        self.is_given_up = False
        #: The failure of the recording was audited, or the session's end is about to audit it.
        self._is_audited = False

    def open(self) -> None:
        """Create the recording. Raises RecordingError if that fails and the role is strict."""
        access, services = self._access, self._access.services
        info = access.session_info(self._sid)
        if access.is_strict:
            services.disks.check()
        try:
            recorder = services.store.open(info)
        except RecordingError as error:
            if access.is_strict:
                raise
            self.is_given_up = True
            self._emit_failure(error, Record.BEST_EFFORT)
            return
        self.recorder, self.was_opened = recorder, True
        recorder.on_failure(self._handle_failure)

    def write(self, write: Callable[[SessionRecorder], None]) -> None:
        """Call ``write`` with the recorder, if there is one. Raises RecordingError if the role is strict."""
        if self.recorder is None:
            return
        try:
            write(self.recorder)
        except RecordingError as error:
            if self._access.is_strict:
                self._is_audited = True  # by the relay, which ends the session
                raise
            self._give_up(error)

    def mark_quietly(self, text: str) -> None:
        """Write a marker. A failure is logged, not raised."""
        if self.recorder is not None:
            try:
                self.recorder.marker(text)
            except RecordingError as error:
                _log.info("cannot write a marker to recording {sid}: {why}", sid=self._sid, why=error.public)

    def sync(self) -> Deferred[None]:
        """Return a Deferred that fires when everything is on disk, or when nothing is recorded any longer."""
        if self.recorder is None:
            return succeed(None)
        synced = self.recorder.sync()
        synced.addErrback(self._handle_sync_failure)
        return synced

    def close(
        self, recorder: SessionRecorder, reason: str, closed: Callable[[ClosedRecording | None], None]
    ) -> None:
        """Close ``recorder``. ``closed`` gets the recording, or None if it could not be completed."""

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
                self._audit_failure(error)
            closed(result if isinstance(result, ClosedRecording) else None)

        self._complete(recorder)
        recorder.close(reason).addBoth(on_result)

    def _handle_failure(self, error: RecordingError) -> None:
        """Handle the failure of a write in the background."""
        if self._access.is_strict:
            self._is_audited = True
            self._failed(error)
        else:
            self._give_up(error)

    def _handle_sync_failure(self, failure: Failure) -> Failure | None:
        error = failure.value
        if not isinstance(error, RecordingError):
            return failure
        if self.recorder is None:
            # The session has ended, and does not audit it; or it was given up, and that was audited.
            self._audit_failure(error)
            return None
        if self._access.is_strict:
            self._is_audited = True
            return failure
        self._give_up(error)
        return None

    def _give_up(self, error: RecordingError) -> None:
        """Close the recording; the session continues without one."""
        recorder, self.recorder = self.recorder, None
        if recorder is None:
            return
        self.is_given_up = self._is_audited = True
        reason = Reason(ReasonCode.RECORDING_GIVEN_UP, "recording failed; the session went on without it")
        self.close(recorder, reason, lambda closed: None)
        self._emit_failure(error, Record.BEST_EFFORT)

    def _audit_failure(self, error: RecordingError) -> None:
        """Audit a failure after the end, unless one was audited before."""
        if not self._is_audited:
            self._is_audited = True
            self._emit_failure(error, Record.STRICT if self._access.is_strict else Record.BEST_EFFORT)

    def _emit_failure(self, error: RecordingError, policy: Record) -> None:
        access = self._access
        access.context.emit(refusals.failure_event(error, access.who(self._sid), policy=policy.value))
