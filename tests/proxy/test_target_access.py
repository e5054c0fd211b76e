"""The state of one user's access to one target."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import conchrec
from conchrec.access.options import Record, SessionOptions
from conchrec.access.policy import Allow
from conchrec.audit.events import ConnectionRefused
from conchrec.errors import WriteFailed
from conchrec.model import Identity
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from tests.support.auditlog import AuditMemory
from tests.support.context import access_to_web1, memory_context, set_options

JOE = Identity(user="joe", method="publickey")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
EVENT = ConnectionRefused(
    addr="192.0.2.7", reason=Reason(ReasonCode.TOO_MANY_CONNECTIONS, "too many connections"), count=1
)


@pytest.fixture
def access() -> TargetAccess:
    return access_to_web1(memory_context(), JOE, ("192.0.2.9",))


def test_allows_nothing_before_decision(access: TargetAccess) -> None:
    assert (access.options, access.roles, access.until, access.is_strict) == (None, (), None, True)


@pytest.mark.parametrize(
    ("policy", "certificate", "until"),
    [(None, None, None), (5, None, 5), (None, 3, 3), (5, 3, 3), (3, 5, 3)],
)
def test_expires_at_earliest_end(
    access: TargetAccess, policy: int | None, certificate: int | None, until: int | None
) -> None:
    def at(hours: int | None) -> datetime | None:
        return None if hours is None else NOON + timedelta(hours=hours)

    access.set_inner_identity(replace(JOE, expires=at(certificate)))
    access.set_allowed(Allow(rule="ops", options=SessionOptions(), addresses=(), until=at(policy)))
    assert access.until == at(until)


def test_keeps_addresses_when_allowed_again(access: TargetAccess) -> None:
    """The addresses that were dialled stay, until others are permitted."""
    access.set_allowed(Allow(rule="ops", options=SessionOptions(), addresses=("192.0.2.10",)))
    assert access.destination.addresses == ("192.0.2.9",)
    access.set_permitted_addresses(("192.0.2.10",))
    assert access.destination.addresses == ("192.0.2.10",)


def test_raises_when_strict_event_cannot_be_written() -> None:
    audit = AuditMemory()
    audit.broken = WriteFailed("the audit log could not be written", code=ReasonCode.AUDIT_WRITE_FAILED)
    access = access_to_web1(memory_context(audit=audit), JOE)
    set_options(access, SessionOptions(record=Record.STRICT))
    with pytest.raises(WriteFailed):
        access.emit(EVENT)
    set_options(access, SessionOptions(record=Record.BEST_EFFORT))
    access.emit(EVENT)


def assignments(path: Path) -> Iterator[str]:
    """The assignments of a module to attributes of an access, of its activity, or of a registry."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            owner = ast.unparse(target.value) if isinstance(target, ast.Attribute) else ""
            if owner.rpartition(".")[2] in ("access", "_access", "activity", "registry"):
                yield f"{path.name}: {ast.unparse(target)}"


def test_is_changed_only_by_own_methods() -> None:
    modules = sorted((Path(conchrec.__file__).parent / "proxy").rglob("*.py"))
    assert len(modules) > 40
    assert [name for path in modules for name in assignments(path)] == []
