"""What is removed when: by age, by size, and never while it is held.

Before anything is removed the ledger says so, with the reason: a tombstone, signed like the rest. Under its
lock the ledger looks again whether the recording is held. Recordings that are being written, or that wait to
be completed, stay. All of it blocks; ``pause`` is called after each millisecond or so of work.
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
from conchrec.recording.storage.layout import STEP, RecordingTree

_AT_ONCE = 8
"""Manifests that are read and checked between two pauses."""
_HOLDS = (b'"act":"held"', b'"act":"released"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A recording that may go. ``size`` is in bytes, of its files."""

    sid: str
    size: int
    reason: str


def held(path: Path, pause: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Session ids that must not be removed, and why; from the ledger at ``path``. Raises OSError."""
    found: dict[str, str] = {}
    for number, text in enumerate(ledger.lines(path), 1):
        if number % (8 * STEP) == 0:
            pause()
        if not any(act in text for act in _HOLDS):
            continue
        try:
            line = LedgerLine.parse(text)
        except BrokenLedger:
            continue  # which is for `verify` to say
        if line.act is LedgerAction.HELD:
            found[line.sid] = line.reason
        elif line.act is LedgerAction.RELEASED:
            found.pop(line.sid, None)
    return found


def expired(
    tree: RecordingTree,
    keys: TrustedKeys,
    now: datetime,
    *,
    age: timedelta | None,
    size: int,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[Expired]:
    """What is older than ``age``, and the oldest while all together have more than ``size`` bytes (0: any).

    Only what is signed counts, and goes: nobody makes us remove a recording, with a tombstone of ours, by a
    date or a size that they wrote themselves. Oldest first. Raises OSError.
    """
    kept = held(tree.root / ledger.NAME, pause)
    found: list[tuple[str, datetime, int]] = []
    for sid, sealed in tree.recordings(pause=pause):
        if sealed and (size or (age is not None and now - time_of(sid) > age)):
            with contextlib.suppress(OSError, RecordingError):  # which is for `verify` to say
                found.append((sid, *_signed(tree, keys, sid)))
            if len(found) % _AT_ONCE == 0:
                pause()
    total = sum(taken for _, _, taken in found)
    for sid, ended, taken in found:
        if sid in kept:
            continue
        if age is not None and now - ended > age:
            reason = f"older than {_days(age)}"
        elif size and total > size:
            reason = f"all recordings together are larger than {size} bytes"
        else:
            continue
        total -= taken
        yield Expired(sid=sid, size=taken, reason=reason)


def remove(tree: RecordingTree, book: Ledger, sid: str, *, reason: str, by: str) -> None:
    """A tombstone, and then it is gone. Raises OSError, BrokenLedger, and NotAllowed where it is held."""
    try:
        manifest = hashlib.sha256(tree.read_manifest(sid)).hexdigest()
    except FileNotFoundError:
        manifest = ""
    book.append(LedgerAction.REMOVED, sid, manifest=manifest, reason=reason, by=by)
    book.sync()
    tree.remove(sid)


def _signed(tree: RecordingTree, keys: TrustedKeys, sid: str) -> tuple[datetime, int]:
    """When it ended, and the bytes of the recording's files."""
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
