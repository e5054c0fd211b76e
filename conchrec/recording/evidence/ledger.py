"""The ledger: one signed line whenever a recording is opened, sealed, held, released or removed.

It is ``ledger.jsonl`` in the directory of the recordings. Each line has a number and the digest of the line
before it, so a missing line shows. A missing recording shows as well: its line is there. The *head*
(``NUMBER:SHA256`` of the last line), kept elsewhere, shows whether the whole directory was replaced by an
earlier copy.

Several processes may write: each append holds a lock on the file. Before a line is signed, the file is
compared with what this process and the state directory know of it (``continuity``). Where the file does not
continue that, a line with the act ``broken`` is signed first, which says so.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from conchrec.files import open_regular
from conchrec.recording.evidence.continuity import (
    Break,
    BreakReport,
    ChainWalk,
    Position,
    describe_break,
    find_last_position,
    is_at_position,
    read_continuation,
)
from conchrec.recording.evidence.heads import HeadFile, KeptHead
from conchrec.recording.evidence.ledger_file import LedgerFile, append, lock_error, sync_and_close, truncate
from conchrec.recording.evidence.ledger_line import LONGEST, BrokenLedger, LedgerAction, LedgerLine, head_of
from conchrec.recording.evidence.recent_entries import RecentEntries
from conchrec.recording.format.signatures import RecordingSigner, TrustedKeys

NAME = "ledger.jsonl"
REACTOR_PATIENCE = 0.1
"""The seconds that the reactor waits for the lock: others hold it for less than a millisecond, but any
process that can open the file can keep it."""
THREAD_PATIENCE = 10.0
"""The seconds that a thread or a command waits for the lock before a line is given up."""
READ_PATIENCE = 1.0
"""The seconds to wait for the lock in order to read, or to save the head."""
_REPLACED = 10
"""How many times the file may be replaced while it is being opened."""
_NOT_A_FILE = frozenset({errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV})

__all__ = [
    "NAME",
    "REACTOR_PATIENCE",
    "THREAD_PATIENCE",
    "BrokenLedger",
    "Ledger",
    "LedgerAction",
    "LedgerLine",
    "head_of",
    "lines",
]


class Ledger:
    """The ledger of one directory, for writing. Its methods raise OSError or RecordingError where that fails.

    ``keys`` are trusted to have signed the existing lines. ``heads`` has the last head that is kept outside
    the directory. ``on_break`` is called where the file was cut or changed, in the thread that appends and
    under the lock; without it nothing is written in that case, and BrokenLedger is raised.
    """

    def __init__(
        self,
        directory: Path,
        signer: RecordingSigner,
        now: Callable[[], datetime],
        *,
        keys: TrustedKeys | None = None,
        heads: HeadFile | None = None,
        on_break: Callable[[Break], None] | None = None,
    ) -> None:
        self._file = LedgerFile(directory / NAME)
        #: What the lines say that were written since this object was created. Used under the lock.
        self.recent = RecentEntries()
        self._signer = signer
        self._now = now
        self._keys = keys or signer.keys()
        self._heads = heads
        self._breaks = BreakReport(on_break)
        self._position: Position | None = None
        #: The end of the part that the head file calls settled; None after a complete recovery.
        self._settled_end: int | None = 0
        self._kept: KeptHead | None = None
        self._walk = ChainWalk()
        # The lock of the file excludes other processes, and not our own threads.
        self._writing = threading.Lock()

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._file.path

    @property
    def head(self) -> str:
        """The head after the last line that this process wrote or read."""
        return (self._position or Position()).head

    def append(
        self,
        act: LedgerAction,
        sid: str,
        *,
        manifest: str = "",
        reason: str = "",
        by: str = "",
        patience: float = THREAD_PATIENCE,
    ) -> str:
        """Write a line. Returns the new head; the operating system has the line afterwards.

        Under the lock it is checked again whether the line is allowed: a recording is sealed once (the second
        time nothing is written), and a held recording is not removed. ``patience`` is in seconds.
        """
        with self._locked(patience, make=True) as descriptor:
            assert descriptor is not None
            if self.recent.has(act, sid, manifest):
                return self.head
            self._write(descriptor, act, sid, manifest=manifest, reason=reason, by=by)
            return self.head

    def refresh(self, patience: float = READ_PATIENCE) -> Position:
        """Read what other processes have written, and compare the file with what is known of it. Returns its
        end.

        No file is created where none was known.
        """
        with self._locked(patience, make=False):
            return self._position or Position()

    def check_step(self) -> None:
        """Continue the comparison of all lines, for about a millisecond. Called again and again."""
        with self._locked(READ_PATIENCE, make=False) as descriptor:
            if descriptor is None or self._position is None:
                return
            if damage := self._walk.step(descriptor, self._position):
                self._record_break(descriptor, damage, self._position)

    def save_head(self) -> None:
        """Save the last head in the state directory. Blocks until the ledger and the head are on the disk."""
        with self._writing:
            if self._heads is None or self._position is None:
                return
            if self._kept == KeptHead(position=self._position, settled=self._settled()):
                return
        with self._heads.locked():
            with self._locked(READ_PATIENCE, make=False) as descriptor:
                if descriptor is None or self._position is None:
                    return
                kept = KeptHead(position=self._position, settled=self._settled())
                if kept == self._kept:
                    return
                copy = os.dup(descriptor)
            # In this order: after a power cut the saved head must be in the ledger.
            sync_and_close(copy)
            self._heads.write(self._file.path.parent, kept)
            self._kept = kept

    def sync(self) -> None:
        """Sync the file: appended lines are on the disk afterwards. Blocks."""
        with self._writing:
            copy = self._file.duplicate()
        if copy is not None:
            sync_and_close(copy)

    # -- for the recovery

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; empty at its end."""
        with self._writing:
            descriptor = self._file.descriptor
            return b"" if descriptor is None else os.pread(descriptor, size, offset)

    @property
    def settled_end(self) -> int:
        """The byte before which everything was settled when conchrec ran last; 0 where that is not known."""
        return self._settled_end or 0

    def add_older(self, opened: dict[str, int], sealed: set[str]) -> list[str]:
        """Add what older lines say: the recordings that they opened and did not end (with the byte of that
        line), and those that they sealed. Returns the recordings that are still open."""
        with self._writing:
            return self.recent.add_older(opened, sealed)

    def drop(self, sid: str) -> None:
        """Forget a recording of which nothing is left: no recovery needs to look for it again."""
        with self._writing:
            self.recent.drop(sid)

    def is_open(self, sid: str) -> bool:
        """Whether the recording was opened, and not sealed or removed, at the last look at the file."""
        with self._writing:
            return self.recent.is_open(sid)

    def is_sealed(self, sid: str) -> bool:
        """Whether the recording was sealed, in what a recovery has read and since then."""
        with self._writing:
            return self.recent.has(LedgerAction.SEALED, sid, "")

    def is_held(self, sid: str) -> bool:
        """Whether the recording was held since this object first read the file. Reads the file again."""
        self.refresh()
        with self._writing:
            return self.recent.is_held(sid)

    def finish_recovery(self, *, complete: bool) -> None:
        """End a recovery. ``complete``: a later one only has to look at the recordings that ``recent`` has as
        open."""
        with self._writing:
            self.recent.end_recovery()
            if complete:
                self._settled_end = None

    def _settled(self) -> int:
        assert self._position is not None
        first = min(self.recent.first_open(self._position.end), self._position.end)
        return first if self._settled_end is None else min(first, self._settled_end)

    # -- under the lock

    @contextmanager
    def _locked(self, patience: float, *, make: bool) -> Iterator[int | None]:
        """Yield the file, locked and compared; None where there is no file and none is made."""
        deadline = time.monotonic() + patience
        if not self._writing.acquire(timeout=patience):
            raise lock_error()
        try:
            descriptor = self._lock(deadline, make)
            try:
                yield descriptor
            finally:
                self._file.unlock()
        finally:
            self._writing.release()

    def _lock(self, deadline: float, make: bool) -> int | None:
        self._load()
        file = self._file
        for _ in range(_REPLACED):
            lost = self._open(make) if file.descriptor is None else ""
            if file.descriptor is None:
                return None
            if file.lock(deadline):
                try:
                    self._compare(file.descriptor, lost)
                except BaseException:
                    file.close()
                    raise
                return file.descriptor
            # Somebody has replaced the file.
            file.close()
        raise OSError(errno.EAGAIN, f"{self.path} was replaced {_REPLACED} times while it was being opened")

    def _load(self) -> None:
        """Read at the first use what the state directory knows."""
        if self._position is not None or self._heads is None:
            return
        kept = self._heads.read(self._file.path.parent)
        if kept is not None:
            self._position, self._kept, self._settled_end = kept.position, kept, kept.settled

    def _open(self, make: bool) -> str:
        """Open the file, or create it with ``make``. Return the reason why the known file is lost."""
        known = self._position is not None and self._position.number > 0
        lost = ""
        try:
            self._file.open()
            return ""
        except FileNotFoundError:
            if known:
                lost = "there was no file"
            elif not make:
                return ""
        except OSError as error:
            if not known or error.errno not in _NOT_A_FILE:
                raise
            lost = "it was not a regular file"
        if lost:
            self._breaks.check_allowed(lost, self.head)
        try:
            if lost and os.path.lexists(self.path):
                self._file.move_away(self._now())
            self._file.create()
        except OSError:
            if lost:
                self._breaks.report(Break(expected=self.head, continued_from=Position().head, reason=lost))
            raise
        return lost

    def _compare(self, descriptor: int, lost: str) -> None:
        """Check that the file continues what is known; else a line of it must say so."""
        size = os.fstat(descriptor).st_size
        known = self._position
        if lost:
            self._record_break(descriptor, lost, Position())
        elif known is None:
            self._adopt(descriptor, size)
        elif not is_at_position(descriptor, known):
            self._record_break(
                descriptor, describe_break(known, size), find_last_position(descriptor, size, self._keys)
            )
        elif size != known.end:
            self._follow(descriptor, known, size)

    def _adopt(self, descriptor: int, size: int) -> None:
        """Continue a file of which nothing is known after its last line, where that has a valid signature."""
        position = find_last_position(descriptor, size, self._keys)
        if position is None:
            raise BrokenLedger(
                "the last line of the ledger is not signed by a key of this installation;"
                " see docs/recordings.md",
                str(self.path),
            )
        truncate(descriptor, position.end)
        self._position = position

    def _follow(self, descriptor: int, known: Position, size: int) -> None:
        """Read the lines of another process, which may have died while it wrote."""
        new = read_continuation(descriptor, known, size, self._keys)
        for line, position in new.lines:
            self.recent.add(line, position.start)
            self._position = known = position
        if new.foreign:
            self._record_break(
                descriptor, f"{new.foreign} bytes after line {known.number} had no valid signature", known
            )
        else:
            truncate(descriptor, known.end)

    def _record_break(self, descriptor: int, reason: str, position: Position | None) -> None:
        """State in the ledger that it was cut or changed, after its last valid line (None: it has none)."""
        expected = self.head
        self._breaks.check_allowed(reason, expected)
        head, continued_from = "", position or Position()
        try:
            if position is None:
                descriptor = self._replace_file()
                position = Position()
            else:
                truncate(descriptor, position.end)
            before, self._position = self._position, position
            try:
                self._write(descriptor, LedgerAction.BROKEN, "", head=expected, reason=reason)
            except BaseException:
                self._position = before
                raise
            self.recent.file_cut(position.end)
            if self._settled_end is not None:
                self._settled_end = min(self._settled_end, position.end)
            self._walk.restart()
            head = self.head
        finally:
            self._breaks.report(
                Break(expected=expected, continued_from=continued_from.head, reason=reason, head=head)
            )

    def _replace_file(self) -> int:
        """Put a new, locked file in place of one that is no ledger."""
        self._file.move_away(self._now())
        new = self._file.create()
        self._file.lock(time.monotonic() + REACTOR_PATIENCE)
        return new

    def _write(self, descriptor: int, act: LedgerAction, sid: str, **fields: str) -> None:
        assert self._position is not None
        moment = self._now().astimezone(timezone.utc).isoformat(timespec="milliseconds")
        line = LedgerLine(
            number=self._position.number + 1,
            previous=self._position.digest,
            time=moment.replace("+00:00", "Z"),
            act=act,
            sid=sid,
            **fields,
        )
        text = self._signer.entry(line.encode())
        append(descriptor, text, self._position.end)
        self.recent.add(line, self._position.end)
        self._position = self._position.after(text)


def lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a ledger as they are, oldest first; none where there is no file. Raises
    OSError."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:
        yield from complete_lines(file.readline)


def complete_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the complete lines of an open file, from its position on."""
    while line := readline(LONGEST):
        if not line.endswith(b"\n") and len(line) < LONGEST:
            return  # the line is being written, or its process died
        yield line
