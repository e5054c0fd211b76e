"""Sessions whose recording fails: how they end, and that the failure is audited exactly once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.access.options import Record, SessionOptions
from conchrec.audit import events
from conchrec.errors import RecordingError, WriteFailed
from conchrec.model import Identity
from conchrec.proxy.inner.session_recording import SessionRecording
from conchrec.proxy.refusals import failure_event
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.manifest import Manifest
from conchrec.ssh import messages as m
from tests.proxy.inner import test_session_files
from tests.recording.failing_file import FailingFile
from tests.recording.recording_bench import Bench
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_context, root_at_web1, set_options

CLOSED = Reason(ReasonCode.CHANNEL_CLOSED, "the channel was closed")


class Stage:
    """A recording on a disk that can fail, and the audit.

    Like the session that owns a recording, it audits a failure that ends it.
    """

    def __init__(self, directory: Path, record: Record) -> None:
        self.log, self.file = AuditMemory(), FailingFile()
        bench = Bench(directory=directory)
        self.clock = bench.clock
        self.store = bench.store(create=lambda name, day: self.file)
        context = memory_context(audit=self.log, store=self.store, clock=bench.clock, now=bench.now)
        self.access = root_at_web1(
            context, Identity(user="joe", method="publickey"), SessionOptions(record=record)
        )
        self.ended: list[RecordingError] = []
        self.closed: list[ClosedRecording | None] = []
        self.recording = SessionRecording(
            self.access, bench.info().sid, complete=lambda recorder: None, failed=self._end
        )
        self.recording.open()
        self.recording.write(lambda recorder: recorder.start("shell"))

    def _end(self, error: RecordingError) -> None:
        self.ended.append(error)
        self.access.context.emit(failure_event(error, self.access.who()))

    def write(self) -> None:
        """Write as the session does; with a strict role a failure ends it."""

        def write(recorder: SessionRecorder) -> None:
            recorder.output(b"a")
            recorder.flush()

        try:
            self.recording.write(write)
        except RecordingError as error:
            self._end(error)

    def sync(self) -> None:
        """Wait for the disk as the session does."""
        self.recording.write(lambda recorder: recorder.output(b"a"))

        def fail_to_sync(failure: Failure) -> None:
            assert isinstance(failure.value, RecordingError)
            self._end(failure.value)

        self.recording.sync().addErrback(fail_to_sync)

    def wait(self) -> None:
        """Let the timer write the merged output."""
        self.recording.write(lambda recorder: recorder.output(b"a"))
        self.clock.advance(1)

    def close(self) -> None:
        """End the session."""
        recorder, self.recording.recorder = self.recording.recorder, None
        if recorder is not None:
            self.recording.close(recorder, CLOSED, self.closed.append)

    def fill(self) -> None:
        """Let all further writes fail."""
        self.file.room = len(self.file.contents)

    @property
    def failures(self) -> list[events.RecordingFailed]:
        """The audit events about the failure."""
        return [event for event in self.log.events if isinstance(event, events.RecordingFailed)]


def not_sealed(finisher: Finisher, manifest: Manifest, *, durable: bool = True) -> NoReturn:
    """Let the manifest, the signature or the ledger fail."""
    raise WriteFailed("this session cannot be recorded", os.strerror(errno.EIO))


@pytest.mark.parametrize("record", Record)
@pytest.mark.parametrize("when", ["last flush", "seal"])
def test_audits_failure_at_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record, when: str
) -> None:
    stage = Stage(tmp_path, record)
    if when == "seal":
        monkeypatch.setattr(Finisher, "seal", not_sealed)
    else:
        stage.fill()
    stage.close()
    (event,) = stage.failures
    assert event.policy == record.value
    assert stage.closed == [None]


@pytest.mark.parametrize("record", Record)
@pytest.mark.parametrize("how", [Stage.write, Stage.sync, Stage.wait])
def test_audits_failure_once_before_close(
    tmp_path: Path, record: Record, how: Callable[[Stage], None]
) -> None:
    stage = Stage(tmp_path, record)
    stage.fill()
    how(stage)
    assert len(stage.failures) == 1
    assert bool(stage.ended) is (record is Record.STRICT)
    assert stage.recording.is_given_up is (record is Record.BEST_EFFORT)
    stage.close()
    assert len(stage.failures) == 1


@pytest.mark.parametrize("record", Record)
def test_audits_sync_that_fails_after_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """The session does not audit it any more."""
    stage, sync = Stage(tmp_path, record), Deferred[None]()
    monkeypatch.setattr(SessionRecorder, "sync", lambda recorder: sync)
    stage.sync()
    stage.close()
    assert stage.failures == []
    sync.errback(WriteFailed("this session cannot be recorded", os.strerror(errno.EIO)))
    (event,) = stage.failures
    assert event.policy == record.value
    assert stage.ended == []


def test_audits_failed_marker_at_end(tmp_path: Path) -> None:
    """The failure is audited at the end, not at once."""
    stage = Stage(tmp_path, Record.STRICT)
    stage.fill()
    stage.recording.mark_quietly("the user was told to leave")
    stage.close()
    assert len(stage.failures) == 1


@pytest.mark.parametrize("record", Record)
def test_ends_unrecorded_session_when_role_becomes_strict(record: Record) -> None:
    stage = test_session_files.Stage()
    stage.ask(b"exec", b"cat")
    stage.answer(m.CHANNEL_SUCCESS)
    options = stage.access.options
    assert options is not None
    set_options(stage.access, replace(options, record=record))
    stage.session.recheck()
    stage.pump()
    ended = [event for event in stage.log.events if isinstance(event, events.SessionEnd)]
    assert bool(ended) is (record is Record.STRICT)
    for event in ended:
        assert event.reason.endswith("it is not recorded, and your role now requires a recording")
    assert ((m.CHANNEL_CLOSE, b"") in stage.heard.heard) is (record is Record.STRICT)
