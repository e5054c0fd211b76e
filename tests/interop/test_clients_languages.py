"""Clients in other languages, at a target behind the proxy: golang.org/x/crypto/ssh, ssh2 for Node, Apache
MINA SSHD and libssh2. Each runs a command and a shell, copies a file both ways and forwards a port."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh2 import sftp
from ssh2.session import Session

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.process import environment, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, in_thread

#: How long libssh2 waits for anything.
MILLISECONDS = 60_000
BUILT = Path(__file__).resolve().parents[2] / ".clients"
CLIENTS: dict[str, tuple[str | Path, ...]] = {
    "go": (BUILT / "go", "talk"),
    "node": ("node", BUILT / "node" / "client.js"),
    "java": ("java", "-cp", f"{BUILT}/java/lib/*:{BUILT}/java", "Client"),
}


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    return block(build(shared_stage, options={"port_forwarding": True}))


def _check(report: dict[str, Any], name: str, *, size: str = "30 90") -> None:
    assert report["exec"] == {"out": "typed\nset\n", "err": "err\n", "status": 3}, name
    assert f"{size}\r\n" in report["pty"]["out"], report
    assert (report["pty"]["err"], report["pty"]["status"]) == ("", 4)
    assert report["copied"] is True
    assert report["greeting"] == "SSH-2.0-"


async def _check_record(house: House, before: frozenset[str], there: Path) -> None:
    """Three sessions, each with what ran in it."""
    casts = await house.proxy.finished(3, after=before)
    kinds = {str((cast.manifest or {})["kind"]): cast for cast in casts}
    assert set(kinds) == {"exec", "shell", "subsystem"}
    assert (kinds["exec"].manifest or {})["exit"] == {"status": 3}
    assert any(size in kinds["shell"].text() for size in ("30 90\r\n", "24 80\r\n"))
    files = (kinds["subsystem"].manifest or {})["files"]
    assert str(there) in json.dumps(files)
    assert "lost" not in json.dumps(files)


@pytest.mark.parametrize("name", CLIENTS)
async def test_serves_client_in_other_language(house: House, tmp_path: Path, name: str) -> None:
    before = house.proxy.sids()
    result = await run(
        *CLIENTS[name],
        f"{house.proxy.host}:{house.proxy.port}",
        "joe",
        house.keyless.key.path,
        f"localhost:{house.target.port}",
        LOGIN,
        tmp_path,
        f"127.0.0.1:{house.target.port}",
        env=environment(GODEBUG="", JAVA_TOOL_OPTIONS="-XX:TieredStopAtLevel=1"),
    )
    result.check()
    _check(json.loads(result.stdout), name)
    await _check_record(house, before, tmp_path / "there")


# -- libssh2, in this process; its socket is a pair with OpenSSH's way through the proxy at the other end


def _libssh2(house: House, config: Path, directory: Path) -> dict[str, Any]:
    method = ("ssh", "-F", str(config), "-W", f"localhost:{house.target.port}", "proxy")
    ours, theirs = socket.socketpair()
    tunnel = subprocess.Popen(method, stdin=theirs.fileno(), stdout=theirs.fileno(), env=environment())
    try:
        theirs.close()
        session = Session()
        session.set_timeout(MILLISECONDS)
        session.handshake(ours)
        session.userauth_publickey_fromfile(LOGIN, str(house.keyless.key.path))
        return {
            "exec": _libssh2_command(session),
            "pty": _libssh2_terminal(session),
            "copied": _libssh2_copy(session, f"{directory}/there"),
            "greeting": _libssh2_forward(session, house.target.port),
        }
    finally:
        tunnel.kill()
        tunnel.wait()
        ours.close()


def _libssh2_command(session: Any) -> dict[str, object]:
    channel = session.open_session()
    channel.setenv("LC_LIBSSH2", "set")
    channel.execute("cat; echo $LC_LIBSSH2; echo err >&2; exit 3")
    channel.write(b"typed\n")
    channel.send_eof()
    out, err = _read(channel.read), _read(channel.read_stderr)
    channel.close()
    channel.wait_closed()
    return {"out": out, "err": err, "status": channel.get_exit_status()}


def _libssh2_terminal(session: Any) -> dict[str, object]:
    channel = session.open_session()
    channel.pty("xterm")  # always of 80 × 24
    channel.shell()
    channel.write(b"stty size; exit 4\n")
    out = _read(channel.read)
    channel.close()
    channel.wait_closed()
    return {"out": out, "err": "", "status": channel.get_exit_status()}


def _libssh2_copy(session: Any, there: str) -> bool:
    files = session.sftp_init()
    contents = b"0123456789abcdef" * 65536
    flags = sftp.LIBSSH2_FXF_CREAT | sftp.LIBSSH2_FXF_WRITE | sftp.LIBSSH2_FXF_TRUNC
    with files.open(there, flags, 0o600) as file:
        file.write(contents)
    with files.open(there, sftp.LIBSSH2_FXF_READ, 0) as file:
        return b"".join(data for _, data in file) == contents


def _libssh2_forward(session: Any, port: int) -> str:
    channel = session.direct_tcpip_ex("127.0.0.1", port, "127.0.0.1", 0)
    greeting = channel.read(8)[1].decode()
    channel.close()
    return str(greeting)


def _read(read: Callable[[], tuple[int, bytes]]) -> str:
    data = b""
    while (piece := read())[0] > 0:
        data += piece[1]
    return data.decode()


async def test_serves_libssh2(house: House, tmp_path: Path) -> None:
    before = house.proxy.sids()
    config = house.client(AccessMethod.CERTIFICATE).config
    _check(await in_thread(lambda: _libssh2(house, config, tmp_path)), "libssh2", size="24 80")
    await _check_record(house, before, tmp_path / "there")
