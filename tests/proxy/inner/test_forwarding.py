"""Global requests between a user and a target, in memory: cancelled and refused ones."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from twisted.internet.defer import succeed

from conchrec.access.options import SessionOptions
from conchrec.audit import events
from conchrec.model import Identity
from conchrec.proxy.inner.forwarding import Forwards
from conchrec.proxy.upstream.connection import Upstream
from conchrec.ssh.wire import string, uint32
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_context, root_at_web1, set_options
from tests.support.loop import Handler, Loop

WHERE = string(b"127.0.0.1") + uint32(8080)


class Stage:
    """A user and a target, with the forwards of one connection between them."""

    def __init__(self, **options: bool) -> None:
        self.log = AuditMemory()
        self.access = root_at_web1(
            memory_context(audit=self.log),
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
        """Deliver all messages in both directions."""
        for _ in range(3):
            self.near.pump()
            self.far.pump()
            while self.from_user.requests:
                self.forwards.request_from_user(self.from_user.requests.pop(0))
            while self.from_target.requests:
                self.forwards.request_from_target(self.from_target.requests.pop(0))


@pytest.mark.parametrize("wants_reply", [True, False])
def test_cancels_remote_forward_that_is_no_longer_allowed(wants_reply: bool) -> None:
    """Also if the user wanted no reply."""
    stage = Stage(remote_forwarding=True)
    answers: list[bool] = []
    on_reply = (lambda success, extra: answers.append(success)) if wants_reply else None
    stage.near.left.request(b"tcpip-forward", WHERE, on_reply)
    stage.pump()
    (request,) = stage.target.requests
    assert (request.name, request.extra, request.want_reply) == (b"tcpip-forward", WHERE, wants_reply)
    request.reply(True)
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
def test_forwards_unknown_requests_only_if_allowed(allowed: bool) -> None:
    stage = Stage(unknown_requests=allowed)
    answers: list[tuple[str, bool]] = []
    for name in (b"new@example.com", b"keepalive@openssh.com"):
        for who, connection in (("user", stage.near.left), ("target", stage.far.right)):
            on_reply = lambda success, _, who=who: answers.append((who, success))  # noqa: E731
            connection.request(name, b"", on_reply)
    stage.pump()
    for receiver in (stage.target, stage.user):
        names = [request.name for request in receiver.requests]
        expected = [b"new@example.com", b"keepalive@openssh.com"] if allowed else [b"keepalive@openssh.com"]
        assert names == expected
        for request in receiver.requests:
            request.reply(True)
    stage.pump()
    assert sorted(answers) == sorted(
        [("user", allowed), ("target", allowed), ("user", True), ("target", True)]
    )
    unknown = [event.sender for event in stage.log.events if isinstance(event, events.UnknownRequest)]
    assert unknown.count("target") == 1
