"""Verification: what a recording, and a directory of them, must look like; with public keys alone.

Reads only, and takes no lock but for a moment, on what nobody has written to for a while. Every
problem is one line for a person. ``docs/recordings.md`` has the rules.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from conchrec.errors import RecordingError
from conchrec.files import read_regular
from conchrec.reasons import ReasonCode
from conchrec.recording.evidence.ledger_reader import LedgerEntry, LedgerReader
from conchrec.recording.format.asciicast import Event
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.session_id import is_session_id, time_of
from conchrec.recording.format.signatures import TrustedKeys, is_checkpoint
from conchrec.recording.storage import encodings
from conchrec.recording.storage.encodings import Encrypted
from conchrec.recording.storage.layout import CAST, FORMS, MANIFEST, MANIFEST_LIMIT, RecordingTree
from conchrec.recording.storage.recipients import Identities

_BLOCK = 1024 * 1024
_LONGEST_LINE = 64 * _BLOCK
#: So long after its beginning a recording that nobody holds the lock of has no writer.
_SETTLED = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
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


class Verifier:
    """Looks at recordings with these keys; ``identities`` open those that are encrypted."""

    def __init__(self, keys: TrustedKeys, identities: Identities, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._identities = identities
        self._now = now

    def directory(
        self, book: LedgerReader, root: Path, only: Collection[str] = (), there: Collection[str] | None = None
    ) -> Iterator[VerifyResult]:
        """A verdict on each recording that is there, or that the ledger knows; or only on some.

        Where recordings are being made meanwhile, ``there`` are the session ids that were there before the
        book was read: what has come since is for the next time.
        """
        tree = RecordingTree(root)
        found = {sid for sid, _ in tree.recordings()} if there is None else set(there)
        for sid in sorted({*found, *book.entries}):
            if only and sid not in only:
                continue
            verdict = self._verdict(tree, book, sid)
            if verdict.problems:
                # The ledger was read before: a session may have ended meanwhile, or been removed.
                book.update()
                verdict = self._verdict(tree, book, sid)
            yield verdict

    def strays(self, directory: Path, root: Path | None = None) -> Iterator[VerifyResult]:
        """A verdict on each recording below ``directory`` by itself, wherever it lies.

        Links are not followed. With ``root`` only on those that are not where the ledger of that root expects
        them.
        """
        tree = None if root is None else RecordingTree(root)
        unreadable: list[OSError] = []
        for here, below, names in os.walk(directory, onerror=unreadable.append):
            below.sort()
            for name in sorted(names):
                path = Path(here, name)
                sid = name.partition(".")[0]
                if tree is not None and is_session_id(sid) and path.parent == tree.manifest_path(sid).parent:
                    continue
                if name.endswith(FORMS) and not name.startswith("."):
                    verdict = self.recording(path)
                elif name == sid + MANIFEST and is_session_id(sid) and not _has_recording(path):
                    problem = f"the recording is missing: there is only its manifest, {name}"
                    verdict = VerifyResult(sid=sid, status="gone", problems=(problem,))
                else:
                    continue
                if tree is not None:
                    problems = (*verdict.problems, f"wrong directory: {here}")
                    verdict = replace(verdict, problems=problems)
                yield verdict
        for error in unreadable:
            yield VerifyResult(
                sid=str(error.filename), status="unreadable", problems=(error.strerror or str(error),)
            )

    def _verdict(self, tree: RecordingTree, book: LedgerReader, sid: str) -> VerifyResult:
        entry = book.entry(sid)
        if os.path.lexists(tree.path(sid)):
            return self._known(tree, sid, entry)
        if entry.removed:
            return VerifyResult(sid=sid, status="removed", problems=tuple(entry.problems))
        line = entry.opened or entry.sealed or entry.held
        reason = f"line {line} of the ledger names it" if line else "it was removed during the verification"
        problem = f"the recording is missing: {reason}"
        return VerifyResult(sid=sid, status="gone", problems=(*entry.problems, problem))

    def _known(self, tree: RecordingTree, sid: str, entry: LedgerEntry) -> VerifyResult:
        problems, notes = list(entry.problems), list(entry.notes)
        # Between these two a recording may be completed: then it is locked until the ledger has it.
        sealed = tree.manifest_path(sid).exists()
        if sealed and entry.opened and not entry.sealed and _is_locked(tree.path(sid)):
            sealed = False
        if not (entry.opened or entry.sealed):
            problems.append("the recording is not in the ledger")
        if entry.removed:
            notes.append(f"line {entry.removed} of the ledger says that the recording was removed")
        if not sealed:
            if entry.sealed:
                problems.append(f"the manifest is missing: line {entry.sealed} of the ledger has its digest")
            elif self._now() - time_of(sid) >= _SETTLED and not _is_locked(tree.path(sid)):
                problems.append(
                    "not completed: conchrec stopped during the session. Start it to complete this"
                )
                return VerifyResult(
                    sid=sid, status="not completed", problems=tuple(problems), notes=tuple(notes)
                )
            return VerifyResult(sid=sid, status="live", problems=tuple(problems), notes=tuple(notes))
        found = self.recording(tree.path(sid))
        problems += found.problems
        if not entry.sealed:
            problems.append("no line of the ledger says that the recording was completed")
        else:
            try:
                digest = hashlib.sha256(tree.read_manifest(sid)).hexdigest()
                if digest != entry.manifest:
                    problems.append(f"the manifest does not match line {entry.sealed} of the ledger")
            except OSError as error:
                problems.append(f"cannot read the manifest: {error.strerror}")
        return VerifyResult(
            sid=sid, status=found.status, problems=tuple(problems), notes=(*found.notes, *notes)
        )

    def recording(self, path: Path) -> VerifyResult:
        """One recording by itself: the file at ``path`` and the manifest beside it."""
        sid = path.name.partition(".")[0]
        try:
            if not is_session_id(sid) or not path.name.endswith(FORMS):
                raise RecordingError(
                    "invalid file name: must be a session id and .cast (or .cast.zst, .age)",
                    code=ReasonCode.INVALID_NAME,
                )
            document = read_regular(path.with_name(sid + MANIFEST), MANIFEST_LIMIT)
            self._keys.manifest(document)
            manifest = Manifest.parse(document)
            if manifest.sid != sid:
                raise RecordingError(
                    f"the manifest is of another recording: {manifest.sid}",
                    code=ReasonCode.MANIFEST_MISMATCH,
                )
        except FileNotFoundError:
            return VerifyResult(sid=sid, status="not completed", problems=("there is no manifest",))
        except OSError as error:
            problem = f"cannot read the manifest: {error.strerror}"
            return VerifyResult(sid=sid, status="unreadable", problems=(problem,))
        except RecordingError as error:
            return VerifyResult(sid=sid or path.name, status="unreadable", problems=(error.public,))
        problems, notes = [], []
        if manifest.status is Status.DAMAGED:
            problems.append(manifest.reason)
        elif manifest.status is not Status.COMPLETE:
            notes.append(manifest.reason)
        if manifest.late:
            notes.append(f"the last {manifest.late} bytes were signed at the recovery, after the session")
        try:
            self._look(path, manifest)
        except Encrypted as error:
            if self._identities:
                problems.append(error.public)
            else:
                notes.append("encrypted: the file is unchanged; use --identity FILE to check its contents")
        except RecordingError as error:
            problems.append(error.public)
        except OSError as error:
            problems.append(f"cannot read the recording: {error.strerror or error}")
        return VerifyResult(
            sid=sid, status=manifest.status.value, problems=tuple(problems), notes=tuple(notes)
        )

    def _look(self, path: Path, manifest: Manifest) -> None:
        """Raises RecordingError with what is wrong, Encrypted where it can be read by others only."""
        name = manifest.stored.name if manifest.stored else manifest.sid + CAST
        if path.name != name:
            raise RecordingError(
                f"the manifest is of the file {name}, not of {path.name}", code=ReasonCode.MANIFEST_MISMATCH
            )
        if manifest.stored is not None:
            with open(path, "rb", opener=encodings.regular) as file:
                digest, size = hashlib.sha256(), 0
                while block := file.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
            if (size, digest.hexdigest()) != (manifest.stored.size, manifest.stored.sha256):
                raise RecordingError(
                    "the file was changed after it was signed", code=ReasonCode.RECORDING_CHANGED
                )
        digest, size, lines, good = hashlib.sha256(), 0, 0, 0
        lost = ""
        with encodings.opened(path, self._identities) as plain:
            while line := plain.readline(_LONGEST_LINE):
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
            sizes = f" ({size} bytes instead of {manifest.cast_size})" if size != manifest.cast_size else ""
            raise RecordingError(
                f"the cast was changed after it was signed{sizes}; its first {good} bytes are unchanged",
                code=ReasonCode.RECORDING_CHANGED,
            )
        if lost:
            raise RecordingError(lost, code=ReasonCode.RECORDING_CHANGED)
        if lines != manifest.cast_lines:
            raise RecordingError(
                f"the cast has {lines} lines, but the manifest says {manifest.cast_lines}",
                code=ReasonCode.RECORDING_CHANGED,
            )

    def _check_point(self, sid: str, line: bytes, size: int, sha256: str) -> None:
        point = self._keys.checkpoint(sid, Event.parse(line).text)
        if (point.size, point.sha256) != (size, sha256):
            raise RecordingError(
                f"the checkpoint at byte {size} does not match the bytes before it",
                code=ReasonCode.RECORDING_CHANGED,
            )


def _has_recording(manifest: Path) -> bool:
    sid = manifest.name.removesuffix(MANIFEST)
    return any(os.path.lexists(manifest.with_name(sid + form)) for form in FORMS)


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
