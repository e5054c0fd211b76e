"""The user's agent at the target: which keys, in which order, and what it costs those who have none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.agent import Agent
from tests.support.client import AccessMethod, Person
from tests.support.house import House, build
from tests.support.keys import Key, sign_user
from tests.support.process import environment
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage
from tests.support.wait import block, fact, together

AGENT_WAYS = (AccessMethod.INNER_AGENT, AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM)


@pytest.fixture(scope="module")
def agents(shared_stage: Stage) -> House:
    """Nothing but agents log in at targets here."""
    return block(build(shared_stage, settings={"upstream_auth": ["agent"]}))


async def target_for(house: House, *keys: Key, more: Sequence[str] = ()) -> Sshd:
    """A target that knows these keys, and no user CA of ours; it has the host key of the other target."""
    return await house.stage.sshd(users=keys, host_keys=house.target.host_keys, more=more)


async def reach(house: House, target: Sshd, person: Person, method: AccessMethod) -> None:
    result = await house.client(method, target=target, person=person).ssh("web1", "echo there")
    assert (result.stdout, result.code) == (b"there\n", 0), f"{result}\n{target.log[-3000:]}"


@pytest.fixture(scope="module")
def anywhere(agents: House) -> House:
    """The proxy accepts any host key: the targets of these tests come and go."""
    agents.proxy.configure({"proxy_checks_host_keys": False})
    block(agents.proxy.restart())
    return agents


@pytest.mark.parametrize("method", AGENT_WAYS)
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
async def test_logs_in_with_each_key_type(anywhere: House, kind: str, method: AccessMethod) -> None:
    house = anywhere
    key = await house.stage.key("joe", kind)
    house.proxy.configure({"users": {"joe": {"authorized_keys": [house.joe.key.line, key.line]}}})
    await house.proxy.restart()
    person = Person(name="joe", key=key, agent=await house.stage.agent(key))
    await reach(house, await target_for(house, key), person, method)


@pytest.mark.parametrize("method", AGENT_WAYS)
async def test_tries_key_of_outer_login_first(anywhere: House, method: AccessMethod) -> None:
    """The key of the outer login is tried first: the target does not hang up before it has its turn."""
    others = [await anywhere.stage.key("other") for _ in range(7)]
    agent = await anywhere.stage.agent(*others, anywhere.joe.key)
    person = Person(name="joe", key=anywhere.joe.key, agent=agent)
    client = anywhere.client(method, person=person, target=await target_for(anywhere, anywhere.joe.key))
    # The client itself would offer all of them in turn: it is told which one it is, as users do.
    identity = f"IdentityFile {anywhere.joe.key.public}\nIdentitiesOnly yes\n"
    client.config.write_text(identity + client.config.read_text().replace("IdentityFile none", ""))
    result = await client.ssh("web1", "echo there")
    assert (result.stdout, result.code) == (b"there\n", 0), str(result)


@pytest.mark.parametrize("method", AGENT_WAYS)
async def test_logs_in_with_certificate_of_agent(anywhere: House, method: AccessMethod) -> None:
    """The target trusts a CA of its own; the agent holds a certificate of it beside the key."""
    authority, key = await anywhere.stage.key("authority"), await anywhere.stage.key("joe")
    signed = await sign_user(authority, key, "joe", LOGIN)
    anywhere.proxy.configure({"users": {"joe": {"authorized_keys": [anywhere.joe.key.line, key.line]}}})
    await anywhere.proxy.restart()
    person = Person(name="joe", key=signed, agent=await anywhere.stage.agent(signed))
    target = await target_for(anywhere, more=[f"TrustedUserCAKeys {authority.public}"])
    await reach(anywhere, target, person, method)


async def test_logs_in_with_key_restricted_to_outer_path(stage: Stage) -> None:
    """`ssh-add -h proxy -h 'proxy>target'`: good on the outer path, and for nothing else."""
    house = await build(stage, settings={"upstream_auth": ["agent"]})
    proxy, target = f"[127.0.0.1]:{house.proxy.port}", f"[localhost]:{house.target.port}"
    elsewhere = await stage.sshd(users=[house.joe.key])
    house.proxy.trust(elsewhere.known_as())
    await house.proxy.restart()
    known = stage.file("known", house.authority + house.target.known_as())
    agent = await stage.agent()
    await agent.add(house.joe.key, "-H", str(known), "-h", proxy, "-h", f"{proxy}>{target}")
    person = Person(name="joe", key=house.joe.key, agent=agent)
    for method in (AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM):
        inner = f"    IdentityFile {house.keyless.key.path}\n    IdentitiesOnly yes"
        client = house.client(method, person=person, inner=inner)
        result = await client.ssh("web1", "echo there")
        assert (result.stdout, result.code) == (b"there\n", 0), str(result)
        refused = await house.client(method, person=person, inner=inner, target=elsewhere).ssh("web1", "true")
        assert refused.code == 255, str(refused)


async def test_logs_in_with_key_restricted_to_inner_path(stage: Stage) -> None:
    """`ssh-add -h web1 -h 'web1>web1'` with `ssh -A`: the first hop is the target as the proxy shows it."""
    house = await build(stage, settings={"upstream_auth": ["agent"]})
    proxy, target = f"[127.0.0.1]:{house.proxy.port}", f"[localhost]:{house.target.port}"
    elsewhere = await stage.sshd(users=[house.joe.key])
    house.proxy.trust(elsewhere.known_as())
    await house.proxy.restart()
    known = stage.file("known", house.authority + house.target.known_as())
    agent = await stage.agent()
    hops = ("-h", proxy, "-h", target, "-h", f"{target}>{target}")
    await agent.add(house.joe.key, "-H", str(known), *hops)
    person = Person(name="joe", key=house.joe.key, agent=agent)
    result = await house.client(AccessMethod.INNER_AGENT, person=person).ssh("web1", "echo there")
    assert (result.stdout, result.code) == (b"there\n", 0), str(result)
    refused = await house.client(AccessMethod.INNER_AGENT, person=person, target=elsewhere).ssh(
        "web1", "true"
    )
    assert refused.code == 255, str(refused)


async def test_waits_for_confirmation_of_key(stage: Stage) -> None:
    """`ssh-add -c`: the login waits for its person, and nobody else does."""
    house = await build(stage, settings={"upstream_auth": ["agent"]})
    question, answer = stage.path("asked"), stage.path("answer")
    askpass = stage.file(
        "askpass", f"#!/bin/sh\necho x >> {question}\nwhile [ ! -e {answer} ]; do sleep 0.05; done\n"
    )
    askpass.chmod(0o700)
    socket = stage.short / stage.unique("agent")
    env = environment(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force", DISPLAY=":none")
    process = stage.process("ssh-agent", "-D", "-a", socket, env=env)
    await process.says("SSH_AUTH_SOCK")
    agent = Agent(socket=socket, process=process)
    await agent.add(house.joe.key, "-c")
    person = Person(name="joe", key=house.joe.key, agent=agent)
    # The logins at the proxy and at what looks like the target are by another key, and ask nobody.
    own = f"    IdentityFile {house.keyless.key.path}\n    IdentitiesOnly yes"
    more = f"IdentityFile {house.keyless.key.path}\nIdentitiesOnly yes"
    client = house.client(AccessMethod.OUTER_AGENT, person=person, more=more, inner=own)
    waiting = client.start("web1", "echo confirmed")
    await fact(question.exists, lambda: f"nobody was asked:\n{waiting}")
    others = [house.client(AccessMethod.OUTER_AGENT), house.client(AccessMethod.INNER_AGENT)]
    results = await together(client.ssh("web1", "echo at once") for client in others)
    assert [result.text for result in results] == ["at once\n"] * 2, str(results[0])
    assert waiting.is_running
    answer.touch()
    result = await waiting.wait()
    assert (result.stdout, result.code) == (b"confirmed\n", 0), str(result)
    assert question.read_text() == "x\n", "once, for one login"


async def test_probes_agent_last_when_configured(stage: Stage) -> None:
    """`agent_probe: last`, and the target takes our certificate: nobody reads of a break-in attempt."""
    house = await build(stage, settings={"upstream_auth": ["certificate", "agent"]})
    for method in (AccessMethod.OUTER_AGENT, AccessMethod.CERTIFICATE):
        result = (await house.client(method).ssh("web1", "true")).check()
        assert result.stderr == b"", str(result)
    assert not house.proxy.audit("agent", action="opened")


@pytest.mark.parametrize(("probe", "works"), [("last", True), ("always", True), ("never", False)])
async def test_requests_agent_only_when_needed(stage: Stage, probe: str, works: bool) -> None:
    house = await build(stage, settings={"upstream_auth": ["agent"], "agent_probe": probe})
    result = await house.client(AccessMethod.OUTER_AGENT).ssh("web1", "true")
    assert (result.code == 0) == works, str(result)
    assert bool(house.proxy.audit("agent", action="opened")) == works
    assert ("conchrec: no agent: " in result.errors) != works


async def test_reports_agent_that_dies(stage: Stage) -> None:
    house = await build(stage, settings={"upstream_auth": ["agent"]})
    client = house.client(AccessMethod.INNER_AGENT)
    process = client.start("web1", "echo begun; cat; exit 5")
    await process.says("begun")
    assert house.joe.agent is not None
    await house.joe.agent.stop()
    process.close_input()
    assert (await process.wait()).code == 5
