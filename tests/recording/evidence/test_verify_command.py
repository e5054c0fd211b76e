"""``conchrec recordings verify``: of everything, of single files, and of nothing."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conchrec.cli.main import main
from conchrec.recording import retention
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.evidence.heads import HeadFile, heads_in_audit
from conchrec.recording.evidence.ledger import NAME, Ledger, LedgerAction
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.recording.storage.layout import RecordingTree
from tests.recording.recording_bench import SIGNER, Bench

CONFIG = """
state_dir: state
audit: {file: audit.jsonl}
recordings: {directory: recordings}
users: {joe: {roles: [ops]}}
roles: {ops: {logins: [root], hosts: [web1]}}
"""


class House:
    """An installation: configuration, keys, recordings, audit log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bench = Bench(directory=directory / "recordings")
        self.config = directory / "config.yaml"
        self.config.write_text(CONFIG)
        self.state = directory / "state"
        self.state.mkdir(0o700)
        self.key = self.state / "recording_key.pub"
        self.key.write_text(SIGNER.public_line + "\n")
        self.audit = directory / "audit.jsonl"
        self.audit.touch()
        self.ledger = self.bench.directory / NAME
        self.bench.directory.mkdir()
        self.closed = [self.record() for _ in range(3)]

    def record(self) -> ClosedRecording:
        recorder = self.bench.recorder()
        recorder.start("shell")
        recorder.output(b"hello\r\n")
        closed = self.bench.close(recorder)
        self.bench.clock.advance(10)
        return closed

    def save_head(self) -> None:
        Ledger(self.bench.directory, SIGNER, self.bench.now, heads=HeadFile(self.state)).refresh()
        book = Ledger(self.bench.directory, SIGNER, self.bench.now, heads=HeadFile(self.state))
        book.refresh()
        book.save_head()

    def log(self, event: str, **fields: str) -> None:
        with self.audit.open("a") as file:
            file.write(json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n")

    def verify(self, *words: str | Path, key: Path | None = None, config: bool = True) -> tuple[int, str]:
        """Run the command. Without ``config`` as an auditor does, who has only the public key."""
        out, err = io.StringIO(), io.StringIO()
        argv = ["recordings", "verify", *map(str, words)]
        argv += ["-c", str(self.config)] if config else ["--key", str(key or self.key)]
        code = main(argv, out, err)
        assert err.getvalue() == ""
        return code, out.getvalue()

    def copies(self) -> Path:
        """What an auditor gets: files in one directory."""
        target = self.directory / "copies"
        target.mkdir()
        for closed in self.closed:
            for path in (closed.path, closed.path.with_suffix(".json")):
                shutil.copy(path, target)
        return target

    @property
    def day(self) -> Path:
        return self.closed[0].path.parent


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def whole(house: House) -> Path:
    return house.bench.directory


def one_day(house: House) -> Path:
    return house.day


def one_year(house: House) -> Path:
    return house.bench.directory / house.day.relative_to(house.bench.directory).parts[0]


def flat(house: House) -> Path:
    return house.copies()


def nested(house: House) -> Path:
    """In directories that have no meaning to conchrec."""
    return house.copies().rename(house.directory / "x").parent


TARGETS = [whole, one_day, one_year, flat]


@pytest.mark.parametrize("target", TARGETS)
def test_verifies_recordings_in_any_place(house: House, target: Callable[[House], Path]) -> None:
    code, text = house.verify(target(house), config=False)
    assert code == 0, text
    assert "3 recordings (3 complete): ok" in text
    assert ("missing recordings are not detected" in text) is (target is flat)


def test_verifies_nested_directories(house: House) -> None:
    deep = house.directory / "a" / "b" / "2026"
    deep.parent.mkdir(parents=True)
    house.copies().rename(deep)
    code, text = house.verify(house.directory / "a", config=False)
    assert (code, "3 recordings (3 complete): ok" in text) == (0, True), text


@pytest.mark.parametrize("target", TARGETS)
def test_fails_for_changed_file_in_any_place(house: House, target: Callable[[House], Path]) -> None:
    where = target(house)
    (victim,) = where.rglob(house.closed[1].path.name)
    victim.write_bytes(victim.read_bytes().replace(b"hello", b"hallo"))
    for what in (where, victim, victim.with_suffix(".json")):
        code, text = house.verify(what, config=False)
        assert code == 1 and f"FAILED  {house.closed[1].manifest.sid}: the cast was changed" in text


@pytest.mark.parametrize("target", TARGETS)
def test_fails_for_wrong_key_in_any_place(house: House, target: Callable[[House], Path]) -> None:
    key = house.directory / "other.pub"
    key.write_text(RecordingSigner.generate().public_line)
    code, text = house.verify(target(house), key=key, config=False)
    assert code == 1 and "3 FAILED" in text, text


@pytest.mark.parametrize("target", [whole, one_day, one_year])
def test_fails_for_missing_recording_of_the_ledger(house: House, target: Callable[[House], Path]) -> None:
    sid = house.closed[1].manifest.sid
    house.closed[1].path.unlink()
    house.closed[1].path.with_suffix(".json").unlink()
    code, text = house.verify(target(house), config=False)
    assert code == 1 and f"FAILED  {sid}: the recording is missing: line 3 of the ledger names it" in text


def test_fails_for_manifest_without_recording_among_copies(house: House) -> None:
    copies = house.copies()
    (copies / house.closed[1].path.name).unlink()
    code, text = house.verify(copies, config=False)
    assert code == 1 and "the recording is missing: there is only its manifest" in text


@pytest.mark.parametrize("name", ["nothing", "nothing/here", "recordings/2026/11/24"])
def test_fails_for_missing_file(house: House, name: str) -> None:
    code, text = house.verify(house.directory / name, config=False)
    assert code == 1 and "no such file or directory" in text


def test_fails_for_empty_directory(house: House) -> None:
    (house.directory / "empty").mkdir()
    code, text = house.verify(house.directory / "empty", config=False)
    assert code == 1 and "nothing to verify: no recordings in" in text
    assert "0 recordings (none): FAILED" in text


def test_fails_for_directory_of_other_files(house: House) -> None:
    other = house.directory / "other"
    other.mkdir()
    (other / "notes.txt").write_text("hello")
    (other / "package.json").write_text("{}")
    assert house.verify(other, config=False)[0] == 1
    (other / "renamed.cast").write_bytes(house.closed[0].path.read_bytes())
    code, text = house.verify(other, config=False)
    assert code == 1 and "FAILED  renamed: invalid file name" in text


@pytest.mark.parametrize("ledger", [True, False])
def test_fails_when_everything_was_removed(house: House, ledger: bool) -> None:
    """With the ledger, which names the recordings; without it, by the head in the state directory."""
    house.save_head()
    for path in house.bench.directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not ledger:
            path.unlink()
    for words in ((), (house.bench.directory,)):
        code, text = house.verify(*words)
        assert code == 1, text
        assert ("3 missing" if ledger else "does not exist (1 known head is missing)") in text


def test_passes_for_fresh_installation(house: House) -> None:
    shutil.rmtree(house.bench.directory)
    house.bench.directory.mkdir()
    house.ledger.touch()
    code, text = house.verify()
    assert code == 1 and "nothing to verify" in text


def test_passes_for_pruned_recordings(house: House) -> None:
    book = Ledger(house.bench.directory, SIGNER, house.bench.now)
    for closed in house.closed:
        retention.remove(
            RecordingTree(house.bench.directory), book, closed.manifest.sid, reason="old", by="joe"
        )
    for what in (house.bench.directory, house.day):
        code, text = house.verify(what, config=False)
        assert (code, "3 recordings (3 removed): ok" in text) == (0, True), text


def test_fails_for_recording_in_the_wrong_directory(house: House) -> None:
    """Moved away from where the ledger expects it."""
    closed = house.closed[1]
    away = house.bench.directory / "2026" / "hidden"
    away.mkdir()
    for path in (closed.path, closed.path.with_suffix(".json")):
        path.rename(away / path.name)
    code, text = house.verify(house.bench.directory, config=False)
    assert code == 1
    assert "the recording is missing: line 3 of the ledger names it" in text
    assert "this file is in the wrong directory" in text


def test_fails_for_linked_day(house: House) -> None:
    """Anybody may change what is in the linked directory."""
    house.day.rename(house.directory / "elsewhere")
    house.day.symlink_to(house.directory / "elsewhere")
    code, text = house.verify(house.bench.directory, config=False)
    assert code == 1 and "3 FAILED" in text


def test_fails_for_unreadable_directory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = house.copies()
    (copies / "secret").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, text = house.verify(copies, config=False)
    assert code == 1 and "Permission denied" in text


def test_compares_head_of_the_state_directory(house: House) -> None:
    house.save_head()
    assert house.verify()[0] == 0
    lines = house.ledger.read_bytes().splitlines(keepends=True)
    house.ledger.write_bytes(b"".join(lines[:4]))
    for path in house.day.glob(f"{house.closed[2].manifest.sid}*"):
        path.unlink()
    code, text = house.verify()
    assert code == 1 and f"the head {house.closed[2].head} is missing ({house.state})" in text
    # An auditor with only a copy and the key needs --head to notice it.
    assert house.verify(house.bench.directory, config=False)[0] == 0
    assert house.verify(house.bench.directory, "--head", house.closed[2].head, config=False)[0] == 1


@pytest.mark.parametrize("packed", [False, True])
def test_compares_heads_of_rotated_audit_logs(house: House, packed: bool) -> None:
    closed = house.closed[2]
    house.log("session.end", sid=closed.manifest.sid, recording=str(closed.path), head=closed.head)
    rotated = house.audit.rename(house.audit.with_name("audit.jsonl.1"))
    if packed:
        rotated.with_name("audit.jsonl.2.gz").write_bytes(gzip.compress(rotated.read_bytes()))
        rotated.unlink()
    house.audit.touch()
    assert house.verify()[0] == 0
    lines = house.ledger.read_bytes().splitlines(keepends=True)
    house.ledger.write_bytes(b"".join(lines[:4]))
    for path in house.day.glob(f"{closed.manifest.sid}*"):
        path.unlink()
    code, text = house.verify()
    assert code == 1 and f"session {closed.manifest.sid}" in text


def test_ignores_heads_of_another_directory(house: House) -> None:
    """recordings.directory was changed once."""
    house.log("session.end", sid="x", recording="/old/recordings/2026/11/23/x.cast", head="9:" + "0" * 64)
    house.log("audit.head", head="0" * 64)
    assert house.verify()[0] == 0


def test_ignores_head_that_may_be_lost_with_the_machine(house: House) -> None:
    path = str(house.closed[0].path)
    lost, kept, last = ("7:" + digit * 64 for digit in "abc")
    house.log("session.start", recording=path, head=lost)
    house.log("service.start")
    house.log("session.start", recording=path, head=kept)
    house.log("session.end", recording=path, head=house.closed[0].head)
    house.log("session.start", recording=path, head=last)
    heads = [known.head for known in heads_in_audit(house.audit, house.bench.directory)]
    assert heads == [kept, house.closed[0].head, last]


def test_reports_heads_that_were_not_compared(house: House) -> None:
    house.audit.unlink()
    house.audit.symlink_to("/proc/self/mem")
    code, _ = house.verify()
    assert code == 0
    HeadFile(house.state).path.mkdir()
    code, text = house.verify()
    assert code == 0 and f"not compared with the heads in {house.state}" in text


def test_fails_for_head_without_a_ledger(house: House) -> None:
    code, text = house.verify(house.copies(), "--head", house.closed[0].head, config=False)
    assert code == 1 and "--head was not checked" in text


def test_prints_json(house: House) -> None:
    (house.directory / "empty").mkdir()
    code, text = house.verify(house.directory / "empty", "--json", config=False)
    fields = json.loads(text)
    assert code == 1 and fields["whole"] is False and fields["problems"] and fields["recordings"] == []


def test_fails_for_broken_ledger(house: House) -> None:
    book = Ledger(house.bench.directory, SIGNER, house.bench.now, on_break=lambda heads: None)
    book.refresh()
    os.truncate(house.ledger, 0)
    book.append(LedgerAction.OPEN, house.closed[0].manifest.sid)
    code, text = house.verify(house.bench.directory, config=False)
    assert code == 1 and "FAILED  ledger: line 1 of the ledger: at 20" in text


def test_passes_when_a_session_ends_at_the_same_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is read, then the ledger, then the recordings."""
    recorder = house.bench.recorder()
    recorder.start("shell")
    from conchrec.recording.evidence.verify import Verifier

    real = Verifier.directory

    def directory(*args: object) -> object:
        house.bench.close(recorder)
        book = Ledger(house.bench.directory, SIGNER, house.bench.now)
        tree = RecordingTree(house.bench.directory)
        retention.remove(tree, book, house.closed[0].manifest.sid, reason="old", by="joe")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Verifier, "directory", directory)
    code, text = house.verify(house.bench.directory, config=False)
    assert (code, "4 recordings (3 complete, 1 removed): ok" in text) == (0, True), text
