"""The configuration changes while somebody is in the middle of logging in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import paramiko
import pytest

from conchrec.access.passwords import code_at, new_hash, step_at
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import LONG, fact, in_thread
from tests.system.test_live_change import Fields, reloaded, users

PASSWORD = "a password"
SECRET, TOTP = b"12345678901234567890", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
OTHER = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK"


class Slow:
    """A login that answers its last question when it is told to; ``key``: after that key."""

    def __init__(self, house: House, user: str, answer: Callable[[], str], key: str = "") -> None:
        self._house, self._user, self._answer, self._key = house, user, answer, key
        self.is_asked, self.go = threading.Event(), threading.Event()

    def run(self) -> bool:
        """Is it in?"""
        transport = paramiko.Transport((self._house.proxy.host, self._house.proxy.port))
        try:
            transport.start_client(timeout=LONG)
            if self._key:
                key = paramiko.Ed25519Key.from_private_key_file(self._key)
                assert transport.auth_publickey(self._user, key) == ["keyboard-interactive"]
            transport.auth_interactive(self._user, self._handler)
            return transport.is_authenticated()
        except paramiko.AuthenticationException:
            return False
        finally:
            transport.close()

    def _handler(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        if prompts:
            self.is_asked.set()
            assert self.go.wait(LONG)
        return [self._answer() for _ in prompts]


async def is_in_after(house: House, slow: Slow, changed: Fields) -> bool:
    """With that configuration in force before the answer."""
    done = in_thread(slow.run)
    await fact(slow.is_asked.is_set, "it is not asked")
    house.proxy.settings["users"] = {}
    house.proxy.configure({"users": changed})
    await reloaded(house, result="ok")
    slow.go.set()
    return await done


@pytest.mark.parametrize("change", ["nothing", "another user", "password", "no password", "no user"])
async def test_refuses_password_removed_during_login(stage: Stage, change: str) -> None:
    tim = {"password": new_hash(PASSWORD, 10), "roles": ["ops"]}
    house = await build(stage, settings={"users": {"tim": tim, "tom": {"password": new_hash("x", 10)}}})
    now = users(house)
    if change == "another user":
        del now["ann"]
    elif change == "password":
        now["tim"]["password"] = new_hash("another one", 10)
    elif change == "no password":
        del now["tim"]["password"]
    elif change == "no user":
        del now["tim"]
    is_in = await is_in_after(house, Slow(house, "tim", lambda: PASSWORD), now)
    assert is_in is (change in ("nothing", "another user"))
    assert len(house.proxy.audit("user.login")) == is_in


@pytest.mark.parametrize("change", ["nothing", "secret", "no secret", "key"])
async def test_applies_second_factor_changed_during_login(stage: Stage, change: str) -> None:
    roles = {"ops": {"options": {"require_mfa": "login"}}}
    house = await build(stage, settings={"users": {"joe": {"totp": TOTP}}, "roles": roles})
    now = users(house)
    if change == "secret":
        now["joe"]["totp"] = OTHER
    elif change == "no secret":
        del now["joe"]["totp"]
    elif change == "key":
        now["joe"]["authorized_keys"] = cast(list[str], now["joe"]["authorized_keys"])[1:]
    slow = Slow(house, "joe", lambda: code_at(SECRET, step_at(time.time())), str(house.joe.key.path))
    assert await is_in_after(house, slow, now) is (change == "nothing")


async def test_refuses_code_removed_during_login(stage: Stage) -> None:
    """Between the key and the question."""
    roles = {"ops": {"options": {"require_mfa": "login"}}}
    house = await build(stage, settings={"users": {"joe": {"totp": TOTP}}, "roles": roles})
    transport = paramiko.Transport((house.proxy.host, house.proxy.port))
    try:
        await in_thread(lambda: transport.start_client(timeout=LONG))
        key = paramiko.Ed25519Key.from_private_key_file(str(house.joe.key.path))
        assert await in_thread(lambda: transport.auth_publickey("joe", key)) == ["keyboard-interactive"]
        now = users(house)
        del now["joe"]["totp"]
        house.proxy.settings["users"] = {}
        house.proxy.configure({"users": now})
        await reloaded(house, result="ok")
        with pytest.raises(paramiko.AuthenticationException):
            await in_thread(lambda: transport.auth_interactive("joe", lambda *_: []))
        assert transport.is_active()
    finally:
        transport.close()
    assert "Traceback" not in house.proxy.log
