"""A certificate that can't be audited, or is for a key that is revoked, is not given away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from conchrec.access.policy import Policy
from conchrec.access.role import Role
from conchrec.audit.events import AuditEvent, CertCreate
from conchrec.ca.authority import Authority, public_line
from conchrec.ca.revocation import Revoked
from conchrec.config.model import Mode
from conchrec.errors import ConchrecError, WriteFailed
from conchrec.model import Identity
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.commands import certificate
from conchrec.proxy.commands.output import Console
from conchrec.proxy.commands.request import CommandRequest
from tests.support.context import partial_context
from tests.support.logins import key

T = TypeVar("T")
PLAIN = key().public().blob()


class Audit:
    """``broken``: it cannot be written."""

    def __init__(self) -> None:
        self.broken = False
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        if self.broken:
            raise WriteFailed("the audit log cannot be written")
        self.events.append(event)


class Waiting:
    """The dialer's clock, in which nothing takes too long."""

    async def within(self, waiting: Deferred[T], seconds: float, late: Callable[[], ConchrecError]) -> T:
        return await waiting


@pytest.fixture
def audit() -> Audit:
    return Audit()


@pytest.fixture
def asking(tmp_path: Path, audit: Audit) -> CommandRequest:
    def now() -> datetime:
        return datetime.now(timezone.utc)

    policy = Policy(roles={"ops": Role(name="ops", logins=("root",))})
    context = partial_context(
        settings={"policy": policy, "config": SimpleNamespace(session_recording=Mode.PROXY)},
        authority=Authority.open(tmp_path / "state", "example.com", now=now),
        audit=audit,
        dialer=Waiting(),
        signing=maybeDeferred,
        now=now,
    )
    return CommandRequest(
        context=context,
        who=lambda: Identity(user="joe", method="publickey", roles=("ops",)),
        source="192.0.2.7",
        address="192.0.2.7:4711",
        cid="c1",
        agent=AgentSource("outer"),
        console=Console(Clock()),
    )


def signed(asking: CommandRequest) -> object:
    """What becomes of the request: a line, or an error."""
    found: list[object] = []
    signing = Deferred.fromCoroutine(certificate.for_key(asking))
    signing.addCallbacks(found.append, lambda failure: found.append(failure.value))
    asking.stdin.data(public_line(PLAIN).encode())
    assert found == []
    asking.stdin.eof()
    (result,) = found
    return result


def test_one_that_is_audited(asking: CommandRequest, audit: Audit) -> None:
    line = signed(asking)
    assert isinstance(line, str) and line.endswith(" conchrec:joe\n") and line.count("\n") == 1
    (event,) = audit.events
    assert isinstance(event, CertCreate)
    assert (event.user, event.addr, event.cid, event.purpose) == ("joe", "192.0.2.7:4711", "c1", "sign")


def test_one_that_can_not_be_audited(asking: CommandRequest, audit: Audit) -> None:
    audit.broken = True
    assert isinstance(signed(asking), WriteFailed)


def test_a_key_that_is_revoked(asking: CommandRequest, audit: Audit) -> None:
    asking.context.services.authority.revocations.change(add=Revoked(keys=frozenset({PLAIN})))
    error = signed(asking)
    assert isinstance(error, ConchrecError) and "is revoked" in error.public
    assert audit.events == []
