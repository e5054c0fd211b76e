"""What the file account of a session tells its recording and the audit, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from conchrec.audit import events
from conchrec.errors import WriteFailed
from conchrec.proxy.inner.file_audit import FileAudit, Journal
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.ssh.wire import string, uint32
from tests.support.auditlog import AuditMemory

INIT = string(b"\1" + uint32(3))
VERSION = string(b"\2" + uint32(3))


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.broken = False

    def marker(self, text: str) -> None:
        if self.broken:
            raise WriteFailed("the disk is full", "it is")
        self.calls.append(("marker", text))

    def transfer(self, *, digest_only: bool) -> None:
        self.calls.append(("transfer", digest_only))

    def keep_from_here(self, from_user: bytes, from_target: bytes) -> None:
        self.calls.append(("keep", from_user, from_target))


class Stage:
    """A file account, its recorder and its audit."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.log = AuditMemory()
        self.files = FileAudit(
            Journal(record=self._record, emit=self.log.emit, emit_quietly=self.log.emit, who=self._who),
            lambda: 0.0,
        )

    def _record(self, write: Callable[[SessionRecorder], None]) -> None:
        write(cast(SessionRecorder, self.recorder))

    def _who(self) -> events.Who:
        return events.Who(cid="c", sid="s", user="joe", login="root", target="web1:22", addr="10.0.0.1")

    def lost(self) -> list[str]:
        return [event.reason for event in self.log.events if isinstance(event, events.TransferLost)]


@pytest.mark.parametrize(
    ("kind", "command", "calls"),
    [
        ("subsystem", "sftp", [("transfer", True)]),
        ("exec", "/usr/lib/sftp-server", [("transfer", False)]),
        ("exec", "scp -t x", [("transfer", False)]),
        ("exec", "rsync --server . .", []),
        ("exec", "uptime", []),
        ("subsystem", "netconf", []),
        ("shell", "", []),
    ],
)
def test_only_a_subsystem_that_is_followed_is_not_kept(
    kind: str, command: str, calls: list[tuple[object, ...]]
) -> None:
    stage = Stage()
    stage.files.begin(kind, command)
    assert stage.recorder.calls == calls


def test_the_bytes_that_are_no_sftp_go_to_the_recording() -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.from_user(INIT)
    stage.files.from_target(VERSION + b"ba")
    stage.files.from_user(b"i")
    stage.files.from_target(b"sh$ ")
    reason = "a packet is too long"
    assert stage.recorder.calls == [
        ("transfer", True),
        ("marker", f"sftp cannot be followed any further: {reason}"),
        ("keep", b"i", b"bash$ "),
    ]
    assert stage.lost() == [reason]
    stage.files.from_target(b"more")
    stage.files.end()
    assert len(stage.recorder.calls) == 3
    assert stage.files.files is not None
    assert stage.files.files.lost == reason


@pytest.mark.parametrize("end", ["end", "withdraw"])
def test_what_is_left_at_the_end_is_kept_too(end: str) -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.from_target(b"$ ")
    getattr(stage.files, end)()
    assert ("keep", b"", b"$ ") in stage.recorder.calls
    assert stage.lost() == ["the session ends within a packet"]


def test_a_start_that_the_target_refuses_leaves_nothing() -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.withdraw()
    assert stage.files.files is None
    assert stage.recorder.calls == [("transfer", True), ("keep", b"", b"")], "what comes now is kept"
    assert stage.log.events == []


def test_a_bug_of_ours_loses_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    monkeypatch.setattr("conchrec.recording.capture.sftp.SftpReader.from_target", broken)
    stage.files.from_target(b"anything")
    assert stage.recorder.calls[-1] == ("keep", b"", b"anything")


def test_a_command_of_several_transfers_is_said_to_be_incomplete_at_once() -> None:
    stage = Stage()
    stage.files.begin("exec", "git-upload-pack x; scp -t /etc")
    assert stage.lost() == ["the command runs several transfer programs"]
    stage.files.from_user(b"C0644 1 x\n")
    stage.files.end()
    assert len(stage.log.events) == 1


def test_what_cannot_be_recorded_ends_the_session_but_not_its_end() -> None:
    """Journal.record raises where the role is strict."""
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.recorder.broken = True
    with pytest.raises(WriteFailed):
        stage.files.from_target(b"Welcome\n")
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.from_target(b"$")
    stage.recorder.broken = True
    stage.files.end()
    assert stage.lost() == ["the session ends within a packet"]


def test_the_account_hears_of_every_byte() -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.from_user(INIT)
    stage.files.from_target(VERSION)
    stage.files.end()
    files = stage.files.files
    assert files is not None
    assert (files.sent, files.received) == (len(INIT), len(VERSION))
