"""When a file system counts as full, and what follows."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from conchrec.disk_space import Disks, Level, Volume, check_room, free_bytes
from conchrec.errors import SpoolFull

LOG = Volume(what="the audit log", path=Path("/log"), least=1000)
RECORDINGS = Volume(what="recordings", path=Path("/recordings"), least=1000)


class Bench:
    def __init__(self) -> None:
        self.free = {LOG.path: 5000, RECORDINGS.path: 5000}
        self.disks = Disks((RECORDINGS,), required=(LOG,), free=self.free_of)

    def free_of(self, path: Path) -> int:
        if self.free[path] < 0:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.free[path]

    def levels(self, **free: int) -> list[tuple[str, str]]:
        self.free |= {Path(f"/{name}"): size for name, size in free.items()}
        return [(change.volume.what, change.level.value) for change in self.disks.update()]


def test_reports_levels() -> None:
    bench = Bench()
    assert bench.levels() == []
    assert bench.levels(log=1000) == []
    assert bench.levels(log=999) == [("the audit log", "low")]
    assert bench.levels(log=500) == []
    assert bench.levels(log=499) == [("the audit log", "critical")]
    assert bench.disks.critical == "the audit log"
    assert bench.levels(log=600) == [("the audit log", "low")] and bench.disks.critical == ""
    assert bench.levels(log=1050) == [], "not at once: it would alternate"
    assert bench.disks.is_low
    assert bench.levels(log=1100) == [("the audit log", "ok")] and not bench.disks.is_low
    assert bench.levels(recordings=0, log=-1) == [("recordings", "critical")]
    assert not bench.disks.is_low and not bench.disks.critical, "that of the recordings is their store's"


def test_refuses_session_without_room_for_audit() -> None:
    bench = Bench()
    bench.free |= {LOG.path: 999, RECORDINGS.path: 0}
    with pytest.raises(SpoolFull, match="the disk for the audit log is almost full") as caught:
        bench.disks.check()
    assert caught.value.detail == "999 bytes free of 1000 at /log"
    for free in (1000, -1):
        bench.free[LOG.path] = free
        bench.disks.check()


def test_ignores_volume_without_limit() -> None:
    volume = Volume(what="x", path=Path("/missing"), least=0)
    disks = Disks((), required=(volume,), free=lambda path: pytest.fail("looked"))
    disks.check()
    assert disks.update() == ()


def test_measures_real_file_systems(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    check_room("recordings", tmp_path, 1, tmp_path)
    with pytest.raises(SpoolFull):
        check_room("recordings", tmp_path, 2**62, tmp_path)
    assert Disks((), required=(Volume(what="x", path=tmp_path, least=1),)).update() == ()
    assert Level("low") is Level.LOW
