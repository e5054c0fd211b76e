"""Completes the recordings of an earlier process that was killed, or had no power or no disk space.

A cast without a manifest that no running process has locked was interrupted. Its incomplete last line is
removed, a missing header is added, and a marker makes sure that it plays. The manifest says *interrupted*,
and how much of the end no checkpoint covers. Nothing else is ever removed: a file with unreadable lines in
its middle, or one that does not match its checkpoints, stays exactly as it is, with a manifest that says
*damaged*. A recording that cannot be completed does not stop the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import BinaryIO

from conchrec.errors import RecordingError, error_text
from conchrec.file_lock import lock
from conchrec.files import NewFile, open_regular
from conchrec.provenance import Provenance
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.evidence.continuity import STEP_BYTES
from conchrec.recording.evidence.finisher import Finisher, Sealed
from conchrec.recording.evidence.ledger_line import LedgerAction, parse_raw_line
from conchrec.recording.format import asciicast
from conchrec.recording.format.asciicast import START, Damaged, Event, Header
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.session_id import first_at, time_of
from conchrec.recording.format.signatures import CHECKPOINT, NotSigned, TrustedKeys
from conchrec.recording.storage import encodings
from conchrec.recording.storage.layout import CAST, COMPRESSED, MANIFEST, PAUSE_STEP

_LONGEST_LINE = 64 * 1024 * 1024
REASON = Reason(ReasonCode.INTERRUPTED, "conchrec was stopped while the session ran")
MARGIN_BYTES = 1024 * 1024
"""The bytes of the ledger that are read before the part that is not settled. They name the newest recordings
on the disk, which then need no search in the whole ledger."""
SLACK = timedelta(minutes=1)
"""The longest time from the choice of a session's id to its line in the ledger."""
_MANIFEST_MISSING = "the manifest is missing: the recording was complete and is not completed again"


class RecoveryStopped(Exception):
    """Raised by ``pause``: the rest is left to the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The result for one recording: its new manifest, or the problem that remains."""

    sid: str
    manifest: Manifest | None = None
    problem: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """What a file holds: its header; the last later start, if any; ``whole`` bytes of valid lines from its
    beginning, ``lines`` of them; ``signed`` bytes up to the last checkpoint. ``damaged`` says why the file is
    left as it is."""

    header: Header | None
    start: str
    last: float
    whole: int
    lines: int
    signed: int
    digest: hashlib._Hash
    damaged: str


def recover(
    finisher: Finisher,
    alive: Callable[[str], bool] = lambda sid: False,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Recovered, ...]:
    """Complete every interrupted recording. Blocks, so it runs in a thread. ``pause`` may raise
    ``RecoveryStopped``.

    ``alive`` says whether this process writes a recording. Its lock says the same, except between the
    creation of the file and the lock. ``pause`` is called after each step of about a millisecond, so that
    other threads run.

    Only what the last process did not settle is read: the ledger from the first line on whose recording was
    still open, and the days since then. Recordings without a line there are looked for in the rest of the
    ledger. Before a line is written, the ledger is compared again under its lock.
    """
    recovery = _Recovery(finisher, alive, pause)
    with contextlib.suppress(RecoveryStopped):
        recovery.run()
    return tuple(recovery.done)


