"""Who must not come in, and what they are told; each refusal is in the audit."""

from __future__ import annotations

from tests.support.client import AccessMethod, Person
from tests.support.house import House, build
from tests.support.raw import Attempt, offer_only, offer_then_sign
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import in_thread


def only(line: str, errors: str) -> None:
    """The user reads this line, once, and no noise of the kind that sends people to a search engine."""
    assert errors.count(line) == 1, errors
    assert "Traceback" not in errors and "internal error" not in errors, errors


async def test_rejects_unknown_user(house: House, method: AccessMethod) -> None:
    person = house.joe if method.agent else house.keyless
    mallory = Person(name="mallory", key=person.key, agent=person.agent)
    before = house.proxy.sids()
    result = await house.client(method, person=mallory).ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255)
    assert "mallory@127.0.0.1: Permission denied (publickey" in result.errors
    refusals = await house.proxy.audited("auth", user="mallory", stage="outer")
    assert refusals[-1]["code"] == "CR1001W"
    assert house.proxy.sids() == before


async def test_rejects_unknown_key(house: House, method: AccessMethod) -> None:
    key = await house.stage.key("stranger")
    agent = await house.stage.agent(key) if method.agent else None
    result = await house.client(method, person=Person(name="joe", key=key, agent=agent)).ssh(
        "web1", "echo never"
    )
    assert (result.stdout, result.code) == (b"", 255)
    assert "joe@127.0.0.1: Permission denied (publickey" in result.errors
    await house.proxy.audited("auth", user="joe", stage="outer")


async def test_rejects_user_without_key_and_agent(house: House) -> None:
    result = await house.client(AccessMethod.CERTIFICATE).ssh(
        "-o", "PreferredAuthentications=password", "web1", "true"
    )
    assert result.code == 255


async def test_opens_no_channel_for_key_without_signature(house: House) -> None:
    """The query is answered, and that is all: no channel opens, nothing is a login."""
    logins = len(house.proxy.audit("user.login"))
    path = str(house.keyless.key.path)
    attempt: Attempt = await in_thread(lambda: offer_only(house.proxy.port, "joe", path))
    assert attempt == Attempt(acceptable=True, authenticated=False, channel=False)
    assert len(house.proxy.audit("user.login")) == logins


async def test_rejects_signature_by_other_key_than_offered(house: House) -> None:
    """joe's key is offered, mallory's signs: the state of an offer is not kept."""
    mallory = await house.stage.key("mallory")
    logins = len(house.proxy.audit("user.login"))
    attempt = await in_thread(
        lambda: offer_then_sign(house.proxy.port, "joe", str(house.keyless.key.path), str(mallory.path))
    )
    assert attempt == Attempt(acceptable=True, authenticated=False, channel=False)
    assert len(house.proxy.audit("user.login")) == logins


async def test_refuses_other_user_on_inner_connection(house: House) -> None:
    """joe outside, ann inside: ann may use the proxy herself, and not joe's connection."""
    (await house.client(AccessMethod.CERTIFICATE, person=house.ann).ssh("web1", "true")).check()
    before = house.proxy.sids()
    result = await house.client(AccessMethod.CERTIFICATE, inner_person=house.ann).ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    assert f"{LOGIN}@localhost: Permission denied (publickey" in result.errors
    await house.proxy.audited("auth", stage="inner", user="joe")
    assert house.proxy.sids() == before


async def test_refuses_login_outside_role(house: House, method: AccessMethod) -> None:
    result = await house.client(method, login="daemon").ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255)
    only(
        f"conchrec: joe may not log in as daemon on localhost:{house.target.port} (role ops allows: {LOGIN})",
        result.errors,
    )
    await house.proxy.audited("session.rejected", user="joe", login="daemon")


async def test_prints_reason_to_quiet_client(house: House) -> None:
    """LogLevel ERROR hides banners: the reason is still there."""
    result = await house.client(login="daemon").ssh("-q", "web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255)
    assert "may not log in as daemon" in result.errors


async def test_refuses_host_outside_role(house: House, method: AccessMethod) -> None:
    result = await house.client(method, host="192.0.2.1").ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255)
    assert "conchrec: joe may not" in result.errors and "192.0.2.1" in result.errors, result.errors
    (event, *_) = await house.proxy.audited(
        "session.rejected", user="joe", target=f"192.0.2.1:{house.target.port}"
    )
    assert event["reason"]


async def test_explains_agent_key_unknown_to_target(stage: Stage) -> None:
    """And no user CA there either: the user is told what to do about it."""
    house = await build(stage, settings={"upstream_auth": ["agent"]})
    other = await stage.agent(house.keyless.key)
    person = Person(name="joe", key=house.keyless.key, agent=other)
    for method in (AccessMethod.INNER_AGENT, AccessMethod.OUTER_AGENT, AccessMethod.SUBSYSTEM):
        before = house.proxy.sids()
        result = await house.client(method, person=person).ssh("web1", "echo never")
        assert (result.stdout, result.code) == (b"", 255), str(result)
        only(f"rejected the login as {LOGIN} with the key that your agent offered", result.errors)
        assert "TrustedUserCAKeys" in result.errors or "authorized_keys" in result.errors
        for recording in [path for path in house.proxy.casts() if path.stem not in before]:
            assert b"never" not in recording.read_bytes()
    assert len(await house.proxy.audited("upstream.failed", user="joe", count=3)) == 3


async def test_explains_missing_agent_and_user_ca(stage: Stage) -> None:
    house = await build(stage, settings={"upstream_auth": ["agent", "certificate"]})
    bare = await stage.sshd(users=[house.joe.key])
    house.proxy.trust(bare.known_as())
    await house.proxy.restart()
    result = await house.client(AccessMethod.CERTIFICATE, target=bare).ssh("web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    only(
        'conchrec: no agent: connect with ssh -A, or set "ForwardAgent yes" for Host proxy; or ',
        result.errors,
    )
    assert "conchrec ca export --type user" in result.errors
    (event,) = await house.proxy.audited("upstream.failed", user="joe")
    assert event["target"] == f"localhost:{bare.port}"


async def test_explains_empty_agent(stage: Stage) -> None:
    house = await build(stage, settings={"upstream_auth": ["agent"]})
    empty = await stage.agent()
    client = house.client(AccessMethod.CERTIFICATE)
    client.env["SSH_AUTH_SOCK"] = str(empty.socket)
    result = await client.ssh("-A", "web1", "echo never")
    assert (result.stdout, result.code) == (b"", 255), str(result)
    only("conchrec: your agent holds no usable key", result.errors)


async def test_keeps_no_state_of_refused_users(house: House) -> None:
    """After all that, joe works as before."""
    result = await house.client().ssh("web1", "echo fine")
    assert (result.stdout, result.code) == (b"fine\n", 0), str(result)
