"""SFTP: what is reported, in whatever pieces it comes, and the limits of its cost."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.capture import sftp_wire as sftp
from conchrec.recording.capture.sftp import REQUESTS, SftpReader
from conchrec.recording.capture.sftp_files import SIZES
from conchrec.recording.format.transfer_account import PATH_MAX, AccountLost, Operation, TransferFact
from tests.recording.sftp_talk import NO_ATTRIBUTES, Talk, listen, size_attribute, string, uint32, uint64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def only_operation(talk: Talk) -> Operation:
    (fact,) = listen(talk)
    assert isinstance(fact, Operation)
    return fact


def lost(talk: Talk) -> str:
    """Return why the account was lost, which must be the only report."""
    (fact,) = listen(talk)
    assert isinstance(fact, AccountLost)
    return fact.reason


def written(path: str, data: bytes, flags: str = "write,create,truncate") -> Operation:
    return Operation(
        operation="write", path=path, detail=f"flags={flags}", size=len(data), sha256=sha256(data)
    )


def was_read(path: str, data: bytes) -> Operation:
    return Operation(operation="read", path=path, size=len(data), sha256=sha256(data))


# --- complete files


def test_reports_written_file() -> None:
    talk = Talk()
    talk.to_write("/tmp/ä".encode())
    talk.write(0, b"some")
    talk.write(4, b"thing")
    talk.close()
    assert only_operation(talk) == written("/tmp/ä", b"something")


def test_reports_file_read_to_its_end() -> None:
    talk = Talk()
    talk.to_read(b"/a")
    talk.read(0, b"x" * 32768)
    talk.read(32768, b"y")
    talk.end_of_file(32769)
    talk.close()
    assert only_operation(talk) == was_read("/a", b"x" * 32768 + b"y")


def test_reports_empty_files() -> None:
    talk = Talk()
    talk.to_write(b"/a")
    talk.close()
    talk.to_read(b"/a")
    talk.end_of_file(0)
    talk.close()
    assert listen(talk) == [written("/a", b""), was_read("/a", b"")]


@pytest.mark.parametrize("how", ["stat", "fstat", "listed"])
def test_hashes_file_read_to_its_reported_size(how: str) -> None:
    talk = Talk()
    attributes = size_attribute(4)
    if how == "stat":
        talk.target(sftp.ATTRS, uint32(talk.ask(sftp.STAT, string(b"/d/a"))) + attributes)
    elif how == "listed":
        opened = talk.ask(sftp.OPENDIR, string(b"/d/"))
        talk.target(sftp.HANDLE_REPLY, uint32(opened) + string(b"dir"))
        listed = talk.ask(sftp.READDIR, string(b"dir"))
        other = string(b"b") + string(b"-rw b") + size_attribute(9)
        entry = string(b"a") + string(b"-rw a") + attributes
        talk.target(sftp.NAME, uint32(listed) + uint32(2) + other + entry)
        talk.close(b"dir")
    talk.to_read(b"/d/a")
    if how == "fstat":
        talk.target(sftp.ATTRS, uint32(talk.ask(sftp.FSTAT, string(b"h"))) + attributes)
    talk.read(0, b"data", length=4)
    talk.close()
    assert only_operation(talk) == was_read("/d/a", b"data")


def test_hashes_file_read_to_a_short_answer() -> None:
    """PuTTY: what it requested after that is answered with the end of file."""
    talk = Talk()
    talk.to_read(b"/a")
    first, second = talk.ask_read(0), talk.ask_read(32768)
    talk.data(first, b"short")
    talk.status(second, sftp.EOF)
    talk.close()
    assert only_operation(talk) == was_read("/a", b"short")


def test_hashes_nothing_after_a_short_answer_to_a_long_request() -> None:
    """A short answer to a long request is not the end of the file."""
    talk = Talk()
    talk.to_read(b"/a")
    first, second = talk.ask_read(0, 1 << 20), talk.ask_read(1 << 20, 1 << 20)
    talk.data(first, b"x" * 262144)
    talk.status(second, sftp.EOF)
    talk.close()
    assert only_operation(talk).unhashed == "not read to its end"


def test_matches_answers_in_any_order() -> None:
    talk = Talk()
    talk.to_read(b"/a")
    numbers = [talk.ask_read(offset, 2) for offset in (0, 2, 4, 6)]
    for index, data in ((2, b"cc"), (1, b"bb"), (0, b"aa")):
        talk.data(numbers[index], data)
    talk.status(numbers[3], sftp.EOF)
    talk.close()
    assert only_operation(talk) == was_read("/a", b"aabbcc")


def test_accepts_data_after_the_answer_to_close() -> None:
    talk = Talk()
    talk.to_read(b"/a")
    first, end = talk.ask_read(0, 4), talk.ask_read(4)
    close = talk.ask(sftp.CLOSE, string(b"h"))
    talk.status(close)
    talk.to_read(b"/other")  # with the same handle
    talk.data(first, b"data")
    talk.status(end, sftp.EOF)
    talk.end_of_file(0)
    talk.close()
    assert listen(talk) == [was_read("/a", b"data"), was_read("/other", b"")]


@given(
    order=st.permutations(range(12)),
    chunks=st.lists(st.binary(min_size=1, max_size=40), min_size=12, max_size=12),
)
def test_hashes_writes_in_the_order_of_offsets(order: list[int], chunks: list[bytes]) -> None:
    talk = Talk()
    talk.to_write(b"/a")
    for index in order:
        talk.write(len(b"".join(chunks[:index])), chunks[index])
    talk.close()
    assert only_operation(talk) == written("/a", b"".join(chunks))


# --- incomplete files


def unhashed(talk: Talk) -> str:
    facts = only_operation(talk)
    assert facts.sha256 == ""
    return facts.unhashed


def test_leaves_out_hash_of_half_a_file() -> None:
    reads = [Talk() for _ in range(3)]
    for talk in reads:
        talk.to_read(b"/a")
    reads[0].read(0, b"x" * 32768)
    reads[1].read(0, b"x" * 10, length=10)
    reads[1].end_of_file(20)
    reads[2].read(5, b"x" * 10)
    reads[2].end_of_file(15)
    whys = []
    for talk in reads:
        talk.close()
        whys.append(unhashed(talk))
    assert whys == ["not read to its end", "not read to its end", "not from its beginning"]


def test_leaves_out_hash_with_gaps_or_repeats() -> None:
    gap, twice, again = Talk(), Talk(), Talk()
    for talk in (gap, twice, again):
        talk.to_write(b"/a")
        talk.write(0, b"aaaa")
    gap.write(5, b"b")
    twice.write(2, b"bb")
    again.write(8, b"cc")
    again.write(8, b"cc")
    whys = []
    for talk in (gap, twice, again):
        talk.close()
        whys.append(unhashed(talk))
    assert whys == ["a part of it is missing", "a part of it passed twice", "a part of it passed twice"]


def test_leaves_out_hash_of_writes_far_out_of_order() -> None:
    talk = Talk()
    talk.to_write(b"/a")
    talk.write(0, b"begin")
    for number in range(1, 150):
        talk.write(number * 32768, bytes(32768))
    talk.close()
    facts = only_operation(talk)
    assert (facts.size, facts.unhashed) == (5 + 149 * 32768, "too far out of order")


@pytest.mark.parametrize(
    ("size", "more", "why"),
    [
        (None, b"", "what was in the file before is not known"),
        (4, b"", ""),
        (5, b"x", ""),
        (6, b"", "what was in the file before is not known"),
        (2, b"", "cut to 2 bytes"),
    ],
)
def test_leaves_out_hash_where_earlier_contents_may_remain(size: int | None, more: bytes, why: str) -> None:
    """Opened without being emptied: the contents are known only where the length is set to what was
    written."""
    talk = Talk()
    talk.open(b"/a", sftp.FXF_WRITE | sftp.FXF_CREAT)
    talk.write(0, b"some")
    if size is not None:
        talk.change(sftp.FSETSTAT, string(b"h") + size_attribute(size))
    if more:
        talk.write(4, more)
    talk.close()
    *_, facts = listen(talk)
    assert isinstance(facts, Operation)
    assert (facts.operation, facts.unhashed) == ("write", why)
    assert facts.sha256 == ("" if why else sha256(b"some" + more))


def test_hashes_new_file() -> None:
    talk = Talk()
    talk.open(b"/a", sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_EXCL)
    talk.write(0, b"some")
    talk.close()
    assert only_operation(talk) == written("/a", b"some", "write,create,exclusive")


def test_leaves_out_hash_after_a_cut() -> None:
    """On the disk are five bytes. What came early is gone, though it is hashed in its turn."""
    talk = Talk()
    talk.open(b"/a", sftp.FXF_WRITE)
    talk.write(5, b"early")
    talk.change(sftp.FSETSTAT, string(b"h") + size_attribute(5))
    talk.write(0, b"first")
    talk.close()
    *_, facts = listen(talk)
    assert isinstance(facts, Operation)
    assert (facts.sha256, facts.unhashed) == ("", "cut to 5 bytes")


def test_leaves_out_hash_of_appended_file() -> None:
    talk = Talk()
    talk.open(b"/a", sftp.FXF_WRITE | sftp.FXF_APPEND)
    talk.write(0, b"some")
    talk.close()
    assert unhashed(talk) == "appended"


def test_reports_failures() -> None:
    refused, full, unclosed = Talk(), Talk(), Talk()
    number = refused.ask(sftp.OPEN, string(b"/a") + uint32(sftp.FXF_READ) + NO_ATTRIBUTES)
    refused.status(number, 3)
    full.to_write(b"/a")
    full.write(0, b"some")
    full.write(4, b"thing", code=4)
    full.close()
    unclosed.to_write(b"/a")
    unclosed.write(0, b"some")
    unclosed.close(code=99)
    assert [only_operation(talk) for talk in (refused, full, unclosed)] == [
        Operation(operation="read", path="/a", size=0, unhashed="not opened", result="permission denied"),
        replace(written("/a", b""), size=9, sha256="", unhashed="a part of it failed", result="failure"),
        replace(written("/a", b"some"), result="status 99"),
    ]


def test_keeps_result_of_each_direction() -> None:
    """A read that fails on purpose must not show a file that was written as one that was not."""

    def results(talk: Talk) -> list[tuple[str, str]]:
        return [(fact.operation, fact.result) for fact in listen(talk) if isinstance(fact, Operation)]

    written_whole, read_whole, both = Talk(), Talk(), Talk()
    written_whole.to_write(b"/a")
    written_whole.status(written_whole.ask_read(0), 2)
    written_whole.write(0, b"some")
    written_whole.close()
    read_whole.to_read(b"/a")
    read_whole.write(0, b"some", code=2)
    read_whole.read(0, b"data")
    read_whole.end_of_file(4)
    read_whole.close()
    both.open(b"/a", sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC)
    both.write(0, b"some")
    both.read(0, b"some")
    both.status(both.ask_read(4), 4)
    both.close()
    assert only_operation(written_whole) == written("/a", b"some")
    assert results(read_whole) == [("read", "ok"), ("write", "no such file")]
    assert results(both) == [("read", "failure"), ("write", "ok")]


def test_reports_open_files_at_the_end() -> None:
    talk = Talk()
    talk.to_write(b"/a")
    talk.write(0, b"some")
    talk.ask(sftp.REMOVE, string(b"/b"))
    talk.ask(sftp.OPEN, string(b"/c") + uint32(sftp.FXF_READ) + NO_ATTRIBUTES)
    talk.ask(sftp.STAT, string(b"/d"))
    assert listen(talk) == [
        replace(written("/a", b"some"), sha256="", unhashed="not closed", result="not closed"),
        Operation(operation="remove", path="/b", result="no answer"),
        Operation(operation="read", path="/c", size=0, unhashed="not opened", result="no answer"),
    ]


def test_reports_file_read_and_written() -> None:
    talk = Talk()
    talk.open(b"/a", sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_TRUNC)
    talk.write(0, b"some")
    talk.read(0, b"some", length=4)
    talk.end_of_file(4)
    talk.close()
    flags = "read,write,truncate"
    assert listen(talk) == [
        replace(was_read("/a", b"some"), detail=f"flags={flags}"),
        written("/a", b"some", flags),
    ]


# --- changes


def test_reports_every_change() -> None:
    two = string(b"/a") + string(b"/b")
    attributes = uint32(0xF) + uint64(7) + uint32(1) + uint32(2) + uint32(0o100640) + uint32(3) + uint32(4)
    talk = Talk()
    talk.change(sftp.REMOVE, string(b"/a"))
    talk.change(sftp.RENAME, two)
    talk.change(sftp.MKDIR, string(b"/a") + NO_ATTRIBUTES)
    talk.change(sftp.RMDIR, string(b"/a"), code=4)
    talk.change(sftp.SETSTAT, string(b"/a") + attributes)
    talk.change(sftp.SYMLINK, two)
    talk.extended(b"posix-rename@openssh.com", two)
    talk.extended(b"hardlink@openssh.com", two)
    talk.extended(b"lsetstat@openssh.com", string(b"/a") + uint32(4) + uint32(0o644))
    talk.extended(b"newer@example.com", b"who \xff", code=8)
    talk.extended(b"newer@example.com", b"x" * 300, code=8)
    talk.change(21, b"LINK, of another version", code=8)
    assert listen(talk) == [
        Operation(operation="remove", path="/a"),
        Operation(operation="rename", path="/a", other="/b"),
        Operation(operation="mkdir", path="/a"),
        Operation(operation="rmdir", path="/a", result="failure"),
        Operation(operation="setstat", path="/a", detail="size=7 owner=1:2 mode=0640 atime=3 mtime=4"),
        Operation(operation="symlink", path="/b", other="/a"),
        Operation(operation="posix-rename", path="/a", other="/b"),
        Operation(operation="hardlink", path="/a", other="/b"),
        Operation(operation="lsetstat", path="/a", detail="mode=0644"),
        refused("newer@example.com who \\xff"),
        refused("newer@example.com " + "x" * 256 + "… (300 bytes)"),
        refused("type 21 LINK, of another version"),
    ]


def refused(detail: str) -> Operation:
    return Operation(operation="extended", path="", detail=detail, result="not supported")


@pytest.mark.parametrize("answer", [sftp.STATUS, sftp.EXTENDED_REPLY, sftp.NAME])
@pytest.mark.parametrize("kind", [sftp.EXTENDED, 21])
def test_loses_account_when_target_does_something_unknown(kind: int, answer: int) -> None:
    name = string(b"newer@example.com") if kind == sftp.EXTENDED else b""
    talk = Talk()
    number = talk.ask(kind, name)
    talk.target(answer, uint32(number) + bytes(4))
    change, reason = listen(talk)
    detail = "newer@example.com" if name else "type 21"
    assert change == Operation(operation="extended", path="", detail=detail)
    assert reason == AccountLost(reason=f"the target carried out an unknown request: {detail.split()[0]}")


def test_uses_the_target_order_of_link_paths() -> None:
    talk = Talk(extension=b"vendor-id")
    talk.change(sftp.SYMLINK, string(b"/link") + string(b"/there"))
    assert only_operation(talk) == Operation(operation="symlink", path="/link", other="/there")


def test_learns_order_of_link_paths_from_the_answer() -> None:
    """A client need not wait for VERSION."""
    talk = Talk(begun=True)
    talk.user(sftp.INIT, uint32(3))
    link = talk.ask(sftp.SYMLINK, string(b"/there") + string(b"/link"))
    talk.target(sftp.VERSION_REPLY, uint32(3) + string(b"posix-rename@openssh.com") + string(b"1"))
    talk.status(link)
    assert only_operation(talk) == Operation(operation="symlink", path="/link", other="/there")


def test_reports_copy_at_the_target() -> None:
    talk = Talk()
    talk.to_read(b"/a", b"1")
    talk.to_write(b"/b", b"2")
    talk.extended(b"copy-data", string(b"1") + uint64(0) + uint64(0) + string(b"2") + uint64(0))
    talk.close(b"2")
    talk.close(b"1")
    assert listen(talk)[:2] == [
        Operation(operation="copy-data", path="/a", other="/b", detail="all bytes from 0"),
        replace(written("/b", b""), sha256="", unhashed="copied at the target"),
    ]


@pytest.mark.parametrize("other", [b"/f", b"/./f", b"//d/../f"])
@pytest.mark.parametrize("change", ["setstat", "open"])
def test_leaves_out_hash_of_file_changed_by_another_request(other: bytes, change: str) -> None:
    """The file contains ``good`` in the end, and the written bytes were ``goodevil``."""
    talk = Talk()
    talk.to_write(b"/f", b"1")
    talk.write(0, b"goodevil", b"1")
    if change == "setstat":
        talk.change(sftp.SETSTAT, string(other) + size_attribute(4))
    else:
        talk.open(other, sftp.FXF_WRITE, b"2")
        talk.write(0, b"evil", b"2")
        talk.close(b"2")
    talk.close(b"1")
    writes = [facts for facts in listen(talk) if isinstance(facts, Operation) and facts.operation == "write"]
    assert writes
    assert all(facts.sha256 == "" for facts in writes)
    assert writes[-1].unhashed == "changed through another request"


def test_hashes_file_that_is_written_again_later() -> None:
    talk = Talk()
    for data in (b"one", b"other"):
        talk.to_write(b"/f", b"1")
        talk.write(0, data, b"1")
        talk.close(b"1")
    assert listen(talk) == [written("/f", b"one"), written("/f", b"other")]


def test_ignores_requests_that_change_nothing() -> None:
    talk = Talk()
    name = uint32(1) + string(b"/root") + string(b"/root") + NO_ATTRIBUTES
    for kind in (sftp.REALPATH, sftp.READLINK):
        talk.target(sftp.NAME, uint32(talk.ask(kind, string(b"."))) + name)
    for extension, body in (
        (b"statvfs@openssh.com", string(b"/")),
        (b"limits@openssh.com", b""),
        (b"users-groups-by-id@openssh.com", string(b"/") * 2),
    ):
        number = talk.ask(sftp.EXTENDED, string(extension) + body)
        talk.target(sftp.EXTENDED_REPLY, uint32(number) + uint64(1) * 4)
    talk.extended(b"fsync@openssh.com", string(b"h"), code=4)
    number = talk.ask(sftp.EXTENDED, string(b"expand-path@openssh.com") + string(b"~"))
    talk.target(sftp.NAME, uint32(number) + name)
    assert listen(talk) == []


def test_limits_and_escapes_paths() -> None:
    talk = Talk()
    talk.change(sftp.REMOVE, string(b"/\xff"))
    talk.change(sftp.REMOVE, string(b"x" * 100_000))
    assert [facts.path for facts in listen(talk) if isinstance(facts, Operation)] == [
        "/\\xff",
        "x" * PATH_MAX + "…",
    ]


# --- pieces


def conversation() -> Talk:
    talk = Talk()
    talk.to_write(b"/a", b"1")
    talk.to_read(b"/b", b"2")
    talk.write(0, b"some", b"1")
    talk.write(9, b"early", b"1")
    numbers = [talk.ask_read(offset, 3, b"2") for offset in (0, 3, 6)]
    talk.data(numbers[1], b"two")
    talk.write(4, b"thing", b"1")
    talk.data(numbers[0], b"one")
    talk.status(numbers[2], sftp.EOF)
    talk.change(sftp.RENAME, string(b"/b") + string(b"/c"))
    talk.close(b"1")
    talk.close(b"2")
    talk.to_write(b"/d")
    talk.write(0, b"")
    return talk


@given(st.data())
def test_reads_any_pieces_alike(data: st.DataObject) -> None:
    talk = conversation()
    whole = listen(talk)
    reader = SftpReader(lambda: 0.0)
    facts: list[TransferFact] = []
    for from_user, packet in talk.passed:
        feed = reader.from_user if from_user else reader.from_target
        at = 0
        while at < len(packet):
            size = data.draw(st.integers(1, len(packet) - at))
            facts += feed(packet[at : at + size])
            at += size
    assert [*facts, *reader.end()] == whole
    assert len(whole) == 4


@given(st.integers(1, 70))
def test_accepts_one_direction_far_ahead(size: int) -> None:
    """Requests run ahead of their answers as far as windows allow; pieces cross packets."""
    talk = Talk()
    talk.to_write(b"/a")
    talk.close()
    begin = talk.passed[:4]
    ahead = Talk(begun=True)
    numbers = [ahead.ask_write(offset, bytes((offset,)) * 7) for offset in range(0, 70, 7)]
    numbers.append(ahead.ask(sftp.CLOSE, string(b"h")))
    for number in numbers:
        ahead.status(number)
    reader = SftpReader(lambda: 0.0)
    for from_user, packet in begin:
        (reader.from_user if from_user else reader.from_target)(packet)
    facts: list[TransferFact] = []
    for side, feed in ((True, reader.from_user), (False, reader.from_target)):
        stream = b"".join(packet for from_user, packet in ahead.passed if from_user is side)
        for at in range(0, len(stream), size):
            facts += feed(stream[at : at + size])
    assert facts == [written("/a", b"".join(bytes((offset,)) * 7 for offset in range(0, 70, 7)))]


# --- errors


def raw(from_user: bool, data: bytes, *, begun: bool = True) -> Talk:
    talk = Talk(begun=not begun)
    talk.passed.append((from_user, data))
    return talk


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (raw(True, string(b"\3" + bytes(20)), begun=False), "the client does not begin with INIT"),
        (raw(True, string(b"\6" + bytes(20)), begun=False), "the client does not begin with INIT"),
        (raw(False, b"Welcome to web1\n", begun=False), "a packet is too long"),
        (raw(False, string(b"\x65" + bytes(20)), begun=False), "the target does not begin with VERSION"),
        (raw(False, string(b"\2\0\0\0\6"), begun=False), "version 6 instead of 3"),
        (raw(True, b"\0\0\0\0\3"), "a packet is too short"),
        (raw(True, uint32(sftp.PACKET + 1) + b"\3"), "a packet is too long"),
        (raw(False, uint32(sftp.DATA_PACKET + 1) + b"\x67"), "a packet is too long"),
        (raw(True, string(b"\x0d" + uint32(1) + uint32(9) + b"/a")), "a packet is cut short"),
        (raw(True, string(b"\6" + uint32(1) + uint32(257) + bytes(300))), "a handle is too long"),
        (
            raw(True, string(b"\6" + bytes(4) + string(b"h") + uint64(0) + uint32(5))),
            "a packet is cut short",
        ),
        (raw(False, string(b"\x65" + uint32(1) + uint32(0))), "an answer without a request"),
        (raw(False, string(b"\x67" + uint32(1) + string(b"x"))), "an answer without a request"),
    ],
)
def test_reports_once_what_it_cannot_follow(talk: Talk, reason: str) -> None:
    assert lost(talk) == reason
    talk.passed += conversation().passed
    assert lost(talk) == reason


def test_rejects_answers_that_do_not_fit() -> None:
    for kind, body in (
        (sftp.HANDLE_REPLY, string(b"x")),
        (sftp.DATA, string(b"x")),
        (sftp.NAME, uint32(0)),
        (sftp.ATTRS, NO_ATTRIBUTES),
        (201, b""),
        (99, b""),
    ):
        talk = Talk()
        talk.to_read(b"/a")
        number = talk.ask(sftp.CLOSE, string(b"h"))
        talk.target(kind, uint32(number) + body)
        assert listen(talk)[0] == AccountLost(reason="an answer that does not fit its request")
    talk = Talk()
    talk.target(sftp.NAME, uint32(talk.ask(sftp.REMOVE, string(b"/a"))) + uint32(0))
    assert listen(talk) == [
        AccountLost(reason="an answer that does not fit its request"),
        Operation(operation="remove", path="/a", result="not known"),
    ]
    talk = Talk()
    talk.status(talk.ask(sftp.OPEN, string(b"/a") + uint32(1) + NO_ATTRIBUTES))
    assert listen(talk)[0] == AccountLost(reason="a file was opened without a handle")


LONGER = "a packet is longer than its fields"
UNKNOWN_HANDLE = "an unknown handle"
ATTRIBUTES = size_attribute(0)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (sftp.WRITE, string(b"\0\0\0\0") + uint64(0) + string(b"data")),
        (sftp.FSETSTAT, string(b"\0\0\0\0") + ATTRIBUTES),
        (sftp.EXTENDED, string(b"copy-data") + string(b"1") + uint64(0) * 2 + string(b"2") + uint64(0)),
    ],
    ids=["write", "fsetstat", "copy-data"],
)
def test_loses_account_when_guessed_handle_changes_something(kind: int, body: bytes) -> None:
    talks = {code: Talk() for code in (4, sftp.OK, None)}
    for code, talk in talks.items():
        number = talk.ask(kind, body)
        if code is not None:
            talk.status(number, code)
    mistake, works, unanswered = (listen(talks[code]) for code in (4, sftp.OK, None))
    lost = AccountLost(reason=UNKNOWN_HANDLE)
    assert lost not in mistake, "the client's mistake, and the target says so"
    assert lost in works
    assert lost in unanswered, "a client may end without waiting for the answer"
    for facts, result in ((mistake, "failure"), (works, "not known"), (unanswered, "no answer")):
        changes = [fact for fact in facts if isinstance(fact, Operation)]
        assert [fact.result for fact in changes] == ([] if kind == sftp.WRITE else [result])
        assert all("unknown handle " in fact.detail for fact in changes)


@pytest.mark.parametrize(
    ("kind", "body", "answer", "reply"),
    [
        (sftp.READ, uint64(0) + uint32(9), sftp.DATA, string(b"data")),
        (sftp.CLOSE, b"", sftp.STATUS, uint32(0)),
        (sftp.FSTAT, b"", sftp.ATTRS, NO_ATTRIBUTES),
        (sftp.READDIR, b"", sftp.NAME, uint32(0)),
        (sftp.EXTENDED, b"fsync@openssh.com", sftp.STATUS, uint32(0)),
        (sftp.EXTENDED, b"fstatvfs@openssh.com", sftp.EXTENDED_REPLY, bytes(88)),
        (sftp.EXTENDED, b"check-file-handle", sftp.EXTENDED_REPLY, bytes(8)),
    ],
)
def test_loses_account_when_guessed_handle_works(kind: int, body: bytes, answer: int, reply: bytes) -> None:
    before, after = (string(body), b"") if kind == sftp.EXTENDED else (b"", body)
    mistake, works = Talk(), Talk()
    for talk in (mistake, works):
        number = talk.ask(kind, before + string(b"guess") + after)
        if talk is mistake:
            talk.status(number, 4)
        else:
            talk.target(answer, uint32(number) + reply)
    assert listen(mistake) == [], "the client's mistake, and the target says so"
    assert lost(works) == UNKNOWN_HANDLE


def test_names_file_of_a_known_handle_in_a_copy() -> None:
    talk = Talk()
    talk.to_read(b"/a", b"1")
    body = string(b"copy-data") + string(b"1") + uint64(0) * 2 + string(b"2") + uint64(0)
    talk.status(talk.ask(sftp.EXTENDED, body))
    change = next(fact for fact in listen(talk) if isinstance(fact, Operation) and fact.size is None)
    assert (change.path, change.other) == ("/a", "")
    assert change.detail == "all bytes from 0 unknown handle 32"


def test_ends_handle_with_the_request_to_close_it() -> None:
    """sftp-server gives the handle to the next file."""
    talk = Talk()
    talk.to_write(b"/a")
    talk.ask(sftp.CLOSE, string(b"h"))
    talk.ask(sftp.OPEN, string(b"/b") + uint32(sftp.FXF_WRITE) + NO_ATTRIBUTES)
    talk.write(0, b"into b")
    assert listen(talk)[0] == AccountLost(reason=UNKNOWN_HANDLE)


# --- opening may change something


@pytest.mark.parametrize(
    ("flags", "text", "sha256_of", "unhashed"),
    [
        (sftp.FXF_READ | sftp.FXF_TRUNC, "read,truncate", b"", ""),
        (sftp.FXF_READ | sftp.FXF_CREAT | sftp.FXF_EXCL, "read,create,exclusive", b"", ""),
        (sftp.FXF_READ | sftp.FXF_CREAT, "read,create", None, "what was in the file before is not known"),
        (sftp.FXF_TRUNC, "truncate", b"", ""),
        (sftp.FXF_APPEND, "append", None, "appended"),
        (sftp.FXF_READ | sftp.FXF_TRUNC | 0x40, "read,truncate,0x40", b"", ""),
    ],
)
def test_reports_open_that_creates_or_empties_as_write(
    flags: int, text: str, sha256_of: bytes | None, unhashed: str
) -> None:
    talk = Talk()
    talk.open(b"/a", flags)
    talk.close()
    expected = Operation(
        operation="write",
        path="/a",
        detail=f"flags={text}",
        size=0,
        sha256="" if sha256_of is None else sha256(sha256_of),
        unhashed=unhashed,
    )
    assert only_operation(talk) == expected


def test_reports_emptied_and_read_file_twice() -> None:
    talk = Talk()
    talk.open(b"/a", sftp.FXF_READ | sftp.FXF_WRITE | sftp.FXF_TRUNC)
    talk.end_of_file(0)
    talk.close()
    assert only_operation(talk) == written("/a", b"", "read,write,truncate")
    talk = Talk()
    talk.open(b"/a", sftp.FXF_READ | sftp.FXF_TRUNC)
    talk.read(0, b"x", length=1)
    talk.end_of_file(1)
    talk.close()
    assert [(fact.operation, fact.path) for fact in listen(talk) if isinstance(fact, Operation)] == [
        ("read", "/a"),
        ("write", "/a"),
    ]


def test_reports_refused_open_for_changes_as_write() -> None:
    talk = Talk()
    flags = sftp.FXF_READ | sftp.FXF_TRUNC
    talk.status(talk.ask(sftp.OPEN, string(b"/a") + uint32(flags) + NO_ATTRIBUTES), 3)
    facts = only_operation(talk)
    assert (facts.operation, facts.detail, facts.result) == (
        "write", "flags=read,truncate", "permission denied",
    )  # fmt: skip


# --- bytes for the recording


def test_returns_bytes_that_are_in_no_packet() -> None:
    """From the packet on that was not understood; of the other direction, the packet that has begun."""
    talk = Talk()
    talk.passed.append((True, uint32(20) + b"\3hal"))
    talk.passed.append((False, string(b"\x65" + uint32(7) + bytes(12)) + b"more"))
    (facts,) = listen(talk)
    assert isinstance(facts, AccountLost)
    assert (facts.from_user, facts.from_target) == (
        uint32(20) + b"\3hal",
        string(b"\x65" + uint32(7) + bytes(12)) + b"more",
    )


@given(
    text=st.binary(min_size=1, max_size=300).filter(lambda text: text[:1] != b"\0"),
    cuts=st.lists(st.integers(1, 9)),
    early=st.booleans(),
)
def test_returns_every_byte_of_a_shell(text: bytes, cuts: list[int], early: bool) -> None:
    """The start-up file of the login shell runs another shell, before VERSION or after it."""
    talk = Talk(begun=early)
    reader = SftpReader(lambda: 0.0)
    assert listen(talk, reader, end=False) == []
    facts: list[TransferFact] = []
    sent = b""
    for size in [*cuts, len(text)]:
        piece = text[len(sent) : len(sent) + size]
        if facts:
            break
        sent += piece
        facts += reader.from_target(piece)
    facts += reader.end()
    (fact,) = facts
    assert isinstance(fact, AccountLost)
    assert fact.from_target == sent


def test_reports_target_that_does_not_answer() -> None:
    talk = Talk(begun=True)
    talk.user(sftp.INIT, uint32(3))
    assert listen(talk) == []
    talk.ask(sftp.STAT, string(b"/"))
    assert lost(talk) == "the target did not answer"


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (lambda: init_twice(), "INIT was sent twice"),
        (lambda: padded(sftp.REMOVE, string(b"/a")), LONGER),
        (lambda: padded(sftp.WRITE, string(b"h") + uint64(0) + string(b"x")), LONGER),
        (lambda: padded(sftp.OPEN, string(b"/a") + uint32(1) + NO_ATTRIBUTES), LONGER),
        (lambda: answered(sftp.DATA, string(b"more"), 3), "more data than was requested"),
        (lambda: answered(sftp.DATA, string(b"mor") + b"e", 3), LONGER),
        (lambda: answered(sftp.STATUS, uint32(4) + string(b"x" * 4097)), "the text of a status is too long"),
        (lambda: answered(sftp.STATUS, uint32(4) + string(b"") * 3), LONGER),
        (lambda: answered(sftp.STATUS, uint32(0)), "an answer that does not fit its request"),
    ],
)
def test_rejects_packets_with_bytes_after_their_fields(talk: Callable[[], Talk], reason: str) -> None:
    assert listen(talk())[0] == AccountLost(reason=reason)


def init_twice() -> Talk:
    talk = Talk()
    talk.user(sftp.INIT, uint32(3))
    return talk


def padded(kind: int, body: bytes) -> Talk:
    talk = Talk()
    talk.to_write(b"/a")
    talk.ask(kind, body + b"and more")
    return talk


def answered(kind: int, body: bytes, length: int = 9) -> Talk:
    """A talk with this answer to a READ."""
    talk = Talk()
    talk.to_read(b"/a")
    talk.target(kind, uint32(talk.ask_read(0, length)) + body)
    return talk


def test_rejects_repeated_handles_and_request_ids() -> None:
    talk = Talk()
    talk.to_read(b"/a")
    talk.to_read(b"/b")
    assert listen(talk)[0] == AccountLost(reason="a handle is given twice")
    talk = Talk()
    for _ in range(2):
        talk.user(sftp.STAT, uint32(1) + string(b"/a"))
    assert lost(talk) == "a request id is used twice"


def test_reports_open_files_when_it_loses_the_account() -> None:
    talk = Talk()
    talk.to_write(b"/a")
    talk.write(0, b"some")
    talk.passed.append((True, b"\0\0\0\0\0"))
    assert listen(talk) == [
        AccountLost(reason="a packet is too short"),
        replace(written("/a", b"some"), sha256="", unhashed="not known", result="not known"),
    ]


# --- limits


def test_limits_text_of_each_report() -> None:
    for pairs in (64, 65):
        talk = Talk()
        attributes = uint32(0x80000004) + uint32(0o600) + uint32(pairs) + string(b"name") * 2 * pairs
        talk.change(sftp.SETSTAT, string(b"/a") + attributes)
        (facts,) = listen(talk)
        if pairs == 64:
            names = ",".join(["name"] * 64)[:256]
            detail = f"mode=0600 extended={names}…"
            assert facts == Operation(operation="setstat", path="/a", detail=detail)
        else:
            assert facts == AccountLost(reason="too many attributes")


def test_reads_only_the_start_of_a_long_list() -> None:
    talk = Talk()
    opened = talk.ask(sftp.OPENDIR, string(b"/"))
    talk.target(sftp.HANDLE_REPLY, uint32(opened) + string(b"d"))
    entries = [string(b"%d" % number) + string(b"") + size_attribute(4) for number in range(SIZES)]
    listed = talk.ask(sftp.READDIR, string(b"d"))
    count = uint32(len(entries) + 5_000_000)
    talk.target(sftp.NAME, uint32(listed) + count + b"".join(entries))
    for name in (b"/0", b"/%d" % (SIZES - 1)):
        talk.to_read(name)
        talk.read(0, b"data", length=4)
        talk.close()
    assert listen(talk) == [was_read("/0", b"data"), was_read(f"/{SIZES - 1}", b"data")]


def test_limits_open_files_and_requests() -> None:
    reader = SftpReader(lambda: 0.0)
    talk = Talk()
    for number in range(10_000):
        talk.to_read(b"/" + b"x" * 4000, b"%d" % number)
    facts = listen(talk, reader)
    assert facts[0] == AccountLost(reason="too many files are open")
    assert 500 < len(facts) < 1000
    talk = Talk()
    for _ in range(REQUESTS + 1):
        talk.ask_read(0)
    assert lost(talk) == "too many requests have no answer"


def test_frees_names_of_closed_files() -> None:
    """Any number of files, one after the other."""
    reader = SftpReader(lambda: 0.0)
    listen(Talk(), reader, end=False)
    for number in range(20_000):
        talk = Talk(begun=True)
        talk.to_write(b"/" + b"x" * 1000)
        talk.close()
        talk.change(sftp.REMOVE, string(b"y" * 1000))
        talk.status(talk.ask(sftp.STAT, string(b"/%d" % number)), 2)
        talk.status(talk.ask(sftp.OPEN, string(b"/z" * 500) + uint32(1) + NO_ATTRIBUTES), 2)
        opened = talk.ask(sftp.OPENDIR, string(b"/"))
        talk.target(sftp.HANDLE_REPLY, uint32(opened) + string(b"d"))
        talk.close(b"d")
        assert len(listen(talk, reader, end=False)) == 3
    assert reader.end() == ()


def test_limits_memory_for_hostile_users() -> None:
    """Data out of order in small pieces, long names, sizes of many paths: some MiB and no more."""
    tracemalloc.start()
    try:
        reader = SftpReader(lambda: 0.0)
        talk = Talk()
        talk.to_write(b"/a")
        listen(talk, reader, end=False)
        for number in range(1, 18_000):
            talk = Talk(begun=True)
            talk.write(number * 2, b"x")
            stat = talk.ask(sftp.STAT, string(b"%01000d" % number))
            talk.target(sftp.ATTRS, uint32(stat) + size_attribute(1))
            assert listen(talk, reader, end=False) == []
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_frees_data_after_its_turn() -> None:
    tracemalloc.start()
    try:
        reader = SftpReader(lambda: 0.0)
        listen(Talk(), reader, end=False)
        for number in range(60):
            talk = Talk(begun=True)
            handle = b"%d" % number
            talk.to_write(b"/a", handle)
            talk.write(1, bytes(1 << 20), handle)
            talk.write(0, b"x", handle)
            talk.write(1 << 21, bytes(1 << 20), handle)
            talk.write(5, b"twice", handle)
            assert listen(talk, reader, end=False) == []
        del talk
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_keeps_no_file_contents() -> None:
    chunk = os.urandom(1 << 20)
    tracemalloc.start()
    try:
        reader = SftpReader(lambda: 0.0)
        talk = Talk()
        talk.to_write(b"/a")
        listen(talk, reader, end=False)
        reader.from_user(uint32(13 + 13 - 4 + 1 + (8 << 20)) + b"\6" + uint32(1) + string(b"h"))
        reader.from_user(uint64(0) + uint32(8 << 20))
        for _ in range(8):
            reader.from_user(chunk)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
