"""What the newest lines of a ledger say of recordings: this is checked before a line is added."""

from __future__ import annotations

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.evidence.ledger_line import LedgerAction, LedgerLine


class NotAllowed(RecordingError):
    """A line that another process has written forbids this one."""


class RecentEntries:
    """The recordings that are open, sealed, held or removed, by the lines that were read."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._sealed: dict[str, str] | None = {}
        self._sealed_before: set[str] = set()
        self._removed: set[str] = set()
        self._held: dict[str, bool] = {}

    def add(self, line: LedgerLine, start: int) -> None:
        """Add the next line, which begins at the byte ``start`` of the file."""
        sid = line.sid
        if line.act is LedgerAction.OPEN:
            self._open[sid] = start
        elif line.act is LedgerAction.SEALED:
            self._open.pop(sid, None)
            if self._sealed is not None:
                self._sealed[sid] = line.manifest
        elif line.act is LedgerAction.REMOVED:
            self._open.pop(sid, None)
            if self._sealed is not None:
                self._removed.add(sid)
        elif line.act in (LedgerAction.HELD, LedgerAction.RELEASED):
            self._held[sid] = line.act is LedgerAction.HELD

    def has(self, act: LedgerAction, sid: str, manifest: str) -> bool:
        """Whether there is such a line already. Raises NotAllowed where another line forbids it."""
        if act is LedgerAction.SEALED and self._sealed is not None:
            known = self._sealed.get(sid, "")
            if known and manifest and manifest != known:
                raise NotAllowed(
                    f"{sid} is already complete, with another manifest", code=ReasonCode.RECORDING_SEALED
                )
            return sid in self._sealed or sid in self._sealed_before
        if act is LedgerAction.REMOVED and self.is_held(sid):
            raise NotAllowed(f"{sid} is held", code=ReasonCode.RECORDING_HELD)
        if act is LedgerAction.HELD and sid in self._removed:
            raise NotAllowed(f"{sid} has been removed", code=ReasonCode.RECORDING_REMOVED)
        return False

    def is_held(self, sid: str) -> bool:
        """Whether the recording was held and not released."""
        return self._held.get(sid, False)

    def is_open(self, sid: str) -> bool:
        """Whether the recording was opened and not sealed or removed."""
        return sid in self._open

    def add_older(self, opened: dict[str, int], sealed: set[str]) -> list[str]:
        """Add what older lines say: the recordings that they opened and did not end, and those that they
        sealed.

        Returns the recordings that are still open. ``sealed`` is kept and not copied: it may be large.
        """
        done = self._sealed or {}
        unfinished = {
            sid: start for sid, start in opened.items() if sid not in done and sid not in self._removed
        }
        self._open = unfinished | self._open
        if self._sealed is not None:
            self._sealed_before = sealed
        return list(unfinished)

    def drop(self, sid: str) -> None:
        """Forget a recording of which nothing is left."""
        self._open.pop(sid, None)

    def end_recovery(self) -> None:
        """The recovery is over: from now on each recording is sealed by the process that recorded it. So a
        service that runs for years does not keep all of them in memory."""
        self._sealed = None
        self._sealed_before = set()
        self._removed.clear()

    def file_cut(self, end: int) -> None:
        """The file was cut or replaced: recordings that were opened in the lost part are looked for from
        ``end`` on."""
        self._open = {sid: min(start, end) for sid, start in self._open.items()}

    def first_open(self, end: int) -> int:
        """Return the first byte that a later recovery has to read; ``end`` where nothing is open."""
        return min(self._open.values(), default=end)
