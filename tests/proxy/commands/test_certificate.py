"""``ssh proxy sign``: the audit and revoked keys."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from conchrec.access.policy import Policy
from conchrec.access.role import Role
from conchrec.audit.events import CertCreate
from conchrec.ca.authority import Authority
from conchrec.ca.revocation import Revoked
from conchrec.errors import ConchrecError, WriteFailed
from conchrec.model import Identity
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.commands import certificate
from conchrec.proxy.commands.command_request import CommandRequest
from conchrec.proxy.commands.output import Console
from conchrec.ssh.certificate import public_line
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_context, memory_settings
from tests.support.logins import key

T = TypeVar("T")
PLAIN = key().public().blob()


@pytest.fixture
def audit() -> AuditMemory:
    return AuditMemory()


@pytest.fixture
def command(tmp_path: Path, audit: AuditMemory) -> CommandRequest:
    def now() -> datetime:
        return datetime.now(timezone.utc)

    policy = Policy(roles={"ops": Role(name="ops", logins=("root",))})
    context = memory_context(
        settings=memory_settings(policy=policy),
        authority=Authority.open(tmp_path / "state", "example.com", now=now),
        audit=audit,
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
    signing = Deferred.fromCoroutine(certificate.sign_key(command))
    signing.addCallbacks(results.append, lambda failure: results.append(failure.value))
    command.stdin.data(public_line(PLAIN).encode())
    assert results == []
    command.stdin.eof()
    (result,) = results
    return result


def test_sign_audits_certificate(command: CommandRequest, audit: AuditMemory) -> None:
    line = sign(command)
    assert isinstance(line, str) and line.endswith(" conchrec:joe\n") and line.count("\n") == 1
    (event,) = audit.events
    assert isinstance(event, CertCreate)
    assert (event.user, event.addr, event.cid, event.purpose) == ("joe", "192.0.2.7:4711", "c1", "sign")


def test_sign_fails_when_audit_cannot_be_written(command: CommandRequest, audit: AuditMemory) -> None:
    audit.broken = WriteFailed("the audit log cannot be written")
    assert isinstance(sign(command), WriteFailed)


def test_sign_rejects_revoked_key(command: CommandRequest, audit: AuditMemory) -> None:
    command.context.services.authority.revocations.change(add=Revoked(keys=frozenset({PLAIN})))
    error = sign(command)
    assert isinstance(error, ConchrecError) and "is revoked" in error.public
    assert audit.events == []
