"""What a role and the configuration limit, and what happens when one side goes away."""

from __future__ import annotations

import contextlib
import signal

import pytest

from conchrec.ssh.wire import string
from tests.support.client import AccessMethod
from tests.support.house import House, build, role
from tests.support.otherclients import paramiko_connections, send_request
from tests.support.process import descendants, send
from tests.support.stage import Stage
from tests.support.wait import LONG, block, fact, in_thread
from tests.system.test_live_change import reloaded


async def test_ends_session_at_time_limit(stage: Stage) -> None:
    house = await build(stage)
    ttl = await house.client().time_of_session()
    house.proxy.configure(role(max_session_ttl=f"{ttl}s"))
    await reloaded(house, result="ok")
    past = house.proxy.sids()
    result = await house.client().ssh("web1", "echo begun; sleep 600")
    assert (result.stdout, result.code) == (b"begun\n", 255)
    assert "conchrec: your connection reached its time limit of " in result.errors
    recording = await house.proxy.finished_one(after=past)
    assert recording.manifest is not None
    assert recording.manifest["status"] == "complete"
    (end,) = await house.proxy.audited("session.end", sid=recording.sid)
    assert "max_session_ttl" in str(end["reason"])


async def test_ends_idle_session(stage: Stage) -> None:
    house = await build(stage, options={"client_idle_timeout": "2s"})
    process = house.client().start("web1", "while read -r line; do echo got $line; done")
    # Whoever types stays for longer than that.
    for number in range(4):
        process.write(b"%d\n" % number)
        await process.says(f"got {number}\n")
    result = await process.wait()
    assert result.code == 255, str(result)
    assert "conchrec: nothing was received from your client for 2s (client_idle_timeout)" in result.errors


async def test_limits_concurrent_sessions_of_user(stage: Stage) -> None:
    house = await build(stage, options={"max_sessions": 1})
    client = house.client()
    control = stage.short / "control"
    shared = ("-o", f"ControlPath={control}")
    master = client.start("-M", *shared, "web1", "echo first; cat")
    await master.says("first\n")
    # ssh goes on with a connection of its own, which is another one.
    second = (await client.ssh(*shared, "-o", "ControlMaster=no", "web1", "echo second")).check()
    assert "Session open refused by peer" in second.errors, str(second)
    await master.says("joe has 1 open in this connection, which is the limit (max_sessions)")
    master.close_input()
    assert (await master.wait()).code == 0
    await house.proxy.audited("session.rejected", rule="max_sessions")


async def test_refuses_sftp_without_file_copy(stage: Stage) -> None:
    house = await build(stage, options={"file_copy": False})
    client = house.client()
    batch = stage.file("batch", "pwd\n")
    result = await client.program("sftp", *client.options, "-b", batch, "web1")
    assert result.code != 0
    assert "may not copy files with sftp as root@localhost (file_copy: no)" in result.errors
    (event,) = await house.proxy.audited("session.rejected")
    assert str(event["rule"]).startswith("role ops: file_copy (line ")
    (await client.ssh("web1", "true")).check()


async def test_skips_inner_login_when_configured(stage: Stage) -> None:
    house = await build(stage, settings={"inner_auth": "tunnel"})
    for method in AccessMethod:
        inner = "    PubkeyAuthentication no"
        result = await house.client(method, inner=inner).ssh("web1", "echo there; exit 3")
        assert (result.stdout, result.code) == (b"there\n", 3), str(result)
    assert {event["method"] for event in house.proxy.audit("user.login", stage="inner")} == {"none"}


async def test_ends_session_when_target_is_killed(stage: Stage) -> None:
    house = await build(stage)
    process = house.client().start("web1", "echo begun; cat")
    await process.says("begun\n")
    assert house.target.process.pid is not None
    send(reversed(descendants(house.target.process.pid)), signal.SIGKILL)
    result = await process.wait()
    assert result.code == 255, str(result)
    recording = await house.proxy.finished_one()
    assert recording.text() == "begun\n"


async def test_relays_keepalives_of_user_to_target(stage: Stage) -> None:
    """The far side answers them, not the proxy."""
    house = await build(stage)
    alive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3")
    process = house.client().start(*alive, "web1", "echo begun; cat")
    await process.says("begun\n")
    assert house.target.process.pid is not None
    stopped = descendants(house.target.process.pid)
    send(stopped, signal.SIGSTOP)
    try:
        result = await process.wait()
    finally:
        send(stopped, signal.SIGCONT)
    assert result.code == 255
    assert "not responding" in result.errors, str(result)


KEEPALIVE = {"limits": {"keepalive_interval": "1s", "keepalive_count_max": 2}}


async def test_ends_session_when_target_answers_no_keepalive(stage: Stage) -> None:
    house = await build(stage, settings=KEEPALIVE)
    process = house.client().start("web1", "echo begun; cat")
    await process.says("begun\n")
    assert house.target.process.pid is not None
    stopped = descendants(house.target.process.pid)
    send(stopped, signal.SIGSTOP)
    try:
        result = await process.wait()
    finally:
        send(stopped, signal.SIGCONT)
    assert result.code == 255
    assert f"conchrec: localhost:{house.target.port} no longer answers keepalive requests" in result.errors
    assert (await house.proxy.finished_one()).manifest is not None


