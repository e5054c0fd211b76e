"""Recovery of the recordings that an earlier process did not complete."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.provenance import Provenance
from conchrec.recording import retention
from conchrec.recording.catalogue.library import Library
from conchrec.recording.evidence.continuity import STEP_BYTES
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.evidence.heads import HeadFile
from conchrec.recording.evidence.ledger import NAME, Ledger, LedgerAction, LedgerLine
from conchrec.recording.evidence.ledger import lines as lines_of
from conchrec.recording.evidence.ledger_reader import LedgerReader
from conchrec.recording.evidence.verify import Verifier, VerifyResult
from conchrec.recording.format.asciicast import Header
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.recovery import Recovered, RecoveryStopped, recover
from conchrec.recording.storage.layout import PAUSE_STEP, RecordingTree
from tests.recording.recording_bench import NOON, SIGNER, Bench, cast, events, output, result

HEADER = (
    b'{"version":2,"width":80,"height":24,"timestamp":1795435200,"conchrec":{"user":"joe","kind":"shell"}}\n'
)
EVENTS = b'[0.500000, "o", "one"]\n[1.250000, "o", "two"]\n'


def _left_behind(bench: Bench, contents: bytes, *, opened: bool = True) -> Path:
    """A cast of a dead process; ``opened``: with its line in the ledger."""
    path = bench.store().path(new_session_id(NOON))
    path.parent.mkdir(parents=True, exist_ok=True)
    if opened:
        Ledger(bench.directory, SIGNER, bench.now).append(LedgerAction.OPEN, path.stem)
    path.write_bytes(contents)
    return path


def _only(recovered: tuple[Recovered, ...]) -> Manifest:
    assert len(recovered) == 1 and recovered[0].manifest is not None, recovered
    return recovered[0].manifest


def test_completes_recording_of_a_dead_process(bench: Bench) -> None:
    path = _left_behind(bench, HEADER + EVENTS)
    manifest = _only(bench.recover())
    assert events(path) == [("o", "one"), ("o", "two"), ("m", "interrupted")]
    assert manifest == Manifest.parse(path.with_suffix(".json").read_bytes())
    assert (manifest.status, manifest.user, manifest.kind) == (Status.INTERRUPTED, "joe", "shell")
    assert (manifest.started, manifest.ended) == (NOON, NOON + timedelta(seconds=1.25))
    assert manifest.cast_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.cast_size == path.stat().st_size
    assert manifest.stdout is None
    assert path.with_suffix(".json").stat().st_mode & 0o777 == 0o600


@given(st.integers(0, len(HEADER + EVENTS)))
def test_completes_recording_killed_anywhere(tmp_path_factory: pytest.TempPathFactory, where: int) -> None:
    bench = Bench(directory=tmp_path_factory.mktemp("recordings"))
    path = _left_behind(bench, (HEADER + EVENTS)[:where])
    assert _only(bench.recover()).status is Status.INTERRUPTED
    expected = "".join(
        text for end, text in ((len(HEADER) + 23, "one"), (len(HEADER + EVENTS), "two")) if where >= end
    )
    header, _ = cast(path)
    assert output(path) == expected
    assert events(path)[-1] == ("m", "interrupted")
    assert header.timestamp == NOON.timestamp()


def test_removes_tail_of_zeros_after_a_power_cut(bench: Bench) -> None:
    path = _left_behind(bench, HEADER + EVENTS + b"\0" * 5000 + b"\n\0\0")
    assert _only(bench.recover()).status is Status.INTERRUPTED
    assert output(path) == "onetwo"


def test_keeps_unreadable_lines_in_the_middle(bench: Bench) -> None:
    contents = HEADER + b"\0\0\0\n" + EVENTS
    path = _left_behind(bench, contents)
    assert _only(bench.recover()).status is Status.DAMAGED
    assert path.read_bytes() == contents


def test_keeps_events_behind_a_lost_header(bench: Bench) -> None:
    contents = b"\0" * 50 + b"\n" + EVENTS
    path = _left_behind(bench, contents)
    assert _only(bench.recover()).status is Status.DAMAGED
    assert path.read_bytes() == contents


def test_adds_header_to_an_empty_file(bench: Bench) -> None:
    path = _left_behind(bench, b"")
    manifest = _only(bench.recover())
    header, rest = cast(path)
    assert header.ours == {"sid": path.stem} and header.timestamp == NOON.timestamp()
    assert [event.code for event in rest] == ["m"]
    assert (manifest.started, manifest.duration) == (NOON, 0)


def test_recovers_once(bench: Bench) -> None:
    path = _left_behind(bench, HEADER)
    bench.recover()
    before = path.read_bytes()
    assert bench.recover() == ()
    assert path.read_bytes() == before


def test_completes_recovery_that_was_killed(bench: Bench) -> None:
    """Killed after its marker, and with half a manifest under its temporary name."""
    path = _left_behind(bench, HEADER + EVENTS + b'[1.250000, "m", "interrupted"]\n')
    path.with_name(f"{path.stem}.json.new").write_bytes(b'{"vers')
    assert _only(bench.recover()).status is Status.INTERRUPTED
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.stem}.json"]


def test_leaves_recording_alone_that_is_being_written(bench: Bench) -> None:
    store = bench.store()
    recorders = [store.open(bench.info()) for _ in range(2)]
    recorders[0].start("shell")
    before = [recorder.path.read_bytes() for recorder in recorders]
    assert bench.recover() == ()
    assert [recorder.path.read_bytes() for recorder in recorders] == before
    for recorder in recorders:
        bench.close(recorder)
    assert bench.recover() == ()


def test_completes_others_beside_a_damaged_one(bench: Bench, tmp_path: Path) -> None:
    paths = [_left_behind(bench, HEADER + EVENTS) for _ in range(4)]
    victim = tmp_path / "victim"
    victim.write_bytes(HEADER)
    paths[0].unlink()
    paths[0].symlink_to(victim)
    paths[1].unlink()
    paths[1].mkdir()
    paths[2].unlink()
    os.mkfifo(paths[2])
    recovered = {item.sid: item for item in bench.recover()}
    assert len(recovered) == 4
    for path in paths[:3]:
        assert recovered[path.stem].problem and recovered[path.stem].manifest is None
    assert recovered[paths[3].stem].manifest is not None
    assert victim.read_bytes() == HEADER


def test_ignores_files_of_others(bench: Bench, tmp_path: Path) -> None:
    path = _left_behind(bench, HEADER)
    path.with_name("notes.txt").write_text("hello")
    path.with_name("x.cast").write_text("hello")
    elsewhere = path.parent.parent / "24"
    elsewhere.mkdir()
    misplaced = elsewhere / path.name
    misplaced.write_bytes(HEADER)
    (bench.directory / "lost+found").mkdir()
    (bench.directory / "2026" / "readme").write_text("hello")
    other = tmp_path / "other"
    other.mkdir()
    (other / path.name).write_bytes(HEADER)
    (path.parent.parent / "25").symlink_to(other)
    assert [item.sid for item in bench.recover()] == [path.stem]
    assert misplaced.read_bytes() == HEADER and (other / path.name).read_bytes() == HEADER


def test_does_nothing_without_a_directory(bench: Bench) -> None:
    assert bench.recover() == ()
    assert not bench.directory.exists()


def test_accepts_absurd_time(bench: Bench) -> None:
    _left_behind(bench, HEADER + b'[1e300, "o", "x"]\n')
    assert _only(bench.recover()).status is Status.INTERRUPTED


def test_names_last_start_of_an_interrupted_recording(bench: Bench) -> None:
    """The header has the first start, which the target refused."""
    start = b'{\\"kind\\": \\"exec\\", \\"command\\": \\"evil\\", \\"command_sha256\\": \\"\\"}'
    _left_behind(bench, HEADER + EVENTS + b'[1.250000, "s", "' + start + b'"]\n')
    (recovered,) = bench.recover()
    assert recovered.manifest is not None
    assert (recovered.manifest.kind, recovered.manifest.command) == ("exec", "evil")
    _left_behind(bench, HEADER + EVENTS + b'[1.250000, "s", "[nonsense"]\n')
    (recovered,) = bench.recover()
    assert recovered.manifest is not None
    assert recovered.manifest.command != "evil"


def test_accepts_headers_with_values_of_any_type(bench: Bench) -> None:
    _left_behind(bench, b'{"version":2,"width":80,"height":24,"env":5,"conchrec":{"user":5,"kind":null}}\n')
    assert _only(bench.recover()).user == ""


# -- sessions that end, begin or are removed while a recovery runs


def _forge(bench: Bench, contents: bytes) -> Path:
    return _left_behind(bench, contents, opened=False)


def _book(bench: Bench) -> LedgerReader:
    return LedgerReader(bench.directory / NAME, SIGNER.keys())


def _sealed(bench: Bench, sid: str) -> int:
    lines = [LedgerLine.parse(text) for text in lines_of(bench.directory / NAME)]
    return sum(line.act is LedgerAction.SEALED and line.sid == sid for line in lines)


@pytest.mark.parametrize("when", range(6))
def test_enters_no_session_twice_that_ends_between_two_steps(bench: Bench, when: int) -> None:
    """The session ends at each of the moments at which other threads run."""
    store = bench.store()
    recorder = store.open(bench.info())
    recorder.start("shell")
    _left_behind(bench, HEADER + EVENTS)
    steps = 0

    def pause() -> None:
        nonlocal steps
        if steps == when:
            bench.close(recorder)
        steps += 1

    def alive(sid: str) -> bool:
        pause()
        return sid == recorder.info.sid and not closed()

    def closed() -> bool:
        return recorder.path.with_suffix(".json").exists()

    finisher = Finisher(RecordingTree(bench.directory), SIGNER, bench.now)
    recover(finisher, alive, pause)
    if not closed():
        bench.close(recorder)
    assert _sealed(bench, recorder.info.sid) == 1
    assert bench.verify(recorder.info.sid).ok


def test_enters_no_session_twice_that_is_sealed_by_the_same_store(bench: Bench) -> None:
    """The lines of the ledger are read, then a session ends, then the directory is read."""
    store = bench.store()
    for _ in range(3):
        bench.close(store.open(bench.info()))
    recorder = store.open(bench.info())
    recorder.start("shell")
    real = RecordingTree.recordings

    def recordings(self: RecordingTree, *args: Any, **named: Any) -> Iterator[tuple[str, bool]]:
        bench.close(recorder)
        bench.close(store.open(bench.info()))
        yield from real(self, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordingTree, "recordings", recordings)
        assert result(store.recover()) == ()
    assert _book(bench).problems == []
    assert all(verdict.ok and not verdict.notes for verdict in _verdicts(bench))


def test_recovers_in_two_processes_at_once(bench: Bench) -> None:
    paths = [_left_behind(bench, HEADER + EVENTS) for _ in range(4)]
    other = Finisher(RecordingTree(bench.directory), SIGNER, bench.now)
    others: list[Recovered] = []

    def pause() -> None:
        if not others:
            others.extend(recover(other))

    finisher = Finisher(RecordingTree(bench.directory), SIGNER, bench.now)
    ours = recover(finisher, pause=pause)
    assert {item.sid for item in (*ours, *others)} == {path.stem for path in paths}
    assert len(ours) + len(others) == 4
    assert all(_sealed(bench, path.stem) == 1 for path in paths)
    assert all(verdict.ok for verdict in _verdicts(bench))


def test_leaves_manifest_alone_whose_writer_has_the_lock(bench: Bench) -> None:
    """The writer adds the line itself."""
    store = bench.store()
    recorder = store.open(bench.info())
    recorder.start("shell")
    closed = bench.close(recorder)
    path = bench.directory / NAME
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with closed.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert bench.recover() == () and _sealed(bench, closed.manifest.sid) == 0
    assert len(bench.recover()) == 1 and _sealed(bench, closed.manifest.sid) == 1


def test_accepts_recording_that_an_earlier_release_entered_twice(bench: Bench) -> None:
    closed = bench.close(bench.recorder())
    manifest = closed.path.with_suffix(".json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    Ledger(bench.directory, SIGNER, bench.now).append(
        LedgerAction.SEALED, closed.manifest.sid, manifest=digest
    )
    verdict = bench.verify(closed.manifest.sid)
    assert verdict.ok
    assert verdict.notes == ("completed twice with the same manifest, in lines 2 and 3 of the ledger",)
    other = Ledger(bench.directory, SIGNER, bench.now)
    other.append(LedgerAction.SEALED, closed.manifest.sid, manifest="0" * 64)
    assert not bench.verify(closed.manifest.sid).ok


# -- what is read, and in which steps


def _settled_bench(bench: Bench, count: int) -> tuple[Finisher, HeadFile]:
    """A directory with so many recordings, made by a service that was stopped."""
    state = bench.directory.parent / "state"
    state.mkdir()
    heads = HeadFile(state)
    finisher = Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads)
    bench.directory.mkdir()
    recover(finisher)
    chance = random.Random(5)
    day = RecordingTree(bench.directory).path(new_session_id(bench.now())).parent
    day.mkdir(parents=True)
    for _ in range(count):
        bench.clock.advance(chance.random() / 10)
        sid = new_session_id(bench.now())
        (day / f"{sid}.cast").touch()
        (day / f"{sid}.json").touch()
        finisher.ledger.append(LedgerAction.OPEN, sid)
        finisher.ledger.append(LedgerAction.SEALED, sid, manifest="0" * 64)
    finisher.ledger.save_head()
    return Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads), heads


def test_reads_only_the_end_of_a_settled_ledger_in_small_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conchrec.recording.recovery.MARGIN_BYTES", 64 * 1024)
    finisher, _ = _settled_bench(bench, 2000)
    size = finisher.ledger.path.stat().st_size
    left = [_left_behind(bench, HEADER + EVENTS) for _ in range(3)]
    read: list[int] = []
    between: list[int] = []
    real = Ledger.read

    def counted(self: Ledger, offset: int, count: int) -> bytes:
        read.append(count)
        return real(self, offset, count)

    monkeypatch.setattr(Ledger, "read", counted)
    recovered = recover(finisher, pause=lambda: between.append(sum(read)))
    assert {item.sid for item in recovered} == {path.stem for path in left}
    assert all(item.manifest is not None for item in recovered)
    assert 0 < sum(read) < 3 * 64 * 1024 < size / 4
    steps = [after - before for before, after in pairwise([0, *between])]
    assert max(steps) <= STEP_BYTES
    # The directory has 4,000 files: no step reads more than some hundred.
    assert len(between) >= 4000 / PAUSE_STEP


def test_reads_whole_ledger_once_where_nothing_is_known(bench: Bench) -> None:
    finisher, heads = _settled_bench(bench, 300)
    heads.path.unlink()
    path = _left_behind(bench, HEADER + EVENTS)
    pauses: list[None] = []
    (recovered,) = recover(finisher, pause=lambda: pauses.append(None))
    assert recovered.sid == path.stem and len(pauses) > 300 / PAUSE_STEP
    finisher.ledger.save_head()
    kept = heads.read(bench.directory)
    assert kept is not None and kept.settled == finisher.ledger.path.stat().st_size


def test_continues_stopped_recovery_at_the_next_start(bench: Bench) -> None:
    finisher, heads = _settled_bench(bench, 10)
    paths = [_left_behind(bench, HEADER + EVENTS) for _ in range(3)]
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        raise RecoveryStopped

    assert recover(finisher, pause=pause) == () and pauses == 1
    finisher.ledger.save_head()
    recovered = recover(Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads))
    assert {item.sid for item in recovered} == {path.stem for path in paths}


def test_finds_old_recording_that_was_open_all_the_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line is far from the end; it is not settled until it is complete."""
    monkeypatch.setattr("conchrec.recording.recovery.MARGIN_BYTES", 0)
    bench.directory.mkdir()
    state = bench.directory.parent / "state"
    state.mkdir()
    heads = HeadFile(state)
    finisher = Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads)
    recover(finisher)
    old = new_session_id(bench.now())
    finisher.begin(old)
    path = RecordingTree(bench.directory).path(old)
    path.parent.mkdir(parents=True)
    path.write_bytes(HEADER + EVENTS)
    for _ in range(50):
        bench.clock.advance(86_400)
        sid = new_session_id(bench.now())
        finisher.begin(sid)
        finisher.ledger.append(LedgerAction.SEALED, sid, manifest="0" * 64)
    finisher.ledger.save_head()
    # Two starts: the first one is killed before it has read anything.
    started = Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads)
    started.ledger.refresh()
    started.ledger.save_head()
    (recovered,) = recover(Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads))
    assert recovered.sid == old and recovered.manifest is not None


