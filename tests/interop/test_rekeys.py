"""Clients of other people, whose connections get new keys while data passes.

Each client is a command. It prints the output of the command ``down`` at the target, and then that of the
command ``up``, which gets a file. What it logs tells how often its connections got new keys.
``CONCHREC_TESTS_MIB`` is the size of the file (docs/testing.md).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.otherclients import putty
from tests.support.process import Result, environment, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, together

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / ".clients"
MIB = 1 << 20
#: Of the file. Once the proxy offered other ciphers after 16 MiB, and libssh2 could not continue.
SIZE = int(os.environ.get("CONCHREC_TESTS_MIB", "17")) * MIB
#: After so many bytes there are new keys, at least three times. Some clients count each direction.
REKEY = SIZE // 5 // MIB * MIB
#: The file of the clients that run at once, with pauses of a second.
PAUSED = SIZE // 4
SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a client does: ``rekey`` is after how many bytes it renews its keys, 0 for never."""

    house: House
    directory: Path
    file: Path
    down: str
    up: str
    rekey: int = 0

    @property
    def output(self) -> Path:
        """The file for the standard output of the client."""
        return self.directory / "output"


Start = Callable[[Transfer], Awaitable[Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherClient:
    """How to run a client, and what it logs about each key exchange of its outer and its inner connection.

    An empty text: it logs nothing. ``logs_first``: the first exchange is logged as later ones. ``renews``: it
    can renew its keys by itself.
    """

    start: Start
    outer: str = "^outer: new keys"
    inner: str = "^inner: new keys"
    renews: bool = True
    logs_first: bool = True


def program(*command: str | Path) -> Start:
    """A program of tests/clients, or tests/support/transfer.py."""

    async def start(transfer: Transfer) -> Result:
        house = transfer.house
        return await run(
            *command,
            *(f"{house.proxy.host}:{house.proxy.port}", "joe", str(house.keyless.key.path)),
            *(f"localhost:{house.target.port}", LOGIN),
            *(str(transfer.file), transfer.down, transfer.up, str(transfer.rekey)),
            env=environment(GODEBUG="", JAVA_TOOL_OPTIONS="-XX:TieredStopAtLevel=1"),
            stdout=transfer.output,
            within=SECONDS,
        )

    return start


def python(library: str) -> Start:
    """A library for Python."""
    return program(sys.executable, ROOT / "tests" / "support" / "transfer.py", library)


def openssh(directory: str) -> Start:
    """OpenSSH, which gets the file and sends it at the same time."""

    async def start(transfer: Transfer) -> Result:
        limit = f"RekeyLimit {transfer.rekey}" if transfer.rekey else ""
        client = transfer.house.client(AccessMethod.CERTIFICATE, more=limit)
        log = transfer.directory / "inner"
        result = await run(
            *(f"{directory}/ssh", *client.options, "-v", "-E", str(log)),
            *("web1", f"{transfer.down}; {transfer.up}"),
            env=client.env | {"PATH": f"{directory}:{client.env['PATH']}"},
            stdin=transfer.file,
            stdout=transfer.output,
            within=SECONDS,
        )
        return replace(result, stderr=result.stderr + log.read_bytes().replace(b"debug1: ", b"inner: "))

    return start


def plink(directory: str) -> Start:
    """PuTTY. One of its programs is the proxy command of the other."""

    async def start(transfer: Transfer) -> Result:
        options, env = await putty(transfer.house, transfer.directory)
        options = [option.replace("plink ", f"{directory}/plink -v ") for option in options]
        if transfer.rekey:
            settings = transfer.directory / ".putty" / "sessions" / "Default%20Settings"
            settings.write_text(f"{settings.read_text()}RekeyBytes={transfer.rekey}\n")
        return await _twice((f"{directory}/plink", "-v", *options, f"{LOGIN}@localhost"), env, transfer)

    return start


async def dbclient(transfer: Transfer) -> Result:
    """Dropbear."""
    house, key = transfer.house, transfer.directory / "joe.dropbear"
    (await run("dropbearconvert", "openssh", "dropbear", house.keyless.key.path, key)).check()
    hops = f"joe@{house.proxy.host}/{house.proxy.port},{LOGIN}@localhost/{house.target.port}"
    env = environment(HOME=str(transfer.directory))
    return await _twice(("dbclient", "-y", "-y", "-T", "-i", str(key), hops), env, transfer)


async def _twice(command: tuple[str, ...], env: dict[str, str], transfer: Transfer) -> Result:
    """Get the file, and send it in another connection.

    Two plinks, one of which runs on the other, block each other if both directions are full while they renew
    keys: the inner one waits until the outer one reads its input, and that one until its output is read.
    """
    parts = transfer.directory / "part1", transfer.directory / "part2"
    down = await run(*command, transfer.down, env=env, stdout=parts[0], within=SECONDS)
    up = await run(*command, transfer.up, env=env, stdin=transfer.file, stdout=parts[1], within=SECONDS)
    transfer.output.write_bytes(b"".join(part.read_bytes() for part in parts))
    return replace(up, stderr=down.stderr + up.stderr, code=down.code or up.code)


NEWEST = str(BUILT / "newest" / "bin")
JAVA = ("java", "-cp", f"{BUILT}/java/lib/*:{BUILT}/java")
OPENSSH = OtherClient(
    start=openssh("/usr/bin"),
    outer="^debug1: SSH2_MSG_NEWKEYS received",
    inner="^inner: SSH2_MSG_NEWKEYS received",
)
PUTTY = OtherClient(
    start=plink("/usr/bin"),
    outer="^proxy: (Remote side initiated|Initiating) key re-exchange",
    inner="^(Remote side initiated|Initiating) key re-exchange",
    logs_first=False,
)
CLIENTS = {
    "openssh": OPENSSH,
    "openssh-newest": replace(OPENSSH, start=openssh(NEWEST)),
    "putty": PUTTY,
    "putty-newest": replace(PUTTY, start=plink(NEWEST)),
    "dropbear": OtherClient(start=dbclient, outer="", inner="", renews=False),
    "libssh": replace(OPENSSH, start=python("libssh"), outer="", inner="ssh_packet_newkeys: +Received"),
    "libssh2": replace(OPENSSH, start=python("libssh2"), inner="", renews=False),
    "paramiko": OtherClient(
        start=python("paramiko"), outer="^outer Switch to new keys", inner="^inner Switch to new keys"
    ),
    "asyncssh": OtherClient(
        start=python("asyncssh"),
        outer=r"^asyncssh \[conn=0\] Completed key exchange",
        inner=r"^asyncssh \[conn=1\] Completed key exchange",
    ),
    "x-crypto-ssh": OtherClient(start=program(BUILT / "go", "transfer")),
    "node-ssh2": OtherClient(start=program("node", BUILT / "node" / "transfer.js"), renews=False),
    "mina-sshd": OtherClient(start=program(*JAVA, "Transfer")),
    "jsch": OtherClient(start=program(*JAVA, "Jsch"), renews=False),
    "russh": OtherClient(start=program(BUILT / "russh")),
}


async def _transfer(name: str, transfer: Transfer, *, least: int, most: int | None = None) -> None:
    """Run a client, and check what it got, what it sent, and how often it got new keys."""
    client = CLIENTS[name]
    result = await client.start(transfer)
    assert result.code == 0, f"{name}: {result}"
    contents, output = transfer.file.read_bytes(), transfer.output.read_bytes()
    assert output[: len(contents)] == contents, f"{name}: got something else"
    received = output[len(contents) :].split()[0].decode()
    assert received == hashlib.sha256(contents).hexdigest(), f"{name}: the target got something else"
    for pattern in filter(None, (client.outer, client.inner)):
        rekeys = len(re.findall(pattern, result.errors, re.MULTILINE)) - client.logs_first
        assert rekeys >= least, f"{name}: {rekeys} times new keys: {pattern}"
        assert most is None or rekeys <= most, f"{name}: {rekeys} times new keys: {pattern}"


def _file(directory: Path, size: int) -> Path:
    file = directory / "contents"
    file.write_bytes(os.urandom(size))
    return file


@pytest.fixture(scope="module")
def volume(shared_stage: Stage) -> House:
    """The proxy renews keys after some bytes."""
    return block(build(shared_stage, settings={"limits": {"rekey_bytes": f"{REKEY // MIB}MiB"}}))


def _built(name: str) -> None:
    if name == "russh" and not (BUILT / "russh").exists():
        pytest.skip("tests/clients/build found no Rust that is new enough for russh")


@pytest.mark.parametrize("name", CLIENTS)
async def test_proxy_renews_keys_after_volume(volume: House, tmp_path: Path, name: str) -> None:
    _built(name)
    file = _file(tmp_path, SIZE)
    transfer = Transfer(house=volume, directory=tmp_path, file=file, down=f"cat {file}", up="sha256sum")
    await _transfer(name, transfer, least=3)


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.renews])
async def test_client_renews_keys_after_volume(house: House, tmp_path: Path, name: str) -> None:
    _built(name)
    # A part of the file is enough, but Apache MINA renews its keys much later than it is told.
    size, rekey = (SIZE, REKEY) if name == "mina-sshd" else (PAUSED, max(MIB, REKEY // 4))
    file = _file(tmp_path, size)
    transfer = Transfer(
        house=house, directory=tmp_path, file=file, down=f"cat {file}", up="sha256sum", rekey=rekey
    )
    await _transfer(name, transfer, least=3)


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if not client.renews])
async def test_keeps_keys_below_default_limit(house: House, tmp_path: Path, name: str) -> None:
    """Neither the client, which cannot, nor the proxy."""
    file = _file(tmp_path, SIZE)
    transfer = Transfer(house=house, directory=tmp_path, file=file, down=f"cat {file}", up="sha256sum")
    await _transfer(name, transfer, least=0, most=0)


@pytest.mark.parametrize(
    "names", [[name for name in CLIENTS if name != "libssh2"], ["libssh2"]], ids=["others", "libssh2"]
)
async def test_proxy_renews_keys_after_time(shared_stage: Stage, tmp_path: Path, names: list[str]) -> None:
    """All clients at once, and libssh2 alone. Both directions pause in the middle of the file.

    On a slow machine an exchange takes so long that the next pause is over before a second has passed.
    """
    house = await build(shared_stage, settings={"limits": {"rekey_time": "1s"}})
    file = _file(tmp_path, PAUSED)
    pauses = f"for part in 1 2 3 4 5; do head -c {PAUSED // 6}; sleep 1.1; done; cat"
    down, up = f"({pauses}) <{file}", f"({pauses}) | sha256sum"
    async def transfer(name: str) -> None:
        directory = tmp_path / name
        directory.mkdir()
        await _transfer(
            name, Transfer(house=house, directory=directory, file=file, down=down, up=up), least=2
        )

    await together(transfer(name) for name in names if name != "russh" or (BUILT / "russh").exists())
