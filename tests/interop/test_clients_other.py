"""Other people's clients. They bring no agent: the target trusts our user CA."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.support.client import Way
from tests.support.house import House
from tests.support.process import Result, environment, run
from tests.support.sshd import LOGIN
from tests.support.waiting import in_thread

SECONDS = 60.0


# -- paramiko


def _paramiko(house: House) -> tuple[paramiko.Transport, paramiko.Transport]:
    """The outer and the inner connection, both logged in."""
    key = paramiko.Ed25519Key.from_private_key_file(str(house.keyless.key.path))
    outer = paramiko.Transport((house.proxy.host, house.proxy.port))
    outer.connect(username="joe", pkey=key)
    tunnel = outer.open_channel(
        "direct-tcpip", ("localhost", house.target.port), ("127.0.0.1", 0), timeout=SECONDS
    )
    inner = paramiko.Transport(tunnel)
    inner.connect(username=LOGIN, pkey=key)
    return outer, inner


def _paramiko_command(house: House, pty: bool) -> tuple[bytes, bytes, int]:
    outer, inner = _paramiko(house)
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


async def test_paramiko(house: House) -> None:
    before = house.proxy.sids()
    assert await in_thread(lambda: _paramiko_command(house, False)) == (b"typed\n", b"err\n", 3)
    out, err, code = await in_thread(lambda: _paramiko_command(house, True))
    # It types before there is a shell: the terminal's echo may come first.
    assert (b"30 90\r\n" in out, b"typed\r\n" in out, err, code) == (True, True, b"", 3)
    assert len(await house.proxy.finished(2, after=before)) == 2


def _paramiko_files(house: House, there: Path, contents: bytes) -> bytes:
    outer, inner = _paramiko(house)
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


async def test_paramiko_files(house: House, tmp_path: Path) -> None:
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


async def test_asyncssh(house: House, tmp_path: Path) -> None:
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


async def _fingerprint(house: House) -> str:
    """Of the proxy's plain key, for PuTTY. Every target behind it shows the same one."""
    scanned = (
        await run("ssh-keyscan", "-t", "ed25519", "-p", str(house.proxy.port), house.proxy.host)
    ).check()
    listed = await run("ssh-keygen", "-l", "-f", house.stage.file("scanned", scanned.stdout))
    return listed.check().text.split()[1]


async def _putty(house: House, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """plink's or psftp's options for the target behind the proxy, and their environment."""
    key = tmp_path / "joe.ppk"
    command = (
        "puttygen",
        house.keyless.key.path,
        "-O",
        "private",
        "-o",
        key,
        "--new-passphrase",
        "/dev/null",
    )
    (await run(*command)).check()
    trusted = ["-hostkey", await _fingerprint(house)]
    common = ["-batch", "-noagent", "-i", str(key), *trusted]
    jump = ["plink", *common, "-P", str(house.proxy.port), "-nc", "%host:%port", "joe@127.0.0.1"]
    options = [*common, "-P", str(house.target.port), "-proxycmd", " ".join(jump)]
    # PuTTY goes to localhost by itself, unless told otherwise, and keeps its settings in HOME.
    settings = tmp_path / ".putty" / "sessions"
    settings.mkdir(parents=True)
    (settings / "Default%20Settings").write_text("ProxyLocalhost=1\n")
    return options, environment(HOME=str(tmp_path))


async def test_plink(house: House, tmp_path: Path) -> None:
    options, env = await _putty(house, tmp_path)
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


async def test_psftp(house: House, tmp_path: Path) -> None:
    options, env = await _putty(house, tmp_path)
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


async def test_dropbear(house: House, tmp_path: Path) -> None:
    before = house.proxy.sids()
    result = await _dbclient(house, tmp_path, "cat; exit 3", b"typed\n")
    assert (result.stdout, result.code) == (b"typed\n", 3), str(result)
    await house.proxy.finished(1, after=before)


# -- all of them at the proxy itself


@pytest.mark.parametrize("command", ["", "help", "status", "hosts"])
async def test_talking_to_the_proxy(house: House, command: str) -> None:
    client = house.client(Way.CERTIFICATE)
    result = (await client.ssh("-T", "proxy", *([command] if command else []))).check()
    assert result.stdout
    assert result.stderr == b"", result.errors
    unknown = await client.ssh("proxy", "frobnicate")
    assert (unknown.stdout, unknown.code) == (b"", 64)
    assert len(unknown.errors.splitlines()) == 1
