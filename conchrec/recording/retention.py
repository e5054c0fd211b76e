"""Removes old recordings: by age and by size, and never while they are held.

Before a recording is removed, the ledger gets a signed line with the reason. Under its lock the ledger checks
again whether the recording is held. Recordings that are being written, or that wait to be completed, stay.
All of it blocks; ``pause`` is called after each millisecond or so of work.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.ledger import BrokenLedger, Ledger, LedgerAction, LedgerLine
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.format.session_id import time_of
from conchrec.recording.format.signatures import TrustedKeys
from conchrec.recording.storage.layout import PAUSE_STEP, RecordingTree

_BATCH = 8
"""The manifests that are read and checked between two pauses."""
_HOLDS = (b'"act":"held"', b'"act":"released"')


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredRecording:
    """A recording that may be removed. ``size`` is the number of bytes of its files."""

    sid: str
    size: int
    reason: str


def held_recordings(path: Path, pause: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Return the session ids that must not be removed, and why, from the ledger at ``path``. Raises
    OSError."""
    reasons: dict[str, str] = {}
    for number, text in enumerate(ledger.lines(path), 1):
        if number % (8 * PAUSE_STEP) == 0:
            pause()
        if not any(act in text for act in _HOLDS):
            continue
        try:
            line = LedgerLine.parse(text)
        except BrokenLedger:
            continue  # `verify` reports this
        if line.act is LedgerAction.HELD:
            reasons[line.sid] = line.reason
        elif line.act is LedgerAction.RELEASED:
            reasons.pop(line.sid, None)
    return reasons


def expired_recordings(
    tree: RecordingTree,
    keys: TrustedKeys,
    now: datetime,
    *,
    age: timedelta | None,
    size: int,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[ExpiredRecording]:
    """Yield recordings that are older than ``age``, and the oldest ones while all together have more than
    ``size`` bytes (0: no limit). Oldest first. Raises OSError.

    Only signed manifests count. Nobody can make conchrec remove a recording, and sign that, with a date or a
    size that they wrote themselves.
    """
    kept = held_recordings(tree.root / ledger.NAME, pause)
    candidates: list[tuple[str, datetime, int]] = []
    for sid, sealed in tree.recordings(pause=pause):
        if sealed and (size or (age is not None and now - time_of(sid) > age)):
            with contextlib.suppress(OSError, RecordingError):  # `verify` reports this
                candidates.append((sid, *_read_signed(tree, keys, sid)))
            if len(candidates) % _BATCH == 0:
                pause()
    total = sum(bytes_used for _, _, bytes_used in candidates)
    for sid, ended, bytes_used in candidates:
        if sid in kept:
            continue
        if age is not None and now - ended > age:
            reason = f"older than {_days(age)}"
        elif size and total > size:
            reason = f"all recordings together are larger than {size} bytes"
        else:
            continue
        total -= bytes_used
        yield ExpiredRecording(sid=sid, size=bytes_used, reason=reason)


def remove(tree: RecordingTree, book: Ledger, sid: str, *, reason: str, by: str) -> None:
    """Add the line to the ledger, then remove the recording. Raises OSError, BrokenLedger, and NotAllowed
    where it is held."""
    try:
        manifest = hashlib.sha256(tree.read_manifest(sid)).hexdigest()
    except FileNotFoundError:
        manifest = ""
    book.append(LedgerAction.REMOVED, sid, manifest=manifest, reason=reason, by=by)
    book.sync()
    tree.remove(sid)


def _read_signed(tree: RecordingTree, keys: TrustedKeys, sid: str) -> tuple[datetime, int]:
    """Return when the recording ended, and the bytes of its files, from its signed manifest."""
    document = tree.read_manifest(sid)
    keys.manifest(document)
    manifest = Manifest.parse(document)
    if manifest.sid != sid:
        raise RecordingError(
            f"the manifest is of another recording: {manifest.sid}", code=ReasonCode.MANIFEST_MISMATCH
        )
    recording = manifest.stored.size if manifest.stored is not None else manifest.cast_size
    return manifest.ended, len(document) + recording


def _days(age: timedelta) -> str:
    return f"{age.days}d" if age.days and not age.seconds else f"{int(age.total_seconds())}s"
