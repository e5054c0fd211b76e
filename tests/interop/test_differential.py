"""The same script at the target and through the proxy: every difference is a defect of ours.

By asyncssh and paramiko, which show what OpenSSH's client keeps to itself: reason codes and texts, replies to
requests, signals, the order of an end.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncssh
import paramiko
import pytest

from tests.support.house import House, build
from tests.support.ports import free_port
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, in_thread

SECONDS = 60.0
Story = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    """A role that takes nothing away: what is refused, the target refuses."""
    allowed = {"port_forwarding": True, "forward_agent": True, "x11_forwarding": True, "max_sessions": 100}
    return block(build(shared_stage, options=allowed, sshd=["MaxSessions 4", "MaxAuthTries 6"]))


# --- asyncssh


async def _ended(process: asyncssh.SSHClientProcess[bytes]) -> tuple[object, ...]:
    done = await process.wait(timeout=SECONDS)
    return done.stdout, done.stderr, done.exit_status, done.exit_signal


COMMANDS = (
    "true",
    "exit 3",
    "exit 255",
    "kill -TERM $$",
    "kill -KILL $$",
    "echo out; echo err >&2; echo out",
    "printf 'no newline'; exit 1",
    "exec 1>&-; echo late >&2; exit 2",
    "exec 2>&-; sleep 0.05; echo out",
    "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2",
    "no-such-command-at-all",
    "echo $LC_TEST $OTHER",
)


async def _commands(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    for command in COMMANDS:
        env = {"LC_TEST": "taken", "OTHER": "not taken"}
        process = await connection.create_process(command, env=env, encoding=None)
        story.append((command, *await _ended(process)))


async def _inputs(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    """EOF, nothing at all, more than anybody reads, and a command that goes before it has read."""
    big = bytes(range(256)) * 8000
    for command, given in (
        ("cat", b""),
        ("cat; echo after", b"one\n"),
        ("sha256sum", big),
        ("head -c 3; exit 4", big),
        ("exec 0<&-; echo not read", b"x" * 100),
        ("sleep 0.1; wc -c", big[:70_000]),
    ):
        process = await connection.create_process(command, encoding=None)
        try:
            process.stdin.write(given)
            process.stdin.write_eof()
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionError):
            pass  # the command ended before all of its input was sent: whether it does is a matter of speed
        story.append((command, len(given), *await _ended(process)))


async def _terminals(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    process = await connection.create_process(
        "stty size; echo $TERM; read line; stty size; exit 6",
        term_type="vt100", term_size=(91, 31, 5, 6), encoding=None,
    )  # fmt: skip
    first = await process.stdout.readline() + await process.stdout.readline()
    process.change_terminal_size(120, 40)
    process.stdin.write(b"go\n")
    story.append((first, *await _ended(process)))
    process = await connection.create_process("cat; echo after", term_type="xterm", encoding=None)
    process.stdin.write(b"\x04")
    story.append(("^D", *await _ended(process)))
    process = await connection.create_process("echo begun; sleep 60", term_type="xterm", encoding=None)
    begun = await process.stdout.readline()  # the terminal is there, and what is typed means something
    process.stdin.write(b"\x03")
    story.append(("^C", begun, *await _ended(process)))


async def _signals(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    """An sshd without privilege separation, as for root, delivers none: then the end of the input ends it."""
    for name in ("TERM", "USR1", "NONSENSE"):
        command = "trap 'echo signalled; exit 9' TERM USR1; echo begun; read line; echo not signalled"
        process = await connection.create_process(command, encoding=None)
        await process.stdout.readline()
        process.send_signal(name)
        process.stdin.write_eof()
        story.append((name, *await _ended(process)))


async def _refusals(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    closed = free_port()

    async def tried(name: str, attempt: Awaitable[object]) -> None:
        try:
            await attempt
            story.append((name, "went well"))
        except asyncssh.ChannelOpenError as error:
            story.append((name, error.code, error.reason.replace(str(closed), "PORT")))
        except asyncssh.Error as error:
            story.append((name, type(error).__name__, error.reason))

    await tried("no such subsystem", connection.create_process(subsystem="nonsense"))
    await tried("nobody listens there", connection.open_connection("127.0.0.1", closed))
    await tried("no such host", connection.open_connection("nosuchhost.invalid", 22))
    await tried("no such socket", connection.open_unix_connection("/nonexistent/socket"))
    await tried("a port that is taken", connection.forward_remote_port("127.0.0.1", 1, "127.0.0.1", 1))
    processes = []
    for number in range(6):
        try:
            processes.append(await connection.create_process("cat", encoding=None))
        except asyncssh.ChannelOpenError as error:
            story.append((f"session {number}", error.code, error.reason))
    for process in processes:
        process.stdin.write_eof()
        story.append(await _ended(process))


async def _forwards(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    """Half-closed from either side, and a server that speaks first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first ")
        data = await reader.read()
        writer.write(hashlib.sha256(data).hexdigest().encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for size in (0, 1, 500_000):
            reader, writer = await connection.open_connection("127.0.0.1", port, encoding=None)
            story.append((await reader.readexactly(6),))
            writer.write(bytes(size))
            writer.write_eof()
            story.append((size, await reader.read()))
            writer.close()
        listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", port)
        near, far = await asyncio.open_connection("127.0.0.1", listener.get_port())
        far.write(b"by way of the target")
        far.write_eof()
        story.append((await near.read(),))
        listener.close()
        await listener.wait_closed()
        try:
            await asyncio.open_connection("127.0.0.1", listener.get_port())
            story.append(("it listens still",))
        except OSError:
            story.append(("it listens no more",))


async def _files(connection: asyncssh.SSHClientConnection, story: Story) -> None:
    async with connection.start_sftp_client() as client:
        story.append((client.version,))
        for path in ("/nonexistent", "/proc/1/mem/x"):
            try:
                await client.stat(path)
            except asyncssh.SFTPError as error:
                story.append((path, error.code, error.reason))
        story.append((await client.realpath("/usr/../usr/./bin"),))


SCRIPTS: tuple[Callable[[asyncssh.SSHClientConnection, Story], Awaitable[None]], ...] = (
    _commands,
    _inputs,
    _terminals,
    _signals,
    _refusals,
    _forwards,
    _files,
)


def _run_script(house: House, script: Callable[[Any, Story], Awaitable[None]], *, through: bool) -> Story:
    """What one script sees on a connection of its own."""
    common: dict[str, Any] = {"agent_path": None, "config": None, "known_hosts": None}

    async def run() -> Story:
        story: Story = []
        if not through:
            common["client_keys"] = [str(house.joe.key.path)]
            async with asyncssh.connect("127.0.0.1", house.target.port, username=LOGIN, **common) as target:
                await script(target, story)
            return story
        own = {**common, "client_keys": [str(house.keyless.key.path)]}
        async with (
            asyncssh.connect(house.proxy.host, house.proxy.port, username="joe", **own) as outer,
            asyncssh.connect("localhost", house.target.port, username=LOGIN, tunnel=outer, **own) as inner,
        ):
            await script(inner, story)
        return story

    return asyncio.run(asyncio.wait_for(run(), SECONDS))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.strip("_"))
