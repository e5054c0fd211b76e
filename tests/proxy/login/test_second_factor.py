"""Codes as second factor, asked for in the outer and in the inner login, through the proxy in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conchrec.reasons import ReasonCode
from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.scene import Scene
from tests.golden.second_factor import WRONG, code, scene_with_codes, wait_for_question


@contextmanager
def scene_with(mfa: str) -> Iterator[tuple[Scene, bytes]]:
    """A proxy whose user must give codes (``require_mfa``), and the secret of their app."""
    scene, secret = scene_with_codes(Codes(), mfa)
    try:
        yield scene, secret
    finally:
        scene.close()


def refusals(events: list[dict[str, Any]]) -> list[str]:
    """The reason codes of refused logins among these audit events."""
    return [event["reason_code"] for event in events if event["event"] == "auth"]


def run_command(scene: Scene) -> None:
    scene.session()
    scene.ask(b"exec", w.text(b"id"))


def second_factors(events: list[dict[str, Any]]) -> list[str]:
    return [event["second_factor"] for event in events if event["event"] == "session.start"]


def test_code_at_login_serves_whole_connection() -> None:
    with scene_with("login") as (scene, secret):
        scene.answers = [code(scene, secret)]
        scene.begin()
        run_command(scene)
        assert scene.answers == []
        assert second_factors(scene.events()) == ["totp"]


def test_wrong_code_is_refused_and_audited() -> None:
    with scene_with("login") as (scene, _):
        scene.answers = [WRONG]
        scene.come()
        scene.settle(5)
        assert ReasonCode.SECOND_FACTOR_WRONG in refusals(scene.events())


def test_audits_no_wrong_code_when_user_leaves() -> None:
    with scene_with("session") as (scene, secret):
        scene.answers = [code(scene, secret)]
        scene.begin()
        wait_for_question(scene)
        scene.events()
        scene.disconnect()
        events = scene.events()
        assert refusals(events) == [ReasonCode.QUESTIONS_ABANDONED]
        (rejected,) = (event for event in events if event["event"] == "session.rejected")
        assert rejected["reason_code"] == ReasonCode.QUESTIONS_ABANDONED
        assert rejected["reason"] == "the login attempt was abandoned"


def test_code_is_good_once() -> None:
    with scene_with("login") as (scene, secret):
        used = code(scene, secret)
        scene.answers = [used]
        scene.come()
        scene.events()
        scene.answers = [used]
        scene.come()
        scene.settle(5)
        assert ReasonCode.CODE_USED in refusals(scene.events())


def test_asks_for_own_code_at_each_further_target() -> None:
    with scene_with("session") as (scene, secret):
        scene.answers = [code(scene, secret)]
        scene.begin()
        run_command(scene)
        assert second_factors(scene.events()) == ["totp"]
        scene.answers = [code(scene, secret, 1)]
        scene.enter("127.0.0.1", 2222)
        scene.log_in()
        run_command(scene)
        assert scene.answers == []
        assert second_factors(scene.events()) == ["totp"]
