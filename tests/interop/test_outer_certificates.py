"""Users who come with a certificate of our user CA, and those whose certificate is not good enough."""

from __future__ import annotations

import pytest

from tests.support.client import AccessMethod, Person
from tests.support.house import House, build
from tests.support.keys import Key, sign_host, sign_user
from tests.support.process import Result
from tests.support.stage import Stage
from tests.support.wait import block


@pytest.fixture(scope="module")
def certified(shared_stage: Stage) -> House:
    """joe has no key in the configuration."""
    house = block(build(shared_stage))
    house.proxy.configure({"users": {"joe": {"authorized_keys": []}}})
    block(house.proxy.restart())
    return house


def authority(house: House) -> Key:
    """The user CA itself: what an attacker who had it could do is not the question here."""
    return Key(path=house.proxy.directory / "state" / "user_ca")


async def come(
    house: House, key: Key, user: str = "joe", method: AccessMethod = AccessMethod.CERTIFICATE
) -> Result:
    """Outside and inside with this key and its certificate."""
    client = house.client(method, person=Person(name=user, key=key))
    assert key.certificate is not None
    words = f"CertificateFile {key.certificate}\n"
    client.config.write_text(words + client.config.read_text())
    return await client.ssh("web1", "echo in")


async def test_accepts_user_certificate(certified: House) -> None:
    key = await sign_user(authority(certified), await certified.stage.key("joe"), "joe", "joe", "-V", "+1h")
    result = await come(certified, key)
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)
    (*_, event) = certified.proxy.audit("user.login", user="joe", stage="outer")
    assert event["certificate"]


async def test_accepts_certificate_by_sign_user(certified: House) -> None:
    """`conchrec ca sign-user` signs such a one for a key of the user's."""
    key = await certified.stage.key("joe")
    command = (
        "ca",
        "sign-user",
        "--user",
        "joe",
        "--login",
        "joe",
        "--public-key",
        key.public,
        "--ttl",
        "1h",
    )
    (await certified.proxy.command(*command)).check()
    signed = Key(path=key.path, certificate=key.path.with_name(key.path.name + "-cert.pub"))
    result = await come(certified, signed)
    assert (result.stdout, result.code) == (b"in\n", 0), str(result)


async def test_rejects_key_without_its_certificate(certified: House) -> None:
    """Without its certificate it is nobody's."""
    person = Person(name="joe", key=await certified.stage.key("joe"))
    result = await certified.client(AccessMethod.CERTIFICATE, person=person).ssh("web1", "true")
    assert result.code == 255, str(result)


@pytest.mark.parametrize(
    ("key_id", "principals", "options"),
    [
        ("ann", "joe", ()),
        ("joe2", "joe", ()),
        ("", "joe", ()),
        ("joe,ann", "joe", ()),
        ("nobody", "nobody", ()),
        ("joe", "joe", ("-V", "20200101:20200102")),
        ("joe", "joe", ("-V", "20400101:20400102")),
        ("joe", "joe", ("-O", "critical:unknown@example.com=x")),
        ("joe", "joe", ("-O", "source-address=192.0.2.0/24")),
        ("joe", "joe", ("-O", "force-command= ")),
    ],
)
async def test_rejects_unacceptable_certificate(
    certified: House, key_id: str, principals: str, options: tuple[str, ...]
) -> None:
    before = certified.proxy.sids()
    key = await certified.stage.key("joe")
    result = await come(certified, await sign_user(authority(certified), key, key_id, principals, *options))
    assert (result.stdout, result.code) == (b"", 255), str(result)
    assert "Permission denied" in result.errors, str(result)
    assert certified.proxy.sids() == before
    await certified.proxy.audited("auth", stage="outer", user="joe")


async def test_rejects_host_certificate_of_user(certified: House) -> None:
    key = await sign_host(authority(certified), await certified.stage.key("joe"), "joe")
    result = await come(certified, key)
    assert (result.stdout, result.code) == (b"", 255), str(result)


async def test_rejects_certificate_by_host_ca(certified: House) -> None:
    other = Key(path=certified.proxy.directory / "state" / "host_ca")
    result = await come(certified, await sign_user(other, await certified.stage.key("joe"), "joe", "joe"))
    assert (result.stdout, result.code) == (b"", 255), str(result)


async def test_rejects_certificate_by_unknown_ca(certified: House) -> None:
    other = await certified.stage.key("authority")
    result = await come(certified, await sign_user(other, await certified.stage.key("joe"), "joe", "joe"))
    assert (result.stdout, result.code) == (b"", 255), str(result)


async def test_rejects_certificate_of_other_user(certified: House) -> None:
    """joe's certificate, and the name of ann."""
    key = await sign_user(authority(certified), await certified.stage.key("joe"), "joe", "joe,ann")
    result = await come(certified, key, user="ann")
    assert (result.stdout, result.code) == (b"", 255), str(result)


async def test_runs_forced_command_of_certificate(certified: House) -> None:
    """It runs at the target whatever is asked for, is what is recorded, and is all that the proxy does."""
    bound = ("-O", "force-command=echo forced; cat")
    key = await sign_user(authority(certified), await certified.stage.key("bound"), "joe", "joe", *bound)
    client = certified.client(AccessMethod.CERTIFICATE, person=Person(name="joe", key=key))
    for arguments in (("echo mine",), (), ("-tt", "id"), ("-s", "sftp")):
        before = certified.proxy.sids()
        flags = [word for word in arguments if word.startswith("-")]
        rest = [word for word in arguments if not word.startswith("-")]
        result = await client.ssh(*flags, "web1", *rest, stdin=b"given\n\x04")
        assert result.text.replace("\r", "").startswith("forced\n") or "given" in result.text, str(result)
        assert "forced" in result.text and "given" in result.text
        assert "mine" not in result.text and "uid=" not in result.text
        cast = await certified.proxy.finished_one(after=before)
        assert cast.manifest is not None
        assert (cast.manifest["kind"], cast.manifest["command"]) == ("exec", "echo forced; cat")
    events = certified.proxy.audit("exec", command="echo forced; cat")
    asked_for = [event["forced_upon"] for event in events]
    assert asked_for == ["exec echo mine", "shell", "exec id", "subsystem sftp"]
    here = await client.ssh("proxy", "status")
    assert here.code == 64, str(here)
    assert "unknown command 'echo'" in here.errors
