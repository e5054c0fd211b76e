"""``require_mfa``: key and code, or a touched hardware key, with real clients, for all that they do."""

from __future__ import annotations

import base64
import time
from itertools import count
from pathlib import Path

import pytest

from conchrec.access.passwords import code_at, step_at
from tests.interop.test_relay_forwards import speak
from tests.support.client import AccessMethod, Client, Person
from tests.support.house import House, build
from tests.support.keyboard import Keyboard
from tests.support.ports import free_port
from tests.support.skagent import SkAgent
from tests.support.stage import Stage
from tests.support.wait import block, fact

SECRET = b"12345678901234567890"
TOTP = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
ANSWERING = "BatchMode no\nPreferredAuthentications publickey,keyboard-interactive\nNumberOfPasswordPrompts 1"
SOURCES = map("127.0.0.{}".format, count(2))


def code(steps: int = 0) -> str:
    return code_at(SECRET, step_at(time.time()) + steps)


async def settings(stage: Stage, mfa: str, sk: SkAgent | None = None) -> dict[str, object]:
    """joe has a code, ann has none, and kim has a hardware key."""
    users: dict[str, object] = {"joe": {"totp": TOTP}}
    if sk is not None:
        line = f"sk-ssh-ed25519@openssh.com {base64.b64encode(sk.blob).decode()}"
        users["kim"] = {"authorized_keys": [line], "roles": ["ops"]}
    return {"users": users, "roles": {"ops": {"options": {"require_mfa": mfa, "port_forwarding": True}}}}


@pytest.fixture(params=["login", "session"])
def mfa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def house(stage: Stage, mfa: str) -> House:
    return block(build(stage, settings=block(settings(stage, mfa))))


class PromptAnswers:
    """joe, with his key and an agent, and with these answers."""

    def __init__(self, house: House, *answers: str, more: str = "", **how: object) -> None:
        self.client: Client = house.client(
            AccessMethod.INNER_AGENT,
            more=f"{ANSWERING}\nBindAddress {next(SOURCES)}\n{more}",
            inner=ANSWERING,
            **how,  # type: ignore[arg-type]
        )
        self._keyboard = Keyboard(house.stage.path(house.stage.unique("keyboard")), *answers)
        self.client.env |= self._keyboard.env

    @property
    def prompts(self) -> list[str]:
        return self._keyboard.prompts


async def test_asks_for_code_after_key(house: House) -> None:
    """Asked once for each ssh; the code is no good a second time, nor is a wrong one."""
    good = code()
    joe = PromptAnswers(house, good)
    result = await joe.client.ssh("web1", "echo in")
    assert result.check().stdout == b"in\n", str(result)
    assert joe.prompts == ["(joe@127.0.0.1) Code: "]
    outer, inner = await house.proxy.audited("user.login", user="joe", count=2)
    assert (outer["method"], outer["second_factor"], outer["stage"]) == ("publickey", "totp", "outer")
    assert inner["stage"] == "inner"
    for bad in (good, "000000"):
        again = await PromptAnswers(house, bad).client.ssh("web1", "echo never")
        assert (again.code, again.stdout) == (255, b""), str(again)
    assert {"the code was already used", "wrong code"} <= {e["reason"] for e in house.proxy.audit("auth")}
    batch = await house.client(AccessMethod.INNER_AGENT).ssh("web1", "echo never")
    assert (batch.code, batch.stdout) == (255, b""), str(batch)


async def test_refuses_user_without_second_factor(house: House) -> None:
    result = await house.client(AccessMethod.CERTIFICATE, person=house.ann).ssh("web1", "echo never")
    assert (result.code, result.stdout) == (255, b"")
    assert "your roles require a second factor, and you have none" in result.errors, str(result)
    await house.proxy.audited("auth", user="ann", reason="a second factor is required, and the user has none")
    assert not house.proxy.audit("user.login", user="ann")


