"""Both authorities get a new key, step by step, while users come and go."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults

from tests.support.client import AccessMethod, Client, Person
from tests.support.house import House, build
from tests.support.process import Result, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage
from tests.support.wait import fact

HOSTS = "localhost,127.0.0.1"


@dataclass(kw_only=True)
class Stream:
    """Sessions, one after another, until ``stop``; ``paused`` while the target's sshd is started again."""

    client: Client
    results: list[Result] = field(default_factory=list)
    paused: bool = False
    stopped: bool = False
    running: int = 0

    async def flow(self) -> None:
        while not self.stopped:
            await fact(lambda: not self.paused or self.stopped, lambda: "still paused")
            self.running += 1
            try:
                self.results.append(await self.client.ssh("web1", "echo there"))
            finally:
                self.running -= 1

    async def some(self) -> None:
        """Wait until some more have come and gone."""
        enough = len(self.results) + 3
        await fact(lambda: len(self.results) >= enough, lambda: f"only {self.results}")

    async def quiet(self) -> None:
        self.paused = True
        await fact(lambda: self.running == 0, lambda: "it does not become quiet")


async def rotate(house: House, kind: str, phase: str) -> str:
    command = ("ca", "rotate", "--type", kind, "--phase", phase)
    return (await house.proxy.command(*command)).check().text


async def certified(house: House, name: str) -> Client:
    """Joe with another key of his, which only a certificate of our user CA vouches for."""
    key = await house.stage.key(name)
    sign = ("ca", "sign-user", "--user", "joe", "--login", LOGIN, "--public-key", key.public)
    (await house.proxy.command(*sign)).check()
    return house.client(AccessMethod.CERTIFICATE, person=Person(name="joe", key=key))


async def sign_target(house: House) -> None:
    """The target's host key gets a certificate by the host CA that signs now; sshd reads it."""
    key = house.target.host_keys[0]
    certificate = Path(f"{key.path}-cert.pub")
    sign = ("ca", "sign-host", "--host", HOSTS, "--public-key", key.public, "--out", key.path, "--force")
    (await house.proxy.command(*sign)).check()
    config = house.target.directory / "sshd_config"
    if "HostCertificate" not in config.read_text():
        config.write_text(config.read_text() + f"HostCertificate {certificate}\n")
    before = house.target.log.count("Server listening on")
    house.target.process.kill(signal.SIGHUP)
    await fact(lambda: house.target.log.count("Server listening on") > before, lambda: house.target.log)


def put(path: Path, text: str) -> None:
    """At once: a client, or sshd, may be reading it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


async def test_accepts_all_users_during_rotation(stage: Stage) -> None:
    house = await build(stage)
    proxy = house.proxy
    await sign_target(house)
    proxy.known_hosts.write_text("")  # from here on only its certificate vouches for the target
    client = house.client(AccessMethod.CERTIFICATE)
    trusted_users = stage.path(f"{proxy.directory.name}/user_ca.pub")
    known_hosts = client.config.with_name("known_hosts")
    early = await certified(house, "early")
    assert (await early.ssh("web1", "echo early")).check().text == "early\n"
    open_all_the_time = client.start("web1", "echo begun; cat")
    await open_all_the_time.says("begun")
    stream = Stream(client=client)
    flowing = [Deferred.fromCoroutine(stream.flow()) for _ in range(2)]
    try:
        # The user CA: what each step says is done before the next.
        output = await rotate(house, "user", "init")
        assert "conchrec ca export --type user" in output
        put(trusted_users, await proxy.authority("user"))
        assert len(trusted_users.read_text().splitlines()) == 2
        await stream.some()
        await rotate(house, "user", "update")
        await stream.some()
        late = await certified(house, "late")
        for both in (early, late):
            assert (await both.ssh("web1", "echo both")).check().text == "both\n"
        await rotate(house, "user", "finish")
        await stream.some()
        put(trusted_users, await proxy.authority("user"))
        assert len(trusted_users.read_text().splitlines()) == 1
        await stream.some()
        assert (await late.ssh("web1", "echo late")).check().text == "late\n"
        refused = await early.ssh("web1", "echo early")
        assert (refused.stdout, refused.code) == (b"", 255), str(refused)

        # The host CA.
        await rotate(house, "host", "init")
        put(known_hosts, await proxy.authority("host"))
        await stream.some()
        await rotate(house, "host", "update")
        await stream.some()
        await stream.quiet()
        await sign_target(house)
        stream.paused = False
        await stream.some()
        await rotate(house, "host", "finish")
        put(known_hosts, await proxy.authority("host"))
        await stream.some()
    finally:
        stream.stopped = True
        await gatherResults(flowing)
    bad = [str(result) for result in stream.results if (result.stdout, result.code) != (b"there\n", 0)]
    assert bad == []
    open_all_the_time.write(b"still here\n")
    await open_all_the_time.says("still here")
    open_all_the_time.close_input()
    assert (await open_all_the_time.wait()).code == 0
    kinds = [(event["type"], event["phase"]) for event in proxy.audit("ca.rotate")]
    assert kinds == [(kind, phase) for kind in ("user", "host") for phase in ("init", "update", "finish")]


@pytest.mark.parametrize("kind", ["user", "host"])
async def test_rolls_rotation_back(stage: Stage, kind: str) -> None:
    """After ``update`` there may be certificates by the new key: they count until ``finish``."""
    house = await build(stage)
    before = (await house.proxy.authority(kind)).split()[-6:]
    await rotate(house, kind, "init")
    house.authority = await house.proxy.authority("host")
    await rotate(house, kind, "update")
    made = await certified(house, "made")
    (await made.ssh("proxy", "status")).check()
    await rotate(house, kind, "rollback")
    (await made.ssh("proxy", "status")).check()
    out_of_step = await house.proxy.command("ca", "rotate", "--type", kind, "--phase", "update")
    assert out_of_step.code == 1
    assert out_of_step.errors == (
        "conchrec: --phase update is not possible now: the phase is rollback; use --phase finish\n"
    )
    await rotate(house, kind, "finish")
    assert (await house.proxy.authority(kind)).split()[-6:] == before
    result = await made.ssh("proxy", "status")
    assert result.code == (255 if kind == "user" else 0), str(result)


async def test_exports_key_that_ssh_keygen_reads(stage: Stage) -> None:
    """ssh-keygen reads the new key, and its public half is what is exported."""
    house = await build(stage, start=False)
    await rotate(house, "user", "init")
    exported = (await house.proxy.authority("user")).splitlines()
    state = house.proxy.directory / "state"
    for name, line in zip(("user_ca", "user_ca-2"), exported, strict=True):
        shown = (await run("ssh-keygen", "-y", "-f", state / name)).check()
        assert shown.text.split()[:2] == line.split()[:2]
    await rotate(house, "user", "rollback")
    assert not (state / "user_ca-2").exists()
    assert (await house.proxy.authority("user")).splitlines() == exported[:1]
