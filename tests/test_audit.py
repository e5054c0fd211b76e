"""The audit's catalogue, its lines, and every sink."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
import unicodedata
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec import audit
from conchrec.audit import (
    CATALOGUE,
    AuditEvent,
    AuditLog,
    AuditMemory,
    AuditSink,
    AuthRefused,
    Exec,
    Port,
    ServiceStart,
    UserLogin,
    line,
    of_session,
)
from conchrec.errors import WriteFailed
from conchrec.model import SessionInfo, Target

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
    """One event of this kind with all its fields, or with no more than it needs."""
    values = {item.name: VALUES[str(item.type)] for item in fields(kind) if full or item.default is MISSING}
    return kind(**values)  # type: ignore[arg-type]


# -- the catalogue


def test_every_class_is_in_the_catalogue() -> None:
    kinds = {
        value
        for value in vars(audit).values()
        if isinstance(value, type) and issubclass(value, AuditEvent) and value is not AuditEvent
    }
    assert kinds == set(CATALOGUE) and len(CATALOGUE) == len(kinds)


def test_names_and_codes_are_unique_and_of_one_form() -> None:
    assert len({kind.event for kind in CATALOGUE}) == len(CATALOGUE)
    assert len({kind.code for kind in CATALOGUE}) == len(CATALOGUE)
    for kind in CATALOGUE:
        assert re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", kind.event)
        assert re.fullmatch(r"CR\d{4}[IWE]", kind.code)


def test_names_that_users_rely_on() -> None:
    assert {kind.event for kind in CATALOGUE} >= {
        "user.login", "auth", "session.start", "session.end", "session.rejected", "exec", "subsystem",
        "port", "x11-forward", "agent", "resize", "client.disconnect", "cert.create", "upstream.failed",
    }  # fmt: skip


@pytest.mark.parametrize("kind", CATALOGUE)
def test_events_are_frozen_values(kind: type[AuditEvent]) -> None:
    event = example(kind, full=True)
    assert is_dataclass(event) and not hasattr(event, "__dict__")
    with pytest.raises(AttributeError):
        event.user = "other"  # type: ignore[misc]


@pytest.mark.parametrize("kind", CATALOGUE)
@pytest.mark.parametrize("full", [True, False])
def test_an_event_is_one_json_object_on_one_line(kind: type[AuditEvent], full: bool) -> None:
    text = line(example(kind, full=full), NOON)
    assert text.endswith(b"\n") and text.count(b"\n") == 1
    read = json.loads(text)
    assert list(read)[:3] == ["time", "event", "code"]
    assert (read["event"], read["code"]) == (kind.event, kind.code)
    assert {"user", "login", "target", "addr", "cid"} <= set(read)
    assert None not in read.values()
    if full:
        assert set(read) == {item.name for item in fields(kind)} | {"time", "event", "code"}


def test_time_is_utc_in_milliseconds() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    assert json.loads(line(Exec(command="ls"), there))["time"] == "2026-11-23T12:00:00.123Z"


def test_what_is_false_or_zero_is_said_and_what_is_unknown_is_not() -> None:
    read = json.loads(line(Port(kind="direct", action="close", sent=0), NOON))
    assert read["sent"] == 0 and "received" not in read
    assert json.loads(line(Exec(command="ls", tty=False), NOON))["tty"] is False


def test_the_subject_of_a_session() -> None:
    info = SessionInfo(
        sid="s1",
        cid="c1",
        user="joe",
        login="root",
        target=Target(host="2001:db8::1", port=2222),
        address="192.0.2.7:50000",
        started=NOON,
    )
    event = Exec(**of_session(info), command="ls")
    assert (event.user, event.login, event.target) == ("joe", "root", "[2001:db8::1]:2222")
    assert (event.addr, event.cid, event.sid) == ("192.0.2.7:50000", "c1", "s1")


# -- what came from outside


@given(st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"])))
def test_any_text_is_safe_to_look_at_and_nothing_of_it_is_lost(text: str) -> None:
    written = line(AuthRefused(reason=text, user=text), NOON)
    assert written.count(b"\n") == 1
    shown = written.decode()[:-1]
    assert shown == "".join(shown.splitlines())
    assert all(
        letter.isprintable() or letter in "\u00a0\u3000" or _is_space_or_new(letter) for letter in shown
    )
    read = json.loads(shown)
    assert read.get("reason", "") == text and read["user"] == text


def _is_space_or_new(letter: str) -> bool:
    """isprintable is also False for other spaces, for private use, and for code points not yet given."""
    return unicodedata.category(letter) in ("Zs", "Co", "Cn")


@pytest.mark.parametrize(
    "letter",
    ["\x00", "\x07", "\x1b", "\n", "\r", "\x7f", "\x85", "\x9b", "\u061c", "\u200b", "\u200e", "\u202e",
     "\u2028",
     "\u2029", "\u2066", "\ufeff", "\udc80", "\U000e0041", "\u00ad"],
)  # fmt: skip
def test_each_dangerous_character_is_an_escape(letter: str) -> None:
    written = line(Exec(command=f"a{letter}b", user=letter), NOON).rstrip(b"\n")
    assert written.isascii() and letter not in written.decode()
    assert json.loads(written)["command"] == f"a{letter}b"


def test_ordinary_text_of_any_language_stays_readable() -> None:
    assert "grep 'größe' 日本語".encode() in line(Exec(command="grep 'größe' 日本語"), NOON)


# -- every sink


@pytest.fixture(params=["file", "memory"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AuditSink:
    return AuditLog(tmp_path / "audit.jsonl") if request.param == "file" else AuditMemory()


def kept(sink: AuditSink) -> list[str]:
    """The names of the events that a sink has kept, in order."""
    if isinstance(sink, AuditMemory):
        return [event.event for event in sink.events]
    assert isinstance(sink, AuditLog)
    return [json.loads(text)["event"] for text in sink.path.read_bytes().splitlines()]


def break_it(sink: AuditSink) -> None:
    if isinstance(sink, AuditMemory):
        sink.broken = WriteFailed("the audit log can not be written: broken")
    else:
        assert isinstance(sink, AuditLog)
        sink.close()


def test_events_are_kept_in_order(sink: AuditSink) -> None:
    sink.emit(ServiceStart(version="1", mode="proxy"))
    sink.emit(UserLogin(method="publickey", user="joe"))
    sink.emit(Exec(command="ls"))
    assert kept(sink) == ["service.start", "user.login", "exec"]


def test_every_kind_of_event_can_be_kept(sink: AuditSink) -> None:
    for kind in CATALOGUE:
        sink.emit(example(kind, full=True))
    assert kept(sink) == [kind.event for kind in CATALOGUE]


def test_reopening_loses_nothing(sink: AuditSink) -> None:
    sink.emit(Exec(command="a"))
    sink.reopen()
    sink.emit(Exec(command="b"))
    assert kept(sink) == ["exec", "exec"]


def test_an_event_that_can_not_be_kept_raises(sink: AuditSink) -> None:
    break_it(sink)
    with pytest.raises(WriteFailed) as caught:
        sink.emit(Exec(command="ls"))
    assert caught.value.public.startswith("the audit log can not be written: ")


# -- the file


class Tick:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class ShortDisk:
    """``os.write`` that takes no more than it is told to, in turn; None fails."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self, descriptor: int, data: bytes) -> int:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else len(data)
        if answer is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, data[:answer])


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        AuditLog(tmp_path / "var" / "log" / "audit.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "var" / "log" / "audit.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "var" / "log").stat().st_mode) == 0o700


