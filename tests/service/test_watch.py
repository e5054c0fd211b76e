"""The service's look at the ledger of recordings, once a second."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from twisted.internet.defer import execute
from twisted.logger import LogLevel, capturedLogs, formatEvent

from conchrec.audit.events import AuditEvent, EvidenceTampered
from conchrec.recording.evidence.continuity import Break
from conchrec.recording.evidence.heads import HeadFile
from conchrec.recording.evidence.ledger import Ledger, LedgerAction
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.service.watch import LedgerWatch

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


class Desk:
    """A watch on a ledger; ``events`` were audited, ``errors`` logged."""

    def __init__(self, directory: Path) -> None:
        self.events: list[AuditEvent] = []
        self.errors: list[str] = []
        self.heads = HeadFile(directory)
        self.recordings = directory / "recordings"
        self.recordings.mkdir()
        self.ledger = Ledger(
            self.recordings, RecordingSigner.generate(), lambda: NOW, heads=self.heads, on_break=self.report
        )
        self.watch = LedgerWatch(self.ledger, execute, self.events.append)
        self.ledger.append(LedgerAction.OPEN, new_session_id(NOW))

    def report(self, tampering: Break) -> None:
        self.watch.report(tampering)

    def check(self) -> None:
        with capturedLogs() as events:
            self.watch.check()
        self.errors += [
            formatEvent(event)
            for event in events
            if event["log_level"] in (LogLevel.error, LogLevel.critical)
        ]


def test_keeps_head(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.check()
    kept = desk.heads.read(desk.recordings)
    assert kept is not None and kept.position.head == desk.ledger.head
    assert desk.events == [] and desk.errors == []


def test_audits_and_logs_changes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    expected = desk.ledger.head
    os.truncate(desk.ledger.path, 10)
    desk.check()
    desk.check()
    (event,) = desk.events
    assert isinstance(event, EvidenceTampered)
    assert (event.ledger, event.expected) == (str(desk.ledger.path), expected)
    assert event.head == desk.ledger.head and event.found == "0:" + "0" * 64
    (error,) = desk.errors
    assert error.startswith("EVIDENCE WAS TAMPERED WITH: ") and expected in error


def test_logs_failed_check_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.heads.path.write_bytes(b"nonsense")
    desk.ledger = Ledger(desk.recordings, RecordingSigner.generate(), lambda: NOW, heads=desk.heads)
    desk.watch = LedgerWatch(desk.ledger, execute, desk.events.append)
    for _ in range(3):
        desk.check()
    (error,) = desk.errors
    assert error.startswith("the ledger of recordings cannot be checked: ") and "is damaged" in error
    desk.heads.path.unlink()
    for _ in range(2):
        desk.check()
    assert len(desk.errors) == 2 and "not signed by a key of this installation" in desk.errors[1]
