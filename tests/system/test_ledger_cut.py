"""The ledger is changed while the proxy runs, and while it does not: it notices, and says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import fact


async def session(house: House) -> str:
    """One that is over, and sealed; its session id."""
    before = len(house.proxy.audit("session.end"))
    (await house.client().ssh("web1", "echo said")).check()
    ended = await house.proxy.audited("session.end", count=before + 1)
    return str(ended[-1]["sid"])


def ledger_of(house: House) -> Path:
    return house.proxy.recordings_directory / "ledger.jsonl"


def lines(house: House) -> list[dict[str, object]]:
    return [json.loads(line) for line in ledger_of(house).read_bytes().splitlines()]


def cut(house: House, keep: int) -> None:
    """The last lines, and the recordings that they name."""
    path = ledger_of(house)
    kept = path.read_bytes().splitlines(keepends=True)
    for line in kept[keep:]:
        for file in house.proxy.recordings_directory.rglob(f"{json.loads(line)['sid']}.*"):
            file.unlink()
    os.truncate(path, sum(map(len, kept[:keep])))


async def failed(house: House, expected: str) -> None:
    """``verify`` says that the ledger did not continue this head."""
    result = await house.proxy.command("recordings", "verify")
    assert result.code == 1
    assert f"the ledger had been changed (its last head was {expected})" in result.text, str(result)


async def test_detects_cut_ledger_while_running(stage: Stage) -> None:
    house = await build(stage)
    await session(house)
    victim = await session(house)
    (ended,) = house.proxy.audit("session.end", sid=victim)
    cut(house, 2)
    # It is noticed although nobody logs in.
    (event,) = await house.proxy.audited("evidence.tampered")
    assert event["expected"] == ended["head"] and event["ledger"] == str(ledger_of(house))
    assert "line 4 ended at byte" in str(event["reason"])
    await house.proxy.logged("EVIDENCE WAS TAMPERED WITH")
    stated = lines(house)[-1]
    assert (stated["number"], stated["act"], stated["head"]) == (3, "broken", ended["head"])
    # Sessions go on, and are signed behind that statement.
    later = await session(house)
    assert [line["sid"] for line in lines(house)[3:]] == [later, later]
    await failed(house, str(ended["head"]))
    result = await house.proxy.command("recordings", "verify")
    assert f"session {victim}" in result.text  # by the audit log, which names it
    assert (await house.proxy.command("recordings", "verify", later)).code == 1
    # Nothing is left to be noticed twice.
    await house.proxy.restart()
    await session(house)
    assert len(house.proxy.audit("evidence.tampered")) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_detects_cut_ledger_at_start(stage: Stage, how: signal.Signals) -> None:
    house = await build(stage)
    await session(house)
    victim = await session(house)
    (ended,) = house.proxy.audit("session.end", sid=victim)
    heads = house.proxy.directory / "state" / "ledger_heads.json"
    head = str(ended["head"])
    await fact(lambda: heads.exists() and head in heads.read_text(), "the head is kept")
    assert heads.stat().st_mode & 0o777 == 0o600
    await house.proxy.stop(how)
    cut(house, 2)
    refused = await house.proxy.command("recordings", "hold", str(lines(house)[0]["sid"]), "--reason", "x")
    assert refused.code != 0 and "its last known head is" in refused.errors, str(refused)
    await house.proxy.start()
    (event,) = await house.proxy.audited("evidence.tampered")
    assert event["expected"] == head
    await failed(house, head)


async def test_detects_changed_ledger_line_while_running(stage: Stage) -> None:
    house = await build(stage)
    for _ in range(2):
        await session(house)
    path = ledger_of(house)
    contents = path.read_bytes()
    path.write_bytes(contents.replace(b'"act":"open"', b'"act":"opem"', 1))
    (event,) = await house.proxy.audited("evidence.tampered")
    assert "line 1 was changed" in str(event["reason"])
    assert lines(house)[-1]["act"] == "broken"


async def test_detects_removed_ledger_while_running(stage: Stage) -> None:
    house = await build(stage)
    await session(house)
    for path in house.proxy.recordings_directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (event,) = await house.proxy.audited("evidence.tampered")
    assert event["reason"] == "there was no file"
    later = await session(house)
    assert {path.stem for path in house.proxy.casts()} == {later}
    await failed(house, str(event["expected"]))
