"""Does a ledger's file still continue what is known of it?

Whoever can write to the directory can cut the file, put another one in its place, or change it in the
middle, but cannot sign. A position (the last line that is known, and where it stands) is compared at
each append; a walk from the first line to the last compares everything else, a little at a time.

No function here writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field, replace

from conchrec.files import FileStamp
from conchrec.recording.evidence.ledger_line import (
    LONGEST,
    START,
    BrokenLedger,
    LedgerAction,
    LedgerLine,
    raw_line,
)
from conchrec.recording.format.signatures import NotSigned, TrustedKeys

STEP_BYTES = 128 * 1024
"""What a walk reads at once: some 400 lines, one or two milliseconds of Python."""
_BLOCK = 1024 * 1024
_MOST_DAMAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The end of one line of a ledger. The line has the bytes from ``start`` to ``end`` of the file; with
    number 0 it is the beginning of an empty file."""

    start: int = 0
    end: int = 0
    number: int = 0
    digest: str = START

    @property
    def head(self) -> str:
        return f"{self.number}:{self.digest}"

    def after(self, line: bytes) -> Position:
        """The position with this line behind it."""
        digest = hashlib.sha256(line).hexdigest()
        return Position(start=self.end, end=self.end + len(line), number=self.number + 1, digest=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A ledger that does not continue what was known of it: it must contain the head ``expected``;
    ``found`` is the head that it was continued from, ``head`` that of the line that says so (empty where it
    could not be written)."""

    expected: str
    found: str
    reason: str
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What stands behind a position: ``lines`` that are genuine, each with its own position; then, up to the
    end of the file, a ``torn`` line that its writer did not complete, or ``foreign`` bytes."""

    lines: list[tuple[LedgerLine, Position]] = field(default_factory=list)
    torn: int = 0
    foreign: int = 0


def stands(descriptor: int, position: Position) -> bool:
    """Is this line where it was?"""
    if not position.number:
        return True
    line = os.pread(descriptor, position.end - position.start, position.start)
    return hashlib.sha256(line).hexdigest() == position.digest


def continuation(descriptor: int, position: Position, size: int, keys: TrustedKeys) -> Continuation:
    """What was written behind a position, up to ``size``.

    A signature covers the digest of the line before, so the last one vouches for all of a chain; each is
    checked only where that one is not genuine.
    """
    found = Continuation(lines=[])
    raw: list[bytes] = []
    rest = b""
    offset, here = position.end, position
    bad = False
    while not bad and offset < size:
        block = os.pread(descriptor, min(_BLOCK, size - offset), offset)
        if not block:
            break
        offset += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for text in whole:
            line = text + b"\n"
            try:
                parsed = LedgerLine.parse(line)
            except BrokenLedger:
                bad = True
                break
            if (parsed.number, parsed.previous) != (here.number + 1, here.digest):
                bad = True
                break
            here = here.after(line)
            found.lines.append((parsed, here))
            raw.append(line)
        bad = bad or len(rest) > LONGEST
    if raw and not _is_signed(raw[-1], keys):
        genuine = 0
        while genuine < len(raw) and _is_signed(raw[genuine], keys):
            genuine += 1
        del found.lines[genuine:]
        bad = True
    end = found.lines[-1][1].end if found.lines else position.end
    if bad:
        return Continuation(lines=found.lines, foreign=size - end)
    return Continuation(lines=found.lines, torn=size - end)


def last_position(descriptor: int, size: int, keys: TrustedKeys) -> Position | None:
    """The last whole line, where it is genuine; None where it is not.

    A torn line behind it does not count.
    """
    tail = os.pread(descriptor, 2 * LONGEST, max(0, size - 2 * LONGEST))
    end = tail.rfind(b"\n") + 1
    if not end:
        # Nothing, or a first line that its writer did not complete.
        empty = size == len(tail) and (tail.startswith(b'{"number":1,') or not tail.strip(b"\0"))
        return Position() if empty else None
    start = tail.rfind(b"\n", 0, end - 1) + 1
    line = tail[start:end]
    try:
        parsed = LedgerLine.parse(line)
        keys.entry(line)
    except (BrokenLedger, NotSigned):
        return None
    base = max(0, size - 2 * LONGEST)
    digest = hashlib.sha256(line).hexdigest()
    return Position(start=base + start, end=base + end, number=parsed.number, digest=digest)


class ChainWalk:
    """Walks over a ledger again and again, a step at a time: every line must follow the one before it.

    The digests lead from the first line to the head that is known, so that no signature has to be checked.
    A complete walk tells the first thing that is wrong and that no line of the ledger states.
    """

    def __init__(self) -> None:
        self._stamp: FileStamp | None = None
        self._begin()

    def _begin(self) -> None:
        self._here = Position()
        self._damage: list[str] = []
        self._in_damage = False
        self._stated: set[str] = set()
        self._seen: FileStamp | None = None

    def restart(self) -> None:
        """Begin again: the file is another one, or its end has changed."""
        self._stamp = None
        self._begin()

    def step(self, descriptor: int, end: Position) -> str:
        """Read up to ``STEP_BYTES`` of what is before ``end``; the damage, when a walk is complete.

        While nobody has touched the file since the last complete walk nothing is read.
        """
        if not end.end:
            return ""
        stamp = FileStamp.of(os.fstat(descriptor))
        if not self._here.end:
            if stamp == self._stamp:
                return ""
            self._seen = stamp
        block = os.pread(descriptor, min(STEP_BYTES, end.end - self._here.end), self._here.end)
        whole = block[: block.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            self._take(line)
        if not whole:
            # A line without an end, or the file is shorter than it was: that is no line of ours.
            self._note(self._here.number + 1)
        elif self._here.end < end.end:
            return ""
        elif self._here.digest != end.digest:
            self._note(end.number)
        self._stamp = self._seen
        damage = [reason for reason in self._damage if reason not in self._stated]
        self._begin()
        return damage[0] if damage else ""

    def _take(self, line: bytes) -> None:
        raw, after = raw_line(line), self._here.after(line)
        if raw is None:
            self._note(after.number)
        elif (raw.number, raw.previous) != (after.number, self._here.digest):
            # The line before this one is not the one that it follows.
            self._note(self._here.number or 1)
            after = replace(after, number=raw.number)
        else:
            self._in_damage = False
        if raw is not None and raw.act == LedgerAction.BROKEN.value:
            with contextlib.suppress(BrokenLedger):
                self._stated.add(LedgerLine.parse(line).reason)
        self._here = after

    def _note(self, number: int) -> None:
        """One changed line can make two not fit: what is in one piece is told once."""
        in_damage, self._in_damage = self._in_damage, True
        if not in_damage and len(self._damage) < _MOST_DAMAGE:
            self._damage.append(f"line {number} was changed, or lines behind it were removed")


def describe(position: Position, size: int) -> str:
    """Why a position does not stand any more in a file of this size."""
    if size < position.end:
        return f"the file was cut to {size} bytes: line {position.number} ended at byte {position.end}"
    return f"line {position.number} is not at its position: the file was replaced or changed"


def _is_signed(line: bytes, keys: TrustedKeys) -> bool:
    try:
        keys.entry(line)
    except NotSigned:
        return False
    return True
