"""Compares the file of a ledger with what is known of it.

Somebody who can write to the directory can cut the file, replace it or change its middle, but cannot sign. At
each append the last known line is compared (``Position``). ``ChainWalk`` compares all lines, a step at a
time.

No function in this module writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from conchrec.files import FileStamp
from conchrec.recording.evidence.ledger_line import (
    LONGEST,
    START,
    BrokenLedger,
    LedgerAction,
    LedgerLine,
    parse_raw_line,
)
from conchrec.recording.format.signatures import NotSigned, TrustedKeys

STEP_BYTES = 128 * 1024
"""The bytes that one step reads: some 400 lines, one or two milliseconds of Python."""
_BLOCK = 1024 * 1024
_MOST_DAMAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The end of one line of a ledger, which has the bytes from ``start`` to ``end`` of the file. Number 0 is
    the beginning of the file."""

    start: int = 0
    end: int = 0
    number: int = 0
    digest: str = START

    @property
    def head(self) -> str:
        """The head of the ledger up to this line: ``NUMBER:SHA256``."""
        return f"{self.number}:{self.digest}"

    def after(self, line: bytes) -> Position:
        """Return the position after this line."""
        digest = hashlib.sha256(line).hexdigest()
        return Position(start=self.end, end=self.end + len(line), number=self.number + 1, digest=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A ledger that was cut or changed. It must contain the head ``expected``. It was continued after the
    head ``continued_from``, by a line with the head ``head``, which is empty where that line could not be
    written."""

    expected: str
    continued_from: str
    reason: str
    head: str = ""


class BreakReport:
    """Calls ``on_break`` for each break of a ledger, once. Without it nothing is written at a break."""

    def __init__(self, on_break: Callable[[Break], None] | None) -> None:
        self._on_break = on_break
        #: The expected head and the reason of the last break that the ledger does not state.
        self._unstated: tuple[str, str] | None = None

    def check_allowed(self, reason: str, head: str) -> None:
        """Raise BrokenLedger if the ledger must not be continued after its last known ``head``."""
        if self._on_break is None:
            raise BrokenLedger(
                f"the ledger was changed by something other than conchrec: {reason}"
                f" (its last known head is {head})."
                " Start conchrec, which notes this in the ledger and continues it; see docs/recordings.md"
            )

    def report(self, broken: Break) -> None:
        """Report a break; once, where it cannot be stated in the ledger (it has no ``head``)."""
        unstated = None if broken.head else (broken.expected, broken.reason)
        if self._on_break is not None and (unstated is None or unstated != self._unstated):
            self._unstated = unstated
            self._on_break(broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What stands after a position: ``lines`` with valid signatures, each with its position; then, up to the
    end of the file, either a ``torn`` line that its writer did not complete, or ``foreign`` bytes. Both are
    sizes."""

    lines: list[tuple[LedgerLine, Position]] = field(default_factory=list)
    torn: int = 0
    foreign: int = 0


def is_at_position(descriptor: int, position: Position) -> bool:
    """Whether the line of a position is where it was."""
    if not position.number:
        return True
    line = os.pread(descriptor, position.end - position.start, position.start)
    return hashlib.sha256(line).hexdigest() == position.digest


def read_continuation(descriptor: int, position: Position, size: int, keys: TrustedKeys) -> Continuation:
    """Read what was written after a position, up to ``size``.

    A signature covers the digest of the line before, so the last signature is enough for a whole chain. The
    others are only checked where the last one is invalid.
    """
    continuation = Continuation(lines=[])
    raw: list[bytes] = []
    rest = b""
    offset, last = position.end, position
    is_broken = False
    while not is_broken and offset < size:
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
                is_broken = True
                break
            if (parsed.number, parsed.previous) != (last.number + 1, last.digest):
                is_broken = True
                break
            last = last.after(line)
            continuation.lines.append((parsed, last))
            raw.append(line)
        is_broken = is_broken or len(rest) > LONGEST
    if raw and not _is_signed(raw[-1], keys):
        genuine = 0
        while genuine < len(raw) and _is_signed(raw[genuine], keys):
            genuine += 1
        del continuation.lines[genuine:]
        is_broken = True
    end = continuation.lines[-1][1].end if continuation.lines else position.end
    if is_broken:
        return Continuation(lines=continuation.lines, foreign=size - end)
    return Continuation(lines=continuation.lines, torn=size - end)


def find_last_position(descriptor: int, size: int, keys: TrustedKeys) -> Position | None:
    """Return the position of the last complete line, or None where its signature is invalid. A torn line
    after it does not count."""
    tail = os.pread(descriptor, 2 * LONGEST, max(0, size - 2 * LONGEST))
    end = tail.rfind(b"\n") + 1
    if not end:
        # The file is empty, or its writer did not complete the first line.
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
    """Checks a ledger again and again, a step at a time: every line must follow the line before it.

    The digests lead from the first line to the known head, so no signature has to be checked. A complete walk
    returns the first damage that no line of the ledger states.
    """

    def __init__(self) -> None:
        self._stamp: FileStamp | None = None
        self._begin()

    def _begin(self) -> None:
        self._position = Position()
        self._damage: list[str] = []
        self._in_damage = False
        self._stated_reasons: set[str] = set()
        self._new_stamp: FileStamp | None = None

    def restart(self) -> None:
        """Begin again: the file was replaced, or its end has changed."""
        self._stamp = None
        self._begin()

    def step(self, descriptor: int, end: Position) -> str:
        """Read up to ``STEP_BYTES`` of what is before ``end``. Returns the damage when a walk is complete,
        else an empty text.

        Nothing is read while the file is unchanged since the last complete walk.
        """
        if not end.end:
            return ""
        stamp = FileStamp.of(os.fstat(descriptor))
        if not self._position.end:
            if stamp == self._stamp:
                return ""
            self._new_stamp = stamp
        block = os.pread(descriptor, min(STEP_BYTES, end.end - self._position.end), self._position.end)
        whole = block[: block.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            self._check_line(line)
        if not whole:
            # A line without an end, or the file is shorter than it was.
            self._note_damage(self._position.number + 1)
        elif self._position.end < end.end:
            return ""
        elif self._position.digest != end.digest:
            # The last line was changed, or it continues the line before it, which has lost its end. The
            # next walk, with a line after it, finds the same damage and must name the same line.
            self._note_damage(self._position.number)
        self._stamp = self._new_stamp
        damage = [reason for reason in self._damage if reason not in self._stated_reasons]
        self._begin()
        return damage[0] if damage else ""

    def _check_line(self, line: bytes) -> None:
        raw, after = parse_raw_line(line), self._position.after(line)
        if raw is None:
            self._note_damage(after.number)
        elif (raw.number, raw.previous) != (after.number, self._position.digest):
            # The line before this one is not the line that it was signed after.
            self._note_damage(self._position.number or 1)
            after = replace(after, number=raw.number)
        else:
            self._in_damage = False
        if raw is not None and raw.act == LedgerAction.BROKEN.value:
            with contextlib.suppress(BrokenLedger):
                self._stated_reasons.add(LedgerLine.parse(line).reason)
        self._position = after

    def _note_damage(self, number: int) -> None:
        """Note a changed line. Adjacent lines that do not fit count as one damage."""
        in_damage, self._in_damage = self._in_damage, True
        if not in_damage and len(self._damage) < _MOST_DAMAGE:
            # Ledgers that were written earlier state this text: it is compared with theirs.
            self._damage.append(f"line {number} was changed, or lines behind it were removed")


def describe_break(position: Position, size: int) -> str:
    """Return why the line of a position is not where it was, in a file of this size."""
    if size < position.end:
        return f"the file was cut to {size} bytes: line {position.number} ended at byte {position.end}"
    return f"line {position.number} is not at its position: the file was replaced or changed"


def _is_signed(line: bytes, keys: TrustedKeys) -> bool:
    try:
        keys.entry(line)
    except NotSigned:
        return False
    return True
