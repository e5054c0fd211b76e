"""Completes what an earlier process left behind: killed, out of power, or out of disk.

A cast without a manifest, that no living process holds the lock of, was interrupted. Its torn last
line goes, a header comes if there was none, a marker makes sure that it plays, and a manifest says
*interrupted*, and how much of the end no checkpoint covers. Nothing else is ever removed: a file with
unreadable lines in its middle, or one that its checkpoints do not fit, stays exactly as it is, with a
manifest that says *damaged*. What cannot be completed does not stop the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import BinaryIO

from conchrec.errors import RecordingError
from conchrec.files import NewFile, open_regular
from conchrec.provenance import Provenance
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.evidence.continuity import STEP_BYTES
from conchrec.recording.evidence.finisher import Finisher, Sealed
from conchrec.recording.evidence.ledger_line import LedgerAction, raw_line
from conchrec.recording.format import asciicast
from conchrec.recording.format.asciicast import START, Damaged, Event, Header
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.session_id import first_at, time_of
from conchrec.recording.format.signatures import CHECKPOINT, NotSigned, TrustedKeys
from conchrec.recording.storage import encodings
from conchrec.recording.storage.layout import CAST, MANIFEST, PACKED, STEP

_LONGEST_LINE = 64 * 1024 * 1024
REASON = Reason(ReasonCode.INTERRUPTED, "conchrec was stopped while the session ran")
MARGIN_BYTES = 1024 * 1024
"""Bytes of the ledger that are read before the part that is not settled: they name the newest recordings on
the disk, so that these are not searched for in the whole ledger."""
SLACK = timedelta(minutes=1)
"""The longest time from the choice of a session's id to its line in the ledger."""
_MANIFEST_IS_GONE = "the manifest is missing: the recording was complete and is not completed again"


class Stopped(Exception):
    """Raised by ``pause``: the rest is for the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of one recording: its new manifest, or the problem that is still there."""

    sid: str
    manifest: Manifest | None = None
    problem: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """What a file holds: its header; the last later start, if any; ``whole`` bytes of good lines from its
    beginning, ``lines`` of them; the last checkpoint stands at the end of the first ``signed``. ``damaged``
    says why it is left as it is."""

    header: Header | None
    start: str
    last: float
    whole: int
    lines: int
    signed: int
    digest: hashlib._Hash
    damaged: str


def recover(
    sealer: Finisher,
    alive: Callable[[str], bool] = lambda sid: False,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Recovered, ...]:
    """Complete every interrupted recording. Blocks: for a thread. ``pause`` may raise ``Stopped``.

    ``alive`` names those of this very process, which the lock would tell too, but for the moment
    between making the file and locking it. ``pause`` is called after each step of about a millisecond: other
    threads run meanwhile.

    Only what the last process did not settle is read: the ledger from the first line on whose recording was
    still open, and the days since then. What has no line there is looked for in the rest of the ledger. No
    line is written by what was read: the ledger looks again under its lock.
    """
    recovery = _Recovery(sealer, alive, pause)
    with contextlib.suppress(Stopped):
        recovery.run()
    return tuple(recovery.done)


