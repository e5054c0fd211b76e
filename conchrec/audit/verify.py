"""Verifies audit logs with public keys alone: was a line changed, removed, added or moved, or the end cut?

Opens no files: the caller reads them, oldest first. docs/audit.md describes what is checked, and what cannot
be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from conchrec.audit.chain import AuditLine, ChainLink, Head, parse
from conchrec.audit.events import AuditLost, AuditRepair
from conchrec.recording.format.signatures import NotSigned, TrustedKeys

#: More than the number of lines between two heads.
_MOST_RECENT = 2000
MOST_PROBLEMS = 200
"""The most problems that are reported one by one."""


@dataclass(slots=True)
class Chain:
    """What is known of one chain. ``first`` and ``next`` are numbers of lines. ``end`` is *closed*, *rotated*
    (it continues in a later file) or *open* (its process still runs, or was killed)."""

    name: str
    first: int
    first_time: str
    #: Its first line here is the head that begins a file in which a chain continues.
    begins_file: bool = False
    #: The index of the file with its first line, from 0.
    file: int = 0
    next: int = 0
    lines: int = 0
    last_time: str = ""
    end: str = "open"
    #: Lines after the last head.
    unsigned: int = 0
    head: Head | None = None
    #: The digests after its last head and after each line since, by line: a later chain may name one of them.
    recent: dict[int, bytes] = field(default_factory=dict)
    #: The state of the chain before line ``next``; None after a problem, until the next head.
    link: ChainLink | None = None

    def as_json(self) -> dict[str, object]:
        """Return the fields for ``--json``."""
        return {
            "chain": self.name,
            "first": self.first,
            "last": self.next - 1,
            "first_time": self.first_time,
            "last_time": self.last_time,
            "lines": self.lines,
            "end": self.end,
            "head": str(self.head) if self.head is not None else "",
        }


@dataclass(slots=True)
class _ForeignLine:
    """A line that is not part of a chain, in the file that is being read."""

    number: int
    size: int
    sha256: str
    is_explained: bool = False


@dataclass(slots=True)
class _LogFile:
    """The file that is being read."""

    name: str
    index: int
    number: int = 0
    is_chained: bool = False
    foreign: list[_ForeignLine] = field(default_factory=list)
    #: Digest and size of what stands before the first line of a chain.
    before: hashlib._Hash = field(default_factory=hashlib.sha256)
    before_size: int = 0

    @property
    def position(self) -> str:
        return f"{self.name} line {self.number}"


class AuditVerifier:
    """Verifies one log. ``read`` takes each file, oldest first; ``finish`` is called last. ``problems`` and
    ``notes`` are lines for a person.

    The log must have the lines that ``heads`` name (those of the state directory), except older ones, which
    may have been rotated away. It must have all lines that ``required`` names. With ``complete`` nothing may
    have been rotated away.
    """

    def __init__(
        self,
        keys: TrustedKeys,
        *,
        heads: Iterable[Head] = (),
        required: Iterable[Head] = (),
        complete: bool = False,
    ) -> None:
        self._keys = keys
        self._heads = tuple(heads)
        self._required = tuple(required)
        self._complete = complete
        self._known_heads = {(head.chain, head.number): head for head in (*self._heads, *self._required)}
        self._named: list[tuple[str, Head]] = []
        self._unchained: list[tuple[str, int]] = []
        #: The time of the first line; older lines may have been rotated away.
        self._oldest_time = ""
        #: The first chain names no earlier one: the lines before it are older than any chain.
        self._is_first_ever = False
        self._files = 0
        self.chains: dict[str, Chain] = {}
        self.lines = 0
        self.problems: list[str] = []
        self.more_problems = 0
        self.notes: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def head(self) -> Head | None:
        """The newest head. Where it is kept elsewhere, the log up to it cannot be replaced."""
        heads = [chain.head for chain in self.chains.values() if chain.head is not None]
        return max(heads, key=lambda head: head.time, default=None)

    def read(self, name: str, lines: Iterable[bytes]) -> None:
        """Read one file."""
        file = _LogFile(name, self._files)
        self._files += 1
        for raw in lines:
            file.number += 1
            self.lines += 1
            line = parse(raw)
            if line is None:
                self._foreign(file, raw)
            else:
                if not file.is_chained:
                    self._first_of_file(file, line)
                self._read_line(file, line, raw)
            if not file.is_chained:
                file.before.update(raw)
                file.before_size += len(raw)
        if not file.is_chained:
            self._unchained.append((name, file.number))
        else:
            self._report_foreign_lines(file)

    def finish(self) -> None:
        """Check what only all files together show."""
        for name, lines in self._unchained:
            self._unchained_file(name, lines)
        for chain in self.chains.values():
            self._check_start(chain)
            self._check_end(chain)
        for where, head in self._named:
            self._check_head(head, where, is_required=False)
        for head in self._heads:
            self._check_head(head, "the state directory", is_required=False)
        for head in self._required:
            self._check_head(head, "--head", is_required=True)
        if not self.chains:
            self._problem("nothing to verify: the files have no line of a chain")
        if self.more_problems:
            self.problems.append(f"and {self.more_problems} more")

    # -- lines

    def _foreign(self, file: _LogFile, raw: bytes) -> None:
        """Note a line that is not part of a chain: older than any chain, cut by a crash, or added by
        somebody."""
        if not raw.endswith(b"\n"):
            self.notes.append(
                f"{file.position} is incomplete ({len(raw)} bytes): cut by a crash, or being written now"
            )
            return
        content = raw[:-1]
        file.foreign.append(_ForeignLine(file.number, len(content), hashlib.sha256(content).hexdigest()))

    def _first_of_file(self, file: _LogFile, line: AuditLine) -> None:
        """Read the first line of a chain in this file, which may have the digest of the lines before it."""
        file.is_chained = True
        is_opening = line.is_head and line.text("reason") == "open"
        if not self.chains:
            self._oldest_time = line.text("time")
            self._is_first_ever = is_opening and not line.texts("after")
        if not file.foreign or not is_opening:
            return
        vouched = line.size("adopted_size"), line.text("adopted_sha256")
        if vouched == (file.before_size, file.before.hexdigest()):
            for foreign in file.foreign:
                foreign.is_explained = True
            lines = _lines_are(len(file.foreign))
            self.notes.append(f"{file.name}: {lines} older than the chain, and unchanged since then")

    def _read_line(self, file: _LogFile, line: AuditLine, raw: bytes) -> None:
        chain = self.chains.get(line.chain)
        if chain is None:
            chain = self.chains[line.chain] = self._start_chain(file, line)
        elif line.number < chain.next:
            self._problem(
                f"{file.position}: line {line.number} of chain {chain.name} is out of order or a duplicate"
            )
            return
        elif line.number > chain.next:
            self._missing(file.position, chain, line.number - 1)
            chain.link = None
        elif chain.end == "closed":
            self._problem(f"{file.position}: chain {chain.name} continues after its closing line")
        elif chain.link is not None and line.prev != chain.link.prev:
            self._problem(f"{file.position}: the line before it in chain {chain.name} was changed")
            chain.link = None
        chain.end, chain.unsigned = "open", chain.unsigned + 1
        if line.is_head:
            self._read_head(file, chain, line, raw)
        elif line.members.get("event") == AuditRepair.event:
            self._check_repair(file, line)
        elif line.members.get("event") == AuditLost.event:
            self.notes.append(f"{file.position}: {line.size('count')} events could not be written")
        chain.link = chain.link.follow(raw) if chain.link is not None else None
        if chain.link is not None and len(chain.recent) < _MOST_RECENT:
            chain.recent[line.number] = chain.link.digest
        chain.next, chain.lines, chain.last_time = line.number + 1, chain.lines + 1, line.text("time")
        self._check_known_head(file, chain, line)

    def _start_chain(self, file: _LogFile, line: AuditLine) -> Chain:
        reason = line.text("reason") if line.is_head else ""
        chain = Chain(line.chain, line.number, line.text("time"), file=file.index, next=line.number)
        chain.begins_file = reason in ("continue", "truncated")
        if line.number == 0:
            chain.link = ChainLink.start(line.chain)
        if not line.is_head:
            self._problem(f"{file.position}: the first line of chain {line.chain} is not signed")
        return chain

    def _read_head(self, file: _LogFile, chain: Chain, line: AuditLine, raw: bytes) -> None:
        try:
            self._keys.audit_head(raw)
            before = bytes.fromhex(line.text("head"))
        except NotSigned as error:
            self._problem(f"{file.position}: {error.public}")
            return
        except ValueError:
            self._problem(f"{file.position}: the digest in a head is malformed")
            return
        if chain.link is not None and chain.link.digest != before:
            self._problem(
                f"{file.position}: the signed digest does not match the lines before it in chain {chain.name}"
            )
        chain.link = ChainLink(chain.name, line.number, before)
        after = chain.link.follow(raw)
        chain.head = Head(chain.name, line.number, after.digest, line.text("time"))
        chain.unsigned = 0
        chain.recent.clear()
        reason = line.text("reason")
        chain.end = {"close": "closed", "rotated": "rotated"}.get(reason, "open")
        if reason == "truncated":
            self.notes.append(f"{file.position}: the file was truncated while chain {chain.name} was written")
        for text in line.texts("after"):
            try:
                self._add_named_head(file.position, Head.parse(text))
            except ValueError as error:
                self._problem(f"{file.position}: {error}")

    def _add_named_head(self, where: str, head: Head) -> None:
        chain = self.chains.get(head.chain)
        digest = chain.recent.get(head.number) if chain is not None else None
        if digest is not None and digest != head.digest:
            self._problem(f"{where}: its digest for line {head.number} of chain {head.chain} does not match")
        elif chain is None or chain.next <= head.number:
            self._named.append((where, head))

    def _check_known_head(self, file: _LogFile, chain: Chain, line: AuditLine) -> None:
        known = self._known_heads.get((chain.name, line.number))
        if known is not None and (chain.link is None or chain.link.digest != known.digest):
            self._problem(f"{file.position}: it does not match the head {known}")

    def _check_repair(self, file: _LogFile, line: AuditLine) -> None:
        for torn in file.foreign:
            if (torn.size, torn.sha256) == (line.size("size"), line.text("sha256")):
                torn.is_explained = True
                self.notes.append(f"{file.name} line {torn.number}: cut by a crash, {torn.size} bytes")
                return
        self._problem(f"{file.position}: the incomplete line that it describes is missing")

    # -- missing and foreign lines

    def _report_foreign_lines(self, file: _LogFile) -> None:
        """Report lines that are not part of a chain, and that no line of a chain accounts for."""
        first: _ForeignLine | None = None
        last: _ForeignLine | None = None
        for line in (*(line for line in file.foreign if not line.is_explained), None):
            if line is not None and last is not None and line.number == last.number + 1:
                last = line
                continue
            if first is not None and last is not None:
                lines = f"line {first.number}" if first is last else f"lines {first.number} to {last.number}"
                self._problem(f"{file.name} {lines}: changed or added: not part of a chain")
            first = last = line

    def _unchained_file(self, name: str, lines: int) -> None:
        if self._is_first_ever:
            self.notes.append(f"{name}: {_lines_are(lines)} older than the chain, and not protected")
        elif lines and self.chains:
            self._problem(f"{name}: its {lines} lines are not part of a chain")

    def _check_start(self, chain: Chain) -> None:
        if not chain.first:
            return
        text = f"lines 0 to {chain.first - 1} of chain {chain.name} are missing"
        if not chain.begins_file and not chain.file:
            # First: it is the cause of other problems.
            self.problems.insert(0, f"{text}: the beginning of the log was cut")
        elif self._complete or chain.file or not chain.begins_file:
            self._problem(text)
        else:
            self.notes.append(f"{text}: they are in files that were not given")

    def _check_end(self, chain: Chain) -> None:
        if chain.end == "rotated":
            self.notes.append(f"chain {chain.name} continues in a file that was not given")
        elif chain.end == "open":
            lines = "line is" if chain.unsigned == 1 else _lines_are(chain.unsigned)
            unsigned = f". The last {lines} not signed yet" if chain.unsigned else ""
            self.notes.append(
                f"chain {chain.name} is not closed (last line {chain.last_time}): conchrec is still"
                f" running, or was killed{unsigned}"
            )

    def _check_head(self, head: Head, source: str, *, is_required: bool) -> None:
        """Check that the log has the line of a head that is known from ``source``."""
        chain = self.chains.get(head.chain)
        if chain is not None and head.number < chain.next:
            if is_required and head.number < chain.first:
                self._problem(f"the head {head} is in a file that was not given")
            return
        time = f" ({head.time})" if head.time else ""
        line = f"line {head.number}{time}"
        if chain is not None:
            self._problem(
                f"{line} of chain {head.chain} is missing, but {source} names it: the end of the chain was"
                f" cut after line {chain.next - 1}"
            )
        elif is_required or self._complete or not self._is_older(head):
            self._problem(
                f"chain {head.chain} is missing, but {source} names its {line}: the log was cut or replaced,"
                " or a rotated file was not given. See docs/audit.md"
            )
        elif self.chains:
            self.notes.append(
                f"{line} of chain {head.chain}, which {source} names, is older than the oldest file"
            )

    def _is_older(self, head: Head) -> bool:
        """Whether the line of a head may have been in a file that was rotated away."""
        return not self._is_first_ever and "" < head.time <= self._oldest_time

    def _missing(self, where: str, chain: Chain, last: int) -> None:
        lines = f"line {last} is" if last == chain.next else f"lines {chain.next} to {last} are"
        self._problem(f"{where}: {lines} missing before it in chain {chain.name}")

    def _problem(self, text: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(text)
        else:
            self.more_problems += 1


def _lines_are(number: int) -> str:
    return "1 line is" if number == 1 else f"{number} lines are"
