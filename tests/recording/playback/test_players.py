"""Every recording plays in the real asciinema, each version that is installed."""

from __future__ import annotations

import os
import subprocess
import tty
from pathlib import Path

import pytest

from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.format.settings import InputPolicy
from tests.recording.recording_bench import Bench
from tests.support.cast import players

TEXT = (
    "plain\r\n\x1b[1;31mred\x1b[0m h\u00e9llo \u65e5\u672c\u8a9e "
    '\U0001f600 \x00\x07\t\x85\u2028\u2029\\"\x7f\ufffd\r\n'
)


def _show(player: str, command: str, path: Path) -> str:
    """Return what a raw terminal gets. asciinema needs a controlling terminal."""
    main, secondary = os.openpty()
    tty.setraw(secondary)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", player, command, str(path)],
        stdin=secondary,
        stdout=secondary,
        stderr=subprocess.PIPE,
        env=env,
    ) as process:
        os.close(secondary)
        shown = b""
        while True:
            try:
                block = os.read(main, 65536)
            except OSError:  # EIO: the other side has closed
                break
            if not block:
                break
            shown += block
        os.close(main)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0
    return shown.decode()


def _plays(path: Path, expected: str) -> None:
    for player in players():
        for command in ("cat", "play"):
            assert _show(player, command, path) == expected, (player, command)


def _session(recorder: SessionRecorder, bench: Bench) -> None:
    recorder.pty("xterm", 100, 30)
    recorder.start("shell")
    recorder.output(TEXT.encode()[:20])
    bench.clock.advance(0.1)
    recorder.resize(120, 40)
    recorder.output(TEXT.encode()[20:])


def test_play_session_on_a_pty(bench: Bench) -> None:
    recorder = bench.recorder()
    _session(recorder, bench)
    recorder.marker("a marker")
    recorder.exit_status(3)
    _plays(bench.close(recorder).path, TEXT)


def test_play_growing_recording(bench: Bench) -> None:
    recorder = bench.recorder()
    _session(recorder, bench)
    recorder.flush()
    _plays(recorder.path, TEXT)


def test_play_command_with_input_and_error_output(bench: Bench) -> None:
    recorder = bench.recorder(policy=InputPolicy.WITHOUT_PTY)
    recorder.start("exec", "cat; echo \x1b]0;title\x07 >&2")
    recorder.input(b"secret")
    recorder.output(b"one\n")
    recorder.error_output(b"two\n")
    recorder.exit_signal("TERM")
    _plays(bench.close(recorder).path, "one\ntwo\n")


def test_play_file_transfer(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.start("subsystem", "sftp")
    recorder.transfer(digest_only=True)
    recorder.output(b"\0\0\0\5")
    _plays(bench.close(recorder).path, "")


def test_play_channel_that_ran_nothing(bench: Bench) -> None:
    _plays(bench.close(bench.recorder()).path, "")


@pytest.mark.parametrize("torn", [b"", b'[0.2, "o", "to', b"\0\0\0"])
def test_play_interrupted_recording(bench: Bench, torn: bytes) -> None:
    recorder = bench.recorder()
    _session(recorder, bench)
    recorder.flush()
    recorder.spool.close()  # what the kernel does for a dead process
    with recorder.path.open("ab") as file:
        file.write(torn)
    assert len(bench.recover()) == 1
    _plays(recorder.path, TEXT)


def test_play_recording_interrupted_before_its_header(bench: Bench) -> None:
    recorder = bench.recorder()
    recorder.spool.close()
    assert len(bench.recover()) == 1
    _plays(recorder.path, "")