class _Recovery:
    """One recovery; ``recover`` describes it."""

    def __init__(self, finisher: Finisher, alive: Callable[[str], bool], pause: Callable[[], None]) -> None:
        self._finisher = finisher
        self._ledger = finisher.ledger
        self._alive = alive
        self._pause = pause
        self.done: list[Recovered] = []
        self._has_failures = False

    def run(self) -> None:
        """Fill ``done``. A problem with one recording does not stop the others.

        Raises OSError and RecordingError where the ledger cannot be read.
        """
        end = self._ledger.refresh()
        # The ledger takes notice of later lines by itself, whichever process writes them.
        begin = min(self._ledger.settled_end, end.end)
        part = self._read_ledger(max(0, begin - MARGIN_BYTES), end.end)
        unfinished = self._ledger.add_older(part.opened, part.sealed)
        known = set(unfinished)
        for number, sid in enumerate(unfinished, 1):
            if not self._exists(sid):
                self._ledger.drop(sid)  # `verify` reports missing recordings
            else:
                self._recover(sid, opened=True)
            if number % PAUSE_STEP == 0:
                self._pause()
        unknown = []
        for sid, sealed in self._finisher.tree.recordings(part.first_sid, self._pause):
            if sid in known or self._alive(sid):
                continue
            if sid not in part.sealed and sid not in part.opened and sid not in part.removed:
                unknown.append(sid)
            elif (
                sid in part.sealed and not sealed and sid not in part.removed and not self._has_manifest(sid)
            ):
                self._fail(sid, _MANIFEST_MISSING)
        if unknown and part.begin:
            older = self._read_ledger(0, part.begin)
            # Not one union: the sets may be large, and a copy would hold Python's lock.
            entries = (older.opened, older.sealed, older.removed)
            unknown = [sid for sid in unknown if not any(sid in sids for sids in entries)]
        for sid in unknown:
            self._recover(sid, opened=self._ledger.is_open(sid))
            self._pause()
        self._ledger.finish_recovery(complete=not self._has_failures)

    def _read_ledger(self, begin: int, end: int) -> _LedgerPart:
        """Return what the lines between two bytes of the ledger say. Where ``begin`` is in the middle of a
        line, the next line is the first."""
        begin = max(0, begin - 1)  # the end of the line before: the next line is then complete
        part = _LedgerPart(begin=begin)
        offset, position, rest, partial = begin, begin, b"", begin > 0
        while offset < end and (block := self._ledger.read(offset, min(STEP_BYTES, end - offset))):
            offset += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for text in whole:
                if not partial:
                    part.add_line(text + b"\n", position)
                position += len(text) + 1
                if partial:
                    part.begin, partial = position, False
            self._pause()
        return part

    def _exists(self, sid: str) -> bool:
        try:
            return os.path.lexists(self._finisher.tree.path(sid)) or self._has_manifest(sid)
        except (OSError, ValueError):
            return False

    def _has_manifest(self, sid: str) -> bool:
        return os.path.lexists(self._finisher.tree.manifest_path(sid))

    def _recover(self, sid: str, *, opened: bool) -> None:
        if self._alive(sid):
            return
        try:
            if self._has_manifest(sid):
                sealed = _add_to_ledger(self._finisher, sid)
            else:
                sealed = _complete(self._finisher, sid, self._pause, opened=opened)
        except (OSError, RecordingError, ValueError) as error:
            self._fail(sid, error_text(error))
        else:
            if sealed is not None:
                self.done.append(Recovered(sid=sid, manifest=sealed.manifest, head=sealed.head))

    def _fail(self, sid: str, problem: str) -> None:
        self._has_failures = True
        self.done.append(Recovered(sid=sid, problem=problem))


@dataclass(slots=True, kw_only=True)
class _LedgerPart:
    """What a part of the ledger, from byte ``begin`` on, says of recordings: those that are still open (and
    where their lines are), and those that were sealed or removed. ``first_sid`` is the first session id that
    cannot be older than this part."""

    begin: int
    opened: dict[str, int] = field(default_factory=dict)
    sealed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    first_sid: str = ""

    def add_line(self, line: bytes, start: int) -> None:
        """Add the next line, whose first byte is at ``start``."""
        raw = parse_raw_line(line)
        if raw is None:
            return  # `verify` reports this
        if self.begin and not self.first_sid:
            self.first_sid = _sid_after(raw.time)
        if raw.act == LedgerAction.OPEN.value:
            self.opened[raw.sid] = start
        elif raw.act == LedgerAction.SEALED.value:
            self.opened.pop(raw.sid, None)
            self.sealed.add(raw.sid)
        elif raw.act == LedgerAction.REMOVED.value:
            self.opened.pop(raw.sid, None)
            self.removed.add(raw.sid)


def _sid_after(time: str) -> str:
    """Return the first session id that is certainly opened after a line with this time. A session gets its id
    some milliseconds before its line."""
    try:
        moment = datetime.fromisoformat(time.replace("Z", "+00:00"))
        return first_at(moment + SLACK)
    except (ValueError, OverflowError):
        return ""


