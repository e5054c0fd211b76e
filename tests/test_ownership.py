"""Commands that root runs have the rights of the proxy's own user, and follow no link of that user's."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conchrec.cli.main import main
from conchrec.cli.rights import NOT_LOADED
from conchrec.ownership import CannotActAsOwner, Owner, act_as, as_invoker, create, foreign_owner, reopen
from conchrec.service.preload import load_all
from conchrec.service.process import keep_secrets
from tests.cli.test_recordings_command import RecordingsDirectory

#: The proxy's own user: an account that is not the one of the tests.
OTHER = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root: a command of root's, and a second user")

COMMANDS = (
    "lock --user joe", "unlock --user joe", "locks", "can joe root@web1", "ssh-config",
    "ca status", "ca export --type host", "ca revoke --serial 7", "ca rotate --type user --phase init",
    "ca krl --out {mine}/krl", "ca sign-host --host web1 --out {mine}/web1",
    "ca sign-user --user joe --login joe --public-key {mine}/joe.pub",
    "recordings ls", "recordings ls --live", "recordings show {sid}", "recordings play {sid}",
    "recordings text {sid}", "recordings rebuild-index", "recordings search hello",
    "recordings export {sid} -o {mine}/exported", "recordings verify", "recordings hold {sid} --reason x",
    "recordings prune --age 1d", "audit verify",
)  # fmt: skip


def in_child(work: Callable[[], object]) -> object:
    """What ``work`` returns, as JSON has it, in a process of its own: it may give its rights away."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            answer = json.dumps(work())
        except BaseException:
            answer = json.dumps({"failed": traceback.format_exc()})
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        output = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(output)
    assert not isinstance(answer, dict) or "failed" not in answer, answer
    return answer


@dataclass
class Installation:
    """A proxy's directories, of another user; what is root's is in ``mine``."""

    theirs: Path
    mine: Path
    sid: str

    @property
    def config(self) -> Path:
        return self.mine / "config.yaml"

    def run(self, command: str) -> tuple[int, str, list[int]]:
        """The exit code, what it said, and the user ids that it has in the end."""

        def work() -> object:
            out = io.StringIO()
            words = [word.format(mine=self.mine, sid=self.sid) for word in command.split()]
            code = main([*words, "-c", str(self.config)], out, out)
            return code, out.getvalue(), [*os.getresuid(), *os.getgroups()]

        answer = in_child(work)
        assert isinstance(answer, list)
        return answer[0], answer[1], answer[2]

    def files(self) -> list[Path]:
        return [path for path in self.theirs.rglob("*") if not path.is_dir()]

    def hand_over(self) -> None:
        for path in (self.theirs, *self.theirs.rglob("*")):
            os.lchown(path, OTHER, OTHER)


@pytest.fixture(scope="module")
def loaded() -> None:
    """Once, and not in each child."""
    load_all(*NOT_LOADED)


@pytest.fixture
def installation(loaded: None) -> Iterator[Installation]:
    # pytest's own directories are for one user alone.
    root = Path(tempfile.mkdtemp(prefix="conchrec-owner-"))
    root.chmod(0o755)
    theirs, mine = root / "theirs", root / "mine"
    for directory in (theirs, theirs / "state", theirs / "log", mine):
        directory.mkdir(mode=0o755 if directory is theirs else 0o700)
    (mine / "config.yaml").write_text(
        f"state_dir: {theirs}/state\nrecordings: {{directory: {theirs}/recordings}}\n"
        f"audit: {{file: {theirs}/log/audit.jsonl}}\nusers: {{joe: {{roles: [ops]}}}}\n"
        "public_address: proxy.example.com\nroles: {ops: {logins: [root], hosts: [web1]}}\n"
    )
    (mine / "joe.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJmKgMrdi1SrKeLE4OaoCtdZ/oDwaR9U4cY/2i4w5xy joe\n"
    )
    try:
        installation = Installation(
            theirs, mine, RecordingsDirectory(theirs / "recordings").recorded(b"hello")
        )
        installation.hand_over()
        yield installation
    finally:
        shutil.rmtree(root)


@needs_root
def test_gives_created_files_to_owner(installation: Installation) -> None:
    for command in COMMANDS:
        code, output, ids = installation.run(command)
        kept_way_back = any(word in command for word in ("--out", "--public-key", " -o "))
        assert ids == ([0, OTHER, 0] if kept_way_back else [OTHER] * 3), (command, output)
        if not command.startswith(("recordings verify", "recordings hold")):  # another key signed it
            assert code == 0, (command, output)
    assert {path.stat().st_uid for path in installation.files()} == {OTHER}
    assert {"locks.json", "user_ca", "audit.jsonl"} < {path.name for path in installation.files()}
    asked_for = ("krl", "web1", "web1.pub", "web1-cert.pub", "joe-cert.pub", "exported")
    assert {(installation.mine / name).stat().st_uid for name in asked_for} == {0}, (
        "these are whose who asked"
    )
    assert all(event["by"] == "root" for event in audited(installation) if event["event"] == "lock.create")


