"""Users who log in, outside or inside, with a certificate that does not permit everything."""

from __future__ import annotations

from base64 import b64decode

import pytest

from conchrec.access.certificate_permits import SWITCHES_OF
from conchrec.ssh.certificate import decode
from tests.interop.test_login_certificate import log_in, only_certificate, somebody
from tests.interop.test_outer_certificates import authority
from tests.support.client import AccessMethod, Client, Person
from tests.support.house import House, build
from tests.support.keys import Key, sign_user
from tests.support.ports import free_port
from tests.support.proxy import Event
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import block

OPEN = {"port_forwarding": True, "x11_forwarding": True, "forward_agent": True}
SIDES = ("outer", "inner")
#: ssh-keygen's word for what a certificate is to lack.
WITHOUT = {permit: permit.replace("permit-", "no-").lower() for permit in SWITCHES_OF}


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    sshd = ["ExposeAuthInfo yes", "X11UseLocalhost yes"]
    # A second role of joe's gives nothing at all: what `login` signs is worked out from both.
    settings = {"roles": {"other": {"logins": ["nobody"], "hosts": ["nowhere"]}}}
    house = block(build(shared_stage, options=OPEN, settings=settings, sshd=sshd, start=False))
    users = {
        "joe": {"authorized_keys": [house.joe.key.line, house.keyless.key.line], "roles": ["ops", "other"]}
    }
    house.proxy.configure({"users": users})
    block(house.proxy.start())
    house.authority = house.proxy.new_authority("host")
    (house.proxy.directory / "user_ca.pub").write_text(house.proxy.new_authority("user"))
    return house


async def key_without(house: House, *permits: str) -> Key:
    """A key of joe's that is nothing without its certificate, which has all permits but these."""
    options = [word for permit in permits for word in ("-O", WITHOUT[permit])]
    return await sign_user(authority(house), await house.stage.key("joe"), "joe", "joe", *options)


def by(house: House, side: str, key: Key, method: AccessMethod = AccessMethod.CERTIFICATE) -> Client:
    """joe, who logs in on this side with the certificate and on the other one with a plain key."""
    certified, plain = Person(name="joe", key=key), Person(name="joe", key=house.keyless.key)
    outer, inner = (certified, plain) if side == "outer" else (plain, certified)
    return house.client(method, person=outer, inner_person=inner, more="IdentitiesOnly yes")


async def signed_for_one_connection(client: Client) -> set[str]:
    """The extensions of the certificate that the target saw."""
    result = (await client.ssh("web1", 'cat "$SSH_USER_AUTH"')).check()
    method, _, blob = result.text.split()[:3]
    assert method == "publickey"
    return set(decode(b64decode(blob)).extensions)


@pytest.mark.parametrize("side", SIDES)
async def test_refuses_terminal_without_permit_pty(house: House, side: str) -> None:
    client = by(house, side, await key_without(house, "permit-pty"))
    result = await client.ssh("-tt", "web1", "tty; true")
    # Who insists on a terminal gives up, as at a host.
    assert result.code == 255 and "PTY allocation request failed" in result.errors, str(result)
    assert (await client.ssh("web1", "tty; true")).text == "not a tty\n"
    await rejected(house, "permit-pty")


@pytest.mark.parametrize("side", SIDES)
async def test_refuses_forwards_without_permit_port_forwarding(house: House, side: str) -> None:
    client = by(house, side, await key_without(house, "permit-port-forwarding"))
    address = f"127.0.0.1:{house.target.port}"
    jumped = await client.ssh("-W", address, "web1")
    assert jumped.code != 0 and "your certificate has no permit-port-forwarding" in jumped.errors, str(jumped)
    for listening in ("0:127.0.0.1:1", f"{house.stage.short}/never:127.0.0.1:1"):
        result = await client.ssh("-o", "ExitOnForwardFailure=yes", "-N", "-R", listening, "web1")
        assert result.code == 255 and "forwarding failed" in result.errors, str(result)
    events = house.proxy.audit("port", action="refused")
    assert {event["rule"] for event in events[-3:]} == {"certificate: no permit-port-forwarding"}
    assert (await client.ssh("web1", "echo ready")).check().text == "ready\n"


@pytest.mark.parametrize("side", SIDES)
async def test_refuses_x11_without_permit_x11_forwarding(house: House, side: str) -> None:
    client = by(house, side, await key_without(house, "permit-X11-forwarding"))
    client.env |= {"DISPLAY": ":77"}
    result = await client.ssh("-X", "web1", 'echo "<$DISPLAY>"')
    assert result.text == "<>\n", str(result)
    (*_, event) = house.proxy.audit("x11-forward", action="refused")
    assert event["rule"] == "certificate: no permit-X11-forwarding"


@pytest.mark.parametrize("side", SIDES)
async def test_uses_agent_for_login_only_without_permit_agent_forwarding(house: House, side: str) -> None:
    client = by(house, side, await key_without(house, "permit-agent-forwarding"))
    assert house.joe.agent is not None
    client.env |= {"SSH_AUTH_SOCK": str(house.joe.agent.socket)}
    result = await client.ssh("-A", "web1", 'echo "<$SSH_AUTH_SOCK>"; cat "$SSH_USER_AUTH"')
    assert result.text.startswith("<>\n"), str(result)
    assert house.joe.key.line.split()[1] in result.text, "the target was logged in to with the agent's key"


@pytest.mark.parametrize("permit", SWITCHES_OF)
async def test_omits_missing_permits_from_connection_certificate(house: House, permit: str) -> None:
    client = by(house, "outer", await key_without(house, permit))
    assert await signed_for_one_connection(client) == SWITCHES_OF.keys() - {permit}


async def test_grants_all_permits_of_certificate(house: House) -> None:
    client = by(house, "outer", await key_without(house))
    assert await signed_for_one_connection(client) == set(SWITCHES_OF)
    assert "not a tty" not in (await client.ssh("-tt", "web1", "tty")).check().text


async def test_refuses_terminal_of_proxy_commands_without_permit_pty(house: House) -> None:
    result = await by(house, "outer", await key_without(house, "permit-pty")).ssh("-tt", "proxy", "status")
    assert "PTY allocation request failed" in result.errors and result.code == 255, str(result)
    assert (await rejected(house, "permit-pty"))["target"] == "", "it was asked of the proxy"


async def test_leaves_permits_of_login_certificate_to_roles(house: House) -> None:
    """It permits little, for targets that know no roles; its owner may do what the roles allow."""
    joe = await somebody(house)
    client = await log_in(house, joe)
    line = await only_certificate(joe)
    assert "permit-port-forwarding" not in decode(b64decode(line.split()[1])).extensions
    port = free_port()
    process = client.start("-v", "-N", "-R", f"{port}:127.0.0.1:1", "web1")
    await process.says("remote forward success")
    await process.stop()
    assert "not a tty" not in (await client.ssh("-tt", "web1", "tty")).check().text
    assert LOGIN in (await client.ssh("proxy", "status")).check().text


async def rejected(house: House, permit: str) -> Event:
    (*_, event) = await house.proxy.audited("session.rejected", rule=f"certificate: no {permit}")
    reason = str(event["reason"])
    assert "your certificate " in reason and permit in reason, reason
    return event
