"""Retention: what is removed when, and what is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from conchrec.recording import retention
from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.ledger import Ledger, LedgerAction
from conchrec.recording.evidence.ledger_reader import LedgerReader
from conchrec.recording.evidence.recent_entries import NotAllowed
from conchrec.recording.evidence.verify import Verifier
from conchrec.recording.storage.layout import RecordingTree
from tests.recording.recording_bench import NOON, SIGNER, Bench


def record(bench: Bench, day: int) -> str:
    """Make a recording that began and ended so many days after the first."""
    bench.wall = NOON + timedelta(days=day)
    recorder = bench.recorder()
    recorder.start("shell")
    recorder.output(b"x" * 1000)
    return bench.close(recorder).manifest.sid


def go(bench: Bench, **limits: object) -> list[str]:
    tree = RecordingTree(bench.directory)
    age, size = limits.get("age"), limits.get("size", 0)
    assert (age is None or isinstance(age, timedelta)) and isinstance(size, int)
    return [
        recording.sid
        for recording in retention.expired_recordings(tree, SIGNER.keys(), bench.now(), age=age, size=size)
    ]


def remove(bench: Bench, sid: str) -> None:
    book = Ledger(bench.directory, SIGNER, bench.now)
    retention.remove(RecordingTree(bench.directory), book, sid, reason="older than 30d", by="conchrec")


def hold(bench: Bench, sid: str, act: LedgerAction = LedgerAction.HELD) -> None:
    Ledger(bench.directory, SIGNER, bench.now).append(act, sid, reason="case 7", by="joe")


def test_expires_by_age(bench: Bench) -> None:
    sids = [record(bench, day) for day in range(4)]
    assert go(bench, age=timedelta(days=2)) == sids[:1]
    assert go(bench, age=timedelta(days=2, seconds=-1)) == sids[:2]
    assert go(bench) == []


def test_counts_age_from_the_end_of_a_session(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    bench.clock.advance(10 * 86400)
    closed = bench.close(recorder)
    bench.clock.advance(86400)
    assert go(bench, age=timedelta(days=2)) == []
    assert go(bench, age=timedelta(hours=23)) == [closed.manifest.sid]


def test_expires_by_size(bench: Bench) -> None:
    sids = [record(bench, day) for day in range(4)]
    files = [path for path in bench.directory.rglob("*") if path.is_file() and path.name != ledger.NAME]
    total = sum(path.stat().st_size for path in files)
    assert go(bench, size=total) == []
    assert go(bench, size=total - 1) == sids[:1]
    assert go(bench, size=1) == sids


def test_keeps_recording_that_is_open_or_incomplete(bench: Bench) -> None:
    live = bench.recorder()
    live.start("shell")
    dead = bench.recorder()
    dead.spool.close()
    bench.wall = NOON + timedelta(days=400)
    assert go(bench, age=timedelta(days=1)) == []


def test_ignores_unsigned_dates_and_sizes(bench: Bench) -> None:
    """Neither a date nor a size counts that is not signed by us."""
    sids = [record(bench, day) for day in range(3)]
    path = RecordingTree(bench.directory).manifest_path(sids[0])
    path.write_bytes(path.read_bytes().replace(b'"ended": "2026', b'"ended": "2006'))
    assert go(bench, age=timedelta(days=1, seconds=1)) == []
    copy = RecordingTree(bench.directory).path(sids[1])
    big = copy.with_name("0" + copy.name[1:])
    big.write_bytes(copy.read_bytes() * 1000)
    big.with_suffix(".json").write_bytes(
        copy.with_suffix(".json").read_bytes().replace(b'"size": ', b'"size": 9')
    )
    assert go(bench, size=10**6) == []


def test_keeps_held_recording_until_release(bench: Bench) -> None:
    held, free = record(bench, 0), record(bench, 0)
    bench.wall = NOON + timedelta(days=400)
    hold(bench, held)
    assert retention.held_recordings(bench.directory / ledger.NAME) == {held: "case 7"}
    assert go(bench, age=timedelta(days=1), size=1) == [free]
    hold(bench, held, LedgerAction.RELEASED)
    assert go(bench, age=timedelta(days=1)) == sorted([held, free])


@pytest.mark.parametrize("held", [False, True])
def test_writes_tombstone(bench: Bench, held: bool) -> None:
    sid, other = record(bench, 0), record(bench, 1)
    if held:
        hold(bench, sid)
    remove(bench, sid)
    assert [path.name for path in bench.directory.rglob(f"{sid}*")] == []
    book = LedgerReader(bench.directory / ledger.NAME, SIGNER.keys())
    results = Verifier(SIGNER.keys(), (), bench.now).directory(book, bench.directory)
    verdicts = {verdict.sid: verdict for verdict in results}
    assert book.problems == [] and verdicts[other].ok
    assert verdicts[sid].status == "removed"
    assert verdicts[sid].problems == (("removed although line 5 of the ledger held it",) if held else ())
    last = (bench.directory / ledger.NAME).read_text().splitlines()[-1]
    assert '"act":"removed"' in last and '"reason":"older than 30d"' in last


def test_removes_recording_after_a_stop_behind_its_tombstone(bench: Bench) -> None:
    """It still exists, and is removed the next time."""
    sid = record(bench, 0)
    Ledger(bench.directory, SIGNER, bench.now).append(LedgerAction.REMOVED, sid, reason="x", by="y")
    bench.wall = NOON + timedelta(days=400)
    assert go(bench, age=timedelta(days=1)) == [sid]
    remove(bench, sid)
    assert go(bench, age=timedelta(days=1)) == []
    assert list(Path(bench.directory).rglob("*.cast")) == []


def test_keeps_recording_held_after_it_was_chosen(bench: Bench) -> None:
    """Two administrators: one prunes, the other holds. The ledger decides, under its lock."""
    sid = record(bench, 0)
    pruning = Ledger(bench.directory, SIGNER, bench.now)
    pruning.refresh()
    hold(bench, sid)
    assert pruning.is_held(sid)
    with pytest.raises(NotAllowed, match="is held"):
        retention.remove(RecordingTree(bench.directory), pruning, sid, reason="old", by="conchrec")
    assert RecordingTree(bench.directory).path(sid).exists()
    hold(bench, sid, LedgerAction.RELEASED)
    retention.remove(RecordingTree(bench.directory), pruning, sid, reason="old", by="conchrec")


def test_refuses_hold_of_a_removed_recording(bench: Bench) -> None:
    sid = record(bench, 0)
    holding = Ledger(bench.directory, SIGNER, bench.now)
    holding.refresh()
    remove(bench, sid)
    with pytest.raises(NotAllowed, match="has been removed"):
        holding.append(LedgerAction.HELD, sid, reason="case 8", by="joe")


def test_reads_old_recordings_in_small_steps(bench: Bench) -> None:
    sids = [record(bench, 0) for _ in range(40)]
    pauses: list[None] = []
    expired = retention.expired_recordings(
        RecordingTree(bench.directory),
        SIGNER.keys(),
        bench.now(),
        age=None,
        size=1,
        pause=lambda: pauses.append(None),
    )
    assert [recording.sid for recording in expired] == sorted(sids)
    assert len(pauses) >= 40 / 8
