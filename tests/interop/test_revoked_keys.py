"""A real sshd with `RevokedKeys` as `conchrec ca krl` writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.house import House, build
from tests.support.keys import Key
from tests.support.process import run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block


@pytest.fixture
def house(stage: Stage) -> House:
    """Its target trusts the user CA, and asks the list before anything else."""
    krl = stage.path("krl")
    krl.write_bytes(b"")
    return block(build(stage, sshd=[f"RevokedKeys {krl}"]))


async def signed(house: House, user: str, name: str) -> Key:
    key = await house.stage.key(name)
    sign = ("ca", "sign-user", "--user", user, "--login", LOGIN, "--public-key", key.public)
    (await house.proxy.command(*sign)).check()
    return Key(path=key.path, certificate=Path(f"{key.path}-cert.pub"))


async def gets_in(house: House, key: Key) -> bool:
    """Straight at the target, without the proxy."""
    known = house.stage.file("known_hosts", house.target.known_as())
    options = (f"UserKnownHostsFile={known}", "BatchMode=yes", "IdentitiesOnly=yes")
    words = [word for option in options for word in ("-o", option)]
    where = ("-p", str(house.target.port), f"{LOGIN}@127.0.0.1")
    result = await run("ssh", "-F", "none", *words, "-i", key.path, *where, "true")
    assert result.code in (0, 255), str(result)
    return result.code == 0


async def test_writes_krl_that_sshd_follows(house: House) -> None:
    first, second, anns = [
        await signed(house, user, name)
        for user, name in (("joe", "first"), ("joe", "second"), ("ann", "anns"))
    ]
    krl = house.stage.path("krl")

    async def listed(*what: str | Path) -> list[bool]:
        (await house.proxy.command("ca", "revoke", *what)).check()
        (await house.proxy.command("ca", "krl", "--out", krl)).check()
        return [await gets_in(house, key) for key in (first, second, anns)]

    (await house.proxy.command("ca", "krl", "--out", krl)).check()
    assert [await gets_in(house, key) for key in (first, second, anns)] == [True, True, True]
    assert first.certificate is not None
    assert await listed("--key", first.certificate) == [False, True, True]
    assert await listed("--user", "ann") == [False, True, False]
    assert await listed("--key", house.joe.key.public) == [False, True, False]
    assert not await gets_in(house, house.joe.key), "a plain key that is in authorized_keys there"
    assert await listed("--key-id", "joe") == [False, False, False]
    assert await listed("--user", "ann", "--undo") == [False, False, True]
