"""The lines of an audit log, as tests read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.log import AuditLog
from conchrec.recording.format.signatures import RecordingSigner

Event = dict[str, object]

HEAD = "audit.head"
SIGNER = RecordingSigner.generate()


def audit_log(directory: Path, name: str = "audit.jsonl", **options: object) -> AuditLog:
    """A log in this directory, its heads beside it, signed by ``SIGNER``."""
    heads = AuditHeadFile(directory / "audit_heads")
    return AuditLog(directory / name, signer=SIGNER, heads=heads, **options)  # type: ignore[arg-type]


def lines(path: Path) -> list[Event]:
    """All lines, heads among them."""
    return [cast(Event, json.loads(line)) for line in path.read_bytes().splitlines()]


def events(path: Path) -> list[Event]:
    """What was audited, without the heads of the chains."""
    return [event for event in lines(path) if event["event"] != HEAD]
