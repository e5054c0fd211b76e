"""Reload, locks, and the end of what allowed it, in the middle of sessions; everybody else works on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import cast

import paramiko
import pytest

from tests.interop.test_relay_forwards import speak
from tests.support.client import AccessMethod, Person
from tests.support.house import House, build
from tests.support.otherclients import paramiko_connections
from tests.support.ports import free_port
from tests.support.process import Process, environment
from tests.support.stage import Stage
from tests.support.wait import becomes, fact, in_thread

#: The promised time, and as much again for a machine under load.
SECONDS = 4.0
Fields = dict[str, dict[str, object]]


async def a_session(house: House, *flags: str, ann: bool = False) -> Process:
    """One that says that it is there, and then whatever it is told."""
    client = house.client(
        AccessMethod.CERTIFICATE if ann else AccessMethod.INNER_AGENT, person=house.ann if ann else None
    )
    process = client.start(*flags, "web1", "echo ready; while read x; do echo got $x; done", stdin=None)
    await process.says("ready\n")
    return process


async def goes_on(process: Process, word: str) -> None:
    process.write(f"{word}\n".encode())
    await process.says(f"got {word}\n")


async def reloaded(house: House, **expected: object) -> dict[str, object]:
    before = len(house.proxy.audit("config.reload"))
    assert house.proxy.process is not None
    house.proxy.process.kill(signal.SIGHUP)
    events = await house.proxy.audited("config.reload", count=before + 1)
    assert expected.items() <= events[-1].items(), events[-1]
    return events[-1]


def moment(event: dict[str, object]) -> datetime:
    return datetime.fromisoformat(str(event["time"]).replace("Z", "+00:00"))


def in_seconds(count: int) -> tuple[datetime, str]:
    """A whole second soon, and as it is written behind ``until``."""
    end = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=count)
    return end, f"{end:%Y-%m-%d %H:%M:%S}"


async def ends(house: House, process: Process, text: str, since: datetime) -> None:
    """With that line on stderr, once, and soon."""
    result = await process.wait()
    assert result.code == 255, str(result)
    assert result.errors.count(f"conchrec: {text}") == 1, str(result)
    assert "Broken pipe" not in result.errors, str(result)
    over = [moment(event) for event in await house.proxy.audited("session.end")]
    assert (max(over) - since).total_seconds() < SECONDS


def users(house: House) -> Fields:
    return cast(Fields, json.loads(json.dumps(house.proxy.settings["users"])))


async def test_keeps_configuration_when_reload_fails(stage: Stage) -> None:
    house = await build(stage)
    session = await a_session(house)
    good = house.proxy.config.read_text()
    house.proxy.config.write_text(good + "rolls: {}\n")
    event = await reloaded(house, result="failed")
    assert "unknown key" in str(event["problems"]) and "did you mean roles?" in str(event["problems"])
    await fact(lambda: "running configuration stays in effect" in house.proxy.log, lambda: house.proxy.log)
    await goes_on(session, "one")
    house.proxy.config.write_text(good)
    assert "changed" not in await reloaded(house, result="ok")
    house.proxy.configure({"listen": ["tcp:1"], "notice": "Hello."})
    assert (await reloaded(house, result="ok"))["waiting"] == ["listen"]
    assert "Hello." in (await house.client().ssh("web1", "true")).check().errors
    await goes_on(session, "two")
    await session.stop()


async def test_ends_withdrawn_access_only(stage: Stage) -> None:
    house = await build(stage, options={"port_forwarding": True, "forward_agent": True})
    port, dead = free_port(), free_port()
    flags = ("-v", "-L", f"{port}:127.0.0.1:{house.target.port}", "-R", f"{dead}:127.0.0.1:1")
    session = await a_session(house, *flags)
    ann = await a_session(house, ann=True)
    assert (await speak("tcp", "127.0.0.1", port)).stdout == b"SSH-\n"
    roles = cast(Fields, house.proxy.settings["roles"])
    roles["ops"]["options"] = {"forward_agent": True}
    house.proxy.configure({"roles": roles})
    await reloaded(house, result="ok", changed=["roles"])
    assert (await speak("tcp", "127.0.0.1", port)).stdout.strip() == b""
    await session.says("local_forwarding: no")
    await house.proxy.audited("port", kind="remote", action="cancel")
    assert (await speak("tcp", "127.0.0.1", dead)).stdout.strip() == b""
    await goes_on(session, "one")
    terminal = house.client().start("-tt", "web1", "echo ready; cat", terminal=(24, 80))
    await terminal.says("ready")
    roles["ops"]["options"] = {"pty": False}
    house.proxy.configure({"roles": roles})
    await reloaded(house, result="ok", changed=["roles"])
    shown = await terminal.wait()
    assert "may not use a terminal" in shown.text + shown.errors, str(shown)
    await goes_on(session, "two")
    roles["ops"]["options"] = {"exec": False}
    house.proxy.configure({"roles": roles})
    event = await reloaded(house, result="ok")
    for process in (session, ann):
        result = await process.wait()
        assert "may not run commands" in result.errors and "(exec: no)" in result.errors, str(result)
    assert moment(event) <= moment((await house.proxy.audited("session.end", count=3))[-1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda users_: users_.pop("joe"), "the user joe was removed from the configuration"),
        (lambda users_: users_["joe"].update(roles=[]), "joe may not log in"),
        (lambda users_: users_["joe"].update(authorized_keys=[]), "your key is no longer accepted"),
    ],
    ids=["user", "role", "key"],
)
async def test_disconnects_removed_user(stage: Stage, change: Callable[[Fields], object], text: str) -> None:
    house = await build(stage)
    session, ann = await a_session(house), await a_session(house, ann=True)
    now = users(house)
    change(now)
    house.proxy.settings["users"] = {}
    house.proxy.configure({"users": now})
    event = await reloaded(house, result="ok", changed=["users"])
    expected = text if "log in" not in text else "joe may not reach"
    await ends(house, session, expected, moment(event))
    await goes_on(ann, "on")
    assert (await house.client().ssh("web1", "true")).code == 255
    await ann.stop()


@pytest.mark.parametrize("what", ["user", "target", "login", "session"])
async def test_ends_sessions_of_locked_user(stage: Stage, what: str) -> None:
    house = await build(stage)
    session = await a_session(house)
    (start,) = await house.proxy.audited("session.start")
    ann = await a_session(house, ann=True) if what in ("user", "session") else None
    name = {"user": "joe", "target": "localhost", "login": str(start["login"]), "session": str(start["sid"])}[
        what
    ]
    (await house.proxy.command("lock", f"--{what}", name, "--reason", "a reason")).check()
    event = (await house.proxy.audited("lock.create", kind=what, name=name))[0]
    result = await session.wait()
    assert (result.code, result.errors.count("is locked; reason: a reason")) == (255, 1), str(result)
    (end,) = await house.proxy.audited("session.end", sid=start["sid"])
    assert (moment(end) - moment(event)).total_seconds() < SECONDS
    again = await house.client().ssh("web1", "echo again")
    assert (again.code == 0) is (what == "session"), str(again)
    if what == "user":
        assert again.errors.count("conchrec: user joe is locked; reason: a reason") == 1, str(again)
        reason = "user joe is locked; reason: a reason. Ask your administrator"
        await house.proxy.audited("auth", user="joe", reason=reason)
        stranger = await house.client(person=house.ann, login="joe").ssh("joe@proxy", "true")
        assert "locked" not in stranger.errors, "who has proved nothing hears nothing"
    if ann is not None:
        await goes_on(ann, "on")
        await ann.stop()
    (await house.proxy.command("unlock", f"--{what}", name)).check()

    async def is_in() -> bool:
        return (await house.client().ssh("web1", "true")).code == 0

    await becomes(is_in, True, "still locked")


@pytest.mark.parametrize("what", ["user", "target"])
async def test_prints_reason_on_own_line_for_quiet_client(stage: Stage, what: str) -> None:
    """``ssh -q`` hides how a connection ends, not what a session says."""
    house = await build(stage)
    session = house.client().start("-q", "-tt", "web1", "printf ready; cat", terminal=(200, 24))
    await session.says("ready")
    name = {"user": "joe", "target": "localhost"}[what]
    (await house.proxy.command("lock", f"--{what}", name, "--reason", "a reason")).check()
    assert (await session.wait()).code == 255
    shown = bytes(session.stdout).decode().splitlines()
    (line,) = [line for line in shown if "is locked; reason: a reason" in line]
    assert line.startswith("conchrec: "), shown


@pytest.mark.parametrize("what", ["user", "target"])
async def test_disconnects_client_that_stays_after_lock(stage: Stage, what: str) -> None:
    """A client that keeps its connections when its session has ended, and asks for more meanwhile."""
    house = await build(stage)
    outer, inner = await in_thread(lambda: paramiko_connections(house))
    try:
        channel = inner.open_session()
        channel.exec_command("echo ready; cat")
        assert await in_thread(lambda: channel.recv(64)) == b"ready\n"
        name = {"user": "joe", "target": "localhost"}[what]
        (await house.proxy.command("lock", f"--{what}", name, "--reason", "a reason")).check()
        assert await in_thread(channel.recv_exit_status) == 255
        assert b"is locked; reason: a reason" in channel.recv_stderr(1024)
        with pytest.raises((paramiko.SSHException, EOFError)):
            await in_thread(inner.open_session)
        await fact(lambda: not inner.is_active(), "the inner connection stays")
        if what == "user":
            with pytest.raises((paramiko.SSHException, EOFError)):
                await in_thread(lambda: outer.open_channel("direct-tcpip", ("localhost", 22), ("", 0)))
            await fact(lambda: not outer.is_active(), "the outer connection stays")
    finally:
        inner.close()
        outer.close()
    assert len(await house.proxy.audited("session.end")) == 1


async def test_ends_lock_and_grant_when_they_expire(stage: Stage) -> None:
    house = await build(stage)
    (await house.proxy.command("lock", "--user", "ann", "--for", "1s")).check()
    session = await a_session(house)
    end, until = in_seconds(3)
    now = users(house)
    now["joe"]["roles"] = [f"ops until {until}"]
    house.proxy.configure({"users": now})
    await reloaded(house, result="ok")
    await ends(house, session, "joe may not reach", end)
    assert moment((await house.proxy.audited("session.end"))[0]) >= end
    ann = await a_session(house, ann=True)
    await goes_on(ann, "in")
    await ann.stop()


async def test_ends_nested_ssh_when_it_is_withdrawn(stage: Stage) -> None:
    """What is inside ends, the forward that is no SSH goes on, and so does the session."""
    house = await build(stage, options={"port_forwarding": True})
    port = free_port()
    session = await a_session(house, "-L", f"{port}:127.0.0.1:{house.target.port}")
    assert house.joe.agent is not None
    inside = stage.process(
        *("ssh", "-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=no"),
        *("-o", f"UserKnownHostsFile={stage.path('known')}", "127.0.0.1", "echo inside; cat"),
        env=environment(SSH_AUTH_SOCK=str(house.joe.agent.socket)),
        stdin=None,
    )
    await inside.says("inside")
    house.proxy.configure({"roles": {"ops": {"options": {"nested_ssh": False}}}})
    await reloaded(house, result="ok")
    assert (await inside.wait()).code == 255
    await house.proxy.audited("port", kind="direct", action="close")
    await goes_on(session, "on")
    await session.stop()


async def test_ends_access_when_inner_key_is_removed(stage: Stage) -> None:
    """The outer login was by another one, which stays."""
    house = await build(stage)
    extra = await stage.key("extra")
    users_before = users(house)
    users_before["joe"]["authorized_keys"] = [house.keyless.key.line, extra.line]
    house.proxy.configure({"users": users_before})
    await reloaded(house, result="ok")
    inner = Person(name="joe", key=extra)
    client = house.client(AccessMethod.CERTIFICATE, inner_person=inner, inner="IdentitiesOnly yes")
    session = client.start("web1", "echo ready; cat", stdin=None)
    await session.says("ready\n")
    house.proxy.configure({"users": {"joe": {"authorized_keys": [house.keyless.key.line]}}})
    event = await reloaded(house, result="ok")
    await ends(house, session, "your key is no longer accepted", moment(event))


@pytest.mark.parametrize("how", ["reload", "time"])
async def test_ends_playback_when_permission_is_withdrawn(stage: Stage, how: str) -> None:
    auditors = {"logins": ["nobody"], "hosts": ["nowhere"], "options": {"recordings": "all"}}
    house = await build(
        stage, settings={"roles": {"auditors": auditors}, "users": {"ann": {"roles": ["ops", "auditors"]}}}
    )
    session = await a_session(house)
    (start,) = await house.proxy.audited("session.start")
    viewer = house.client(AccessMethod.CERTIFICATE, person=house.ann).start(
        "proxy", "follow", str(start["sid"])
    )
    await viewer.says("ready")
    await goes_on(session, "seen")
    await viewer.says("got seen")
    end, until = in_seconds(3)
    roles = ["ops"] if how == "reload" else ["ops", f"auditors until {until}"]
    house.proxy.configure({"users": {"ann": {"roles": roles}}})
    event = await reloaded(house, result="ok")
    result = await viewer.wait()
    line = "your roles no longer allow you to view these recordings"
    assert (result.code, line in result.errors) == (1, True), str(result)
    late = datetime.now(timezone.utc) - (end if how == "time" else moment(event))
    assert timedelta(0) <= late < timedelta(seconds=SECONDS)
    await goes_on(session, "unseen")
    await session.stop()


async def test_enforces_locks_with_damaged_file(stage: Stage) -> None:
    house = await build(stage)
    session = await a_session(house)
    revocations = house.proxy.directory / "state" / "revocations.json"
    revocations.write_text("{")
    await fact(lambda: "revocations.json is damaged" in house.proxy.log, lambda: house.proxy.log)
    (await house.proxy.command("lock", "--user", "joe")).check()
    (event,) = await house.proxy.audited("lock.create")
    await ends(house, session, "user joe is locked", moment(event))
    assert house.proxy.log.count("revocations.json is damaged") == 1
    nobody = {"version": 0, "changed": 0, "serials": [], "key_ids": [], "users": [], "keys": []}
    revocations.write_text(json.dumps(nobody))
    ann = await a_session(house, ann=True)
    (await house.proxy.command("ca", "revoke", "--user", "ann")).check()
    (event,) = await house.proxy.audited("ca.revoke")
    await ends(house, ann, "the user ann has been revoked", moment(event))


async def test_keeps_locks_when_file_is_removed(stage: Stage) -> None:
    house = await build(stage)
    (await house.proxy.command("lock", "--user", "joe")).check()

    async def is_in() -> bool:
        return (await house.client().ssh("web1", "true")).code == 0

    await becomes(is_in, False, "not locked")
    locks = house.proxy.directory / "state" / "locks.json"
    kept = locks.read_bytes()
    locks.unlink()
    await fact(lambda: "locks.json was removed; the previous state stays in effect" in house.proxy.log,
               lambda: house.proxy.log)  # fmt: skip
    assert not await is_in()
    locks.write_bytes(kept.replace(b"joe", b"tom"))
    await becomes(is_in, True, "still locked")


async def test_applies_last_of_several_reloads(stage: Stage) -> None:
    """Reading the first one takes until the second is there."""
    house = await build(stage)
    session = await a_session(house)
    now, later = users(house), users(house)
    slow = stage.path("keys of ann")
    os.mkfifo(slow)
    now["ann"]["authorized_keys_file"] = str(slow)
    del later["joe"]

    async def reload(users_: Fields) -> None:
        house.proxy.settings["users"] = {}
        house.proxy.configure({"users": users_})
        assert house.proxy.process is not None
        house.proxy.process.kill(signal.SIGHUP)

    await reload(now)
    with await in_thread(lambda: slow.open("w")):
        await goes_on(session, "meanwhile")
        await reload(later)
        await goes_on(session, "and again")
    (*_, event) = await house.proxy.audited("config.reload", count=2)
    await ends(house, session, "the user joe was removed from the configuration", moment(event))
    assert (await house.client().ssh("web1", "true")).code == 255
