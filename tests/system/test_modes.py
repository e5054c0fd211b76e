"""``session_recording``: on disk first, or passed through untouched."""

from __future__ import annotations

import os

import pytest

from tests.support.client import AccessMethod
from tests.support.house import build
from tests.support.stage import Stage


@pytest.mark.parametrize("mode", ["node", "off"])
async def test_relays_connection_unrecorded(stage: Stage, mode: str) -> None:
    """The client talks to the target itself: sees its key, shows its own, and nothing is recorded."""
    house = await build(stage, settings={"session_recording": mode})
    contents = os.urandom(2_000_000)
    known = house.authority + house.target.known_as()
    for method in (AccessMethod.INNER_AGENT, AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM):
        client = house.client(method, authority=known)
        result = await client.ssh("web1", "cat; echo err >&2; exit 3", stdin=contents)
        assert (result.stdout, result.errors, result.code) == (contents, "err\n", 3)
    untrusted = await house.client(authority=house.authority).ssh("web1", "true")
    assert untrusted.code == 255, "the target's own key, which this user does not know"
    assert house.proxy.casts() == []
    ends = await house.proxy.audited("passthrough.end", count=4, mode=mode, user="joe")
    assert ends[0]["target"] == f"localhost:{house.target.port}"
    assert isinstance(ends[0]["sent"], int) and ends[0]["sent"] > len(contents)
    assert isinstance(ends[0]["received"], int) and ends[0]["received"] > len(contents)
    assert len(house.proxy.audit("passthrough.start", mode=mode)) == 4


async def test_refuses_passthrough_without_permission(stage: Stage) -> None:
    house = await build(stage, settings={"session_recording": "off"})
    result = await house.client(host="192.0.2.1").ssh("web1", "true")
    assert result.code == 255
    assert "192.0.2.1" in result.errors
    await house.proxy.audited("session.rejected", user="joe")


async def test_reports_unreachable_target_of_passthrough(stage: Stage) -> None:
    house = await build(stage, settings={"session_recording": "off"})
    await house.target.stop()
    result = await house.client().ssh("web1", "true")
    assert result.code == 255
    assert f"cannot reach localhost:{house.target.port}" in result.errors, str(result)
    await house.proxy.audited("upstream.failed", user="joe")


async def test_writes_recording_before_forwarding_in_sync_mode(stage: Stage) -> None:
    house = await build(stage, settings={"session_recording": "proxy-sync"})
    for method in AccessMethod:
        before = house.proxy.sids()
        process = house.client(method).start("web1", "while read -r line; do echo got $line; done; exit 5")
        for number in range(5):
            process.write(b"%d\n" % number)
            await process.says(f"got {number}\n")
            (path,) = [path for path in house.proxy.casts() if path.stem not in before]
            assert f"got {number}\\n" in path.read_text(), "recorded before the user saw it"
        process.close_input()
        assert (await process.wait()).code == 5
        recording = await house.proxy.finished_one(after=before)
        assert recording.text() == "".join(f"got {number}\n" for number in range(5))
    contents = os.urandom(1_000_000)
    result = await house.client().ssh("web1", "cat", stdin=contents)
    assert (result.stdout, result.code) == (contents, 0)


async def test_records_input_when_configured(stage: Stage) -> None:
    house = await build(stage, settings={"recordings": {"input": "without-pty"}})
    result = await house.client().ssh("web1", "bash -s", stdin=b"echo from the script\n")
    assert result.stdout == b"from the script\n"
    recording = await house.proxy.finished_one()
    assert recording.text("i") == "echo from the script\n"
    assert recording.text("o") == "from the script\n"


async def test_prints_recording_notice(stage: Stage) -> None:
    house = await build(stage, settings={"notice": "Sessions are recorded."})
    for method in AccessMethod:
        result = await house.client(method).ssh("web1", "true")
        assert "Sessions are recorded." in result.errors
        assert result.stdout == b""
