"""Reads a ledger for verification: what it says of each recording, and the problems of the ledger itself.

Only reads, with public keys alone. ``docs/recordings.md`` has the rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from conchrec.files import open_regular
from conchrec.recording.evidence.heads import KnownHead
from conchrec.recording.evidence.ledger import complete_lines
from conchrec.recording.evidence.ledger_line import START, BrokenLedger, LedgerAction, LedgerLine
from conchrec.recording.format.session_id import is_session_id
from conchrec.recording.format.signatures import NotSigned, TrustedKeys

_HEAD = re.compile("[1-9][0-9]{0,17}:[0-9a-f]{64}")
_MOST_HEADS = 20
"""The most missing heads that are reported one by one."""


def parse_head(text: str) -> str:
    """Return the head of a ledger, as ``recordings verify`` prints it. Raises ValueError."""
    if not _HEAD.fullmatch(text):
        raise ValueError(f"invalid head {text!r}: must be NUMBER:DIGEST, as `recordings verify` prints it")
    return text


@dataclass(slots=True)
class LedgerEntry:
    """What the ledger says of one recording: numbers of lines (0: none), and the digest of the manifest.

    ``notes`` are facts that are no problem.
    """

    opened: int = 0
    sealed: int = 0
    removed: int = 0
    held: int = 0
    manifest: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class LedgerReader:
    """A ledger that was read. ``problems`` are its own; ``head`` is the head of its last line (empty without
    one)."""

    def __init__(
        self, path: Path, keys: TrustedKeys, head: str = "", heads: Iterable[KnownHead] = ()
    ) -> None:
        """Read the whole ledger, which must contain ``head`` and each of ``heads``: they were kept elsewhere.

        Raises OSError.
        """
        self.problems: list[str] = []
        self.entries: dict[str, LedgerEntry] = {}
        self.head = ""
        self._keys = keys
        self._number, self._previous = 0, START
        self._expected: dict[int, list[KnownHead]] = {}
        self._file: BinaryIO | None = None
        for known in (*([KnownHead(head=head, source="--head")] if head else []), *heads):
            number, _, _ = known.head.partition(":")
            self._expected.setdefault(int(number) if number.isdecimal() else 0, []).append(known)
        try:
            self._file = open(open_regular(path), "rb")  # noqa: SIM115  # closed with this object
        except FileNotFoundError:
            pass
        self.update()
        #: The known heads that no line has.
        self.missing_heads = len({known.head for heads in self._expected.values() for known in heads})
        self._report_missing_heads()

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def update(self) -> None:
        """Read the lines that another process has written since."""
        file = self._file
        if file is None:
            return
        begin = file.tell()
        for text in complete_lines(file.readline):
            begin += len(text)
            self._read(text)
        file.seek(begin)

    def entry(self, sid: str) -> LedgerEntry:
        """Return what the ledger says of this recording; an empty entry where it says nothing."""
        return self.entries.get(sid, LedgerEntry())

    def _read(self, text: bytes) -> None:
        where = f"line {self._number + 1} of the ledger"
        line: LedgerLine | None = None
        try:
            line = LedgerLine.parse(text)
            self._keys.entry(text)
        except (BrokenLedger, NotSigned) as error:
            self.problems.append(f"{where}: {error.public}")
            self._number, self._previous = self._number + 1, hashlib.sha256(text).hexdigest()
            return
        if line.number != self._number + 1:
            self.problems.append(
                f"{where} has the number {line.number}: lines were removed or added before it"
            )
        elif line.previous != self._previous:
            self.problems.append(f"{where} was signed after another line: the line before it was changed")
        self._number, self._previous = line.number, hashlib.sha256(text).hexdigest()
        self.head = f"{self._number}:{self._previous}"
        if (expected := self._expected.get(self._number)) is not None:
            expected[:] = [known for known in expected if known.head != self.head]
            if not expected:
                del self._expected[self._number]
        if line.act is LedgerAction.BROKEN:
            self.problems.append(
                f"{where}: at {line.time} conchrec noticed that the ledger had been changed"
                f" (its last head was {line.head}): {line.reason}"
            )
        elif is_session_id(line.sid):
            self._add_line(line)
        else:
            self.problems.append(f"{where}: invalid session id")

    def _add_line(self, line: LedgerLine) -> None:
        entry = self.entries.setdefault(line.sid, LedgerEntry())
        if line.act is LedgerAction.OPEN:
            entry.opened = line.number
        elif line.act is LedgerAction.SEALED:
            if entry.sealed:
                lines = f"lines {entry.sealed} and {line.number} of the ledger"
                if line.manifest == entry.manifest:
                    # Older releases did that at a start, when a session ended at the same time.
                    entry.notes.append(f"completed twice with the same manifest, in {lines}")
                else:
                    entry.problems.append(f"completed twice with different manifests, in {lines}")
            entry.sealed, entry.manifest = line.number, line.manifest
        elif line.act is LedgerAction.HELD:
            entry.held = line.number
        elif line.act is LedgerAction.RELEASED:
            entry.held = 0
        else:
            if entry.held:
                entry.problems.append(f"removed although line {entry.held} of the ledger held it")
            entry.removed = line.number

    def _report_missing_heads(self) -> None:
        missing = [known for heads in self._expected.values() for known in heads]
        if not self.exists:
            return
        if not self._number and missing:
            count = "1 known head is" if self.missing_heads == 1 else f"{self.missing_heads} known heads are"
            self.problems.append(
                f"the ledger is empty ({count} missing): it was cut or replaced. Restore it from a backup"
            )
            return
        for known in missing[:_MOST_HEADS]:
            of = f", session {known.sid}" if known.sid else ""
            where = f"{known.source}{of}"
            self.problems.append(
                f"the head {known.head} is missing ({where}):"
                " the ledger was cut, replaced, or restored from a backup"
            )
        if len(missing) > _MOST_HEADS:
            self.problems.append(f"{len(missing) - _MOST_HEADS} more known heads are missing")
