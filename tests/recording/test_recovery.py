"""What an earlier process left behind."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_bench import NOON, SIGNER, Bench, cast, events, output

from conchrec.recording.ledger import Act, Ledger
from conchrec.recording.manifest import Manifest, Status
from conchrec.recording.recovery import Recovered
from conchrec.recording.session_id import new_session_id

HEADER = (
    b'{"version":2,"width":80,"height":24,"timestamp":1795435200,"conchrec":{"user":"joe","kind":"shell"}}\n'
)
EVENTS = b'[0.500000, "o", "one"]\n[1.250000, "o", "two"]\n'


def _left_behind(bench: Bench, contents: bytes, *, opened: bool = True) -> Path:
    """A cast of a process that is dead; ``opened``: with its line in the ledger."""
    path = bench.store().path(new_session_id(NOON))
    path.parent.mkdir(parents=True, exist_ok=True)
    if opened:
        Ledger(bench.directory, SIGNER, bench.now).append(Act.OPEN, path.stem)
    path.write_bytes(contents)
    return path


def _only(recovered: tuple[Recovered, ...]) -> Manifest:
    assert len(recovered) == 1 and recovered[0].manifest is not None, recovered
    return recovered[0].manifest


def test_a_whole_recording_of_a_dead_process(bench: Bench) -> None:
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
def test_killed_anywhere(tmp_path_factory: pytest.TempPathFactory, where: int) -> None:
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


def test_a_tail_of_zeros_after_a_power_cut(bench: Bench) -> None:
    path = _left_behind(bench, HEADER + EVENTS + b"\0" * 5000 + b"\n\0\0")
    assert _only(bench.recover()).status is Status.INTERRUPTED
    assert output(path) == "onetwo"


def test_unreadable_lines_in_the_middle_are_left_as_evidence(bench: Bench) -> None:
    contents = HEADER + b"\0\0\0\n" + EVENTS
    path = _left_behind(bench, contents)
    assert _only(bench.recover()).status is Status.DAMAGED
    assert path.read_bytes() == contents


def test_a_header_lost_and_events_behind_it(bench: Bench) -> None:
    contents = b"\0" * 50 + b"\n" + EVENTS
    path = _left_behind(bench, contents)
    assert _only(bench.recover()).status is Status.DAMAGED
    assert path.read_bytes() == contents


def test_an_empty_file_gets_a_header(bench: Bench) -> None:
    path = _left_behind(bench, b"")
    manifest = _only(bench.recover())
    header, rest = cast(path)
    assert header.ours == {"sid": path.stem} and header.timestamp == NOON.timestamp()
    assert [event.code for event in rest] == ["m"]
    assert (manifest.started, manifest.duration) == (NOON, 0)


def test_once_is_enough(bench: Bench) -> None:
    path = _left_behind(bench, HEADER)
    bench.recover()
    before = path.read_bytes()
    assert bench.recover() == ()
    assert path.read_bytes() == before


def test_a_recovery_that_was_itself_killed(bench: Bench) -> None:
    """Killed after its marker, and with half a manifest under its temporary name."""
    path = _left_behind(bench, HEADER + EVENTS + b'[1.250000, "m", "interrupted"]\n')
    path.with_name(f".{path.stem}.json.new").write_bytes(b'{"vers')
    assert _only(bench.recover()).status is Status.INTERRUPTED
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.stem}.json"]


def test_what_is_being_written_is_left_alone(bench: Bench) -> None:
    store = bench.store()
    recorders = [store.open(bench.info()) for _ in range(2)]
    recorders[0].start("shell")
    before = [recorder.path.read_bytes() for recorder in recorders]
    assert bench.recover() == ()
    assert [recorder.path.read_bytes() for recorder in recorders] == before
    for recorder in recorders:
        bench.close(recorder)
    assert bench.recover() == ()


def test_one_corrupt_recording_does_not_stop_the_rest(bench: Bench, tmp_path: Path) -> None:
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


def test_other_people_s_files_are_passed_by(bench: Bench, tmp_path: Path) -> None:
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


def test_no_directory_yet(bench: Bench) -> None:
    assert bench.recover() == ()
    assert not bench.directory.exists()


def test_a_time_that_is_absurd(bench: Bench) -> None:
    _left_behind(bench, HEADER + b'[1e300, "o", "x"]\n')
    assert _only(bench.recover()).status is Status.INTERRUPTED


def test_headers_by_others_are_not_trusted_to_have_text(bench: Bench) -> None:
    _left_behind(bench, b'{"version":2,"width":80,"height":24,"env":5,"conchrec":{"user":5,"kind":null}}\n')
    assert _only(bench.recover()).user == ""
