"""libssh, at the proxy and through it. It knows no host certificates: it is shown the plain keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ssh.key
import ssh.options
import ssh.session

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import in_thread


def _session(house: House, host: str, port: int, user: str, proxy_command: str) -> Any:
    session = ssh.session.Session()
    session.options_set(ssh.options.HOST, host)
    session.options_set_port(port)
    session.options_set(ssh.options.USER, user)
    # Nothing of the account that runs the tests.
    session.options_set(ssh.options.KNOWNHOSTS, os.devnull)
    session.options_set_int_val(ssh.options.PROCESS_CONFIG, 0)
    if proxy_command:
        session.options_set(ssh.options.PROXYCOMMAND, proxy_command)
    session.connect()
    session.userauth_publickey(ssh.key.import_privkey_file(str(house.keyless.key.path)))
    return session


def _read(read: Callable[[], tuple[int, bytes]]) -> bytes:
    received = b""
    while True:
        count, data = read()
        assert count >= 0
        if not count:
            return received
        received += data[:count]


def _command(session: Any, command: str, given: bytes, *, pty: bool = False) -> tuple[bytes, bytes, int]:
    """What it says on both, and its exit status."""
    channel = session.channel_new()
    channel.open_session()
    if pty:
        channel.request_pty_size("xterm", 90, 30)
    channel.request_exec(command)
    if given:
        channel.write(given)
    if not pty:
        channel.send_eof()
    out = _read(lambda: channel.read(65536))
    errors = _read(lambda: channel.read(65536, is_stderr=True))
    status = channel.get_exit_status()
    channel.close()
    return out, errors, status


def _copy(session: Any, there: Path, contents: bytes) -> bytes:
    sftp = session.sftp_new()
    sftp.init()
    with sftp.open(str(there), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR) as file:
        for at in range(0, len(contents), 32768):
            file.write(contents[at : at + 32768])
    sftp.symlink(there.name, f"{there}.link")
    with sftp.open(f"{there}.link", os.O_RDONLY, 0) as file:
        return b"".join(data for _, data in file)


async def test_serves_libssh_at_proxy(house: House) -> None:
    def talk() -> tuple[bytes, bytes, int]:
        session = _session(house, house.proxy.host, house.proxy.port, "joe", "")
        try:
            return _command(session, "status", b"")
        finally:
            session.disconnect()

    out, errors, status = await in_thread(talk)
    assert (errors, status) == (b"", 0)
    assert b"your connections: 1" in out


def _proxy_command(house: House) -> str:
    """The outer connection."""
    return f"ssh -F {house.client(AccessMethod.CERTIFICATE).config} -W localhost:{house.target.port} proxy"


async def test_relays_libssh_to_target(house: House, tmp_path: Path) -> None:
    through = _proxy_command(house)
    contents = os.urandom(1_000_000)
    there = tmp_path / "there"
    before = house.proxy.sids()

    def talk() -> tuple[object, ...]:
        session = _session(house, "localhost", house.target.port, LOGIN, through)
        try:
            return (
                _command(session, "cat; echo err >&2; exit 3", b"typed\n"),
                _command(session, "stty size; exit 4", b"", pty=True),
                _copy(session, there, contents) == contents,
            )
        finally:
            session.disconnect()

    plain, terminal, copied = await in_thread(talk)
    assert plain == (b"typed\n", b"err\n", 3)
    assert terminal == (b"30 90\r\n", b"", 4)
    assert copied is True
    assert os.readlink(f"{there}.link") == "there"
    casts = await house.proxy.finished(3, after=before)
    assert any("typed" in cast.text() for cast in casts)


async def test_forwards_port_for_libssh(stage: Stage) -> None:
    """To a server that speaks first: the target's own sshd."""
    house = await build(stage, options={"port_forwarding": True})
    through = _proxy_command(house)

    def talk() -> bytes:
        session = _session(house, "localhost", house.target.port, LOGIN, through)
        try:
            channel = session.channel_new()
            channel.open_forward("127.0.0.1", house.target.port, "127.0.0.1", 0)
            count, data = channel.read(8)
            channel.close()
            return bytes(data[:count])
        finally:
            session.disconnect()

    assert await in_thread(talk) == b"SSH-2.0-"
    (event,) = house.proxy.audit("port", action="open")
    assert event["destination"] == f"127.0.0.1:{house.target.port}"
