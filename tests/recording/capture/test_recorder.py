"""The recording of the facts of a session channel."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from conchrec.errors import RecordingError, SpoolFull, WriteFailed
from conchrec.recording.capture.lifecycle import RecordingState
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.capture.streams import INPUT_KEPT
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import Manifest, Pty, Status, StreamTotals
from conchrec.recording.format.settings import Fsync, InputPolicy
from conchrec.recording.format.signatures import CHECKPOINT
from conchrec.recording.format.transfer_account import Files, Operation
from conchrec.recording.open_recordings import MERGE_SECONDS, TICK_SECONDS
from tests.recording.failing_file import FailingFile
from tests.recording.recording_bench import NOON, Bench, cast, events, output, result


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_keeps_variable_after_refused_start_with_its_control_characters(bench: Bench) -> None:
    """The header is written then: it is a marker, in which players would not show such a character."""
    recorder = bench.recorder()
    recorder.start("subsystem", "bogus")
    recorder.env(b"LC_X", b"rm -r /\x1b[8m\r\n")
    recorder.env(b"LC_Y", b"\xff")
    recorder.start("exec", 'eval "$LC_X"')
    markers = [data for code, data in events(bench.close(recorder).path) if code == "m"]
    assert "env LC_X=rm -r /\\x1b[8m\\r\\n" in markers
    assert any(marker.startswith("env LC_Y=\\xff (1 bytes, sha256 ") for marker in markers)


def test_keeps_value_that_is_replaced_before_the_start(bench: Bench) -> None:
    """The target may have accepted that one, and refused the last."""
    recorder = bench.recorder()
    recorder.env(b"LC_X", b"evil")
    recorder.env(b"LC_X", b"good")
    recorder.start("exec", 'eval "$LC_X"')
    markers = [data for code, data in events(bench.close(recorder).path) if code == "m"]
    assert "env LC_X=evil, replaced before the start" in markers


def test_records_session_on_a_pty(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.pty("xterm-256color", 100, 30)
    recorder.env(b"SHELL", b"/bin/bash")
    recorder.env(b"LC_X", b"rm -r /")
    bench.clock.advance(2)
    recorder.start("shell")
    bench.clock.advance(0.5)
    recorder.output(b"$ ")
    bench.clock.advance(1)
    recorder.resize(120, 40)
    recorder.output(b"bye\r\n")
    recorder.exit_status(3)
    closed = bench.close(recorder)

    header, _ = cast(closed.path)
    assert (header.width, header.height) == (100, 30)
    assert header.timestamp == int(NOON.timestamp()) + 2
    assert header.env == {"TERM": "xterm-256color", "SHELL": "/bin/bash"}
    assert header.title == "root@web1:22"
    assert header.ours == {
        "sid": recorder.info.sid,
        "cid": "c1",
        "user": "joe",
        "login": "root",
        "target": "web1:22",
        "address": "192.0.2.7:50000",
        "kind": "shell",
        "env": {"SHELL": "/bin/bash", "LC_X": "rm -r /"},
    }
    assert [line for line in closed.path.read_text().split("\n")[1:] if '"c"' not in line] == [
        '[0.500000, "o", "$ "]',
        '[1.500000, "r", "120x40"]',
        '[1.500000, "o", "bye\\r\\n"]',
        '[1.500000, "x", "3"]',
        '[1.500000, "m", "end"]',
        "",
    ]
    manifest = Manifest.parse(closed.path.with_suffix(".json").read_bytes())
    assert manifest == closed.manifest
    assert manifest.pty == Pty(term="xterm-256color", columns=100, rows=30)
    assert (manifest.kind, manifest.exit_status, manifest.status) == ("shell", 3, Status.COMPLETE)
    assert (manifest.user, manifest.login, manifest.target) == ("joe", "root", "web1:22")
    assert (manifest.roles, manifest.reason) == (("ops",), "the session ended")
    assert manifest.duration == 3.5
    assert (closed.size, closed.digest) == (
        closed.path.stat().st_size,
        hashlib.sha256(closed.path.read_bytes()).hexdigest(),
    )


def test_creates_file_when_it_is_opened(bench: Bench) -> None:
    recorder = bench.recorder()
    assert recorder.path.read_bytes() == b""
    assert recorder.state is RecordingState.OPEN


def test_writes_header_before_start_returns(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "ls \x1b]0;x\x07 -l")
    header, rest = cast(recorder.path)
    assert header.command == "ls \x1b]0;x\x07 -l" and rest == []
    assert b"\x1b" not in recorder.path.read_bytes()


def test_leaves_out_input_that_was_not_forwarded(bench: Bench) -> None:
    """proxy-sync records first, and the channel may end before the input is forwarded: the digest is left
    out, because the target never got these bytes."""
    recorder = bench.recorder()
    recorder.start("exec", "cat")
    recorder.input(b"given, ")
    recorder.input(b"not given")
    recorder.withdraw_input(9)
    stdin = bench.close(recorder).manifest.stdin
    assert stdin is not None
    assert (stdin.size, stdin.sha256) == (7, "")


def test_marks_second_start_on_the_channel(bench: Bench) -> None:
    """The target refuses a subsystem; then the client requests a shell, which must be recorded."""
    recorder = bench.recorder()
    recorder.start("subsystem", "sftp")
    recorder.start("exec", "bash -i")
    recorder.output(b"root")
    closed = bench.close(recorder)
    assert events(closed.path) == [
        ("m", "subsystem sftp"),
        ("s", '{"kind": "exec", "command": "bash -i", "command_sha256": ""}'),
        ("m", "exec bash -i"),
        ("o", "root"),
        ("m", "end"),
    ]
    assert (closed.manifest.kind, closed.manifest.command) == ("exec", "bash -i")


def test_records_output_after_a_later_request(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "bash")
    recorder.start("subsystem", "sftp")
    recorder.output(b"still seen")
    assert output(bench.close(recorder).path) == "still seen"


def test_records_output_before_any_start(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.output(b"surprise")
    recorder.start("exec", "ls")
    closed = bench.close(recorder)
    start = ("s", '{"kind": "exec", "command": "ls", "command_sha256": ""}')
    assert events(closed.path) == [("o", "surprise"), start, ("m", "exec ls"), ("m", "end")]


# -- merging


def test_merges_output_within_a_few_milliseconds(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    for _ in range(5):
        recorder.output(b"ab")
        bench.clock.advance(MERGE_SECONDS / 10)
    bench.clock.advance(MERGE_SECONDS)
    recorder.output(b"c")
    bench.clock.advance(MERGE_SECONDS)
    assert events(recorder.path) == [("o", "ab" * 5), ("o", "c")]


def test_writes_output_after_the_merge_time(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    recorder.output(b"now")
    assert events(recorder.path) == []
    bench.clock.advance(MERGE_SECONDS)
    assert events(recorder.path) == [("o", "now")]


def test_uses_one_timer_for_all_sessions(bench: Bench) -> None:
    store = bench.store(fsync=Fsync.NEVER)
    recorders = [store.open(bench.info()) for _ in range(10)]
    for recorder in recorders:
        recorder.start("shell")
        recorder.output(b"a")
        recorder.output(b"b")
    flush, tick = sorted(call.time for call in bench.clock.getDelayedCalls())
    assert (flush, tick) == (MERGE_SECONDS, TICK_SECONDS)
    bench.clock.advance(MERGE_SECONDS)
    assert all(events(recorder.path) == [("o", "ab")] for recorder in recorders)
    bench.clock.advance(TICK_SECONDS)
    assert bench.clock.getDelayedCalls() == []


def test_writes_much_output_before_the_timer(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    for _ in range(8):
        recorder.output(b"x" * 30_000)
    assert events(recorder.path) == []
    recorder.output(b"x" * 30_000)
    assert events(recorder.path) == [("o", "x" * 60_000)] * 4 + [("o", "x" * 30_000)]


def test_counts_escapes_of_output_that_waits_to_be_written(bench: Bench) -> None:
    """A megabyte of lines in one turn of the reactor would delay the keys of all users."""
    recorder = bench.recorder()
    recorder.start("shell")
    recorder.output(b"\0" * 32_768)
    assert events(recorder.path) == []
    recorder.output(b"\0" * 32_768)
    assert events(recorder.path) == [("o", "\0" * 32_768)] * 2


def test_writes_more_pieces_than_one_system_call_takes(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    sizes = [(80 + number % 2, 24) for number in range(3000)]
    for columns, rows in sizes[1:]:
        recorder.resize(columns, rows)
    recorder.flush()
    assert events(recorder.path) == [("r", f"{columns}x{rows}") for columns, rows in sizes[1:]]


def test_does_not_depend_on_a_timer_that_does_not_fire(bench: Bench) -> None:
    """A reactor's timers follow the wall clock, which somebody sets back by an hour."""
    recorder = bench.store(timers=Clock()).open(bench.info())
    recorder.start("shell")
    recorder.output(b"a")
    bench.clock.advance(0.9)
    recorder.output(b"b")
    assert events(recorder.path) == [("o", "ab")]


