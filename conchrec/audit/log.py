"""The audit log: appends events, each on a line, to the chain of this process.

Several processes append to one file (``log_file``). A last line that a crash has cut is ended, and an
``audit.repair`` line describes it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from conchrec.audit.chain import ChainLink
from conchrec.audit.encoder import encode, timestamp
from conchrec.audit.events import AuditEvent, AuditHead, AuditLost, AuditRepair
from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.log_file import AuditLogFile
from conchrec.clock import utc_now
from conchrec.errors import WriteFailed
from conchrec.reasons import ReasonCode
from conchrec.recording.format.signatures import RecordingSigner

HEAD_SECONDS = 5.0
"""The longest time until a line is signed, where ``tick`` is called."""
HEAD_LINES = 500
"""The most lines until one is signed."""
PATH_CHECK_SECONDS = 1.0
"""The longest time until it is noticed that the file was moved away."""
_NAMES = 32

Copy = Callable[[AuditEvent, bytes], None]


@dataclass(slots=True)
class _Batch:
    """Lines that are written together; ``link`` is the chain after them."""

    link: ChainLink
    signer: RecordingSigner
    now: datetime
    lines: list[tuple[AuditEvent, bytes]] = field(default_factory=list)
    #: Lines since the last head.
    unsigned: int = 0
    last_head: bytes = b""

    def add(self, event: AuditEvent) -> None:
        self.link, line = self.link.add(encode(event, self.now))
        self.lines.append((event, line))
        self.unsigned += 1

    def sign(self, head: AuditHead) -> None:
        self.link, line = self.link.sign(encode(head, self.now), self.signer)
        self.lines.append((head, line))
        self.unsigned, self.last_head = 0, line


@dataclass(slots=True)
class _LostEvents:
    """Events that could not be written, and that no line of the log counts yet."""

    names: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    reason: str = ""

    def add(self, event: AuditEvent, now: datetime, reason: str) -> None:
        if event.event in self.names or len(self.names) < _NAMES:
            self.names[event.event] += 1
        else:
            self.names["other"] += 1
        self.last, self.reason = timestamp(now), reason
        self.first = self.first or self.last

    def event(self) -> AuditLost:
        return AuditLost(
            count=self.names.total(),
            events=tuple(f"{name} {count}" for name, count in self.names.most_common()),
            first=self.first,
            last=self.last,
            reason=self.reason,
        )


class AuditLog:
    """An AuditSink that appends JSON lines to a file.

    The chain begins with the first event, and ``close`` ends it. ``heads`` keeps the last head of the chain.
    ``copy`` is called with each event and its line. ``complain`` is called with the reason when heads cannot
    be kept.

    The file is opened again by ``reopen``, and within a second after logrotate has put another one in its
    place. Raises WriteFailed where it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        signer: RecordingSigner,
        heads: AuditHeadFile,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        write: Callable[[int, bytes], int] = os.write,
        copy: Copy | None = None,
        complain: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.path = path
        self._file = AuditLogFile(path, monotonic=monotonic, write=write)
        self._signer = signer
        self._heads = heads
        self._now = now
        self._monotonic = monotonic
        self._copy = copy
        self._on_complaint = complain
        self._link = ChainLink.start()
        #: Why the next line must be a head of the chain, besides a truncated file; empty where it need not.
        self._reason = "open"
        self._unsigned = 0
        self._signed_at = self._path_checked_at = monotonic()
        self._lost: _LostEvents | None = None
        self._complaint = ""

    # -- AuditSink

    def emit(self, event: AuditEvent) -> None:
        """Write the event; the operating system has it afterwards. Raises WriteFailed."""
        try:
            if self._monotonic() - self._path_checked_at >= PATH_CHECK_SECONDS:
                self._check_path()
            self._append(event)
        except WriteFailed as error:
            self._lost = self._lost or _LostEvents()
            self._lost.add(event, self._now(), error.public)
            raise

    def reopen(self) -> None:
        """Open the path again. Raises WriteFailed, and then continues with the file that was open."""
        fresh = self._file.open_path()
        if self._is_begun and not self._head_reason:
            with suppress(WriteFailed):
                self._append(head="rotated")
        self._file.replace(fresh)
        if self._is_begun:
            self._reason = "continue"

    # -- called by the owner

    def tick(self) -> None:
        """Sign lines that are old enough, and notice a rotation. Called about once a second. Raises
        WriteFailed."""
        self._check_path()
        is_due = self._unsigned and self._monotonic() - self._signed_at >= HEAD_SECONDS
        if self._is_begun and (self._head_reason or is_due):
            self._append(head="" if self._head_reason else "interval")

    def close(self) -> None:
        """End the chain and close the file. No event can be written afterwards. May be called twice."""
        if self._file.is_closed:
            return
        if self._is_begun:
            try:
                self._append(head="close")
            except WriteFailed as error:
                self._report(f"cannot write the closing line of the chain: {error.detail}")
        self._file.close()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._file.is_closed

    @property
    def _is_begun(self) -> bool:
        return self._link.number > 0

    @property
    def _head_reason(self) -> str:
        """The reason why the next line must be a head; empty where it need not."""
        return self._reason or ("truncated" if self._file.is_truncated else "")

    # -- lines

    def _append(self, event: AuditEvent | None = None, *, head: str = "") -> None:
        """Write the event, or a head, after the lines that the file needs first."""
        if self._file.is_closed:
            raise WriteFailed("the audit log is closed", str(self.path), code=ReasonCode.AUDIT_CLOSED)
        is_alone = self._file.acquire()
        try:
            torn = _repair(self._file.check_end())
            batch = _Batch(self._link, self._signer, self._now(), unsigned=self._unsigned)
            begins = self._reason == "open"
            if reason := self._head_reason:
                batch.sign(self._opening(torn) if begins else self._head(reason, batch.link))
            if torn is not None:
                batch.add(torn)
            if self._lost is not None:
                batch.add(self._lost.event())
            if event is not None:
                batch.add(event)
            if head or batch.unsigned >= HEAD_LINES:
                batch.sign(self._head(head or "interval", batch.link))
            if self._copy is not None:
                for written, line in batch.lines:
                    self._copy(written, line)
            lines = b"".join([line for _, line in batch.lines])
            self._file.append(b"\n" + lines if torn is not None else lines, is_alone=is_alone)
        finally:
            if is_alone:
                self._file.release()
        self._link, self._unsigned = batch.link, batch.unsigned
        self._reason, self._lost = "", None
        if batch.last_head:
            self._signed_at = self._monotonic()
            self._save_head(batch.last_head, begins=begins)

    def _head(self, reason: str, link: ChainLink) -> AuditHead:
        return AuditHead(reason=reason, head=link.digest.hex())

    def _opening(self, torn: AuditRepair | None) -> AuditHead:
        """Return the first line of the chain. The first chain of all has the digest of what the file holds
        already."""
        after: tuple[str, ...] = ()
        adopted: tuple[int | None, str] = None, ""
        try:
            if self._heads.exists:
                after = tuple(str(head) for head in self._heads.heads())
            else:
                adopted = self._file.digest(b"\n" if torn is not None else b"") or adopted
        except OSError as error:
            self._report(f"cannot read {self._heads.path}: {error.strerror}")
        return AuditHead(
            reason="open",
            head=self._link.digest.hex(),
            pid=os.getpid(),
            after=after,
            adopted_size=adopted[0],
            adopted_sha256=adopted[1],
        )

    def _report(self, why: str) -> None:
        """Report a complaint once, until there is another one."""
        if why != self._complaint:
            self._complaint = why
            self._on_complaint(why)

    def _save_head(self, head: bytes, *, begins: bool) -> None:
        try:
            self._heads.put(head, replaces_all=begins)
        except OSError as error:
            self._report(f"cannot write {self._heads.path}: {error.strerror}")

    def _check_path(self) -> None:
        """Open the file again where it was moved away or replaced."""
        if self._file.is_moved():
            self.reopen()
        self._path_checked_at = self._monotonic()


def _repair(torn: bytes | None) -> AuditRepair | None:
    """Return the event for an incomplete last line."""
    return None if torn is None else AuditRepair(size=len(torn), sha256=hashlib.sha256(torn).hexdigest())
