"""A session that is recorded, and ends before a start request."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from conchrec.audit import events
from conchrec.errors import SpoolFull
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.store import LocalStore
from conchrec.ssh import messages as m
from tests.proxy.inner import test_session_files


@pytest.mark.parametrize("fails", [False, True])
def test_audits_start_and_end_of_recording(tmp_path: Path, fails: bool) -> None:
    """Also if the recording failed before anything was recorded."""
    clock = Clock()
    finisher = Finisher(RecordingTree(tmp_path), RecordingSigner.generate(), lambda: test_session_files.NOW)
    store = LocalStore(clock=clock, in_thread=execute, finisher=finisher, monotonic=clock.seconds)
    stage = test_session_files.Stage(store=store)
    if fails:
        assert stage.session.recording.recorder is not None
        stage.session.recording.recorder.background.sync_failed(
            SpoolFull("this session cannot be recorded: full")
        )
    for channel in (stage.user, stage.target):
        channel.send(m.CHANNEL_CLOSE)
        stage.pump()
    start, end = (
        event for event in stage.log.events if isinstance(event, events.SessionStart | events.SessionEnd)
    )
    assert isinstance(start, events.SessionStart) and isinstance(end, events.SessionEnd)
    assert (start.kind, end.kind, start.sid) == ("none", "none", end.sid)
    (cast,) = tmp_path.rglob("*.cast")
    assert cast.stem == start.sid
    assert fails or str(cast) == start.recording == end.recording
