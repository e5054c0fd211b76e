"""What a user, or the login shell of the target, does to make an account of files that is not true."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from conchrec.recording.capture import sftp_wire as wire
from conchrec.ssh.wire import string, uint32, uint64
from tests.support.cast import Cast
from tests.support.house import House, build
from tests.support.process import Process
from tests.support.stage import Stage
from tests.support.wait import fact

SERVER = "/usr/lib/openssh/sftp-server"
EXTERNAL = f"Subsystem sftp {SERVER} -u 0"
INIT = string(bytes((wire.INIT,)) + uint32(3))
#: The first handle that sftp-server gives.
FIRST = string(uint32(0))
Fields = dict[str, object]


def request(kind: int, number: int, body: bytes) -> bytes:
    return string(bytes((kind,)) + uint32(number) + body)


def opens(number: int, path: Path, flags: int, attributes: bytes = uint32(0)) -> bytes:
    return request(wire.OPEN, number, string(str(path).encode()) + uint32(flags) + attributes)


def mode(value: int) -> bytes:
    return uint32(4) + uint32(value)


def answers(process: Process) -> int:
    """How many packets have come."""
    data, count = process.stdout, 0
    while len(data) >= 4 and len(data) >= 4 + (size := int.from_bytes(data[:4], "big")):
        data, count = data[4 + size :], count + 1
    return count


async def send_requests(house: House, groups: Sequence[Sequence[bytes]]) -> Cast:
    """Packets, group by group: the next one when all of the last are answered."""
    before = house.proxy.sids()
    process = house.client().start("-s", "web1", "sftp")
    expected = 1
    process.write(INIT)
    for group in groups:
        await fact(lambda: answers(process) >= expected, lambda: str(process))  # noqa: B023
        process.write(b"".join(group))
        expected += len(group)
    await fact(lambda: answers(process) >= expected, lambda: str(process))
    process.close_input()
    await process.wait()
    recording = await house.proxy.finished_one(after=before)
    await house.proxy.audited("session.end", sid=recording.sid)
    return recording


def listed(recording: Cast) -> list[Fields]:
    assert recording.manifest is not None
    return cast("list[Fields]", cast(Fields, recording.manifest["files"])["list"])


def not_kept(recording: Cast) -> list[str]:
    assert recording.manifest is not None
    return cast("list[str]", cast(Fields, recording.manifest["coverage"])["not_kept"])


EMPTY = hashlib.sha256(b"").hexdigest()


async def test_accounts_for_effects_of_open_flags(house: House, tmp_path: Path) -> None:
    full, new, program, folder = (tmp_path / name for name in ("full", "new", "program", "folder"))
    full.write_bytes(b"contents")
    made = mode(0o4755)
    recording = await send_requests(
        house,
        [
            [opens(1, full, wire.FXF_READ | wire.FXF_TRUNC)],
            [request(wire.CLOSE, 2, FIRST)],
            [opens(3, new, wire.FXF_READ | wire.FXF_CREAT | wire.FXF_EXCL)],
            [request(wire.CLOSE, 4, FIRST)],
            [opens(5, program, wire.FXF_WRITE | wire.FXF_CREAT | wire.FXF_TRUNC, made)],
            [request(wire.WRITE, 6, FIRST + uint64(0) + string(b"#!"))],
            [request(wire.CLOSE, 7, FIRST)],
            [request(wire.MKDIR, 8, string(str(folder).encode()) + mode(0o1700))],
        ],
    )
    assert (full.read_bytes(), new.read_bytes(), program.read_bytes()) == (b"", b"", b"#!")
    assert stat.S_IMODE(program.stat().st_mode) & stat.S_ISUID
    operations = [
        (operation["operation"], operation["path"], operation.get("detail"), operation.get("sha256"))
        for operation in listed(recording)
    ]
    assert operations == [
        ("write", str(full), "flags=read,truncate", EMPTY),
        ("write", str(new), "flags=read,create,exclusive", EMPTY),
        ("write", str(program), "flags=write,create,truncate mode=4755", hashlib.sha256(b"#!").hexdigest()),
        ("mkdir", str(folder), "mode=1700", None),
    ]
    events = house.proxy.audit("sftp", sid=recording.sid)
    assert [(event["operation"], event["path"], event.get("detail")) for event in events] == [
        operation[:3] for operation in operations
    ]
    assert not_kept(recording) == ["digest-only"]


@pytest.mark.parametrize("kind", ["fsetstat", "copy-data"])
async def test_marks_account_incomplete_after_guessed_handle(house: House, tmp_path: Path, kind: str) -> None:
    victim, other = tmp_path / "victim", tmp_path / "other"
    victim.write_bytes(b"contents")
    other.write_bytes(b"other")
    second = string(uint32(1))
    write = wire.FXF_READ | wire.FXF_WRITE
    attributes = uint32(5) + uint64(0) + uint32(0o4777)
    guesses = {
        "fsetstat": [opens(1, victim, write), request(wire.FSETSTAT, 2, FIRST + attributes)],
        "copy-data": [
            opens(1, other, wire.FXF_READ),
            opens(2, victim, write),
            request(wire.EXTENDED, 3, string(b"copy-data") + FIRST + uint64(0) * 2 + second + uint64(0)),
        ],
    }
    recording = await send_requests(house, [guesses[kind]])
    assert victim.read_bytes() == (b"" if kind == "fsetstat" else b"othernts")
    await house.proxy.audited("transfer.lost", sid=recording.sid, reason="an unknown handle")
    assert recording.manifest is not None
    assert cast(Fields, recording.manifest["files"])["lost"] == "an unknown handle"
    assert "files-lost" in not_kept(recording)
    (change,) = (entry for entry in listed(recording) if "unknown handle" in str(entry.get("detail")))
    assert change["result"] == "not known"


# --- a subsystem is what the target says it is


#: VERSION answers INIT, of 9 bytes: one that comes before it is no answer, and is recorded.
GREETING = r"head -c 9 >/dev/null; printf '\0\0\0\5\2\0\0\0\3'; "


@pytest.mark.parametrize("greeting", ["", GREETING], ids=["shell", "VERSION first"])
async def test_records_shell_that_replaces_file_server(stage: Stage, greeting: str) -> None:
    """The login shell of the target reads its start-up file, and runs another shell instead."""
    house = await build(stage, sshd=[EXTERNAL])
    (house.target.directory / "home" / ".bashrc").write_text(f"{greeting}exec bash --norc\n")
    before = house.proxy.sids()
    process = house.client().start("-s", "web1", "sftp")
    if greeting:
        process.write(INIT + b"\n")
        await fact(lambda: len(process.stdout) >= 9, lambda: str(process))
    process.write(b"echo one; id -un; echo nothing-is-hidden >&2\n")
    await process.says("one\n")
    process.write(b"printf xy; exit 3\n")
    result = await process.wait()
    assert result.code == 3
    recording = await house.proxy.finished_one(after=before)
    text = recording.text()
    skipped = 9 if greeting else 0  # VERSION was followed
    shell = result.stdout[skipped:].decode()
    assert shell.startswith("one\n")
    assert shell.endswith("xy")
    assert text.replace("nothing-is-hidden\n", "") == shell
    await house.proxy.audited("transfer.lost", sid=recording.sid)
    assert "files-lost" in not_kept(recording)
    manifest = recording.manifest
    assert manifest is not None
    assert cast(Fields, manifest["stdout"])["sha256"] == hashlib.sha256(result.stdout).hexdigest()
    (end,) = await house.proxy.audited("session.end", sid=recording.sid)
    assert end["stdout_sha256"] == hashlib.sha256(result.stdout).hexdigest()


async def test_accounts_for_external_sftp_server(stage: Stage, tmp_path: Path) -> None:
    house = await build(stage, sshd=[EXTERNAL])
    batch = house.stage.file("batch", f"put {__file__} {tmp_path}/there\n")
    before = house.proxy.sids()
    client = house.client()
    (await client.program("sftp", *client.options, "-b", batch, "web1")).check()
    recording = await house.proxy.finished_one(after=before)
    (entry,) = listed(recording)
    assert entry["sha256"] == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    manifest = recording.manifest
    assert manifest is not None
    for name in ("stdin", "stdout"):
        assert len(str(cast(Fields, manifest[name])["sha256"])) == 64
    assert (recording.text(), not_kept(recording)) == ("", ["digest-only"])


# --- commands


async def test_records_command_that_ends_with_copy(house: House, tmp_path: Path) -> None:
    before = house.proxy.sids()
    process = house.client().start("web1", f"git-upload-pack {tmp_path}; scp -t {tmp_path}")
    process.write(b"C4755 2 x\n#!\0")
    await fact(lambda: (tmp_path / "x").exists(), lambda: str(process))
    process.close_input()
    await process.wait()
    recording = await house.proxy.finished_one(after=before)
    manifest = recording.manifest
    assert manifest is not None
    files = cast(Fields, manifest["files"])
    assert (files["by"], files["mixed"]) == ("scp", True)
    assert files["lost"] == "the command runs several transfer programs"
    await house.proxy.audited("transfer.lost", sid=recording.sid)
    assert house.proxy.audit("transfer", sid=recording.sid) == []
    data = cast(Fields, manifest["stdin"])
    assert data["sha256"] == hashlib.sha256(b"C4755 2 x\n#!\0").hexdigest()


async def test_refuses_file_programs_anywhere_in_command(stage: Stage, tmp_path: Path) -> None:
    house = await build(stage, options={"file_copy": False})
    client = house.client()
    for command in (
        f"git-upload-pack x; scp -t {tmp_path}",
        f"sh -c 'scp -t {tmp_path}'",
        f"if true; then s\\cp -t {tmp_path}; fi",
        f": {'x' * 9000}; exec {SERVER}",
    ):
        result = await client.ssh("web1", command)
        assert result.code == 255
        assert "may not copy files with " in result.errors


async def test_accounts_for_mode_set_by_scp(house: House, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!")
    program.chmod(0o4755)
    before = house.proxy.sids()
    client = house.client()
    (await client.program("scp", *client.options, "-qOp", program, f"web1:{tmp_path}/there")).check()
    recording = await house.proxy.finished_one(after=before)
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o4755
    (entry,) = listed(recording)
    assert str(entry["detail"]).startswith("mode=4755 mtime=")
