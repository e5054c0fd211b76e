"""The keys of the authorities in a real ssh-agent, and behind a passphrase."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.agent import Agent, start_agent
from tests.support.client import AccessMethod
from tests.support.house import House, build
from tests.support.keys import Key
from tests.support.process import run
from tests.support.stage import Stage
from tests.support.wait import fact, together


async def in_agent(stage: Stage, kinds: dict[str, str]) -> tuple[House, Agent, list[Key]]:
    """A proxy that runs on keys which only an agent holds; ``kinds`` are theirs."""
    house = await build(stage, start=False)
    keys = [await stage.key(name, kind) for name, kind in kinds.items()]
    agent = await stage.agent(*keys)
    state = house.proxy.directory / "state"
    state.mkdir(mode=0o700)
    for name, key in zip(kinds, keys, strict=True):
        (state / f"{name}.pub").write_text(key.line + "\n")
    house.proxy.configure({"ca_agent": str(agent.socket)})
    await house.proxy.start()
    house.authority = await house.proxy.authority("host")
    stage.path(f"{house.proxy.directory.name}/user_ca.pub").write_text(await house.proxy.authority("user"))
    return house, agent, keys


async def test_signs_by_authority_keys_in_agent(stage: Stage) -> None:
    """Users see certificates by the one, targets by the other; sessions at once do not mix them up."""
    house, agent, keys = await in_agent(stage, {"user_ca": "ed25519", "host_ca": "ecdsa"})
    client = house.client(AccessMethod.CERTIFICATE)
    results = await together(client.ssh("web1", f"echo {number}") for number in range(8))
    assert [result.text for result in results] == [f"{number}\n" for number in range(8)], str(results[0])
    state = house.proxy.directory / "state"
    assert not (state / "user_ca").exists() and not (state / "host_ca").exists()

    # The agent loses them: nobody is let in by guesswork, and the user reads why.
    await agent.forget()
    refused = await client.ssh("web1", "true")
    assert refused.code == 255
    assert "does not sign with the key of the authority" in refused.errors, str(refused)
    # It has them again: nothing needs to be started again.
    for key in keys:
        await agent.add(key)
    assert (await client.ssh("web1", "echo again")).check().text == "again\n"


async def test_signs_after_restart_of_agent(stage: Stage) -> None:
    house, agent, keys = await in_agent(stage, {"user_ca": "rsa", "host_ca": "ed25519"})
    client = house.client(AccessMethod.CERTIFICATE)
    (await client.ssh("web1", "true")).check()
    await agent.stop()
    gone = await client.ssh("web1", "true")
    assert gone.code == 255
    assert "cannot reach the agent" in gone.errors, str(gone)
    Path(agent.socket).unlink(missing_ok=True)
    stage.at_end((await start_agent(agent.socket, *keys)).stop)
    (await client.ssh("web1", "true")).check()


async def test_asks_for_passphrase_of_authority_keys_at_start(stage: Stage) -> None:
    """At the terminal that the proxy is started from; a wrong one is said, and nothing listens."""
    house = await build(stage)
    proxy = house.proxy
    await proxy.stop()
    state = proxy.directory / "state"
    for name in ("user_ca", "host_ca"):
        (await run("ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", state / name)).check()
    command = (Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "conchrec", "-c", proxy.config)

    alone = await proxy.launch().wait()
    assert alone.code == 78
    assert "user_ca has a passphrase, but there is no terminal to ask for it" in alone.errors

    for passphrase, good in (("wrong", False), ("open sesame", True)):
        process = stage.process(*command, env=proxy.env, terminal=(24, 200))
        await process.says("passphrase of ")
        process.write(passphrase.encode() + b"\n")
        if good:
            await process.says("listens on")
            assert b"sesame" not in process.stdout
            assert process.stdout.count(b"passphrase of") == 1, "both have the same one"
            (await house.client(AccessMethod.CERTIFICATE).ssh("web1", "true")).check()
            await process.stop()
        else:
            assert (await process.wait()).code == 78
            assert b"wrong passphrase of" in process.stdout


async def test_reads_passphrase_from_systemd_credential(stage: Stage) -> None:
    house = await build(stage)
    proxy = house.proxy
    await proxy.stop()
    state = proxy.directory / "state"
    for name in ("user_ca", "host_ca"):
        (await run("ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", state / name)).check()
    credential = stage.file("credentials/conchrec-ca", "open sesame\n")
    proxy.env["CREDENTIALS_DIRECTORY"] = str(credential.parent)
    await proxy.start()
    (await house.client(AccessMethod.CERTIFICATE).ssh("web1", "true")).check()
    await fact(lambda: "listens on" in proxy.log, lambda: proxy.log)
    # The commands find it there, too, and a new key has the same passphrase.
    (await proxy.command("ca", "rotate", "--type", "user", "--phase", "init")).check()
    hidden = await run("ssh-keygen", "-y", "-P", "", "-f", state / "user_ca-2")
    assert "incorrect passphrase" in hidden.errors
