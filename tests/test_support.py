"""The peers that the tests stand on do what the tests believe: ssh to sshd, and no proxy between."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.cast import plays_as, read_cast
from tests.support.process import Process, descendants, environment, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import TookTooLong, fact, together


async def _ssh(stage: Stage) -> tuple[str, ...]:
    """An ssh command that reaches a new target directly."""
    key = await stage.key("joe")
    sshd = await stage.sshd(users=[key])
    known = stage.file("known_hosts", sshd.known_as())
    return (
        *("ssh", "-F", "none", "-i", str(key.path), "-p", str(sshd.port), "-o", "BatchMode=yes"),
        *("-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=none", f"{LOGIN}@127.0.0.1"),
    )


async def test_connects_ssh_to_sshd(stage: Stage) -> None:
    ssh = await _ssh(stage)
    result = await run(*ssh, "echo out; echo err >&2; cat; exit 3", stdin=b"typed\n")
    assert (result.stdout, result.stderr, result.code) == (b"out\ntyped\n", b"err\n", 3)


async def test_reads_and_writes_files(stage: Stage) -> None:
    ssh = await _ssh(stage)
    contents = os.urandom(3_000_000)
    result = await run(*ssh, "cat", stdin=stage.file("in", contents), stdout=stage.path("out"))
    assert result.code == 0, str(result)
    assert stage.path("out").read_bytes() == contents


async def test_gives_terminal_its_size(stage: Stage) -> None:
    ssh = await _ssh(stage)
    command = "trap 'stty size; kill $!; exit 5' WINCH; stty size; sleep 600 & wait"
    process = stage.process(*ssh[:-1], "-tt", ssh[-1], command, terminal=(97, 31))
    await process.says(b"31 97")
    process.resize(120, 40)
    await process.says(b"40 120")
    assert (await process.wait()).code == 5


async def test_serves_keys_from_agent(stage: Stage) -> None:
    key = await stage.key("joe")
    agent = await stage.agent(key)
    sshd = await stage.sshd(users=[key])
    known = stage.file("known_hosts", sshd.known_as())
    command = (
        "ssh",
        "-F",
        "none",
        "-A",
        "-p",
        str(sshd.port),
        "-o",
        f"UserKnownHostsFile={known}",
        f"{LOGIN}@localhost",
    )
    result = await run(*command, "ssh-add -L", env=environment(SSH_AUTH_SOCK=str(agent.socket)))
    assert result.text.splitlines() == await agent.lines() == [key.line]
    await agent.forget()
    assert await agent.lines() == []


async def test_ends_all_processes(stage: Stage) -> None:
    process = Process(["sh", "-c", "trap '' TERM; sleep 1000 & echo started; wait; wait"], stdin=None)
    await process.says("started")
    assert len(descendants(process.pid)) == 1
    ((child, _),) = descendants(process.pid)
    await process.stop(signal.SIGKILL)
    await fact(lambda: not _alive(child), "the child goes on")


async def test_ends_wait_at_timeout(stage: Stage) -> None:
    with pytest.raises(TookTooLong, match="nothing"):
        await fact(lambda: None, "nothing", within=0.1)
    process = stage.process("cat", stdin=None)
    with pytest.raises(TookTooLong, match="cat"):
        await process.wait(within=0.1)
    with pytest.raises(TookTooLong):
        await process.says("never", within=0.1)
    process.close_input()
    with pytest.raises(AssertionError, match="without saying"):
        await process.says("never")


async def test_waits_for_several(stage: Stage) -> None:
    results = await together(run("sh", "-c", f"exit {number}") for number in range(5))
    assert [result.code for result in results] == [0, 1, 2, 3, 4]
    with pytest.raises(AssertionError, match="exit 3"):
        await together(_checked(number) for number in (0, 3, 0))


async def _checked(number: int) -> None:
    (await run("sh", "-c", f"exit {number}")).check()


async def test_shows_bytes_unchanged_in_asciinema(stage: Stage) -> None:
    path = stage.file(
        "x.cast",
        '{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "a\\r\\nb\\n"]\n[0.2, "o", "\u00e9"]\n[0.3',
    )
    assert read_cast(path).text() == "a\r\nb\né"
    whole = stage.file("y.cast", path.read_bytes().rpartition(b"\n")[0] + b"\n")
    await plays_as(whole, b"a\r\nb\n\xc3\xa9")


def _alive(pid: int) -> bool:
    return (
        Path(f"/proc/{pid}").exists()
        and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    )
