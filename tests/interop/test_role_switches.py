"""Each kind of channel under a role that forbids just that: the one is refused with a reason, others work.

One target by many names: each is a group of ``targets`` with an address and a port, and has its own role.
"""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import cast

import pytest

from tests.interop.test_relay_forwards import speak
from tests.support.client import AccessMethod, Client
from tests.support.house import House, build
from tests.support.ports import free_port
from tests.support.process import Result
from tests.support.proxy import Event
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, fact

OPEN: dict[str, object] = {"port_forwarding": True, "x11_forwarding": True, "forward_agent": True}
ROLES: dict[str, dict[str, object]] = {
    "everything": OPEN,
    "no-shell": OPEN | {"shell": False},
    "no-exec": OPEN | {"exec": False},
    "no-sftp": OPEN | {"sftp": False},
    "no-scp": OPEN | {"scp": False},
    "no-copy": OPEN | {"file_copy": False},
    "no-subsystem": OPEN | {"subsystem": False},
    "no-local": OPEN | {"local_forwarding": False},
    "no-remote": OPEN | {"remote_forwarding": False},
    "no-sockets": OPEN | {"streamlocal_forwarding": False},
    "no-x11": OPEN | {"x11_forwarding": False},
    "no-agent": OPEN | {"forward_agent": False},
    "no-unknown": OPEN | {"unknown_requests": False},
    "commands": {"commands": ["echo ready", "echo at *", "test -e **"]},
    "one-connection": {"max_connections": 1},
    "never": {"times": []},
    "over": {"expires": "2020-01-01"},
}


@pytest.fixture(scope="module")
def many(shared_stage: Stage) -> House:
    house = block(build(shared_stage, sshd=["Subsystem greet /bin/echo", "X11UseLocalhost yes"], start=False))
    port = house.target.port
    groups = {
        name: {"hosts": [name], "address": "127.0.0.1", "port": port, "labels": {"which": name}}
        for name in ROLES
    }
    roles = {
        name: {"logins": [LOGIN], "hosts": [f"group:{name}"], "options": options}
        for name, options in ROLES.items()
    }
    roles["never"]["hosts"] = ["label:which=never"]
    configured = cast(dict[str, dict[str, object]], house.proxy.settings["users"])
    users = {name: user | {"roles": list(ROLES)} for name, user in configured.items()}
    house.proxy.configure({"targets": groups, "roles": roles, "users": users})
    known = house.target.known_as()
    house.proxy.trust("".join(f"[{name}]:{port} {known.split(' ', 1)[1]}" for name in ROLES))

    async def start() -> None:
        await house.proxy.start()
        house.authority = await house.proxy.authority("host")

    block(start())
    return house


def client(house: House, name: str, method: AccessMethod = AccessMethod.INNER_AGENT) -> Client:
    return house.client(method, host=name, port=22)


async def refused(house: House, role: str, setting: str) -> str:
    """Why, as the audit has it; with the role, and the line that says so."""

    def look() -> list[Event]:
        events = house.proxy.audit("session.rejected")
        return [event for event in events if str(event["rule"]).startswith(f"role {role}: {setting} (line ")]

    event = (await fact(look, lambda: str(house.proxy.audit("session.rejected"))))[-1]
    line = int(str(event["rule"]).rpartition(" ")[2].rstrip(")"))
    assert setting in house.proxy.config.read_text().splitlines()[line - 1]
    return str(event["reason"])


def copied(at: Client, *arguments: str) -> Awaitable[Result]:
    return at.program("scp", *at.options, "-q", *arguments)


def says(result: Result, text: str) -> None:
    assert result.code != 0, str(result)
    assert f"conchrec: joe may not {text}" in result.errors, str(result)


async def works(house: House, name: str) -> None:
    assert (await client(house, name).ssh("web1", "echo ready")).check().stdout == b"ready\n"


