"""Changed recordings: each change is found, by the verifier and by the independent one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.ledger import BrokenLedger, Ledger, LedgerAction
from conchrec.recording.evidence.ledger_reader import LedgerReader, parse_head
from conchrec.recording.evidence.verify import Verifier, VerifyResult
from conchrec.recording.format.manifest import Status
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.signatures import RecordingSigner, TrustedKeys
from conchrec.recording.storage.layout import RecordingTree
from tests.recording.recording_bench import SIGNER, Bench, events

INDEPENDENT = Path(__file__).parents[1] / "independent.py"


def talk(bench: Bench, recorder: SessionRecorder, seconds: int = 3) -> None:
    recorder.start("shell")
    for number in range(seconds):
        recorder.output(b"line %d\r\n" % number)
        bench.clock.pump([0.1] * 12)


def record(bench: Bench, *, compress: bool = False) -> ClosedRecording:
    """Make a recording with checkpoints."""
    recorder = bench.store(compress=compress).open(bench.info())
    talk(bench, recorder)
    return bench.close(recorder)


def verdicts(
    bench: Bench, keys: TrustedKeys | None = None, head: str = ""
) -> tuple[list[str], list[VerifyResult]]:
    keys = keys or SIGNER.keys()
    book = LedgerReader(bench.directory / ledger.NAME, keys, head)
    return book.problems, list(Verifier(keys, (), bench.now).directory(book, bench.directory))


def independent(bench: Bench, head: str = "") -> str:
    """Return the output of the independent verifier; empty where all is ok."""
    key = bench.directory.with_name("key.pub")
    key.write_text(SIGNER.public_line)
    done = subprocess.run(
        [sys.executable, str(INDEPENDENT), str(bench.directory), str(key), head],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert (done.returncode == 0) is (done.stdout == "\n")
    return done.stdout.strip()


def broken(bench: Bench, head: str = "") -> list[str]:
    """Return every problem; the independent verifier must find some too."""
    of_ledger, results = verdicts(bench, head=head)
    problems = of_ledger + [problem for verdict in results for problem in verdict.problems]
    assert bool(independent(bench, head)) is bool(problems)
    return problems


@pytest.mark.parametrize("compress", [False, True])
def test_accepts_complete_recording(bench: Bench, compress: bool) -> None:
    closed = record(bench, compress=compress)
    assert closed.path.suffix == (".zst" if compress else ".cast")
    assert broken(bench) == []
    assert bench.verify(closed.manifest.sid) == VerifyResult(sid=closed.manifest.sid, status="complete")
    assert closed.head in (bench.store(), LedgerReader(bench.directory / ledger.NAME, SIGNER.keys()).head)


def test_writes_one_checkpoint_a_second_while_something_is_written(bench: Bench) -> None:
    recorder = bench.store().open(bench.info())
    talk(bench, recorder, seconds=3)
    count = recorder.path.read_text().count('"c"')
    assert count == 3
    bench.clock.advance(60)
    assert recorder.path.read_text().count('"c"') == count


@settings(deadline=None)
@given(st.data())
def test_finds_changed_byte_anywhere(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    bench = Bench(directory=tmp_path_factory.mktemp("changed"))
    closed = record(bench, compress=data.draw(st.booleans()))
    manifest = closed.path.with_name(f"{closed.manifest.sid}.json")
    path = data.draw(st.sampled_from([closed.path, manifest, bench.directory / ledger.NAME]))
    contents = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, 2**20)) % len(contents)
    contents[where] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(contents)
    of_ledger, results = verdicts(bench)
    assert of_ledger or not all(verdict.ok for verdict in results)


def _drop(lines: list[bytes]) -> list[bytes]:
    return lines[:2] + lines[3:]


def _add(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b'[0.500000, "o", "rm"]\n', *lines[3:]]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[3], lines[2], lines[1], *lines[4:]]


def _cut(lines: list[bytes]) -> list[bytes]:
    return lines[:-2]


def _without_checkpoints(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if b'"c"' not in line]


CHANGES = [_drop, _add, _swap, _cut, _without_checkpoints]


@pytest.mark.parametrize("change", CHANGES)
def test_finds_changed_lines(bench: Bench, change: Callable[[list[bytes]], list[bytes]]) -> None:
    closed = record(bench)
    lines = closed.path.read_bytes().splitlines(keepends=True)
    closed.path.write_bytes(b"".join(change(lines)))
    (problem,) = broken(bench)
    assert "the cast was changed after it was signed" in problem


def test_reports_first_damaged_byte(bench: Bench) -> None:
    closed = record(bench)
    contents = closed.path.read_bytes()
    second = contents.index(b'"c"', contents.index(b'"c"') + 10)
    checkpoint = contents.rindex(b"\n", 0, second) + 1
    closed.path.write_bytes(contents.replace(b"line 2", b"line 9"))
    (problem,) = broken(bench)
    assert problem.endswith(f"its first {checkpoint} bytes are unchanged")


@pytest.mark.parametrize("change", [_drop, _add, _swap, _cut])
def test_finds_change_of_an_interrupted_recording_before_its_recovery(
    bench: Bench, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Between the crash and the next start: the checkpoints show the change."""
    recorder = bench.store().open(bench.info())
    talk(bench, recorder)
    recorder.spool.close()
    lines = recorder.path.read_bytes().splitlines(keepends=True)
    changed = b"".join(change(lines))
    recorder.path.write_bytes(changed)
    (recovered,) = bench.recover()
    assert recovered.manifest is not None
    if change is _cut:
        # The last checkpoint was in the removed end: the rest is in order, and the ledger cannot show it.
        assert recovered.manifest.status is Status.INTERRUPTED
        return
    assert recovered.manifest.status is Status.DAMAGED
    assert recorder.path.read_bytes() == changed
    assert broken(bench) == [recovered.manifest.reason]


