"""Names that lead elsewhere between judgement and dialling: the proxy's own /etc/hosts changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.test_approval import ANSWERING, pending, says
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.keyboard import Keyboard
from tests.support.process import run
from tests.support.proxy import our_environment
from tests.support.stage import Stage


async def house_with_hosts(stage: Stage, **roles: object) -> tuple[House, Path]:
    """``moving`` is a name that is what the file says, which the proxy, and it alone, has as /etc/hosts."""
    unshared = await run("unshare", "--mount", "true")
    if unshared.code != 0:
        pytest.skip(f"unshare --mount does not work here, as in a chroot: {unshared.errors.strip()}")
    hosts = stage.file("hosts", "127.0.0.1 localhost moving\n")
    house = await build(stage, settings={"roles": roles}, start=False)
    house.proxy.wrapper = (
        "unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh",
    )  # fmt: skip
    house.proxy.env = our_environment()
    known = house.target.known_as().split(" ", 1)[1]
    house.proxy.trust(f"[moving]:{house.target.port} {known}")
    await house.proxy.start()
    house.authority = await house.proxy.authority("host")
    return house, hosts


async def test_dials_address_that_was_approved(stage: Stage) -> None:
    """While somebody waits for approval, the name moves to a place that nobody allowed."""
    house, hosts = await house_with_hosts(
        stage,
        ops={"hosts": ["127.0.0.1"], "options": {"approval": ["lead"]}},
        lead={"logins": ["nobody"], "hosts": ["nowhere"]},
    )
    users = {"ann": {"roles": ["lead"]}}
    house.proxy.configure({"users": users})
    await house.proxy.restart()
    client = house.client(AccessMethod.INNER_AGENT, host="moving", inner=ANSWERING)
    client.env |= Keyboard(stage.path("keyboard"), "because").env
    process = client.start("web1", "echo in")
    name = await pending(house, process)
    hosts.write_text("127.0.0.66 moving\n127.0.0.1 localhost\n")
    (await says(house, "approve", name)).check()
    assert (await process.wait()).check().stdout == b"in\n"
    (connect,) = await house.proxy.audited("upstream.connect")
    assert connect["address"] == "127.0.0.1"
    elsewhere = await house.client(AccessMethod.INNER_AGENT, host="moving").ssh("web1", "echo never")
    assert elsewhere.code == 255 and "joe may not reach moving" in elsewhere.errors, str(elsewhere)


async def test_refuses_name_when_it_resolves_to_denied_block(stage: Stage) -> None:
    house, hosts = await house_with_hosts(
        stage, ops={"hosts": ["moving"], "deny": {"hosts": ["127.0.0.64/28"]}}
    )
    client = house.client(AccessMethod.INNER_AGENT, host="moving")
    assert (await client.ssh("web1", "echo in")).check().stdout == b"in\n"
    for addresses in (["127.0.0.66"], ["127.0.0.1", "127.0.0.66"]):
        hosts.write_text("".join(f"{address} moving\n" for address in addresses) + "127.0.0.1 localhost\n")
        denied = await client.ssh("web1", "echo never")
        assert denied.code == 255 and "role ops denies it" in denied.errors, str(denied)
    hosts.write_text("127.0.0.1 localhost moving\n")
    assert (await client.ssh("web1", "echo in")).check().stdout == b"in\n"
