"""A program: runs two commands at a target through the proxy, with one of the SSH libraries for Python.

transfer.py LIBRARY PROXY USER KEY TARGET LOGIN FILE DOWN UP REKEY

It prints the output of the command DOWN, and then that of the command UP, which gets the contents of FILE.
With a REKEY other than 0 the client renews its keys after so many bytes. The standard error has what the
library logs about key exchanges. libssh and libssh2 run on ``ssh -W``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import ssh.key
import ssh.options
import ssh.session
from ssh2.session import Session as Libssh2Session

PIECE = 32768
SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The arguments of the program after the first."""

    proxy: tuple[str, int]
    user: str
    key: str
    target: tuple[str, int]
    login: str
    file: Path
    down: str
    up: str
    rekey: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the contents of the file."""
        with self.file.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def outer_command(self) -> list[str]:
        """``ssh -W`` to the target."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentityAgent=none"]
        if self.rekey:
            options.append(f"RekeyLimit={self.rekey}")
        flags = [word for option in options for word in ("-o", option)]
        at = ("-p", str(self.proxy[1]), "-i", self.key, "-W", ":".join(map(str, self.target)))
        return ["ssh", "-v", "-F", "none", *flags, *at, f"{self.user}@{self.proxy[0]}"]


def _print(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def with_paramiko(job: Job) -> None:
    """Transfer with paramiko, which renews keys when it is told to; its own limits are constants."""
    key = paramiko.Ed25519Key.from_private_key_file(job.key)
    outer = paramiko.Transport(job.proxy)
    outer.set_log_channel("outer")
    outer.connect(username=job.user, pkey=key)
    tunnel = outer.open_channel("direct-tcpip", job.target, ("127.0.0.1", 0), timeout=SECONDS)
    inner = paramiko.Transport(tunnel)
    inner.set_log_channel("inner")
    inner.connect(username=job.login, pkey=key)
    left = job.rekey

    def count(data: bytes) -> None:
        nonlocal left
        left -= len(data)
        if job.rekey and left < 0:
            left += job.rekey
            outer.renegotiate_keys()
            inner.renegotiate_keys()

    # With a larger window the command could end while the keys are renewed. The thread of paramiko that would
    # renew them then waits for itself, to answer CHANNEL_CLOSE.
    session = inner.open_session(window_size=2 * PIECE, timeout=SECONDS)
    session.exec_command(job.down)
    while data := session.recv(PIECE):
        _print(data)
        count(data)
    session = inner.open_session(timeout=SECONDS)
    session.exec_command(job.up)
    for piece in job.pieces():
        session.sendall(piece)
        count(piece)
    session.shutdown_write()
    _print(session.makefile("rb").read())
    inner.close()
    outer.close()


def with_asyncssh(job: Job) -> None:
    """Transfer with asyncssh."""
    asyncio.run(_with_asyncssh(job))


async def _with_asyncssh(job: Job) -> None:
    common: dict[str, Any] = {
        "client_keys": [job.key],
        "known_hosts": None,
        "agent_path": None,
        "config": None,
    }
    if job.rekey:
        common["rekey_bytes"] = job.rekey
    async with (
        asyncssh.connect(*job.proxy, username=job.user, **common) as outer,
        asyncssh.connect(*job.target, username=job.login, tunnel=outer, **common) as inner,
    ):
        process = await inner.create_process(job.down, encoding=None)
        while data := await process.stdout.read(PIECE):
            _print(data)
        process = await inner.create_process(job.up, encoding=None)
        for piece in job.pieces():
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.write_eof()
        _print(await process.stdout.read())


def with_libssh(job: Job) -> None:
    """Transfer with libssh."""
    session = ssh.session.Session()
    session.options_set(ssh.options.HOST, job.target[0])
    session.options_set_port(job.target[1])
    session.options_set(ssh.options.USER, job.login)
    session.options_set(ssh.options.KNOWNHOSTS, "/dev/null")
    session.options_set_int_val(ssh.options.PROCESS_CONFIG, 0)
    session.options_set(ssh.options.LOG_VERBOSITY_STR, "3")
    session.options_set(ssh.options.PROXYCOMMAND, " ".join(job.outer_command()))
    if job.rekey:
        with tempfile.NamedTemporaryFile("w") as config:
            config.write(f"RekeyLimit {job.rekey}\n")
            config.flush()
            session.options_parse_config(config.name)
    session.connect()
    session.userauth_publickey(ssh.key.import_privkey_file(job.key))
    channel = session.channel_new()
    channel.open_session()
    channel.request_exec(job.down)
    _print_all(lambda: channel.read(PIECE))
    channel = session.channel_new()
    channel.open_session()
    channel.request_exec(job.up)
    for piece in job.pieces():
        channel.write(piece)
    channel.send_eof()
    _print_all(lambda: channel.read(PIECE))
    session.disconnect()


def with_libssh2(job: Job) -> None:
    """Transfer with libssh2, which never starts a key exchange after the first, and logs nothing."""
    ours, theirs = socket.socketpair()
    tunnel = subprocess.Popen(job.outer_command(), stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    session = Libssh2Session()
    session.set_timeout(int(SECONDS * 1000))
    session.handshake(ours)
    session.userauth_publickey_fromfile(job.login, job.key)
    channel = session.open_session()
    channel.execute(job.down)
    _print_all(lambda: channel.read(PIECE))
    channel.close()
    channel = session.open_session()
    channel.execute(job.up)
    for piece in job.pieces():
        channel.write(piece)
    channel.send_eof()
    _print_all(lambda: channel.read(PIECE))
    channel.close()
    session.disconnect()
    ours.close()
    tunnel.wait()


def _print_all(read: Callable[[], tuple[int, bytes]]) -> None:
    """Print what is read until the end. The libraries return how much it is, or an error below 0."""
    while True:
        size, data = read()
        if size < 0:
            raise OSError(f"error {size}")
        if size == 0:
            return
        _print(data[:size])


LIBRARIES = {
    "asyncssh": with_asyncssh,
    "libssh": with_libssh,
    "libssh2": with_libssh2,
    "paramiko": with_paramiko,
}


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main(library: str, proxy: str, user: str, key: str, target: str, login: str, *rest: str) -> None:
    """Transfer, and log what concerns key exchanges."""
    logging.basicConfig(format="%(name)s %(message)s")
    for name in ("outer", "inner", "asyncssh"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    file, down, up, rekey = rest
    LIBRARIES[library](
        Job(
            proxy=_address(proxy),
            user=user,
            key=key,
            target=_address(target),
            login=login,
            file=Path(file),
            down=down,
            up=up,
            rekey=int(rekey),
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
