"""A session that cannot be recorded does not happen, and says so."""

from __future__ import annotations

import pytest

from tests.support.cast import read_cast
from tests.support.disk import KIB, SmallDisk, small_disk
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import fact


async def _house(stage: Stage, **options: object) -> tuple[House, SmallDisk, int]:
    disk = await small_disk(stage)
    house = await build(
        stage,
        settings={"recordings": {"min_free": "0"}},
        options=options,
        recordings=disk.directory / "recordings",
    )
    assert house.proxy.process is not None
    return house, disk, house.proxy.process.pid


async def test_refuses_session_when_header_cannot_be_written(stage: Stage) -> None:
    house, disk, pid = await _house(stage)
    (await house.client().ssh("web1", "true")).check()
    disk.fill(pid)
    marker = stage.path("marker")
    result = await house.client().ssh("web1", f"echo never | tee {marker}")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    assert not marker.exists(), "what is not recorded does not run"
    if not disk.mounted:  # then the audit log cannot be written either, and that is seen first
        assert "conchrec: the audit log cannot be written" in result.errors, str(result)
    else:
        assert "conchrec: this session cannot be recorded" in result.errors, str(result)
        await house.proxy.audited("recording.failed", policy="strict", user="joe")
    disk.make_room(pid)
    (await house.client().ssh("web1", "true")).check()


@pytest.mark.parametrize("mode", ["proxy", "proxy-sync"])
async def test_ends_session_when_disk_fills_up(stage: Stage, mode: str) -> None:
    house, disk, _ = await _house(stage)
    house.proxy.configure({"session_recording": mode})
    await house.proxy.restart()
    assert house.proxy.process is not None
    disk.limit(house.proxy.process.pid)
    command = "trap '' PIPE; i=0; while echo line $i; do i=$((i+1)); done; echo never"
    process = house.client().start("web1", command, stdin=b"")
    result = await process.wait(within=120)
    assert result.code == 255, str(result)
    assert "conchrec: " in result.errors and "record" in result.errors, str(result)
    assert b"line 100\n" in result.stdout
    (path,) = house.proxy.casts()
    recorded = read_cast(path).text().encode()
    if mode == "proxy-sync":
        assert recorded.startswith(result.stdout), "on disk before it is forwarded"
    else:
        # What is merged in memory for a moment is lost with the disk, and no more than that.
        assert result.stdout.startswith(recorded[: recorded.rfind(b"\n")])
        assert len(result.stdout) - len(recorded) < 512 * KIB
    if disk.mounted:
        await house.proxy.audited("recording.failed", policy="strict")


async def test_continues_session_with_best_effort(stage: Stage) -> None:
    house, disk, pid = await _house(stage, record="best_effort")
    if not disk.mounted:
        # the audit log would fail as well, which ends the session by right: only the recording is in the way
        house.proxy.recordings_directory.mkdir(parents=True, exist_ok=True)
        house.proxy.recordings_directory.chmod(0o500)
    else:
        disk.fill(pid)
    result = await house.client().ssh("web1", "echo unrecorded; exit 3")
    assert (result.stdout, result.code) == (b"unrecorded\n", 3), str(result)
    await house.proxy.audited("recording.failed", policy="best_effort", user="joe")


async def test_refuses_session_below_min_free(stage: Stage) -> None:
    house = await build(stage, settings={"recordings": {"min_free": "900TiB"}})
    result = await house.client().ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    assert "conchrec: " in result.errors and "almost full" in result.errors, str(result)
    await house.proxy.audited("recording.failed", user="joe")


@pytest.mark.parametrize("subsystem", [False, True])
async def test_refuses_session_when_directory_cannot_be_written(stage: Stage, subsystem: bool) -> None:
    """A file stands where the recordings were to be: not even root writes below that."""
    house = await build(stage)
    (await house.client().ssh("web1", "true")).check()
    directory = house.proxy.recordings_directory
    directory.rename(directory.with_name("moved"))
    directory.touch()
    client = house.client()
    if subsystem:
        batch = stage.file("batch", "pwd\n")
        result = await client.program("sftp", *client.options, "-b", batch, "web1")
    else:
        result = await client.ssh("web1", "echo never")
    assert (result.stdout.replace(b"sftp> pwd\n", b""), result.code) == (b"", 255), str(result)
    assert "conchrec: " in result.errors and "record" in result.errors, str(result)
    await house.proxy.audited("recording.failed", user="joe")


