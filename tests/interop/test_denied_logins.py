"""Names that a stock sshd with passwords reads as a denied account: none of them reaches the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.test_relay_prompts import Person
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block, fact

SPELLINGS = (f"{LOGIN}/x", f"{LOGIN}/", f"{LOGIN}:x", LOGIN.upper(), f"{LOGIN}@x", f"X\\{LOGIN}", f"{LOGIN}.")
ROLE = {"logins": ["*", "*@*", "X\\*"], "deny": {"logins": [LOGIN]}}
SETTINGS = {
    "proxy_checks_host_keys": False,
    "targets": {"asks": {"hosts": ["localhost"], "upstream_auth": ["prompt"]}},
}


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    settings = SETTINGS | {"roles": {"ops": ROLE}}
    return block(build(shared_stage, settings=settings, sshd=["PasswordAuthentication yes"]))


@pytest.mark.parametrize("login", SPELLINGS)
async def test_rejects_spellings_of_denied_login(house: House, tmp_path: Path, login: str) -> None:
    result = await Person(tmp_path).ssh(
        house.client(AccessMethod.CERTIFICATE, login=login), "guess", command="true"
    )
    assert result.code == 255
    assert f"conchrec: joe may not log in as {login} on localhost" in result.errors.replace("\\\\", "\\")
    assert "password" not in house.target.log


async def test_rejects_spellings_of_locked_login(stage: Stage, tmp_path: Path) -> None:
    """Also where a deny would not hold: the lock names it in yet another way."""
    settings = SETTINGS | {"roles": {"ops": ROLE | {"deny": {}}}}
    house = await build(stage, settings=settings, sshd=["PasswordAuthentication yes"], start=False)
    (await house.proxy.command("ca", "export", "--type", "user")).check()
    (await house.proxy.command("lock", "--login", LOGIN.capitalize())).check()
    await house.proxy.start()
    house.authority = house.proxy.new_authority("host")
    for login in SPELLINGS:
        client = house.client(AccessMethod.CERTIFICATE, login=login)
        result = await Person(tmp_path).ssh(client, "guess", command="true")
        assert result.code == 255
        assert f"conchrec: joe may not log in as {login} on localhost" in result.errors.replace("\\\\", "\\")
    assert "password" not in house.target.log


async def test_confirms_that_stock_sshd_ignores_login_after_slash(house: House, tmp_path: Path) -> None:
    """Why it matters. Debian's sshd takes what follows for an SELinux role; others refuse the name."""
    person, client = Person(tmp_path), house.client(AccessMethod.CERTIFICATE, inner="    ProxyJump none\n")
    client.config.write_text(
        "Host web1\n    HostName 127.0.0.1\n"
        f"    UserKnownHostsFile {house.stage.file('known_as_itself', house.target.known_as())}\n"
        f"    Port {house.target.port}\n    User {LOGIN}/x\n    PubkeyAuthentication no\n"
    )
    result = await person.ssh(client, "guess", command="true")
    await fact(
        lambda: f"Failed password for {LOGIN} " in house.target.log or "Invalid user" in house.target.log,
        lambda: f"{house.target.log}\n{result}",
    )
