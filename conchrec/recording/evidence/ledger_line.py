"""One line of the ledger, as a value: how it is written and read.

``docs/recordings.md`` has the format. The signatures are those of ``format.signatures``.
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
"""The most bytes of a line; ours are much shorter."""
START = "0" * 64
"""The digest of the line before the first line."""
_RAW = re.compile(
    rb'\{"number":([0-9]{1,18}),"previous":"([0-9a-f]{64})","time":"([^"\\]{0,40})","act":"([a-z]{1,20})",'
    rb'"sid":"([0-9a-z]{0,26})"[,}]'
)


class LedgerAction(Enum):
    """What a line says of a recording."""

    OPEN = "open"
    """The recording began."""
    SEALED = "sealed"
    """The recording is complete: ``manifest`` is the digest of its signed manifest."""
    HELD = "held"
    """The recording must not be removed (a legal hold)."""
    RELEASED = "released"
    """The recording may be removed again."""
    REMOVED = "removed"
    """The recording was removed, for a ``reason``."""
    BROKEN = "broken"
    """The ledger itself was cut or changed. ``head`` is the head that it should have contained, and
    ``reason`` says what was there instead."""


class BrokenLedger(RecordingError):
    """The ledger cannot be continued: it has a line without a valid signature, or lacks a line that it
    had."""

    default_code = ReasonCode.LEDGER_BROKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of the ledger. ``manifest`` is the SHA-256 of the file of the manifest, in hexadecimal."""

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
        """Return a JSON object in ASCII, without spaces or a newline; empty fields are left out."""
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
        """Read a line. Raises BrokenLedger for a malformed one. Signatures are checked by ``TrustedKeys``."""
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
    """The first fields of every line, read without a JSON parser: this is ten times as fast."""

    number: int
    previous: str
    time: str
    act: str
    sid: str


def parse_raw_line(line: bytes) -> RawLine | None:
    """Read the first fields of a line. Returns None where it does not begin as ``LedgerLine.encode`` writes
    it."""
    match = _RAW.match(line)
    if match is None or not line.endswith(b"\n"):
        return None
    number, previous, time, act, sid = match.groups()
    return RawLine(int(number), previous.decode(), decode_text(time), act.decode(), sid.decode())


def head_of(number: int, line: bytes) -> str:
    """Return the head of the ledger up to this line: its number and its SHA-256."""
    return f"{number}:{hashlib.sha256(line).hexdigest()}"
