"""The lines of an audit log, as tests read them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import cast

from conchrec.audit.encoder import encode
from conchrec.audit.events import AuditEvent
from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.log import AuditLog
from conchrec.errors import WriteFailed
from conchrec.recording.format.signatures import RecordingSigner

Event = dict[str, object]

HEAD = "audit.head"
SIGNER = RecordingSigner.generate()


def line(event: AuditEvent, when: datetime) -> bytes:
    """The event as a whole line, with a newline, and without a chain."""
    return encode(event, when) + b"}\n"


class AuditMemory:
    """An AuditSink in memory: ``events`` holds what was emitted, in order.

    ``broken`` set to an error makes every ``emit`` raise it.
    """

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.broken: WriteFailed | None = None

    def emit(self, event: AuditEvent) -> None:
        """Keep the event; raise ``broken`` if it is set."""
        if self.broken is not None:
            raise self.broken
        self.events.append(event)

    def reopen(self) -> None:
        """There is no file."""


def audit_log(directory: Path, name: str = "audit.jsonl", **options: object) -> AuditLog:
    """A log in this directory, its heads beside it, signed by ``SIGNER``."""
    heads = AuditHeadFile(directory / "audit_heads")
    return AuditLog(directory / name, signer=SIGNER, heads=heads, **options)  # type: ignore[arg-type]


def lines(path: Path) -> list[Event]:
    """All lines, heads among them."""
    return [cast(Event, json.loads(text)) for text in path.read_bytes().splitlines()]


def events(path: Path) -> list[Event]:
    """What was audited, without the heads of the chains."""
    return [event for event in lines(path) if event["event"] != HEAD]
