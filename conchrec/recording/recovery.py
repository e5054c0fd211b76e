"""Completes what an earlier process left behind: killed, out of power, or out of disk.

A cast without a manifest, that no living process holds the lock of, was interrupted. Its torn last
line goes, a header comes if there was none, a marker makes sure that it plays, and a manifest says
*interrupted*, and how much of the end no checkpoint covers. Nothing else is ever removed: a file with
unreadable lines in its middle, or one that its checkpoints do not fit, stays exactly as it is, with a
manifest that says *damaged*. What can not be completed does not stop the rest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import BinaryIO

from conchrec.errors import RecordingError
from conchrec.recording import asciicast, forms, ledger
from conchrec.recording.asciicast import Damaged, Event, Header
from conchrec.recording.coverage import NotKept
from conchrec.recording.ledger import Act, BrokenLedger, Line
from conchrec.recording.manifest import Manifest, Status
from conchrec.recording.seal import CHECKPOINT, Keys, NotSigned
from conchrec.recording.sealing import Sealed, Sealer
from conchrec.recording.session_id import time_of
from conchrec.recording.tree import CAST, MANIFEST, PACKED

_LONGEST_LINE = 64 * 1024 * 1024
REASON = "conchrec was stopped while the session ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of one recording: its new manifest, or the problem that is still there."""

    sid: str
    manifest: Manifest | None = None
    problem: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """What a file holds: ``whole`` bytes of good lines from its start, ``lines`` of them; the last
    checkpoint stands at the end of the first ``signed``. ``damaged`` says why it is left as it is."""

    header: Header | None
    last: float
    whole: int
    lines: int
    signed: int
    digest: hashlib._Hash
    damaged: str


def recover(sealer: Sealer, alive: Callable[[str], bool] = lambda sid: False) -> tuple[Recovered, ...]:
    """Complete every interrupted recording. Blocks: for a thread, or before the reactor runs.

    ``alive`` names those of this very process, which the lock would tell too, but for the moment
    between making the file and locking it.
    """
    done = []
    entered = _entered(sealer)
    for sid, sealed in sealer.tree.recordings():
        try:
            if sealed:
                manifest = None if sid in entered else _enter(sealer, sid)
            elif alive(sid):
                manifest = None
            elif sid in entered:
                raise RecordingError("its manifest is gone: it was complete, and is not completed again")
            else:
                manifest = _complete(sealer, sid)
        except (OSError, RecordingError, ValueError) as error:
            done.append(Recovered(sid=sid, problem=str(error)))
        else:
            if manifest is not None:
                done.append(Recovered(sid=sid, manifest=manifest.manifest, head=manifest.head))
    return tuple(done)


def _entered(sealer: Sealer) -> set[str]:
    """The recordings that were complete, as the ledger knows them."""
    entered = set()
    try:
        for line in ledger.lines(sealer.ledger.path):
            with contextlib.suppress(BrokenLedger):  # which is for `verify` to say
                found = Line.parse(line)
                if found.act is Act.SEALED:
                    entered.add(found.sid)
    except OSError:
        pass
    return entered


def _enter(sealer: Sealer, sid: str) -> Sealed | None:
    """We were stopped between the manifest and its line in the ledger, or before the plain one was gone."""
    document = sealer.tree.manifest_path(sid).read_bytes()
    manifest = Manifest.parse(document)
    sealer.keys.manifest(document)
    if manifest.sid != sid:
        raise RecordingError("its manifest is of another recording")
    sealed = Sealed(manifest=manifest, head=sealer.enter(sid, document))
    if manifest.encrypted:
        with sealer.tree.day(sid) as day:
            for form in (CAST, PACKED):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(sid + form, dir_fd=day)
    return sealed


def _complete(sealer: Sealer, sid: str) -> Sealed | None:
    """None where the recording is alive, or was sealed meanwhile."""
    name = sealer.tree.path(sid).name
    with sealer.tree.day(sid) as day:
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=day)
        with open(descriptor, "r+b") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            if _exists(sid + MANIFEST, day):
                return None
            packed = name.endswith(PACKED)
            scan = _scan(file, sid, sealer.keys, packed)
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


def _scan(file: BinaryIO, sid: str, keys: Keys, packed: bool) -> _Scan:
    file.seek(0)
    with forms.unpacked(file, packed) as plain:
        scan = _scan_lines(plain, sid, keys)
    if scan.damaged:
        # It stays as it is, and all of it is in the manifest.
        file.seek(0)
        digest, size, lines = hashlib.sha256(), 0, 0
        with forms.unpacked(file, packed) as plain:
            while block := plain.read(1024 * 1024):
                digest.update(block)
                size += len(block)
                lines += block.count(b"\n")
        scan = replace(scan, whole=size, lines=lines, digest=digest)
    return scan


def _scan_lines(file: BinaryIO, sid: str, keys: Keys) -> _Scan:
    header: Header | None = None
    last, whole, lines, signed, position = 0.0, 0, 0, 0, 0
    digest, bad, damaged = hashlib.sha256(), False, ""
    while line := file.readline(_LONGEST_LINE):
        first = position == 0
        position += len(line)
        try:
            if not line.endswith(b"\n"):
                raise Damaged("torn")
            if first:
                header = Header.parse(line)
            else:
                event = Event.parse(line)
                last = max(last, event.time)
        except Damaged:
            bad = True
            continue
        if bad:
            damaged = "the file has lines that can not be read"  # good ones after them: this is no torn end
            break
        if not first and event.code == CHECKPOINT:
            try:
                point = keys.checkpoint(sid, event.text)
            except NotSigned as error:
                damaged = error.public
                break
            if (point.size, point.sha256) != (whole, digest.hexdigest()):
                damaged = "what was recorded was changed: a checkpoint does not match"
                break
            signed = position
        digest.update(line)
        whole, lines = position, lines + 1
    return _Scan(
        header=header, last=last, whole=whole, lines=lines, signed=signed, digest=digest, damaged=damaged
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
    new = f".{name}.new"
    descriptor = os.open(
        new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=day
    )
    with open(descriptor, "wb") as sink:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        packer = forms.ZstdPacker()
        file.seek(0)
        with forms.unpacked(file, True) as plain:
            while whole and (block := plain.read(min(whole, 1024 * 1024))):
                whole -= len(block)
                sink.write(packer.pack((block,)))
        sink.write(packer.pack((end,)) + packer.cut())
        sink.flush()
        os.fsync(descriptor)
        os.rename(new, name, src_dir_fd=day, dst_dir_fd=day)
        yield


def _manifest(sid: str, scan: _Scan, end: bytes) -> Manifest:
    digest = scan.digest.copy()
    digest.update(end)
    size = scan.whole + len(end)
    started = time_of(sid)
    ours: Mapping[str, object] = scan.header.ours if scan.header else {}
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
        kind=_text(ours, "kind"),
        command=_text(ours, "subsystem") or (scan.header.command if scan.header else ""),
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
