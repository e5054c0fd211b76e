"""Scenarios: codes of an app as the second factor."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.access.passwords import code_at, new_secret, parse_secret, step_at
from fuzz.channels import wire as w
from fuzz.channels.ends import Login
from fuzz.channels.memory import TARGET
from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import FAILURE, Scene

WRONG = b"000000"


def scene_with_codes(codes: Codes, mfa: str, *, shows: int = 80) -> tuple[Scene, bytes]:
    """Return a scene whose user must give codes (``require_mfa``), and the secret of the user's app."""
    secret = new_secret()
    key = ed25519.Ed25519PrivateKey.generate()
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    users = {"joe": {"authorized_keys": [line], "roles": ["all"], "totp": secret}}
    scene = Scene(codes, settings={"users": users}, options={"require_mfa": mfa}, shows=shows)
    scene.user_key = key
    return scene, parse_secret(secret)


def code(scene: Scene, secret: bytes, later: int = 0) -> bytes:
    """Return the code that the app shows now, or ``later`` steps of 30 s after now."""
    return code_at(secret, step_at(scene.now.timestamp()) + later).encode()


def wait_for_question(scene: Scene) -> None:
    """The next inner login goes on until it asks for a code, which the user does not give."""

    def ask_only(login: Login, number: int, payload: bytes) -> None:
        if number == FAILURE:
            login.ask_questions()

    scene.otherwise = ask_only
    scene.enter(TARGET.host, TARGET.port)
    scene.log_in()


def _run_command(scene: Scene) -> None:
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.exit()


@scenario
def second_factor(codes: Codes) -> Scene:
    """The role requires a code in the login to the proxy: a wrong one, the right one, and that one again."""
    scene, secret = scene_with_codes(codes, "login", shows=50)
    used = code(scene, secret)
    scene.answers = [WRONG, used]
    scene.come()
    scene.settle(5)
    scene.enter(TARGET.host, TARGET.port)
    scene.log_in()
    _run_command(scene)
    scene.note("another connection, with the same code")
    scene.answers = [used]
    scene.come()
    scene.settle(5)
    return scene


@scenario
def second_factor_of_session(codes: Codes) -> Scene:
    """The role requires a code for each target: asked in the outer login, and in the next inner one."""
    scene, secret = scene_with_codes(codes, "session", shows=50)
    scene.answers = [code(scene, secret)]
    scene.begin()
    _run_command(scene)
    scene.note("the next target of the same connection")
    scene.answers = [code(scene, secret, 1)]
    scene.enter(TARGET.host, TARGET.port)
    scene.log_in()
    _run_command(scene)
    return scene
