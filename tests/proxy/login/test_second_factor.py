"""Codes as second factor, asked for in the outer and in the inner login, through the proxy in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.access.passwords import code_at, new_secret, parse_secret, step_at
from conchrec.reasons import ReasonCode
from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.scene import Scene

WRONG = b"000000"


@contextmanager
def scene_with_codes(mfa: str, **options: Any) -> Iterator[tuple[Scene, bytes]]:
    """A proxy whose user must give codes (``require_mfa``), and the secret of their app."""
    secret = new_secret()
    key = ed25519.Ed25519PrivateKey.generate()
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    users = {"joe": {"authorized_keys": [line], "roles": ["all"], "totp": secret}}
    scene = Scene(Codes(), settings={"users": users}, options={"require_mfa": mfa, **options})
    scene.user_key = key
    try:
        yield scene, parse_secret(secret)
    finally:
        scene.close()


def code(scene: Scene, secret: bytes, later: int = 0) -> bytes:
    """The code that the app shows now, or ``later`` steps of 30 s after now."""
    return code_at(secret, step_at(scene.now.timestamp()) + later).encode()


def refusals(events: list[dict[str, Any]]) -> list[str]:
    """The reason codes of refused logins among these audit events."""
    return [event["reason_code"] for event in events if event["event"] == "auth"]


def run_command(scene: Scene) -> None:
    scene.session()
    scene.ask(b"exec", w.text(b"id"))


def second_factors(events: list[dict[str, Any]]) -> list[str]:
    return [event["second_factor"] for event in events if event["event"] == "session.start"]


def test_code_at_login_serves_whole_connection() -> None:
    with scene_with_codes("login") as (scene, secret):
        scene.answers = [code(scene, secret)]
        scene.begin()
        run_command(scene)
        assert scene.answers == []
        assert second_factors(scene.events()) == ["totp"]


def test_wrong_code_is_refused_and_audited() -> None:
    with scene_with_codes("login") as (scene, _):
        scene.answers = [WRONG]
        scene.come()
        scene.settle(5)
        assert ReasonCode.SECOND_FACTOR_WRONG in refusals(scene.events())


def test_code_is_good_once() -> None:
    with scene_with_codes("login") as (scene, secret):
        used = code(scene, secret)
        scene.answers = [used]
        scene.come()
        scene.events()
        scene.answers = [used]
        scene.come()
        scene.settle(5)
        assert ReasonCode.CODE_USED in refusals(scene.events())


def test_asks_for_own_code_at_each_further_target() -> None:
    with scene_with_codes("session") as (scene, secret):
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
