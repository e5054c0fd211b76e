"""``conchrec audit verify`` finds every change of a log, and reports nothing else as a change."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.audit.chain import Head, head_of, parse
from conchrec.audit.events import Exec, Resize
from conchrec.audit.files import log_files, oldest_first, read_lines
from conchrec.audit.heads import AuditHeadFile
from conchrec.audit.log import AuditLog
from conchrec.audit.verify import MOST_PROBLEMS, AuditVerifier
from conchrec.cli.main import CONFIGURATION, DONE, NO, USAGE, main
from conchrec.recording.format.signatures import RecordingSigner
from tests.support.auditlog import SIGNER, audit_log

INDEPENDENT = Path(__file__).parents[1] / "independent_audit.py"


@dataclass
class Installation:
    """A configuration with a log, and the processes that write to it."""

    directory: Path
    logs: list[AuditLog] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.directory / "config.yaml"
        self.config.write_text("users: {}\nroles: {}\nstate_dir: .\naudit: {file: audit.jsonl}\n")
        self.key = self.directory / "recording_key.pub"
        self.key.write_text(SIGNER.public_line + "\n")
        self.path = self.directory / "audit.jsonl"

    def process(self, *commands: str, closes: bool = True) -> AuditLog:
        log = audit_log(self.directory)
        for command in commands:
            log.emit(Exec(command=command))
        if closes:
            log.close()
        self.logs.append(log)
        return log

    def rotate(self, name: str) -> Path:
        moved = self.directory / name
        self.path.rename(moved)
        for log in self.logs:
            if not log.is_closed:
                log.tick()
        return moved

    def verify(self, *arguments: str | Path, config: bool = True) -> tuple[int, str]:
        out, err = io.StringIO(), io.StringIO()
        named = ["-c", str(self.config)] if config else []
        code = main(["audit", "verify", *map(str, arguments), *named], out, err)
        return code, out.getvalue() + err.getvalue()

    def is_ok(self, *arguments: str | Path) -> str:
        code, output = self.verify(*arguments)
        assert code == DONE and output.count(": ok\n") == 1 and "FAILED" not in output, output
        return output

    def fails(self, *arguments: str | Path) -> str:
        code, output = self.verify(*arguments)
        assert code == NO and ": FAILED\n" in output, output
        return output

    def independent(self, *files: Path) -> str:
        heads = self.directory / "audit_heads"
        command = [sys.executable, str(INDEPENDENT), str(self.key), str(heads), *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() + done.stderr


@pytest.fixture
def there(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


# -- accepted logs


def test_accepts_log_of_several_processes(there: Installation) -> None:
    service = there.process("a", closes=False)
    there.process("lock", "unlock")
    service.emit(Exec(command="b"))
    there.process("lock")
    service.close()
    output = there.is_ok()
    assert output.startswith("11 lines, 3 chains, 1 file: ok\nhead: "), output
    assert there.independent(there.path) == ""


def test_notes_killed_process(there: Installation) -> None:
    there.process("a", "b", closes=False)
    there.process("c")
    output = there.is_ok()
    assert output.count("note") == 1 and "conchrec is still running, or was killed" in output
    assert "The last 2 lines are not signed yet" in output
    assert there.independent(there.path) == ""


@pytest.mark.parametrize("torn", [b"{", b'{"time":"2026', b"\x00" * 5000])
def test_notes_torn_line(there: Installation, torn: bytes) -> None:
    there.process("a", closes=False)
    with there.path.open("ab") as file:
        file.write(torn)
    assert "line 3 is incomplete" in there.is_ok(), "before the next process has come"
    there.process("b")
    assert f"line 3: cut by a crash, {len(torn)} bytes" in there.is_ok()
    assert there.independent(there.path) == ""


@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_accepts_rotated_and_compressed_files(there: Installation, pack: object) -> None:
    service = there.process("a", closes=False)
    names = ["audit.jsonl-20261101", "audit.jsonl-20261108", "audit.jsonl-20261115"]
    files = []
    for name in names:
        there.process("lock")
        files.append(there.rotate(name))
        service.emit(Exec(command="b"))
    service.close()
    for path in files[:2] if callable(pack) else ():
        assert callable(pack)
        path.with_name(path.name + ".gz").write_bytes(pack(path.read_bytes()))
        path.unlink()
    assert "4 files: ok" in there.is_ok()
    assert "note" not in there.is_ok("--complete")
    if pack in (None, gzip.compress):
        assert there.independent(*oldest_first(log_files(there.path))) == ""


def test_sorts_numbered_files(there: Installation) -> None:
    service = there.process("a", closes=False)
    for number in range(12, 0, -1):
        there.rotate(f"audit.jsonl.{number}")
        service.emit(Exec(command="b"))
    files = log_files(there.path)
    order = [path.name for path in oldest_first(random.sample(files, len(files)))]
    assert order == [f"audit.jsonl.{number}" for number in range(12, 0, -1)] + ["audit.jsonl"]
    there.is_ok("--complete")


def test_accepts_clock_that_was_set_back(there: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    service = there.process("a", closes=False)
    times = iter(["2026-11-29T12:00:00.000Z", "2020-01-01T00:00:00.000Z"])
    for number in (2, 1):
        time = next(times)
        monkeypatch.setattr("conchrec.audit.encoder.timestamp", lambda when, time=time: time)
        there.rotate(f"audit.jsonl.{number}")
        service.emit(Exec(command="b"))
    there.is_ok("--complete")


def test_accepts_log_whose_oldest_files_were_removed(there: Installation) -> None:
    service = there.process("a", closes=False)
    there.process("lock")
    oldest = there.rotate("audit.jsonl.2")
    there.process("lock")
    there.rotate("audit.jsonl.1")
    service.close()
    oldest.unlink()
    output = there.is_ok()
    assert output.count("note") == 2, output
    assert "are missing: they are in files that were not given" in output
    assert "is older than the oldest file" in output
    assert "are missing" in there.fails("--complete")


def test_notes_copytruncate(there: Installation) -> None:
    """What was written between the copy and the truncation is lost, and would not be a note."""
    service = there.process("a", closes=False)
    (there.directory / "audit.jsonl.1").write_bytes(there.path.read_bytes())
    there.path.write_bytes(b"")
    service.emit(Exec(command="b"))
    service.close()
    assert "was truncated while" in there.is_ok()
    service = there.process("c", closes=False)
    (there.directory / "audit.jsonl.0").write_bytes(there.path.read_bytes())
    service.emit(Exec(command="lost"))
    there.path.write_bytes(b"")
    service.emit(Exec(command="d"))
    assert "missing" in there.fails()


def test_notes_lines_older_than_the_chain(there: Installation) -> None:
    old = b'{"event":"exec","command":"old"}\n'
    (there.directory / "audit.jsonl.1").write_bytes(old)
    there.path.write_bytes(old * 3 + b'{"torn')
    there.process("new")
    there.process("again")
    output = there.is_ok()
    assert "audit.jsonl.1: 1 line is older than the chain, and not protected" in output
    assert "audit.jsonl: 4 lines are older than the chain, and unchanged since then" in output
    content = there.path.read_bytes()
    there.path.write_bytes(content.replace(b"old", b"0ld", 1))
    assert "lines 1 to 3: changed or added" in there.fails()
    there.path.write_bytes(content[len(old) :])
    there.fails()
    there.path.write_bytes(content + old)
    assert "changed or added" in there.fails(), "nobody vouches for later ones"


def test_notes_lost_events(there: Installation) -> None:
    is_full = False
    log = audit_log(there.directory, write=lambda *args: 0 if is_full else os.write(*args))
    log.emit(Exec(command="a"))
    is_full = True
    with pytest.raises(Exception, match="cannot be written"):
        log.emit(Exec(command="lost"))
    is_full = False
    log.close()
    assert "1 events could not be written" in there.is_ok()


# -- changes


def long_log(directory: Path) -> Installation:
    """Two files: a service in both, a killed process, two commands, a torn line."""
    there = Installation(directory)
    descriptors = set()

    def write(descriptor: int, data: bytes) -> int:
        descriptors.add(descriptor)
        return os.write(descriptor, data)

    killed = audit_log(directory, write=write)
    for _ in range(2):
        killed.emit(Exec(command="killed"))
    (descriptor,) = descriptors
    os.close(descriptor)
    with there.path.open("ab") as file:
        file.write(b'{"time":"2026-11-29T')
    service = there.process("one", "two", closes=False)
    there.process("lock")
    for number in range(3):
        service.emit(Resize(columns=number, rows=1))
    there.rotate("audit.jsonl.1")
    service.emit(Exec(command="three"))
    there.process("unlock")
    service.emit(Exec(command="four"))
    service.close()
    return there


def check(keys: RecordingSigner, heads: Sequence[Head], files: Iterable[tuple[str, bytes]]) -> AuditVerifier:
    verifier = AuditVerifier(keys.keys(), heads=heads)
    for name, content in files:
        verifier.read(name, content.splitlines(keepends=True))
    verifier.finish()
    return verifier


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], list[bytes], tuple[Head, ...]]:
    there = long_log(tmp_path_factory.mktemp("log"))
    there.is_ok()
    files = [path.read_bytes() for path in (there.directory / "audit.jsonl.1", there.path)]
    heads = AuditHeadFile(there.directory / "audit_heads").heads()
    return files[0].splitlines(keepends=True), files[1].splitlines(keepends=True), heads


Contents = tuple[list[bytes], list[bytes], tuple[Head, ...]]


def is_found(contents: Contents, first: list[bytes], second: list[bytes]) -> bool:
    files = [("audit.jsonl.1", b"".join(first)), ("audit.jsonl", b"".join(second))]
    return not check(SIGNER, contents[2], files).ok


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_finds_every_changed_byte(contents: Contents, data: st.DataObject) -> None:
    first, second, _ = contents
    # A killed process left lines without a head: the last of them cannot be verified.
    weak = 2
    which = data.draw(st.sampled_from([0, 1]))
    lines = [list(first), list(second)]
    at = data.draw(st.integers(0, len(lines[which]) - 1).filter(lambda at: which or at != weak))
    line = lines[which][at]
    offset = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[offset]))
    lines[which][at] = line[:offset] + bytes((byte,)) + line[offset + 1 :]
    assert is_found(contents, *lines), lines[which][at]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_finds_every_removed_added_or_moved_line(contents: Contents, data: st.DataObject) -> None:
    first, second, _ = contents
    lines = [list(first), list(second)]
    all_lines = [*first, *second]
    which = data.draw(st.sampled_from([0, 1]))
    at = data.draw(st.integers(0, len(lines[which]) - 1))
    act = data.draw(st.sampled_from(["remove", "add", "copy", "move", "swap"]))
    if act == "remove":
        gone = lines[which].pop(at)
        if which == 0 and at == 2:
            return  # the last line of a process that was killed, after its last head
        assert gone
    elif act == "add":
        forged = data.draw(st.sampled_from(all_lines)).replace(b"root", b"joe")
        lines[which].insert(at, forged if forged not in all_lines else b'{"event":"exec"}\n')
    elif act == "copy":
        lines[which].insert(at, data.draw(st.sampled_from(all_lines)))
    elif act == "move":
        line = lines[which].pop(at)
        to = data.draw(st.integers(0, len(lines[which])).filter(lambda to: to != at))
        lines[which].insert(to, line)
    else:
        other = data.draw(st.integers(0, len(lines[which]) - 1).filter(lambda other: other != at))
        lines[which][at], lines[which][other] = lines[which][other], lines[which][at]
    moved = [parse(line) for line in (*lines[0], *lines[1])]
    order = [(line.chain, line.number) for line in moved if line is not None]
    if act in ("move", "swap") and all(
        numbers == sorted(numbers)
        for chain in {chain for chain, _ in order}
        for numbers in [[number for name, number in order if name == chain]]
    ):
        return  # lines of different chains have no order but their times
    assert is_found(contents, *lines), act


@pytest.mark.parametrize("count", range(1, 12))
def test_finds_every_cut_end(contents: Contents, count: int) -> None:
    first, second, _ = contents
    count = min(count, len(second))
    assert is_found(contents, first, second[:-count])
    assert is_found(contents, first[:-count], second)
    assert is_found(contents, first, [*second[:-count], second[-count][:-1]]), "and where a line is torn"


def test_finds_missing_file(contents: Contents) -> None:
    first, second, heads = contents
    files = [("audit.jsonl.1", b"".join(first))]
    assert not check(SIGNER, heads, files).ok
    assert check(SIGNER, heads, [("audit.jsonl", b"".join(second))]).ok, "the oldest may go"


def test_finds_missing_middle_file(there: Installation) -> None:
    service = there.process("a", closes=False)
    files = []
    for number in (3, 2, 1):
        files.append(there.rotate(f"audit.jsonl.{number}"))
        service.emit(Exec(command="b"))
    content = files[1].read_bytes()
    files[1].unlink()
    assert "missing before it in chain" in there.fails()
    files[1].write_bytes(content)
    there.is_ok()
    there.path.unlink()
    assert "the end of the chain was cut" in there.fails(), "the newest"


def test_finds_missing_chain(there: Installation) -> None:
    there.process("first")
    before = len(there.path.read_bytes().splitlines())
    there.process("hidden")
    after = len(there.path.read_bytes().splitlines())
    there.process("last")
    lines = there.path.read_bytes().splitlines(keepends=True)
    kept = lines[:before] + lines[after:]
    there.path.write_bytes(b"".join(kept))
    assert "the log was cut or replaced" in there.fails()
    there.process("hidden")
    there.path.write_bytes(b"".join(kept))
    assert there.fails().count("the log was cut or replaced") == 2, (
        "also the last: it is known elsewhere"
    )


def test_rejects_signature_of_another_key(there: Installation) -> None:
    there.process("a")
    other = there.directory / "other.pub"
    other.write_text(RecordingSigner.generate().public_line + "\n")
    assert "signature" in there.fails("--key", other)
    both = there.directory / "both.pub"
    both.write_text(RecordingSigner.generate().public_line + "\n" + SIGNER.public_line + "\n")
    there.is_ok("--key", both)


def test_rejects_signature_of_the_ledger(there: Installation) -> None:
    log = there.process("a", closes=False)
    (first, *_) = there.path.read_bytes().splitlines(keepends=True)
    body = first.rpartition(b',"signature":"')[0]
    there.path.write_bytes(SIGNER.entry(body + b"}"))
    assert "signature verification failed for a head of the audit log" in there.fails()
    assert log.path == there.path


def test_finds_missing_head_in_a_restored_log(there: Installation) -> None:
    """Anyone who has the key can make a chain, but none with a head that was noted elsewhere."""
    log = there.process("a", closes=False)
    earlier = there.path.read_bytes()
    log.close()
    noted = str(head_of(there.path.read_bytes().splitlines(keepends=True)[-1]))
    there.is_ok("--head", noted)
    there.path.write_bytes(earlier)
    (there.directory / "audit_heads").unlink()
    assert "note" in there.is_ok()
    assert "the end of the chain was cut" in there.fails("--head", noted)
    there.path.unlink()
    there.process("forged", "forged")
    assert "the log was cut or replaced" in there.fails("--head", noted)
    name, number, digest = noted.partition("@")[0].split(":")
    other = hashlib.sha256(bytes.fromhex(digest)).hexdigest()
    (there.directory / "audit_heads").unlink()
    there.path.write_bytes(earlier)
    assert "does not match the head" in there.fails("--head", f"{name}:0:{other}")
    assert number == "2"


@pytest.mark.parametrize(
    "content", [None, b"", b"\n\n", b'{"event":"exec"}\n', b"\xff\xfe\n", b"[" * 100_000]
)
def test_fails_when_there_is_nothing_to_verify(there: Installation, content: bytes | None) -> None:
    if content is not None:
        there.path.write_bytes(content)
    assert "nothing to verify" in there.fails()
    there.process("a")
    there.path.unlink()
    assert "nothing to verify" in there.fails()


def test_counts_problems_beyond_a_limit(there: Installation) -> None:
    there.process(*["x"] * 400)
    lines = there.path.read_bytes().splitlines(keepends=True)
    there.path.write_bytes(b"{}\n".join(lines[::2]))
    output = there.fails()
    assert output.count("FAILED  ") == MOST_PROBLEMS + 1 and " more\n" in output


@pytest.mark.parametrize(
    "line",
    [
        b'{"chain":"' + b"a" * 12 + b'","seq":99999999999999999999999999,"prev":"x"}\n',
        b'{"chain":"../../../x","seq":1,"prev":"x"}\n',
        b'{"chain":"' + b"a" * 12 + b'","seq":true,"prev":"x"}\n',
        b'{"chain":"' + b"a" * 12 + b'","seq":0,"prev":"x","event":"audit.head","head":"zz","reason":7}\n',
        b'{"chain":"' + b"a" * 12 + b'","seq":1' + b"0" * 5000 + b',"prev":"x"}\n',
        b"[" * 100_000 + b"\n",
        b'"' + "\u2028\x1b[31m".encode() + b'"\n',
    ],
)
def test_survives_hostile_lines(there: Installation, line: bytes) -> None:
    there.process("a")
    with there.path.open("ab") as file:
        file.write(line)
    assert "\x1b" not in there.fails()


# -- the command


def test_needs_only_the_key_and_the_files(there: Installation, tmp_path: Path) -> None:
    there.process("a")
    code, output = there.verify("--key", there.key, there.path, config=False)
    assert (code, "ok" in output) == (DONE, True), output
    assert "no head to compare with" in output
    noted = output.rpartition("head: ")[2].strip()
    code, output = there.verify("--key", there.key, "--head", noted, there.path, config=False)
    assert (code, "note" in output) == (DONE, False), output
    assert there.verify("--key", there.key, there.path, there.path, config=False)[0] == DONE, "named twice"


def test_prints_json(there: Installation) -> None:
    there.process("a", closes=False)
    code, output = there.verify("--json")
    read = json.loads(output)
    assert (code, read["ok"], read["lines"], read["problems"]) == (DONE, True, 2, [])
    (chain,) = read["chains"]
    assert (chain["first"], chain["last"], chain["end"]) == (0, 1, "open")
    assert Head.parse(read["head"]).chain == chain["chain"] and len(read["notes"]) == 1
    there.path.write_bytes(b"")
    code, output = there.verify("--json")
    assert (code, json.loads(output)["ok"]) == (NO, False)


def test_returns_exit_codes(there: Installation) -> None:
    there.process("a")
    assert there.verify("--head", "nonsense")[0] == USAGE
    assert there.verify("--wrong")[0] == USAGE
    assert there.verify(there.directory / "missing")[0] == NO
    assert there.verify(there.directory)[0] == NO
    there.key.write_text("nonsense\n")
    assert there.verify()[0] == CONFIGURATION
    there.key.unlink()
    assert there.verify()[0] == CONFIGURATION
    there.config.write_text("nonsense: 1\n")
    assert there.verify()[0] == CONFIGURATION


def test_rejects_damaged_compressed_file(there: Installation) -> None:
    there.process("a")
    packed = there.directory / "audit.jsonl.1.gz"
    packed.write_bytes(gzip.compress(b"x" * 1000)[:-10])
    assert "audit.jsonl.1.gz is damaged" in there.fails()


def test_ignores_other_files_in_the_directory(there: Installation) -> None:
    for name in ("audit.jsonl.swp", "audit.jsonl.sha256", "audit.jsonl-old", "other.jsonl.1"):
        (there.directory / name).write_bytes(b"{}\n")
    there.process("a")
    assert "1 file: ok" in there.is_ok()
    for suffix in (".1", "-20261129", "-2026-11-29.xz", "-1796000000.zst"):
        (there.directory / f"audit.jsonl{suffix}").write_bytes(b"")
    assert len(log_files(there.path)) == 5


def test_fails_without_a_log(tmp_path: Path) -> None:
    assert log_files(tmp_path / "missing" / "audit.jsonl") == ()
    (tmp_path / "long").write_bytes(b"x" * 100)
    assert list(read_lines(tmp_path / "long")) == [b"x" * 100]


def test_requires_no_heads_for_a_part_of_the_log(there: Installation) -> None:
    service = there.process("a", closes=False)
    old = there.rotate("audit.jsonl.1")
    service.close()
    assert "continues in a file that was not given" in there.is_ok(old)
    there.is_ok(there.path)
    there.is_ok(old, there.path)