def _add_to_ledger(finisher: Finisher, sid: str) -> Sealed | None:
    """Complete a recording that has a manifest and no line in the ledger, or whose plain file still exists.

    Returns None where its writer is active, or where it is in the ledger by now.
    """
    with finisher.tree.locked(sid) as is_ours:
        if not is_ours:
            return None
        document = finisher.tree.read_manifest(sid)
        manifest = Manifest.parse(document)
        finisher.keys.manifest(document)
        if manifest.sid != sid:
            raise RecordingError(
                f"the manifest is of another recording: {manifest.sid}", code=ReasonCode.MANIFEST_MISMATCH
            )
        if _is_in_ledger(finisher, sid):
            return None
        sealed = Sealed(manifest=manifest, head=finisher.add_to_ledger(sid, document))
        if manifest.encrypted:
            with finisher.tree.open_day(sid) as day:
                for form in (CAST, COMPRESSED):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(sid + form, dir_fd=day)
    return sealed


def _is_in_ledger(finisher: Finisher, sid: str) -> bool:
    """Whether the ledger has it as complete. Reads the ledger again, because the line may be new."""
    finisher.ledger.refresh()
    return finisher.ledger.is_sealed(sid)


def _complete(finisher: Finisher, sid: str, pause: Callable[[], None], *, opened: bool) -> Sealed | None:
    """Complete one recording. Returns None where it is still being written or was sealed by now. ``opened``
    says whether the ledger has a line for its beginning."""
    name = finisher.tree.path(sid).name
    with finisher.tree.open_day(sid) as day:
        if _exists(sid + CAST, day) and _exists(sid + COMPRESSED, day):
            # conchrec writes only one of them. Which one cannot be known, so both are kept.
            raise RecordingError(
                f"there are two files of one recording, {sid}{CAST} and {sid}{COMPRESSED}. "
                "conchrec wrote only one of them: check both, and move the false one out of this directory",
                code=ReasonCode.RECORDING_DUPLICATE,
            )
        with open(open_regular(name, os.O_RDWR, dir_fd=day), "r+b") as file:
            try:
                lock(file.fileno())
            except BlockingIOError:
                return None
            if _exists(sid + MANIFEST, day):
                return None
            if _is_in_ledger(finisher, sid):
                raise RecordingError(_MANIFEST_MISSING, code=ReasonCode.MANIFEST_MISSING)
            is_compressed = name.endswith(COMPRESSED)
            scan = _scan(file, sid, finisher.keys, is_compressed, pause)
            if not opened and not scan.signed and scan.lines:
                # Somebody else wrote this file: it must not get our signature.
                raise RecordingError(
                    "not recorded by this installation: it is not in the ledger and has no checkpoint",
                    code=ReasonCode.RECORDING_UNEXPLAINED,
                )
            end = b"" if scan.damaged else _final_lines(sid, scan)
            if is_compressed and not scan.damaged:
                with _recompressed(file, name, day, scan.whole, end):
                    return finisher.seal(_manifest(sid, scan, end))
            if not scan.damaged:
                _repair(file, scan.whole, end)
            return finisher.seal(_manifest(sid, scan, end))


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _scan(
    file: BinaryIO, sid: str, keys: TrustedKeys, is_compressed: bool, pause: Callable[[], None]
) -> _Scan:
    file.seek(0)
    with encodings.decompress(file, is_compressed) as plain:
        scan = _scan_lines(plain, sid, keys, pause)
    if scan.damaged:
        # The file stays as it is, and the manifest covers all of it.
        file.seek(0)
        digest, size, lines = hashlib.sha256(), 0, 0
        with encodings.decompress(file, is_compressed) as plain:
            while block := plain.read(1024 * 1024):
                digest.update(block)
                size += len(block)
                lines += block.count(b"\n")
                pause()
        scan = replace(scan, whole=size, lines=lines, digest=digest)
    return scan


