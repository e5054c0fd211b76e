"""What is done with the output and the keys of a terminal costs the same for each byte, whatever came before.

A user may send single keys while the line on the screen is long, a sequence is not finished, or much that was
typed is held: all of that is in the user's hand, and in that of a hostile target.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.recording.capture.echoed_input import EchoFilter
from conchrec.recording.capture.shell_commands import CommandDetector
from conchrec.recording.terminal.current_line import LONGEST, MOST_CONTROLS, ShownLine
from conchrec.recording.terminal.sanitize import SafeOutput
from conchrec.recording.terminal.transcript import Transcript
from tests.support.work import Work, counted, watched

#: Lines of code and letters for each byte, and for each piece (a packet, or a key).
PER_BYTE, PER_PIECE = 60, 900

Script = Iterable[tuple[str, bytes]]


def work(script: Script, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Do what the recorder does with a terminal, for these pieces: ``type`` and ``show``."""
    line = ShownLine()
    echo, commands, now = EchoFilter(line), CommandDetector(line), 0.0
    with monkeypatch.context() as patched, counted() as done:
        for owner, name in ((Transcript, "feed"), (Transcript, "letters"), (SafeOutput, "feed")):
            patched.setattr(owner, name, watched(done, getattr(owner, name)))
        for what, data in script:
            now += 0.0001
            if what == "type":
                commands.typed(data)
                echo.typed(data, now)
                continue
            end = data.find(b"\n")
            line.feed(data if end < 0 else data[:end])
            echo.shown(now, newline=end >= 0)
            commands.shown(data)
            if end >= 0:
                line.feed(data[end:])
    return done


def keys(count: int, *, shown: bytes = b"") -> list[tuple[str, bytes]]:
    return [piece for _ in range(count) for piece in (("type", b"x"), ("show", shown))]


LONG = {
    "a long line": [("show", b"$ " + b"x" * (LONGEST - 500))],
    "a long line of escape sequences": [("show", b"\x1b[C" * (MOST_CONTROLS - 50))],
    "too many escape sequences": [("show", b"\x1b[C" * (LONGEST // 3 - 200))],
    "a sequence without an end": [("show", b"\x1b[" + b"1" * 5000)],
    "a mark without an end": [("show", b"\x1b]133;A;" + b"1" * 3500)],
    "a command that is told": [("show", b"\x1b]133;A\x07\x1b]133;B\x07" + b"x" * 8000)],
    "a title without an end": [("show", b"\x1b]0;" + b"t" * 6000)],
    "a paste that is held": [("show", b"$ "), ("type", b"a" * 4000)],
    "a paste with keys": [("show", b"$ "), ("type", b"a\x01" * 2000)],
    "a paste of keys": [("show", b"$ "), ("type", b"a" + b"\x01" * 4000)],
    "a paste, and the half of it": [("type", b"a" * 4000), ("show", b"a" * 2000 + b"b")],
    "many Enters": [("show", b"$ x"), *[("type", b"\r")] * 500],
}


@pytest.mark.parametrize("before", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("shown", [b"", b"x", b"\r", b"\x08", b"a", b"\x1b", b"\x1b[4000G", b"\x1b[@", b";"])
def test_costs_the_same_for_a_key_after_any_output(
    before: list[tuple[str, bytes]], shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the first key all of that is read.
    before = [*before, ("type", b"x"), ("show", b"x")]
    once = work(before, monkeypatch)
    more = work([*before, *keys(40, shown=shown)], monkeypatch)
    assert more.total - once.total < 40 * (PER_PIECE + PER_BYTE * len(shown))


@pytest.mark.parametrize(
    "piece", [b"$\n", b"\n", b"$ x\r\n", b"\x1b[4000G$\n", b"\x1b]133;C\x07", b"\x1b", b"\x1b]", b"x"]
)
def test_costs_the_same_for_each_byte_of_output(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = piece * (8000 // len(piece))
    begin = [("show", b"$ "), ("type", b"x"), *[("type", b"\r")] * 100]
    done = work([*begin, ("show", data)], monkeypatch)
    assert done.total < PER_BYTE * len(data) + PER_PIECE * len(begin)


_PIECES = st.sampled_from(
    [b"\x1b[4000G", b"\x1b[9999@", b"\x1b[999P", b"\x1b[1K", b"\x1b[K", b"\x1b[H", b"\x1b[999b", b"\t", b"\r",
     b"\n", b"$ ", b"xyz", b"\x1b]133;A", b"\x1b]133;C\x07", b"\x1b]", b"\x1b", b"\x08", b"\x9b", b"\xff",
     "é你".encode(), b"\x1b[1;2;3m", b"\x1b[?1049h", b"1" * 300]
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["type", "show"]), _PIECES, st.integers(1, 60)), max_size=30))
def test_limits_work_for_any_terminal(pieces: list[tuple[str, bytes, int]]) -> None:
    script = [(what, piece * count) for what, piece, count in pieces]
    with pytest.MonkeyPatch.context() as monkeypatch:
        done = work(script, monkeypatch)
    assert done.total <= PER_BYTE * sum(len(data) for _, data in script) + PER_PIECE * len(script)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(_PIECES, st.integers(1, 200)), max_size=20), st.integers(1, 50))
def test_limits_transcript_to_what_was_read(pieces: list[tuple[bytes, int]], cut: int) -> None:
    text = b"".join(piece * count for piece, count in pieces).decode("utf-8", "replace")
    transcript = Transcript()
    lines = [transcript.feed(text[at : at + cut]) for at in range(0, len(text), cut)]
    written = len("".join(lines) + transcript.end())
    # What is not printable is written as an escape: \u200b for one letter.
    assert written <= 16 * len(text) + 4096
    assert transcript.work <= 10 * len(text) + 2 * 4096
