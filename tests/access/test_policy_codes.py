"""Each reason of the policy has its code."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conchrec.access.locks import Lock, LockKind
from conchrec.access.policy import Deny, Policy, decide
from conchrec.config.loader import parse
from conchrec.model import Identity, Target
from conchrec.reasons import ReasonCode

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
TEXT = b"""\
users:
  joe: {roles: [ops, night, office, old, mfa]}
  eve: {}
roles:
  ops: {logins: [root], hosts: ["10.0.0.0/8"], deny: {hosts: [10.9.9.9], logins: [backup]}}
  night: {logins: [root], hosts: [192.0.2.1], options: {times: ["22:00-06:00"]}}
  office: {logins: [root], hosts: [192.0.2.2], options: {source: [198.51.100.0/24]}}
  old: {logins: [root], hosts: [192.0.2.3], options: {expires: 2020-01-01}}
  mfa: {logins: [root], hosts: [192.0.2.4], options: {require_mfa: login}}
"""


def _policy(*locks: Lock) -> Policy:
    policy = parse(TEXT, Path("/etc/conchrec/config.yaml")).policy
    return Policy(roles=policy.roles, ends=policy.ends, locks=locks)


def _code(policy: Policy, host: str, login: str, identity: Identity | None = None) -> ReasonCode:
    roles = ("ops", "night", "office", "old", "mfa")
    who = identity or Identity(user="joe", method="publickey", roles=roles)
    decision = decide(policy, who, Target(host=host), (host,), login, "203.0.113.1", NOW)
    assert isinstance(decision, Deny)
    return decision.code


@pytest.mark.parametrize(
    ("host", "login", "code"),
    [
        ("10.9.9.9", "root", ReasonCode.HOST_DENIED),
        ("203.0.113.9", "root", ReasonCode.HOST_NOT_ALLOWED),
        ("192.0.2.1", "root", ReasonCode.TIME_NOT_ALLOWED),
        ("192.0.2.2", "root", ReasonCode.SOURCE_NOT_ALLOWED),
        ("192.0.2.3", "root", ReasonCode.ROLE_ENDED),
        ("192.0.2.4", "root", ReasonCode.SECOND_FACTOR_REQUIRED),
        ("10.0.0.1", "backup", ReasonCode.LOGIN_DENIED),
        ("10.0.0.1", "nobody", ReasonCode.LOGIN_NOT_ALLOWED),
        ("10.0.0.1", "a/b", ReasonCode.INVALID_LOGIN),
        ("10.1", "root", ReasonCode.INVALID_TARGET),
    ],
)
def test_returns_code_of_denial(host: str, login: str, code: ReasonCode) -> None:
    assert _code(_policy(), host, login) is code


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (LockKind.USER, "joe", ReasonCode.USER_LOCKED),
        (LockKind.TARGET, "10.0.0.1", ReasonCode.TARGET_LOCKED),
        (LockKind.LOGIN, "root", ReasonCode.LOGIN_LOCKED),
    ],
)
def test_returns_code_of_lock(kind: LockKind, name: str, code: ReasonCode) -> None:
    assert _code(_policy(Lock(kind=kind, name=name)), "10.0.0.1", "root") is code


def test_returns_code_without_role_or_in_other_time() -> None:
    nobody = Identity(user="eve", method="publickey")
    assert _code(_policy(), "10.0.0.1", "root", nobody) is ReasonCode.NO_ROLE
    late = Identity(user="joe", method="publickey", roles=("ops",), expires=NOW - timedelta(seconds=1))
    assert _code(_policy(), "10.0.0.1", "root", late) is ReasonCode.LOGIN_EXPIRED
