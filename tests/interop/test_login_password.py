"""Users who have a password, with stock clients and the proxy as a process: all the way to a target."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from datetime import datetime
from itertools import count as counting
from pathlib import Path
from typing import cast

import pytest

from conchrec.access.passwords import code_at, new_hash, step_at
from conchrec.access.rate_limit import DELAYS, FREE_OF_USER
from tests.support.client import AccessMethod, Client, Person
from tests.support.house import House, build
from tests.support.keyboard import Keyboard
from tests.support.process import Process, Result, environment, run
from tests.support.proxy import Event
from tests.support.stage import Stage
from tests.support.wait import block, fact
from tests.system.test_haproxy import BALANCER

PASSWORD = "corr€ct horse"
HASH = new_hash(PASSWORD, 10)
SECRET = b"12345678901234567890"
TOTP = "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ"
#: pat has a password, tom also a second factor, joe also a key; ann has a key only.
USERS = {
    "pat": {"password": HASH, "roles": ["ops"]},
    "tom": {"password": HASH, "totp": TOTP, "roles": ["ops"]},
    "joe": {"password": HASH},
}
ANSWERING = "BatchMode no\nPreferredAuthentications keyboard-interactive"
#: What one test gets wrong slows no other one down.
SOURCES = map("127.0.0.{}".format, counting(2))


@pytest.fixture(scope="module")
def home(shared_stage: Stage) -> House:
    return block(build(shared_stage, settings={"users": USERS}))


def code(steps: int = 0) -> str:
    return code_at(SECRET, step_at(time.time()) + steps)


class Somebody:
    """A client of somebody who has no key and answers questions, at an address of their own."""

    def __init__(self, house: House, user: str, *answers: str, tries: int = 1, source: str = "") -> None:
        stage = house.stage
        person = Person(name=user, key=house.ann.key)
        self.source = source or next(SOURCES)
        more = f"{ANSWERING}\nNumberOfPasswordPrompts {tries}\nBindAddress {self.source}"
        self.client: Client = house.client(AccessMethod.CERTIFICATE, person=person, more=more)
        self._keyboard = Keyboard(stage.path(stage.unique("keyboard")), *answers)
        self.client.env |= self._keyboard.env

    async def ssh(self, *arguments: str) -> Result:
        return await self.client.ssh(*arguments)

    @property
    def prompts(self) -> list[str]:
        return self._keyboard.prompts


def reasons(house: House, user: str) -> list[object]:
    return [event["reason"] for event in house.proxy.audit("auth", user=user)]


def moment(event: Event) -> float:
    return datetime.fromisoformat(str(event["time"]).replace("Z", "+00:00")).timestamp()


def saved(house: House) -> dict[str, dict[str, list[float]]]:
    """What the proxy has written down."""
    try:
        raw = (house.proxy.directory / "state" / "guesses.json").read_bytes()
    except FileNotFoundError:
        return {"users": {}, "addresses": {}}
    return cast(dict[str, dict[str, list[float]]], json.loads(raw))


def secret_nowhere(house: House) -> None:
    """Neither what was typed nor what it is compared with, but in the configuration."""
    files = [path for path in house.proxy.directory.rglob("*") if path.is_file()]
    assert len(files) > 5
    for text in (PASSWORD, "mistyped-8731", HASH, TOTP):
        raw = text.encode()
        assert [path.name for path in files if raw in path.read_bytes()] in ([], ["config.yaml"])
        assert raw not in house.proxy.log.encode()


async def test_reaches_target_after_one_password(home: House) -> None:
    """``ssh -J``: asked once, for the connection inside belongs to the one that has logged in."""
    pat = Somebody(home, "pat", PASSWORD)
    before = home.proxy.sids()
    result = await pat.ssh("web1", "echo through; exit 3")
    assert (result.stdout, result.code) == (b"through\n", 3), str(result)
    assert pat.prompts == ["(pat@127.0.0.1) Password: "]
    outer, inner = await home.proxy.audited("user.login", user="pat", count=2)
    assert (outer["stage"], outer["method"], outer["roles"]) == ("outer", "keyboard-interactive", ["ops"])
    assert "key" not in outer and "second_factor" not in outer
    assert (inner["stage"], inner["method"], inner["cid"]) == ("inner", "none", outer["cid"])
    (cast,) = await home.proxy.finished(1, after=before)
    assert "through" in cast.text()
    secret_nowhere(home)


async def test_asks_again_after_wrong_password(home: House) -> None:
    pat = Somebody(home, "pat", "mistyped-8731", PASSWORD, tries=2)
    result = await pat.ssh("proxy", "hosts")
    assert result.code == 0, str(result)
    assert "You may log in:" in result.text
    assert len(pat.prompts) == 2
    assert reasons(home, "pat")[-1] == "wrong password"
    secret_nowhere(home)


async def test_asks_unknown_users_same_questions(home: House) -> None:
    """Nobody of that name, somebody without a password, a wrong one: the same questions, the same words."""
    seen = set()
    whys = {}
    for user in ("nobody1", "nobody2", "nobody3", "nobody4", "ann", "pat", "tom"):
        somebody = Somebody(home, user, *["mistyped-8731"] * 4)
        result = await somebody.ssh("proxy", "hosts")
        assert (result.code, result.stdout) == (255, b"")
        questions = tuple(question.replace(user, "USER") for question in somebody.prompts)
        seen.add((questions, result.errors.replace(user, "USER")))
        whys[user] = reasons(home, user)[-1]
    password, code = "(USER@127.0.0.1) Password: ", "(USER@127.0.0.1) Code: "
    denied = "USER@127.0.0.1: Permission denied (publickey,keyboard-interactive).\r\n"
    assert seen == {((password,), denied), ((password, code), denied)}
    assert whys["pat"] == whys["tom"] == "wrong password"
    assert whys["ann"] == whys["nobody1"] == "no such user with a password"


async def test_rejects_used_code_after_restart(stage: Stage) -> None:
    """Good once: not on the next connection, and not in the next life of the proxy, however it ended."""
    house = await build(stage, settings={"users": USERS})
    now = code()
    tom = Somebody(house, "tom", PASSWORD, now)
    result = await tom.ssh("web1", "echo through")
    assert (result.stdout, result.code) == (b"through\n", 0), str(result)
    assert tom.prompts == ["(tom@127.0.0.1) Password: ", "(tom@127.0.0.1) Code: "]
    (outer,) = house.proxy.audit("user.login", user="tom", stage="outer")
    assert (outer["method"], outer["second_factor"]) == ("keyboard-interactive", "totp")
    for end in (None, signal.SIGKILL, signal.SIGTERM):
        if end is not None:
            await house.proxy.restart(end)
        again = Somebody(house, "tom", PASSWORD, now)
        result = await again.ssh("web1", "echo never")
        assert (result.stdout, result.code) == (b"", 255)
        assert len(again.prompts) == 2
        assert reasons(house, "tom")[-1] == "the code was already used"
    # These were wrong guesses, too. The phone's clock is half a minute ahead: that is still good.
    result = await Somebody(house, "tom", PASSWORD, code(1)).ssh("web1", "echo through")
    assert (result.stdout, result.code) == (b"through\n", 0), str(result)
    await house.proxy.finished(2)
    secret_nowhere(house)


async def test_rejects_password_without_code(home: House) -> None:
    for given in ("", "000000", PASSWORD):
        tom = Somebody(home, "tom", PASSWORD, given)
        result = await tom.ssh("proxy", "hosts")
        assert (result.stdout, result.code) == (b"", 255)
        assert reasons(home, "tom")[-1] == "wrong code"


async def test_delays_answers_after_failures_and_after_restart(stage: Stage) -> None:
    house = await build(stage, settings={"users": USERS})
    count = FREE_OF_USER + 2
    somebody = Somebody(house, "pat", *["mistyped-8731"] * count, tries=count)
    result = await somebody.ssh("proxy", "hosts")
    assert (result.code, len(somebody.prompts)) == (255, count), str(result)
    earlier, last = [moment(event) for event in house.proxy.audit("auth", user="pat")][-2:]
    # The delay runs from when a guess was looked at, which was a moment before its refusal.
    assert last - earlier > 0.5 * DELAYS[0]
    await fact(
        lambda: saved(house)["users"].get("pat", [0])[0] == count, lambda: f"not written: {saved(house)}"
    )
    until = saved(house)["users"]["pat"][1]
    assert until > last + 0.5 * DELAYS[1]
    await house.proxy.restart(signal.SIGKILL)
    result = await Somebody(house, "pat", PASSWORD, source=somebody.source).ssh("proxy", "hosts")
    assert result.code == 0, str(result)
    (login,) = house.proxy.audit("user.login", user="pat")
    assert moment(login) >= until - 0.001
    # The user has begun again; the address has only got this one back.
    await fact(lambda: "pat" not in saved(house)["users"], lambda: f"not forgiven: {saved(house)}")
    assert saved(house)["addresses"][somebody.source][0] == count
    assert (house.proxy.directory / "state" / "guesses.json").stat().st_mode & 0o777 == 0o600


async def test_accepts_key_while_passwords_are_blocked(stage: Stage) -> None:
    """Passwords of joe are not taken for some minutes: he is told so; his key works anyway."""
    house = await build(stage, settings={"users": USERS})
    await house.proxy.stop()
    counts = {"joe": [FREE_OF_USER + 20, time.time() + DELAYS[-1]]}
    path = house.proxy.directory / "state" / "guesses.json"
    path.write_text(json.dumps({"salt": "00ff", "users": counts, "addresses": {}, "steps": {}}))
    await house.proxy.start()
    joe = Somebody(house, "joe", PASSWORD)
    result = await joe.ssh("proxy", "hosts")
    assert (result.code, joe.prompts) == (255, [])
    assert "conchrec: too many wrong answers: try again in 5 minutes" in result.errors
    assert str(reasons(house, "joe")[-1]).startswith("too many wrong passwords or codes; ")
    (await house.client().ssh("web1", "true")).check()
    # Nor is anybody else kept out.
    (await Somebody(house, "pat", PASSWORD).ssh("proxy", "hosts")).check()


async def test_rejects_password_of_revoked_user(stage: Stage) -> None:
    house = await build(stage, settings={"users": USERS})
    (await house.proxy.command("ca", "revoke", "--user", "pat")).check()
    await house.proxy.restart()
    pat = Somebody(house, "pat", PASSWORD)
    result = await pat.ssh("proxy", "hosts")
    assert (result.stdout, result.code) == (b"", 255)
    assert reasons(house, "pat") == ["the user pat has been revoked"]


async def test_counts_failures_by_client_address_of_proxy_header(stage: Stage) -> None:
    """Guesses are those of the address in the PROXY header, not of the balancer."""
    house = await build(stage, settings={"users": USERS}, start=False)
    listen = f"haproxy:tcp:{house.proxy.port}:interface=127.0.0.1"
    house.proxy.configure({"listen": [listen], "proxy_protocol_from": ["127.0.0.1/32"]})
    await house.proxy.start()
    house.authority = await house.proxy.authority("host")
    through = f"{sys.executable} {stage.file('through.py', BALANCER)} 127.0.0.1 {house.proxy.port}"
    pat = Somebody(house, "pat", "mistyped-8731")
    result = await pat.ssh("-o", f"ProxyCommand {through} TCP6 2001:db8::7", "proxy", "hosts")
    assert (result.code, len(pat.prompts)) == (255, 1), str(result)
    await fact(lambda: saved(house)["addresses"], "no address has guessed")
    assert list(saved(house)["addresses"]) == ["2001:db8::/64"]


async def test_starts_with_damaged_file_of_failures(stage: Stage) -> None:
    house = await build(stage, settings={"users": USERS})
    await house.proxy.stop()
    (house.proxy.directory / "state" / "guesses.json").write_bytes(b'{"users": {"joe"')
    await house.proxy.start()
    await house.proxy.logged("guesses.json is damaged, so wrong passwords are counted from 0 again")
    (await Somebody(house, "pat", PASSWORD).ssh("proxy", "hosts")).check()


async def test_hides_answers_on_terminal(home: House) -> None:
    """As a person sees it: nothing that is typed is shown."""
    person = Person(name="pat", key=home.ann.key)
    client = home.client(AccessMethod.CERTIFICATE, person=person, more=ANSWERING)
    process = client.start("proxy", terminal=(80, 24))
    await process.says("(pat@127.0.0.1) Password: ")
    process.write(PASSWORD.encode() + b"\r")
    await process.says("You are pat, from 127.0.0.1:")
    assert (await process.wait()).code == 0
    assert PASSWORD not in process.stdout.decode()


async def test_asks_no_password_after_key(home: House) -> None:
    """Keys come first, and nobody who has one is asked."""
    client = home.client(more="BatchMode no")
    result = await client.ssh("web1", "echo through")
    assert (result.stdout, result.code) == (b"through\n", 0), str(result)
    (outer, *_) = await home.proxy.audited("user.login", user="joe", stage="outer")
    assert outer["method"] == "publickey"


async def test_rejects_password_user_in_batch_mode(home: House) -> None:
    """BatchMode."""
    person = Person(name="pat", key=home.ann.key)
    result = await home.client(AccessMethod.CERTIFICATE, person=person).ssh("web1", "true")
    assert result.code == 255
    assert "pat@127.0.0.1: Permission denied (publickey,keyboard-interactive)" in result.errors


async def test_serves_password_login_of_plink(home: House, tmp_path: Path) -> None:
    scanned = await run("ssh-keyscan", "-p", str(home.proxy.port), home.proxy.host)
    line = home.stage.file("proxy.pub", re.sub(r"^\S+ ", "", scanned.text))
    shown = (await run("ssh-keygen", "-lf", line)).check().text.split()[1]
    plink = home.stage.process(
        *("plink", "-noagent", "-no-antispoof", "-hostkey", shown, "-P", str(home.proxy.port)),
        *("tom@127.0.0.1", "hosts"),
        env=environment(HOME=str(tmp_path)),
        terminal=(80, 24),
    )
    await _answered(plink, "Password: ", PASSWORD)
    await _answered(plink, "Code: ", code(1))
    await plink.says("You may log in:")
    assert (await plink.wait()).code == 0
    assert PASSWORD not in plink.stdout.decode()


async def _answered(process: Process, question: str, answer: str) -> None:
    await process.says(question)
    process.write(answer.encode() + b"\r")
