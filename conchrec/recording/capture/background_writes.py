"""Writes of a recording that no call of its session makes: by timers of the store, and after failures.

An error here cannot be raised to the session, so it is reported to ``on_failure`` of the recording.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.errors import RecordingError
from conchrec.recording.capture.event_writer import EventWriter
from conchrec.recording.capture.lifecycle import RecordingLifecycle, RecordingState
from conchrec.recording.capture.recording_file import RecordingFile
from conchrec.recording.format import asciicast
from conchrec.recording.format.signatures import CHECKPOINT


class BackgroundWrites:
    """The methods of a recorder that the store calls. ``sign`` returns the text of a checkpoint for so many
    bytes with that digest."""

    __slots__ = ("_file", "_lifecycle", "_sign", "_writer")

    def __init__(
        self,
        lifecycle: RecordingLifecycle,
        file: RecordingFile,
        writer: EventWriter,
        sign: Callable[[int, str], str],
    ) -> None:
        self._lifecycle = lifecycle
        self._file = file
        self._writer = writer
        self._sign = sign

    @property
    def _is_running(self) -> bool:
        return self._lifecycle.state is RecordingState.RUNNING

    def flush(self) -> None:
        """Flush, by the timer."""
        self._writer.flush_began()
        if self._is_running:
            try:
                self._writer.flush()
            except RecordingError as error:
                self._fail(error)

    def checkpoint(self) -> None:
        """Sign what the file holds."""
        spool = self._file.spool
        if not self._is_running or self._file.is_signed:
            return
        try:
            self._writer.flush()
            text = self._sign(spool.size, spool.digest)
            line = asciicast.event_line(self._writer.timeline.elapsed(), CHECKPOINT, text)
            self._file.append_signature(line)
        except RecordingError as error:
            self._fail(error)

    def give_up(self, error: RecordingError) -> None:
        """There is no disk space for more: what came so far is kept, and nothing more is recorded."""
        if self._is_running:
            try:
                self._writer.flush()
            except RecordingError as failed:
                # No call of the session has raised this.
                self._fail(failed)
                return
        self.sync_failed(error)

    def sync_failed(self, error: RecordingError) -> None:
        """A sync in the background failed: what the disk holds is not known any more."""
        if self._lifecycle.is_writable:
            self._fail(error)

    def _fail(self, error: RecordingError) -> None:
        """The recording fails with an error that no call of the session could raise."""
        self._writer.discard()
        self._file.fail(error)
