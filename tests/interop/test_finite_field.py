"""Finite-field Diffie-Hellman, which the proxy computes in a helper process, on all three connections."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import block, fact, together

GROUP14, GROUP16 = "diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512"


@pytest.fixture(scope="module")
def groups(shared_stage: Stage) -> House:
    """A target that knows nothing but group16, and a proxy that takes old clients."""
    house = build(
        shared_stage,
        settings={"algorithms": "compatible"},
        sshd=[f"KexAlgorithms {GROUP16}", "RekeyLimit 1M", "MaxStartups 100"],
    )
    return block(house)


@pytest.mark.parametrize("exchange", [GROUP14, GROUP16])
async def test_rekeys_during_transfer(groups: House, exchange: str, tmp_path: Path) -> None:
    """The user's ssh asks for new keys after each megabyte, and so does the target."""
    contents, back = tmp_path / "contents", tmp_path / "back"
    contents.write_bytes(os.urandom(4_000_000))
    client = groups.client(more=f"KexAlgorithms {exchange}\nRekeyLimit 1M\nLogLevel DEBUG1")
    result = await client.ssh("web1", "cat", stdin=contents, stdout=back, within=180)
    assert result.code == 0, str(result)
    assert back.read_bytes() == contents.read_bytes()
    assert result.errors.count("SSH2_MSG_NEWKEYS received") > 8, "on both connections, and often"
    assert f"kex: algorithm: {exchange}" in result.errors


async def test_serves_many_logins_at_once(groups: House) -> None:
    """Sixty exchanges from one address: they wait for each other, and none is refused."""
    clients = [
        groups.client(method, more=f"KexAlgorithms {GROUP16}") for method in list(AccessMethod)[:4] * 5
    ]
    results = await together(client.ssh("web1", "echo in") for client in clients)
    failed = [str(result) for result in results if (result.stdout, result.code) != (b"in\n", 0)]
    assert not failed, failed[0] + groups.proxy.log[-4000:]


async def test_repeats_exchange_when_helper_is_killed(groups: House) -> None:
    """The exchange is computed again by the next helper, and the next logins work."""
    helper = await groups.proxy.key_exchange_helper()
    os.kill(helper, signal.SIGSTOP)
    process = groups.client(more=f"KexAlgorithms {GROUP16}\nLogLevel DEBUG1").start("web1", "echo in")
    await process.says("expecting SSH2_MSG_KEX")
    os.kill(helper, signal.SIGKILL)
    result = await process.wait()
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)
    await fact(lambda: "the helper process for key exchanges ended" in groups.proxy.log, "it is not logged")
    assert await groups.proxy.key_exchange_helper() != helper
    (await groups.client(more=f"KexAlgorithms {GROUP16}").ssh("web1", "true")).check()