async def test_ends_session_when_user_answers_no_keepalive(stage: Stage) -> None:
    """``ssh -J`` is two processes; the one that holds the outer connection is stopped."""
    house = await build(stage, settings=KEEPALIVE)
    process = house.client().start("web1", "echo begun; cat")
    await process.says("begun\n")
    assert process.pid is not None
    stopped = descendants(process.pid)
    process.kill(signal.SIGSTOP)
    send(stopped, signal.SIGSTOP)
    try:
        (event,) = await house.proxy.audited("client.disconnect")
        assert event["reason"] == "the client no longer answers keepalive requests"
        assert (await house.proxy.finished_one()).manifest is not None
    finally:
        process.kill(signal.SIGCONT)
        send(stopped, signal.SIGCONT)
    assert (await process.wait()).code == 255


async def test_keeps_silent_session(stage: Stage) -> None:
    """Its client answers more requests than may remain without an answer."""
    house = await build(stage, settings=KEEPALIVE)
    process = house.client().start("-v", "web1", "cat; exit 3")
    request = b"rtype keepalive@openssh.com want_reply 1"
    await fact(lambda: process.stderr.count(request) > 2, lambda: f"too few keepalives:\n{process}")
    process.close_input()
    result = await process.wait()
    assert result.code == 3, str(result)


async def test_seals_recording_when_user_connection_breaks(stage: Stage) -> None:
    """The target's session ends with it, and its recording is whole."""
    house = await build(stage)
    process = house.client().start("web1", "echo begun; cat")
    await process.says("begun\n")
    process.kill()
    await process.wait()
    recording = await house.proxy.finished_one()
    assert recording.text() == "begun\n"
    assert recording.manifest is not None and recording.manifest["status"] == "complete"
    await house.proxy.audited("session.end", user="joe")


async def test_relays_max_sessions_refusal_of_target(stage: Stage) -> None:
    """Its refusal reaches the user as it is."""
    house = await build(stage, sshd=["MaxSessions 1"])
    client = house.client()
    control = stage.short / "control"
    shared = ("-o", f"ControlPath={control}")
    master = client.start("-M", *shared, "web1", "echo first; cat")
    await master.says("first\n")
    second = (await client.ssh(*shared, "-o", "ControlMaster=no", "web1", "echo second")).check()
    assert "Session open refused by peer" in second.errors, str(second)
    master.close_input()
    result = await master.wait()
    assert result.code == 0
    assert "open failed" in result.errors


@pytest.mark.parametrize("method", [AccessMethod.INNER_AGENT, AccessMethod.CERTIFICATE])
async def test_relays_banner_but_not_host_keys_of_target(stage: Stage, method: AccessMethod) -> None:
    """The banner is shown in the login; the keys of the target are none of the client's business."""
    banner = stage.file("banner", "Authorized use only.\n")
    house = await build(stage, sshd=[f"Banner {banner}"])
    client = house.client(method, more="    UpdateHostKeys yes\n    LogLevel INFO")
    result = await client.ssh("web1", "true")
    assert result.code == 0, str(result)
    assert result.errors.count("Authorized use only.") == 1
    assert "bad signature" not in result.errors and "Learned" not in result.errors


async def test_limits_connections_of_address(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"per_address": 2}})
    client = house.client()
    first = client.start("web1", "echo begun; cat")
    await first.says("begun\n")
    second = client.start("web1", "echo begun; cat")
    await second.says("begun\n")
    third = await client.ssh("web1", "true")
    assert third.code == 255
    await house.proxy.logged("too many connections from this address")
    for process in (first, second):
        process.close_input()
        assert (await process.wait()).code == 0
    (await client.ssh("web1", "true")).check()


@pytest.fixture(scope="module")
def restricted(shared_stage: Stage) -> House:
    """The role allows one command."""
    options = {"file_copy": False, "shell": False, "commands": ["uptime"]}
    return block(build(shared_stage, options=options))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (b"exec\0", b"echo in"),
        (b"shell\0", b""),
        (b"subsystem\0", b"sftp"),
        (b"subsystem", b"sftp\0"),
        (b"exec", b"/usr/lib/openssh/sftp-server\0"),
        (b"exec ", b"echo in"),
        (b"ex\xffec", b"echo in"),
    ],
)
async def test_rejects_names_with_nul_bytes(restricted: House, name: bytes, argument: bytes) -> None:
    """sshd takes names and commands up to a NUL at their end: past the role, and past the recording."""

    def ask() -> bytes:
        outer, inner = paramiko_connections(restricted)
        try:
            channel = inner.open_session()
            channel.settimeout(LONG)
            send_request(channel, name, string(argument) if argument else b"", wants_reply=True)
            with contextlib.suppress(OSError):
                channel.sendall(b"\0\0\0\5\1\0\0\0\3")
            return channel.recv(1024)
        finally:
            inner.close()
            outer.close()

    assert await in_thread(ask) == b""
    await restricted.proxy.deserted()
    assert not restricted.proxy.audit("session.start")