def test_a_line_is_one_write(tmp_path: Path) -> None:
    disk = ShortDisk()
    log = AuditLog(tmp_path / "audit.jsonl", write=disk)
    log.emit(Exec(command="x" * 100_000))
    assert disk.calls == 1


def test_what_was_there_stays(tmp_path: Path) -> None:
    for _ in range(3):
        log = AuditLog(tmp_path / "audit.jsonl")
        log.emit(Exec(command="ls"))
        log.close()
    assert kept(log) == ["exec"] * 3


def test_a_short_write_is_completed(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", write=ShortDisk(10, 5))
    log.emit(Exec(command="ls"))
    log.emit(Exec(command="ls"))
    assert kept(log) == ["exec", "exec"]


def test_a_line_torn_by_a_full_disk_does_not_swallow_the_next(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", write=ShortDisk(10, None))
    with pytest.raises(WriteFailed):
        log.emit(Exec(command="lost"))
    log.emit(Exec(command="next"))
    torn, whole = log.path.read_bytes().splitlines()
    assert len(torn) == 10 and json.loads(whole)["command"] == "next"


def test_a_write_of_nothing_is_a_failure(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", write=ShortDisk(0, 0))
    with pytest.raises(WriteFailed):
        log.emit(Exec(command="lost"))


def test_a_line_torn_by_a_crash_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"time":"20')
    AuditLog(path).emit(Exec(command="next"))
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"time":"20' and json.loads(whole)["command"] == "next"


@pytest.mark.parametrize("again", [True, False])
def test_logrotate_moves_it_away(tmp_path: Path, again: bool) -> None:
    """With ``create`` there is a new file at once, without it there is none."""
    tick = Tick()
    log = AuditLog(tmp_path / "audit.jsonl", monotonic=tick)
    log.emit(Exec(command="old"))
    log.path.rename(tmp_path / "audit.jsonl.1")
    if again:
        log.path.touch(0o600)
    tick.seconds = 0.9
    log.emit(Exec(command="still old"))
    tick.seconds = 1.0
    log.emit(Exec(command="new"))
    assert b'"new"' in log.path.read_bytes() and b"old" not in log.path.read_bytes()
    assert (tmp_path / "audit.jsonl.1").read_bytes().count(b"\n") == 2
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_sighup_opens_it_anew_at_once(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", monotonic=Tick())
    log.path.rename(tmp_path / "audit.jsonl.1")
    log.reopen()
    log.emit(Exec(command="new"))
    assert kept(log) == ["exec"] and (tmp_path / "audit.jsonl.1").read_bytes() == b""


def test_a_file_that_can_not_be_opened_anew_is_a_failure_until_it_can(tmp_path: Path) -> None:
    tick = Tick()
    log = AuditLog(tmp_path / "audit.jsonl", monotonic=tick)
    log.path.unlink()
    log.path.mkdir()
    tick.seconds = 1
    for _ in range(2):
        with pytest.raises(WriteFailed):
            log.emit(Exec(command="ls"))
    log.path.rmdir()
    log.emit(Exec(command="ls"))
    assert kept(log) == ["exec"]


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        log.reopen()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["directory", "file/audit.jsonl"])
def test_a_log_that_can_not_be_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed):
        AuditLog(tmp_path / name)


def test_a_full_disk() -> None:
    log = AuditLog(Path("/dev/full"))
    with pytest.raises(WriteFailed) as caught:
        log.emit(Exec(command="ls"))
    assert "No space left on device" in caught.value.public


def test_the_log_may_be_a_pipe() -> None:
    """Containers log to /dev/stdout."""
    program = (
        "from pathlib import Path; from conchrec.audit import *\n"
        "AuditLog(Path('/dev/stdout')).emit(Exec(command='ls'))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(audit.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=env, check=True)
    assert json.loads(done.stdout)["command"] == "ls"


def test_several_processes_share_it(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path / "audit.jsonl") for _ in range(3)]
    for index in range(30):
        logs[index % 3].emit(Exec(command="x" * 5000))
    assert kept(logs[0]) == ["exec"] * 30