async def test_allows_every_channel_kind_by_default(many: House, tmp_path: Path) -> None:
    everything = client(many, "everything")
    assert (await everything.ssh("web1", stdin=b"echo in a shell\n")).check().stdout == b"in a shell\n"
    assert (await everything.ssh("-s", "web1", "greet")).check().stdout == b"\n"
    (tmp_path / "one").write_text("1")
    (await copied(everything, str(tmp_path / "one"), f"web1:{tmp_path}/two")).check()
    (await copied(everything, "-O", str(tmp_path / "one"), f"web1:{tmp_path}/three")).check()
    agent = await everything.ssh("-A", "web1", 'test -S "$SSH_AUTH_SOCK" && echo agent')
    assert agent.check().stdout == b"agent\n"


async def test_refuses_shell_only(many: House) -> None:
    for flags in ((), ("-tt",)):
        result = await client(many, "no-shell").ssh(*flags, "web1", stdin=b"echo never\nexit\n")
        says(result, f"start a shell as {LOGIN}@no-shell (shell: no)")
        assert b"never" not in result.stdout
    assert "start a shell" in await refused(many, "no-shell", "shell")
    await works(many, "no-shell")


async def test_refuses_exec_only(many: House, tmp_path: Path) -> None:
    for flags in ((), ("-tt",)):
        says(await client(many, "no-exec").ssh(*flags, "web1", f"touch {tmp_path}/it"), "run commands")
    assert not (tmp_path / "it").exists()
    (tmp_path / "one").write_text("1")
    result = await copied(client(many, "no-exec"), "-O", str(tmp_path / "one"), f"web1:{tmp_path}/two")
    says(result, "run commands")
    shell = await client(many, "no-exec").ssh("web1", stdin=b"echo ready\n")
    assert shell.check().stdout == b"ready\n"
    (await copied(client(many, "no-exec"), str(tmp_path / "one"), f"web1:{tmp_path}/two")).check()


@pytest.mark.parametrize(
    ("name", "sftp", "scp"), [("no-sftp", False, True), ("no-scp", True, False), ("no-copy", False, False)]
)
async def test_refuses_file_copy_only(many: House, tmp_path: Path, name: str, sftp: bool, scp: bool) -> None:
    (tmp_path / "one").write_text("1")
    for flags, works_, by in ((("-s",), sftp, "sftp"), (("-O",), scp, "scp")):
        there = tmp_path / f"by-{by}"
        result = await copied(client(many, name), *flags, str(tmp_path / "one"), f"web1:{there}")
        if works_:
            result.check()
        else:
            setting = "file_copy" if name == "no-copy" else by
            says(result, f"copy files with {by} as {LOGIN}@{name} ({setting}: no)")
        assert there.exists() is works_
    if not sftp:
        server = await client(many, name).ssh("web1", "/usr/lib/openssh/sftp-server")
        says(server, "copy files with sftp")
    await works(many, name)


async def test_refuses_subsystem_only(many: House, tmp_path: Path) -> None:
    says(await client(many, "no-subsystem").ssh("-s", "web1", "greet"), "use this subsystem")
    (tmp_path / "one").write_text("1")
    result = await copied(client(many, "no-subsystem"), str(tmp_path / "one"), f"web1:{tmp_path}/two")
    result.check()


async def test_refuses_denied_commands_only(many: House, tmp_path: Path) -> None:
    await works(many, "commands")
    named = client(many, "commands")
    assert (await named.ssh("web1", "echo at home")).check().stdout == b"at home\n"
    for command in (
        f"touch {tmp_path}/it",
        f"echo ready; touch {tmp_path}/it",
        f"echo at home;touch {tmp_path}/it",
        f"echo at $(touch {tmp_path}/it)",
        f"echo at home\ntouch {tmp_path}/it",
        f"test -e /; touch {tmp_path}/it",
    ):
        says(await named.ssh("web1", command), f"run this command as {LOGIN}@commands (commands: ")
        assert not (tmp_path / "it").exists(), command
    says(await named.ssh("web1", stdin=b"echo never\n"), "start a shell")
    says(await named.ssh("-s", "web1", "greet"), "use this subsystem")
    (tmp_path / "one").write_text("1")
    says(await copied(named, str(tmp_path / "one"), f"web1:{tmp_path}/two"), "copy files with sftp")
    says(await copied(named, "-O", str(tmp_path / "one"), f"web1:{tmp_path}/two"), "run this command")


