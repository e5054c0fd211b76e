"""The index: what is found, what is not, and that lists work without it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock

from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.catalogue.index import NAME, Index, IndexBroken, IndexUnusable, NothingToSearch
from conchrec.recording.catalogue.indexer import BUSY, DELAY_SECONDS, LOCK_NAME, Indexer, fill
from tests.recording.recording_bench import NOON, Bench

VIM = b"\x1b[?1049h\x1b[22;0;0t\x1b[2;1H\x1b[1m~  \x1b[m\x1b[5;3Hsecret plans\x1b[K\x1b[24;1H:wq\x1b[?1049l"


def record(bench: Bench, *output: bytes, command: str = "", to: tuple[str, ...] = ()) -> ClosedRecording:
    recorder = bench.store(recipients=to).open(bench.info())
    recorder.start("exec" if command else "shell", command)
    for piece in output:
        bench.clock.advance(1)
        recorder.output(piece)
    return bench.close(recorder)


def search(bench: Bench, *phrases: str, **when: datetime) -> list[tuple[str, float | None, str]]:
    """Return session, time and line of every hit, with what was searched for in brackets."""
    with Index(bench.directory) as index:
        return [
            (
                hit.sid,
                hit.time,
                "".join(f"[{part}]" if number % 2 else part for number, part in enumerate(hit.parts)),
            )
            for hit in index.search(phrases, since=when.get("since"), until=when.get("until"))
        ]


def test_finds_lines_with_their_time(bench: Bench) -> None:
    sid = record(
        bench, b"$ psql\r\n", b"db=# drop ta", b"ble users;\r\nDROP TABLE\r\n", b"db=# select 1;\r\n"
    ).manifest.sid
    assert fill(bench.directory) == []
    assert search(bench, "drop table") == [
        (sid, 3.0, "db=# [drop table] users;"),
        (sid, 3.0, "[DROP TABLE]"),
    ]
    assert search(bench, "table drop") == []
    assert [line for _, _, line in search(bench, "psql", "select")] == ["$ [psql]", "db=# [select] 1;"]
    assert search(bench, "psql", "nowhere") == []


def test_finds_output_on_the_alternate_screen(bench: Bench) -> None:
    sid = record(bench, VIM).manifest.sid
    fill(bench.directory)
    assert [(hit_sid, line.strip()) for hit_sid, _, line in search(bench, "secret plans")] == [
        (sid, "[secret plans]")
    ]


def test_finds_phrase_across_lines(bench: Bench) -> None:
    record(bench, b"one two\r\nthree four\r\nthree\r\n")
    fill(bench.directory)
    assert [line for _, _, line in search(bench, "two three")] == ["one [two]"]


@pytest.mark.parametrize("phrase", ["\u2714\ufe0f done", "a\u200db", "tab\there"])
def test_escapes_phrase_like_the_screen(bench: Bench, phrase: str) -> None:
    record(bench, f"so: {phrase}\r\n".encode())
    fill(bench.directory)
    assert len(search(bench, phrase)) == 1


def test_finds_commands_and_names_of_files(bench: Bench) -> None:
    sid = record(bench, b"\x00\xff\x1b]0;title\x07out\r\n", command='rm -rf "/srv/da\udcffta"').manifest.sid
    fill(bench.directory)
    assert search(bench, "rm -rf") == [(sid, None, '[rm -rf] "/srv/da\\udcffta"')]
    assert search(bench, "title") == [], "it was never on the screen"


@pytest.mark.parametrize(
    "words", ["x AND y", "x NEAR y", 'say "x"', "x*", "col:x", "x OR", "(x", "-x", "^x", "x'y"]
)
def test_treats_operators_as_words(bench: Bench, words: str) -> None:
    record(bench, f"a {words} b\r\n".encode(), b"x\r\ny\r\n")
    fill(bench.directory)
    (hit,) = [hit for hit in search(bench, words) if "a " in hit[2]]
    assert hit[2].replace("[", "").replace("]", "") == f"a {words} b"


@settings(deadline=None)
@given(st.text())
def test_accepts_any_phrase(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    bench = Bench(directory=tmp_path_factory.mktemp("asked"))
    with Index(bench.directory, make=True) as index:
        try:
            assert list(index.search([text])) == []
        except NothingToSearch:
            assert not any(letter.isalnum() or letter == "_" for letter in text)


def test_sorts_hits_by_recording_and_time(bench: Bench) -> None:
    sids = []
    for day in range(3):
        bench.wall = NOON + timedelta(days=day)
        sids.append(record(bench, b"the word\r\n").manifest.sid)
    fill(bench.directory)
    assert [sid for sid, _, _ in search(bench, "word")] == sids[::-1]
    assert [sid for sid, _, _ in search(bench, "word", since=NOON + timedelta(days=1))] == sids[:0:-1]
    assert [sid for sid, _, _ in search(bench, "word", until=NOON + timedelta(days=1))] == sids[:1]


def test_returns_rows(bench: Bench) -> None:
    closed = record(bench, b"x", command="ls -l")
    fill(bench.directory)
    with Index(bench.directory) as index:
        (row,) = index.rows(summaries=True).values()
        assert index.rows(since=bench.now() + timedelta(days=1)) == {}
    assert (row.sid, row.user, row.login, row.target) == (closed.manifest.sid, "joe", "root", "web1:22")
    assert (row.kind, row.command, row.status) == ("exec", "ls -l", "complete")
    assert row.summary.encode() == closed.manifest.encode()


def test_reads_only_new_recordings(bench: Bench) -> None:
    first = record(bench, b"one\r\n")
    seen: list[tuple[int, int]] = []
    fill(bench.directory, lambda done, of: seen.append((done, of)))
    second = record(bench, b"two\r\n")
    with Index(bench.directory) as index:
        assert index.differences() == ([second.manifest.sid], set())
    fill(bench.directory, lambda done, of: seen.append((done, of)))
    assert seen == [(1, 1), (1, 1)]
    assert [sid for sid, _, _ in search(bench, "one")] == [first.manifest.sid]


def test_forgets_removed_recordings(bench: Bench) -> None:
    closed = record(bench, b"gone\r\n")
    fill(bench.directory)
    shutil.rmtree(closed.path.parent)
    fill(bench.directory)
    assert search(bench, "gone") == []
    with Index(bench.directory) as index:
        assert index.rows() == {}


def test_erases_removed_recordings_from_the_file(bench: Bench) -> None:
    kept = [record(bench, b"plain words %d\r\n" % number) for number in range(5)]
    gone = record(bench, b"the passphrase\r\n", command="zanzibar")
    fill(bench.directory)

    def there(word: bytes) -> bool:
        return any(word in path.read_bytes() for path in bench.directory.glob(f"{NAME}*"))

    assert there(b"passphrase") and there(b"zanzibar")
    for path in gone.path.parent.glob(f"{gone.manifest.sid}*"):
        path.unlink()
    fill(bench.directory)
    assert not there(b"passphrase") and not there(b"zanzibar") and there(b"plain")
    assert [sid for sid, _, _ in search(bench, "plain")] == [closed.manifest.sid for closed in kept[::-1]]


def test_indexes_no_text_of_encrypted_recording(bench: Bench) -> None:
    key = pyrage.x25519.Identity.generate()
    sid = record(bench, b"for auditors\r\n", command="cat report", to=(str(key.to_public()),)).manifest.sid
    assert fill(bench.directory) == []
    assert search(bench, "auditors") == []
    assert [hit_sid for hit_sid, _, _ in search(bench, "report")] == [sid]


@pytest.mark.parametrize("what", ["cast", "json"])
def test_indexes_others_beside_a_damaged_one(bench: Bench, what: str) -> None:
    good, bad = record(bench, b"good word\r\n"), record(bench, b"bad word\r\n")
    bad.path.with_suffix(f".{what}").write_bytes(b"nonsense\n")
    assert fill(bench.directory) == []
    assert [sid for sid, _, _ in search(bench, "word")] == [good.manifest.sid]
    with Index(bench.directory) as index:
        assert index.differences() == ([], set()), "it is not looked at again and again"
        assert index.rows()[bad.manifest.sid].status == ("complete" if what == "cast" else "unreadable")


def _nonsense(path: Path) -> None:
    path.write_bytes(b"no database at all, " * 100)


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _older(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [_nonsense, _older, _empty, Path.unlink])
def test_rebuilds_damaged_index(bench: Bench, harm: Callable[[Path], None]) -> None:
    sid = record(bench, b"word\r\n").manifest.sid
    fill(bench.directory)
    harm(bench.directory / NAME)
    with pytest.raises(IndexUnusable), Index(bench.directory):
        pass
    assert fill(bench.directory) == []
    assert [hit_sid for hit_sid, _, _ in search(bench, "word")] == [sid]


def _scrambled(path: Path) -> None:
    """Return everything except the first page, which has the version."""
    text = path.read_bytes()
    path.write_bytes(text[:4096] + b"\xa5" * (len(text) - 4096))


@pytest.mark.parametrize("harm", [_torn, _scrambled])
def test_rebuilds_index_that_is_damaged_later(bench: Bench, harm: Callable[[Path], None]) -> None:
    for number in range(30):
        record(bench, b"word %d\r\n" % number)
    fill(bench.directory)
    harm(bench.directory / NAME)
    with pytest.raises(IndexBroken, match="rebuild-index"):
        search(bench, "word")
    record(bench, b"word\r\n")
    assert fill(bench.directory) == []
    assert len(search(bench, "word")) == 31


def test_keeps_locked_index(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.recording.catalogue.index.BUSY_SECONDS", 0)
    sid = record(bench, b"word\r\n").manifest.sid
    fill(bench.directory)
    with contextlib.closing(sqlite3.connect(bench.directory / NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        late = record(bench, b"word\r\n").manifest.sid
        (problem,) = fill(bench.directory)
        assert problem.startswith(late) and "locked" in problem
        assert [hit_sid for hit_sid, _, _ in search(bench, "word")] == [sid], "who asks does not wait"
    assert fill(bench.directory) == []
    assert [hit_sid for hit_sid, _, _ in search(bench, "word")] == [late, sid]


def test_rebuilds_while_others_have_it_open(bench: Bench) -> None:
    for number in range(5):
        record(bench, b"word %d\r\n" % number)
    fill(bench.directory)
    with sqlite3.connect(bench.directory / NAME) as forged:
        forged.execute("UPDATE recordings SET user = 'eve'")
    with contextlib.closing(sqlite3.connect(bench.directory / NAME)) as other:
        query = "SELECT count(*) FROM texts WHERE texts MATCH 'word'"
        assert other.execute(query).fetchone() == (5,)
        assert fill(bench.directory, rebuild=True) == []
        assert other.execute(query).fetchone() == (5,), "it is the same file"
    with Index(bench.directory) as index:
        assert {row.user for row in index.rows().values()} == {"joe"}


def test_creates_file_for_its_owner_alone(bench: Bench) -> None:
    record(bench, b"word\r\n")
    before = os.umask(0)
    try:
        fill(bench.directory)
    finally:
        os.umask(before)
    for path in bench.directory.glob(f"{NAME}*"):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_answers_while_another_process_fills_it(bench: Bench) -> None:
    """One process fills the index while another reads it."""
    for number in range(40):
        record(bench, b"word %d\r\n" % number)
    with subprocess.Popen(
        [sys.executable, "-m", "conchrec.recording.catalogue.indexer", str(bench.directory)],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert fill(bench.directory) == []
        _, complaints = process.communicate()
    assert (process.returncode, complaints) == (0, b"")
    assert len(search(bench, "word")) == 40


def test_reads_only_the_start_of_long_recordings(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.recording.catalogue.index.TEXT_AT_MOST", 1000)
    record(bench, b"early\r\n", b"x" * 2000 + b"\r\n", b"late\r\n")
    fill(bench.directory)
    assert search(bench, "early") and not search(bench, "late")


def test_indexes_commands_after_the_part_that_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.recording.catalogue.index.TEXT_AT_MOST", 1000)
    recorder = bench.store().open(bench.info())
    recorder.pty("xterm", 80, 24)
    recorder.start("shell")
    for command in (b"early", b"fill", b"late"):
        bench.clock.advance(1)
        recorder.output(b"\x1b]133;A\x07$ \x1b]133;B\x07" + command + b"\r\n\x1b]133;C\x07")
        recorder.output(b"x" * 600 + b"\r\n\x1b]133;D;0\x07")
    closed = bench.close(recorder)
    assert [command.text for command in closed.manifest.commands] == ["early", "fill", "late"]
    fill(bench.directory)
    for word, time in (("early", 1.0), ("fill", 2.0), ("late", 3.0)):
        prompt = "" if word == "late" else "$ "
        assert search(bench, word) == [(closed.manifest.sid, time, f"{prompt}[{word}]")]


class _Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.children: list[_Child] = []

    def spawnProcess(
        self, protocol: ProcessProtocol, executable: str, args: list[str], env: dict[str, str] | None
    ) -> _Child:
        self.children.append(_Child())
        return self.children[-1]


class _Child:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def closeStdin(self) -> None:
        self.closed = True


def test_starts_process_when_there_is_work(tmp_path: Path) -> None:
    reactor, failed = _Reactor(), list[str]()
    indexer = Indexer(reactor, tmp_path, failed.append)
    for _ in range(5):
        indexer.schedule()
    assert reactor.children == []
    reactor.advance(DELAY_SECONDS)
    (child,) = reactor.children
    assert child.written == b"\n"
    indexer.schedule()
    reactor.advance(DELAY_SECONDS)
    assert child.written == b"\n\n" and len(reactor.children) == 1
    indexer.errReceived(b"one\ntwo\n")
    assert failed == ["one", "two"]
    indexer.processEnded(None)  # type: ignore[arg-type]
    indexer.schedule()
    reactor.advance(DELAY_SECONDS)
    assert len(reactor.children) == 2
    indexer.schedule()
    indexer.stop()
    assert reactor.children[1].closed and reactor.getDelayedCalls() == []
    indexer.schedule()
    assert reactor.getDelayedCalls() == []


def test_waits_for_another_process_no_longer_than_its_patience(bench: Bench) -> None:
    record(bench, b"hello")
    lock = os.open(bench.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert fill(bench.directory, patience=0.0) == [BUSY]
    finally:
        os.close(lock)
    assert fill(bench.directory, patience=0.0) == []
