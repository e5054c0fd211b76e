"""``ssh proxy sign``: the audit and revoked keys."""

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
    """An audit log that may be ``broken``."""

    def __init__(self) -> None:
        self.broken = False
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        if self.broken:
            raise WriteFailed("the audit log cannot be written")
        self.events.append(event)


class PatientDialer:
    """A dialer without time limits."""

    async def within(self, waiting: Deferred[T], seconds: float, late: Callable[[], ConchrecError]) -> T:
        return await waiting


@pytest.fixture
def audit() -> Audit:
    return Audit()


@pytest.fixture
def command(tmp_path: Path, audit: Audit) -> CommandRequest:
    def now() -> datetime:
        return datetime.now(timezone.utc)

    policy = Policy(roles={"ops": Role(name="ops", logins=("root",))})
    context = partial_context(
        settings={"policy": policy, "config": SimpleNamespace(session_recording=Mode.PROXY)},
        authority=Authority.open(tmp_path / "state", "example.com", now=now),
        audit=audit,
        dialer=PatientDialer(),
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


def sign(command: CommandRequest) -> object:
    """Run ``sign``, and return its output or its error."""
    results: list[object] = []
    signing = Deferred.fromCoroutine(certificate.for_key(command))
    signing.addCallbacks(results.append, lambda failure: results.append(failure.value))
    command.stdin.data(public_line(PLAIN).encode())
    assert results == []
    command.stdin.eof()
    (result,) = results
    return result


def test_sign_audits_certificate(command: CommandRequest, audit: Audit) -> None:
    line = sign(command)
    assert isinstance(line, str) and line.endswith(" conchrec:joe\n") and line.count("\n") == 1
    (event,) = audit.events
    assert isinstance(event, CertCreate)
    assert (event.user, event.addr, event.cid, event.purpose) == ("joe", "192.0.2.7:4711", "c1", "sign")


def test_sign_fails_when_audit_cannot_be_written(command: CommandRequest, audit: Audit) -> None:
    audit.broken = True
    assert isinstance(sign(command), WriteFailed)


def test_sign_rejects_revoked_key(command: CommandRequest, audit: Audit) -> None:
    command.context.services.authority.revocations.change(add=Revoked(keys=frozenset({PLAIN})))
    error = sign(command)
    assert isinstance(error, ConchrecError) and "is revoked" in error.public
    assert audit.events == []
