"""Recordings as evidence: made by the real proxy, verified by the command and by another program."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cast import plays_as, read_cast
from tests.support.disk import KIB, small_disk
from tests.support.house import House, build
from tests.support.process import run
from tests.support.proxy import conchrec
from tests.support.stage import Stage
from tests.support.wait import fact

INDEPENDENT = Path(__file__).parent.parent / "recording" / "independent.py"
KILLS = int(os.environ.get("CONCHREC_KILLS", "4"))
"""How often the proxy is killed under load; two hundred times take a quarter of an hour."""


async def session(house: House, command: str = "echo said") -> str:
    """One that is over, and sealed; its session id."""
    before = len(house.proxy.audit("session.end"))
    (await house.client().ssh("web1", command)).check()
    ended = await house.proxy.audited("session.end", count=before + 1)
    return str(ended[-1]["sid"])


def key_of(house: House) -> Path:
    return house.proxy.directory / "state" / "recording_key.pub"


def independent(house: House, head: str = "") -> str:
    done = subprocess.run(
        [sys.executable, str(INDEPENDENT), str(house.proxy.recordings_directory), str(key_of(house)), head],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


async def test_verifies_recordings_by_independent_program(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(stage.path("log")))
        house = await build(stage, settings={"audit": {"syslog": str(stage.path("log"))}})
        sid = await session(house)
        (ended,) = house.proxy.audit("session.end", sid=sid)
        head = str(ended["head"])
        syslog.settimeout(10)
        while f'"head":"{head}"' not in (entry := syslog.recv(65536).decode()):
            assert " " in entry
    result = await house.proxy.command("recordings", "verify", "--head", head)
    assert (result.code, result.text) == (
        0,
        f"ok      {sid}: complete\n1 recording (1 complete): ok\nhead: {head}\n",
    )
    assert independent(house, head) == ""
    # An auditor who has nothing but copies and the public key.
    copies = stage.path("copies")
    copies.mkdir()
    for path in house.proxy.recordings_directory.rglob(f"{sid}.*"):
        shutil.copy(path, copies)
    shutil.copy(key_of(house), copies / "key.pub")
    alone = await conchrec(
        "recordings",
        "verify",
        "--key",
        "key.pub",
        f"{sid}.cast",
        directory=copies,
        env={"PATH": os.environ["PATH"]},
    )
    assert (alone.code, alone.text.splitlines()[0]) == (0, f"ok      {sid}: complete"), str(alone)
    whole = await conchrec(
        "recordings", "verify", "--key", copies / "key.pub", house.proxy.recordings_directory,
        directory=copies, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert whole.code == 0, str(whole)
    # Everything is put back to before this session: a verifier needs a head to notice that.
    shutil.copytree(house.proxy.recordings_directory, stage.path("before"))
    later = await session(house)
    (ended,) = house.proxy.audit("session.end", sid=later)
    await house.proxy.stop()
    shutil.rmtree(house.proxy.recordings_directory)
    shutil.move(stage.path("before"), house.proxy.recordings_directory)
    key = copies / "key.pub"
    elsewhere = ("recordings", "verify", "--key", key, house.proxy.recordings_directory)
    env = {"PATH": os.environ["PATH"]}
    assert (await conchrec(*elsewhere, directory=copies, env=env)).code == 0
    with_head = await conchrec(*elsewhere, "--head", str(ended["head"]), directory=copies, env=env)
    assert with_head.code == 1 and f"the head {ended['head']} is missing (--head)" in with_head.text
    # This installation knows it from its state directory and from its audit log.
    here = await house.proxy.command("recordings", "verify")
    assert here.code == 1 and f"(audit log audit.jsonl, session {later})" in here.text, str(here)
    assert f"{ended['head']} is missing ({house.proxy.directory / 'state'})" in here.text
    for name in ("audit.jsonl", "state/ledger_heads.json"):
        (house.proxy.directory / name).unlink()
    assert (await house.proxy.command("recordings", "verify")).code == 0


async def test_detects_changed_and_removed_recordings(stage: Stage) -> None:
    house = await build(stage)
    first, second, third = [await session(house) for _ in range(3)]
    paths = {path.stem: path for path in house.proxy.casts()}
    paths[first].write_bytes(paths[first].read_bytes().replace(b"said", b"sold"))
    paths[second].unlink()
    paths[second].with_suffix(".json").unlink()
    result = await house.proxy.command("recordings", "verify")
    assert result.code == 1
    assert f"FAILED  {first}: the cast was changed after it was signed; its first" in result.text
    assert f"FAILED  {second}: the recording is missing: line 3 of the ledger names it" in result.text
    assert "3 recordings (2 complete, 1 missing): 2 FAILED" in result.text
    assert independent(house).count("\n") == 1
    single = await house.proxy.command("recordings", "verify", third)
    assert (single.code, single.text.splitlines()[0]) == (0, f"ok      {third}: complete")
    as_json = json.loads((await house.proxy.command("recordings", "verify", "--json", first)).text)
    assert as_json["whole"] is False and as_json["recordings"][0]["sid"] == first
    unknown = await house.proxy.command("recordings", "verify", "0" * 26)
    assert unknown.code == 1 and "no such recording" in unknown.text


async def test_completes_recordings_after_kills_under_load(stage: Stage) -> None:
    """Every recording plays, is whole, says *interrupted*, and has all but the last second."""
    house = await build(stage)
    chance = random.Random(7)
    loop = "i=0; while echo line $i; do i=$((i+1)); [ $((i % 50)) != 0 ] || sleep 0.01; done"
    seen: list[tuple[int, float]] = []
    for _ in range(KILLS):
        before = house.proxy.sids()
        clients = [house.client().start("web1", loop, stdin=b"") for _ in range(3)]
        for client in clients:
            await client.says("line 100\n")
        began = time.monotonic()
        moment = began + chance.uniform(0.3, 2.5)
        marks: list[int] = []

        def past(moment: float = moment, clients: list[object] = clients, marks: list[int] = marks) -> bool:  # type: ignore[assignment]
            now = time.monotonic()
            if not marks and now >= moment - 1.0:
                marks.extend(client.stdout.count(b"\n") for client in clients)  # type: ignore[attr-defined]
            return now >= moment

        await fact(past, "the moment has come")
        await house.proxy.stop(signal.SIGKILL)
        for client in clients:
            await client.wait()
        await house.proxy.start()
        casts = await house.proxy.finished(3, after=before)
        texts = sorted(cast.text().count("\n") for cast in casts)
        assert all(least <= text for least, text in zip(sorted(marks), texts, strict=True)), (marks, texts)
        for cast in casts:
            assert cast.manifest is not None and cast.manifest["status"] == "interrupted"
            lines = cast.text().splitlines()
            assert lines == [f"line {number}" for number in range(len(lines))]
            seen.append((len(lines), time.monotonic() - began))
        await plays_as(casts[0].path, casts[0].text().encode())
    result = await house.proxy.command("recordings", "verify")
    assert result.code == 0, str(result)
    assert f"{3 * KILLS} recordings ({3 * KILLS} interrupted): ok" in result.text
    assert (
        len(re.findall("interrupted; conchrec was stopped while the session ran", result.text)) == 3 * KILLS
    )
    assert independent(house) == "" and len(seen) == 3 * KILLS


async def test_prunes_all_but_held_recordings(stage: Stage) -> None:
    house = await build(stage)
    held, old = await session(house), await session(house)
    nothing = await house.proxy.command("recordings", "prune")
    assert nothing.code == 0 and "recordings.retention has no limit" in nothing.errors
    assert (await house.proxy.command("recordings", "hold", held)).code == 64
    (await house.proxy.command("recordings", "hold", held, "--reason", "case 7")).check()
    again = await house.proxy.command("recordings", "hold", held, "--reason", "case 7")
    assert (again.code, again.errors) == (1, f"conchrec: {held} is already held\n")
    shown = (await house.proxy.command("recordings", "show", held)).check().text
    assert re.search("^held +case 7$", shown, re.MULTILINE), shown
    tried = (await house.proxy.command("recordings", "prune", "--dry-run", "--size", "1KiB")).check()
    assert old in tried.text and held not in tried.text and "would remove" in tried.text
    assert house.proxy.sids() == {held, old}
    (await house.proxy.command("recordings", "prune", "--size", "1KiB")).check()
    assert house.proxy.sids() == {held}
    (removed,) = house.proxy.audit("session.recording.remove")
    assert removed["sid"] == old and removed["reason"] == "all recordings together are larger than 1024 bytes"
    (hold,) = house.proxy.audit("session.recording.hold")
    assert (hold["sid"], hold["action"], hold["reason"]) == (held, "hold", "case 7")
    # The service does the same by itself, as it is configured.
    house.proxy.configure({"recordings": {"retention": {"size": "1KiB"}}})
    await house.proxy.restart()
    third = await session(house)
    await house.proxy.restart()
    (event,) = await house.proxy.audited("session.recording.remove", sid=third)
    assert event["by"] == "conchrec"
    await fact(lambda: house.proxy.sids() == {held}, "it goes")
    (await house.proxy.command("recordings", "release", held)).check()
    await house.proxy.restart()
    await house.proxy.audited("session.recording.remove", sid=held)
    await fact(lambda: not house.proxy.sids(), "it goes, too")
    result = await house.proxy.command("recordings", "verify")
    assert (result.code, result.text.splitlines()[0]) == (0, "3 recordings (3 removed): ok"), str(result)
    assert independent(house) == ""


@pytest.mark.parametrize("compress", [False, True])
async def test_encrypts_recordings_for_auditors(stage: Stage, compress: bool) -> None:
    await run("age-keygen", "-o", stage.path("auditor"))
    to = next(
        line.split()[-1] for line in stage.path("auditor").read_text().splitlines() if "public key" in line
    )
    house = await build(stage, settings={"recordings": {"compress": compress, "encrypt_to": [to]}})
    sid = await session(house, "echo secret business")
    (path,) = house.proxy.recordings_directory.rglob(f"{sid}.cast*")
    assert path.name == f"{sid}.cast{'.zst' if compress else ''}.age"
    assert b"secret business" not in path.read_bytes()
    result = await house.proxy.command("recordings", "verify")
    assert result.code == 0 and "encrypted: the file is unchanged" in result.text
    opened = await house.proxy.command("recordings", "verify", "--identity", stage.path("auditor"))
    assert (opened.code, opened.text.splitlines()[0]) == (0, f"ok      {sid}: complete")
    wrong = await house.proxy.command("recordings", "verify", "--identity", house.proxy.config)
    assert wrong.code == 78 and "is not an age or SSH private key" in wrong.errors


async def test_compresses_recordings_while_live_and_after_crash(stage: Stage) -> None:
    house = await build(stage, settings={"recordings": {"compress": True}})
    process = house.client().start("-q", "-tt", "web1", "echo begun; read x", terminal=(80, 24))
    await process.says("begun\r\n")

    async def text(sid: str) -> str:
        return (await house.proxy.command("recordings", "text", sid)).text

    (path,) = house.proxy.recordings_directory.rglob("*.cast.zst")
    sid = path.name[:26]
    await fact(lambda: path.stat().st_size > 300, "it is written")
    assert await text(sid) == "begun\n"
    await house.proxy.stop(signal.SIGKILL)
    await process.wait()
    await house.proxy.start()
    await house.proxy.audited("recording.recovered", sid=sid)
    assert await text(sid) == "begun\n"
    result = await house.proxy.command("recordings", "verify")
    assert (result.code, result.text.count("interrupted")) == (0, 2), str(result)
    assert independent(house) == ""


async def test_ends_live_sessions_below_half_of_min_free(stage: Stage) -> None:
    """On a small disk of its own, which takes root; without it no disk can be filled."""
    disk = await small_disk(stage)
    house = await build(
        stage,
        settings={"recordings": {"min_free": "512KiB" if disk.mounted else "0"}},
        recordings=disk.directory / "recordings",
    )
    process = house.client().start("web1", "echo begun; cat", stdin=None)
    await process.says("begun\n")
    if disk.mounted:
        (disk.directory / "ballast").write_bytes(b"\0" * 600 * KIB)
        refused = await house.client().ssh("web1", "true")
        assert refused.code == 255
        assert "the disk for recordings is almost full" in refused.errors, str(refused)
        process.write(b"still here\n")
        await process.says("still here\n")
        (disk.directory / "more").write_bytes(b"\0" * 200 * KIB)
        process.write(b"too much\n")
        result = await process.wait()
        assert result.code == 255
        assert (
            "conchrec: this session cannot be recorded: the disk for recordings is almost full"
            in result.errors
        )
        (path,) = house.proxy.casts()
        await fact(lambda: path.with_suffix(".json").exists(), "it is sealed")
        manifest = read_cast(path).manifest
        assert manifest is not None and manifest["status"] == "failed"
        result = await house.proxy.command("recordings", "verify")
        assert result.code == 0 and "failed" in result.text, str(result)
    else:
        process.close_input()
        assert (await process.wait()).code == 0
