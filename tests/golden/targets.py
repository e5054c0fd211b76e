"""Scenarios: targets that are not as they should be, and agents that do not help."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet.protocol import Protocol

from conchrec.ca.authority import Authority
from conchrec.ssh.server_host_keys import ServerHostKeys
from fuzz.channels import wire as w
from fuzz.channels.client import BACK
from fuzz.channels.ends import public_blob
from fuzz.channels.memory import TARGET
from fuzz.targets.linked import FAST
from tests.golden.codes import Codes
from tests.golden.logins import AskingLogin, RefusingLogin, TargetLogin
from tests.golden.registry import scenario
from tests.golden.scene import Scene


def _refused_in_session(scene: Scene) -> Scene:
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.settle(3)
    return scene


@scenario
def target_silent(codes: Codes) -> Scene:
    """The target accepts the connection and says nothing."""
    scene = Scene(codes)
    scene.target_protocol = Protocol
    scene.come()
    scene.enter(TARGET.host, TARGET.port)
    scene.settle(60)
    return scene


@scenario
def target_speaks_no_ssh(codes: Codes) -> Scene:
    """The target is a web server."""

    class Web(Protocol):
        transport: Any

        def connectionMade(self) -> None:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 500)

    scene = Scene(codes)
    scene.target_protocol = Web
    scene.come()
    scene.enter(TARGET.host, TARGET.port)
    scene.settle(60)
    return scene


def _with_host_certificate(codes: Codes, name: str) -> Scene:
    """A target with a certificate of the proxy's host CA for this name."""
    scene = Scene(codes, settings={"proxy_checks_host_keys": True})
    key = ed25519.Ed25519PrivateKey.generate()
    authority = Authority.open(scene.directory / "state", "example.com", now=lambda: scene.now)
    certificate = authority.sign_host(public_blob(key), (name,), timedelta(days=1))
    scene.target_settings = {"host_keys": ServerHostKeys(key, certificate.blob)}
    return scene


@scenario
def host_certificate(codes: Codes) -> Scene:
    """The target shows a certificate of the proxy's host CA."""
    scene = _with_host_certificate(codes, TARGET.host)
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.exit()
    return scene


@scenario
def host_certificate_of_another_host(codes: Codes) -> Scene:
    """The target shows a certificate of the proxy's host CA for another name."""
    return _refused_in_session(_with_host_certificate(codes, "web2.example.com"))


@scenario
def no_common_algorithm(codes: Codes) -> Scene:
    """The target has only a cipher that the proxy does not offer."""
    scene = Scene(codes)
    scene.target_settings = {"algorithms": replace(FAST, ciphers=(b"aes128-cbc",))}
    return _refused_in_session(scene)


@scenario
def target_closes_login(codes: Codes) -> Scene:
    """The target ends the connection in the login, with a message."""

    class Leaves(TargetLogin):
        def _request(self, method: bytes, cursor: w.Cursor) -> None:
            self.transport.sendDisconnect(2, b"too many authentication failures")

    scene = Scene(codes)
    scene.target_login = Leaves
    return _refused_in_session(scene)


@scenario
def target_login_silent(codes: Codes) -> Scene:
    """The target does not answer in the login."""

    class Silent(TargetLogin):
        def _request(self, method: bytes, cursor: w.Cursor) -> None:
            """It thinks."""

    scene = Scene(codes)
    scene.target_login = Silent
    scene.begin()
    scene.settle(700)
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    return scene


@scenario
def answers_rejected(codes: Codes) -> Scene:
    """The answer to the target's question is wrong."""
    scene = Scene(codes, shows=50, settings={"upstream_auth": ["prompt"]})
    scene.target_login = AskingLogin
    scene.answers = [b"wrong"] * 4
    scene.begin()
    scene.settle(3)
    if scene.client is not None and scene.client.transport is not None:
        scene.session()
        scene.ask(b"exec", w.text(b"id"))
    return scene


@scenario
def no_prompt(codes: Codes) -> Scene:
    """The user could answer questions, and the target asks none."""
    scene = Scene(codes, settings={"upstream_auth": ["prompt"]})
    scene.target_login = RefusingLogin
    return _refused_in_session(scene)


@scenario
def no_agent(codes: Codes) -> Scene:
    """The target takes keys, and the user's client has no agent."""
    scene = Scene(codes, settings={"upstream_auth": ["agent"], "agent_probe": "never"})
    scene.target_login = RefusingLogin
    return _refused_in_session(scene)


def _with_agent(codes: Codes, identities: bytes | None) -> Scene:
    """The outer connection has an agent, which lists these identities; None: it does not answer."""
    scene = Scene(codes, settings={"upstream_auth": ["agent"]})
    scene.target_login = RefusingLogin
    scene.hides(BACK)
    scene.come()
    scene.jump.open(1, b"session", 1 << 20, 1 << 15, b"", generous=True)
    scene.settle()
    scene.jump.request(1, w.Request(b"auth-agent-req@openssh.com", False, b""))
    scene.settle()
    scene.enter(TARGET.host, TARGET.port)
    scene.log_in(b"root")
    if identities is not None:
        for answer in (b"\x05", identities):
            scene.jump.data(BACK, w.text(answer))
            scene.settle()
    scene.settle(70)
    return scene


@scenario
def agent_empty(codes: Codes) -> Scene:
    """The user's agent holds no key."""
    scene = _with_agent(codes, b"\x0c" + w.u32(0))
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    return scene


@scenario
def agent_silent(codes: Codes) -> Scene:
    """The user's agent does not answer."""
    scene = _with_agent(codes, None)
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    return scene


@scenario
def approval_denied(codes: Codes) -> Scene:
    """The user waits for an approval, and somebody denies it."""
    scene = Scene(codes, shows=50, options={"approval": ["all"]}, more_users=("ann",))
    scene.answers = [b"disk full"]
    scene.begin()
    scene.command_of_other(b"ann", b"deny " + scene.request_id() + b" not now")
    scene.settle(3)
    return scene


@scenario
def approval_granted(codes: Codes) -> Scene:
    """The user waits for an approval, and gets it."""
    scene = Scene(codes, shows=50, options={"approval": ["all"]}, more_users=("ann",))
    scene.answers = [b"disk full"]
    scene.begin()
    scene.command_of_other(b"ann", b"approve " + scene.request_id() + b" go ahead")
    scene.settle(3)
    scene.session()
    scene.ask(b"exec", w.text(b"id"))
    scene.exit()
    return scene


@scenario
def approval_without_reason(codes: Codes) -> Scene:
    """The user gives no reason."""
    scene = Scene(codes, shows=50, options={"approval": ["all"]})
    scene.answers = [b""] * 9
    scene.begin()
    scene.settle(3)
    return scene


@scenario
def approval_withdrawn(codes: Codes) -> Scene:
    """The user waits for an approval, and leaves."""
    scene = Scene(codes, shows=50, options={"approval": ["all"]})
    scene.answers = [b"disk full"]
    scene.begin()
    scene.request_id()
    scene.disconnect()
    scene.settle(3)
    return scene
