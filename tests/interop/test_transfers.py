"""What is known of files that real programs moved: each is compared with sha256sum's word for it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import asyncssh
import paramiko
import pytest

from tests.support.cast import Cast
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.otherclients import PATIENCE, paramiko_connections, putty
from tests.support.process import Result, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import fact, in_thread

LARGE = 9_000_001
Fields = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class TransferAudit:
    """What one session left behind: its cast, the manifest's ``files`` and the events of the audit."""

    cast: Cast
    files: Fields
    listed: list[Fields]
    events: list[Fields]

    def of(self, operation: str, path: Path | str) -> Fields:
        """The one entry of this kind, which the audit and the cast have, too."""
        (operations,) = (e for e in self.listed if (e["operation"], e["path"]) == (operation, str(path)))
        (event,) = (e for e in self.events if (e.get("operation"), e.get("path")) == (operation, str(path)))
        assert event["result"] == operations["result"]
        assert (event.get("sha256"), event.get("size")) == (operations.get("sha256"), operations.get("bytes"))
        marked = [text for text in self.cast.listed("m") if text.startswith(f"{operation} {path} ")]
        assert len(marked) == 1, (marked, self.cast.listed("m"))
        return operations

    async def is_whole(self, operation: str, path: Path | str, same: Path) -> None:
        """It passed whole, and is what ``same`` is."""
        entry = self.of(operation, path)
        summed = (await run("sha256sum", stdin=same)).check().text.split()[0]
        assert (entry["result"], entry.get("sha256"), entry["bytes"]) == (
            "ok",
            summed,
            same.stat().st_size,
        ), entry
        assert "unhashed" not in entry


