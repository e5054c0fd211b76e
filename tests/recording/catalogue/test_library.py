from __future__ import annotations

import os

import pytest

from conchrec.recording.catalogue.library import Library, events
from conchrec.recording.format.asciicast import Damaged
from tests.recording.recording_bench import Bench


def test_lists_all_recordings_oldest_first(bench: Bench) -> None:
    recorders = []
    for _ in range(3):
        recorders.append(bench.recorder())
        bench.clock.advance(86_400)
    for recorder in recorders[:2]:
        recorder.start("exec", "ls")
    bench.close(recorders[0])
    entries = list(Library(bench.directory).entries())
    assert [entry.sid for entry in entries] == [recorder.info.sid for recorder in recorders]
    assert [entry.status for entry in entries] == ["complete", "live", "live"]
    assert entries[0].manifest is not None and entries[0].manifest.command == "ls"
    assert entries[1].header is not None and entries[1].header.command == "ls"
    assert entries[2].header is None
    assert [entry.started for entry in entries] == [recorder.info.started for recorder in recorders]


def test_finds_recording_by_id(bench: Bench) -> None:
    closed = bench.close(bench.recorder())
    entry = Library(bench.directory).find(closed.path.stem)
    assert entry is not None and entry.manifest == closed.manifest


@pytest.mark.parametrize("sid", ["", "../../etc/passwd", "0" * 26, "x" * 300, "\0"])
def test_returns_none_for_unknown_id(bench: Bench, sid: str) -> None:
    assert Library(bench.directory).find(sid) is None


def test_lists_nothing_without_a_directory(bench: Bench) -> None:
    assert list(Library(bench.directory).entries()) == []


def test_lists_others_beside_a_damaged_one(bench: Bench) -> None:
    paths = [bench.close(bench.recorder()).path for _ in range(5)]
    paths[0].with_suffix(".json").write_bytes(b"\0\0\0")
    paths[1].with_suffix(".json").unlink()
    paths[1].write_bytes(b"\0\n\0")
    paths[2].with_suffix(".json").unlink()
    paths[2].unlink()
    os.mkfifo(paths[2])
    paths[3].with_suffix(".json").unlink()
    paths[3].write_bytes(b"x" * 2 * 1024 * 1024)
    entries = {entry.path: entry for entry in Library(bench.directory).entries()}
    assert {path for path, entry in entries.items() if entry.status == "unreadable"} == set(paths[:4])
    assert entries[paths[4]].status == "complete"


def test_reads_events_of_a_growing_recording(bench: Bench) -> None:
    recorder = bench.recorder()
    assert list(events(recorder.path)) == []
    recorder.start("shell")
    recorder.output(b"a")
    recorder.flush()
    with recorder.path.open("ab") as file:
        file.write(b'[0.5, "o", "to')
    assert [event.text for event in events(recorder.path)] == ["a"]


def test_raises_at_damaged_events(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    with recorder.path.open("ab") as file:
        file.write(b"\0\n")
    with pytest.raises(Damaged):
        list(events(recorder.path))


def test_follows_no_link(bench: Bench) -> None:
    path = bench.close(bench.recorder()).path
    link = path.with_name("link.cast")
    link.symlink_to(path)
    with pytest.raises(OSError, match=r"link\.cast"):
        list(events(link))