def test_does_not_read_an_old_recording_as_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back: the ledger is searched before a recording counts as unknown."""
    monkeypatch.setattr("conchrec.recording.recovery.MARGIN_BYTES", 0)
    bench.directory.mkdir()
    state = bench.directory.parent / "state"
    state.mkdir()
    heads = HeadFile(state)
    bench.clock.advance(86_400 * 2)
    store = bench.store()
    late = bench.close(store.open(bench.info()))
    bench.wall -= timedelta(days=1)
    finisher = Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads)
    recover(finisher)
    for _ in range(3):
        sid = new_session_id(bench.now())
        finisher.begin(sid)
        finisher.ledger.append(LedgerAction.SEALED, sid, manifest="0" * 64)
    finisher.ledger.save_head()
    left = _left_behind(bench, HEADER)
    recovered = recover(Finisher(RecordingTree(bench.directory), SIGNER, bench.now, heads=heads))
    assert [item.sid for item in recovered] == [left.stem]
    assert _sealed(bench, late.manifest.sid) == 1


def test_signs_no_recording_that_was_put_there(bench: Bench) -> None:
    """Else a forged session of another user would be evidence after the next start."""
    bench.close(bench.recorder())
    path = _forge(bench, HEADER + EVENTS)
    (recovered,) = bench.recover()
    assert recovered.manifest is None and "not recorded by this installation" in recovered.problem
    assert not path.with_suffix(".json").exists() and path.read_bytes() == HEADER + EVENTS


def test_rejects_second_file_of_one_recording(bench: Bench) -> None:
    """An empty one would be signed, and the real one forgotten."""
    recorder = bench.store(compress=True).open(bench.info())
    recorder.start("shell")
    recorder.output(b"rm -r /")
    recorder.spool.close()
    recorder.path.with_name(f"{recorder.info.sid}.cast").touch()
    (recovered,) = bench.recover()
    assert recovered.manifest is None and "there are two files of one recording" in recovered.problem
    recorder.path.with_name(f"{recorder.info.sid}.cast").unlink()
    assert _only(bench.recover()).status is Status.INTERRUPTED


def test_completes_recording_without_a_line_by_its_checkpoints(bench: Bench) -> None:
    """A power cut right after its beginning: the signatures in it are ours."""
    recorder = bench.store().open(bench.info())
    recorder.start("shell")
    recorder.output(b"one")
    bench.clock.pump([0.1] * 12)
    recorder.spool.close()
    os.truncate(bench.directory / NAME, 0)
    assert _only(bench.recover()).status is Status.INTERRUPTED


def _verdicts(bench: Bench) -> list[VerifyResult]:
    return list(Verifier(SIGNER.keys(), (), bench.now).directory(_book(bench), bench.directory))


# -- what an attacker can put into the directory


@pytest.mark.parametrize("kind", ["pipe", "endless", "directory", "huge"])
@pytest.mark.parametrize("form", [".json", ".cast"])
def test_keeps_readers_running_beside_any_file(bench: Bench, kind: str, form: str) -> None:
    """Each of these readers runs in a service, or in a command of an auditor."""
    closed = bench.close(bench.recorder())
    other = bench.close(bench.recorder())
    victim = closed.path.with_suffix(form)
    victim.unlink()
    if kind == "pipe":
        os.mkfifo(victim)
    elif kind == "endless":
        victim.symlink_to("/dev/zero")
    elif kind == "directory":
        victim.mkdir()
    else:
        with victim.open("wb") as file:
            file.truncate(2**40)
    if form == ".json" or kind != "huge":
        path = bench.directory / NAME
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
        bench.recover()
        verdicts = {verdict.sid: verdict for verdict in _verdicts(bench)}
        assert not verdicts[closed.manifest.sid].ok
    tree = RecordingTree(bench.directory)
    expired = retention.expired_recordings(tree, SIGNER.keys(), bench.now(), age=timedelta(0), size=1)
    assert other.manifest.sid in {item.sid for item in expired}
    statuses = {entry.sid: entry.status for entry in Library(bench.directory).entries()}
    assert statuses[other.manifest.sid] == "complete"


def test_keeps_provenance_of_an_interrupted_recording(bench: Bench) -> None:
    provenance = Provenance(dialled="192.0.2.7:22", approved_by="ann", approval_reason="disk full")
    ours = {"user": "joe", "provenance": provenance.fields()}
    _left_behind(bench, Header(ours=ours).line() + EVENTS)
    assert _only(bench.recover()).provenance == provenance