def _scan_lines(file: BinaryIO, sid: str, keys: TrustedKeys, pause: Callable[[], None]) -> _Scan:
    header: Header | None = None
    start = ""
    last, whole, lines, signed, position = 0.0, 0, 0, 0, 0
    digest, is_broken, damaged = hashlib.sha256(), False, ""
    paused = 0
    while line := file.readline(_LONGEST_LINE):
        first = position == 0
        position += len(line)
        if lines - paused >= PAUSE_STEP:
            paused = lines
            pause()
        try:
            if not line.endswith(b"\n"):
                raise Damaged("the last line of the recording is incomplete")
            if first:
                header = Header.parse(line)
            else:
                event = Event.parse(line)
                last = max(last, event.time)
        except Damaged:
            is_broken = True
            continue
        if is_broken:
            damaged = "the file has lines that cannot be read"  # valid ones after them: this is no torn end
            break
        if not first and event.code == START:
            start = event.text
        if not first and event.code == CHECKPOINT:
            try:
                point = keys.checkpoint(sid, event.text)
            except NotSigned as error:
                damaged = error.public
                break
            if (point.size, point.sha256) != (whole, digest.hexdigest()):
                damaged = "the cast was changed: a checkpoint does not match the bytes before it"
                break
            signed = position
        digest.update(line)
        whole, lines = position, lines + 1
    return _Scan(
        header=header,
        start=start,
        last=last,
        whole=whole,
        lines=lines,
        signed=signed,
        digest=digest,
        damaged=damaged,
    )


def _final_lines(sid: str, scan: _Scan) -> bytes:
    """Return the lines that are added after the last complete line, so that the recording plays."""
    end = b""
    if scan.header is None:
        started = int(time_of(sid).timestamp())
        end = Header(timestamp=started, ours={"sid": sid}).line()
    return end + asciicast.event_line(scan.last, asciicast.MARKER, "interrupted")


def _repair(file: BinaryIO, whole: int, end: bytes) -> None:
    # In this order: a crash between the two steps makes nothing worse.
    os.ftruncate(file.fileno(), whole)
    file.seek(whole)
    file.write(end)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _recompressed(file: BinaryIO, name: str, day: int, whole: int, end: bytes) -> Iterator[None]:
    """Replace ``file`` by a new compressed and locked one, with its first ``whole`` bytes (decompressed) and
    ``end``."""
    with NewFile(name, dir_fd=day) as new:
        lock(new.file.fileno())
        packer = encodings.ZstdFrames()
        file.seek(0)
        with encodings.decompress(file, True) as plain:
            while whole and (block := plain.read(min(whole, 1024 * 1024))):
                whole -= len(block)
                new.file.write(packer.compress((block,)))
        new.file.write(packer.compress((end,)) + packer.cut())
        new.commit()
        yield


def _manifest(sid: str, scan: _Scan, end: bytes) -> Manifest:
    digest = scan.digest.copy()
    digest.update(end)
    size = scan.whole + len(end)
    started = time_of(sid)
    ours: Mapping[str, object] = scan.header.ours if scan.header else {}
    started_as = _last_start(scan, ours)
    return Manifest(
        sid=sid,
        status=Status.DAMAGED if scan.damaged else Status.INTERRUPTED,
        reason=scan.damaged or REASON,
        started=started,
        ended=started + timedelta(seconds=min(scan.last, timedelta(days=36500).total_seconds())),
        cast_size=size,
        cast_sha256=digest.hexdigest(),
        cast_lines=scan.lines + end.count(b"\n"),
        coverage=(NotKept.END,),
        late=0 if scan.damaged else size - scan.signed,
        cid=_text(ours, "cid"),
        user=_text(ours, "user"),
        login=_text(ours, "login"),
        target=_text(ours, "target"),
        address=_text(ours, "address"),
        provenance=Provenance.parse(ours.get("provenance")),
        kind=_text(started_as, "kind"),
        command=_text(started_as, "command"),
        command_sha256=_text(started_as, "command_sha256"),
    )


def _last_start(scan: _Scan, ours: Mapping[str, object]) -> Mapping[str, object]:
    """Return kind and command of what ran last: those of the header, or of a later start."""
    if scan.start:
        try:
            fields = json.loads(scan.start)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            return fields
    command = _text(ours, "subsystem") or (scan.header.command if scan.header else "")
    return {**ours, "command": command}


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