async def test_shows_asyncssh_no_difference_to_target(
    house: House, script: Callable[[Any, Story], Awaitable[None]]
) -> None:
    direct = await in_thread(lambda: _run_script(house, script, through=False))
    through = await in_thread(lambda: _run_script(house, script, through=True))
    assert direct
    assert through == direct


# --- paramiko: what is below asyncssh's classes


def _raw(transport: paramiko.Transport) -> Story:
    story: Story = []

    def opened(kind: str, where: tuple[str, int] | None = None) -> None:
        try:
            channel = transport.open_channel(kind, where, ("127.0.0.1", 0), timeout=SECONDS)
            story.append((kind, "opened"))
            channel.close()
        except paramiko.ChannelException as error:
            story.append((kind, error.code, error.text))

    opened("session")
    opened("direct-tcpip", ("127.0.0.1", 1))
    for name in ("nonsense@example.com", "keepalive@openssh.com", "cancel-tcpip-forward", "no-more-sessions"):
        answer = transport.global_request(name, ("127.0.0.1", 1) if "cancel" in name else None, wait=True)
        story.append((name, answer is not None))
    session = transport.open_session(timeout=SECONDS)
    for request in ("get_pty", "invoke_shell", "again"):
        try:
            if request == "get_pty":
                session.get_pty()
            elif request == "invoke_shell":
                session.exec_command("cat")
            else:
                session.exec_command("echo a second time")
            story.append((request, "taken"))
        except paramiko.SSHException as error:
            story.append((request, str(error)))
    session.close()
    story.append(("the connection lives", transport.is_active()))
    return story


@contextmanager
def _connected(house: House, *, through: bool) -> Iterator[paramiko.Transport]:
    key = house.keyless.key if through else house.joe.key
    own = paramiko.Ed25519Key.from_private_key_file(str(key.path))
    outer: paramiko.Transport | None = None
    if through:
        outer = paramiko.Transport((house.proxy.host, house.proxy.port))
        outer.connect(username="joe", pkey=own)
        line: Any = outer.open_channel("direct-tcpip", ("localhost", house.target.port), ("127.0.0.1", 0))
    else:
        line = socket.create_connection(("127.0.0.1", house.target.port), SECONDS)
    inner = paramiko.Transport(line)
    try:
        inner.connect(username=LOGIN, pkey=own)
        yield inner
    finally:
        inner.close()
        if outer is not None:
            outer.close()


def _raw_story(house: House, *, through: bool) -> Story:
    with _connected(house, through=through) as transport:
        return _raw(transport)


async def test_refuses_unknown_channel_types_at_proxy(house: House) -> None:
    """They would leave no record. With the code of RFC 4254 for it; sshd has another one."""

    def talk() -> list[int]:
        codes = []
        with _connected(house, through=True) as transport:
            for kind in ("nonsense@example.com", "auth-agent@openssh.com", "tun@openssh.com"):
                with pytest.raises(paramiko.ChannelException) as caught:
                    transport.open_channel(kind, timeout=SECONDS)
                codes.append(caught.value.code)
        return codes

    assert await in_thread(talk) == [3, 3, 3]


async def test_shows_paramiko_no_difference_to_target(house: House) -> None:
    direct = await in_thread(lambda: _raw_story(house, through=False))
    through = await in_thread(lambda: _raw_story(house, through=True))
    assert len(direct) > 8
    assert through == direct
