"""The file of the audit log: complete lines, rotation, crashes, full disks, and several processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from conchrec.audit import log as audit_log_module
from conchrec.audit.chain import ChainLink, Head, head_of
from conchrec.audit.events import Exec, Resize
from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.log import HEAD_LINES, HEAD_SECONDS, AuditLog
from conchrec.audit.log_file import NO_WAIT_SECONDS
from conchrec.errors import WriteFailed
from tests.support.auditlog import SIGNER, audit_log, events, lines


class Tick:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class ShortDisk:
    """``os.write`` that takes the given numbers of bytes, in turn; None fails."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self, descriptor: int, data: bytes) -> int:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else len(data)
        if answer is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, data[:answer])


def commands(path: Path) -> list[object]:
    return [event["command"] for event in events(path) if event["event"] == "exec"]


def reasons(path: Path) -> list[object]:
    """The reasons of the heads, in order."""
    return [line["reason"] for line in lines(path) if line["event"] == "audit.head"]


def test_creates_file_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        audit_log(tmp_path, "var/log/audit.jsonl").emit(Exec(command="ls"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "var" / "log" / "audit.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "var" / "log").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "audit_heads").stat().st_mode) == 0o600


def test_writes_event_with_the_lines_before_it_in_one_call(tmp_path: Path) -> None:
    disk = ShortDisk()
    log = audit_log(tmp_path, write=disk)
    for number in (1, 2):
        log.emit(Exec(command="x" * 100_000))
        assert disk.calls == number
    assert [line["event"] for line in lines(log.path)] == ["audit.head", "exec", "exec"]


def test_begins_no_chain_without_events(tmp_path: Path) -> None:
    log = audit_log(tmp_path)
    log.tick()
    log.close()
    assert log.path.read_bytes() == b"" and not (tmp_path / "audit_heads").exists()


def test_keeps_existing_contents(tmp_path: Path) -> None:
    for _ in range(3):
        log = audit_log(tmp_path)
        log.emit(Exec(command="ls"))
        log.close()
        log.close()
    assert commands(log.path) == ["ls"] * 3
    assert reasons(log.path) == ["open", "close"] * 3


def test_refuses_events_after_close(tmp_path: Path) -> None:
    log = audit_log(tmp_path)
    log.emit(Exec(command="ls"))
    log.close()
    with pytest.raises(WriteFailed, match="closed"):
        log.emit(Exec(command="late"))


# -- heads


def test_signs_lines_after_some_seconds(tmp_path: Path) -> None:
    tick = Tick()
    log = audit_log(tmp_path, monotonic=tick)
    log.emit(Exec(command="ls"))
    for seconds in (HEAD_SECONDS - 0.1, HEAD_SECONDS, 10 * HEAD_SECONDS, 20 * HEAD_SECONDS):
        tick.seconds = seconds
        log.tick()
    assert reasons(log.path) == ["open", "interval"], "and not again where nothing was written"
    log.emit(Exec(command="ls"))
    log.tick()
    assert reasons(log.path) == ["open", "interval", "interval"]


def test_signs_lines_after_some_number(tmp_path: Path) -> None:
    log = audit_log(tmp_path, monotonic=Tick())
    for _ in range(2 * HEAD_LINES):
        log.emit(Resize(columns=80, rows=24))
    assert reasons(log.path) == ["open", "interval", "interval"]


def test_keeps_last_head_in_the_state_directory(tmp_path: Path) -> None:
    heads = AuditHeadFile(tmp_path / "audit_heads")
    log = audit_log(tmp_path)
    log.emit(Exec(command="ls"))
    log.close()
    *_, last = log.path.read_bytes().splitlines(keepends=True)
    assert heads.lines() == (last,)


def test_names_earlier_chains_in_a_new_chain(tmp_path: Path) -> None:
    """So a missing chain is noticed."""
    service = audit_log(tmp_path, monotonic=Tick())
    service.emit(Exec(command="service"))
    for _ in range(2):
        command = audit_log(tmp_path)
        command.emit(Exec(command="command"))
        command.close()
    service.close()
    raw = service.path.read_bytes().splitlines(keepends=True)
    heads = [head for line in raw if (head := head_of(line)) is not None]
    after = [json.loads(line).get("after", []) for line in raw if b'"reason":"open"' in line]
    assert after == [[], [str(heads[0])], [str(heads[2])]]
    assert {head.chain for head in AuditHeadFile(tmp_path / "audit_heads").heads()} == {
        heads[0].chain,
        heads[3].chain,
    }
    assert Head.parse(after[1][0]) == heads[0]


def test_reports_unwritable_heads_once_and_continues(tmp_path: Path) -> None:
    (tmp_path / "audit_heads").mkdir()
    complaints: list[str] = []
    log = audit_log(tmp_path, complain=complaints.append)
    for _ in range(3):
        log.emit(Exec(command="ls"))
        log.reopen()
    log.close()
    assert commands(log.path) == ["ls"] * 3
    assert complaints == [
        f"cannot read {tmp_path}/audit_heads: Is a directory",
        f"cannot write {tmp_path}/audit_heads: Is a directory",
    ]


def test_ignores_garbage_in_the_kept_heads(tmp_path: Path) -> None:
    (tmp_path / "audit_heads").write_bytes(b'{"event":"audit.head"}\n\xff\xfe\n{"time"')
    log = audit_log(tmp_path, complain=pytest.fail)
    log.emit(Exec(command="ls"))
    log.close()
    assert len(AuditHeadFile(tmp_path / "audit_heads").lines()) == 1


def test_has_room_for_every_kept_head(tmp_path: Path) -> None:
    logs = [audit_log(tmp_path, monotonic=Tick()) for _ in range(40)]
    for log in logs:
        log.emit(Exec(command="ls"))
    for log in logs:
        log.close()
    last = audit_log(tmp_path)
    last.emit(Exec(command="ls"))
    (opening,) = [line for line in lines(last.path)[-2:] if line["event"] == "audit.head"]
    assert "after_count" not in opening and len(opening["after"]) == 32  # type: ignore[arg-type]


def test_covers_contents_older_than_the_first_chain(tmp_path: Path) -> None:
    before = b'{"event":"exec","command":"old"}\n' * 3
    (tmp_path / "audit.jsonl").write_bytes(before)
    log = audit_log(tmp_path)
    log.emit(Exec(command="new"))
    log.close()
    opening = lines(log.path)[3]
    assert opening["adopted_size"] == len(before)
    assert opening["adopted_sha256"] == hashlib.sha256(before).hexdigest()
    again = audit_log(tmp_path)
    again.emit(Exec(command="again"))
    assert "adopted_size" not in lines(again.path)[-2], "and never again"


# -- the disk


def test_completes_short_write(tmp_path: Path) -> None:
    log = audit_log(tmp_path, write=ShortDisk(10, 5))
    log.emit(Exec(command="ls"))
    log.emit(Exec(command="ls"))
    assert commands(log.path) == ["ls", "ls"]


def test_removes_partial_line_when_disk_is_full(tmp_path: Path) -> None:
    """The log also says what is missing."""
    log = audit_log(tmp_path, write=ShortDisk(5000, 10, None, None))
    log.emit(Exec(command="first"))
    for event in (Exec(command="lost"), Resize(columns=1, rows=1)):
        with pytest.raises(WriteFailed):
            log.emit(event)
    assert commands(log.path) == ["first"]
    log.emit(Exec(command="next"))
    *_, lost, following = events(log.path)
    assert (lost["event"], lost["count"]) == ("audit.lost", 2)
    assert lost["events"] == ["exec 1", "resize 1"]
    assert "No space left on device" in str(lost["reason"]) and lost["first"] <= lost["last"]  # type: ignore[operator]
    assert following["command"] == "next"
    log.emit(Exec(command="once"))
    assert [event["event"] for event in events(log.path)].count("audit.lost") == 1


def test_fails_when_nothing_is_written(tmp_path: Path) -> None:
    log = audit_log(tmp_path, write=ShortDisk(0, 0))
    with pytest.raises(WriteFailed):
        log.emit(Exec(command="lost"))


@pytest.mark.parametrize("torn", [b'{"time":"20', b"\x00" * 200_000, b"x"])
@pytest.mark.parametrize("before", [b"", b'{"event":"exec"}\n'])
def test_ends_and_reports_line_torn_by_crash(tmp_path: Path, torn: bytes, before: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(before + torn)
    audit_log(tmp_path).emit(Exec(command="next"))
    *_, opening, repair, following = path.read_bytes().removeprefix(before + torn + b"\n").splitlines()
    assert json.loads(opening)["reason"] == "open"
    event = json.loads(repair)
    assert (event["event"], event["size"]) == ("audit.repair", len(torn))
    assert event["sha256"] == hashlib.sha256(torn).hexdigest()
    assert json.loads(following)["command"] == "next"


def test_keeps_own_lines_after_line_torn_by_another_process(tmp_path: Path) -> None:
    log = audit_log(tmp_path)
    log.emit(Exec(command="first"))
    with log.path.open("ab") as file:
        file.write(b'{"half":')
    log.emit(Exec(command="second"))
    assert b'\n{"half":\n{' in log.path.read_bytes()
    assert log.path.read_bytes().count(b"audit.repair") == 1
    log.emit(Exec(command="third"))
    assert log.path.read_bytes().count(b"audit.repair") == 1


def test_notes_file_that_was_truncated(tmp_path: Path) -> None:
    """By logrotate's copytruncate, or by somebody who wants to hide something."""
    log = audit_log(tmp_path)
    log.emit(Exec(command="first"))
    os.truncate(log.path, 0)
    log.emit(Exec(command="second"))
    (head, event) = lines(log.path)
    assert (head["reason"], head["seq"], event["command"]) == ("truncated", 2, "second")


def test_does_not_wait_long_for_a_held_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("conchrec.file_lock.PATIENCE_SECONDS", 0.002)
    monkeypatch.setattr("conchrec.file_lock.time.sleep", pauses.append)
    tick = Tick()
    log = audit_log(tmp_path, monotonic=tick)
    with log.path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        log.emit(Exec(command="ls"))
        waited = len(pauses)
        assert waited, "for a moment"
        for _ in range(100):
            log.emit(Exec(command="ls"))
        assert len(pauses) == waited, "and once"
        tick.seconds = NO_WAIT_SECONDS
        log.emit(Exec(command="ls"))
        assert len(pauses) > waited
    assert commands(log.path) == ["ls"] * 102


def test_reports_no_torn_line_while_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that could not get the lock."""
    log = audit_log(tmp_path)
    log.emit(Exec(command="first"))
    with log.path.open("ab", buffering=0) as file:
        file.write(b'{"event":')
        monkeypatch.setattr("conchrec.audit.log_file.time.sleep", lambda _: file.write(b'"other"}\n'))
        log.emit(Exec(command="second"))
    assert [event["event"] for event in events(log.path)] == ["exec", "other", "exec"]


# -- rotation


@pytest.mark.parametrize("again", [True, False])
def test_follows_logrotate(tmp_path: Path, again: bool) -> None:
    """With ``create`` there is a new file at once, without it no file."""
    tick = Tick()
    log = audit_log(tmp_path, monotonic=tick)
    log.emit(Exec(command="old"))
    log.path.rename(tmp_path / "audit.jsonl.1")
    if again:
        log.path.touch(0o600)
    tick.seconds = 0.9
    log.emit(Exec(command="still old"))
    tick.seconds = 1.0
    log.emit(Exec(command="new"))
    assert commands(log.path) == ["new"]
    assert commands(tmp_path / "audit.jsonl.1") == ["old", "still old"]
    assert reasons(tmp_path / "audit.jsonl.1") == ["open", "rotated"]
    assert reasons(log.path) == ["continue"]
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_rotates_without_new_events(tmp_path: Path) -> None:
    log = audit_log(tmp_path)
    log.emit(Exec(command="old"))
    log.path.rename(tmp_path / "audit.jsonl.1")
    log.tick()
    log.tick()
    assert (reasons(tmp_path / "audit.jsonl.1"), reasons(log.path)) == (["open", "rotated"], ["continue"])


def test_reopens_at_once(tmp_path: Path) -> None:
    log = audit_log(tmp_path, monotonic=Tick())
    log.path.rename(tmp_path / "audit.jsonl.1")
    log.reopen()
    log.emit(Exec(command="new"))
    assert commands(log.path) == ["new"] and (tmp_path / "audit.jsonl.1").read_bytes() == b""
    assert reasons(log.path) == ["open"]


def test_fails_until_it_can_be_reopened(tmp_path: Path) -> None:
    tick = Tick()
    log = audit_log(tmp_path, monotonic=tick)
    log.path.unlink()
    log.path.mkdir()
    tick.seconds = 1
    for _ in range(2):
        with pytest.raises(WriteFailed):
            log.emit(Exec(command="ls"))
    log.path.rmdir()
    log.emit(Exec(command="ls"))
    assert commands(log.path) == ["ls"]


def test_leaves_no_descriptor_open(tmp_path: Path) -> None:
    log = audit_log(tmp_path)
    log.emit(Exec(command="ls"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        log.reopen()
        log.tick()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["directory", "file/audit.jsonl"])
def test_raises_when_it_cannot_be_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed):
        audit_log(tmp_path, name)


# -- pipes


def test_raises_when_disk_is_full(tmp_path: Path) -> None:
    log = audit_log(tmp_path, "/dev/full")
    with pytest.raises(WriteFailed) as caught:
        log.emit(Exec(command="ls"))
    assert "No space left on device" in caught.value.public


def test_writes_to_a_pipe(tmp_path: Path) -> None:
    """Containers log to /dev/stdout."""
    program = (
        "import sys; from pathlib import Path; from conchrec.audit.events import *\n"
        "from tests.support.auditlog import audit_log\n"
        "log = audit_log(Path(sys.argv[1]), '/dev/stdout')\n"
        "log.emit(Exec(command='ls')); log.tick(); log.close()"
    )
    env = os.environ | {"PYTHONPATH": str(Path(audit_log_module.__file__).parents[2])}
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, env=env, check=True)
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in written] == ["audit.head", "exec", "audit.head"]


# -- several processes


def test_shares_file_between_processes(tmp_path: Path) -> None:
    logs = [audit_log(tmp_path) for _ in range(3)]
    for index in range(30):
        logs[index % 3].emit(Exec(command="x" * 5000))
    assert commands(logs[0].path) == ["x" * 5000] * 30
    assert len({line["chain"] for line in lines(logs[0].path)}) == 3


def test_links_lines(tmp_path: Path) -> None:
    """Computes the format independently."""
    log = audit_log(tmp_path)
    for number in range(3):
        log.emit(Exec(command=f"number {number}"))
    log.close()
    raw = log.path.read_bytes().splitlines(keepends=True)
    chain = json.loads(raw[0])["chain"]
    digest = hashlib.sha256(b"conchrec audit 1\n" + chain.encode()).digest()
    for number, line in enumerate(raw):
        read = json.loads(line)
        assert (read["chain"], read["seq"], read["prev"]) == (chain, number, digest.hex()[:16])
        if read["event"] == "audit.head":
            assert read["head"] == digest.hex()
            SIGNER.keys().audit_head(line)
        digest = hashlib.sha256(digest + line).digest()
    assert ChainLink.start(chain).digest == hashlib.sha256(b"conchrec audit 1\n" + chain.encode()).digest()


def test_copies_lines_with_their_chain(tmp_path: Path) -> None:
    copies: list[bytes] = []
    log = audit_log(tmp_path, copy=lambda event, line: copies.append(line))
    log.emit(Exec(command="ls"))
    log.close()
    assert isinstance(log, AuditLog) and b"".join(copies) == log.path.read_bytes()
