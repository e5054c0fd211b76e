from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.terminal.painter import Painter
from conchrec.recording.terminal.screen import Screen
from tests.support.process import Process, environment, program
from tests.support.wait import LONG

COLUMNS, ROWS = 20, 6
FILL = "".join(f"{letter * COLUMNS}" for letter in "abcde") + "ffff"


def shown(text: str, columns: int = COLUMNS, rows: int = ROWS) -> list[str]:
    screen = Screen(columns, rows)
    screen.feed(text)
    return lines(screen)


def lines(screen: Screen) -> list[str]:
    return ["".join(line.letters).rstrip() for line in screen.lines]


DRAWINGS = [
    "plain", "a\r\nb\nc\rd", "a\tb\bc", "x" * 50, "x" * 20 + "\r\ny", FILL + "\r\n\nlast",
    FILL + "\x1b[3;5H*\x1b[2A*\x1b[3B*\x1b[2D*\x1b[4C*\x1b[9G*\x1b[5d*",
    FILL + "\x1b[2;4r\x1b[4;1H\n\nx\x1b[2;1H\x1bMy\x1b[r",
    FILL + "\x1b[3;5H\x1b[K\x1b[4;5H\x1b[1K\x1b[2;1H\x1b[2K", FILL + "\x1b[3;5H\x1b[J",
    FILL + "\x1b[3;5H\x1b[1J",
    FILL + "\x1b[2Jx", FILL + "\x1b[3;5H\x1b[3P\x1b[4;5H\x1b[3@\x1b[5;5H\x1b[3X",
    FILL + "\x1b[3;1H\x1b[2L\x1b[5;1H\x1b[1M", FILL + "\x1b[2S", FILL + "\x1b[2T",
    FILL + "\x1b[3;3H\x1bD*\x1bE*",
    "a\x1b7\x1b[4;4Hb\x1b8c", "\x1b[3;3Hab\x1b[?1049hother\x1b[?1049lback", "\x1b[?7l" + "x" * 25 + "y",
    "\x1b[4hold\rnew ", "日本語のテキストが折り返す", "a\u0301e\u0308", "ab\x1b[3b",
    FILL + "\x1b#8",
    "\x1b[1;31;44mx\x1b[my", "\x1b[99;99Hend", "\x1b[0;0Hhome",
    "title\x1b]0;evil\x07 \x1b[6nend", "\x1b[5;3Hab\x1bcnew",
]  # fmt: skip


@pytest.fixture(scope="module")
def tmux() -> Iterator[Tmux]:
    directory = Path(tempfile.mkdtemp(prefix="cr-"))
    tmux = Tmux(directory)
    try:
        yield tmux
    finally:
        tmux.run("kill-server")
        shutil.rmtree(directory)


class Tmux:
    """A real terminal of that size, and what is on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.run("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "exec sleep 600")
        self.run("set", "-g", "status", "off")
        self.run("set", "-g", "remain-on-exit", "on")
        self.run("resize-window", "-x", str(COLUMNS), "-y", str(ROWS))

    def run(self, *words: str) -> str:
        command = [program("tmux"), "-f", "/dev/null", "-S", str(self._directory / "tmux"), *words]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env=environment(), text=True
        ).stdout

    def shown(self, text: str) -> list[str]:
        """Return the screen when everything has arrived: the title is the last word."""
        path = self._directory / "text"
        path.write_bytes(text.encode())
        self.run("select-pane", "-T", "drawing")
        word = "printf '\\033]2;shown\\033\\\\'"
        self.run("respawn-pane", "-k", f"stty raw -echo; cat {path}; {word}; exec sleep 600")
        end = time.monotonic() + LONG
        while self.run("display", "-p", "#{pane_title}").strip() != "shown":
            assert time.monotonic() < end, "tmux does not show it"
        return [line.rstrip() for line in self.run("capture-pane", "-p").split("\n")[:ROWS]]


def test_shows_the_same_as_a_real_terminal(tmux: Tmux) -> None:
    assert len({tuple(shown(text)) for text in DRAWINGS}) == len(DRAWINGS)
    different = {text: (got, shown(text)) for text in DRAWINGS if (got := tmux.shown(text)) != shown(text)}
    assert different == {}


def test_paints_the_same_as_a_real_terminal(tmux: Tmux) -> None:
    """What is painted, over whatever was there before, is the screen itself."""
    screen, painter, painted = Screen(COLUMNS, ROWS), Painter(COLUMNS, ROWS), ""
    for text in DRAWINGS:
        screen.feed(text + "\x1b[m")
        painted += painter.paint(screen)
    assert tmux.shown("\x1b[?7l" + painted) == lines(screen)


PROGRAMS = {
    "bash": (
        ["bash", "--norc", "-i"],
        # What is typed before the prompt is shown by the terminal, not by bash.
        [
            ("$ ", "seq 30; echo h\x1b[D\x1b[Dx\r"),
            ("30\r\n", ""),
            ("$ ", "\x12se"),
            ("search)", "\r"),
            ("30\r\n", ""),
        ],
    ),
    "less": (
        ["less", __file__],
        [("\x1b[K", " "), ("\x1b[K", "b"), ("\x1b[K", "/PROGRAMS\r"), ("PROGRAMS", "")],
    ),
    "python": (
        [sys.executable, "-q"],
        [(">>> ", "print('日本'*30)\r"), (">>> ", "help(str)\r"), ("Help", " "), ("\r", "")],
    ),
}
"""Each with what it says, and what is typed then."""
PAGER = "less -Pm:"
"""With a short prompt: Python 3.13's own ends in the last column, where terminals erase differently."""


