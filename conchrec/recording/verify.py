"""Is it whole? What a recording, and a directory of them, must look like; with public keys alone.

Reads only, and takes no lock but for a moment, on what nobody has written to for a while. Every
problem is one line for a person. ``docs/recordings.md`` has the rules.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from conchrec.errors import RecordingError
from conchrec.recording import forms, ledger
from conchrec.recording.asciicast import Event
from conchrec.recording.forms import Encrypted
from conchrec.recording.ledger import Act, BrokenLedger, Line
from conchrec.recording.manifest import Manifest, Status
from conchrec.recording.recipients import Identities
from conchrec.recording.seal import Keys, NotSigned, is_checkpoint
from conchrec.recording.session_id import is_session_id, time_of
from conchrec.recording.tree import CAST, FORMS, MANIFEST, Tree

_BLOCK = 1024 * 1024
_LONGEST_MANIFEST = 64 * _BLOCK
#: So long after its beginning a recording that nobody holds the lock of has no writer.
_SETTLED = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of one recording. ``status`` is the manifest's word, or *live*, *not completed*,
    *removed* (there is a tombstone), *gone*. It is whole where there are no ``problems``; ``notes`` are
    facts that a reader has to know."""

    sid: str
    status: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.problems


@dataclass(slots=True)
class _Entry:
    """What the ledger knows of one recording: the numbers of lines (0: none), and the manifest's digest."""

    opened: int = 0
    sealed: int = 0
    removed: int = 0
    held: int = 0
    manifest: str = ""
    problems: list[str] = field(default_factory=list)


class Book:
    """A ledger that was read. ``problems`` are its own; ``head`` names its last line (empty without one)."""

    def __init__(self, path: Path, keys: Keys, head: str = "") -> None:
        """Reads all of it. ``head`` is one from elsewhere that it must contain. Raises OSError."""
        self.problems: list[str] = []
        self.entries: dict[str, _Entry] = {}
        self.head = ""
        self.there = path.exists()
        number, previous, seen = 0, "0" * 64, False
        for text in ledger.lines(path):
            where = f"line {number + 1} of the ledger"
            try:
                line = Line.parse(text)
                keys.entry(text)
            except (BrokenLedger, NotSigned) as error:
                self.problems.append(f"{where}: {error.public}")
                number, previous = number + 1, hashlib.sha256(text).hexdigest()
                continue
            if (line.number, line.previous) != (number + 1, previous):
                self.problems.append(
                    f"{where}: it says that it is line {line.number}, or it follows another one"
                )
            number, previous = line.number, hashlib.sha256(text).hexdigest()
            self.head = f"{number}:{previous}"
            seen = seen or self.head == head
            self._take(line)
        if head and not seen:
            self.problems.append(f"it does not contain the head {head}: it was put back, or replaced")

    def _take(self, line: Line) -> None:
        entry = self.entries.setdefault(line.sid, _Entry())
        if line.act is Act.OPEN:
            entry.opened = line.number
        elif line.act is Act.SEALED:
            if entry.sealed:
                entry.problems.append(
                    f"it was completed twice, in lines {entry.sealed} and {line.number} of the ledger"
                )
            entry.sealed, entry.manifest = line.number, line.manifest
        elif line.act is Act.HELD:
            entry.held = line.number
        elif line.act is Act.RELEASED:
            entry.held = 0
        else:
            if entry.held:
                entry.problems.append(f"it was removed while line {entry.held} of the ledger held it")
            entry.removed = line.number


