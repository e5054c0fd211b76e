from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RecordingError, SpoolFull, WriteFailed
from conchrec.recording.storage.spool import Spool, create
from tests.recording.failing_file import FailingFile


def test_writes_complete_lines_at_once() -> None:
    file = FailingFile()
    spool = Spool(file)
    spool.append(b"one\n")
    spool.append(b"two\n", b"three\n")
    assert file.contents == b"one\ntwo\nthree\n"
    assert spool.size == 14
    assert spool.digest == hashlib.sha256(b"one\ntwo\nthree\n").hexdigest()


def test_completes_short_write() -> None:
    file = FailingFile(at_most=3)
    Spool(file).append(b"a line that is long\n", b"and another\n")
    assert file.contents == b"a line that is long\nand another\n"


def test_fails_when_nothing_is_written() -> None:
    with pytest.raises(WriteFailed):
        Spool(FailingFile(at_most=0)).append(b"one\n")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, SpoolFull),
        (errno.EDQUOT, SpoolFull),
        (errno.EFBIG, SpoolFull),
        (errno.EIO, WriteFailed),
        (errno.EBADF, WriteFailed),
    ],
)
def test_converts_errors_of_the_system(number: int, kind: type[RecordingError]) -> None:
    with pytest.raises(kind) as caught:
        Spool(FailingFile(room=0, number=number)).append(b"one\n")
    assert os.strerror(number) in caught.value.public


@given(
    st.lists(st.binary(max_size=6).map(lambda text: text.replace(b"\n", b"") + b"\n")),
    st.integers(0, 40),
    st.integers(1, 9),
)
def test_keeps_complete_lines_and_their_digest_after_a_failure(
    lines: list[bytes], room: int, at_most: int
) -> None:
    file = FailingFile(room=room, at_most=at_most)
    spool = Spool(file)
    try:
        for index in range(0, len(lines), 2):
            spool.append(*lines[index : index + 2])
    except SpoolFull:
        pass
    everything = b"".join(lines)
    fits = everything if len(everything) <= room else everything[: everything.rfind(b"\n", 0, room) + 1]
    assert file.contents == fits
    assert (spool.size, spool.lines) == (len(fits), fits.count(b"\n"))
    assert spool.digest == hashlib.sha256(fits).hexdigest()


def test_raises_first_error_when_torn_line_cannot_be_cut_off() -> None:
    file = FailingFile(room=5, truncates=False)
    spool = Spool(file)
    with pytest.raises(SpoolFull):
        spool.append(b"one\n", b"two\n")
    assert (spool.size, spool.digest) == (4, hashlib.sha256(b"one\n").hexdigest())


def test_converts_errors_of_sync() -> None:
    with pytest.raises(WriteFailed):
        Spool(FailingFile(syncs=False)).sync()


def test_fails_at_each_sync_after_one_has_failed() -> None:
    """The data that was lost is not on the disk, even if the next sync succeeds."""
    file = FailingFile(syncs=False)
    spool = Spool(file)
    for syncs in (False, True, True):
        file.syncs = syncs
        with pytest.raises(WriteFailed, match="Input/output error"):
            spool.sync()
    assert file.synced == 0


def test_syncs_directory_entry_once() -> None:
    calls: list[str] = []
    file = FailingFile()
    spool = Spool(file, lambda: calls.append("entry"))
    spool.sync()
    spool.sync()
    assert calls == ["entry"] and file.synced == 2


def test_syncs_and_closes_nothing_after_close() -> None:
    file = FailingFile()
    spool = Spool(file)
    spool.close()
    spool.close()
    spool.sync()
    assert (file.closed, file.synced) == (1, 0)


def _directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_creates_file_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create("a.cast", _directory(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.cast").stat().st_mode) == 0o600


def test_opens_no_existing_file(tmp_path: Path) -> None:
    (tmp_path / "a.cast").write_bytes(b"evidence\n")
    with pytest.raises(FileExistsError):
        create("a.cast", _directory(tmp_path))
    assert (tmp_path / "a.cast").read_bytes() == b"evidence\n"


@pytest.mark.parametrize("exists", [True, False])
def test_follows_no_link(tmp_path: Path, exists: bool) -> None:
    victim = tmp_path / "victim"
    if exists:
        victim.write_bytes(b"mine\n")
    (tmp_path / "a.cast").symlink_to(victim)
    with pytest.raises(OSError, match=r"a\.cast"):
        create("a.cast", _directory(tmp_path))
    assert victim.exists() == exists


_TRY_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("alive")
"""


def test_shows_other_processes_that_it_is_being_written(tmp_path: Path) -> None:
    file = create("a.cast", _directory(tmp_path))
    ask = [sys.executable, "-c", _TRY_LOCK, str(tmp_path / "a.cast")]
    assert subprocess.run(ask, capture_output=True, check=True).stdout == b"alive\n"
    file.close()
    assert subprocess.run(ask, capture_output=True, check=True).stdout == b""
