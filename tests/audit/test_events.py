"""The catalogue of audit events, and the contract of every sink."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conchrec.audit import events as audit_events
from conchrec.audit.chain import MEMBERS
from conchrec.audit.events import (
    CATALOGUE,
    AuditEvent,
    AuditHead,
    AuditSink,
    Exec,
    Port,
    ServiceStart,
    UserLogin,
)
from conchrec.audit.log import AuditLog
from conchrec.errors import WriteFailed
from tests.support.auditlog import AuditMemory, audit_log, events, line

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=timezone.utc)
VALUES: dict[str, object] = {
    "str": "x",
    "str | None": "x",
    "int": 7,
    "int | None": 7,
    "float": 1.5,
    "float | None": 1.5,
    "bool": True,
    "bool | None": True,
    "tuple[str, ...]": ("a", "b"),
}


def example(kind: type[AuditEvent], *, full: bool) -> AuditEvent:
    """Return an event of this kind with all its fields, or only with those that it needs."""
    values = {item.name: VALUES[str(item.type)] for item in fields(kind) if full or item.default is MISSING}
    return kind(**values)  # type: ignore[arg-type]


# -- the catalogue


def test_catalogue_has_every_class() -> None:
    kinds = {
        value
        for value in vars(audit_events).values()
        if isinstance(value, type) and issubclass(value, AuditEvent) and value is not AuditEvent
    }
    assert kinds == set(CATALOGUE) and len(CATALOGUE) == len(kinds)


def test_has_unique_names_and_codes_of_one_form() -> None:
    assert len({kind.event for kind in CATALOGUE}) == len(CATALOGUE)
    assert len({kind.code for kind in CATALOGUE}) == len(CATALOGUE)
    for kind in CATALOGUE:
        assert re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", kind.event)
        assert re.fullmatch(r"CR\d{4}[IWE]", kind.code)


def test_keeps_names_that_users_rely_on() -> None:
    assert {kind.event for kind in CATALOGUE} >= {
        "user.login", "auth", "session.start", "session.end", "session.rejected", "exec", "subsystem",
        "port", "x11-forward", "agent", "resize", "client.disconnect", "cert.create", "upstream.failed",
    }  # fmt: skip


@pytest.mark.parametrize("kind", CATALOGUE)
def test_has_no_field_with_the_name_of_a_chain_member_or_a_cut(kind: type[AuditEvent]) -> None:
    """A reader could not tell one from the other."""
    types = {item.name: str(item.type) for item in fields(kind)}
    assert not set(types) & {*MEMBERS, "time", "event", "code"}
    for name, is_of in types.items():
        ends = {"str": ("size", "sha256"), "tuple[str, ...]": ("count", "sha256")}.get(is_of, ())
        assert not {f"{name}_{end}" for end in ends} & set(types)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_has_frozen_values(kind: type[AuditEvent]) -> None:
    event = example(kind, full=True)
    assert is_dataclass(event) and not hasattr(event, "__dict__")
    with pytest.raises(AttributeError):
        event.user = "other"  # type: ignore[misc]


@pytest.mark.parametrize("kind", CATALOGUE)
@pytest.mark.parametrize("full", [True, False])
def test_encodes_event_as_one_json_object_on_one_line(kind: type[AuditEvent], full: bool) -> None:
    text = line(example(kind, full=full), NOON)
    assert text.endswith(b"\n") and text.count(b"\n") == 1
    read = json.loads(text)
    assert list(read)[:3] == ["time", "event", "code"]
    assert (read["event"], read["code"]) == (kind.event, kind.code)
    assert {"user", "login", "target", "addr", "cid"} <= set(read)
    assert None not in read.values()
    if full:
        assert set(read) == {item.name for item in fields(kind)} | {"time", "event", "code"}


def test_writes_time_in_utc_with_milliseconds() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    assert json.loads(line(Exec(command="ls"), there))["time"] == "2026-11-23T12:00:00.123Z"


def test_writes_false_and_zero_but_not_unknown_values() -> None:
    read = json.loads(line(Port(kind="direct", action="close", sent=0), NOON))
    assert read["sent"] == 0 and "received" not in read
    assert json.loads(line(Exec(command="ls", tty=False), NOON))["tty"] is False


# -- every sink


@pytest.fixture(params=["file", "memory"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AuditSink:
    return audit_log(tmp_path) if request.param == "file" else AuditMemory()


def kept(sink: AuditSink) -> list[str]:
    """Return the names of the events that a sink has kept, in order."""
    if isinstance(sink, AuditMemory):
        return [event.event for event in sink.events]
    assert isinstance(sink, AuditLog)
    return [str(event["event"]) for event in events(sink.path)]


def memory(sink: AuditSink) -> bool:
    return isinstance(sink, AuditMemory)


def break_it(sink: AuditSink) -> None:
    if isinstance(sink, AuditMemory):
        sink.broken = WriteFailed("the audit log cannot be written: broken")
    else:
        assert isinstance(sink, AuditLog)
        sink.close()


def test_keeps_events_in_order(sink: AuditSink) -> None:
    sink.emit(ServiceStart(version="1", mode="proxy"))
    sink.emit(UserLogin(method="publickey", user="joe"))
    sink.emit(Exec(command="ls"))
    assert kept(sink) == ["service.start", "user.login", "exec"]


def test_keeps_every_kind_of_event(sink: AuditSink) -> None:
    for kind in CATALOGUE:
        sink.emit(example(kind, full=True))
    assert kept(sink) == [kind.event for kind in CATALOGUE if kind is not AuditHead or memory(sink)]


def test_loses_nothing_at_reopen(sink: AuditSink) -> None:
    sink.emit(Exec(command="a"))
    sink.reopen()
    sink.emit(Exec(command="b"))
    assert kept(sink) == ["exec", "exec"]


def test_raises_when_event_cannot_be_kept(sink: AuditSink) -> None:
    break_it(sink)
    with pytest.raises(WriteFailed) as caught:
        sink.emit(Exec(command="ls"))
    assert caught.value.public.startswith("the audit log ")
