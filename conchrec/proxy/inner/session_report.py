"""What ``session.start`` and ``session.end`` say of one session channel."""

from __future__ import annotations

from dataclasses import asdict

from conchrec.audit import events
from conchrec.proxy.target_access import TargetAccess
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.text import one_line


class SessionReport:
    """Facts of one session; ``Session`` and ``RequestAudit`` set them as they become known."""

    __slots__ = (
        "_began", "exit_signal", "exit_status", "kind", "pty_size", "reason", "stderr", "stdin", "stdout",
        "term",
    )  # fmt: skip

    def __init__(self, began: float) -> None:
        """``began`` is in seconds of a monotonic clock."""
        self._began = began
        self.kind = ""
        self.term = ""
        self.pty_size: tuple[int, int] | None = None
        # Bytes that were forwarded.
        self.stdout = 0
        self.stderr = 0
        self.stdin = 0
        self.exit_status: int | None = None
        self.exit_signal = ""
        #: Why it ended; empty where the channel was closed.
        self.reason = ""

    def start(self, access: TargetAccess, sid: str, recorder: SessionRecorder | None) -> events.SessionStart:
        """The event at the start."""
        columns, rows = self.pty_size or (None, None)
        return events.SessionStart(
            **access.who(sid),
            kind=self.kind,
            recording=str(recorder.path) if recorder is not None else "",
            head=recorder.head if recorder is not None else "",
            term=self.term,
            columns=columns,
            rows=rows,
            roles=access.identity.roles,
            **asdict(access.provenance),
        )

    def end(
        self, access: TargetAccess, sid: str, now: float, closed: ClosedRecording | None
    ) -> events.SessionEnd:
        """The event at the end, ``now`` by the same clock; ``closed`` is None where no recording is whole."""
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
            exit_status=self.exit_status,
            exit_signal=self.exit_signal,
            recording=str(closed.path) if closed is not None else "",
            digest=closed.digest if closed is not None else "",
            head=closed.head if closed is not None else "",
            reason=one_line(self.reason),
        )
