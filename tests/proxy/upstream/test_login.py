"""The login at the target by the user's agent, and what follows where that fails; in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.reasons import ReasonCode
from conchrec.ssh import agent_messages as a
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.certificate import decode
from fuzz.channels import wire as w
from fuzz.channels.ends import Raw
from fuzz.channels.memory import TARGET
from tests.golden.codes import Codes
from tests.golden.logins import TargetLogin
from tests.golden.scene import Scene
from tests.proxy.user_agent import UserAgent

#: Longer than any limit of a login.
LOGIN_SECONDS = 120


class NotedLogin(TargetLogin):
    """Takes the keys in ``accepted`` (None: every key), and notes what it was offered."""

    def __init__(self, then: Raw, accepted: Sequence[bytes] | None) -> None:
        super().__init__(then)
        self._accepted = accepted
        self.offered: list[bytes] = []

    def _request(self, method: bytes, cursor: w.Cursor) -> None:
        if not method.startswith(b"publickey"):
            self._refuse()
            return
        probe = w.Cursor(cursor.left)
        probe.flag()
        probe.text()
        blob = probe.text()
        if blob not in self.offered:
            self.offered.append(blob)
        if self._accepted is None or blob in self._accepted:
            super()._request(method, cursor)
        else:
            self._refuse()


class Target:
    """What the target of a scene takes, and what it was offered."""

    def __init__(self) -> None:
        self.accepted: list[bytes] | None = None
        self.logins: list[NotedLogin] = []

    def login(self, then: Raw) -> NotedLogin:
        """For ``Scene.target_login``."""
        self.logins.append(NotedLogin(then, self.accepted))
        return self.logins[-1]

    @property
    def offered(self) -> list[bytes]:
        return [blob for login in self.logins for blob in login.offered]


@contextmanager
def connected(
    agent: UserAgent | None, target: Target, **settings: object
) -> Iterator[tuple[Scene, list[dict[str, Any]]]]:
    """A user who has run a command at the target, or was refused there; with what was audited."""
    scene = Scene(Codes(), settings=settings)
    scene.target_login = target.login
    try:
        scene.come()
        if agent is not None:
            agent.attach(scene)
        scene.enter(TARGET.host, TARGET.port)
        scene.log_in()
        scene.settle(LOGIN_SECONDS)
        scene.session()
        scene.ask(b"exec", w.text(b"id"))
        scene.settle(3)
        yield scene, scene.events()
    finally:
        scene.close()


def is_certificate(blob: bytes) -> bool:
    return AgentIdentity(blob=blob, comment="").is_certificate


def started(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "session.start"]


def failure_codes(events: list[dict[str, Any]]) -> list[str]:
    return [event["reason_code"] for event in events if event["event"] == "upstream.failed"]


def test_signs_with_key_of_agent() -> None:
    agent, target = UserAgent(), Target()
    blob = agent.hold(ed25519.Ed25519PrivateKey.generate())
    with connected(agent, target, upstream_auth=["agent"]) as (_, events):
        assert target.offered == [blob]
        assert len(started(events)) == 1
        assert a.SIGN_REQUEST in agent.received


def test_offers_each_key_until_one_is_accepted() -> None:
    agent, target = UserAgent(), Target()
    blobs = [agent.hold(ed25519.Ed25519PrivateKey.generate()) for _ in range(3)]
    target.accepted = [blobs[1]]
    with connected(agent, target, upstream_auth=["agent"]) as (_, events):
        assert target.offered == blobs[:2]
        assert len(started(events)) == 1


def test_certificate_follows_rejected_keys() -> None:
    agent, target = UserAgent(), Target()
    blob = agent.hold(ed25519.Ed25519PrivateKey.generate())
    target.accepted = []
    with connected(agent, target, upstream_auth=["agent", "certificate"]):
        first, second = target.offered
        assert first == blob
        assert is_certificate(second)
        assert decode(second).key_id.startswith("conchrec user=joe ")


def test_certificate_comes_first_where_configured() -> None:
    agent, target = UserAgent(), Target()
    agent.hold(ed25519.Ed25519PrivateKey.generate())
    with connected(agent, target, upstream_auth=["certificate", "agent"]) as (_, events):
        assert [is_certificate(blob) for blob in target.offered] == [True]
        assert len(started(events)) == 1
        assert a.SIGN_REQUEST not in agent.received


@pytest.mark.parametrize("refused", [a.SIGN_REQUEST, a.REQUEST_IDENTITIES])
def test_fails_when_agent_refuses(refused: int) -> None:
    agent, target = UserAgent(refuses=frozenset({refused})), Target()
    agent.hold(ed25519.Ed25519PrivateKey.generate())
    with connected(agent, target, upstream_auth=["agent"]) as (_, events):
        assert started(events) == []
        assert failure_codes(events)


def test_names_missing_key_when_agent_is_empty() -> None:
    agent, target = UserAgent(), Target()
    with connected(agent, target, upstream_auth=["agent"]) as (_, events):
        assert failure_codes(events) == [ReasonCode.AGENT_EMPTY]
        assert target.offered == []
