"""A disk that is really full: at the header, in the middle, at the close, and afterwards."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conchrec.errors import RecordingError, SpoolFull
from conchrec.recording.format.manifest import Manifest, Status
from tests.recording.recording_bench import Bench, cast, result

KIB = 1024


@dataclass(kw_only=True)
class SmallDisk:
    """64 KiB: a tmpfs of its own where the test may mount one (root), else the kernel's limit on the size of
    a file, which stops a write in its middle in the same manner."""

    directory: Path
    mounted: bool

    def fill(self) -> None:
        if self.mounted:
            with (self.directory / "ballast").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * KIB)
                except OSError:
                    pass
        else:
            _limit(0)

    def make_room(self) -> None:
        """Called at the end of each test: pytest itself may be writing to a file before the end of the
        fixture."""
        if self.mounted:
            (self.directory / "ballast").unlink(missing_ok=True)
            subprocess.run(["mount", "-o", "remount,size=1m", str(self.directory)], check=True)
        else:
            _limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "conchrec-test", str(directory)]
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    if not mounted:
        _limit(64 * KIB)
    try:
        yield SmallDisk(directory=directory, mounted=mounted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def full(bench: Bench, disk: SmallDisk) -> Bench:
    bench.directory = disk.directory / "recordings"
    return bench


def test_fails_at_the_header(full: Bench, disk: SmallDisk) -> None:
    recorder = full.recorder()
    disk.fill()
    with pytest.raises(SpoolFull):
        recorder.start("shell")
    assert recorder.path.read_bytes() == b""
    with pytest.raises(SpoolFull):
        result(recorder.close("not recorded"))
    disk.make_room()


def test_fails_in_the_middle_and_recovers_at_the_next_start(full: Bench, disk: SmallDisk) -> None:
    recorder = full.recorder()
    recorder.start("exec", "yes")

    def write_for_ever() -> None:
        while True:
            recorder.output(b"y\n" * 3000)
            recorder.flush()

    with pytest.raises(SpoolFull) as caught:
        write_for_ever()
    assert "this session cannot be recorded: " in caught.value.public
    with pytest.raises(RecordingError):
        result(recorder.close("recording failed"))
    _, before = cast(recorder.path)
    assert 0 < len(before) < 20 and all(len(event.text) == 6000 for event in before)

    disk.make_room()
    full.recover()
    manifest = Manifest.parse(recorder.path.with_suffix(".json").read_bytes())
    assert manifest.status in (Status.FAILED, Status.INTERRUPTED)
    assert manifest.cast_size == recorder.path.stat().st_size
    assert cast(recorder.path)[1][: len(before)] == before


def test_fails_at_close(full: Bench, disk: SmallDisk) -> None:
    recorder = full.recorder()
    recorder.start("exec", "yes")
    recorder.output(b"x" * 3000)
    disk.fill()
    recorder.output(b"y" * 9000)
    with pytest.raises(SpoolFull):
        result(recorder.close("the session ended"))
    assert isinstance(recorder.failed, SpoolFull)

    disk.make_room()
    full.recover()
    assert recorder.path.with_suffix(".json").exists()


def test_refuses_session_before_it_begins(full: Bench, disk: SmallDisk) -> None:
    full.close(full.recorder())
    disk.fill()
    if disk.mounted:
        with pytest.raises(SpoolFull):
            full.store(min_free=KIB).open(full.info())
    else:
        with pytest.raises(SpoolFull):
            full.recorder().start("shell")
    disk.make_room()


def test_recovers_without_harm(full: Bench, disk: SmallDisk) -> None:
    recorder = full.recorder()
    recorder.start("exec", "yes")
    recorder.output(b"kept")
    recorder.flush()
    recorder.spool.close()
    disk.fill()
    before = recorder.path.read_bytes()
    for item in full.recover():
        assert item.problem or item.manifest
    assert recorder.path.read_bytes().startswith(before)
    disk.make_room()
    full.recover()
    assert recorder.path.with_suffix(".json").exists()
    assert cast(recorder.path)[1][0].text == "kept"
