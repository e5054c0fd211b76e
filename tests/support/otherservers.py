"""Programs: SSH servers by other hands, as targets on 127.0.0.1. Each runs with sh what it is told to, and
lets in the keys of a file, which is read at each login.

python -m tests.support.otherservers asyncssh|paramiko PORT HOST_KEY AUTHORIZED_KEYS
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import asyncssh
import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_UNKNOWN_CHANNEL_TYPE,
    OPEN_SUCCEEDED,
)

BYTES = "latin-1"
"""asyncssh edits lines only where it has text: this is a text of which each letter is a byte."""

# -- asyncssh: commands, a shell of its own on a terminal, files, forwards


class _Asyncssh(asyncssh.SSHServer):
    def __init__(self, authorized: str) -> None:
        self._authorized = authorized
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        assert self._connection is not None
        self._connection.set_authorized_keys(self._authorized)
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return True


async def _command(process: asyncssh.SSHServerProcess[str]) -> None:
    if process.command is None:
        await _shell(process)
        return
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_shell(process.command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    feeding = asyncio.create_task(_feed(process.stdin, child.stdin))
    await asyncio.gather(_tell(child.stdout, process.stdout), _tell(child.stderr, process.stderr))
    code = await child.wait()
    feeding.cancel()
    if code < 0:
        process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    else:
        process.exit(code)


async def _feed(source: asyncssh.SSHReader[str], to: asyncio.StreamWriter) -> None:
    while data := await source.read(32768):
        to.write(data.encode(BYTES))
        await to.drain()
    to.close()


async def _tell(source: asyncio.StreamReader, to: asyncssh.SSHWriter[str]) -> None:
    while data := await source.read(32768):
        to.write(data.decode(BYTES))
        await to.drain()


async def _shell(process: asyncssh.SSHServerProcess[str]) -> None:
    """Says each line again, and what the terminal is; ``exit N`` is its only command."""

    def look() -> None:
        columns, rows, *_ = process.term_size
        process.stdout.write(f"{process.term_type} {rows} {columns}\n")

    look()
    while True:
        try:
            line = await process.stdin.readline()
        except asyncssh.TerminalSizeChanged:
            look()
            continue
        words = line.split()
        if not words or words[0] == "exit":
            process.exit(int(words[1]) if len(words) > 1 else 0)
            return
        process.stdout.write("> " + line)


async def _serve_asyncssh(port: int, host_key: str, authorized: str) -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_factory=lambda: _Asyncssh(authorized),
        server_host_keys=[host_key],
        process_factory=_command,
        sftp_factory=True,
        allow_scp=True,
        encoding=BYTES,
    )
    print("listening", flush=True)
    await server.wait_closed()


def asyncssh_server(port: int, host_key: str, authorized: str) -> None:
    """Run a server made with asyncssh."""
    asyncio.run(_serve_asyncssh(port, host_key, authorized))


# -- paramiko: commands


class _Paramiko(paramiko.ServerInterface):
    def __init__(self, authorized: str) -> None:
        self._authorized = authorized

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = [line.split()[1] for line in Path(self._authorized).read_text().splitlines()]
        return AUTH_SUCCESSFUL if key.get_base64() in known else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_UNKNOWN_CHANNEL_TYPE

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        Thread(target=_run, args=(channel, command)).start()
        return True


def _strange(channel: paramiko.Channel) -> None:
    """What no server says: a request that nobody knows, of each kind, and a signal at the end."""
    transport = channel.get_transport()
    transport.global_request("strange@example.com", wait=False)
    try:
        transport.open_channel("strange@example.com", timeout=10)
    except paramiko.ChannelException:
        pass  # nobody has asked for it
    for name, body in (("strange@example.com", b""), ("exit-signal", b"TERM")):
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string(name)
        message.add_boolean(False)
        if body:
            message.add_string(body)
            message.add_boolean(False)
            message.add_string("")
            message.add_string("")
        # paramiko has no public way to send a message of its caller.
        transport._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001
    channel.close()


def _run(channel: paramiko.Channel, command: bytes) -> None:
    if command == b"strange":
        _strange(channel)
        return
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        output, errors = child.stdout, child.stderr
        pumps = [
            Thread(target=_pump, args=(lambda: output.read(32768), channel.sendall)),
            Thread(target=_pump, args=(lambda: errors.read(32768), channel.sendall_stderr)),
        ]
        for pump in pumps:
            pump.start()
        try:
            while data := channel.recv(32768):
                child.stdin.write(data)
            child.stdin.close()
        except BrokenPipeError:
            pass  # the command does not want it
        for pump in pumps:
            pump.join()
        channel.send_exit_status(child.wait())
    channel.close()


def _pump(read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
    while data := read():
        write(data)


def paramiko_server(port: int, host_key: str, authorized: str) -> None:
    """Run a server made with paramiko."""
    key = paramiko.Ed25519Key.from_private_key_file(host_key)
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            # With an event of its own, that nobody waits for, it goes on by itself.
            transport.start_server(server=_Paramiko(authorized), event=Event())


SERVERS = {"asyncssh": asyncssh_server, "paramiko": paramiko_server}


def main(kind: str, port: str, host_key: str, authorized: str) -> None:
    """Run the server of this kind."""
    SERVERS[kind](int(port), host_key, authorized)


if __name__ == "__main__":
    main(*sys.argv[1:])
