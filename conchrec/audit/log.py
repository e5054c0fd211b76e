"""The file of the audit log: appends events, each on a line, to the chain of this process.

Several processes append to one file: a line, or a batch of lines, is one ``write`` to its end. Under a lock
on the file the writer first checks what the file ends with. A last line without a newline was cut by a crash:
it is ended, and an ``audit.repair`` line describes it. Our own lines are never left incomplete: where the
rest of a batch has no room, what was written of it is cut off again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
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
from conchrec.clock import utc_now
from conchrec.errors import WriteFailed
from conchrec.file_lock import acquire, release
from conchrec.ownership import create, reopen
from conchrec.reasons import ReasonCode
from conchrec.recording.format.signatures import RecordingSigner

HEAD_SECONDS = 5.0
"""The longest time until a line is signed, where ``tick`` is called."""
HEAD_LINES = 500
"""The most lines until one is signed."""
PATH_CHECK_SECONDS = 1.0
"""The longest time until it is noticed that the file was moved away."""
WRITE_SECONDS = 0.005
"""Longer than one write takes: the pause before the end of the file is read again, END_READS times."""
END_READS = 4
NO_WAIT_SECONDS = 60.0
"""After a wait for the lock of the file: the time in which nothing waits for it again."""
_BLOCK = 64 * 1024
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
    """An AuditSink that appends JSON lines to a file, created with mode 0600; a missing directory gets mode
    0700.

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
        self._signer = signer
        self._heads = heads
        self._now = now
        self._monotonic = monotonic
        self._write = write
        self._copy = copy
        self._on_complaint = complain
        self._link = ChainLink.start()
        #: The reason why the next line must be a head; empty where it need not.
        self._reason = "open"
        self._unsigned = 0
        self._signed_at = self._path_checked_at = monotonic()
        self._lost: _LostEvents | None = None
        self._no_wait_until = monotonic()
        #: The file's size after our last line; -1 where its end was not checked yet.
        self._size = -1
        self._complaint = ""
        #: A pipe or a terminal has no end to check.
        self._descriptor, self._is_file = self._open()

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
        fresh, is_file = self._open()
        if self._is_begun and not self._reason:
            with suppress(WriteFailed):
                self._append(head="rotated")
        os.close(self._descriptor)
        self._descriptor, self._is_file, self._size = fresh, is_file, -1
        if self._is_begun:
            self._reason = "continue"

    # -- called by the owner

    def tick(self) -> None:
        """Sign lines that are old enough, and notice a rotation. Called about once a second. Raises
        WriteFailed."""
        self._check_path()
        is_due = self._unsigned and self._monotonic() - self._signed_at >= HEAD_SECONDS
        if self._is_begun and (self._reason or is_due):
            self._append(head="" if self._reason else "interval")

    def close(self) -> None:
        """End the chain and close the file. No event can be written afterwards. May be called twice."""
        if self._descriptor < 0:
            return
        if self._is_begun:
            try:
                self._append(head="close")
            except WriteFailed as error:
                self._report(f"cannot write the closing line of the chain: {error.detail}")
        os.close(self._descriptor)
        self._descriptor = -1

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._descriptor < 0

    @property
    def _is_begun(self) -> bool:
        return self._link.number > 0

    # -- lines

    def _append(self, event: AuditEvent | None = None, *, head: str = "") -> None:
        """Write the event, or a head, after the lines that the file needs first."""
        if self._descriptor < 0:
            raise WriteFailed("the audit log is closed", str(self.path), code=ReasonCode.AUDIT_CLOSED)
        is_alone = self._is_file and self._acquire()
        try:
            torn = self._check_end_of_file() if self._is_file else None
            batch = _Batch(self._link, self._signer, self._now(), unsigned=self._unsigned)
            begins = self._reason == "open"
            if self._reason:
                batch.sign(self._opening(torn) if begins else self._head(self._reason, batch.link))
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
            self._write_through(b"\n" + lines if torn is not None else lines, is_alone=is_alone)
        finally:
            if is_alone:
                release(self._descriptor)
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
        size, digest = None, ""
        try:
            if self._heads.exists:
                after = tuple(str(head) for head in self._heads.heads())
            elif self._is_file and self._size > 0:
                size, digest = self._content(b"\n" if torn is not None else b"")
        except OSError as error:
            self._report(f"cannot read {self._heads.path}: {error.strerror}")
        return AuditHead(
            reason="open",
            head=self._link.digest.hex(),
            pid=os.getpid(),
            after=after,
            adopted_size=size,
            adopted_sha256=digest,
        )

    def _content(self, end: bytes) -> tuple[int, str]:
        digest, at = hashlib.sha256(), 0
        while at < self._size and (block := os.pread(self._descriptor, min(_BLOCK, self._size - at), at)):
            digest.update(block)
            at += len(block)
        digest.update(end)
        return at + len(end), digest.hexdigest()

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

    # -- the file

    def _acquire(self) -> bool:
        """Lock the file. After one wait for a process that keeps the lock, nothing waits for some time."""
        is_waiting = self._monotonic() >= self._no_wait_until
        is_held = acquire(self._descriptor, patience=None if is_waiting else 0.0)
        if not is_held and is_waiting:
            self._no_wait_until = self._monotonic() + NO_WAIT_SECONDS
        return is_held

    def _check_end_of_file(self) -> AuditRepair | None:
        """Check what others did to the file since our last line. Returns the event for an incomplete last
        line.

        A line that is being written without the lock looks like an incomplete one. So only an end that stays
        the same for some time is reported.
        """
        try:
            size = os.fstat(self._descriptor).st_size
            if size == self._size:
                return None
            if size < self._size and not self._reason:
                self._reason = "truncated"
            self._size = size
            for _ in range(END_READS):
                if self._ends_with_newline():
                    return None
                time.sleep(WRITE_SECONDS)
                self._size = os.fstat(self._descriptor).st_size
            if self._ends_with_newline():
                return None
            torn = self._last_line(self._size)
        except OSError as error:
            raise _write_error(error, self.path) from error
        return AuditRepair(size=len(torn), sha256=hashlib.sha256(torn).hexdigest())

    def _ends_with_newline(self) -> bool:
        """Whether the file ends with a complete line."""
        size = self._size
        return size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"

    def _last_line(self, size: int) -> bytes:
        """Return what stands after the last newline."""
        tail, at = b"", size
        while at > 0 and b"\n" not in tail:
            start = max(0, at - _BLOCK)
            tail = os.pread(self._descriptor, at - start, start) + tail
            at = start
        return tail.rpartition(b"\n")[2]

    def _write_through(self, data: bytes, *, is_alone: bool) -> None:
        written = 0
        try:
            while written < len(data):
                count = self._write(self._descriptor, data[written:])
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            if written and is_alone:
                self._undo_write(self._size + written)
            raise _write_error(error, self.path) from error
        self._size += len(data)

    def _undo_write(self, end: int) -> None:
        """Cut off what was written of a batch, up to ``end``. Where that fails, the next batch repairs it."""
        with suppress(OSError):
            if os.fstat(self._descriptor).st_size == end:
                os.ftruncate(self._descriptor, self._size)

    def _check_path(self) -> None:
        """Open the file again where it was moved away or replaced."""
        try:
            status: os.stat_result | None = os.stat(self.path)
        except FileNotFoundError:
            status = None
        except OSError as error:
            raise _write_error(error, self.path) from error
        if status is None or not os.path.samestat(os.fstat(self._descriptor), status):
            self.reopen()
        self._path_checked_at = self._monotonic()

    def _open(self) -> tuple[int, bool]:
        """Return the descriptor, and whether it is of a regular file."""
        try:
            _make_directories(self.path.parent)
            flags = os.O_RDWR | os.O_APPEND
            try:
                descriptor = create(self.path, flags)
            except FileExistsError:
                # Where the path is a symbolic link to a missing file, that file is created.
                descriptor = reopen(self.path, flags)
            return descriptor, stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError as error:
            raise _write_error(error, self.path) from error


def _make_directories(directory: Path) -> None:
    for missing in (*reversed(directory.parents), directory):
        if not missing.exists():
            with suppress(FileExistsError):  # another process was quicker
                os.mkdir(missing, 0o700)


def _write_error(error: OSError, path: Path) -> WriteFailed:
    why = error.strerror or "input/output error"
    return WriteFailed(
        f"the audit log cannot be written: {why}", f"{path}: {error!r}", code=ReasonCode.AUDIT_WRITE_FAILED
    )
