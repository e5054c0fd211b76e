"""Makes the audit events ``session.start`` and ``session.end`` of one session channel."""

from __future__ import annotations

from dataclasses import asdict

from conchrec.audit import events
from conchrec.proxy.inner.request_audit import RequestFacts
from conchrec.proxy.target_access import TargetAccess
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.text import one_line


class SessionReport:
    """Facts of one session, which ``Session`` sets; ``facts`` are those of its requests."""

    __slots__ = ("_began", "_facts", "kind", "reason", "stderr", "stdin", "stdout")

    def __init__(self, began: float, facts: RequestFacts) -> None:
        """``began`` is in seconds of a monotonic clock."""
        self._began = began
        self._facts = facts
        #: The kind of the last start request that was forwarded: shell, exec or subsystem.
        self.kind = ""
        # Bytes that were forwarded.
        self.stdout = 0
        self.stderr = 0
        self.stdin = 0
        #: Why the session ended; empty if its channel was closed.
        self.reason = ""

    def start(self, access: TargetAccess, sid: str, recorder: SessionRecorder | None) -> events.SessionStart:
        """Return the event at the start of the session."""
        facts = self._facts
        columns, rows = facts.pty_size or (None, None)
        return events.SessionStart(
            **access.who(sid),
            kind=self.kind,
            recording=str(recorder.path) if recorder is not None else "",
            head=recorder.head if recorder is not None else "",
            term=facts.term,
            columns=columns,
            rows=rows,
            roles=access.identity.roles,
            **asdict(access.provenance),
        )

    def end(
        self, access: TargetAccess, sid: str, now: float, closed: ClosedRecording | None
    ) -> events.SessionEnd:
        """Return the event at the end of the session.

        ``now`` is a time of the same clock, and ``closed`` the recording; None if there is no complete one.
        """
        stdin = closed.manifest.stdin if closed is not None else None
        stdout = closed.manifest.stdout if closed is not None else None
        return events.SessionEnd(
            **access.who(sid),
            kind=self.kind,
            duration=round(now - self._began, 3),
            stdout=self.stdout,
            stderr=self.stderr,
            stdin=self.stdin,
            stdin_sha256=stdin.sha256 if stdin is not None else "",
            stdout_sha256=stdout.sha256 if stdout is not None else "",
            exit_status=self._facts.exit_status,
            exit_signal=self._facts.exit_signal,
            recording=str(closed.path) if closed is not None else "",
            digest=closed.digest if closed is not None else "",
            head=closed.head if closed is not None else "",
            reason=one_line(self.reason),
        )
