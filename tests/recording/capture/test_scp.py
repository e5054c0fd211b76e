"""The old protocol of scp: what is reported, in whatever pieces it comes."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.capture import scp
from conchrec.recording.capture.scp import ScpCommand, ScpReader
from conchrec.recording.format.transfer_account import AccountLost, Operation, TransferFact

#: What passes: by the sender (True) or by the other side.
Passed = list[tuple[bool, bytes]]
INTO = ScpCommand(to_target=True, paths=("/d/",))
FROM = ScpCommand(to_target=False, paths=("/d/a",))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listen(passed: Passed, command: ScpCommand = INTO, *, size: int = 1 << 20) -> list[TransferFact]:
    """Return all that is reported, with pieces of ``size`` bytes."""
    reader = ScpReader(command, lambda: 0.0)
    facts: list[TransferFact] = []
    for by_sender, data in passed:
        feed = reader.from_user if by_sender is command.to_target else reader.from_target
        for at in range(0, len(data), size):
            facts += feed(data[at : at + size])
    return [*facts, *reader.end()]


def file(name: str, data: bytes) -> Passed:
    """A file that is sent and accepted."""
    line = f"C0644 {len(data)} {name}\n".encode()
    return [(True, line), (False, b"\0"), (True, data + b"\0"), (False, b"\0")]


BEGIN: Passed = [(False, b"\0")]


def written(path: str, name: str, data: bytes) -> Operation:
    return Operation(
        operation="write", path=path, name=name, detail="mode=0644", size=len(data), sha256=sha256(data)
    )


def directory(path: str, name: str, detail: str = "mode=0755") -> Operation:
    return Operation(operation="directory", path=path, name=name, detail=detail)


# --- transfers


def test_reports_tree_sent_to_the_target() -> None:
    passed: Passed = [
        *BEGIN,
        *((True, b"T1767000000 0 1767000000 0\n"), (False, b"\0")),
        *((True, b"D0755 0 tree\n"), (False, b"\0")),
        *((True, b"T4 0 3 0\n"), (False, b"\0")),
        *file("a", b"contents"),
        *((True, b"D0755 0 sub dir\n"), (False, b"\0")),
        *file("\u00e9", b""),
        *((True, b"E\n"), (False, b"\0")),
        *((True, b"E\n"), (False, b"\0")),
        *file("b", b"\n\0" * 10),
    ]
    expected = [
        directory("/d/tree", "tree", "mode=0755 mtime=1767000000 atime=1767000000"),
        replace(written("/d/tree/a", "tree/a", b"contents"), detail="mode=0644 mtime=4 atime=3"),
        directory("/d/tree/sub dir", "tree/sub dir"),
        written("/d/tree/sub dir/\u00e9", "tree/sub dir/\u00e9", b""),
        written("/d/b", "b", b"\n\0" * 10),
    ]
    assert listen(passed) == expected
    for size in range(1, 12):
        assert listen(passed, size=size) == expected


def test_reports_files_sent_by_the_target() -> None:
    (fact,) = listen([*BEGIN, *file("a", b"contents")], FROM)
    assert fact == Operation(operation="read", path="/d/a", name="a", size=8, sha256=sha256(b"contents"))


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(1, 30)))
def test_reads_any_pieces_alike(data: bytes, cuts: list[int]) -> None:
    reader = ScpReader(INTO, lambda: 0.0)
    facts: list[TransferFact] = []
    for by_sender, passing in [*BEGIN, *file("a", data), *file("b", b"b")]:
        feed = reader.from_user if by_sender else reader.from_target
        for cut in cuts:
            facts += feed(passing[:cut])
            passing = passing[cut:]
        facts += feed(passing)
    assert facts == [written("/d/a", "a", data), written("/d/b", "b", b"b")]


def test_reads_sender_that_does_not_wait_for_answers() -> None:
    """Everything is sent at once and answered later, as with some small clients."""
    sent = b"C0644 3 a\nabc\0D0755 0 x\nC0644 0 b\n\0E\n"
    passed: Passed = [(True, sent), (False, b"\0" * 7)]
    assert listen(passed) == [
        written("/d/a", "a", b"abc"),
        directory("/d/x", "x"),
        written("/d/x/b", "x/b", b""),
    ]


def test_reads_receiver_that_answers_before_the_status() -> None:
    """pscp, for an empty file."""
    passed: Passed = [*BEGIN, (True, b"C0644 0 a\n"), (False, b"\0\0"), (True, b"\0"), *file("b", b"b")]
    assert listen(passed) == [written("/d/a", "a", b""), written("/d/b", "b", b"b")]


def test_reports_refused_files() -> None:
    no = b"\1scp: /d/a: Is a directory\n"
    passed: Passed = [
        *BEGIN,
        *((True, b"C0644 3 a\n"), (False, no)),
        *((True, b"C0644 0 empty\n"), (False, no)),
        *((True, b"D0755 0 x\n"), (False, b"\1\n")),
        *file("b", b"b"),
    ]

    def refused(path: str, name: str) -> Operation:
        result = "scp: /d/a: Is a directory"
        return replace(written(path, name, b""), sha256="", unhashed="it failed", result=result)

    assert listen(passed) == [
        refused("/d/a", "a"),
        refused("/d/empty", "empty"),
        replace(directory("/d/x", "x"), result="it failed"),
        written("/d/b", "b", b"b"),
    ]


def test_reports_files_that_fail_in_transit() -> None:
    disk_full: Passed = [
        *((True, b"C0644 3 a\n"), (False, b"\0")),
        *((True, b"abc\0"), (False, b"\1scp: /d/a: No space left on device\n")),
    ]
    unreadable: Passed = [
        *((True, b"C0644 3 a\n"), (False, b"\0")),
        *((True, b"\0\0\0\1a: Input/output error\n"), (False, b"\0")),
    ]
    full, padded = listen([*BEGIN, *disk_full, *unreadable])
    result = "scp: /d/a: No space left on device"
    assert full == replace(written("/d/a", "a", b"abc"), sha256="", unhashed="it failed", result=result)
    detail = "mode=0644 sender reports: a: Input/output error"
    assert padded == replace(written("/d/a", "a", bytes(3)), detail=detail), "the target has these bytes"


def test_takes_result_from_the_target() -> None:
    """The user may report anything: it does not change the result."""
    lie = b"\1permission denied\n"
    sent: Passed = [*BEGIN, (True, b"C4755 2 a\n"), (False, b"\0"), (True, b"#!" + lie), (False, b"\0")]
    (fact,) = listen(sent)
    assert fact == replace(written("/d/a", "a", b"#!"), detail="mode=4755 sender reports: permission denied")
    no_answer = listen(sent[:-1])
    assert [(fact.result, fact.unhashed) for fact in no_answer if isinstance(fact, Operation)] == [
        ("no answer", "no answer")
    ]
    read: Passed = [*BEGIN, (True, b"C0644 2 a\n"), (False, b"\0"), (True, b"#!\0"), (False, lie)]
    (fact,) = listen(read, FROM)
    assert fact == Operation(
        operation="read", path="/d/a", name="a", size=2, sha256=sha256(b"#!"),
        detail="receiver reports: permission denied",
    )  # fmt: skip
    assert listen([(False, lie)], FROM) == [], "scp -f sends anyway"


def test_reports_files_that_do_not_exist() -> None:
    passed: Passed = [*BEGIN, (True, b"\1scp: /d/a: No such file or directory\n")]
    assert listen(passed, FROM) == [
        Operation(
            operation="read",
            path="/d/a",
            size=0,
            unhashed="not sent",
            result="scp: /d/a: No such file or directory",
        )
    ]
    # A missing file of the user is not a file of the target.
    assert listen(passed, INTO) == []
    # The target accepts nothing at all.
    (fact,) = listen([(False, b"\1scp: /d/: Not a directory\n")])
    assert isinstance(fact, Operation)
    assert (fact.operation, fact.path, fact.result) == ("write", "/d/", "scp: /d/: Not a directory")


def test_reports_files_in_transit_at_the_end() -> None:
    passed: Passed = [
        *BEGIN,
        *((True, b"C0644 1 a\n"), (False, b"\0"), (True, b"a\0")),
        *((True, b"C0644 9 b\n"), (False, b""), (True, b"half")),
    ]
    assert listen(passed) == [
        replace(written("/d/a", "a", b"a"), sha256="", unhashed="no answer", result="no answer"),
        replace(written("/d/b", "b", b"half"), sha256="", unhashed="cut short", result="cut short"),
    ]


# --- errors


@pytest.mark.parametrize(
    ("passed", "reason"),
    [
        ([(True, b"hello\n")], "an invalid line"),
        ([(True, b"C0644 -1 a\n")], "an invalid line"),
        ([(True, b"C0644 1 shown\0otherwise\n")], "an invalid line"),
        ([(True, b"C0644 99999999999999999999 a\n")], "an invalid line"),
        ([(True, b"E\n")], "more directories are left than were entered"),
        ([(True, b"C" * (scp.LINE + 1))], "a line is too long"),
        ([(True, b"C0644 1 a\naX")], "no status byte after a file"),
        ([(True, b"D0755 0 a\n" * (scp.ANSWERS))], "too many lines have no answer"),
        ([(True, b"D0755 0 " + b"x" * 4090 + b"\n") for _ in range(3)], "directories are too deep"),
        ([(False, b"Welcome\n")], "an invalid answer"),
        ([(False, b"\1" * (scp.LINE + 1))], "an answer is too long"),
        ([(False, b"\0\0")], "an answer without a line"),
    ],
)
def test_reports_once_what_it_cannot_follow(passed: Passed, reason: str) -> None:
    facts = listen([*passed, *file("more", b"more")])
    assert [fact for fact in facts if isinstance(fact, AccountLost)] == [AccountLost(reason=reason)]
    assert facts[0] == AccountLost(reason=reason)


def test_loses_account_at_a_late_refusal() -> None:
    late: Passed = [*BEGIN, (True, b"C0644 3 a\nab"), (False, b"\1no\n")]
    assert listen(late)[0] == AccountLost(reason="a file was refused after it was sent")
    late = [*BEGIN, (True, b"D0755 0 x\nC0644 3 a\n"), (False, b"\1no\n")]
    assert listen(late)[0] == AccountLost(reason="a directory was refused after it was entered")


def test_limits_depth_of_directories() -> None:
    passed: Passed = [*BEGIN, *[(True, b"D0755 0 a\n"), (False, b"\0")] * (scp.DEPTH + 1)]
    assert listen(passed)[-1] == AccountLost(reason="directories are too deep")


def test_keeps_no_file_contents() -> None:
    chunk = bytes(1 << 20)
    tracemalloc.start()
    try:
        reader = ScpReader(INTO, lambda: 0.0)
        reader.from_target(b"\0")
        reader.from_user(b"C0644 %d a\n" % (8 << 20))
        for _ in range(8):
            reader.from_user(chunk)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


# --- paths at the target


@pytest.mark.parametrize(
    ("words", "name", "path"),
    [
        ("-t /d/", "a", "/d/a"),
        ("-d -t /d", "a", "/d/a"),
        ("-rdt /d", "x/a", "/d/x/a"),
        ("-t .", "a", "./a"),
        ("-t /d", "a", "/d"),
        ("-f /d/a", "a", "/d/a"),
        ("-f a", "a", "a"),
        ("-rf /d/x/", "x/sub/a", "/d/x/sub/a"),
        ("-f /d/*", "a", "/d/a"),
        ("-f /*/d", "a", "/*/d"),
        ("-f /d/a /e/b", "b", "/e/b"),
        ("-f /d/* /e/*", "b", "/d/* /e/*"),
        ("-rf .", "a", "."),
    ],
)
def test_finds_path_of_each_file(words: str, name: str, path: str) -> None:
    command = ScpCommand.parse(words.split())
    assert command is not None
    assert command.path(name) == path