class Verifier:
    """Looks at recordings with these keys; ``identities`` open those that are encrypted."""

    def __init__(self, keys: Keys, identities: Identities, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._identities = identities
        self._now = now

    def directory(
        self, book: Book, root: Path, only: Collection[str] = (), there: Collection[str] | None = None
    ) -> Iterator[Verdict]:
        """A verdict on each recording that is there, or that the ledger knows; or only on some.

        Where recordings are being made meanwhile, ``there`` are the session ids that were there before the
        book was read: what has come since is for the next time.
        """
        tree = Tree(root)
        found = {sid for sid, _ in tree.recordings()} if there is None else set(there)
        for sid in sorted({*found, *book.entries}):
            if only and sid not in only:
                continue
            entry = book.entries.get(sid)
            if sid in found or tree.path(sid).exists():
                yield self._known(tree, sid, entry or _Entry())
            elif entry is not None and entry.removed:
                yield Verdict(sid=sid, status="removed", problems=tuple(entry.problems))
            elif entry is not None:
                line = entry.opened or entry.sealed or entry.held
                gone = f"it is gone: line {line} of the ledger knows it"
                yield Verdict(sid=sid, status="gone", problems=(*entry.problems, gone))

    def _known(self, tree: Tree, sid: str, entry: _Entry) -> Verdict:
        problems = list(entry.problems)
        # Between these two a recording may be completed: then it is locked until the ledger has it.
        sealed = tree.manifest_path(sid).exists()
        if sealed and entry.opened and not entry.sealed and _is_locked(tree.path(sid)):
            sealed = False
        if not (entry.opened or entry.sealed):
            problems.append("it is not in the ledger")
        if not sealed:
            if entry.sealed:
                problems.append("its manifest is gone: it was complete")
            elif self._now() - time_of(sid) >= _SETTLED and not _is_locked(tree.path(sid)):
                problems.append("it was not completed: start conchrec, which does that")
                return Verdict(sid=sid, status="not completed", problems=tuple(problems))
            return Verdict(sid=sid, status="live", problems=tuple(problems))
        found = self.recording(tree.path(sid))
        problems += found.problems
        if not entry.sealed:
            problems.append("the ledger does not say that it was completed")
        else:
            try:
                digest = hashlib.sha256(tree.manifest_path(sid).read_bytes()).hexdigest()
                if digest != entry.manifest:
                    problems.append(f"its manifest is not the one of line {entry.sealed} of the ledger")
            except OSError:
                pass  # which `recording` has said
        return Verdict(sid=sid, status=found.status, problems=tuple(problems), notes=found.notes)

    def recording(self, path: Path) -> Verdict:
        """One recording by itself: the file at ``path`` and the manifest beside it."""
        sid = path.name.partition(".")[0]
        try:
            if not is_session_id(sid) or not path.name.endswith(FORMS):
                raise RecordingError("its name is not that of a recording")
            with open(path.with_name(sid + MANIFEST), "rb") as file:
                document = file.read(_LONGEST_MANIFEST)
            self._keys.manifest(document)
            manifest = Manifest.parse(document)
            if manifest.sid != sid:
                raise RecordingError(f"its manifest is that of {manifest.sid}")
        except FileNotFoundError:
            return Verdict(sid=sid, status="not completed", problems=("it has no manifest",))
        except OSError as error:
            return Verdict(sid=sid, status="unreadable", problems=(f"its manifest: {error.strerror}",))
        except RecordingError as error:
            return Verdict(sid=sid, status="unreadable", problems=(error.public,))
        problems, notes = [], []
        if manifest.status is Status.DAMAGED:
            problems.append(manifest.reason)
        elif manifest.status is not Status.COMPLETE:
            notes.append(manifest.reason)
        if manifest.late:
            notes.append(f"the last {manifest.late} bytes were sealed at recovery")
        try:
            self._look(path, manifest)
        except Encrypted as error:
            if self._identities:
                problems.append(error.public)
            else:
                notes.append("encrypted: the file is the one that was sealed, its content was not looked at")
        except RecordingError as error:
            problems.append(error.public)
        except OSError as error:
            problems.append(error.strerror or "it can not be read")
        return Verdict(sid=sid, status=manifest.status.value, problems=tuple(problems), notes=tuple(notes))

    def _look(self, path: Path, manifest: Manifest) -> None:
        """Raises RecordingError with what is wrong, Encrypted where it can be read by others only."""
        name = manifest.stored.name if manifest.stored else manifest.sid + CAST
        if path.name != name:
            raise RecordingError(f"its manifest is of {name}, and not of {path.name}")
        if manifest.stored is not None:
            with open(path, "rb") as file:
                digest, size = hashlib.sha256(), 0
                while block := file.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
            if (size, digest.hexdigest()) != (manifest.stored.size, manifest.stored.sha256):
                raise RecordingError("the file is not the one that was sealed")
        digest, size, lines, good = hashlib.sha256(), 0, 0, 0
        lost = ""
        with forms.opened(path, self._identities) as plain:
            while line := plain.readline(_LONGEST_MANIFEST):
                if not lost and size and is_checkpoint(line) and manifest.status is not Status.DAMAGED:
                    try:
                        self._check_point(manifest.sid, line, size, digest.hexdigest())
                        good = size
                    except RecordingError as error:
                        lost = error.public
                digest.update(line)
                size += len(line)
                lines += line.endswith(b"\n")
        if (size, digest.hexdigest()) != (manifest.cast_size, manifest.cast_sha256):
            change = (
                f"{size} bytes instead of {manifest.cast_size}" if size != manifest.cast_size else "changed"
            )
            raise RecordingError(f"the cast is not the one that was sealed: {change}; good up to byte {good}")
        if lost:
            raise RecordingError(lost)
        if lines != manifest.cast_lines:
            raise RecordingError(f"it has {lines} lines, and the manifest says {manifest.cast_lines}")

    def _check_point(self, sid: str, line: bytes, size: int, sha256: str) -> None:
        point = self._keys.checkpoint(sid, Event.parse(line).text)
        if (point.size, point.sha256) != (size, sha256):
            raise RecordingError(f"the checkpoint at byte {size} does not match")


def _is_locked(path: Path) -> bool:
    """Does a process write it?"""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