@pytest.mark.parametrize("name", PROGRAMS)
async def test_shows_real_programs_like_a_terminal(tmux: Tmux, name: str) -> None:
    """At any point of their output, a terminal shows the same of it."""
    command, talk = PROGRAMS[name]
    env = environment(TERM="screen", PS1="$ ", PAGER=PAGER)
    process = Process(command, env=env, terminal=(COLUMNS, ROWS))
    try:
        at = 0
        for expected, typed in talk:
            at = await process.says(expected, after=at)
            process.write(typed.encode())
    finally:
        await process.stop(signal.SIGKILL)
    text = process.stdout.decode("utf-8", "replace")
    assert tmux.shown(text) == shown(text)


def test_draws_lines_of_the_dec_character_set() -> None:
    assert shown("\x1b(0lqk\x1b(Bq \x1b)0\x0ex\x0fx")[0] == "┌─┐q │x"


def test_supports_sequences_of_xterm_that_tmux_lacks() -> None:
    assert shown("\x1b[3`y\x1b[2az\x1b[1Ib\x1b[1Zc")[0] == "  y  z  c"
    assert shown("日本\x1b[2Gx")[0] == " x本"
    assert shown("日本\x1b[1Gx")[0] == "x 本"
    assert shown("日本\x1b[2G\x1b[P")[0] == " 本"
    assert shown("x" * 18 + "日\x1b[1G\x1b[@")[0] == " " + "x" * 18


def test_returns_at_line_feed_without_a_terminal() -> None:
    screen = Screen(COLUMNS, ROWS, newline=True)
    screen.feed("one\ntwo\n")
    assert lines(screen)[:2] == ["one", "two"]


def styles(text: str) -> list[str]:
    screen = Screen(COLUMNS, ROWS)
    screen.feed(text)
    return screen.lines[0].styles[:3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[1;31ma\x1b[22mb\x1b[39mc", ["1;31", "31", ""]),
        ("\x1b[38;5;100ma\x1b[48;2;1;2;3mb\x1b[0mc", ["38;5;100", "38;5;100;48;2;1;2;3", ""]),
        ("\x1b[4:3ma\x1b[4:0mb\x1b[58:5:9;4mc", ["4:3", "", "58:5:9;4"]),
        ("\x1b[38;5mabc", ["", "", ""]),
        ("\x1b[31ma\x1b[32mb\x1b[m\x1b[07mc", ["31", "32", "07"]),
        ("\x1b[42m\x1b[2J", ["42", "42", "42"]),
    ],
)
def test_applies_styles(text: str, expected: list[str]) -> None:
    assert styles(text) == expected


def test_resizes() -> None:
    screen = Screen(COLUMNS, ROWS)
    screen.feed("1\r\n2\r\n3\r\n4\r\n5\r\n日本")
    screen.resize(3, 3)
    assert lines(screen) == ["4", "5", "日"]
    screen.feed("x\x1b[9;9Hy")
    screen.resize(5, 4)
    assert (screen.columns, screen.rows, len(screen.lines)) == (5, 4, 4)
    assert all(len(line.letters) == len(line.styles) == 5 for line in screen.lines)


pieces = st.lists(
    st.sampled_from(DRAWINGS)
    | st.text("\x1b[]?;0123456789ABCDEFGHJKLMPSTXZ@`abdefhlmrsu(#)\x07\x08\t\r\n\x0e\x0f日é ", max_size=20)
    | st.tuples(st.integers(1, 30), st.integers(1, 10)),
    max_size=12,
)


@given(pieces, st.integers(1, 9))
def test_survives_any_output(parts: list[str | tuple[int, int]], size: int) -> None:
    whole, split = Screen(COLUMNS, ROWS), Screen(COLUMNS, ROWS)
    for part in parts:
        if isinstance(part, tuple):
            whole.resize(*part)
            split.resize(*part)
            continue
        whole.feed(part)
        for at in range(0, len(part), size):
            split.feed(part[at : at + size])
        row, column = whole.cursor
        assert 0 <= row < whole.rows and 0 <= column < whole.columns
        assert len(whole.lines) == whole.rows
        for line in whole.lines:
            assert len(line.letters) == len(line.styles) == whole.columns
            assert all(letter == "" or letter[0].isprintable() for letter in line.letters)
            assert line.letters[0] != ""
    assert lines(whole) == lines(split) and whole.cursor == split.cursor
