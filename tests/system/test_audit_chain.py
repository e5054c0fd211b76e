"""The audit log of real processes: killed, rotated, cut; verified by the command and by another program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from conchrec.audit.files import log_files, oldest_first
from tests.support.house import House, build
from tests.support.process import Result
from tests.support.stage import Stage
from tests.support.wait import fact

INDEPENDENT = Path(__file__).parent.parent / "independent_audit.py"


async def verify(house: House, *arguments: str | Path) -> Result:
    return await house.proxy.command("audit", "verify", *arguments)


def independent(house: House) -> str:
    """What the other verifier says; empty: ok."""
    state = house.proxy.directory / "state"
    files = oldest_first(log_files(house.proxy.audit_file))
    command = [sys.executable, INDEPENDENT, state / "recording_key.pub", state / "audit_heads", *files]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return done.stdout.strip() + done.stderr


async def session(house: House) -> None:
    before = count(house, "session.end")
    (await house.client().ssh("web1", "echo said")).check()
    await fact(lambda: count(house, "session.end") > before, "the session has ended")


def count(house: House, event: str) -> int:
    """How often it is in the log, which may have torn lines."""
    log = house.proxy.audit_file
    return log.read_bytes().count(f'"event":"{event}"'.encode()) if log.exists() else 0


async def test_continues_chain_after_kill(stage: Stage) -> None:
    house = await build(stage)
    await session(house)
    for torn in (b"", b'{"time":"2026-11-29T12:00'):
        await house.proxy.stop(signal.SIGKILL)
        with house.proxy.audit_file.open("ab") as file:
            file.write(torn)
        await house.proxy.start()
        await session(house)
    (await house.proxy.command("lock", "--user", "nobody")).check()
    await fact(lambda: count(house, "client.disconnect") == 3, "all have left")
    await house.proxy.stop()
    result = (await verify(house)).check()
    assert result.text.count("conchrec is still running, or was killed") == 2, str(result)
    assert result.text.count("cut by a crash, 25 bytes") == 1, str(result)
    assert " 4 chains, 1 file: ok" in result.text, str(result)
    assert independent(house) == ""


async def test_continues_chain_after_rotation(stage: Stage) -> None:
    house = await build(stage)
    await session(house)
    log = house.proxy.audit_file
    for number in (2, 1):
        log.rename(log.with_name(f"audit.jsonl.{number}"))
        await fact(lambda: log.exists() and log.stat().st_size, "the log goes on in a new file")
        if number == 1:
            # A reload has nothing to do with it, and does no harm.
            assert house.proxy.process is not None
            house.proxy.process.kill(signal.SIGHUP)
            await house.proxy.audited("config.reload")
        await session(house)
    assert " 3 files: ok" in (await verify(house, "--complete")).check().text, "while it runs"
    subprocess.run(["gzip", str(log.with_name("audit.jsonl.2"))], check=True)
    await house.proxy.deserted()
    await house.proxy.stop()
    result = (await verify(house, "--json")).check()
    read = json.loads(result.text)
    (chain,) = read["chains"]
    assert (read["ok"], chain["end"], read["notes"]) == (True, "closed", []), str(result)
    assert independent(house) == ""

    middle = log.with_name("audit.jsonl.1")
    content = middle.read_bytes()
    middle.unlink()
    assert (await verify(house)).code == 1 and independent(house)
    lines = content.splitlines(keepends=True)
    for number in range(len(lines)):
        middle.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
        if number in (0, len(lines) // 2, len(lines) - 1):
            assert (await verify(house)).code == 1, lines[number]
        assert independent(house), lines[number]
    middle.write_bytes(content)
    (await verify(house)).check()
    log.unlink()
    result = await verify(house)
    assert result.code == 1 and "the end of the chain was cut" in result.text, str(result)


async def test_signs_last_lines_soon(stage: Stage) -> None:
    house = await build(stage)
    await session(house)
    await house.proxy.deserted()
    await house.proxy.audited("audit.head", reason="interval")

    def is_signed() -> bool:
        return house.proxy.audit()[-1]["event"] == "audit.head"

    await fact(is_signed, "the last line is a head")
    size = house.proxy.audit_file.stat().st_size
    await house.proxy.stop(signal.SIGKILL)
    assert house.proxy.audit_file.stat().st_size == size
    assert "after its last head" not in (await verify(house)).check().text
