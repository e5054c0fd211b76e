"""Files of ours are replaced as a whole; what is no regular file is not opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conchrec.files import open_regular, read_regular, write_atomic


def test_replaces_a_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    write_atomic(path, b"one")
    first = path.stat()
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_ino != first.st_ino
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads"]


def test_does_not_write_through_a_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "heads"
    victim.write_bytes(b"untouched")
    path.symlink_to(victim)
    path.with_name("heads.new").symlink_to(victim)
    write_atomic(path, b"new")
    assert victim.read_bytes() == b"untouched" and not path.is_symlink()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "device"])
def test_opens_regular_files_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "link":
        (tmp_path / "file").write_bytes(b"x")
        path.symlink_to(tmp_path / "file")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = Path("/dev/null")
    with pytest.raises(OSError):  # noqa: PT011
        open_regular(path)


def test_reads_no_more_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="File too large"):
        read_regular(path, 4)
