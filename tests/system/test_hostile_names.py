"""Names that somebody else chose: no path, no terminal and no log line is made of them unescaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from tests.support.client import AccessMethod
from tests.support.house import House
from tests.support.raw import Attempt, offer_then_sign
from tests.support.wait import fact, in_thread

HOSTS = [
    "../../../../tmp/evil",
    "/etc/passwd",
    "a\nb",
    "a\x00b",
    "\x1b[31mred\x1b]0;title\x07",
    "x" * 300,
    "",
    ".",
    "-oProxyCommand=touch /tmp/evil",
    "\u202egnp.exe",
    "[::1",
    "localhost:22",
    "*",
]


def outer(house: House, use: Callable[[paramiko.Transport], str]) -> Callable[[], str]:
    """``use`` with a logged-in outer connection of joe's; for a thread."""

    def talk() -> str:
        key = paramiko.Ed25519Key.from_private_key_file(str(house.keyless.key.path))
        with paramiko.Transport((house.proxy.host, house.proxy.port)) as transport:
            transport.connect(username="joe", pkey=key)
            answer = use(transport)
            assert transport.is_active(), "nothing that happens in one stream disturbs the connection"
            return answer

    return talk


def _jump(host: str, port: int) -> Callable[[paramiko.Transport], str]:
    def use(transport: paramiko.Transport) -> str:
        try:
            transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 1), timeout=30)
        except paramiko.ChannelException as error:
            return str(error)
        return "opened"

    return use


def _subsystem(name: str) -> Callable[[paramiko.Transport], str]:
    def use(transport: paramiko.Transport) -> str:
        channel = transport.open_session(timeout=30)
        channel.settimeout(30)
        try:
            channel.invoke_subsystem(name)
        except paramiko.SSHException as error:
            return str(error)
        output = channel.makefile_stderr("rb").read() + channel.makefile("rb").read()
        return str(output.decode())

    return use


def clean(house: House) -> None:
    """No control character but the newline is in the audit or the log; nothing is outside its place."""
    raw = house.proxy.audit_file.read_bytes()
    assert not [byte for byte in raw if byte < 32 and byte != 10]
    text = raw.decode()
    assert not {"\u202e", "\x7f", "\x85", "\u2028"} & set(text)
    log = house.proxy.log
    assert not [letter for letter in log if ord(letter) < 32 and letter not in "\n\t"]
    assert "Traceback" not in log, log[-5000:]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
async def test_escapes_host_names(house: House, host: str) -> None:
    answer = await in_thread(outer(house, _jump(host, 22)))
    assert answer != "opened"
    assert not [letter for letter in answer if ord(letter) < 32]
    clean(house)


@pytest.mark.parametrize("port", [0, 65536, 2**32 - 1])
async def test_escapes_ports(house: House, port: int) -> None:
    assert await in_thread(outer(house, _jump("localhost", port))) != "opened"
    clean(house)


@pytest.mark.parametrize(
    "name",
    [
        "proxy:",
        "proxy",
        "sftp",
        "proxy:localhost:",
        "proxy:localhost:99999",
        "proxy::22",
        "proxy:a\nb:22",
        "x" * 5000,
        "",
    ],
)
async def test_escapes_subsystem_names(house: House, name: str) -> None:
    answer = await in_thread(outer(house, _subsystem(name)))
    assert "SSH-2.0" not in answer
    clean(house)


async def test_refuses_other_cluster_by_name(house: House) -> None:
    answer = await in_thread(
        outer(house, _subsystem(f"proxy:localhost:{house.target.port}@other.example.com"))
    )
    assert "other.example.com" in answer and "example.com" in answer, answer


@pytest.mark.parametrize("suffix", ["", "@example.com"])
async def test_accepts_name_of_own_cluster(house: House, suffix: str) -> None:
    def use(transport: paramiko.Transport) -> str:
        channel = transport.open_session(timeout=30)
        channel.settimeout(30)
        channel.invoke_subsystem(f"proxy:localhost:{house.target.port}{suffix}")
        return channel.recv(8).decode()

    assert await in_thread(outer(house, use)) == "SSH-2.0-"


@pytest.mark.parametrize(
    "user", ["joe\x1b[31m", "joe\nroot", "joe\x00", "\u202eeoj", "x" * 3000, ""], ids=ascii
)
async def test_escapes_user_names(house: House, user: str) -> None:
    key = str(house.keyless.key.path)
    attempt: Attempt = await in_thread(lambda: offer_then_sign(house.proxy.port, user, key, key))
    assert not attempt.authenticated and not attempt.channel
    clean(house)


async def test_escapes_commands(house: House) -> None:
    before = house.proxy.sids()
    command = "printf ok; : '\x1b]0;title\x07\u202e\x85'; : ../../x"
    result = await house.client(AccessMethod.CERTIFICATE).ssh("web1", command)
    assert (result.stdout, result.code) == (b"ok", 0), str(result)
    recording = await house.proxy.finished_one(after=before)
    assert recording.header["command"] == command
    assert recording.path.name == f"{recording.sid}.cast"
    (event,) = await house.proxy.audited("exec", sid=recording.sid)
    assert event["command"] == command
    clean(house)


async def test_escapes_logins(house: House) -> None:
    client = house.client(AccessMethod.CERTIFICATE, login="../../root")
    result = await client.ssh("web1", "true")
    assert result.code == 255
    await fact(lambda: house.proxy.audit("session.rejected"), "it is audited")
    clean(house)
