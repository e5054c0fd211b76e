"""``ssh proxy login``: a key and a certificate for the user's agent, through the whole proxy in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.ssh import agent_messages as a
from conchrec.ssh.certificate import decode
from fuzz.channels.client import ClientChannel
from tests.golden.codes import Codes
from tests.golden.scene import Scene
from tests.proxy.user_agent import UserAgent

OURS = b"conchrec:joe"


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(Codes())
    scene.come()
    yield scene
    scene.close()


def outcome(scene: Scene, command: bytes) -> tuple[int, str, list[dict[str, Any]]]:
    """The exit status of a command for the proxy, its standard error, and what was audited meanwhile."""
    scene.events()
    scene.command(command)
    channel = _last_command(scene)
    (status,) = (request.extra for request in channel.requests if request.name == b"exit-status")
    return int.from_bytes(status, "big"), channel.stderr.decode(), scene.events()


def _last_command(scene: Scene) -> ClientChannel:
    return [channel for channel in scene.jump.channels.values() if channel.kind == b"session"][-1]


def test_puts_key_with_certificate_into_agent(scene: Scene) -> None:
    agent = UserAgent()
    own = agent.hold(ed25519.Ed25519PrivateKey.generate())
    agent.attach(scene)
    status, _, events = outcome(scene, b"login --ttl 1h")
    assert status == 0
    plain, new = agent.keys
    assert plain.blob == own
    certificate = decode(new.blob)
    assert (new.comment, certificate.key_id, certificate.principals) == (OURS, "joe", ("joe",))
    assert new.lifetime is not None and 3500 < new.lifetime <= 3600
    (created,) = (event for event in events if event["event"] == "cert.create")
    assert (created["serial"], created["purpose"]) == (str(certificate.serial), "login")


def test_replaces_earlier_certificate_of_ours_only(scene: Scene) -> None:
    agent = UserAgent()
    agent.hold(ed25519.Ed25519PrivateKey.generate(), b"conchrec:joe")
    agent.attach(scene)
    outcome(scene, b"login")
    first = agent.keys[-1].blob
    outcome(scene, b"login")
    assert agent.comments() == [OURS, OURS]
    assert first not in {held.blob for held in agent.keys}


def test_fails_when_agent_refuses_certificates(scene: Scene) -> None:
    agent = UserAgent(refuses=frozenset({a.ADD_ID_CONSTRAINED}))
    agent.attach(scene)
    status, stderr, _ = outcome(scene, b"login")
    assert status == 1
    assert "did not accept the certificate" in stderr
    assert agent.keys == []


def test_fails_without_agent(scene: Scene) -> None:
    status, stderr, events = outcome(scene, b"login")
    assert status == 1
    assert "ssh -A" in stderr
    assert not [event for event in events if event["event"] == "cert.create"]