async def audit_of(house: House, work: Callable[[], Awaitable[object]], event: str = "sftp") -> TransferAudit:
    """Of the one session that ``work`` is."""
    before = house.proxy.sids()
    await work()
    recording = await house.proxy.finished_one(after=before)
    assert recording.manifest is not None
    files = cast(Fields, recording.manifest["files"])
    await house.proxy.audited("session.end", sid=recording.sid)
    assert house.proxy.audit("transfer.lost", sid=recording.sid) == []
    assert "lost" not in files
    return TransferAudit(
        cast=recording,
        files=files,
        listed=cast("list[Fields]", files["list"]),
        events=house.proxy.audit(event, sid=recording.sid),
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all sizes that matter: empty, of one byte, of a packet, of many; names that need care."""
    top = tmp_path / "tree"
    (top / "sub dir").mkdir(parents=True)
    chance = random.Random(5)
    for name, size in (("empty", 0), ("one", 1), ("packet", 32768), ("more", 32769), ("large", LARGE)):
        (top / name).write_bytes(chance.randbytes(size))
    (top / "sub dir" / "it's \u00e9").write_bytes(b"contents\n")
    (top / "sub dir" / os.fsdecode(b"\xff")).write_bytes(b"not UTF-8\n")
    return top


def below(top: Path) -> list[Path]:
    return sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file())


def shown(path: Path) -> str:
    """As the account has it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# -- OpenSSH


async def sftp(house: House, *lines: str, flags: Sequence[str] = ()) -> Result:
    batch = house.stage.file(house.stage.unique("batch"), "\n".join(lines) + "\n")
    client = house.client()
    return (await client.program("sftp", *client.options, *flags, "-b", batch, "web1")).check()


async def test_accounts_for_sftp_of_trees(house: House, tree: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    account = await audit_of(house, lambda: sftp(house, f"put -r {tree} {there}", f"get -r {there} {back}"))
    assert below(there) == below(back) == below(tree)
    for name in below(tree):
        await account.is_whole("write", shown(there / name), tree / name)
        await account.is_whole("read", shown(there / name), tree / name)
    total = sum((tree / name).stat().st_size for name in below(tree))
    counted = {name: account.files[name] for name in ("by", "read", "read_bytes", "written", "failed")}
    assert counted == {"by": "sftp", "read": 7, "read_bytes": total, "written": 7, "failed": 0}
    assert account.files["written_bytes"] == total
    assert cast(int, account.files["sent"]) > total
    assert account.of("mkdir", there)["result"] == "ok"


@pytest.mark.parametrize(
    ("flags", "kind"),
    [(("-B", "261120", "-R", "128"), "subsystem"), (("-s", "/usr/lib/openssh/sftp-server"), "exec")],
    ids=["large packets", "exec"],
)
async def test_accounts_for_sftp_as_command(
    house: House, flags: Sequence[str], kind: str, tree: Path, tmp_path: Path
) -> None:
    """A command that speaks SFTP is recorded like any command, and has an account besides."""
    large, there, back = tree / "large", tmp_path / "there", tmp_path / "back"
    account = await audit_of(
        house, lambda: sftp(house, f"put {large} {there}", f"get {there} {back}", flags=flags)
    )
    await account.is_whole("write", there, large)
    await account.is_whole("read", there, back)
    assert account.cast.manifest is not None
    assert account.cast.manifest["kind"] == kind
    assert bool(account.cast.text()) == (kind == "exec")


async def test_accounts_for_changes_by_sftp(house: House, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\n")
    (tmp_path / "file").write_text("file\n")
    lines = (
        f"mkdir {tmp_path}/d",
        f"rename {tmp_path}/a {tmp_path}/b",
        f"ln -s {tmp_path}/b {tmp_path}/symbolic",
        f"ln {tmp_path}/b {tmp_path}/hard",
        f"chmod 600 {tmp_path}/b",
        f"cp {tmp_path}/b {tmp_path}/copy",
        f"rm {tmp_path}/b",
        f"rmdir {tmp_path}/d",
        f"-rmdir {tmp_path}/file",
        f"-rm {tmp_path}/missing",
        f"-get {tmp_path}/missing {tmp_path}/here",
        f"-put {tmp_path}/file {tmp_path}/file/below",
    )
    account = await audit_of(house, lambda: sftp(house, *lines))
    results = {(entry["operation"], entry["path"]): entry["result"] for entry in account.listed}
    assert results[("mkdir", f"{tmp_path}/d")] == "ok"
    assert account.of("posix-rename", tmp_path / "a")["other"] == f"{tmp_path}/b"
    assert account.of("symlink", tmp_path / "symbolic")["other"] == f"{tmp_path}/b"
    assert account.of("hardlink", tmp_path / "b")["other"] == f"{tmp_path}/hard"
    assert account.of("setstat", tmp_path / "b")["detail"] == "mode=0600"
    assert account.of("copy-data", tmp_path / "b")["other"] == f"{tmp_path}/copy"
    assert account.of("write", tmp_path / "copy")["unhashed"] == "copied at the target"
    assert results[("remove", f"{tmp_path}/b")] == "ok"
    assert results[("rmdir", f"{tmp_path}/d")] == "ok"
    assert results[("rmdir", f"{tmp_path}/file")] != "ok"
    assert results[("remove", f"{tmp_path}/missing")] == "no such file"
    failed = account.of("write", tmp_path / "file" / "below")
    assert (failed["unhashed"], failed["bytes"]) == ("not opened", 0)
    assert account.files["failed"] == sum(entry["result"] != "ok" for entry in account.listed) >= 3


async def test_accounts_for_resumed_sftp_without_hash(house: House, tmp_path: Path) -> None:
    """Half of a file is no file: it has no hash, and the account says why."""
    whole, half, back = tmp_path / "whole", tmp_path / "half", tmp_path / "back"
    whole.write_bytes(os.urandom(LARGE))
    for part in (half, back):
        part.write_bytes(whole.read_bytes()[:5_000_000])
    account = await audit_of(house, lambda: sftp(house, f"reput {whole} {half}", f"reget {whole} {back}"))
    assert half.read_bytes() == back.read_bytes() == whole.read_bytes()
    for operation, path, why in (("write", half, "appended"), ("read", whole, "not from its beginning")):
        entry = account.of(operation, path)
        assert (entry["bytes"], entry["unhashed"], entry["result"]) == (LARGE - 5_000_000, why, "ok")
        assert "sha256" not in entry


def opens(path: Path) -> bytes:
    """INIT, and OPEN to write."""
    name = len(str(path)).to_bytes(4, "big") + str(path).encode()
    return packets(b"\1\0\0\0\3", b"\3\0\0\0\3" + name + (2 | 8 | 16).to_bytes(4, "big") + bytes(4))


def packets(*requests: bytes) -> bytes:
    return b"".join(len(request).to_bytes(4, "big") + request for request in requests)


#: WRITE to the first handle that sftp-server gives.
WRITE = packets(b"\6\0\0\0\4" + b"\0\0\0\4" + bytes(4) + bytes(8) + b"\0\0\0\4data")


async def test_accounts_for_interrupted_sftp(house: House, tmp_path: Path) -> None:
    """ssh is ended while the file is open: what came is told, and that the file was not closed."""
    there = tmp_path / "there"

    async def work() -> None:
        process = house.client().start("-s", "web1", "sftp")
        process.write(opens(there))
        await fact(lambda: b"\x66\0\0\0\3" in process.stdout, lambda: str(process))  # HANDLE
        process.write(WRITE)
        await fact(lambda: there.read_bytes() == b"data", lambda: str(process))
        await process.stop()

    account = await audit_of(house, work)
    entry = account.of("write", there)
    assert (entry["bytes"], entry["result"], entry["unhashed"]) == (4, "not closed", "not closed")


async def test_marks_guessed_handle_in_account(house: House, tmp_path: Path) -> None:
    """What is written to it before the target gave it is not accounted for, and that is said."""
    there = tmp_path / "there"
    before = house.proxy.sids()
    process = house.client().start("-s", "web1", "sftp")
    process.write(opens(there) + WRITE)
    await fact(lambda: there.exists() and there.read_bytes() == b"data", lambda: str(process))
    await process.stop()
    recording = await house.proxy.finished_one(after=before)
    await house.proxy.audited("transfer.lost", sid=recording.sid, reason="an unknown handle")
    (event,) = house.proxy.audit("sftp", sid=recording.sid)
    assert (event["path"], event["result"], event["unhashed"]) == (str(there), "not known", "not known")


async def scp(house: House, *arguments: str | Path, code: int = 0) -> Result:
    client = house.client()
    result = await client.program("scp", *client.options, "-q", *arguments)
    assert result.code == code, str(result)
    return result


@pytest.mark.parametrize("protocol", ["-s", "-O"])
async def test_accounts_for_scp(house: House, protocol: str, tree: Path, tmp_path: Path) -> None:
    """Both of its protocols, both ways, a file and a tree."""
    event = "sftp" if protocol == "-s" else "scp"
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    account = await audit_of(house, lambda: scp(house, protocol, "-rp", tree, f"web1:{there}/"), event)
    assert below(there / "tree") == below(tree)
    for name in below(tree):
        await account.is_whole("write", shown(there / "tree" / name), tree / name)
    account = await audit_of(house, lambda: scp(house, protocol, "-rp", f"web1:{there}/tree", back), event)
    assert below(back) == below(tree)
    for name in below(tree):
        await account.is_whole("read", shown(there / "tree" / name), tree / name)
    assert (account.files["by"], account.files["failed"]) == (event, 0)
    # One file, over another one that is longer.
    (there / "one").write_bytes(b"longer than that")
    account = await audit_of(house, lambda: scp(house, protocol, tree / "one", f"web1:{there}/one"), event)
    await account.is_whole("write", there / "one", tree / "one")


async def test_keeps_output_of_legacy_scp(house: House, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("as it was\n")
    account = await audit_of(
        house, lambda: scp(house, "-O", f"web1:{tmp_path}/text", tmp_path / "back"), event="scp"
    )
    assert account.cast.text() == "C0644 10 text\nas it was\n\0"


async def test_accounts_for_scp_to_possible_directory(house: House, tmp_path: Path) -> None:
    """Only the target knows; the account says what was asked for, and what the file was called."""
    (tmp_path / "here").write_text("here\n")
    (tmp_path / "there").mkdir()
    work = ("-O", tmp_path / "here", f"web1:{tmp_path}/there")
    account = await audit_of(house, lambda: scp(house, *work), event="scp")
    assert (tmp_path / "there" / "here").exists()
    (entry,) = account.listed
    assert (entry["path"], entry["name"], entry["result"]) == (f"{tmp_path}/there", "here", "ok")


async def test_accounts_for_scp_with_missing_files(house: House, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "b").mkdir(parents=True)  # in the place of a file
    for name in "abc":
        (tmp_path / name).write_text(name)
    files = [tmp_path / name for name in "abc"]
    account = await audit_of(house, lambda: scp(house, "-O", *files, f"web1:{there}", code=1), event="scp")
    results = {first["path"]: first["result"] for first in account.listed}
    assert {path: results[path] for path in (f"{there}/a", f"{there}/c")} == {
        f"{there}/a": "ok",
        f"{there}/c": "ok",
    }
    refused = account.of("write", there / "b")
    assert "s a directory" in str(refused["result"]) and refused["unhashed"] == "it failed"
    sources = ["web1:" + str(tmp_path / name) for name in ("a", "missing")]
    before = house.proxy.sids()
    await scp(house, "-O", *sources, there, code=1)
    first, second = await house.proxy.finished(2, after=before)
    entries = [cast(Fields, recording.manifest or {})["files"] for recording in (first, second)]
    entries_of_files = [
        entry for files in entries for entry in cast("list[Fields]", cast(Fields, files)["list"])
    ]
    assert [entry["path"] for entry in entries_of_files] == [f"{tmp_path}/a", f"{tmp_path}/missing"]
    assert "No such file" in str(entries_of_files[1]["result"])


async def test_accounts_for_scp_of_pattern(house: House, tmp_path: Path) -> None:
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(name)
    back = tmp_path / "back"
    back.mkdir()
    account = await audit_of(house, lambda: scp(house, "-O", f"web1:{tmp_path}/*.txt", back), event="scp")
    for name in ("1.txt", "2.txt"):
        await account.is_whole("read", tmp_path / name, back / name)


# -- other people's


async def test_accounts_for_sftp_of_paramiko(house: House, tree: Path, tmp_path: Path) -> None:
    """It asks for a whole file at once, and takes the size for the end."""
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    back.mkdir()

    def work() -> None:
        outer, inner = paramiko_connections(house)
        try:
            client = paramiko.SFTPClient.from_transport(inner)
            assert client is not None
            for name in ("empty", "one", "packet", "more", "large"):
                client.put(str(tree / name), str(there / name))
                client.get(str(there / name), str(back / name))
            client.posix_rename(str(there / "one"), str(there / "two"))
            client.rename(str(there / "two"), str(there / "three"))
            client.symlink("three", str(there / "link"))
            client.truncate(str(there / "three"), 0)
        finally:
            inner.close()
            outer.close()

    account = await audit_of(house, lambda: in_thread(work))
    for name in ("empty", "one", "packet", "more", "large"):
        await account.is_whole("write", there / name, tree / name)
        assert (back / name).read_bytes() == (tree / name).read_bytes()
        entry = account.of("read", there / name)
        if entry["bytes"] == (tree / name).stat().st_size:
            await account.is_whole("read", there / name, back / name)
        else:
            # If all replies are there before its thread sends the next request, paramiko takes the replies
            # for complete, and reads again what that thread goes on to ask for.
            assert name in ("more", "large"), entry
            assert (entry["result"], entry["unhashed"]) == ("ok", "a part of it passed twice"), entry
            assert cast(int, entry["bytes"]) > (tree / name).stat().st_size, entry
    assert account.of("posix-rename", there / "one")["other"] == str(there / "two")
    assert account.of("rename", there / "two")["other"] == str(there / "three")
    assert account.of("symlink", there / "link")["other"] == "three"
    assert account.of("setstat", there / "three")["detail"] == "size=0"


async def test_accounts_for_sftp_of_asyncssh(house: House, tree: Path, tmp_path: Path) -> None:
    """Its requests overtake one another."""
    there, back = tmp_path / "there", tmp_path / "back"
    known = asyncssh.import_known_hosts(house.authority)
    common = {
        "client_keys": [str(house.keyless.key.path)],
        "known_hosts": known,
        "agent_path": None,
        "config": None,
    }

    async def talk() -> None:
        async with (
            asyncssh.connect(house.proxy.host, house.proxy.port, username="joe", **common) as outer,
            asyncssh.connect("localhost", house.target.port, username=LOGIN, tunnel=outer, **common) as inner,
            inner.start_sftp_client() as client,
        ):
            await client.put(str(tree), str(there), recurse=True)
            await client.get(str(there), str(back), recurse=True)
            await client.remote_copy(str(there / "large"), str(there / "copy"))
            await client.symlink("copy", str(there / "link"))
            await client.remove(str(there / "copy"))

    account = await audit_of(
        house, lambda: in_thread(lambda: asyncio.run(asyncio.wait_for(talk(), PATIENCE)))
    )
    assert below(back) == below(tree)
    for name in below(tree):
        await account.is_whole("write", shown(there / name), tree / name)
        await account.is_whole("read", shown(there / name), tree / name) if name.name != "large" else None
    assert account.of("symlink", there / "link")["other"] == "copy"
    assert account.of("copy-data", there / "large")["other"] == str(there / "copy")


@pytest.mark.parametrize("program", ["psftp", "pscp -sftp", "pscp -scp"])
async def test_accounts_for_sftp_of_putty(house: House, program: str, tree: Path, tmp_path: Path) -> None:
    options, env = await putty(house, tmp_path)
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    name, *flags = program.split()
    (tree / "sub dir" / os.fsdecode(b"\xff")).unlink()

    async def talk(*arguments: str | Path) -> None:
        (await run(name, *flags, *options, *arguments, env=env)).check()

    if name == "psftp":
        batch = house.stage.file("psftp", f"put -r {tree} {there}/tree\nget -r {there}/tree {back}\n")
        works: Sequence[tuple[str | Path, ...]] = (("-b", batch, f"{LOGIN}@localhost"),)
    else:
        far = f"{LOGIN}@localhost:{there}"
        # With the slash it is sure to be a directory; by sftp it would be in the path twice.
        works = (("-r", tree, f"{far}/" if "-scp" in flags else far), ("-r", f"{far}/tree", back))
    event = "scp" if "-scp" in flags else "sftp"
    accounts = [await audit_of(house, lambda work=work: talk(*work), event) for work in works]  # type: ignore[misc]
    assert below(back) == below(tree)
    for path in below(tree):
        await accounts[0].is_whole("write", there / "tree" / path, tree / path)
        await accounts[-1].is_whole("read", there / "tree" / path, tree / path)


# -- rsync and git


async def test_recognizes_rsync_and_git_by_content(house: House, tree: Path, tmp_path: Path) -> None:
    client = house.client()
    work = ("rsync", "-a", "-e", client.shell_command, f"{tree}/", f"web1:{tmp_path}/there/")
    account = await audit_of(house, lambda: client.program(*work), event="transfer")
    assert (account.files["by"], account.listed) == ("rsync", [])
    (event,) = account.events
    assert event["program"] == "rsync" and event["sent"] == account.files["sent"]
    total = sum((tree / name).stat().st_size for name in below(tree))
    assert total < cast(int, event["sent"]) < total + 10_000
    (end,) = house.proxy.audit("session.end", sid=account.cast.sid)
    assert (end["stdin"], end["stdout"]) == (event["sent"], event["received"])

    (await run("git", "init", "-q", "--bare", tmp_path / "repository")).check()
    client.env["GIT_SSH_COMMAND"] = client.shell_command
    clone = ("git", "clone", "-q", f"ssh://web1{tmp_path}/repository", tmp_path / "clone")
    account = await audit_of(house, lambda: client.program(*clone), event="transfer")
    (event,) = account.events
    assert event["program"] == account.files["by"] == "git-upload-pack"
    assert cast(int, event["received"]) > 0


# -- what is not understood, and what is not allowed


@pytest.mark.parametrize(
    ("arguments", "program"),
    [(("-s", "web1", "sftp"), "sftp"), (("web1", "scp -t /nonexistent"), "scp")],
    ids=["sftp", "scp"],
)
async def test_relays_unknown_protocol(house: House, arguments: Sequence[str], program: str) -> None:
    before = house.proxy.sids()
    await house.client().ssh(*arguments, stdin=b"this is none of it\n" * 1000)
    recording = await house.proxy.finished_one(after=before)
    (event,) = await house.proxy.audited("transfer.lost", sid=recording.sid, program=program)
    assert recording.manifest is not None
    files = cast(Fields, recording.manifest["files"])
    assert files["lost"] == event["reason"]
    assert [text for text in recording.listed("m") if str(event["reason"]) in text]


async def test_ends_account_when_output_precedes_sftp(house: House, tmp_path: Path) -> None:
    """What a shell prints before it is no SFTP: the account ends, the bytes pass anyway."""
    command = "echo welcome; exec cat; exec sftp-server"
    before = house.proxy.sids()
    result = (await house.client().ssh("web1", command, stdin=b"\0\0\0\5\1\0\0\0\3")).check()
    assert result.stdout == b"welcome\n\0\0\0\5\1\0\0\0\3"
    recording = await house.proxy.finished_one(after=before)
    await house.proxy.audited("transfer.lost", sid=recording.sid, program="sftp")
    assert recording.text().startswith("welcome\n")


async def test_refuses_copies_without_file_copy(stage: Stage) -> None:
    house = await build(stage, options={"file_copy": False})
    client = house.client()
    for command, by in (
        ("scp -t /tmp", "scp"),
        ("/usr/bin/scp -r -f '/etc/x'", "scp"),
        ("exec /usr/lib/openssh/sftp-server -e", "sftp"),
    ):
        result = await client.ssh("web1", command)
        assert result.code == 255
        assert f"may not copy files with {by} as root@localhost (file_copy: no)" in result.errors
    batch = house.stage.file("batch", "pwd\n")
    for program in (
        ("scp", "-O", batch, "web1:/tmp"),
        ("sftp", "-s", "/usr/lib/openssh/sftp-server", "-b", batch, "web1"),
    ):
        result = await client.program(str(program[0]), *client.options, *program[1:])
        assert result.code != 0 and "may not copy files with " in result.errors
    rules = {event["rule"] for event in await house.proxy.audited("session.rejected", count=5)}
    assert len(rules) == 1 and str(rules.pop()).startswith("role ops: file_copy (line ")
    # A shell can, whatever this says.
    assert (await client.ssh("web1", "cat /etc/hostname; scp 2>&1 | head -1")).code == 0


async def test_audits_transfers_without_recording(stage: Stage, tmp_path: Path) -> None:
    house = await build(
        stage, settings={"recordings": {"min_free": "1000TiB"}}, options={"record": "best_effort"}
    )
    (tmp_path / "here").write_bytes(os.urandom(100_000))
    client = house.client(AccessMethod.CERTIFICATE)
    there = tmp_path / "there"
    (await client.program("scp", *client.options, "-q", tmp_path / "here", f"web1:{there}")).check()
    (event,) = await house.proxy.audited("sftp", operation="write")
    summed = (await run("sha256sum", there)).check().text.split()[0]
    assert (event["path"], event["sha256"], event["size"]) == (str(there), summed, 100_000)
    assert house.proxy.casts() == []
