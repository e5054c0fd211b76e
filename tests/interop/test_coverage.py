"""Checks each row of the coverage table with real clients and servers."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncssh
import paramiko
import pytest

from conchrec.proxy.coverage_table import TABLE, CoverageRow
from tests.support.cast import Cast
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.keys import all_lines
from tests.support.otherclients import send_request
from tests.support.ports import free_port
from tests.support.proxy import our_environment
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, in_thread

SECONDS = 20.0


@dataclass(kw_only=True)
class Street:
    """A house whose role allows everything, and a target that says strange things when it is asked to."""

    house: House
    strange: int


async def _build(stage: Stage) -> Street:
    key, port = await stage.key("host"), free_port()
    authorized = stage.file("strange/authorized_keys", "")
    command = (
        sys.executable,
        "-m",
        "tests.support.otherservers",
        "paramiko",
        str(port),
        key.path,
        authorized,
    )
    server = stage.process(*command, env=our_environment())
    await server.says("listening")
    allowed = {"port_forwarding": True, "forward_agent": True, "x11_forwarding": True, "max_sessions": 100}
    house = await build(stage, options=allowed, sshd=["X11Forwarding yes", "X11UseLocalhost yes"])
    house.proxy.trust(key.known_as("localhost", port))
    await house.proxy.restart()
    authorized.write_text(all_lines((house.joe.key,)))
    return Street(house=house, strange=port)


@pytest.fixture(scope="module")
def street(shared_stage: Stage) -> Street:
    return block(_build(shared_stage))


# --- what people do


Act = Callable[[Street], Awaitable[None]]


def inner(act: Callable[[asyncssh.SSHClientConnection], Awaitable[None]]) -> Act:
    """By asyncssh, in a connection through the proxy."""

    async def done(street: Street) -> None:
        house = street.house
        own: dict[str, Any] = {"agent_path": None, "config": None, "known_hosts": None}
        own["client_keys"] = [str(house.keyless.key.path)]

        async def run() -> None:
            async with (
                asyncssh.connect(house.proxy.host, house.proxy.port, username="joe", **own) as outer,
                asyncssh.connect(
                    "localhost", house.target.port, username=LOGIN, tunnel=outer, **own
                ) as inner,
            ):
                await act(inner)

        await in_thread(lambda: asyncio.run(asyncio.wait_for(run(), SECONDS)))

    return done


def raw(act: Callable[[paramiko.Transport], None]) -> Act:
    """By paramiko, below its classes."""

    def talk(house: House) -> None:
        key = paramiko.Ed25519Key.from_private_key_file(str(house.keyless.key.path))
        outer = paramiko.Transport((house.proxy.host, house.proxy.port))
        outer.connect(username="joe", pkey=key)
        line: Any = outer.open_channel("direct-tcpip", ("localhost", house.target.port), ("127.0.0.1", 0))
        transport = paramiko.Transport(line)
        try:
            transport.connect(username=LOGIN, pkey=key)
            act(transport)
        finally:
            transport.close()
            outer.close()

    return lambda street: in_thread(lambda: talk(street.house))


def ssh(*arguments: str, stdin: bytes = b"", strange: bool = False) -> Act:
    async def done(street: Street) -> None:
        port = street.strange if strange else None
        client = street.house.client(AccessMethod.INNER_AGENT, port=port)
        await client.ssh(*arguments, stdin=stdin)

    return done


async def _ended(process: asyncssh.SSHClientProcess[Any]) -> None:
    with suppress(BrokenPipeError):  # it may be over already
        process.stdin.write_eof()
    await process.wait(timeout=SECONDS)


async def _shell(connection: asyncssh.SSHClientConnection) -> None:
    process = await connection.create_process()
    process.stdin.write("echo said; exit\n")
    await process.wait(timeout=SECONDS)


async def _terminal(connection: asyncssh.SSHClientConnection) -> None:
    process = await connection.create_process("head -n 1; echo said", term_type="vt100", term_size=(91, 31))
    process.change_terminal_size(120, 40)
    process.stdin.write("\n")
    await process.wait(timeout=SECONDS)


async def _env(connection: asyncssh.SSHClientConnection) -> None:
    await _ended(await connection.create_process("true", env={"LC_TEST": "x"}))


async def _signals(connection: asyncssh.SSHClientConnection) -> None:
    process = await connection.create_process("cat")
    process.send_signal("USR1")
    process.send_break(100)
    await _ended(process)


async def _sftp(connection: asyncssh.SSHClientConnection) -> None:
    async with connection.start_sftp_client() as client, client.open("/etc/hostname", "rb") as file:
        await file.read()


async def _other_subsystem(connection: asyncssh.SSHClientConnection) -> None:
    with suppress(asyncssh.Error):
        await connection.create_process(subsystem="strange")


async def _ports(connection: asyncssh.SSHClientConnection) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reader, writer = await connection.open_connection("127.0.0.1", port, encoding=None)
        assert await reader.read() == b"hello"
        writer.close()
        listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", port)
        near, far = await asyncio.open_connection("127.0.0.1", listener.get_port())
        assert await near.read() == b"hello"
        far.close()
        listener.close()
        await listener.wait_closed()


def _sockets(street: Street) -> Awaitable[None]:
    short = street.house.stage.short

    async def talk(connection: asyncssh.SSHClientConnection) -> None:
        path = str(short / street.house.stage.unique("covered"))
        served = str(short / street.house.stage.unique("served"))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_unix_server(serve, served)
        async with server:
            reader, writer = await connection.open_unix_connection(served, encoding=None)
            assert await reader.read() == b"hello"
            writer.close()
            listener = await connection.forward_remote_path(path, served)
            near, far = await asyncio.open_unix_connection(path)
            assert await near.read() == b"hello"
            far.close()
            listener.close()
            await listener.wait_closed()

    return inner(talk)(street)


def asks(name: str) -> Callable[[paramiko.Transport], None]:
    """For something with this name, on a channel that then runs a command."""

    def ask(transport: paramiko.Transport) -> None:
        channel = transport.open_session(timeout=SECONDS)
        send_request(channel, name)
        channel.exec_command("true")
        channel.recv_exit_status()

    return ask


def _unknown_channel(transport: paramiko.Transport) -> None:
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("strange@example.com", timeout=SECONDS)


def _unknown_global(transport: paramiko.Transport) -> None:
    transport.global_request("strange@example.com", wait=True)


async def _x11(street: Street) -> None:
    """Something at the target connects to the display that it was given."""
    window = (
        "import os, socket; host, _, number = os.environ['DISPLAY'].rpartition(':');"
        "one = socket.create_connection((host, 6000 + int(float(number))));"
        "one.sendall(bytes((108, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0))); one.recv(9)"
    )
    client = street.house.client(AccessMethod.INNER_AGENT)
    with socket.create_server(("127.0.0.1", free_port())) as display:
        display.settimeout(SECONDS)
        client.env["DISPLAY"] = f"127.0.0.1:{display.getsockname()[1] - 6000}"

        def serve() -> None:
            display_client, _ = display.accept()
            display_client.recv(1)
            display_client.close()

        served = in_thread(serve)
        (await client.ssh("-Y", "web1", f'python3 -c "{window}"')).check()
        await served


STRANGE = ssh("web1", "strange", strange=True)
OUTPUT = {"said"}

#: What is done, for each row, and what the cast or the manifest then has.
WALK: dict[tuple[str, str, str], tuple[Act, Callable[[Cast], object] | None]] = {
    ("session", "shell", "user"): (inner(_shell), lambda cast: "said" in cast.text()),
    ("session", "exec", "user"): (
        ssh("web1", "echo said"),
        lambda cast: cast.text() == "said\n" and cast.header["command"] == "echo said",
    ),
    ("session", "subsystem sftp", "user"): (
        inner(_sftp),
        lambda cast: (
            any("/etc/hostname" in text for text in cast.listed("m")) and (cast.manifest or {})["files"]
        ),
    ),
    ("session", "subsystem other", "user"): (
        inner(_other_subsystem),
        lambda cast: "subsystem strange" in cast.listed("m"),
    ),
    ("session", "pty-req", "user"): (
        inner(_terminal),
        lambda cast: (cast.header["width"], cast.header["env"]["TERM"]) == (91, "vt100"),
    ),
    ("session", "window-change", "user"): (inner(_terminal), lambda cast: cast.listed("r") == ["120x40"]),
    ("session", "env", "user"): (
        inner(_env),
        lambda cast: "'env': {'LC_TEST': 'x'" in str(cast.header["conchrec"]),
    ),
    ("session", "eow@openssh.com", "user"): (
        raw(asks("eow@openssh.com")),
        lambda cast: "the user stopped reading (eow@openssh.com)" in cast.listed("m"),
    ),
    ("session", "signal", "user"): (inner(_signals), None),
    ("session", "break", "user"): (inner(_signals), None),
    ("session", "x11-req", "user"): (_x11, None),
    ("session", "auth-agent-req@openssh.com", "user"): (ssh("-A", "web1", "ssh-add -L"), None),
    ("session", "agent-req", "user"): (raw(asks("agent-req")), None),
    ("session", "other", "user"): (raw(asks("strange@example.com")), None),
    ("session", "exit-status", "target"): (
        ssh("web1", "exit 3"),
        lambda cast: cast.listed("x") == ["3"] and (cast.manifest or {})["exit"] == {"status": 3},
    ),
    ("session", "exit-signal", "target"): (
        STRANGE,
        lambda cast: (
            any(text.startswith("exit-signal TERM") for text in cast.listed("m"))
            and (cast.manifest or {})["exit"] == {"signal": "TERM"}
        ),
    ),
    ("session", "other", "target"): (STRANGE, None),
    ("direct-tcpip", "", "user"): (inner(_ports), None),
    ("direct-streamlocal@openssh.com", "", "user"): (_sockets, None),
    ("other", "", "user"): (raw(_unknown_channel), None),
    ("forwarded-tcpip", "", "target"): (inner(_ports), None),
    ("forwarded-streamlocal@openssh.com", "", "target"): (_sockets, None),
    ("x11", "", "target"): (_x11, None),
    ("auth-agent@openssh.com", "", "target"): (ssh("-A", "web1", "ssh-add -L"), None),
    ("other", "", "target"): (STRANGE, None),
    ("global", "tcpip-forward", "user"): (inner(_ports), None),
    ("global", "cancel-tcpip-forward", "user"): (inner(_ports), None),
    ("global", "streamlocal-forward@openssh.com", "user"): (_sockets, None),
    ("global", "cancel-streamlocal-forward@openssh.com", "user"): (_sockets, None),
    ("global", "other", "user"): (raw(_unknown_global), None),
    ("global", "other", "target"): (STRANGE, None),
}
#: How the event of a row is told from others of its name.
TRACES: dict[tuple[str, str, str], dict[str, object]] = {
    ("session", "signal", "user"): {"name": "USR1"},
    ("session", "break", "user"): {"name": "BREAK"},
    ("session", "x11-req", "user"): {"action": "request"},
    ("session", "auth-agent-req@openssh.com", "user"): {"action": "announced"},
    ("session", "agent-req", "user"): {"action": "announced"},
    ("session", "other", "user"): {"sender": "user", "request": "strange@example.com", "scope": "channel"},
    ("session", "other", "target"): {
        "sender": "target",
        "request": "strange@example.com",
        "scope": "channel",
    },
    ("direct-tcpip", "", "user"): {"kind": "direct", "action": "close", "received": 5},
    ("direct-streamlocal@openssh.com", "", "user"): {"kind": "streamlocal-direct", "action": "close"},
    ("other", "", "user"): {"sender": "user", "request": "open strange@example.com"},
    ("forwarded-tcpip", "", "target"): {"kind": "forwarded", "action": "close", "sent": 5},
    ("forwarded-streamlocal@openssh.com", "", "target"): {"kind": "streamlocal-forwarded", "action": "close"},
    ("x11", "", "target"): {"action": "close"},
    ("auth-agent@openssh.com", "", "target"): {"action": "relayed", "path": "onward"},
    ("other", "", "target"): {"sender": "target", "request": "open strange@example.com"},
    ("global", "tcpip-forward", "user"): {"kind": "remote", "action": "listen"},
    ("global", "cancel-tcpip-forward", "user"): {"kind": "remote", "action": "cancel"},
    ("global", "streamlocal-forward@openssh.com", "user"): {"kind": "streamlocal-remote", "action": "listen"},
    ("global", "cancel-streamlocal-forward@openssh.com", "user"): {
        "kind": "streamlocal-remote",
        "action": "cancel",
    },
    ("global", "other", "user"): {"sender": "user", "scope": "global"},
    ("global", "other", "target"): {"sender": "target", "scope": "global"},
}


def key(row: CoverageRow) -> tuple[str, str, str]:
    return row.channel, row.request, row.sender


def test_covers_every_row_or_says_why_not() -> None:
    assert len({key(row) for row in TABLE}) == len(TABLE)
    assert {key(row) for row in TABLE if not row.why} == WALK.keys()
    assert all(row.audited or row.recorded for row in TABLE if not row.why)
    seen = {key(row) for row in TABLE if row.recorded}
    assert seen == {row for row, (_, recorded) in WALK.items() if recorded is not None}


@pytest.mark.parametrize("row", [row for row in TABLE if not row.why], ids=lambda row: "-".join(key(row)))
async def test_leaves_documented_trace(street: Street, row: CoverageRow) -> None:
    act, recorded = WALK[key(row)]
    proxy = street.house.proxy
    sids, count = proxy.sids(), {name: len(proxy.audit(name, **trace_of(row, name))) for name in row.audited}
    await act(street)
    for name, before in count.items():
        await proxy.audited(name, count=before + 1, **trace_of(row, name))
    if recorded is not None:
        cast = await proxy.finished_one(after=sids)
        assert recorded(cast), cast


def trace_of(row: CoverageRow, name: str) -> dict[str, object]:
    return TRACES.get(key(row), {}) if name == row.audited[-1] else {}


async def test_lists_unrecorded_parts_in_manifest(street: Street) -> None:
    proxy = street.house.proxy

    async def not_kept(act: Act) -> list[str]:
        sids = proxy.sids()
        await act(street)
        cast = await proxy.finished_one(after=sids)
        assert cast.manifest is not None
        coverage = cast.manifest["coverage"]
        assert isinstance(coverage, dict)
        words = coverage["not_kept"]
        assert isinstance(words, list)
        return words

    assert await not_kept(ssh("web1", "true")) == []
    assert await not_kept(ssh("web1", "cat", stdin=b"typed")) == ["input"]
    assert await not_kept(ssh("web1", "printf '\\377'")) == ["output-bytes"]
    assert await not_kept(inner(_sftp)) == ["digest-only"]
    assert "agent" in await not_kept(ssh("-A", "web1", "ssh-add -L"))
    assert "x11" in await not_kept(_x11)