@pytest.mark.parametrize("compress", [False, True])
def test_accepts_interrupted_recording_and_notes_late_bytes(bench: Bench, compress: bool) -> None:
    recorder = bench.store(compress=compress).open(bench.info())
    talk(bench, recorder)
    recorder.output(b"after the last checkpoint")
    recorder.flush()
    recorder.spool.close()
    (recovered,) = bench.recover()
    assert recovered.manifest is not None and recovered.head.startswith("2:")
    verdict = bench.verify(recovered.sid)
    assert verdict.ok and verdict.status == "interrupted"
    end = b'"o", "after the last checkpoint"]\n'
    late = recovered.manifest.late
    assert verdict.notes[1] == f"the last {late} bytes were signed at the recovery, after the session"
    assert len(end) < late < len(end) + 100
    assert broken(bench) == []


def test_counts_only_the_marker_as_late_after_a_checkpoint(bench: Bench) -> None:
    recorder = bench.store().open(bench.info())
    talk(bench, recorder)
    size = recorder.path.stat().st_size
    recorder.spool.close()
    (recovered,) = bench.recover()
    assert recovered.manifest is not None
    assert recovered.manifest.late == recovered.manifest.cast_size - size  # the marker alone


def test_rejects_manifest_of_another_recording(bench: Bench) -> None:
    first, other = record(bench), record(bench)
    shutil.copy(first.path.with_suffix(".json"), other.path.with_suffix(".json"))
    assert any(
        f"the manifest is of another recording: {first.manifest.sid}" in problem for problem in broken(bench)
    )


def test_rejects_recording_in_place_of_another(bench: Bench) -> None:
    """Cast and manifest of another recording: the session id is in every signature."""
    first, other = record(bench), record(bench)
    shutil.copy(first.path, other.path)
    shutil.copy(first.path.with_suffix(".json"), other.path.with_suffix(".json"))
    assert len(broken(bench)) == 2


def test_rejects_older_manifest_of_the_same_recording(bench: Bench) -> None:
    """Both are signed; the ledger has the digest of the right one."""
    closed = record(bench)
    path = closed.path.with_suffix(".json")
    fields = json.loads(path.read_bytes())
    del fields["signed"]
    fields["user"] = "eve"
    path.write_bytes(SIGNER.manifest(json.dumps(fields, indent=1).encode() + b"\n"))
    assert broken(bench) == ["the manifest does not match line 2 of the ledger"]


def test_rejects_removed_signature(bench: Bench) -> None:
    closed = record(bench)
    path = closed.path.with_suffix(".json")
    fields = json.loads(path.read_bytes())
    del fields["signed"]
    path.write_text(json.dumps(fields, indent=1) + "\n")
    assert "the manifest is not signed" in broken(bench)


def test_rejects_unknown_key(bench: Bench) -> None:
    record(bench)
    of_ledger, results = verdicts(bench, RecordingSigner.generate().keys())
    assert len(of_ledger) == 2 and results[0].problems[1].startswith(
        "the manifest is signed by an unknown key"
    )


def test_accepts_earlier_key(bench: Bench) -> None:
    record(bench)
    both = TrustedKeys.parse(
        f"{RecordingSigner.generate().public_line} new\n{SIGNER.public_line} old\n".encode()
    )
    of_ledger, results = verdicts(bench, both)
    assert of_ledger == [] and results[0].ok


@pytest.mark.parametrize("what", ["cast", "both"])
def test_reports_missing_recording(bench: Bench, what: str) -> None:
    record(bench)
    closed = record(bench)
    closed.path.unlink()
    if what == "both":
        closed.path.with_suffix(".json").unlink()
    assert broken(bench) == ["the recording is missing: line 3 of the ledger names it"]


def test_reports_recording_removed_while_it_was_written(bench: Bench) -> None:
    """kill -9, and the file is removed before the next start."""
    recorder = bench.store().open(bench.info())
    talk(bench, recorder)
    recorder.spool.close()
    recorder.path.unlink()
    assert bench.recover() == ()
    assert broken(bench) == ["the recording is missing: line 1 of the ledger names it"]