async def test_requires_code_for_copies_forwards_and_commands(house: House, tmp_path: Path) -> None:
    """Copies, forwards, and commands of the proxy."""
    (tmp_path / "one").write_text("1")
    port = free_port()
    plain = house.client(AccessMethod.INNER_AGENT)
    for arguments in (
        ("-N", "-L", f"{port}:127.0.0.1:{house.target.port}", "web1"),
        ("-W", f"127.0.0.1:{house.target.port}", "web1"),
        ("-s", "web1", "sftp"),
        ("proxy", "status"),
    ):
        result = await plain.ssh(*arguments)
        assert (result.code, result.stdout) == (255, b""), str(result)
    for protocol in ("-O", "-s"):
        await plain.program("scp", *plain.options, protocol, str(tmp_path / "one"), f"web1:{tmp_path}/two")
    assert not (tmp_path / "two").exists()
    assert not house.proxy.audit("session.start")
    assert not house.proxy.audit("upstream.connect")


async def test_forwards_port_after_code(house: House) -> None:
    port = free_port()
    joe = PromptAnswers(house, code())
    forward = joe.client.start("-v", "-N", "-L", f"{port}:127.0.0.1:{house.target.port}", "web1")
    await forward.says("Local forwarding listening on ")
    assert (await speak("tcp", "127.0.0.1", port)).stdout == b"SSH-\n"
    await forward.stop()


async def test_requires_code_for_each_connection_to_target(house: House, mfa: str) -> None:
    """With ControlMaster at the jump: for *session* each connection to a target needs a code of its own."""
    control = house.stage.short / "jump"
    config = f"Host proxy\nControlPath {control}"
    first = PromptAnswers(house, code(-1), more=f"{config}\nControlMaster yes")
    held = first.client.start("web1", "echo ready; cat", stdin=None)
    await held.says("ready")
    await fact(control.is_socket, lambda: str(held))
    second = PromptAnswers(house, code(), more=config)
    assert (await second.client.ssh("web1", "echo in")).check().stdout == b"in\n"
    logins = await house.proxy.audited("user.login", stage="inner", count=2)
    if mfa == "login":
        assert second.prompts == [] and "second_factor" not in logins[-1]
    else:
        assert [question.rpartition(") ")[2] for question in second.prompts] == ["Code: "]
        refused = await PromptAnswers(house, "000000", more=config).client.ssh("web1", "echo never")
        assert (refused.code, refused.stdout) == (255, b"")
        command = await PromptAnswers(house, more=config).client.ssh("proxy", "status")
        assert command.code == 1 and "each command requires its own second factor" in command.errors, str(
            command
        )
    await held.stop()


@pytest.mark.parametrize("touched", [True, False])
async def test_accepts_touched_hardware_key(stage: Stage, touched: bool) -> None:
    sk = SkAgent(stage, touched=touched)
    house = await build(stage, settings=await settings(stage, "session", sk))
    kim = Person(name="kim", key=house.joe.key, agent=house.joe.agent)
    client = house.client(AccessMethod.INNER_AGENT, person=kim)
    client.env["SSH_AUTH_SOCK"] = str(sk.socket)
    result = await client.ssh("web1", "echo in")
    if touched:
        assert result.check().stdout == b"in\n"
        (login,) = await house.proxy.audited("user.login", stage="outer")
        assert login["second_factor"] == "sk"
    else:
        assert (result.code, result.stdout) == (255, b""), str(result)
        assert not house.proxy.audit("user.login")


@pytest.mark.parametrize("known", [True, False])
async def test_requires_code_for_hardware_key_in_signed_certificate(stage: Stage, known: bool) -> None:
    """Software can call itself a hardware key: what the user alone vouches for (``sign``) proves no touch."""
    sk = SkAgent(stage)
    house = await build(stage, settings=await settings(stage, "session", sk if known else None))
    line = f"sk-ssh-ed25519@openssh.com {base64.b64encode(sk.blob).decode()} key\n".encode()
    person = Person(name="kim" if known else "joe", key=house.joe.key, agent=house.joe.agent)
    client = house.client(AccessMethod.INNER_AGENT, person=person)
    client.env["SSH_AUTH_SOCK"] = str(sk.socket)
    signing = client if known else PromptAnswers(house, code()).client
    signed = (await signing.ssh("proxy", "sign", stdin=line)).check()
    sk.keys[:] = [base64.b64decode(signed.text.split()[1])]
    result = await client.ssh("web1", "echo in")
    if known:
        logins = await house.proxy.audited("user.login", stage="outer", count=2)
        assert [login["second_factor"] for login in logins] == ["sk", "sk"] and "certificate" in logins[-1]
    else:
        assert (result.code, result.stdout) == (255, b""), str(result)
        (login,) = house.proxy.audit("user.login")
        assert login["second_factor"] == "totp"