async def test_refuses_session_when_audit_cannot_be_written(stage: Stage) -> None:
    """An event that cannot be written counts as a recording that cannot."""
    house = await build(stage, settings={"audit": {"file": str(stage.path("log/audit.jsonl"))}})
    house.proxy.audit_file = stage.path("log/audit.jsonl")
    (await house.client().ssh("web1", "true")).check()
    await fact(lambda: house.proxy.audit("client.disconnect"), "the first session has ended")
    directory = house.proxy.audit_file.parent
    directory.rename(directory.with_name("moved"))
    directory.touch()
    marker = stage.path("marker")
    # The log is looked for once a second: then it is gone, and nothing more is let through.

    async def rejected() -> bool:
        result = await house.client().ssh("web1", f"echo ran > {marker}")
        return result.code == 255 and "conchrec: " in result.errors

    tries = 0
    while not await rejected():
        marker.unlink()
        tries += 1
        assert tries < 30, house.proxy.log
    assert not marker.exists()


async def test_refuses_strict_sessions_when_audit_disk_is_almost_full(stage: Stage) -> None:
    """Strict sessions do not begin; people can log in, and are audited."""
    house = await build(stage, options={"record": "strict"})
    (await house.client().ssh("web1", "true")).check()
    await house.proxy.stop()
    house.proxy.configure({"audit": {"min_free": "900TiB"}})
    await house.proxy.start()
    await house.proxy.audited("disk.low", state="critical", what="the audit log")
    await house.proxy.audited("disk.low", state="critical", what="the state directory")
    await house.proxy.logged("DISK FULL, SESSIONS END")
    result = await house.client().ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    assert "conchrec: " in result.errors and "the disk for the audit log is almost full" in result.errors
    await house.proxy.audited("user.login", count=3)
    assert (await house.client().ssh("proxy", "help")).check().stdout
    await house.proxy.stop()
    house.proxy.configure({"audit": {"min_free": "0"}})
    await house.proxy.start()
    (await house.client().ssh("web1", "true")).check()


async def test_ends_sessions_when_audit_disk_fills_up(stage: Stage) -> None:
    """On a small disk of its own, which takes root; without it no disk can be filled."""
    disk = await small_disk(stage)
    if not disk.mounted:
        return
    log = disk.directory / "audit.jsonl"
    house = await build(stage, settings={"audit": {"file": str(log), "min_free": "512KiB"}})
    house.proxy.audit_file = log
    process = house.client().start("web1", "echo begun; cat", stdin=None)
    await process.says("begun\n")
    (disk.directory / "ballast").write_bytes(b"\0" * 600 * KIB)
    await house.proxy.audited("disk.low", state="low")
    refused = await house.client().ssh("web1", "true")
    assert refused.code == 255 and "the disk for the audit log is almost full" in refused.errors, str(refused)
    process.write(b"still here\n")
    await process.says("still here\n")
    (disk.directory / "more").write_bytes(b"\0" * 200 * KIB)
    result = await process.wait()
    assert result.code == 255 and "the disk for the audit log is full" in result.errors, str(result)
    reason = "this session was ended: the disk for the audit log is full. Tell your administrator"
    await house.proxy.audited("session.end", reason=reason)
    assert house.proxy.audit("user.login") and house.proxy.audit("disk.low", state="critical")
    for name in ("ballast", "more"):
        (disk.directory / name).unlink()
    await house.proxy.audited("disk.low", state="ok")
    (await house.client().ssh("web1", "true")).check()
    disk.fill(0)
    size = 0
    # The last block of the log has room for a few events: until it does not grow, none is lost.
    while size < log.stat().st_size:
        size = log.stat().st_size
        assert (await house.client().ssh("web1", "true")).code == 255
    disk.make_room(0)
    await house.proxy.audited("audit.lost")
    (await house.client().ssh("web1", "true")).check()
    await house.proxy.stop()
    result = (await house.proxy.command("audit", "verify")).check()
    assert "events could not be written" in result.text, str(result)
