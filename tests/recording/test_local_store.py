"""Where recordings are stored, and who may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from conchrec.errors import SpoolFull, WriteFailed
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.settings import Fsync
from conchrec.recording.open_recordings import SYNC_BYTES, TICK_SECONDS
from tests.recording.failing_file import FailingFile
from tests.recording.recording_bench import Bench, events, result


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_creates_files_for_their_owner_alone(bench: Bench, tmp_path: Path) -> None:
    bench.directory = tmp_path / "var" / "lib" / "recordings"
    before = os.umask(0)
    try:
        closed = bench.close(bench.recorder())
    finally:
        os.umask(before)
    assert _mode(closed.path) == 0o600
    directory = closed.path.parent
    while directory != tmp_path:
        assert _mode(directory) == 0o700, directory
        directory = directory.parent


def test_refuses_second_session_with_the_same_id(bench: Bench) -> None:
    first = bench.recorder()
    first.start("shell")
    before = first.path.read_bytes()
    with pytest.raises(WriteFailed):
        bench.store().open(bench.info(sid=first.info.sid))
    assert first.path.read_bytes() == before


def test_keeps_first_session_alive_after_a_refused_second_one(bench: Bench) -> None:
    store = bench.store()
    first = store.open(bench.info())
    with pytest.raises(WriteFailed):
        store.open(bench.info(sid=first.info.sid))
    assert result(store.recover()) == ()
    first.start("shell")


@pytest.mark.parametrize("sid", ["../../../../tmp/x", "a", "x" * 300, "0" * 25 + "\0", "/etc/passwd"])
def test_refuses_invalid_id(bench: Bench, sid: str) -> None:
    with pytest.raises(WriteFailed):
        bench.store().open(bench.info(sid=sid))
    assert not bench.directory.exists()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_follows_no_link_in_place_of_a_day(bench: Bench, tmp_path: Path, level: int) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = bench.directory.joinpath(*("2026", "11", "23")[:level])
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(WriteFailed):
        bench.recorder()
    assert list(elsewhere.iterdir()) == []


def test_follows_link_of_the_root(bench: Bench, tmp_path: Path) -> None:
    real = tmp_path / "big-disk"
    real.mkdir()
    bench.directory.symlink_to(real)
    closed = bench.close(bench.recorder())
    assert closed.path.resolve().is_relative_to(real)


def test_refuses_directory_that_cannot_be_created(bench: Bench) -> None:
    bench.directory.write_text("a file")
    with pytest.raises(WriteFailed) as caught:
        bench.recorder()
    assert "Not a directory" in caught.value.public


def test_refuses_session_when_disk_is_almost_full(bench: Bench) -> None:
    with pytest.raises(SpoolFull) as caught:
        bench.store(min_free=2**62).open(bench.info())
    assert "almost full" in caught.value.public
    assert list(bench.directory.rglob("*.cast")) == []
    bench.store(min_free=1).open(bench.info())


def test_syncs_every_second(bench: Bench) -> None:
    file = FailingFile()
    recorder = bench.store(create=lambda name, day: file).open(bench.info())
    recorder.start("shell")
    bench.clock.pump([TICK_SECONDS, 0])
    assert file.synced == 1
    bench.clock.pump([TICK_SECONDS] * 5)
    assert file.synced == 1, "nothing new"
    recorder.output(b"a")
    bench.clock.pump([TICK_SECONDS, TICK_SECONDS, 0])
    assert file.synced == 2
    bench.close(recorder)
    assert file.synced == 3
    bench.clock.pump([TICK_SECONDS] * 3)
    assert file.synced == 3


def test_syncs_sooner_after_much_output(bench: Bench) -> None:
    """Each sync includes everything up to then."""
    file = FailingFile()
    recorder = bench.store(create=lambda name, day: file).open(bench.info())
    recorder.start("shell")
    piece = b"x" * (SYNC_BYTES // 4)
    for count, synced in ((3, 0), (1, 1), (3, 1), (1, 2)):
        for _ in range(count):
            recorder.output(piece)
        bench.clock.pump([0, 0])
        assert file.synced == synced


@pytest.mark.parametrize(("fsync", "times"), [(Fsync.ALWAYS, 2), (Fsync.NEVER, 0)])
def test_syncs_always_or_never_as_configured(bench: Bench, fsync: Fsync, times: int) -> None:
    file = FailingFile()
    recorder = bench.store(create=lambda name, day: file, fsync=fsync).open(bench.info())
    recorder.start("shell")
    bench.clock.pump([0, 0])
    bench.close(recorder)
    assert file.synced == times
    bench.clock.advance(0)
    assert bench.clock.getDelayedCalls() == []


def test_waits_for_the_disk_in_proxy_sync(bench: Bench) -> None:
    file = FailingFile()
    recorder = bench.store(create=lambda name, day: file, fsync=Fsync.NEVER).open(bench.info())
    recorder.start("shell")
    recorder.output(b"a")
    waiting = recorder.sync()
    assert b'"a"' in file.contents and not waiting.called
    bench.clock.advance(0)
    result(waiting)
    assert file.synced == 1


def test_seals_open_recordings_at_shutdown(bench: Bench) -> None:
    files = [FailingFile(), FailingFile(), FailingFile()]
    store = bench.store(create=lambda name, day: files[store.live])
    recorders = [store.open(bench.info()) for _ in files]
    for recorder in recorders:
        recorder.start("shell")
        recorder.output(b"bye")
    files[0].room = 0
    result(store.shutdown("conchrec stops"))
    assert [file.closed for file in files] == [1, 1, 1]
    statuses = [
        Manifest.parse(recorder.path.with_suffix(".json").read_bytes()).status for recorder in recorders
    ]
    assert statuses == [Status.FAILED, Status.COMPLETE, Status.COMPLETE]
    assert store.live == 0


def test_shuts_down_while_idle(bench: Bench) -> None:
    done: Deferred[None] = bench.store().shutdown("conchrec stops")
    result(done)


def test_fails_when_directory_vanishes(bench: Bench, tmp_path: Path) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    bench.directory.rename(tmp_path / "gone")
    recorder.output(b"still written")
    recorder.flush()
    with pytest.raises(WriteFailed):
        result(recorder.close("the session ended"))
    moved = next((tmp_path / "gone").rglob("*.cast"))
    assert ("o", "still written") in events(moved)
