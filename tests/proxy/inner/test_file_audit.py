"""What the file audit writes into the recording and the audit log, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conchrec.audit import events
from conchrec.errors import WriteFailed
from conchrec.proxy.inner.file_audit import FileAudit, FileRecorder, Journal
from conchrec.ssh.wire import string, uint32
from tests.support.auditlog import AuditMemory

INIT = string(b"\1" + uint32(3))
VERSION = string(b"\2" + uint32(3))


class Recorder:
    """Keeps its calls."""

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

    def _record(self, write: Callable[[FileRecorder], None]) -> None:
        write(self.recorder)

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
def test_records_digest_only_for_sftp_subsystem(
    kind: str, command: str, calls: list[tuple[object, ...]]
) -> None:
    stage = Stage()
    stage.files.begin(kind, command)
    assert stage.recorder.calls == calls


def test_records_bytes_when_sftp_cannot_be_followed() -> None:
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
def test_records_incomplete_packet_at_end(end: str) -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.from_target(b"$ ")
    getattr(stage.files, end)()
    assert ("keep", b"", b"$ ") in stage.recorder.calls
    assert stage.lost() == ["the session ends within a packet"]


def test_discards_account_of_refused_start() -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.withdraw()
    assert stage.files.files is None
    assert stage.recorder.calls == [("transfer", True), ("keep", b"", b"")], "later bytes are recorded"
    assert stage.log.events == []


def test_records_bytes_when_parser_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    monkeypatch.setattr("conchrec.recording.capture.sftp.SftpReader.from_target", broken)
    stage.files.from_target(b"anything")
    assert stage.recorder.calls[-1] == ("keep", b"", b"anything")


def test_reports_command_with_several_transfers() -> None:
    stage = Stage()
    stage.files.begin("exec", "git-upload-pack x; scp -t /etc")
    assert stage.lost() == ["the command runs several transfer programs"]
    stage.files.from_user(b"C0644 1 x\n")
    stage.files.end()
    assert len(stage.log.events) == 1


def test_raises_when_recording_fails_except_at_end() -> None:
    """Journal.record raises if the role is strict."""
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


def test_counts_all_bytes() -> None:
    stage = Stage()
    stage.files.begin("subsystem", "sftp")
    stage.files.from_user(INIT)
    stage.files.from_target(VERSION)
    stage.files.end()
    files = stage.files.files
    assert files is not None
    assert (files.sent, files.received) == (len(INIT), len(VERSION))
