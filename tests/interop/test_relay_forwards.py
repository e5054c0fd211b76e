"""Forwards of the inner connection: refused with a reason by default, relayed where the role allows."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.support import speak as speaker
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.ports import free_port
from tests.support.process import Process, Result, environment, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, fact

SPEAK = Path(speaker.__file__)


@pytest.fixture(scope="module")
def open_house(shared_stage: Stage) -> House:
    """Where the role allows everything."""
    allowed = {"port_forwarding": True, "forward_agent": True, "x11_forwarding": True}
    return block(build(shared_stage, options=allowed, sshd=["X11UseLocalhost yes"]))


async def speak(kind: str, *address: str | int | Path) -> Result:
    """Connect there; on stdout what the other side says first."""
    return await run(sys.executable, SPEAK, kind, *(str(part) for part in address))


async def forwarding(house: House, method: AccessMethod, *flags: str) -> Process:
    """``ssh -N`` with these flags, once it has its connection and its listeners."""
    process = house.client(method).start("-v", "-N", "-o", "ExitOnForwardFailure=yes", *flags, "web1")
    # The jump connection of -J says a good deal of that, too, but it has no listeners.
    ready = ("Local forwarding listening on ", "remote forward success for", "Local connections to")
    await fact(
        lambda: not process.is_running or any(text.encode() in process.stderr for text in ready),
        lambda: f"no forwarding:\n{process}",
    )
    assert process.is_running, str(process)
    return process


async def test_refuses_forwards_by_default(house: House, method: AccessMethod) -> None:
    local = free_port()
    process = await forwarding(house, method, "-L", f"{local}:127.0.0.1:{house.target.port}")
    assert (await speak("tcp", "127.0.0.1", local)).stdout.strip() == b""
    await process.says("administratively prohibited")
    refused = await house.proxy.audited("port", kind="direct", action="refused", user="joe")
    assert refused[-1]["destination"] == f"127.0.0.1:{house.target.port}"
    await process.stop()
    remote = await house.client(method).ssh(
        "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "web1"
    )
    assert remote.code == 255
    assert "remote port forwarding failed" in remote.errors


async def test_refuses_agent_forwarding_by_default(house: House) -> None:
    result = await house.client(AccessMethod.INNER_AGENT).ssh("web1", 'echo "agent<$SSH_AUTH_SOCK>"')
    assert result.stdout == b"agent<>\n", str(result)


async def test_forwards_local_ports(open_house: House, method: AccessMethod) -> None:
    """A server that speaks first, and the port that nobody listens on."""
    local, dead = free_port(), free_port()
    flags = ("-L", f"{local}:127.0.0.1:{open_house.target.port}", "-L", f"{dead}:127.0.0.1:{free_port()}")
    process = await forwarding(open_house, method, *flags)
    for _ in range(3):
        assert (await speak("tcp", "127.0.0.1", local)).stdout == b"SSH-\n"
    assert (await speak("tcp", "127.0.0.1", dead)).stdout.strip() == b""
    await process.says("connect failed")
    closed = await open_house.proxy.audited("port", kind="direct", action="close", user="joe")
    assert isinstance(closed[-1]["received"], int) and closed[-1]["received"] > 4
    await process.stop()


async def test_forwards_remote_ports(open_house: House, method: AccessMethod) -> None:
    """The port 0 is answered with the one that the target has chosen."""
    process = await forwarding(open_house, method, "-R", f"0:127.0.0.1:{open_house.proxy.port}")
    await process.says("Allocated port ")
    errors = process.stderr.decode()
    port = int(errors.partition("Allocated port ")[2].split()[0])
    for _ in range(3):
        assert (await speak("tcp", "127.0.0.1", port)).stdout == b"SSH-\n"
    await process.stop()


async def test_forwards_dynamically(open_house: House) -> None:
    local = free_port()
    process = await forwarding(open_house, AccessMethod.OUTER_AGENT, "-D", str(local))
    result = await speak("socks", local, "127.0.0.1", open_house.target.port)
    assert result.stdout == b"SSH-\n", f"{result}\n{process}"
    await process.stop()


async def test_forwards_unix_sockets(open_house: House) -> None:
    """streamlocal, both ways."""
    short = open_house.stage.short
    here, there = short / "here", short / "there"
    flags = ("-R", f"{there}:127.0.0.1:{open_house.target.port}", "-L", f"{here}:{there}")
    process = await forwarding(open_house, AccessMethod.INNER_AGENT, *flags)
    await fact(lambda: there.is_socket() and here.is_socket(), lambda: str(process))
    result = await speak("unix", here)
    assert result.stdout == b"SSH-\n", f"{result}\n{process}"
    await process.stop()


async def test_forwards_agent_to_target(open_house: House) -> None:
    result = await open_house.client(AccessMethod.INNER_AGENT).ssh("web1", "ssh-add -L")
    assert result.text.splitlines() == [open_house.joe.key.line], str(result)


async def test_serves_forward_beside_session(open_house: House, tmp_path: Path) -> None:
    local = free_port()
    client = open_house.client()
    process = client.start(
        "-L", f"{local}:127.0.0.1:{open_house.target.port}", "web1", "echo begun; cat; exit 5"
    )
    await process.says("begun")
    key = open_house.joe
    assert key.agent is not None
    through = await run(
        *("ssh", "-F", "none", "-p", str(local), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
        *("-o", f"UserKnownHostsFile={tmp_path}/known", "127.0.0.1", "cat; exit 9"),
        env=environment(SSH_AUTH_SOCK=str(key.agent.socket)),
        stdin=b"x" * 1_000_000,
    )
    assert (len(through.stdout), through.code) == (1_000_000, 9), str(through)
    process.close_input()
    assert (await process.wait()).code == 5


async def test_forwards_x11(open_house: House, tmp_path: Path) -> None:
    """The target gets a display; who connects to it reaches the user's X server (here: one that hangs up)."""
    client = open_house.client()
    client.env["DISPLAY"] = f"{tmp_path}/x:0"
    result = await client.ssh("-Y", "web1", 'echo "display<$DISPLAY>"')
    if "X11 forwarding request failed" not in result.errors:  # an sshd without xauth refuses it itself
        assert result.stdout.startswith(b"display<localhost:"), str(result)
    events = await open_house.proxy.audited("x11-forward", user="joe")
    assert events[0]["action"] == "request"


