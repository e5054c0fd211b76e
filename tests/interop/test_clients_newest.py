"""The newest OpenSSH and PuTTY, unpacked beside those of this machine (tests/clients/newest)."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support import speak as speaker
from tests.support.client import AccessMethod, Client
from tests.support.house import House, build
from tests.support.otherclients import putty
from tests.support.ports import free_port
from tests.support.process import Result, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, fact

NEWEST = Path(__file__).resolve().parents[2] / ".clients" / "newest" / "bin"
SSH = str(NEWEST / "ssh")


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    return block(build(shared_stage, options={"port_forwarding": True}))


def _newest(env: dict[str, str]) -> dict[str, str]:
    """What these programs start is the newest, too."""
    return env | {"PATH": f"{NEWEST}:{env['PATH']}"}


async def _run(client: Client, name: str, *arguments: str | Path, stdin: bytes = b"") -> Result:
    return await run(NEWEST / name, *client.options, *arguments, env=_newest(client.env), stdin=stdin)


async def test_is_newer_than_installed_version(house: House) -> None:
    def number(text: str) -> tuple[int, ...]:
        match = re.search(r"(?:OpenSSH_|Release )(\d+)\.(\d+)", text)
        assert match is not None, text
        return int(match[1]), int(match[2])

    assert number((await run(NEWEST / "ssh", "-V")).errors) >= number((await run("ssh", "-V")).errors)
    assert number((await run(NEWEST / "plink", "-V")).text) >= number((await run("plink", "-V")).text)


async def test_runs_command_of_newest_openssh(house: House, method: AccessMethod) -> None:
    before = house.proxy.sids()
    client = house.client(method)
    result = await _run(client, "ssh", "web1", "cat; echo err >&2; exit 3", stdin=b"typed\n")
    assert (result.stdout, result.stderr, result.code) == (b"typed\n", b"err\n", 3), str(result)
    cast = await house.proxy.finished_one(after=before)
    assert (cast.manifest or {})["command"] == "cat; echo err >&2; exit 3"


async def test_runs_terminal_of_newest_openssh(house: House) -> None:
    """A shell with a terminal; since 9.5 what is typed is hidden among many pings."""
    before = house.proxy.sids()
    client = house.client(AccessMethod.CERTIFICATE)
    command = (SSH, *client.options, "-tt", "web1", "sh")
    process = house.stage.process(*command, env=_newest(client.env), terminal=(90, 30))
    await process.says("# " if os.getuid() == 0 else "$ ")
    for letter in "stty size; exit 4\r":
        process.write(letter.encode())
    result = await process.wait()
    assert (b"30 90\r\n" in result.stdout, result.code) == (True, 4), str(result)
    assert "30 90" in (await house.proxy.finished_one(after=before)).text()


@pytest.mark.parametrize("protocol", ["-s", "-O"])
async def test_copies_files_by_newest_scp(house: House, tmp_path: Path, protocol: str) -> None:
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    here.write_bytes(os.urandom(1_000_000))
    before = house.proxy.sids()
    client = house.client(AccessMethod.OUTER_AGENT)
    (await _run(client, "scp", "-q", protocol, here, f"web1:{there}")).check()
    (await _run(client, "scp", "-q", protocol, f"web1:{there}", back)).check()
    assert here.read_bytes() == back.read_bytes()
    for cast in await house.proxy.finished(2, after=before):
        files = (cast.manifest or {})["files"]
        assert str(there) in json.dumps(files)
        assert "lost" not in json.dumps(files)


async def test_shares_connection_of_newest_openssh(house: House, tmp_path: Path) -> None:
    """Three sessions and a forward of one connection."""
    client = house.client(AccessMethod.CERTIFICATE)
    control = house.stage.short / house.stage.unique("control")
    port = free_port()
    shared = ("-S", str(control))
    forward = f"{port}:127.0.0.1:{house.target.port}"
    command = (SSH, *client.options, "-M", *shared, "-N", "-L", forward, "web1")
    house.stage.process(*command, env=_newest(client.env))
    await fact(control.exists, "no control master")
    for number in range(3):
        result = await _run(client, "ssh", *shared, "web1", f"echo {number}")
        assert result.check().text == f"{number}\n"
    assert (await run(sys.executable, Path(speaker.__file__), "tcp", "127.0.0.1", str(port))).text == "SSH-\n"
    (await _run(client, "ssh", *shared, "-O", "exit", "web1")).check()


async def test_runs_command_of_newest_plink(house: House, tmp_path: Path) -> None:
    options, env = await putty(house, tmp_path)
    before = house.proxy.sids()
    command = (str(NEWEST / "plink"), *options, f"{LOGIN}@localhost", "cat; echo err >&2; exit 3")
    result = await run(*command, env=_newest(env), stdin=b"typed\n")
    assert (result.stdout, result.code) == (b"typed\n", 3), str(result)
    assert result.errors.endswith("err\n")
    await house.proxy.finished_one(after=before)


async def test_copies_files_by_newest_psftp_and_pscp(house: House, tmp_path: Path) -> None:
    await _putty_copies(house, tmp_path, NEWEST, "subsystem")


@pytest.mark.parametrize("directory", [NEWEST, Path("/usr/bin")], ids=["newest", "installed"])
async def test_copies_files_by_newest_psftp_and_pscp_without_sftp(
    stage: Stage, tmp_path: Path, directory: Path
) -> None:
    """They ask for the subsystem, which the target refuses, and then for a command, on the same channel."""
    house = await build(stage)
    await house.target.stop()
    house.target = await stage.sshd(
        host_keys=house.target.host_keys,
        user_authority=stage.path(f"{house.proxy.directory.name}/user_ca.pub"),
        port=house.target.port,
        sftp=False,
    )
    await _putty_copies(house, tmp_path, directory, "exec")


async def _putty_copies(house: House, tmp_path: Path, directory: Path, kind: str) -> None:
    options, env = await putty(house, tmp_path)
    env = _newest(env) if directory == NEWEST else env
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    here.write_bytes(os.urandom(300_000))
    before = house.proxy.sids()
    batch = house.stage.file("psftp", f"put {here} {there}\nget {there} {back}\n")
    (await run(directory / "psftp", *options, "-b", batch, f"{LOGIN}@localhost", env=env)).check()
    assert here.read_bytes() == there.read_bytes() == back.read_bytes()
    # -hostkey and the like are psftp's as well as pscp's.
    (await run(directory / "pscp", "-q", *options, here, f"{LOGIN}@localhost:{there}2", env=env)).check()
    assert here.read_bytes() == Path(f"{there}2").read_bytes()
    for cast in await house.proxy.finished(2, after=before):
        manifest = cast.manifest or {}
        assert manifest["kind"] == kind
        assert str(there) in json.dumps(manifest["files"])
        assert "lost" not in json.dumps(manifest["files"])
