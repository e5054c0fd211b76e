"""Completes what an earlier process left behind: killed, out of power, or out of disk.

A cast without a manifest, that no living process holds the lock of, was interrupted. Its torn last
line goes, a header comes if there was none, a marker makes sure that it plays, and a manifest says
*interrupted*. Nothing else is ever removed: a file with unreadable lines in its middle stays exactly
as it is, with a manifest that says *damaged*. What can not be completed does not stop the rest.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO

from conchrec.errors import RecordingError
from conchrec.recording import asciicast
from conchrec.recording.asciicast import Damaged, Event, Header
from conchrec.recording.manifest import Manifest, Status
from conchrec.recording.session_id import time_of
from conchrec.recording.tree import CAST, MANIFEST, Tree

_LONGEST_LINE = 64 * 1024 * 1024
REASON = "conchrec was stopped while the session ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of one recording: its new manifest, or the problem that is still there."""

    sid: str
    manifest: Manifest | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """What a file holds: ``whole`` bytes of good lines from its start."""

    header: Header | None
    last: float
    whole: int
    damaged: bool


def recover(tree: Tree, alive: Callable[[str], bool] = lambda sid: False) -> tuple[Recovered, ...]:
    """Complete every interrupted recording. Blocks: for a thread, or before the reactor runs.

    ``alive`` names those of this very process, which the lock would tell too, but for the moment
    between making the file and locking it.
    """
    done = []
    for sid, sealed in tree.recordings():
        if not sealed and not alive(sid):
            try:
                manifest = _complete(tree, sid)
            except (OSError, RecordingError, ValueError) as error:
                done.append(Recovered(sid=sid, problem=str(error)))
            else:
                if manifest is not None:
                    done.append(Recovered(sid=sid, manifest=manifest))
    return tuple(done)


def _complete(tree: Tree, sid: str) -> Manifest | None:
    """The new manifest; None where the recording is alive, or was sealed meanwhile."""
    with tree.day(sid) as day:
        descriptor = os.open(sid + CAST, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=day)
        with open(descriptor, "r+b") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            if _exists(sid + MANIFEST, day):
                return None
            scan = _scan(file)
            if not scan.damaged:
                _repair(file, sid, scan)
            manifest = _manifest(file, sid, scan)
            tree.place(sid + MANIFEST, sid, manifest.encode())
            return manifest


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _scan(file: BinaryIO) -> _Scan:
    header: Header | None = None
    last, whole, position = 0.0, 0, 0
    bad = damaged = False
    file.seek(0)
    while line := file.readline(_LONGEST_LINE):
        first = position == 0
        position += len(line)
        try:
            if not line.endswith(b"\n"):
                raise Damaged("torn")
            if first:
                header = Header.parse(line)
            else:
                last = max(last, Event.parse(line).time)
        except Damaged:
            bad = True
            continue
        if bad:
            damaged = True  # good lines after bad ones: this is no torn end
            break
        whole = position
    return _Scan(header=header, last=last, whole=whole, damaged=damaged)


def _repair(file: BinaryIO, sid: str, scan: _Scan) -> None:
    end = b""
    if scan.header is None:
        started = int(time_of(sid).timestamp())
        end = Header(timestamp=started, ours={"sid": sid}).line()
    end += asciicast.event_line(scan.last, asciicast.MARKER, "interrupted")
    # In this order a crash between the two leaves nothing worse than there was.
    os.ftruncate(file.fileno(), scan.whole)
    file.seek(scan.whole)
    file.write(end)
    file.flush()
    os.fsync(file.fileno())


def _manifest(file: BinaryIO, sid: str, scan: _Scan) -> Manifest:
    digest, size = hashlib.sha256(), 0
    file.seek(0)
    while block := file.read(1024 * 1024):
        digest.update(block)
        size += len(block)
    started = time_of(sid)
    ours: Mapping[str, object] = scan.header.ours if scan.header else {}
    kind = _text(ours, "kind")
    return Manifest(
        sid=sid,
        status=Status.DAMAGED if scan.damaged else Status.INTERRUPTED,
        reason="the file has lines that can not be read" if scan.damaged else REASON,
        started=started,
        ended=started + timedelta(seconds=min(scan.last, timedelta(days=36500).total_seconds())),
        cast_size=size,
        cast_sha256=digest.hexdigest(),
        cid=_text(ours, "cid"),
        user=_text(ours, "user"),
        login=_text(ours, "login"),
        target=_text(ours, "target"),
        address=_text(ours, "address"),
        kind=kind,
        command=_text(ours, "subsystem") or (scan.header.command if scan.header else ""),
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