def audited(installation: Installation) -> list[dict[str, object]]:
    lines = (installation.theirs / "log" / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@needs_root
@pytest.mark.parametrize("which", ["audit.jsonl", "every file", "files that are to come"])
def test_follows_no_link_of_owner(installation: Installation, which: str) -> None:
    """Each leads to a file of root's, with what would be read there; or where none is yet."""
    for command in ("lock --user joe", "ca revoke --serial 8", "recordings rebuild-index"):
        assert installation.run(command)[0] == 0
    roots = installation.mine / "root's"
    roots.mkdir()
    if which == "files that are to come":
        links = [
            path.with_name(name)
            for path in installation.files()
            for name in (f"{path.name}.new", f".{path.name}.new")
        ]
        links += [
            path.with_name(f"{path.name}-{end}")
            for path in installation.files()
            for end in ("wal", "journal")
        ]
    else:
        links = [path for path in installation.files() if which in ("every file", path.name)]
    for number, link in enumerate(links):
        target = roots / f"{number} {link.name}"
        if link.exists():
            shutil.copy(link, target)
            target.chmod(0o600)
            link.unlink()
        link.symlink_to(target)
    installation.hand_over()
    before = contents(roots)
    for command in COMMANDS:
        installation.run(command)
        assert contents(roots) == before, command


def contents(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_uid)
        for path in directory.iterdir()
    }


@needs_root
def test_initializes_directory_of_other_user(installation: Installation) -> None:
    there = installation.theirs / "new"
    there.mkdir()
    precious = installation.mine / "precious"
    precious.write_text("root's")
    (there / "known_hosts").symlink_to(precious)
    installation.hand_over()
    in_child(lambda: main(["init", str(there)], io.StringIO(), io.StringIO()))
    assert precious.read_text() == "root's" and precious.stat().st_uid == 0
    (there / "known_hosts").unlink()
    assert in_child(lambda: main(["init", str(there)], io.StringIO(), io.StringIO())) == 0
    assert {path.lstat().st_uid for path in there.rglob("*")} == {OTHER}


@needs_root
def test_keeps_root_rights_for_paths_on_command_line(installation: Installation) -> None:
    copied = installation.mine / "copy"
    shutil.copytree(installation.theirs / "recordings", copied)
    installation.run("lock --user joe")
    _, output, ids = installation.run(f"recordings verify {copied}")
    assert "1 recording (" in output and ids[:3] == [0, 0, 0], output
    _, output, _ = installation.run(f"recordings text {{sid}} --identity {installation.mine}/joe.pub")
    assert "is not an age or SSH private key" in output, "it was read"


@needs_root
def test_keeps_root_rights_in_own_directory(installation: Installation) -> None:
    for path in (installation.theirs, *installation.theirs.rglob("*")):
        os.lchown(path, 0, 0)
    code, output, ids = installation.run("lock --user joe")
    assert (code, ids[:3]) == (0, [0, 0, 0]), output


@needs_root
def test_drops_root_rights_for_good(installation: Installation) -> None:
    def work() -> object:
        owner = foreign_owner(installation.theirs)
        assert owner is not None
        act_as(owner, for_good=True)
        with as_invoker():
            inside = os.geteuid()
        try:
            os.seteuid(0)
        except PermissionError:
            return inside, os.getresgid(), os.getgroups()
        return "root again"

    assert in_child(work) == [OTHER, [OTHER] * 3, []]


def test_stops_when_root_cannot_become_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*ids: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    done: list[str] = []
    for name in ("setgroups", "setresgid", "setegid", "seteuid"):
        monkeypatch.setattr(os, name, lambda *ids, name=name: done.append(name))
    monkeypatch.setattr(os, "setresuid", refused)
    with pytest.raises(CannotActAsOwner, match="run this command as the account that runs conchrec"):
        act_as(Owner(uid=1, gid=1, directory=tmp_path), for_good=True)
    assert done == ["setgroups", "setresgid"], "groups first: afterwards it could not"


def test_follows_no_link_of_other_users(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "link"
    precious.write_text("x")
    link.symlink_to(precious)
    with pytest.raises(FileExistsError):
        create(link, os.O_WRONLY)
    os.close(reopen(link, os.O_RDONLY))  # it is our own
    link.unlink()
    link.symlink_to("not yet there")
    os.close(reopen(link, os.O_WRONLY))
    assert stat.S_IMODE((tmp_path / "not yet there").stat().st_mode) == 0o600
    if os.getuid() == 0:
        os.lchown(link, OTHER, OTHER)
        with pytest.raises(OSError, match="a symbolic link of another user"):
            reopen(link, os.O_RDONLY)


def test_disables_core_dumps_of_keys() -> None:
    def work() -> object:
        import ctypes

        assert keep_secrets()
        pr_get_dumpable = 3
        return resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(pr_get_dumpable, 0, 0, 0, 0)

    assert in_child(work) == [[0, 0], 0]
