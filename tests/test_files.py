"""Files of ours are replaced as a whole, by one module; what is no regular file is not opened."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from conchrec.files import FileStamp, NewFile, open_regular, read_regular, write_atomic


def test_replaces_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    write_atomic(path, b"one")
    first = path.stat()
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_ino != first.st_ino
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads"]


def test_writes_through_no_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "heads"
    victim.write_bytes(b"untouched")
    path.symlink_to(victim)
    path.with_name("heads.new").symlink_to(victim)
    write_atomic(path, b"new")
    assert victim.read_bytes() == b"untouched" and not path.is_symlink()


def test_keeps_old_file_until_commit(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    path.write_bytes(b"old")
    with NewFile(path) as new:
        new.file.write(b"new")
        new.file.flush()
        assert path.read_bytes() == b"old"
        new.commit()
        assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads"]


def test_removes_uncommitted_file(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    path.write_bytes(b"old")
    with NewFile(path) as new:
        new.file.write(b"half of it")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads"]


def test_replaces_file_that_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    path.with_name("heads.new").write_bytes(b"half of what was written last time")
    path.with_name("heads.new").chmod(0o666)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads"]


def test_writes_below_open_directory(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with NewFile("heads", 0o640, dir_fd=directory) as new:
            new.file.write(b"new")
            new.commit()
    finally:
        os.close(directory)
    assert (tmp_path / "heads").read_bytes() == b"new"
    assert (tmp_path / "heads").stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["heads"]


def test_refuses_to_replace_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "export"
    with NewFile(path, replaces=False) as first, NewFile(path, replaces=False) as second:
        first.file.write(b"first")
        second.file.write(b"second")
        first.commit()
        with pytest.raises(FileExistsError):
            second.commit()
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("durable", [True, False])
def test_syncs_before_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    path = tmp_path / "heads"
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.exists()))
    with NewFile(path) as new:
        new.file.write(b"new")
        new.commit(durable=durable)
    assert synced == ([False] if durable else [])


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


def test_changes_stamp_with_file(tmp_path: Path) -> None:
    path = tmp_path / "it"
    assert FileStamp.at(path) is None
    path.write_bytes(b"one")
    first = FileStamp.at(path)
    assert first is not None
    assert FileStamp.at(path) == first == FileStamp.of(path.stat())
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    write_atomic(path, b"two")
    os.utime(path, ns=times)
    assert FileStamp.at(path) != first


OTHER_WRITERS = {
    "conchrec/recording/evidence/ledger_file.py": "moves a ledger that is broken out of the way",
    "conchrec/cli/demo.py": "writes into a directory of its own that is removed afterwards",
}


def test_replaces_files_in_one_module_only() -> None:
    root = Path(__file__).parent.parent
    replaced = re.compile(r"os\.(rename|replace|link)\(|\.rename\(|\.write_(text|bytes)\(|mkstemp|O_TRUNC")
    writers = {
        str(path.relative_to(root))
        for path in (root / "conchrec").rglob("*.py")
        if replaced.search(path.read_text("utf-8"))
    }
    assert writers == {"conchrec/files.py", *OTHER_WRITERS}
