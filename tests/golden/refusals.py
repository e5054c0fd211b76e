"""Scenarios: what is refused before a session runs."""

from __future__ import annotations

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from fuzz.channels import wire as w
from fuzz.channels.memory import TARGET
from fuzz.channels.server import Manners
from tests.golden.codes import Codes
from tests.golden.logins import AskingLogin, RefusingLogin
from tests.golden.registry import scenario
from tests.golden.scene import Scene
from tests.golden.sessions import PTY


@scenario
def login_denied(codes: Codes) -> Scene:
    """The role does not allow the login: said in the session, and nothing is dialled."""
    scene = Scene(codes, shows=50)
    scene.begin(login=b"admin")
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.settle(3)
    return scene


@scenario
def host_denied(codes: Codes) -> Scene:
    """No role allows the target, under any of three ways to ask for it."""
    scene = Scene(codes)
    scene.come()
    scene.enter("192.0.2.1", 22)
    scene.enter("not a host", 22)
    scene.subsystem(b"proxy:192.0.2.1:22")
    scene.subsystem(b"proxy:web1:22@elsewhere.example.org")
    return scene


@scenario
def unknown_key(codes: Codes) -> Scene:
    """A key that is not the user's."""
    scene = Scene(codes, shows=50)
    scene.user_key = ed25519.Ed25519PrivateKey.generate()
    scene.come()
    scene.settle(1)
    return scene


@scenario
def unreachable(codes: Codes) -> Scene:
    """Nothing listens at the target."""
    scene = Scene(codes)
    scene.reactor.refuses = True
    scene.come()
    scene.enter(TARGET.host, TARGET.port)
    scene.subsystem(b"proxy:127.0.0.1:2222")
    return scene


@scenario
def login_rejected(codes: Codes) -> Scene:
    """The target takes none of what the proxy offers; its banner is shown."""
    scene = Scene(codes, shows=50)
    scene.target_login = RefusingLogin
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.settle(3)
    return scene


@scenario
def host_key_unknown(codes: Codes) -> Scene:
    """The target's host key is not known."""
    scene = Scene(codes, settings={"proxy_checks_host_keys": True})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.settle(3)
    return scene


@scenario
def start_not_allowed(codes: Codes) -> Scene:
    """The role allows neither a terminal nor a shell nor this command."""
    options: dict[str, object] = {"pty": False, "shell": False, "commands": ["uptime"]}
    scene = Scene(codes, options=options)
    scene.begin()
    scene.session(0)
    scene.ask(b"pty-req", PTY)
    scene.ask(b"shell")
    scene.session(1)
    scene.ask(b"exec", w.text(b"rm -rf /"), channel=1)
    return scene


@scenario
def too_many_sessions(codes: Codes) -> Scene:
    """One session more than ``max_sessions``."""
    scene = Scene(codes, options={"max_sessions": 1})
    scene.begin()
    scene.session(0)
    scene.ask(b"exec", w.text(b"cat"))
    scene.session(1)
    scene.exit()
    return scene


@scenario
def session_refused_by_target(codes: Codes) -> Scene:
    """The target refuses the channel, and then a start."""
    scene = Scene(codes, manners=(Manners(opens=False), Manners(accepts=(False,))))
    scene.begin()
    scene.session(0)
    scene.ask(b"exec", w.text(b"id"))
    scene.session(1)
    scene.ask(b"exec", w.text(b"id"), channel=1)
    scene.user.close(1)
    scene.settle()
    return scene


@scenario
def wrong_password(codes: Codes) -> Scene:
    """A wrong password, then the right one."""
    scene = Scene(codes, shows=50, password=b"letmein")
    scene.user_key = ed25519.Ed25519PrivateKey.generate()
    scene.answers = [b"wrong", b"letmein"]
    scene.come()
    scene.settle(5)
    return scene


@scenario
def too_many_failures(codes: Codes) -> Scene:
    """Wrong passwords until the proxy ends the connection."""
    scene = Scene(codes, shows=50, password=b"letmein", settings={"limits": {"tries": 2}})
    scene.user_key = ed25519.Ed25519PrivateKey.generate()
    scene.answers = [b"wrong"] * 5
    scene.come()
    scene.settle(9)
    return scene


@scenario
def prompts_of_target(codes: Codes) -> Scene:
    """``upstream_auth: [prompt]``: the target's question becomes the user's."""
    scene = Scene(codes, shows=50, settings={"upstream_auth": ["prompt"]})
    scene.target_login = AskingLogin
    scene.answers = [b"letmein"]
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.exit()
    return scene


@scenario
def second_factor_required(codes: Codes) -> Scene:
    """The role requires a second factor, and the user has none."""
    scene = Scene(codes, options={"require_mfa": "login"}, shows=50)
    scene.come()
    scene.settle(1)
    return scene


@scenario
def approval_required(codes: Codes) -> Scene:
    """Somebody has to approve the access, and nobody does."""
    scene = Scene(codes, shows=50, options={"approval": ["all"]})
    scene.begin()
    scene.settle(1)
    return scene


@scenario
def approval_times_out(codes: Codes) -> Scene:
    """The user gives a reason, and nobody approves it."""
    scene = Scene(codes, shows=50, options={"approval": ["all"]}, settings={"limits": {"login_time": "60s"}})
    scene.answers = [b"disk full"]
    scene.begin()
    scene.request_id()
    scene.settle(3600)
    return scene


@scenario
def outer_channels_refused(codes: Codes) -> Scene:
    """Channels and requests of the outer connection that lead nowhere."""
    scene = Scene(codes)
    scene.come()
    scene.jump.open(9, b"x11", 1000, 1000, w.text(b"127.0.0.1") + w.u32(1), generous=True)
    scene.jump.ask(w.Request(b"tcpip-forward", True, w.text(b"") + w.u32(1)))
    scene.settle()
    scene.subsystem(b"sftp")
    return scene


@scenario
def users_changed(codes: Codes) -> Scene:
    """The user is removed from the configuration while a session runs."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    file = scene.directory / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["users"] = {"ann": config["users"]["joe"]}
    file.write_text(yaml.safe_dump(config))
    scene.proxy.reload()
    scene.settle(3)
    return scene
