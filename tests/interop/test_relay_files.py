"""File transfers, each by the stock program, in every way in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.client import AccessMethod, Client
from tests.support.house import House
from tests.support.process import Result, run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few files: empty, odd, larger than a window, with a name that needs quotes, and a link."""
    top = tmp_path / "tree"
    (top / "sub dir").mkdir(parents=True)
    (top / "empty").write_bytes(b"")
    (top / "large").write_bytes(os.urandom(5_000_001))
    (top / "sub dir" / "it's \u00e9").write_bytes(b"contents\n")
    (top / "sub dir" / "link").symlink_to("../empty")
    (top / "large").chmod(0o640)
    return top


def same(left: Path, right: Path) -> bool:
    """The same names, kinds and contents below."""
    names = {path.relative_to(left) for path in left.rglob("*")}
    assert names == {path.relative_to(right) for path in right.rglob("*")}
    assert names
    for name in names:
        if (left / name).is_symlink() and (right / name).is_symlink():
            assert os.readlink(left / name) == os.readlink(right / name)
        elif (left / name).is_file():
            assert (left / name).read_bytes() == (right / name).read_bytes(), name
    return True


async def _scp(client: Client, protocol: Sequence[str], *arguments: str | Path) -> Result:
    return await client.program("scp", *client.options, *protocol, "-q", *arguments)


@pytest.mark.parametrize("protocol", [(), ("-O",)], ids=["sftp", "rcp"])
async def test_copies_files_by_scp(
    house: House, method: AccessMethod, protocol: Sequence[str], tree: Path, tmp_path: Path
) -> None:
    (tree / "sub dir" / "link").unlink()  # scp copies what a link points to
    client = house.client(method)
    there, back = tmp_path / "there", tmp_path / "back"
    (await _scp(client, protocol, "-rp", tree, f"web1:{there}")).check()
    assert same(tree, there)
    assert (there / "large").stat().st_mode & 0o777 == 0o640
    (await _scp(client, protocol, "-rp", f"web1:{there}", back)).check()
    assert same(tree, back)
    missing = await _scp(client, protocol, f"web1:{tmp_path}/missing", back)
    assert missing.code == (1 if protocol else 255) or missing.code == 1, str(missing)
    assert "No such file" in missing.errors


async def test_runs_sftp_batch(house: House, method: AccessMethod, tree: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    batch = house.stage.file(
        house.stage.unique("batch"),
        f'put -r "{tree}" "{there}/tree"\nls -l "{there}/tree"\nln -s large "{there}/tree/symbolic"\n'
        f'rename "{there}/tree/empty" "{there}/tree/renamed"\nget -r "{there}/tree" "{back}"\n',
    )
    before = house.proxy.sids()
    client = house.client(method)
    result = (await client.program("sftp", *client.options, "-b", batch, "web1")).check()
    assert " large" in result.text
    assert os.readlink(there / "tree" / "symbolic") == "large", "not the wrong way round"
    assert (back / "large").read_bytes() == (tree / "large").read_bytes()
    assert (back / "renamed").read_bytes() == b""
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    assert recording.manifest["kind"] == "subsystem"
    assert recording.manifest["exit"] == {"status": 0}
    # Markers, and a checkpoint for each second that it took.
    assert {code for _, code, _ in recording.events} <= {"m", "c"}, "a file's bytes are no terminal output"
    (end,) = await house.proxy.audited("session.end", sid=recording.sid)
    assert isinstance(end["stdin"], int) and end["stdin"] > 5_000_000
    assert isinstance(end["stdout"], int) and end["stdout"] > 5_000_000


async def test_synchronizes_files_by_rsync(
    house: House, method: AccessMethod, tree: Path, tmp_path: Path
) -> None:
    client = house.client(method)
    there, back = tmp_path / "there", tmp_path / "back"
    command = ("rsync", "-a", "-e", client.shell_command)
    (await client.program(*command, f"{tree}/", f"web1:{there}/")).check()
    assert same(tree, there)
    (tree / "sub dir" / "more").write_bytes(b"more")
    (await client.program(*command, f"{tree}/", f"web1:{there}/")).check()
    assert same(tree, there)
    (await client.program(*command, f"web1:{there}/", f"{back}/")).check()
    assert same(tree, back)


async def test_clones_and_pushes_by_git(house: House, method: AccessMethod, tmp_path: Path) -> None:
    there, here = tmp_path / "there.git", tmp_path / "here"
    work = tmp_path / "work"
    who = ("-c", "user.name=joe", "-c", "user.email=joe@example.com", "-c", "init.defaultBranch=main")
    (await run("git", *who, "init", "-q", work)).check()
    (work / "file").write_bytes(os.urandom(1_000_000))
    (await run("git", "-C", work, "add", ".")).check()
    (await run("git", "-C", work, *who, "commit", "-q", "-m", "first")).check()
    (await run("git", "clone", "-q", "--bare", work, there)).check()
    client = house.client(method)
    client.env["GIT_SSH_COMMAND"] = client.shell_command
    (await client.program("git", "clone", "-q", f"ssh://web1{there}", here)).check()
    assert (here / "file").read_bytes() == (work / "file").read_bytes()
    (here / "second").write_text("second\n")
    (await run("git", "-C", here, "add", ".")).check()
    (await run("git", "-C", here, *who, "commit", "-q", "-m", "second")).check()
    (await client.program("git", "-C", here, "push", "-q", "origin", "HEAD")).check()
    log = (await run("git", "-C", there, "log", "--format=%s")).check()
    assert log.text == "second\nfirst\n"