def test_keeps_order_of_arrival_across_streams(bench: Bench) -> None:
    recorder = bench.recorder(policy=InputPolicy.WITHOUT_PTY)
    recorder.start("exec", "x")
    recorder.input(b"in")
    recorder.output(b"out")
    recorder.error_output(b"err")
    recorder.output(b"more")
    closed = bench.close(recorder)
    assert events(closed.path) == [("i", "in"), ("o", "out"), ("o", "err"), ("o", "more"), ("m", "end")]
    manifest = closed.manifest
    assert (manifest.stdout, manifest.stderr) == (StreamTotals(size=7), StreamTotals(size=3))


# -- time


def test_never_decreases_time(bench: Bench) -> None:
    recorder = bench.recorder()
    bench.clock.advance(100)
    recorder.start("shell")
    bench.clock.advance(5)
    recorder.output(b"a")
    recorder.flush()
    bench.clock.rightNow -= 60
    recorder.output(b"b")
    recorder.flush()
    bench.clock.rightNow += 61
    recorder.output(b"c")
    _, rest = cast(bench.close(recorder).path)
    assert [event.time for event in rest if event.code != CHECKPOINT] == [5, 5, 6, 6]


def test_ignores_jumps_of_the_wall_clock(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    bench.wall = bench.wall.replace(year=1969)
    bench.clock.advance(1)
    recorder.output(b"a")
    closed = bench.close(recorder)
    assert [event.time for event in cast(closed.path)[1] if event.code != CHECKPOINT] == [1, 1]
    assert closed.manifest.duration == 1


# -- text


@given(st.text(), st.lists(st.integers(0, 40)), st.lists(st.booleans()))
def test_joins_characters_that_come_in_parts(
    tmp_path_factory: pytest.TempPathFactory, text: str, cuts: list[int], flushes: list[bool]
) -> None:
    bench = Bench(directory=tmp_path_factory.mktemp("recordings"))
    recorder = bench.store(fsync=Fsync.NEVER).open(bench.info())
    recorder.start("shell")
    data = text.encode()
    cuts_and_ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for index, (begin, end) in enumerate(pairwise(cuts_and_ends)):
        recorder.output(data[begin:end])
        if index < len(flushes) and flushes[index]:
            recorder.flush()
    assert output(bench.close(recorder).path) == text


def test_decodes_each_stream_by_itself(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "x")
    out, err = "é".encode(), "ü".encode()
    recorder.output(out[:1])
    recorder.error_output(err[:1])
    recorder.output(out[1:])
    recorder.error_output(err[1:])
    assert output(bench.close(recorder).path) == "éü"


def test_replaces_bytes_that_are_not_text_and_reports_half_characters(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "x")
    recorder.output(b"a\xffb\xe2\x82")
    assert output(bench.close(recorder).path) == "a\ufffdb\ufffd"


# -- size


@pytest.mark.parametrize("size", [(0, 0), (0, 24), (1001, 10), (2**32 - 1, 1)])
def test_drops_sizes_that_players_refuse(bench: Bench, size: tuple[int, int]) -> None:
    recorder = bench.recorder()
    recorder.pty("xterm", *size)
    recorder.start("shell")
    recorder.resize(*size)
    recorder.resize(90, 20)
    closed = bench.close(recorder)
    header, _ = cast(closed.path)
    assert (header.width, header.height) == (80, 24)
    assert events(closed.path) == [("r", "90x20"), ("m", "end")]


def test_writes_resize_before_start_into_the_header(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.pty("xterm", 80, 24)
    recorder.resize(132, 50)
    recorder.start("shell")
    header, rest = cast(recorder.path)
    assert (header.width, header.height, rest) == (132, 50, [])


def test_writes_no_event_for_an_unchanged_size(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.pty("xterm", 80, 24)
    recorder.start("shell")
    recorder.resize(80, 24)
    assert events(bench.close(recorder).path) == [("m", "end")]


# -- input


def test_counts_and_hashes_input_without_a_pty(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "bash -s")
    recorder.input(b"rm -rf ")
    recorder.input(b"/\n")
    closed = bench.close(recorder)
    assert closed.manifest.stdin == StreamTotals(size=9, sha256=sha256(b"rm -rf /\n"))
    assert b"rm -rf" not in closed.path.read_bytes()
    assert closed.manifest.input == "no"


def test_counts_typed_input_and_nothing_else(bench: Bench) -> None:
    """Neither the password nor a hash from which it could be guessed."""
    recorder = bench.recorder(policy=InputPolicy.WITHOUT_PTY)
    recorder.pty("xterm", 80, 24)
    recorder.start("shell")
    recorder.input(b"hunter2")
    closed = bench.close(recorder)
    assert closed.manifest.stdin == StreamTotals(size=7)
    written = closed.path.read_bytes() + closed.path.with_suffix(".json").read_bytes()
    assert b"hunter2" not in written
    assert sha256(b"hunter2").encode() not in written


def test_records_first_mebibyte_of_input_without_a_pty(bench: Bench) -> None:
    recorder = bench.recorder(policy=InputPolicy.WITHOUT_PTY)
    recorder.start("exec", "cat > f")
    block = b"0123456789abcdef" * 4096
    for _ in range(20):
        recorder.input(block)
    closed = bench.close(recorder)
    kept = "".join(text for code, text in events(closed.path) if code == "i")
    assert len(kept) == INPUT_KEPT and kept.encode() == (block * 20)[:INPUT_KEPT]
    assert ("m", "input is not recorded from here on") in events(closed.path)
    assert closed.manifest.stdin == StreamTotals(size=20 * 65536, sha256=sha256(block * 20))


def test_records_typed_input_where_the_policy_is_yes(bench: Bench) -> None:
    recorder = bench.recorder(policy=InputPolicy.YES)
    recorder.pty("xterm", 80, 24)
    recorder.start("shell")
    recorder.output(b"$ ")
    recorder.input(b"ls\r")
    recorder.output(b"ls\r\nfile\r\nPassword: ")
    recorder.input(b"secret\r")
    recorder.output(b"\r\n")
    assert events(bench.close(recorder).path) == [
        ("o", "$ ls\r\nfile\r\nPassword: "),
        ("i", "ls\r"),
        ("m", "ls"),
        ("o", "\r\n"),
        ("m", "input that the terminal did not show: not recorded"),
        ("i", "\r"),
        ("m", "end"),
    ]


def test_treats_refused_pty_as_none(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.pty("xterm", 80, 24)
    recorder.start("exec", "bash -s")
    recorder.pty_refused()
    recorder.input(b"id\n")
    closed = bench.close(recorder)
    assert closed.manifest.pty is None
    assert closed.manifest.stdin == StreamTotals(size=3, sha256=sha256(b"id\n"))


# -- subsystems


def test_records_markers_and_counts_of_sftp(bench: Bench) -> None:
    recorder = bench.recorder(policy=InputPolicy.YES)
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    recorder.input(b"\0\0\0\5\1\0\0\0\3")
    recorder.output(b"\0\0\0\5\2\0\0\0\3")
    files = Files(
        by="sftp",
        sent=9,
        received=9,
        read=1,
        operations=(Operation(operation="read", path="/a", size=0, unhashed="not opened", result="failure"),),
    )
    recorder.files(files)
    closed = bench.close(recorder)
    assert events(closed.path) == [("m", "subsystem sftp"), ("m", "9 bytes out, 9 bytes in"), ("m", "end")]
    header, _ = cast(closed.path)
    assert header.command == "" and header.ours["subsystem"] == "sftp"
    manifest = closed.manifest
    assert manifest.stdin == StreamTotals(size=9, sha256=sha256(b"\0\0\0\5\1\0\0\0\3"))
    assert manifest.stdout == StreamTotals(size=9, sha256=sha256(b"\0\0\0\5\2\0\0\0\3"))
    assert manifest.coverage == (NotKept.DIGEST_ONLY,)
    assert manifest.files == files
    assert Manifest.parse(manifest.encode()) == manifest


def test_hashes_all_input_after_any_first_request(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    recorder.input(b"\0\0\0\5\1\0\0\0\3")
    recorder.start("exec", "bash -s")
    recorder.input(b"id\n")
    recorder.output(b"root\n")
    closed = bench.close(recorder)
    assert closed.manifest.stdin == StreamTotals(size=12, sha256=sha256(b"\0\0\0\5\1\0\0\0\3id\n"))
    assert output(closed.path) == "root\n"


@pytest.mark.parametrize("policy", InputPolicy)
def test_records_everything_once_the_protocol_is_lost(bench: Bench, policy: InputPolicy) -> None:
    recorder = bench.recorder(policy=policy)
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    recorder.input(b"followed")
    recorder.output(b"followed")
    recorder.input(b"id\n")
    recorder.output(b"uid=0")
    recorder.keep_from_here(b"id\n", b"uid=0")
    recorder.output(b"(root)\n")
    recorder.input(b"exit\n")
    recorder.exit_status(0)
    closed = bench.close(recorder)
    assert output(closed.path) == "uid=0(root)\n"
    kept = "".join(text for code, text in events(closed.path) if code == "i")
    assert kept == ("" if policy is InputPolicy.NO else "id\nexit\n")
    assert ("x", "0") in events(closed.path)
    assert closed.manifest.stdout == StreamTotals(size=20, sha256=sha256(b"followeduid=0(root)\n"))
    assert closed.manifest.stdin == StreamTotals(size=16, sha256=sha256(b"followedid\nexit\n"))
    words = {NotKept.DIGEST_ONLY} | ({NotKept.INPUT} if policy is InputPolicy.NO else set())
    assert set(closed.manifest.coverage) == words


def test_records_and_hashes_transfer_that_is_a_command(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "scp -f x")
    recorder.transfer(digest_only=False)
    recorder.output(b"C0644 1 x\n")
    recorder.keep_from_here(b"", b"C0644 1 x\n")
    closed = bench.close(recorder)
    assert output(closed.path) == "C0644 1 x\n"
    assert closed.manifest.stdout == StreamTotals(size=10, sha256=sha256(b"C0644 1 x\n"))


def test_hashes_streams_larger_than_what_may_wait(bench: Bench) -> None:
    """In batches, some of them handed over by the timer of the store."""
    recorder = bench.recorder()
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    everything = b""
    for size in (1, 65536, 300_000, 2_000_000, 70_000, 5):
        block = bytes((size % 251,)) * size
        recorder.output(block)
        everything += block
        bench.clock.advance(0.01)
    assert bench.close(recorder).manifest.stdout == StreamTotals(
        size=len(everything), sha256=sha256(everything)
    )


def test_records_error_output_of_sftp_as_text(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    recorder.error_output(b"This service allows sftp connections only.\n")
    assert output(bench.close(recorder).path) == "This service allows sftp connections only.\n"


def test_records_other_subsystems_like_a_shell(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("subsystem", "powershell")
    recorder.output(b"PS> ")
    assert output(bench.close(recorder).path) == "PS> "


def test_records_sftp_on_a_pty_like_a_shell(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.pty("xterm", 80, 24)
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    recorder.output(b"# ")
    assert output(bench.close(recorder).path) == "# "


# -- markers, ends


def test_escapes_markers(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("subsystem", "sf\x1b[2Jtp\u202e")
    assert events(bench.close(recorder).path)[0] == ("m", "subsystem sf\\x1b[2Jtp\\u202e")


def test_writes_marker_before_start_after_the_header(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.marker("waiting for the agent")
    recorder.start("shell")
    assert events(bench.close(recorder).path) == [("m", "waiting for the agent"), ("m", "end")]


def test_records_end_by_signal(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "x")
    recorder.exit_signal("TERM")
    closed = bench.close(recorder)
    assert events(closed.path) == [("m", "exit-signal TERM"), ("m", "end")]
    assert (closed.manifest.exit_status, closed.manifest.exit_signal) == (None, "TERM")


def test_plays_channel_that_ran_nothing(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.marker("the target refused the login")
    closed = bench.close(recorder)
    assert events(closed.path) == [("m", "the target refused the login"), ("m", "end")]
    assert closed.manifest.kind == "none"


def test_reports_totals_while_it_runs(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("exec", "x")
    recorder.output(b"abc")
    recorder.error_output(b"de")
    recorder.input(b"f")
    totals = recorder.totals
    assert (totals.stdout, totals.stderr, totals.stdin) == (3, 2, 1)


def test_accepts_several_closes(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    first, second = recorder.close("a"), recorder.close("b")
    answers = [result(first), result(second), result(recorder.close("c"))]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].manifest.reason == "a"


def test_frees_memory_without_the_garbage_collector(bench: Bench) -> None:
    """A process with many objects collects cycles rarely."""
    gc.collect()
    gc.disable()
    try:
        recorder = bench.recorder()
        recorder.start("shell")
        recorder.output(b"x")
        bench.close(recorder)
        reference = weakref.ref(recorder)
        del recorder
        assert reference() is None
    finally:
        gc.enable()


def test_creates_manifest_for_its_owner_alone(bench: Bench) -> None:
    closed = bench.close(bench.recorder())
    manifest = closed.path.with_suffix(".json")
    assert manifest.stat().st_mode & 0o777 == 0o600
    assert json.loads(manifest.read_bytes())["cast"]["name"] == closed.path.name
    assert sorted(path.name for path in closed.path.parent.iterdir()) == [closed.path.name, manifest.name]


# -- failures


def _exit_status(recorder: SessionRecorder) -> None:
    recorder.exit_status(0)
    recorder.flush()


def _resize(recorder: SessionRecorder) -> None:
    recorder.resize(90, 30)
    recorder.flush()


FACTS: dict[str, Callable[[SessionRecorder], None]] = {
    "output": lambda recorder: recorder.output(b"x" * 300_000),
    "error_output": lambda recorder: recorder.error_output(b"x" * 300_000),
    "input": lambda recorder: recorder.input(b"x" * 300_000),
    "marker": lambda recorder: recorder.marker("x" * 300_000),
    "exit_status": _exit_status,
    "exit_signal": lambda recorder: recorder.exit_signal("x" * 300_000),
    "resize": _resize,
    "start": lambda recorder: recorder.start("exec", "x" * 300_000),
}


def recorder_on(bench: Bench, file: FailingFile) -> SessionRecorder:
    store = bench.store(create=lambda name, day: file, policy=InputPolicy.WITHOUT_PTY)
    return store.open(bench.info())


def test_fails_when_header_cannot_be_written(bench: Bench) -> None:
    file = FailingFile(room=10)
    recorder = recorder_on(bench, file)
    with pytest.raises(SpoolFull):
        recorder.start("shell")
    assert isinstance(recorder.failed, SpoolFull) and recorder.state is RecordingState.FAILED
    assert file.contents == b""


@pytest.mark.parametrize("fact", FACTS)
def test_raises_failure_at_each_later_fact(bench: Bench, fact: str) -> None:
    file = FailingFile()
    recorder = recorder_on(bench, file)
    recorder.start("shell")
    before = file.contents
    file.room = len(before) + 4
    with pytest.raises(SpoolFull) as first:
        FACTS[fact](recorder)
    assert recorder.failed is first.value
    assert file.contents == before, "no torn line"
    file.room = None
    for other in FACTS.values():
        with pytest.raises(SpoolFull) as later:
            other(recorder)
        assert later.value is first.value
    with pytest.raises(SpoolFull):
        recorder.flush()
    with pytest.raises(SpoolFull):
        result(recorder.sync())


def test_reports_failure_of_a_timed_write(bench: Bench) -> None:
    file = FailingFile()
    recorder = recorder_on(bench, file)
    heard: list[RecordingError] = []
    recorder.on_failure(heard.append)
    recorder.start("shell")
    file.room = len(file.contents)
    recorder.output(b"a")
    assert heard == []
    bench.clock.advance(MERGE_SECONDS)
    assert heard == [recorder.failed]
    bench.clock.advance(10)
    assert len(heard) == 1
    with pytest.raises(SpoolFull):
        recorder.output(b"b")


def test_reports_flush_that_fails_while_it_gives_up(bench: Bench) -> None:
    """The disk that is full for the store is full for this flush too."""
    file = FailingFile()
    recorder = recorder_on(bench, file)
    heard: list[RecordingError] = []
    recorder.on_failure(heard.append)
    recorder.start("shell")
    file.room = len(file.contents)
    recorder.output(b"a")
    recorder.background.give_up(SpoolFull("the disk is full"))
    assert heard == [recorder.failed]
    recorder.background.give_up(SpoolFull("the disk is full"))
    assert len(heard) == 1


@pytest.mark.parametrize("policy", InputPolicy)
def test_protects_input_of_a_pty_requested_after_a_refusal(bench: Bench, policy: InputPolicy) -> None:
    """Input with echo off is kept by no policy, however late the terminal comes."""
    recorder = bench.recorder(policy=policy)
    recorder.start("subsystem", "nosuch")
    recorder.marker("the target refused subsystem")
    recorder.pty("xterm", 100, 30)
    recorder.start("shell")
    recorder.output(b"[sudo] password for joe: ")
    recorder.input(b"hunter2\r")
    closed = bench.close(recorder)
    assert b"hunter2" not in closed.path.read_bytes()
    assert closed.manifest.pty == Pty(term="xterm", columns=100, rows=30)
    assert closed.manifest.stdin is not None and closed.manifest.stdin.sha256 == ""


def test_writes_other_recordings_when_one_fails(bench: Bench) -> None:
    bad, good = FailingFile(), FailingFile()
    files = iter([bad, good])
    store = bench.store(create=lambda name, day: next(files))
    first, second = store.open(bench.info()), store.open(bench.info())
    for recorder in (first, second):
        recorder.start("shell")
        recorder.output(b"hello")
    bad.room = 0
    bench.clock.advance(MERGE_SECONDS)
    assert first.failed and not second.failed
    assert b"hello" in good.contents


def test_reports_failure_of_a_background_sync(bench: Bench) -> None:
    file = FailingFile(syncs=False)
    recorder = recorder_on(bench, file)
    heard: list[RecordingError] = []
    recorder.on_failure(heard.append)
    recorder.start("shell")
    bench.clock.pump([1, 0])
    assert isinstance(recorder.failed, WriteFailed) and heard == [recorder.failed]


def test_fails_when_sync_fails(bench: Bench) -> None:
    recorder = recorder_on(bench, FailingFile(syncs=False))
    recorder.start("shell")
    waiting = recorder.sync()
    bench.clock.advance(0)
    with pytest.raises(WriteFailed):
        result(waiting)
    assert recorder.failed


def test_keeps_what_there_is_when_a_failed_recording_closes(bench: Bench) -> None:
    file = FailingFile()
    recorder = recorder_on(bench, file)
    recorder.start("shell")
    recorder.output(b"kept")
    recorder.flush()
    file.room = len(file.contents) + 3
    with pytest.raises(SpoolFull):
        recorder.output(b"x" * 300_000)
    with pytest.raises(SpoolFull):
        result(recorder.close("recording failed"))
    with pytest.raises(SpoolFull):
        result(recorder.close("again"))
    manifest = Manifest.parse(recorder.path.with_suffix(".json").read_bytes())
    assert manifest.status is Status.FAILED
    assert manifest.reason == "recording failed: this session cannot be recorded: No space left on device"
    assert manifest.cast_sha256 == hashlib.sha256(file.contents).hexdigest()
    assert manifest.stdout == StreamTotals(size=4 + 300_000)
    assert file.closed == 1


def test_fails_when_disk_is_full_at_close(bench: Bench) -> None:
    file = FailingFile()
    recorder = recorder_on(bench, file)
    recorder.start("shell")
    recorder.output(b"almost")
    file.room = len(file.contents)
    with pytest.raises(SpoolFull):
        result(recorder.close("the session ended"))
    assert recorder.failed and file.closed == 1
    assert Manifest.parse(recorder.path.with_suffix(".json").read_bytes()).status is Status.FAILED


def test_fails_when_sync_fails_at_close(bench: Bench) -> None:
    file = FailingFile()
    recorder = recorder_on(bench, file)
    recorder.start("shell")
    file.syncs = False
    with pytest.raises(WriteFailed):
        result(recorder.close("the session ended"))
    assert recorder.failed and file.closed == 1
    assert Manifest.parse(recorder.path.with_suffix(".json").read_bytes()).status is Status.FAILED


def test_fails_when_manifest_cannot_be_written(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    recorder.path.with_suffix(".json").mkdir()
    with pytest.raises(WriteFailed):
        result(recorder.close("the session ended"))


def test_refuses_facts_after_close(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("shell")
    closed = bench.close(recorder)
    for fact in FACTS.values():
        with pytest.raises(RecordingError):
            fact(recorder)
    assert hashlib.sha256(closed.path.read_bytes()).hexdigest() == closed.digest


def test_builds_path_from_the_session_id_alone(bench: Bench, tmp_path: Path) -> None:
    recorder = bench.store().open(bench.info(user="../../x", login="a/b\n\0", cid="../c"))
    recorder.start("exec", "/../../")
    sid = recorder.info.sid
    assert recorder.path == tmp_path / "recordings" / "2026" / "11" / "23" / f"{sid}.cast"
    bench.close(recorder)
