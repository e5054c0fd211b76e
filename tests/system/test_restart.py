"""Ends, gentle and not, and what the next start makes of them."""

from __future__ import annotations

import signal
import stat

from tests.support.cast import plays_as, read_cast
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.process import Process
from tests.support.stage import Stage
from tests.support.wait import becomes, fact


async def _session(house: House) -> Process:
    """A session on a terminal that has said something, and whose recording is on the disk."""
    process = house.client().start("-q", "-tt", "web1", "echo begun; read x; echo never", terminal=(80, 24))
    await process.says("begun\r\n")
    (path,) = house.proxy.casts()
    await fact(lambda: "begun\r\n" in read_cast(path).text(), "it is written once a second")
    return process


async def test_completes_recording_after_kill(stage: Stage) -> None:
    house = await build(stage)
    process = await _session(house)
    await house.proxy.stop(signal.SIGKILL)
    assert (await process.wait()).code == 255
    (path,) = house.proxy.casts()
    assert read_cast(path).manifest is None
    await house.proxy.start()
    recording = await house.proxy.finished_one()
    assert recording.manifest is not None
    assert recording.manifest["status"] == "interrupted"
    assert recording.text() == "begun\r\n"
    assert recording.listed("m")
    await plays_as(path, b"begun\r\n")
    (event,) = await house.proxy.audited("recording.recovered", sid=recording.sid)
    assert event["status"] == "interrupted"
    (await house.client().ssh("web1", "true")).check()


async def test_completes_recording_after_kill_during_large_output(stage: Stage) -> None:
    """The last line is torn, as likely as not; what is before it plays."""
    house = await build(stage)
    process = house.client().start("web1", "i=0; while echo line $i; do i=$((i+1)); done", stdin=b"")
    await process.says("line 3000\n")
    await house.proxy.stop(signal.SIGKILL)
    result = await process.wait()
    await house.proxy.start()
    recording = await house.proxy.finished_one()
    assert recording.manifest is not None
    assert recording.manifest["status"] == "interrupted"
    assert result.stdout.startswith(recording.text().encode()) or recording.text().encode().startswith(
        result.stdout
    )
    await plays_as(recording.path, recording.text().encode())


async def test_tells_users_and_seals_recordings_at_sigterm(stage: Stage) -> None:
    """SIGTERM: the user is told, and the recording is whole."""
    house = await build(stage)
    client = house.client()
    process = client.start("web1", "echo begun; cat; echo never")
    await process.says("begun")
    assert house.proxy.process is not None
    house.proxy.process.kill(signal.SIGTERM)
    result = await process.wait()
    assert result.code == 255
    assert "conchrec: the proxy is shutting down" in result.errors, str(result)
    ended = await house.proxy.process.wait()
    assert ended.signal == signal.SIGTERM, f"twistd ends as it was told to: {ended}"
    recording = await house.proxy.finished_one()
    assert recording.manifest is not None
    assert recording.manifest["status"] == "complete"
    assert "shutting down" in str(recording.manifest["reason"])
    assert house.proxy.audit("service.stop")
    assert house.proxy.audit("session.end", sid=recording.sid)


async def test_keeps_host_keys_after_restart(stage: Stage) -> None:
    """The outer and the inner host keys are the same afterwards, with certificates and without."""
    house = await build(stage)
    # This user knows no CA, and pins what they see.
    plain = house.client(AccessMethod.CERTIFICATE, authority="", more="StrictHostKeyChecking accept-new")
    (await plain.ssh("web1", "true")).check()
    pinned = (plain.config.parent / "known_hosts").read_text()
    plain.config.write_text(plain.config.read_text().replace("StrictHostKeyChecking accept-new", ""))
    assert f"[localhost]:{house.target.port} " in pinned
    authorities = [await house.proxy.authority("host"), await house.proxy.authority("user")]
    await house.proxy.restart()
    (await plain.ssh("web1", "true")).check()
    (await house.client().ssh("web1", "true")).check()
    assert [await house.proxy.authority("host"), await house.proxy.authority("user")] == authorities
    await house.proxy.restart(signal.SIGKILL)
    (await plain.ssh("web1", "true")).check()
    assert (plain.config.parent / "known_hosts").read_text() == pinned


async def test_keeps_state_private(stage: Stage) -> None:
    house = await build(stage)
    (await house.client().ssh("web1", "true")).check()
    await house.proxy.finished_one()
    state = house.proxy.directory / "state"
    for top in (state, house.proxy.recordings_directory):
        for path in (top, *top.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600) or path.suffix == ".pub", (path, oct(mode))
    assert stat.S_IMODE(house.proxy.audit_file.stat().st_mode) == 0o600
    await house.proxy.logged(str(state))  # it says what it made


async def test_reopens_audit_log_after_rotation(stage: Stage) -> None:
    house = await build(stage)
    (await house.client().ssh("web1", "true")).check()
    await house.proxy.audited("client.disconnect")
    rotated = house.proxy.audit_file.with_suffix(".1")
    house.proxy.audit_file.rename(rotated)

    async def is_audited() -> bool:
        (await house.client().ssh("web1", "true")).check()
        return bool(house.proxy.audit("user.login"))

    await becomes(is_audited, True, "it is not opened again")
    assert b"service.start" in rotated.read_bytes()
