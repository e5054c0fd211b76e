"""The ledger: one signed line for each recording that was opened, sealed or removed, in order.

``ledger.jsonl`` in the directory of the recordings. Each line has a number and the digest of the line
before it, so a line that is missing shows, and so does a recording that is: it was opened here. The
*head* (``NUMBER:SHA256`` of the last line) is all that has to be known elsewhere to notice that the
whole directory was put back to an earlier day.

Several processes may write: each append holds a lock on the file for as long as it takes. Before a line is
signed the file is compared with what this process, and the state directory, know of it (``continuity``).
Where it is not the continuation of that, a line with the act ``broken`` is signed first, which says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from conchrec.files import open_regular
from conchrec.ownership import create
from conchrec.recording.evidence.continuity import (
    Break,
    ChainWalk,
    Position,
    continuation,
    describe,
    last_position,
    stands,
)
from conchrec.recording.evidence.heads import HeadFile, KeptHead
from conchrec.recording.evidence.ledger_line import LONGEST, BrokenLedger, LedgerAction, LedgerLine, head_of
from conchrec.recording.evidence.recent_entries import Recent
from conchrec.recording.format.signatures import RecordingSigner, TrustedKeys

NAME = "ledger.jsonl"
AT_ONCE = 0.1
"""Seconds that the reactor waits for the lock: others hold it for less than a millisecond, but any process
that can open the file can keep it."""
IN_THREAD = 10.0
"""Seconds that a thread, or a command, waits for it before it gives up a line."""
TO_LOOK = 1.0
"""Seconds to wait for the lock in order to read, or to keep the head."""
_RETRY_SECONDS = 0.002
_REPLACED = 10
"""How often the file may be replaced by another one while it is being opened."""
_NOT_A_FILE = frozenset({errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV})

__all__ = [
    "AT_ONCE",
    "IN_THREAD",
    "NAME",
    "BrokenLedger",
    "Ledger",
    "LedgerAction",
    "LedgerLine",
    "head_of",
    "lines",
]


class Ledger:
    """The ledger of one directory, to write to. Raises OSError or RecordingError wherever it can't be.

    ``keys`` may have signed the lines that are there. ``heads`` has the last head that is kept outside the
    directory. ``on_break`` hears, in the thread that appends and under the lock, that the file is not what it
    has to be; without it nothing is written then, and BrokenLedger is raised.
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
        self.path = directory / NAME
        #: What the lines say that were written since this object was made; under the lock.
        self.recent = Recent()
        self._directory = directory
        self._signer = signer
        self._now = now
        self._keys = keys or signer.keys()
        self._heads = heads
        self._on_break = on_break
        self._told: tuple[str, str] | None = None
        self._descriptor: int | None = None
        self._closer: weakref.finalize[..., Ledger] | None = None
        self._position: Position | None = None
        #: Where what the head file calls settled ends, until a recovery has looked at what follows.
        self._floor: int | None = 0
        self._kept: KeptHead | None = None
        self._walk = ChainWalk()
        # The lock on the file keeps other processes out, and not our own threads.
        self._writing = threading.Lock()

    @property
    def head(self) -> str:
        """As this process knows it: after the last line that it wrote or read."""
        return (self._position or Position()).head

    def append(
        self,
        act: LedgerAction,
        sid: str,
        *,
        manifest: str = "",
        reason: str = "",
        by: str = "",
        patience: float = IN_THREAD,
    ) -> str:
        """Write a line; the new head. It is with the operating system afterwards.

        Under the lock it is looked at again whether the line may be written: a recording is sealed once (the
        second time nothing is written), and one that is held is not removed. ``patience`` is in seconds.
        """
        with self._locked(patience, make=True) as descriptor:
            assert descriptor is not None
            if self.recent.has(act, sid, manifest):
                return self.head
            self._write(descriptor, act, sid, manifest=manifest, reason=reason, by=by)
            return self.head

    def refresh(self, patience: float = TO_LOOK) -> Position:
        """Read what others have written, and compare the file with what is known of it; where it ends.

        No file is made where there is none, and none was known.
        """
        with self._locked(patience, make=False):
            return self._position or Position()

    def check_some(self) -> None:
        """Read on with the comparison of all lines, for about a millisecond. Called again and again."""
        with self._locked(TO_LOOK, make=False) as descriptor:
            if descriptor is None or self._position is None:
                return
            if damage := self._walk.step(descriptor, self._position):
                self._state(descriptor, damage, self._position)

    def keep_head(self) -> None:
        """Keep the last head in the state directory. Blocks until both are on the disk."""
        with self._writing:
            if self._heads is None or self._position is None:
                return
            if self._kept == KeptHead(position=self._position, settled=self._settled()):
                return
        with self._heads.locked():
            with self._locked(TO_LOOK, make=False) as descriptor:
                if descriptor is None or self._position is None:
                    return
                kept = KeptHead(position=self._position, settled=self._settled())
                if kept == self._kept:
                    return
                copy = os.dup(descriptor)
            try:
                # In this order: after a power cut the head that is kept must be in the ledger.
                os.fdatasync(copy)
            finally:
                os.close(copy)
            self._heads.write(self._directory, kept)
            self._kept = kept

    def sync(self) -> None:
        """What was appended is on the disk afterwards. Blocks."""
        with self._writing:
            copy = None if self._descriptor is None else os.dup(self._descriptor)
        if copy is not None:
            try:
                os.fdatasync(copy)
            finally:
                os.close(copy)

    # -- for the recovery

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file as they are; empty at its end."""
        with self._writing:
            return b"" if self._descriptor is None else os.pread(self._descriptor, size, offset)

    @property
    def floor(self) -> int:
        """The byte before which everything was settled when conchrec ran last; 0: not known."""
        return self._floor or 0

    def learn(self, opened: dict[str, int], sealed: set[str]) -> list[str]:
        """Older lines were read: what they opened and did not end (with the byte of that line), and what they
        sealed. Returns the recordings that are still open."""
        with self._writing:
            return self.recent.learn(opened, sealed)

    def drop(self, sid: str) -> None:
        """Nothing is left of this recording: no recovery needs to look for it again."""
        with self._writing:
            self.recent.drop(sid)

    def is_open(self, sid: str) -> bool:
        """Was it opened, and not sealed or removed? As of the last look at the file."""
        with self._writing:
            return self.recent.is_open(sid)

    def is_sealed(self, sid: str) -> bool:
        """Was it sealed, as far as a recovery has read and since then? As of the last look at the file."""
        with self._writing:
            return self.recent.has(LedgerAction.SEALED, sid, "")

    def is_held(self, sid: str) -> bool:
        """Was it held since this object looked at the file first? Looks again."""
        self.refresh()
        with self._writing:
            return self.recent.is_held(sid)

    def settle(self, *, complete: bool) -> None:
        """A recovery is over. ``complete``: nothing is left that a later one has to look at again, but what
        ``recent`` has as open."""
        with self._writing:
            self.recent.forget()
            if complete:
                self._floor = None

    def _settled(self) -> int:
        assert self._position is not None
        first = min(self.recent.first_open(self._position.end), self._position.end)
        return first if self._floor is None else min(first, self._floor)

    # -- under the lock

    @contextmanager
    def _locked(self, patience: float, *, make: bool) -> Iterator[int | None]:
        """The file, locked, and its position compared; None where there is no file to be."""
        deadline = time.monotonic() + patience
        if not self._writing.acquire(timeout=patience):
            raise _busy()
        try:
            descriptor = self._lock(deadline, make)
            try:
                yield descriptor
            finally:
                if self._descriptor is not None:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._writing.release()

    def _lock(self, deadline: float, make: bool) -> int | None:
        self._load()
        for _ in range(_REPLACED):
            lost = ""
            if self._descriptor is None:
                opened, lost = self._open(make)
                if opened is None:
                    return None
                self._keep(opened)
            assert self._descriptor is not None
            _flock(self._descriptor, deadline)
            if _is(self._descriptor, self.path):
                try:
                    self._compare(self._descriptor, lost)
                except BaseException:
                    self._close()
                    raise
                return self._descriptor
            # Somebody has put another file in its place.
            self._close()
        raise OSError(errno.EAGAIN, f"{self.path} was replaced {_REPLACED} times while it was being opened")

    def _keep(self, descriptor: int) -> None:
        """The file is closed with the ledger, also where nobody calls ``_close``."""
        self._descriptor = descriptor
        self._closer = weakref.finalize(self, os.close, descriptor)

    def _close(self) -> None:
        if self._closer is not None:
            self._closer()
        self._descriptor = self._closer = None

    def _load(self) -> None:
        """At the first use: what does the state directory know?"""
        if self._position is not None or self._heads is None:
            return
        kept = self._heads.read(self._directory)
        if kept is not None:
            self._position, self._kept, self._floor = kept.position, kept, kept.settled

    def _open(self, make: bool) -> tuple[int | None, str]:
        """A descriptor, and why the file that we knew is lost."""
        known = self._position is not None and self._position.number > 0
        flags = os.O_RDWR | os.O_APPEND
        lost = ""
        try:
            return open_regular(self.path, flags), ""
        except FileNotFoundError:
            if known:
                lost = "there was no file"
            elif not make:
                return None, ""
        except OSError as error:
            if not known or error.errno not in _NOT_A_FILE:
                raise
            lost = "it was not a regular file"
        if lost and self._on_break is None:
            raise self._refusal(lost)
        try:
            if lost and os.path.lexists(self.path):
                self._set_aside()
            return self._make(flags), lost
        except OSError:
            if lost:
                self._tell(lost, Position(), "")
            raise

    def _make(self, flags: int) -> int:
        return create(self.path, flags)

    def _compare(self, descriptor: int, lost: str) -> None:
        """The file continues what we know, or a line of it says that it does not."""
        size = os.fstat(descriptor).st_size
        known = self._position
        if lost:
            self._state(descriptor, lost, Position())
        elif known is None:
            self._adopt(descriptor, size)
        elif not stands(descriptor, known):
            self._state(descriptor, describe(known, size), last_position(descriptor, size, self._keys))
        elif size != known.end:
            self._follow(descriptor, known, size)

    def _adopt(self, descriptor: int, size: int) -> None:
        """Nothing is known of it: we go on from its last line, where that is genuine."""
        position = last_position(descriptor, size, self._keys)
        if position is None:
            raise BrokenLedger(
                "the last line of the ledger is not signed by a key of this installation",
                f"{self.path}: see docs/recordings.md",
            )
        _truncate(descriptor, position.end)
        self._position = position

    def _follow(self, descriptor: int, known: Position, size: int) -> None:
        """Another process has written, or has died while it did."""
        found = continuation(descriptor, known, size, self._keys)
        for line, position in found.lines:
            self.recent.take(line, position.start)
            self._position = known = position
        if found.foreign:
            self._state(
                descriptor, f"{found.foreign} bytes after line {known.number} had no valid signature", known
            )
        else:
            _truncate(descriptor, known.end)

    def _state(self, descriptor: int, reason: str, at: Position | None) -> None:
        """Say in the ledger that it is broken, behind its last genuine line (None: it has none)."""
        expected = (self._position or Position()).head
        if self._on_break is None:
            raise self._refusal(reason)
        head, found = "", at or Position()
        try:
            if at is None:
                descriptor = self._begin_again(descriptor)
                at = Position()
            else:
                _truncate(descriptor, at.end)
            before, self._position = self._position, at
            try:
                self._write(descriptor, LedgerAction.BROKEN, "", head=expected, reason=reason)
            except BaseException:
                self._position = before
                raise
            self.recent.moved(at.end)
            if self._floor is not None:
                self._floor = min(self._floor, at.end)
            self._walk.restart()
            head = self.head
        finally:
            self._tell(reason, found, head, expected)

    def _tell(self, reason: str, found: Position, head: str, expected: str = "") -> None:
        """Once for each break, also where it cannot be stated in the ledger (without ``head``)."""
        expected = expected or self.head
        if self._on_break is not None and (head or self._told != (expected, reason)):
            self._told = None if head else (expected, reason)
            self._on_break(Break(expected=expected, found=found.head, reason=reason, head=head))

    def _refusal(self, reason: str) -> BrokenLedger:
        head = (self._position or Position()).head
        return BrokenLedger(
            f"the ledger was changed by something other than conchrec: {reason}"
            f" (its last known head is {head})."
            " Start conchrec, which notes this in the ledger and continues it; see docs/recordings.md"
        )

    def _begin_again(self, descriptor: int) -> int:
        """What is there is no ledger: a new file, locked, in its place."""
        self._set_aside()
        new = self._make(os.O_RDWR | os.O_APPEND)
        self._close()
        self._keep(new)
        _flock(new, time.monotonic() + AT_ONCE)
        return new

    def _set_aside(self) -> None:
        moment = self._now().astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        for number in range(1000):
            name = self.path.with_name(f"{NAME}.broken-{moment}-{number}")
            if not os.path.lexists(name):
                os.rename(self.path, name)
                return
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

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
        written = os.write(descriptor, text)
        if written != len(text):
            os.ftruncate(descriptor, self._position.end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.recent.take(line, self._position.end)
        self._position = self._position.after(text)


def lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a ledger, as they are, oldest first. Raises OSError; none where there is no file."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:
        yield from whole_lines(file.readline)


def whole_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """The same of an open file, from where it stands."""
    while line := readline(LONGEST):
        if not line.endswith(b"\n") and len(line) < LONGEST:
            return  # it is being written, or was when its process died
        yield line


def _flock(descriptor: int, deadline: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() >= deadline:
            raise _busy()
        time.sleep(_RETRY_SECONDS)


def _busy() -> OSError:
    return OSError(errno.EAGAIN, "the ledger is locked by another process")


def _truncate(descriptor: int, end: int) -> None:
    if os.fstat(descriptor).st_size > end:
        os.ftruncate(descriptor, end)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
