"""Other people's clients. They bring no agent: the target trusts our user CA."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.support import speak as speaker
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.otherclients import PATIENCE as SECONDS
from tests.support.otherclients import paramiko_connections, putty
from tests.support.ports import free_port
from tests.support.process import Result, environment, program, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, in_thread

# -- paramiko


def _paramiko_command(house: House, pty: bool) -> tuple[bytes, bytes, int]:
    outer, inner = paramiko_connections(house)
    try:
        session = inner.open_session(timeout=SECONDS)
        session.settimeout(SECONDS)
        if pty:
            session.get_pty("xterm", 90, 30)  # it waits for the answer, before it says what to run
        session.exec_command("stty size; cat; echo err >&2; exit 3" if pty else "cat; echo err >&2; exit 3")
        session.sendall(b"typed\n" if not pty else b"typed\n\x04")
        session.shutdown_write()
        out, err = session.makefile("rb").read(), session.makefile_stderr("rb").read()
        return out, err, session.recv_exit_status()
    finally:
        inner.close()
        outer.close()


async def test_serves_paramiko(house: House) -> None:
    before = house.proxy.sids()
    assert await in_thread(lambda: _paramiko_command(house, False)) == (b"typed\n", b"err\n", 3)
    out, err, code = await in_thread(lambda: _paramiko_command(house, True))
    # It types before there is a shell: the terminal's echo may come first.
    assert (b"30 90\r\n" in out, b"typed\r\n" in out, err, code) == (True, True, b"", 3)
    assert len(await house.proxy.finished(2, after=before)) == 2


def _paramiko_files(house: House, there: Path, contents: bytes) -> bytes:
    outer, inner = paramiko_connections(house)
    try:
        client = paramiko.SFTPClient.from_transport(inner)
        assert client is not None
        with client.open(str(there), "wb") as file:
            file.write(contents)
        client.symlink(there.name, f"{there}.link")
        with client.open(f"{there}.link", "rb") as file:
            return bytes(file.read())
    finally:
        inner.close()
        outer.close()


async def test_copies_files_by_paramiko(house: House, tmp_path: Path) -> None:
    contents = os.urandom(2_000_000)
    there = tmp_path / "there"
    assert await in_thread(lambda: _paramiko_files(house, there, contents)) == contents
    assert os.readlink(f"{there}.link") == "there"


# -- asyncssh


async def _asyncssh(
    house: House, known: str, there: Path, contents: bytes
) -> tuple[str, str, int | None, bytes]:
    hosts = asyncssh.import_known_hosts(known)
    common = {
        "client_keys": [str(house.keyless.key.path)],
        "known_hosts": hosts,
        "agent_path": None,
        "config": None,
    }
    async with (
        asyncssh.connect(house.proxy.host, house.proxy.port, username="joe", **common) as outer,
        asyncssh.connect("localhost", house.target.port, username=LOGIN, tunnel=outer, **common) as inner,
    ):
        result = await inner.run("cat; echo err >&2; exit 3", input="typed\n")
        sized = await inner.run("stty size", term_type="xterm", term_size=(90, 30))
        assert sized.stdout == "30 90\r\n"
        async with inner.start_sftp_client() as client:
            async with client.open(str(there), "wb") as file:
                await file.write(contents)
            await client.symlink(there.name, f"{there}.link")
            async with client.open(f"{there}.link", "rb") as file:
                back = await file.read()
        assert isinstance(back, bytes)
        return str(result.stdout), str(result.stderr), result.exit_status, back


async def test_serves_asyncssh(house: House, tmp_path: Path) -> None:
    """It checks host certificates, and chooses the order of a symlink's names by the server's banner."""
    contents = os.urandom(2_000_000)
    there = tmp_path / "there"
    before = house.proxy.sids()

    def talk() -> tuple[str, str, int | None, bytes]:
        return asyncio.run(asyncio.wait_for(_asyncssh(house, house.authority, there, contents), SECONDS))

    assert await in_thread(talk) == ("typed\n", "err\n", 3, contents)
    assert os.readlink(f"{there}.link") == "there"
    await house.proxy.finished(3, after=before)


# -- PuTTY


async def test_serves_plink(house: House, tmp_path: Path) -> None:
    options, env = await putty(house, tmp_path)
    before = house.proxy.sids()
    result = await run(
        *("plink", *options, f"{LOGIN}@localhost", "cat; echo err >&2; exit 3"), env=env, stdin=b"typed\n"
    )
    assert (result.stdout, result.code) == (b"typed\n", 3), str(result)
    assert result.errors.endswith("err\n")
    contents = os.urandom(1_000_000)
    for compression in ((), ("-C",)):
        command = ("plink", *options, *compression, f"{LOGIN}@localhost", "cat")
        large = await run(*command, env=env, stdin=contents)
        assert (large.stdout == contents, large.code) == (True, 0), large.errors
    await house.proxy.finished(3, after=before)


async def test_serves_psftp(house: House, tmp_path: Path) -> None:
    options, env = await putty(house, tmp_path)
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    here.write_bytes(os.urandom(1_000_000))
    batch = house.stage.file("psftp", f"put {here} {there}\nget {there} {back}\n")
    (await run("psftp", *options, "-b", batch, f"{LOGIN}@localhost", env=env)).check()
    assert here.read_bytes() == there.read_bytes() == back.read_bytes()


# -- dropbear


async def _dbclient(house: House, tmp_path: Path, command: str, stdin: bytes) -> Result:
    key = tmp_path / "joe.dropbear"
    if not key.exists():
        (await run("dropbearconvert", "openssh", "dropbear", house.keyless.key.path, key)).check()
    hops = f"joe@127.0.0.1^{house.proxy.port},{LOGIN}@localhost^{house.target.port}"
    return await run(
        *("dbclient", "-y", "-y", "-T", "-i", key, hops.replace("^", "/"), command),
        env=environment(HOME=str(tmp_path)),
        stdin=stdin,
    )


async def test_serves_dbclient(house: House, tmp_path: Path) -> None:
    before = house.proxy.sids()
    result = await _dbclient(house, tmp_path, "cat; exit 3", b"typed\n")
    assert (result.stdout, result.code) == (b"typed\n", 3), str(result)
    await house.proxy.finished(1, after=before)


# -- all of them at the proxy itself


@pytest.mark.parametrize("command", ["", "help", "status", "hosts"])
async def test_runs_proxy_commands_of_other_clients(house: House, command: str) -> None:
    client = house.client(AccessMethod.CERTIFICATE)
    result = (await client.ssh("-T", "proxy", *([command] if command else []))).check()
    assert result.stdout
    assert result.stderr == b"", result.errors
    unknown = await client.ssh("proxy", "frobnicate")
    assert (unknown.stdout, unknown.code) == (b"", 64)
    assert len(unknown.errors.splitlines()) == 1


# -- forwards: to the target's own sshd, which speaks first, and from the target back to the proxy


@pytest.fixture(scope="module")
def open_house(shared_stage: Stage) -> House:
    """Where the role lets users forward ports."""
    return block(build(shared_stage, options={"port_forwarding": True}))


async def _hears_ssh(port: int) -> bool:
    """Does an SSH server speak there?"""
    result = await run(sys.executable, Path(speaker.__file__), "tcp", "127.0.0.1", str(port))
    return result.stdout == b"SSH-\n"


def _paramiko_forwards(house: House) -> tuple[bytes, bytes]:
    outer, inner = paramiko_connections(house)
    try:
        where = ("127.0.0.1", house.target.port)
        there = inner.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=SECONDS)
        there.settimeout(SECONDS)
        banner = there.recv(8)
        there.close()
        # The other direction: a connection to that port of the target reaches us.
        port = inner.request_port_forward("127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port), SECONDS) as caller:
            back = inner.accept(SECONDS)
            assert back is not None
            caller.sendall(b"from there")
            back.settimeout(SECONDS)
            heard = back.recv(64)
            back.close()
        inner.cancel_port_forward("127.0.0.1", port)
        return banner, heard
    finally:
        inner.close()
        outer.close()


async def test_forwards_ports_for_paramiko(open_house: House) -> None:
    assert await in_thread(lambda: _paramiko_forwards(open_house)) == (b"SSH-2.0-", b"from there")
    await open_house.proxy.audited("port", action="open", user="joe", kind="direct")
    await open_house.proxy.audited("port", action="open", user="joe", kind="forwarded")


async def _asyncssh_forwards(house: House) -> tuple[bytes, bytes]:
    common = {
        "client_keys": [str(house.keyless.key.path)],
        "known_hosts": asyncssh.import_known_hosts(house.authority),
        "agent_path": None,
        "config": None,
    }
    async with (
        asyncssh.connect(house.proxy.host, house.proxy.port, username="joe", **common) as outer,
        asyncssh.connect("localhost", house.target.port, username=LOGIN, tunnel=outer, **common) as inner,
    ):
        answers = []
        local = await inner.forward_local_port("127.0.0.1", 0, "127.0.0.1", house.target.port)
        remote = await inner.forward_remote_port("127.0.0.1", 0, "127.0.0.1", house.proxy.port)
        for listener in (local, remote):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
            answers.append(await reader.readexactly(8))
            writer.close()
            listener.close()
            await listener.wait_closed()
        return answers[0], answers[1]


async def test_forwards_ports_for_asyncssh(open_house: House) -> None:
    def talk() -> tuple[bytes, bytes]:
        return asyncio.run(asyncio.wait_for(_asyncssh_forwards(open_house), SECONDS))

    assert await in_thread(talk) == (b"SSH-2.0-", b"SSH-2.0-")


@pytest.mark.parametrize("client", ["plink", "dbclient"])
async def test_forwards_ports_of_command_line_client(open_house: House, tmp_path: Path, client: str) -> None:
    house = open_house
    local, remote = free_port(), free_port()
    flags = (
        *("-L", f"{local}:127.0.0.1:{house.target.port}"),
        *("-R", f"{remote}:127.0.0.1:{house.proxy.port}"),
    )
    if client == "plink":
        options, env = await putty(house, tmp_path)
        command = ("plink", *options, *flags, f"{LOGIN}@localhost", "echo begun; cat")
    else:
        key = tmp_path / "joe.dropbear"
        (await run("dropbearconvert", "openssh", "dropbear", house.keyless.key.path, key)).check()
        hops = f"joe@127.0.0.1/{house.proxy.port},{LOGIN}@localhost/{house.target.port}"
        env = environment(HOME=str(tmp_path))
        command = ("dbclient", "-y", "-y", "-T", *flags, "-i", str(key), hops, "echo begun; cat")
    process = house.stage.process(*command, env=env, stdin=None)
    await process.says("begun")
    for port in (local, remote, local):
        assert await _hears_ssh(port), str(process)
    process.close_input()
    result = await process.wait()
    assert result.code == 0, str(result)


async def test_copies_files_by_dbclient(house: House, tmp_path: Path) -> None:
    """Stock scp with dbclient below it, in the old protocol and in the new."""
    key = tmp_path / "joe.dropbear"
    (await run("dropbearconvert", "openssh", "dropbear", house.keyless.key.path, key)).check()
    hop = f"joe@127.0.0.1/{house.proxy.port},{LOGIN}@localhost/{house.target.port}"
    # scp names a host of its own making; dbclient is to take the hops.
    wrapper = tmp_path / "below"
    wrapper.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do [ "$1" = -s ] && sub=-s; shift; done; shift; shift\n'
        f'exec {program("dbclient")} -y -y -T -i {key} $sub {hop} "$@"\n'
    )
    wrapper.chmod(0o700)
    here = tmp_path / "here"
    here.write_bytes(os.urandom(1_000_001))
    for number, protocol in enumerate((("-O",), ())):
        there, back = tmp_path / f"there{number}", tmp_path / f"back{number}"
        for pair in ((here, f"web1:{there}"), (f"web1:{there}", back)):
            scp = ("scp", "-F", "none", "-q", *protocol, "-S", wrapper, *pair)
            (await run(*scp, env=environment(HOME=str(tmp_path)))).check()
        assert here.read_bytes() == there.read_bytes() == back.read_bytes()


async def test_allows_paramiko_several_login_attempts(house: House) -> None:
    """It asks for ``ssh-userauth`` before each of them."""
    wrong = await house.stage.key("wrong")

    def connect() -> str:
        with paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            client.connect(
                house.proxy.host,
                house.proxy.port,
                "joe",
                key_filename=[str(wrong.path), str(house.keyless.key.path)],  # type: ignore[arg-type]
                allow_agent=False,
                look_for_keys=False,
            )
            _, out, _ = client.exec_command("status")
            return out.read().decode()

    assert "You are joe" in await in_thread(connect)
