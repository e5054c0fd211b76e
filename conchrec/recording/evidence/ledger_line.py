"""One line of the ledger, as a value: how it is written and read.

``docs/recordings.md`` has the format. Signatures are those of ``seal``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import Enum

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.format.json_fields import as_text
from conchrec.text import decode_text

LONGEST = 64 * 1024
"""Bytes of a line; ours are far below."""
START = "0" * 64
"""What the first line has as the digest of the line before it."""
_RAW = re.compile(
    rb'\{"number":([0-9]{1,18}),"previous":"([0-9a-f]{64})","time":"([^"\\]{0,40})","act":"([a-z]{1,20})",'
    rb'"sid":"([0-9a-z]{0,26})"[,}]'
)


class LedgerAction(Enum):
    """What a line tells of a recording."""

    OPEN = "open"
    """It began."""
    SEALED = "sealed"
    """Its manifest, whose digest is in ``manifest``, was put in its place."""
    HELD = "held"
    """It must not be removed (a legal hold), until:"""
    RELEASED = "released"
    REMOVED = "removed"
    """It was removed, for a ``reason``: a tombstone."""
    BROKEN = "broken"
    """Of no recording: the file did not continue what its writer knew of it. ``head`` is the head that it
    must have contained, ``reason`` what was found in its place."""


class BrokenLedger(RecordingError):
    """The ledger is not continued: it has a line that is not genuine, or it lacks one that it had."""

    default_code = ReasonCode.LEDGER_BROKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of the ledger. ``manifest`` is the SHA-256 of the manifest's file, hexadecimal."""

    number: int
    previous: str
    time: str
    act: LedgerAction
    sid: str
    manifest: str = ""
    head: str = ""
    reason: str = ""
    by: str = ""

    def encode(self) -> bytes:
        """A JSON object in ASCII, without spaces or a newline; what it does not have is left out."""
        fields: dict[str, object] = {
            "number": self.number,
            "previous": self.previous,
            "time": self.time,
            "act": self.act.value,
            "sid": self.sid,
        }
        fields |= {name: value for name in _OPTIONAL if (value := getattr(self, name)) != ""}
        return json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f").encode("ascii")

    @classmethod
    def parse(cls, line: bytes) -> LedgerLine:
        """Raises BrokenLedger for an invalid line; signatures are for ``seal.Keys`` to check."""
        try:
            fields = json.loads(line)
            number = fields["number"]
            if not line.endswith(b"\n") or type(number) is not int:
                raise ValueError(line)
            return cls(
                number=number,
                act=LedgerAction(fields["act"]),
                **{name: as_text(fields[name]) for name in ("previous", "time", "sid")},
                **{name: as_text(fields.get(name, "")) for name in _OPTIONAL},
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BrokenLedger("the ledger has a line that cannot be read", repr(error)) from error


_OPTIONAL = ("manifest", "head", "reason", "by")


@dataclass(frozen=True, slots=True)
class RawLine:
    """What stands first in every line, read without a JSON parser: ten times as fast."""

    number: int
    previous: str
    time: str
    act: str
    sid: str


def raw_line(line: bytes) -> RawLine | None:
    """None where a line does not begin as ``LedgerLine.encode`` writes it."""
    match = _RAW.match(line)
    if match is None or not line.endswith(b"\n"):
        return None
    number, previous, time, act, sid = match.groups()
    return RawLine(int(number), previous.decode(), decode_text(time), act.decode(), sid.decode())


def head_of(number: int, line: bytes) -> str:
    """The name of everything up to this line: its number and its SHA-256."""
    return f"{number}:{hashlib.sha256(line).hexdigest()}"
