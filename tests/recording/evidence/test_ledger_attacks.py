"""Attacks on the ledger by somebody who can write to the directory of the recordings, but cannot sign.

Each attack is a change of the file between two appends. It is reported, and what is signed afterwards says
that the ledger was changed; both verifiers report it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.recording.evidence import ledger
from conchrec.recording.evidence.continuity import STEP_BYTES, Break
from conchrec.recording.evidence.heads import HeadFile, KeptHead
from conchrec.recording.evidence.ledger import BrokenLedger, Ledger, LedgerAction, LedgerLine
from conchrec.recording.evidence.ledger_line import parse_raw_line
from conchrec.recording.evidence.ledger_reader import LedgerReader
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.signatures import RecordingSigner
from tests.recording.recording_bench import SIGNER, Bench

INDEPENDENT = Path(__file__).parents[1] / "independent.py"


class Desk:
    """A ledger that a running process writes, its head file, and what was reported."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        bench.directory.mkdir(exist_ok=True)
        self.state = bench.directory.parent / "state"
        self.state.mkdir(exist_ok=True)
        self.path = bench.directory / ledger.NAME
        self.heads = HeadFile(self.state)
        self.breaks: list[Break] = []
        self.ledger = self.open()

    def open(self) -> Ledger:
        """A process that starts."""
        return Ledger(
            self.bench.directory, SIGNER, self.bench.now, heads=self.heads, on_break=self.breaks.append
        )

    def fill(self, count: int) -> None:
        for _ in range(count):
            self.ledger.append(LedgerAction.OPEN, new_session_id(self.bench.now()))

    def lines(self) -> list[bytes]:
        return list(ledger.lines(self.path))

    def problems(self) -> list[str]:
        return LedgerReader(self.path, SIGNER.keys()).problems

    def independent(self) -> str:
        key = self.state / "key.pub"
        key.write_text(SIGNER.public_line)
        done = subprocess.run(
            [sys.executable, str(INDEPENDENT), str(self.bench.directory), str(key)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return "\n".join(line for line in done.stdout.splitlines() if line.startswith("ledger"))


@pytest.fixture
def desk(bench: Bench) -> Desk:
    desk = Desk(bench)
    desk.fill(6)
    return desk


def cut(path: Path) -> None:
    """Remove the last two lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, sum(map(len, lines[:-2])))


def cut_within_a_line(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 30)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def replace_by_shorter(path: Path) -> None:
    """Replace the file by a new one with its first lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.with_name("new").write_bytes(b"".join(lines[:3]))
    path.with_name("new").rename(path)


def cut_and_repeat(path: Path) -> None:
    """Append earlier lines with valid signatures, up to the old size."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], lines[-2]]))


def cut_and_forge(path: Path) -> None:
    """Replace lines by others of the same size and number, without our signature."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b'"sid":"0', b'"sid":"1'))


def sign_with_another_key(path: Path) -> None:
    last = path.read_bytes().splitlines(keepends=True)[-1]
    broken = LedgerLine.parse(last)
    body = last.rpartition(b',"signature"')[0] + b"}"
    path.write_bytes(path.read_bytes().replace(last, RecordingSigner.generate().entry(body)))
    assert broken.number == 6


def append_nonsense(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"nonsense\n")


def append_an_old_line(path: Path) -> None:
    first = path.read_bytes().splitlines(keepends=True)[0]
    with path.open("ab") as file:
        file.write(first)


def append_without_end(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 500_000)


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def link_to_a_secret(path: Path) -> None:
    """The service would append to it, or cut its last line."""
    secret = path.parent.parent / "secret"
    secret.write_text("without a newline")
    path.unlink()
    os.link(secret, path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def swap_two_lines(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4], lines[5] = lines[5], lines[4]
    path.write_bytes(b"".join(lines))


ATTACKS = [
    cut, cut_within_a_line, empty, remove, replace_by_shorter, cut_and_repeat, cut_and_forge,
    sign_with_another_key, append_nonsense, append_an_old_line, append_without_end, link_elsewhere,
    link_to_a_secret, pipe, directory, swap_two_lines,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_reports_and_states_every_change_before_the_next_line(
    desk: Desk, attack: Callable[[Path], None]
) -> None:
    expected = desk.ledger.head
    attack(desk.path)
    head = desk.ledger.append(LedgerAction.OPEN, new_session_id(desk.bench.now()))
    (broken,) = desk.breaks
    assert broken.expected == expected and broken.reason
    *_, stated, last = desk.lines()
    assert LedgerLine.parse(stated).act is LedgerAction.BROKEN and LedgerLine.parse(stated).head == expected
    assert ledger.head_of(LedgerLine.parse(stated).number, stated) == broken.head
    assert ledger.head_of(LedgerLine.parse(last).number, last) == head
    assert any(f"(its last head was {expected})" in problem for problem in desk.problems())
    assert f"did not continue {expected}" in desk.independent()
    secret = desk.bench.directory.parent / "secret"
    assert not secret.exists() or secret.read_text() == "without a newline"
    # Once: what follows continues that line.
    desk.fill(2)
    desk.ledger.refresh()
    assert len(desk.breaks) == 1


@pytest.mark.parametrize("attack", ATTACKS)
def test_reports_every_change_without_an_append(desk: Desk, attack: Callable[[Path], None]) -> None:
    attack(desk.path)
    desk.ledger.refresh()
    assert len(desk.breaks) == 1
    assert LedgerLine.parse(desk.lines()[-1]).act is LedgerAction.BROKEN


@pytest.mark.parametrize("attack", ATTACKS)
def test_reports_every_change_made_while_nothing_ran(desk: Desk, attack: Callable[[Path], None]) -> None:
    desk.ledger.save_head()
    expected = desk.ledger.head
    attack(desk.path)
    started = desk.open()
    started.append(LedgerAction.OPEN, new_session_id(desk.bench.now()))
    (broken,) = desk.breaks
    assert broken.expected == expected


@pytest.mark.parametrize("attack", ATTACKS)
def test_writes_nothing_in_a_command_after_a_change(desk: Desk, attack: Callable[[Path], None]) -> None:
    desk.ledger.save_head()
    attack(desk.path)
    command = Ledger(desk.bench.directory, SIGNER, desk.bench.now, heads=desk.heads)
    with pytest.raises(BrokenLedger, match="last known head is 6:"):
        command.append(LedgerAction.HELD, new_session_id(desk.bench.now()))


def test_states_that_its_own_statement_was_cut(desk: Desk) -> None:
    cut(desk.path)
    desk.fill(1)
    for _ in range(3):
        cut(desk.path)
        desk.fill(1)
    assert len(desk.breaks) == 4
    assert desk.breaks[1].expected != desk.breaks[0].expected
    assert any("the ledger had been changed" in problem for problem in desk.problems())


def test_accepts_copy_with_the_same_lines(desk: Desk) -> None:
    """A restored or moved file."""
    shutil.copy(desk.path, desk.path.with_name("copy"))
    desk.path.with_name("copy").rename(desk.path)
    desk.fill(2)
    assert desk.breaks == [] and desk.problems() == []


def test_accepts_own_lines_written_back(desk: Desk) -> None:
    contents = desk.path.read_bytes()
    os.truncate(desk.path, 100)
    desk.path.write_bytes(contents)
    desk.fill(1)
    assert desk.breaks == [] and desk.problems() == []


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the size of each read from now on."""
    reads: list[int] = []
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(size)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    return reads


def walk(desk: Desk, steps: int = 50) -> None:
    for _ in range(steps):
        desk.ledger.check_step()


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_finds_changed_byte_anywhere(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Also before the end, which every append compares."""
    desk = Desk(Bench(directory=tmp_path_factory.mktemp("changed") / "recordings"))
    desk.fill(6)
    walk(desk, 2)
    contents = bytearray(desk.path.read_bytes())
    where = data.draw(st.integers(0, len(contents) - 1))
    contents[where] ^= 1 << data.draw(st.integers(0, 7))
    desk.path.write_bytes(contents)
    desk.ledger.refresh()
    walk(desk, 4)
    assert len(desk.breaks) == 1
    assert LedgerLine.parse(desk.lines()[-1]).act is LedgerAction.BROKEN
    # It is stated once, by this process and by the next one.
    walk(desk, 4)
    desk.ledger.save_head()
    desk.ledger = desk.open()
    desk.ledger.refresh()
    walk(desk, 4)
    assert len(desk.breaks) == 1


@pytest.mark.parametrize("number", range(1, 7))
def test_states_missing_end_of_line_once(desk: Desk, number: int) -> None:
    """Two lines become one, which begins as the first of them."""
    lines = desk.lines()
    lines[number - 1] = lines[number - 1].replace(b"\n", b"\v")
    desk.path.write_bytes(b"".join(lines))
    desk.ledger.refresh()
    walk(desk, 8)
    assert len(desk.breaks) == 1


def test_states_each_of_several_changes(desk: Desk) -> None:
    desk.fill(30)
    for number in (3, 20):
        lines = desk.lines()
        lines[number] = lines[number].replace(b'"sid":"0', b'"sid":"1')
        desk.path.write_bytes(b"".join(lines))
        walk(desk, 4)
    assert [broken.reason.split()[1] for broken in desk.breaks] == ["4", "21"]


def test_reads_in_small_steps_and_rests_while_nobody_writes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.fill(1000)
    size = desk.path.stat().st_size
    assert size > 2 * STEP_BYTES
    reads = count_reads(monkeypatch)
    for _ in range(20):
        reads.clear()
        desk.ledger.check_step()
        assert sum(reads) <= STEP_BYTES + 1000  # and the last line
    assert sum(reads) < 1000
    assert desk.breaks == []


def test_reads_only_the_last_line_at_an_append(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fill(200)
    reads = count_reads(monkeypatch)
    desk.fill(1)
    assert len(reads) == 1 and reads[0] < 1000


def test_follows_lines_of_another_process(desk: Desk) -> None:
    other = Ledger(desk.bench.directory, SIGNER, desk.bench.now, heads=desk.heads)
    for _ in range(3):
        other.append(LedgerAction.OPEN, new_session_id(desk.bench.now()))
        desk.fill(1)
    assert desk.breaks == [] and desk.problems() == []
    assert desk.ledger.head.startswith("12:")


def test_accepts_torn_line_of_a_dead_process(desk: Desk) -> None:
    with desk.path.open("ab") as file:
        file.write(b'{"number":7,"prev')
    desk.fill(1)
    assert desk.breaks == [] and desk.problems() == []


def test_gives_up_soon_when_the_lock_is_held(desk: Desk) -> None:
    with desk.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(OSError, match="locked by another process") as caught:
            desk.ledger.append(LedgerAction.OPEN, new_session_id(desk.bench.now()), patience=0.01)
        assert caught.value.errno == errno.EAGAIN
    desk.fill(1)
    assert desk.problems() == []


def test_reports_once_what_it_cannot_state(desk: Desk) -> None:
    """The whole directory is missing; when it is back, this is stated."""
    away = desk.bench.directory.rename(desk.bench.directory.with_name("away"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            desk.ledger.refresh()
    (broken,) = desk.breaks
    assert broken.head == ""
    away.rename(desk.bench.directory)
    desk.fill(1)
    assert desk.problems() == []  # the same file again: nothing is lost
    os.truncate(desk.path, 0)
    desk.fill(1)
    assert len(desk.breaks) == 2


def test_refuses_unknown_ledger_that_is_not_ours(bench: Bench) -> None:
    bench.directory.mkdir()
    own, other = (
        Ledger(bench.directory, signer, bench.now) for signer in (SIGNER, RecordingSigner.generate())
    )
    own.append(LedgerAction.OPEN, new_session_id(bench.now()))
    before = own.path.read_bytes()
    with pytest.raises(BrokenLedger, match="not signed by a key of this installation"):
        other.append(LedgerAction.OPEN, new_session_id(bench.now()))
    assert own.path.read_bytes() == before


# -- the head in the state directory


def test_keeps_head_file_private_and_across_restarts(desk: Desk) -> None:
    desk.ledger.save_head()
    assert desk.heads.path.stat().st_mode & 0o777 == 0o600
    kept = desk.heads.read(desk.bench.directory)
    assert kept is not None and kept.position.head == desk.ledger.head
    assert desk.heads.read(desk.bench.directory.with_name("other")) is None
    started = desk.open()
    started.refresh()
    assert started.head == desk.ledger.head and desk.breaks == []


def test_saves_head_after_the_ledger_is_synced(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut would look like an attack."""
    order: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: order.append("ledger"))
    monkeypatch.setattr(HeadFile, "write", lambda *args: order.append("head"))
    desk.ledger.save_head()
    desk.ledger.save_head()
    assert order == ["ledger", "head"]


def test_keeps_newest_head_of_two_processes(desk: Desk) -> None:
    other = Ledger(desk.bench.directory, SIGNER, desk.bench.now, heads=desk.heads)
    desk.ledger.save_head()
    other.append(LedgerAction.OPEN, new_session_id(desk.bench.now()))
    other.save_head()
    for look in (lambda: None, desk.ledger.refresh):
        look()
        desk.ledger.save_head()
        kept = desk.heads.read(desk.bench.directory)
        assert kept is not None and kept.position.head == other.head
    desk.fill(1)
    desk.ledger.save_head()
    kept = desk.heads.read(desk.bench.directory)
    assert kept is not None and kept.position.head == desk.ledger.head


@pytest.mark.parametrize(
    "contents",
    [b"", b"[]", b"{}", b'{"ledgers":[]}', b'{"ledgers":{"D":{"head":1,"start":5,"end":2}}}', b"\xff"],
)
def test_rejects_damaged_head_file(desk: Desk, contents: bytes) -> None:
    desk.heads.path.write_bytes(contents.replace(b"D", str(desk.bench.directory).encode()))
    with pytest.raises(Exception, match="is damaged: restore it"):
        desk.open().append(LedgerAction.OPEN, new_session_id(desk.bench.now()))


def test_settles_up_to_the_oldest_open_recording(desk: Desk) -> None:
    bench, book = desk.bench, desk.ledger
    book.finish_recovery(complete=True)
    sids = [line.sid for text in desk.lines() if (line := parse_raw_line(text)) is not None]
    assert len(sids) == 6

    def settled() -> int:
        book.save_head()
        kept = desk.heads.read(bench.directory)
        assert isinstance(kept, KeptHead)
        return kept.settled

    assert settled() == 0
    for sid in (*sids[3:], sids[0]):
        book.append(LedgerAction.SEALED, sid)
    assert settled() == len(desk.lines()[0])
    for sid in sids[1:3]:
        book.append(LedgerAction.SEALED, sid)
    assert settled() == desk.path.stat().st_size


# -- lines


TEXTS = st.text(max_size=40)


@given(
    st.integers(1, 10**12),
    st.sampled_from(list(LedgerAction)),
    st.booleans(),
    TEXTS,
    TEXTS,
    st.sampled_from(["", "5:ab"]),
)
def test_reads_the_same_with_both_readers(
    number: int, act: LedgerAction, named: bool, reason: str, by: str, head: str
) -> None:
    """The fast reader is used where many lines are read, the other one where a line counts."""
    sid = "06c3r5am1g00wadwvd60ty2d33" if named else ""
    line = LedgerLine(
        number=number, previous="ab" * 32, time="2026-11-23T12:00:00.000Z", act=act, sid=sid,
        reason=reason, by=by, head=head,
    )  # fmt: skip
    text = SIGNER.entry(line.encode())
    assert LedgerLine.parse(text) == line and b"\n" not in text[:-1] and len(text.splitlines()) == 1
    raw = parse_raw_line(text)
    assert raw is not None
    assert (raw.number, raw.previous, raw.time, raw.act, raw.sid) == (
        number, line.previous, line.time, act.value, sid,
    )  # fmt: skip
    assert parse_raw_line(text[:-1]) is None and parse_raw_line(b" " + text) is None