def test_rewrites_no_missing_manifest(bench: Bench) -> None:
    """Else an end could be cut, and the next start would call that an interruption."""
    closed = record(bench)
    closed.path.with_suffix(".json").unlink()
    (recovered,) = bench.recover()
    assert recovered.manifest is None and "the manifest is missing" in recovered.problem
    assert broken(bench) == ["the manifest is missing: line 2 of the ledger has its digest"]


def test_rejects_recording_that_was_put_there(bench: Bench, tmp_path: Path) -> None:
    elsewhere = Bench(directory=tmp_path / "elsewhere")
    closed = record(elsewhere)
    record(bench)
    for path in (closed.path, closed.path.with_suffix(".json")):
        shutil.copy(path, bench.directory / path.relative_to(elsewhere.directory))
    assert broken(bench) == [
        "the recording is not in the ledger",
        "no line of the ledger says that the recording was completed",
    ]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_finds_removed_line_of_the_ledger(bench: Bench, line: int) -> None:
    record(bench), record(bench)
    path = bench.directory / ledger.NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    assert any(f"line {line + 1} of the ledger has the number" in problem for problem in broken(bench))


def test_finds_restored_backup(bench: Bench, tmp_path: Path) -> None:
    record(bench)
    shutil.copytree(bench.directory, tmp_path / "before")
    head = record(bench).head
    assert broken(bench, head) == []
    shutil.rmtree(bench.directory)
    shutil.move(tmp_path / "before", bench.directory)
    assert broken(bench) == []
    assert broken(bench, head) == [
        f"the head {head} is missing (--head): the ledger was cut, replaced, or restored from a backup"
    ]


def test_accepts_ledger_of_two_processes(bench: Bench) -> None:
    bench.directory.mkdir()
    first, second = (Ledger(bench.directory, SIGNER, bench.now) for _ in range(2))
    for number in range(6):
        (first, second)[number % 2].append(LedgerAction.OPEN, new_session_id(bench.now()))
    book = LedgerReader(bench.directory / ledger.NAME, SIGNER.keys())
    assert book.problems == [] and book.head == second.head and book.head.startswith("6:")


def test_accepts_torn_line_of_the_ledger(bench: Bench) -> None:
    """Its process died while it wrote; nothing else names that line."""
    record(bench)
    path = bench.directory / ledger.NAME
    path.write_bytes(path.read_bytes() + b'{"number":3,"prev')
    assert broken(bench) == []
    assert record(bench).head.startswith("4:")
    assert broken(bench) == []


def test_refuses_to_continue_an_invalid_ledger(bench: Bench) -> None:
    bench.directory.mkdir()
    (bench.directory / ledger.NAME).write_bytes(b"nonsense\n")
    with pytest.raises(BrokenLedger):
        Ledger(bench.directory, SIGNER, bench.now).append(LedgerAction.OPEN, "x")


def test_states_ledger_removed_at_run_time(bench: Bench) -> None:
    """The next lines go to a new file, which states that, and `verify` reports it."""
    store = bench.store()
    bench.close(store.open(bench.info()))
    (bench.directory / ledger.NAME).unlink()
    bench.close(store.open(bench.info()))
    stated, *others = broken(bench)
    assert "the ledger had been changed (its last head was 2:" in stated and stated.endswith(
        "there was no file"
    )
    assert others == [
        "the recording is not in the ledger",
        "no line of the ledger says that the recording was completed",
    ]


def test_completes_ledger_after_a_stop_before_its_line(bench: Bench) -> None:
    closed = record(bench)
    path = bench.directory / ledger.NAME
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert broken(bench) == ["no line of the ledger says that the recording was completed"]
    (recovered,) = bench.recover()
    assert recovered.manifest == closed.manifest
    assert broken(bench) == [] and bench.recover() == ()


def test_accepts_recording_that_is_being_written(bench: Bench) -> None:
    recorder = bench.recorder()
    talk(bench, recorder, seconds=30)
    assert bench.verify(recorder.info.sid) == VerifyResult(sid=recorder.info.sid, status="live")
    recorder.spool.close()
    verdict = bench.verify(recorder.info.sid)
    assert verdict.status == "not completed" and not verdict.ok


def test_leaves_output_unchanged_for_players(bench: Bench) -> None:
    closed = record(bench)
    assert [event for event in events(closed.path) if event[0] == "o"] == [
        ("o", "line 0\r\n"), ("o", "line 1\r\n"), ("o", "line 2\r\n"),
    ]  # fmt: skip
    assert RecordingTree(bench.directory).path(closed.manifest.sid) == closed.path


@pytest.mark.parametrize(
    "text", ["nonsense", "7", f"0:{64 * 'a'}", f"7:{63 * 'a'}", f"7:{64 * 'g'}", f"7:{64 * 'a'}\n"]
)
def test_rejects_malformed_head(text: str) -> None:
    with pytest.raises(ValueError, match="must be NUMBER:DIGEST"):
        parse_head(text)
    assert parse_head(f"7:{64 * 'a'}") == f"7:{64 * 'a'}"