class _Recovery:
    """One recovery; see ``recover``."""

    def __init__(self, sealer: Finisher, alive: Callable[[str], bool], pause: Callable[[], None]) -> None:
        self._sealer = sealer
        self._ledger = sealer.ledger
        self._alive = alive
        self._pause = pause
        self.done: list[Recovered] = []
        self._left = False

    def run(self) -> None:
        """Fills ``done``; a single recording stops nothing.

        Raises OSError and RecordingError where the ledger cannot be read."""
        end = self._ledger.refresh()
        # What is written from here on, by whichever process, the ledger notes by itself.
        floor = min(self._ledger.floor, end.end)
        seen = self._read(max(0, floor - MARGIN_BYTES), end.end)
        unfinished = self._ledger.learn(seen.opened, seen.sealed)
        looked_at = set(unfinished)
        for number, sid in enumerate(unfinished, 1):
            if not self._exists(sid):
                self._ledger.drop(sid)  # `verify` reports what is gone
            else:
                self._try(sid, opened=True)
            if number % STEP == 0:
                self._pause()
        strangers = []
        for sid, sealed in self._sealer.tree.recordings(seen.first_sid, self._pause):
            if sid in looked_at or self._alive(sid):
                continue
            if sid not in seen.sealed and sid not in seen.opened and sid not in seen.removed:
                strangers.append(sid)
            elif (
                sid in seen.sealed and not sealed and sid not in seen.removed and not self._has_manifest(sid)
            ):
                self._fail(sid, _MANIFEST_IS_GONE)
        if strangers and seen.begin:
            older = self._read(0, seen.begin)
            known = (older.opened, older.sealed, older.removed)
            strangers = [sid for sid in strangers if not any(sid in sids for sids in known)]
        for sid in strangers:
            self._try(sid, opened=self._ledger.is_open(sid))
            self._pause()
        self._ledger.settle(complete=not self._left)

    def _read(self, begin: int, end: int) -> _Seen:
        """What the lines between two bytes of the ledger say. Where ``begin`` is in the middle of a line, the
        next one is the first."""
        begin = max(0, begin - 1)  # the end of the line before: then what follows is a whole one
        seen = _Seen(begin=begin)
        offset, position, rest, partial = begin, begin, b"", begin > 0
        while offset < end and (block := self._ledger.read(offset, min(STEP_BYTES, end - offset))):
            offset += len(block)
            *whole, rest = (rest + block).split(b"\n")
            for text in whole:
                if not partial:
                    seen.take(text + b"\n", position)
                position += len(text) + 1
                if partial:
                    seen.begin, partial = position, False
            self._pause()
        return seen

    def _exists(self, sid: str) -> bool:
        try:
            return os.path.lexists(self._sealer.tree.path(sid)) or self._has_manifest(sid)
        except (OSError, ValueError):
            return False

    def _has_manifest(self, sid: str) -> bool:
        return os.path.lexists(self._sealer.tree.manifest_path(sid))

    def _try(self, sid: str, *, opened: bool) -> None:
        if self._alive(sid):
            return
        try:
            if self._has_manifest(sid):
                sealed = _enter(self._sealer, sid)
            else:
                sealed = _complete(self._sealer, sid, self._pause, opened=opened)
        except (OSError, RecordingError, ValueError) as error:
            self._fail(sid, str(error))
        else:
            if sealed is not None:
                self.done.append(Recovered(sid=sid, manifest=sealed.manifest, head=sealed.head))

    def _fail(self, sid: str, problem: str) -> None:
        self._left = True
        self.done.append(Recovered(sid=sid, problem=problem))


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What a part of the ledger, from byte ``begin`` on, says of recordings: those that are still open (and
    where their lines are), and those that were sealed or removed. ``first_sid`` is the first that
    cannot be older than that part."""

    begin: int
    opened: dict[str, int] = field(default_factory=dict)
    sealed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    first_sid: str = ""

    def take(self, line: bytes, start: int) -> None:
        """The next line, which has its first byte at ``start``."""
        raw = raw_line(line)
        if raw is None:
            return  # which is for `verify` to report
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
    """The first session id that is certainly opened after a line with this time; a session has its id some
    milliseconds before its line."""
    try:
        moment = datetime.fromisoformat(time.replace("Z", "+00:00"))
        return first_at(moment + SLACK)
    except (ValueError, OverflowError):
        return ""


def _enter(sealer: Finisher, sid: str) -> Sealed | None:
    """We were stopped between the manifest and its line in the ledger, or before the plain one was gone.

    None where its writer is at work, or it is in the ledger meanwhile.
    """
    with sealer.tree.locked(sid) as is_ours:
        if not is_ours:
            return None
        document = sealer.tree.read_manifest(sid)
        manifest = Manifest.parse(document)
        sealer.keys.manifest(document)
        if manifest.sid != sid:
            raise RecordingError(
                f"the manifest is of another recording: {manifest.sid}", code=ReasonCode.MANIFEST_MISMATCH
            )
        if _is_entered(sealer, sid):
            return None
        sealed = Sealed(manifest=manifest, head=sealer.enter(sid, document))
        if manifest.encrypted:
            with sealer.tree.day(sid) as day:
                for form in (CAST, PACKED):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(sid + form, dir_fd=day)
    return sealed


def _is_entered(sealer: Finisher, sid: str) -> bool:
    """Is it in the ledger as complete? Read again, for it may have come there just now."""
    sealer.ledger.refresh()
    return sealer.ledger.is_sealed(sid)


def _complete(sealer: Finisher, sid: str, pause: Callable[[], None], *, opened: bool) -> Sealed | None:
    """None where the recording is alive, or was sealed meanwhile. ``opened``: by the ledger."""
    name = sealer.tree.path(sid).name
    with sealer.tree.day(sid) as day:
        if _exists(sid + CAST, day) and _exists(sid + PACKED, day):
            # We make one of them. Which is ours is not for us to guess, and the other one is kept.
            raise RecordingError(
                f"there are two files of one recording: {sid}{CAST} and {sid}{PACKED}",
                code=ReasonCode.RECORDING_DUPLICATE,
            )
        with open(open_regular(name, os.O_RDWR, dir_fd=day), "r+b") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            if _exists(sid + MANIFEST, day):
                return None
            if _is_entered(sealer, sid):
                raise RecordingError(_MANIFEST_IS_GONE, code=ReasonCode.MANIFEST_MISSING)
            packed = name.endswith(PACKED)
            scan = _scan(file, sid, sealer.keys, packed, pause)
            if not opened and not scan.signed and scan.lines:
                # Somebody put it there: our signature must not vouch for it.
                raise RecordingError(
                    "not recorded by this installation: it is not in the ledger and has no checkpoint",
                    code=ReasonCode.RECORDING_UNEXPLAINED,
                )
            end = b"" if scan.damaged else _end(sid, scan)
            if packed and not scan.damaged:
                with _repacked(file, name, day, scan.whole, end):
                    return sealer.seal(_manifest(sid, scan, end))
            if not scan.damaged:
                _repair(file, scan.whole, end)
            return sealer.seal(_manifest(sid, scan, end))


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _scan(file: BinaryIO, sid: str, keys: TrustedKeys, packed: bool, pause: Callable[[], None]) -> _Scan:
    file.seek(0)
    with encodings.unpacked(file, packed) as plain:
        scan = _scan_lines(plain, sid, keys, pause)
    if scan.damaged:
        # It stays as it is, and all of it is in the manifest.
        file.seek(0)
        digest, size, lines = hashlib.sha256(), 0, 0
        with encodings.unpacked(file, packed) as plain:
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
    digest, bad, damaged = hashlib.sha256(), False, ""
    paused = 0
    while line := file.readline(_LONGEST_LINE):
        first = position == 0
        position += len(line)
        if lines - paused >= STEP:
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
            bad = True
            continue
        if bad:
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


def _end(sid: str, scan: _Scan) -> bytes:
    """What is written after the last whole line, so that it plays."""
    end = b""
    if scan.header is None:
        started = int(time_of(sid).timestamp())
        end = Header(timestamp=started, ours={"sid": sid}).line()
    return end + asciicast.event_line(scan.last, asciicast.MARKER, "interrupted")


def _repair(file: BinaryIO, whole: int, end: bytes) -> None:
    # In this order a crash between the two leaves nothing worse than there was.
    os.ftruncate(file.fileno(), whole)
    file.seek(whole)
    file.write(end)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _repacked(file: BinaryIO, name: str, day: int, whole: int, end: bytes) -> Iterator[None]:
    """In the place of ``file`` there is one of its first ``whole`` bytes (unpacked) and ``end``, locked."""
    with NewFile(name, dir_fd=day) as new:
        fcntl.flock(new.file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        packer = encodings.ZstdPacker()
        file.seek(0)
        with encodings.unpacked(file, True) as plain:
            while whole and (block := plain.read(min(whole, 1024 * 1024))):
                whole -= len(block)
                new.file.write(packer.pack((block,)))
        new.file.write(packer.pack((end,)) + packer.cut())
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
    """Kind and command of what ran last: the header's, or those of a later start."""
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
