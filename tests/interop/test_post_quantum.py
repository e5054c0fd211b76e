"""sntrup761x25519-sha512 on all three connections, with OpenSSH as client and as target, and PuTTY."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tests.support.client import AccessMethod, Client
from tests.support.house import House, build
from tests.support.otherclients import putty
from tests.support.process import Result, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, reactor, together

#: All versions since OpenSSH 9.0 have this name, and PuTTY since 0.78.
SNTRUP = "sntrup761x25519-sha512@openssh.com"
LOGINS = ("user.login", "upstream.connect")
ONLY = f"KexAlgorithms {SNTRUP}"
NEWEST = Path(__file__).resolve().parents[2] / ".clients" / "newest" / "bin"


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    """A target that knows nothing but sntrup761."""
    return block(
        build(
            shared_stage,
            settings={"proxy_checks_host_keys": False},
            sshd=[ONLY, "RekeyLimit 1M", "MaxStartups 100"],
        )
    )


def used_by(text: str) -> list[str]:
    """The key exchanges that ssh names with LogLevel DEBUG1: of the outer and the inner connection."""
    lines = text.replace("\r", "").splitlines()
    return [line.rpartition(" ")[2] for line in lines if "kex: algorithm: " in line]


async def test_uses_sntrup761_on_all_connections(house: House, method: AccessMethod) -> None:
    """The user's ssh and the target offer nothing else. The audit names it for each connection."""
    client = house.client(method, more=f"{ONLY}\nLogLevel DEBUG1")
    before = len(house.proxy.audit())
    result = await client.ssh("web1", "cat; exit 3", stdin=b"typed\n")
    assert (result.stdout, result.code) == (b"typed\n", 3), str(result)
    assert used_by(result.errors) == [SNTRUP, SNTRUP]
    events = [event for event in house.proxy.audit()[before:] if event["event"] in LOGINS]
    used = [(event["event"], event.get("stage"), cast(list[str], event["algorithms"])[0]) for event in events]
    assert sorted(used, key=str) == [
        ("upstream.connect", None, SNTRUP),
        ("user.login", "inner", SNTRUP),
        ("user.login", "outer", SNTRUP),
    ]


async def test_rekeys_during_transfer(house: House, tmp_path: Path) -> None:
    """The user's ssh asks for new keys after each megabyte, and so does the target."""
    contents, back = tmp_path / "contents", tmp_path / "back"
    contents.write_bytes(os.urandom(6_000_000))
    client = house.client(more=f"{ONLY}\nRekeyLimit 1M\nLogLevel DEBUG1")
    result = await client.ssh("web1", "cat", stdin=contents, stdout=back, within=180)
    assert result.code == 0, str(result)
    assert back.read_bytes() == contents.read_bytes()
    assert result.errors.count("SSH2_MSG_NEWKEYS received") > 8, "on both connections, and often"
    assert set(used_by(result.errors)) == {SNTRUP}


async def test_serves_many_logins_at_once(house: House) -> None:
    """More than there are key pairs ahead: the others wait for theirs, and none is refused."""
    clients = [house.client(more=ONLY) for _ in range(20)]
    results = await together(client.ssh("web1", "echo in") for client in clients)
    failed = [str(result) for result in results if (result.stdout, result.code) != (b"in\n", 0)]
    assert not failed, failed[0] + house.proxy.log[-4000:]


async def test_reaches_target_while_helper_is_killed(house: House) -> None:
    """Again and again: each login waits for the next helper, and sntrup761 is offered afterwards, too."""

    async def kill() -> None:
        for _ in range(4):
            helper = await house.proxy.key_exchange_helper()
            os.kill(helper, signal.SIGKILL)
            while await house.proxy.key_exchange_helper() == helper:
                await deferLater(cast(IReactorTime, reactor), 0.02)

    async def login() -> None:
        result = await house.client(more=ONLY).ssh("web1", "echo in")
        assert (result.stdout, result.code) == (b"in\n", 0), f"{result}\n{house.proxy.log[-4000:]}"

    await together([kill(), *(login() for _ in range(8))])
    await login()


async def run_newest(client: Client, *options: str) -> Result:
    env = client.env | {"PATH": f"{NEWEST}:{client.env['PATH']}"}
    return await run(NEWEST / "ssh", *client.options, *options, "web1", "echo in", env=env)


@pytest.mark.parametrize("name", [SNTRUP, SNTRUP.partition("@")[0]])
async def test_uses_both_names_with_newest_openssh(house: House, name: str) -> None:
    client = house.client(AccessMethod.INNER_AGENT, more=f"KexAlgorithms {name}\nLogLevel DEBUG1")
    result = await run_newest(client)
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)
    assert used_by(result.errors) == [name, name]


async def test_newest_openssh_does_not_warn_of_proxy(house: House) -> None:
    """OpenSSH 10.1 and later warn of a server that has no post-quantum key exchange, unless the user has
    set KexAlgorithms."""
    target = await house.stage.sshd(users=[house.joe.key], more=["KexAlgorithms curve25519-sha256"])
    client = house.client(AccessMethod.INNER_AGENT, more="LogLevel INFO", target=target)
    direct = await run_newest(client, "-J", "none", "-o", "StrictHostKeyChecking=no")
    assert (direct.stdout, direct.code) == (b"in\n", 0), str(direct)
    assert "not using a post-quantum key exchange" in direct.errors, str(direct)
    result = await run_newest(client)
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)
    assert "post-quantum" not in result.errors, str(result)


async def test_uses_sntrup761_with_putty(house: House, tmp_path: Path) -> None:
    """PuTTY prefers it."""
    options, env = await putty(house, tmp_path)
    result = await run("plink", "-v", *options, f"{LOGIN}@localhost", "echo in", env=env)
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)
    assert "Doing NTRU Prime / Curve25519 hybrid key exchange" in result.errors, str(result)
