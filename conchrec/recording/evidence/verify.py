"""Verifies recordings, and a directory of them, with public keys alone.

Only reads, and takes no lock except for a moment, on files that nobody has written to for some time. Every
problem is one line for a person. ``docs/recordings.md`` has the rules.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from conchrec.errors import RecordingError
from conchrec.file_lock import is_locked
from conchrec.files import read_regular
from conchrec.reasons import ReasonCode
from conchrec.recording.evidence.ledger_reader import LedgerEntry, LedgerReader
from conchrec.recording.format.asciicast import Event
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.session_id import is_session_id, time_of
from conchrec.recording.format.signatures import TrustedKeys, is_checkpoint
from conchrec.recording.storage import encodings
from conchrec.recording.storage.encodings import Encrypted
from conchrec.recording.storage.layout import CAST, MANIFEST, MANIFEST_LIMIT, SUFFIXES, RecordingTree
from conchrec.recording.storage.recipients import Identities

_BLOCK = 1024 * 1024
_LONGEST_LINE = 64 * _BLOCK
#: The age after which a recording without a lock has no writer.
_SETTLED = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """The result for one recording. ``status`` is that of the manifest, or *live*, *not completed*, *removed*
    (the ledger says so), *gone* or *unreadable*. ``notes`` are facts that a reader has to know.
    ``summary`` is what the line with the numbers counts it as; empty: the status."""

    sid: str
    status: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    summary: str = ""

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


class Verifier:
    """Verifies recordings with these keys. ``identities`` decrypt those that are encrypted."""

    def __init__(self, keys: TrustedKeys, identities: Identities, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._identities = identities
        self._now = now

    def directory(
        self,
        reader: LedgerReader,
        root: Path,
        only: Collection[str] = (),
        existing: Collection[str] | None = None,
    ) -> Iterator[VerifyResult]:
        """Yield a result for each recording that exists or that the ledger names, or only for some.

        Where recordings are made at the same time, ``existing`` are the session ids that existed before the
        ledger was read; later ones are left out.
        """
        tree = RecordingTree(root)
        sids = {sid for sid, _ in tree.recordings()} if existing is None else set(existing)
        for sid in sorted({*sids, *reader.entries}):
            if only and sid not in only:
                continue
            result = self._verify(tree, reader, sid)
            if result.problems:
                # The ledger was read earlier: the session may have ended since, or the recording was removed.
                reader.update()
                result = self._verify(tree, reader, sid)
            yield result

    def strays(self, directory: Path, root: Path | None = None) -> Iterator[VerifyResult]:
        """Yield a result for each recording below ``directory`` by itself, in any place.

        Links are not followed. With ``root``, only those are verified that are not where the ledger of that
        root expects them.
        """
        tree = None if root is None else RecordingTree(root)
        unreadable: list[OSError] = []
        for parent, below, names in os.walk(directory, onerror=unreadable.append):
            below.sort()
            for name in sorted(names):
                path = Path(parent, name)
                sid = name.partition(".")[0]
                if tree is not None and is_session_id(sid) and path.parent == tree.manifest_path(sid).parent:
                    continue
                if name.endswith(SUFFIXES) and not name.startswith("."):
                    result = self.recording(path)
                elif name == sid + MANIFEST and is_session_id(sid) and not _has_recording(path):
                    problem = f"the recording is missing: there is only its manifest, {name}"
                    result = VerifyResult(sid=sid, status="gone", problems=(problem,), summary="missing")
                else:
                    continue
                if tree is not None:
                    problems = (*result.problems, _misplaced(tree, sid, parent))
                    result = replace(result, problems=problems)
                yield result
        for error in unreadable:
            yield VerifyResult(
                sid=str(error.filename), status="unreadable", problems=(error.strerror or str(error),)
            )

    def _verify(self, tree: RecordingTree, reader: LedgerReader, sid: str) -> VerifyResult:
        entry = reader.entry(sid)
        if os.path.lexists(tree.path(sid)):
            return self._verify_existing(tree, sid, entry)
        if entry.removed:
            return VerifyResult(sid=sid, status="removed", problems=tuple(entry.problems))
        line = entry.opened or entry.sealed or entry.held
        reason = f"line {line} of the ledger names it" if line else "it was removed during the verification"
        problem = f"the recording is missing: {reason}"
        return VerifyResult(sid=sid, status="gone", problems=(*entry.problems, problem), summary="missing")

    def _verify_existing(self, tree: RecordingTree, sid: str, entry: LedgerEntry) -> VerifyResult:
        problems, notes = list(entry.problems), list(entry.notes)
        # The recording may be completed at this moment: then it is locked until the ledger has a line for it.
        sealed = tree.manifest_path(sid).exists()
        if sealed and entry.opened and not entry.sealed and _has_writer(tree.path(sid)):
            sealed = False
        if not (entry.opened or entry.sealed):
            problems.append("the recording is not in the ledger")
        if entry.removed:
            notes.append(f"line {entry.removed} of the ledger says that the recording was removed")
        if not sealed:
            if entry.sealed:
                problems.append(f"the manifest is missing: line {entry.sealed} of the ledger has its digest")
            elif self._now() - time_of(sid) >= _SETTLED and not _has_writer(tree.path(sid)):
                problems.append(
                    "not completed: conchrec stopped during the session. Start conchrec, which completes it"
                )
                return VerifyResult(
                    sid=sid, status="not completed", problems=tuple(problems), notes=tuple(notes)
                )
            return VerifyResult(
                sid=sid,
                status="live",
                problems=tuple(problems),
                notes=tuple(notes),
                summary="without manifest" if entry.sealed else "",
            )
        contents = self.recording(tree.path(sid))
        problems += contents.problems
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
            sid=sid,
            status=contents.status,
            problems=tuple(problems),
            notes=(*contents.notes, *notes),
            summary=contents.summary,
        )

    def recording(self, path: Path) -> VerifyResult:
        """Verify one recording by itself: the file at ``path`` and the manifest next to it."""
        sid = path.name.partition(".")[0]
        try:
            if not is_session_id(sid) or not path.name.endswith(SUFFIXES):
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
            return VerifyResult(
                sid=sid or path.name, status="unreadable", problems=(error.public,), summary="not trusted"
            )
        problems, notes = [], []
        if manifest.status is Status.DAMAGED:
            problems.append(manifest.reason)
        elif manifest.status is not Status.COMPLETE:
            notes.append(manifest.reason)
        if manifest.late:
            notes.append(f"the last {manifest.late} bytes were signed at the recovery, after the session")
        try:
            self._check_contents(path, manifest)
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

    def _check_contents(self, path: Path, manifest: Manifest) -> None:
        """Compare the file with its manifest. Raises RecordingError, and Encrypted where the key is
        missing."""
        name = manifest.stored.name if manifest.stored else manifest.sid + CAST
        if path.name != name:
            raise RecordingError(
                f"the manifest is of the file {name}, not of {path.name}", code=ReasonCode.MANIFEST_MISMATCH
            )
        if manifest.stored is not None:
            with open(path, "rb", opener=encodings.open_regular_file) as file:
                digest, size = hashlib.sha256(), 0
                while block := file.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
            if (size, digest.hexdigest()) != (manifest.stored.size, manifest.stored.sha256):
                raise RecordingError(
                    "the file was changed after it was signed", code=ReasonCode.RECORDING_CHANGED
                )
        digest, size, lines, verified = hashlib.sha256(), 0, 0, 0
        failure = ""
        with encodings.open_recording(path, self._identities) as plain:
            while line := plain.readline(_LONGEST_LINE):
                if not failure and size and is_checkpoint(line) and manifest.status is not Status.DAMAGED:
                    try:
                        self._check_checkpoint(manifest.sid, line, size, digest.hexdigest())
                        verified = size
                    except RecordingError as error:
                        failure = error.public
                digest.update(line)
                size += len(line)
                lines += line.endswith(b"\n")
        if (size, digest.hexdigest()) != (manifest.cast_size, manifest.cast_sha256):
            sizes = f" ({size} bytes instead of {manifest.cast_size})" if size != manifest.cast_size else ""
            raise RecordingError(
                f"the cast was changed after it was signed{sizes}; its first {verified} bytes are unchanged",
                code=ReasonCode.RECORDING_CHANGED,
            )
        if failure:
            raise RecordingError(failure, code=ReasonCode.RECORDING_CHANGED)
        if lines != manifest.cast_lines:
            raise RecordingError(
                f"the cast has {lines} lines, but the manifest says {manifest.cast_lines}",
                code=ReasonCode.RECORDING_CHANGED,
            )

    def _check_checkpoint(self, sid: str, line: bytes, size: int, sha256: str) -> None:
        point = self._keys.checkpoint(sid, Event.parse(line).text)
        if (point.size, point.sha256) != (size, sha256):
            raise RecordingError(
                f"the checkpoint at byte {size} does not match the bytes before it",
                code=ReasonCode.RECORDING_CHANGED,
            )


def _misplaced(tree: RecordingTree, sid: str, parent: str) -> str:
    """The problem of a recording that is not where its ledger expects it."""
    expected = f": expected {tree.manifest_path(sid).parent}" if is_session_id(sid) else ""
    return f"this file is in the wrong directory ({parent}){expected}"


def _has_recording(manifest: Path) -> bool:
    sid = manifest.name.removesuffix(MANIFEST)
    return any(os.path.lexists(manifest.with_name(sid + form)) for form in SUFFIXES)


def _has_writer(path: Path) -> bool:
    """Return whether a process writes the file now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_locked(descriptor)
    finally:
        os.close(descriptor)
