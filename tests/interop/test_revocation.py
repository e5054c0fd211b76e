"""Taking trust back: at once, for new logins and for sessions that are open."""

from __future__ import annotations

import base64
import math
import time
from pathlib import Path

import pytest

from conchrec.ssh.certificate import decode
from tests.support.client import AccessMethod, Client, Person
from tests.support.house import House, build
from tests.support.keys import Key
from tests.support.process import Process
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block

#: The longest time until a revoked user is disconnected, in seconds.
SOON = 5.0


@pytest.fixture
def house(stage: Stage) -> House:
    return block(build(stage))


async def signed(house: House, name: str, ttl: str = "1h") -> Key:
    """A key of joe's that only a certificate vouches for."""
    key = await house.stage.key(name)
    sign = ("ca", "sign-user", "--user", "joe", "--login", LOGIN, "--public-key", key.public, "--ttl", ttl)
    (await house.proxy.command(*sign)).check()
    return Key(path=key.path, certificate=Path(f"{key.path}-cert.pub"))


def serial_of(key: Key) -> int:
    assert key.certificate is not None
    return decode(base64.b64decode(key.certificate.read_text().split()[1])).serial


async def comes(client: Client) -> bool:
    result = await client.ssh("proxy", "status")
    assert result.code in (0, 255), str(result)
    return result.code == 0


async def begun(client: Client) -> Process:
    process = client.start("web1", "echo begun; cat")
    await process.says("begun")
    return process


async def revoke(house: House, *what: str | Path, undo: bool = False) -> str:
    command = ("ca", "revoke", *what, *(["--undo"] if undo else []))
    return (await house.proxy.command(*command)).check().text


async def test_disconnects_revoked_user_within_seconds(house: House) -> None:
    """However joe came in; ann works on."""
    by_certificate = house.client(
        AccessMethod.CERTIFICATE, person=Person(name="joe", key=await signed(house, "one"))
    )
    by_key = house.client(AccessMethod.CERTIFICATE)
    ann = house.client(AccessMethod.CERTIFICATE, person=house.ann)
    joes = [await begun(by_certificate), await begun(by_key)]
    hers = await begun(ann)
    await revoke(house, "--user", "joe")
    for process in joes:
        result = await process.wait(SOON)
        assert result.code == 255, str(result)
        assert "conchrec: the user joe has been revoked" in result.errors
    assert not await comes(by_certificate)
    assert not await comes(by_key)
    hers.write(b"still here\n")
    await hers.says("still here")
    hers.close_input()
    assert (await hers.wait()).code == 0
    assert await comes(ann)
    await revoke(house, "--user", "joe", undo=True)
    assert await comes(by_certificate)
    assert await comes(by_key)
    recorded = [
        (event["what"], event["name"], event.get("undo", False)) for event in house.proxy.audit("ca.revoke")
    ]
    assert recorded == [("user", "joe", False), ("user", "joe", True)]


@pytest.mark.parametrize("by", ["serial", "certificate", "key", "key-id"])
async def test_revokes_one_credential(house: House, by: str) -> None:
    """The others of the same user stay good, but where it is their key id that is revoked."""
    first, second = await signed(house, "first"), await signed(house, "second")
    gone = house.client(AccessMethod.CERTIFICATE, person=Person(name="joe", key=first))
    other = house.client(AccessMethod.CERTIFICATE, person=Person(name="joe", key=second))
    process = await begun(gone)
    assert first.certificate is not None
    credentials: dict[str, tuple[str, str | Path]] = {
        "serial": ("--serial", str(serial_of(first))),
        "certificate": ("--key", first.certificate),
        "key": ("--key", first.public),
        "key-id": ("--key-id", "joe"),
    }
    await revoke(house, *credentials[by])
    result = await process.wait(SOON)
    assert "has been revoked" in result.errors, str(result)
    assert not await comes(gone)
    assert await comes(other) is (by != "key-id")
    assert await comes(house.client(AccessMethod.CERTIFICATE)), "with a key that is no certificate"


async def test_revokes_plain_key(house: House) -> None:
    process = await begun(house.client(AccessMethod.CERTIFICATE))
    await revoke(house, "--key", house.keyless.key.public)
    assert "conchrec: your key has been revoked" in (await process.wait(SOON)).errors
    assert not await comes(house.client(AccessMethod.CERTIFICATE))


async def test_revokes_host_key_of_target(house: House) -> None:
    """The target's own key was stolen: nobody is led there any more."""
    (await house.client(AccessMethod.CERTIFICATE).ssh("web1", "true")).check()
    await revoke(house, "--key", house.target.host_keys[0].public)
    result = await house.client(AccessMethod.CERTIFICATE).ssh("web1", "true")
    assert result.code == 255
    assert "is revoked" in result.errors, str(result)


async def test_ends_session_when_certificate_expires(house: House) -> None:
    """Not the one at a target, not a bare connection; who came in by a key works on."""
    start = time.monotonic()
    stays = await begun(house.client(AccessMethod.CERTIFICATE))
    # Both connections are there in this time, however slow the machine is.
    ttl = math.ceil(3 + 4 * (time.monotonic() - start))
    client = house.client(
        AccessMethod.CERTIFICATE, person=Person(name="joe", key=await signed(house, "short", f"{ttl}s"))
    )
    process = await begun(client)
    bare = client.start("-v", "-N", "proxy")
    await bare.says("Authenticated to")
    for connection in (process, bare):
        result = await connection.wait(ttl + SOON)
        assert result.code == 255, str(result)
        assert "conchrec: your certificate has expired" in result.errors, str(result)
    assert not await comes(client)
    stays.close_input()
    assert (await stays.wait()).code == 0


async def test_keeps_revocations_after_restart(house: House) -> None:
    key = await signed(house, "one")
    await revoke(house, "--serial", str(serial_of(key)))
    await house.proxy.restart()
    assert not await comes(house.client(AccessMethod.CERTIFICATE, person=Person(name="joe", key=key)))


async def test_keeps_revocations_when_file_is_damaged(house: House) -> None:
    """The running proxy keeps to what it knew and says so; a new one does not start."""
    key = await signed(house, "one")
    gone = house.client(AccessMethod.CERTIFICATE, person=Person(name="joe", key=key))
    await revoke(house, "--serial", str(serial_of(key)))
    assert not await comes(gone)
    file = house.proxy.directory / "state" / "revocations.json"
    file.write_text(file.read_text()[:-9])
    process = house.proxy.process
    assert process is not None
    await process.says("revocations.json is damaged")
    assert not await comes(gone)
    assert await comes(house.client(AccessMethod.CERTIFICATE))
    await house.proxy.stop()
    result = await house.proxy.launch().wait()
    assert result.code == 78
    assert "revocations.json is damaged" in result.errors
