"""The heads of a ledger that are kept outside the directory of the recordings.

``STATE_DIR/ledger_heads.json`` has the last line of the ledger of each directory of recordings. An attacker
who can write to the recordings but not to the state directory cannot cut the ledger unnoticed, not even while
conchrec does not run. Heads are also in the audit log, and from there in syslog.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from conchrec.errors import RecordingError
from conchrec.file_lock import exclusive_file
from conchrec.files import read_regular, write_atomic
from conchrec.reasons import ReasonCode
from conchrec.recording.evidence.continuity import Position
from conchrec.recording.format.json_fields import indented

NAME = "ledger_heads.json"
_LIMIT = 1024 * 1024
_LONGEST = 1024 * 1024
#: Events whose ``head`` was on the disk before they were written.
_DURABLE = frozenset({"session.end", "recording.recovered", "service.stop", "evidence.tampered"})
_NOT_DURABLE = frozenset({"session.start"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A head that a ledger must contain (``NUMBER:SHA256``), where it is known from, and for which
    recording."""

    head: str
    source: str
    sid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHead:
    """What is kept of a ledger: its last line, and in ``settled`` the byte before which every recording that
    was opened is complete or removed (0: not known)."""

    position: Position
    settled: int = 0


class HeadFile:
    """The file in the state directory, mode 0600. Several processes may use it."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME

    def read(self, recordings: Path) -> KeptHead | None:
        """Return what is kept of the ledger in this directory, or None.

        Raises RecordingError where the file is damaged, and OSError.
        """
        fields = self._read_all().get(str(recordings))
        return None if fields is None else self._parse(fields)

    def write(self, recordings: Path, kept: KeptHead) -> None:
        """Replace what is kept. The caller holds ``locked``. Blocks until it is on the disk. Raises
        OSError."""
        try:
            ledgers = self._read_all()
        except RecordingError:
            ledgers = {}
        here = kept.position
        ledgers[str(recordings)] = {
            "head": here.head,
            "start": here.start,
            "end": here.end,
            "settled": kept.settled,
        }
        write_atomic(self.path, indented({"ledgers": ledgers}).encode() + b"\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock: one process at a time decides which head is the last. Raises OSError.

        It is on the directory itself, not on the file that ``state.state_file`` locks there: the end of a
        recording does not wait for a command that changes keys.
        """
        with exclusive_file(os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)):
            yield

    def _read_all(self) -> dict[str, object]:
        try:
            ledgers = json.loads(read_regular(self.path, _LIMIT))["ledgers"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(error) from error
        if not isinstance(ledgers, dict):
            raise self._damaged()
        return ledgers

    def _parse(self, fields: object) -> KeptHead:
        try:
            if not isinstance(fields, dict):
                raise TypeError("not an object")
            number, _, digest = str(fields["head"]).partition(":")
            settled = fields["settled"]
            start, end = fields["start"], fields["end"]
            if type(start) is not int or type(end) is not int or not 0 <= start <= end < start + _LIMIT:
                raise ValueError("invalid position")
            if type(settled) is not int or settled < 0:
                raise ValueError("invalid position")
            position = Position(start=start, end=end, number=int(number), digest=digest)
            return KeptHead(position=position, settled=settled)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception | None = None) -> RecordingError:
        return RecordingError(
            f"{self.path} is damaged: restore it from a backup. Without a backup, remove this file: "
            "the present ledger is then accepted, even if somebody changed it",
            repr(error),
            code=ReasonCode.HEADS_DAMAGED,
        )


def heads_in_audit(path: Path, recordings: Path) -> Iterator[KnownHead]:
    """Yield the heads of the ledger of this directory from an audit log and its rotated files, oldest first.

    There are none where there is no log. The head of a ``session.start`` is not yet on the disk when it is
    audited. Where the next event is a start of the service, the machine may have lost it, so it does not
    count. Raises OSError.
    """
    pending: list[KnownHead] = []
    for file in _log_files(path):
        source = f"audit log {file.name}"
        with contextlib.closing(_open(file)) as lines:
            while line := lines.readline(_LONGEST):
                if b'"head":"' not in line and b'"service.start"' not in line:
                    continue
                event, known = _parse_event(line, source, f"{recordings}/")
                if event == "service.start":
                    pending.clear()
                elif known is not None and event in _NOT_DURABLE:
                    pending.append(known)
                elif known is not None:
                    yield from pending
                    pending.clear()
                    yield known
    yield from pending


def _parse_event(line: bytes, source: str, prefix: str) -> tuple[str, KnownHead | None]:
    """Return the name of the event, and its head where that is of the ledger below ``prefix``."""
    try:
        fields = json.loads(line)
        event, head, sid = (str(fields.get(name, "")) for name in ("event", "head", "sid"))
        path = str(fields.get("recording") or fields.get("ledger") or "")
    except (ValueError, AttributeError, RecursionError):
        return "", None  # a torn or foreign line is for the verifier of the audit log
    if event not in _DURABLE and event not in _NOT_DURABLE:
        return event, None
    is_ours = head and path.startswith(prefix)
    return event, KnownHead(head=head, source=source, sid=sid) if is_ours else None


def _log_files(path: Path) -> list[Path]:
    """Return the log and its rotated files, oldest first; regular files only."""
    try:
        entries = list(path.parent.iterdir())
    except FileNotFoundError:
        return []
    files = [
        (status.st_mtime_ns, entry)
        for entry in entries
        if (entry.name == path.name or entry.name.startswith((f"{path.name}.", f"{path.name}-")))
        and stat.S_ISREG((status := entry.stat()).st_mode)
    ]
    return [entry for _, entry in sorted(files, key=lambda file: (file[1] == path, file[0]))]


def _open(path: Path) -> BinaryIO:
    file = open(path, "rb")  # noqa: SIM115  # the caller closes it
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    return file
