"""Every refusal has a code from the catalogue, and the catalogue is documented and used."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError, Unreachable
from conchrec.proxy import refusals
from conchrec.reasons import Reason, ReasonCode
from conchrec.text import one_line
from tests.support.auditlog import line

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "conchrec" / "reasons.py"
#: A raise of one of these says nothing without a code of its own.
GENERAL = frozenset({"ConchrecError", "AccessDenied", "UpstreamError", "RecordingError", "LoginRejected"})

Trees = dict[Path, ast.Module]


@pytest.fixture(scope="module")
def trees() -> Trees:
    """All our modules, parsed."""
    return {path: ast.parse(path.read_text()) for path in sorted((ROOT / "conchrec").rglob("*.py"))}


def _calls(trees: Trees) -> Iterator[tuple[Path, ast.Call, str]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                yield path, node, getattr(function, "id", getattr(function, "attr", ""))


def test_names_code_like_its_member() -> None:
    assert [code.value for code in ReasonCode] == [code.name.lower() for code in ReasonCode]


def test_names_code_for_general_error_class(trees: Trees) -> None:
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        for path, call, name in _calls(trees)
        if name in GENERAL and not any(keyword.arg == "code" for keyword in call.keywords)
    ]
    assert without == []


def test_uses_every_code(trees: Trees) -> None:
    used = {
        node.attr
        for path, tree in trees.items()
        if path != CATALOGUE
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "ReasonCode"
    }
    catalogue = ast.walk(trees[CATALOGUE])
    used |= {
        node.args[0].attr
        for node in catalogue
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Attribute)
    }
    assert {code.name for code in ReasonCode} - used == set()
    assert used - {code.name for code in ReasonCode} == set()


def test_derives_code_of_error_from_argument_text_or_class() -> None:
    assert Unreachable("no").code is ReasonCode.UNREACHABLE
    assert Unreachable("no", code=ReasonCode.CONNECT_TIMEOUT).code is ReasonCode.CONNECT_TIMEOUT
    assert AccessDenied(Reason(ReasonCode.NO_ROLE, "no")).code is ReasonCode.NO_ROLE
    assert ConchrecError("no").code is ReasonCode.INTERNAL_ERROR


def test_audits_code_beside_text() -> None:
    denied = AccessDenied("joe has no role", rule="none", code=ReasonCode.NO_ROLE)
    who = events.Who(user="joe", login="", target="", addr="", cid="", sid="")
    event = refusals.failure_event(denied, who)
    entry = json.loads(line(event, datetime(2026, 11, 29, tzinfo=timezone.utc)))
    assert (entry["reason"], entry["reason_code"]) == ("joe has no role", "no_role")


def test_keeps_code_when_text_is_cut() -> None:
    reason = one_line(Reason(ReasonCode.CHANNEL_REFUSED, "no\n" * 5000))
    assert isinstance(reason, Reason)
    assert reason.code is ReasonCode.CHANNEL_REFUSED
    event = events.Port(kind="direct", action="refused", reason=reason)
    entry = json.loads(line(event, datetime(2026, 11, 29, tzinfo=timezone.utc)))
    assert entry["reason_code"] == "channel_refused"
    assert len(entry["reason"]) < 1100


def test_audits_no_code_for_text_without_code() -> None:
    event = events.LockCreate(kind="user", name="joe", by="root", reason="holiday")
    entry = json.loads(line(event, datetime(2026, 11, 29, tzinfo=timezone.utc)))
    assert "reason_code" not in entry