@pytest.fixture(scope="module")
def no_nesting(shared_stage: Stage) -> House:
    """Ports may be forwarded, but no SSH through them."""
    return block(build(shared_stage, options={"port_forwarding": True, "nested_ssh": False}))


async def test_audits_ssh_inside_forward(open_house: House) -> None:
    """Both the login through a forwarded port and the jump over the target, by what they say first."""
    before = len(open_house.proxy.audit("port", action="nested_ssh"))
    local = free_port()
    process = await forwarding(
        open_house, AccessMethod.OUTER_AGENT, "-L", f"{local}:127.0.0.1:{open_house.target.port}"
    )
    nested = await run(
        "ssh", "-F", "none", "-p", str(local), "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
        "-i", open_house.joe.key.path, f"{LOGIN}@127.0.0.1", "echo inside",
        env=environment(),
    )  # fmt: skip
    assert nested.stdout == b"inside\n", str(nested)
    (event,) = open_house.proxy.audit("port", action="nested_ssh")[before:]
    assert event["destination"] == f"127.0.0.1:{open_house.target.port}" and event["user"] == "joe"
    await process.stop()


async def test_refuses_ssh_inside_forward(no_nesting: House) -> None:
    house = no_nesting
    local, web, port = free_port(), free_port(), free_port()
    short = house.stage.short
    with socket.create_server(("127.0.0.1", web)) as listening:
        process = await forwarding(
            house, AccessMethod.OUTER_AGENT,
            "-L", f"{local}:127.0.0.1:{house.target.port}", "-L", f"{port}:127.0.0.1:{web}",
            "-R", f"{short / 'back'}:127.0.0.1:{house.target.port}",
            "-L", f"{short / 'out'}:{short / 'back'}",
        )  # fmt: skip
        await fact(lambda: (short / "out").is_socket() and (short / "back").is_socket(), lambda: str(process))
        assert (await speak("tcp", "127.0.0.1", local)).stdout.strip() == b""
        assert (await speak("unix", short / "out")).stdout.strip() == b""
        # What is not SSH goes on, in the same connection, and a server may speak first.
        asking = Process((sys.executable, SPEAK, "tcp", "127.0.0.1", str(port)), env=environment())
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"220 hello\r\n")
            assert (await asking.wait()).stdout == b"220 \n"
    refused = await house.proxy.audited("session.rejected", count=2)
    assert {str(event["rule"])[:21] for event in refused} == {"role ops: nested_ssh "}
    assert "may not use ssh inside a forwarded port" in str(refused[0]["reason"])
    closed = await house.proxy.audited("port", action="close", destination=f"127.0.0.1:{house.target.port}")
    assert "nested_ssh: no" in str(closed[0]["reason"]), "nothing of the banner has passed"
    assert closed[0]["received"] == 0
    jumped = await house.client(AccessMethod.OUTER_AGENT).ssh("-W", f"127.0.0.1:{house.target.port}", "web1")
    assert b"SSH-" not in jumped.stdout, str(jumped)
    await process.stop()