async def test_refuses_local_forwards_only(many: House) -> None:
    port = free_port()
    address = f"127.0.0.1:{many.target.port}"
    for name, result in (("no-local", b""), ("no-remote", b"SSH-\n")):
        process = client(many, name).start("-v", "-N", "-L", f"{port}:{address}", "web1")
        await process.says("Local forwarding listening on ")
        assert (await speak("tcp", "127.0.0.1", port)).stdout.strip() == result.strip()
        if not result:
            await process.says("joe may not forward ports on no-local (local_forwarding: no)")
            (event,) = await many.proxy.audited("port", action="refused", kind="direct")
            assert str(event["rule"]).startswith("role no-local: local_forwarding (line ")
        await process.stop()
    jumped = await client(many, "no-local").ssh("-W", address, "web1")
    assert jumped.code != 0 and "local_forwarding: no" in jumped.errors, str(jumped)


async def test_refuses_remote_forwards_only(many: House) -> None:
    flags = ("-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "web1")
    result = await client(many, "no-remote").ssh(*flags)
    assert result.code == 255 and "remote port forwarding failed" in result.errors, str(result)
    process = client(many, "no-local").start(*flags)
    await process.says("Allocated port ")
    await process.stop()


async def test_refuses_unix_sockets_only(many: House) -> None:
    short = many.stage.short
    here, there = short / "no-here", short / "no-there"
    flags = ("-o", "ExitOnForwardFailure=yes", "-R", f"{there}:127.0.0.1:1", "web1")
    result = await client(many, "no-sockets").ssh("-N", *flags)
    assert result.code == 255 and not there.exists(), str(result)
    process = client(many, "no-sockets").start("-v", "-N", "-L", f"{here}:{many.target.port}/x", "web1")
    await fact(here.is_socket, lambda: str(process))
    assert (await speak("unix", here)).stdout.strip() == b""
    await process.says("streamlocal_forwarding: no")
    await process.stop()


async def test_refuses_x11_and_agent_only(many: House) -> None:
    shown = await client(many, "no-x11").ssh("-X", "web1", 'echo "<$DISPLAY>"')
    assert shown.stdout == b"<>\n", str(shown)
    hidden = await client(many, "no-agent").ssh("-A", "web1", 'echo "<$SSH_AUTH_SOCK>"')
    assert hidden.stdout == b"<>\n", str(hidden)


async def test_refuses_unknown_requests(many: House) -> None:
    """What OpenSSH itself sends is all known; the strange ones are the memory tests' business."""
    for flags in ((), ("-tt",)):
        assert b"ready" in (await client(many, "no-unknown").ssh(*flags, "web1", "echo ready")).check().stdout


async def test_limits_connections(many: House) -> None:
    first = client(many, "one-connection").start("web1", "echo ready; cat", stdin=None)
    await first.says("ready")
    second = await client(many, "one-connection").ssh("web1", "echo never")
    assert "joe has 1 open, which is the limit (max_connections)" in second.errors
    assert second.code == 255 and second.stdout == b""
    await first.stop()
    await many.proxy.audited("client.disconnect", cid=(await many.proxy.audited("session.start"))[-1]["cid"])
    await works(many, "one-connection")


async def test_limits_session_time(many: House) -> None:
    never = await client(many, "never").ssh("web1", "echo never")
    assert never.code == 255 and "role never cannot be used at this time" in never.errors, str(never)
    over = await client(many, "over").ssh("web1", "echo never")
    assert over.code == 255 and "role over of joe ended at 2020-01-01 00:00:00 UTC" in over.errors, str(over)


async def test_prints_one_line_for_each_refusal(many: House) -> None:
    text = many.proxy.config.read_text().splitlines()
    await client(many, "never").ssh("web1", "true")
    rule = str((await many.proxy.audited("session.rejected"))[-1]["rule"])
    assert rule.startswith("role never cannot be used at this time (line ")
    line = int(rule.rpartition(" ")[2].rstrip(")"))
    assert "times" in text[line - 1]
