"""The file of one recording, and the failure of the recording when it cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.logger import Logger

from conchrec.errors import RecordingError, without_traceback
from conchrec.recording.capture.lifecycle import RecordingLifecycle
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.storage.spool import Spool

_log = Logger()


class RecordingFile:
    """Appends to a spool. The first failure is final: the lifecycle has it, and each further write raises it.

    ``written`` is called after each write.
    """

    __slots__ = ("_lifecycle", "_on_failure", "_sid", "_signed", "_written", "spool")

    def __init__(
        self, spool: Spool, sid: str, lifecycle: RecordingLifecycle, written: Callable[[], None]
    ) -> None:
        self.spool = spool
        self._sid = sid
        self._lifecycle = lifecycle
        self._written = written
        self._on_failure: Callable[[RecordingError], None] | None = None
        #: The size of the spool after the last signature.
        self._signed = 0

    def on_failure(self, callback: Callable[[RecordingError], None]) -> None:
        """Set the function that is called with a failure that no call of the session raises."""
        self._on_failure = callback

    def check(self) -> None:
        """Raise the failure of the recording, if there is one."""
        if self._lifecycle.failure is not None:
            raise self._lifecycle.failure

    def append(self, lines: list[bytes]) -> None:
        """Write complete lines. Where that fails, the recording fails, and the error is raised."""
        try:
            self.spool.append(*lines)
        except RecordingError as error:
            self._lifecycle.fail(error)
            raise
        self._written()

    @property
    def is_signed(self) -> bool:
        """Whether the last written line is a signature of everything before it."""
        return self.spool.size == self._signed

    def append_signature(self, line: bytes) -> None:
        """Write a signature of what the file holds. Raises RecordingError."""
        self.spool.append(line)
        self.spool.cut()
        self._signed = self.spool.size

    def complete(self, manifest: Manifest) -> Manifest:
        """Return ``manifest`` with the fields of the file."""
        spool = self.spool
        return replace(manifest, cast_size=spool.size, cast_sha256=spool.digest, cast_lines=spool.lines)

    def fail(self, error: RecordingError) -> None:
        """The recording fails with an error that no call of the session can raise: report it."""
        self._lifecycle.fail(without_traceback(error))
        reason = error.detail or error.public
        _log.error("recording of {session} failed: {reason}", session=self._sid, reason=reason)
        if self._on_failure is not None:
            self._on_failure(error)
