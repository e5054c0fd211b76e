"""Global requests between a user and a target, in memory: what a policy takes back, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from conchrec.access.options import SessionOptions
from conchrec.audit import events
from conchrec.model import Identity
from conchrec.proxy.inner.forwarding import Forwards
from conchrec.proxy.upstream.connection import Upstream
from conchrec.ssh.wire import string, uint32
from tests.support.auditlog import AuditMemory
from tests.support.context import partial_context, root_at_web1, set_options
from tests.support.loop import Handler, Loop

WHERE = string(b"127.0.0.1") + uint32(8080)


class Stage:
    """A user and a target, with the forwards of one connection between them."""

    def __init__(self, **options: bool) -> None:
        self.log = AuditMemory()
        self.access = root_at_web1(
            partial_context(clock=Clock(), audit=self.log),
            Identity(user="joe", method="publickey"),
            replace(SessionOptions(), **options),  # type: ignore[arg-type]
        )
        self.from_user, self.user, self.target, self.from_target = (Handler() for _ in range(4))
        self.near = Loop(self.user, self.from_user)
        self.far = Loop(self.from_target, self.target)
        upstream = SimpleNamespace(
            connection=self.far.left,
            inner_settled=lambda: None,
            when_ready=lambda: succeed(self.far.left),
        )
        self.forwards = Forwards(self.access, cast(Upstream, upstream))
        self.forwards.user = self.near.right

    def pump(self) -> None:
        """What the one asks reaches the other."""
        for _ in range(3):
            self.near.pump()
            self.far.pump()
            while self.from_user.requests:
                self.forwards.request_from_user(self.from_user.requests.pop(0))
            while self.from_target.requests:
                self.forwards.request_from_target(self.from_target.requests.pop(0))


@pytest.mark.parametrize("wants_reply", [True, False])
def test_what_the_target_listens_on_is_cancelled(wants_reply: bool) -> None:
    """Also where the user did not ask whether it does."""
    stage = Stage(remote_forwarding=True)
    answers: list[bool] = []
    on_reply = (lambda success, extra: answers.append(success)) if wants_reply else None
    stage.near.left.request(b"tcpip-forward", WHERE, on_reply)
    stage.pump()
    (asked,) = stage.target.requests
    assert (asked.name, asked.extra, asked.want_reply) == (b"tcpip-forward", WHERE, wants_reply)
    asked.reply(True)
    stage.pump()
    assert answers == [True] * wants_reply
    stage.forwards.recheck()
    stage.pump()
    assert len(stage.target.requests) == 1
    set_options(stage.access, SessionOptions())
    stage.forwards.recheck()
    stage.pump()
    cancelled = stage.target.requests[-1]
    assert (cancelled.name, cancelled.extra) == (b"cancel-tcpip-forward", WHERE)
    event = stage.log.events[-1]
    assert isinstance(event, events.Port) and (event.action, event.destination) == (
        "cancel",
        "127.0.0.1:8080",
    )


@pytest.mark.parametrize("allowed", [True, False])
def test_what_nobody_knows_either_way(allowed: bool) -> None:
    stage = Stage(unknown_requests=allowed)
    answers: list[tuple[str, bool]] = []
    for name in (b"new@example.com", b"keepalive@openssh.com"):
        for who, asks in (("user", stage.near.left), ("target", stage.far.right)):
            asks.request(name, b"", lambda success, _, who=who: answers.append((who, success)))  # type: ignore[misc]
    stage.pump()
    for there in (stage.target, stage.user):
        names = [request.name for request in there.requests]
        expected = [b"new@example.com", b"keepalive@openssh.com"] if allowed else [b"keepalive@openssh.com"]
        assert names == expected
        for request in there.requests:
            request.reply(True)
    stage.pump()
    assert sorted(answers) == sorted(
        [("user", allowed), ("target", allowed), ("user", True), ("target", True)]
    )
    unknown = [event.sender for event in stage.log.events if isinstance(event, events.UnknownRequest)]
    assert unknown.count("target") == 1
