"""Commands are found where there are some, and nothing else is, in whatever pieces the output comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.recording.capture.shell_commands import LOOKED_AT, CommandDetector, CommandEvent, CommandStart
from conchrec.recording.terminal.current_line import ShownLine


class Terminal:
    def __init__(self) -> None:
        self.line = ShownLine()
        self.commands = CommandDetector(self.line)
        self.events: list[str | int] = []

    def shows(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        first, newline, rest = data.partition(b"\n")
        self.line.feed(first)
        self._take(self.commands.shown(data))
        self.line.feed(newline + rest)

    def types(self, text: str) -> None:
        """Type this; the terminal echoes it."""
        for letter in text:
            self.commands.typed(letter.encode())
            self.shows("\r\n" if letter == "\r" else letter)

    def _take(self, events: list[CommandEvent]) -> None:
        self.events += [event.text if isinstance(event, CommandStart) else event.status for event in events]


PROMPTS = [
    "$ ", "# ", "root@web1:~# ", "\x1b[01;32mjoe@web1\x1b[00m:\x1b[01;34m~/x y\x1b[00m$ ",
    "web1% ", "➜  ~ ❯ ",
    ">>> ", "mysql> ", "db=# ", "[joe@web1 ~]$ ", "first line\r\nsecond $ ",
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_finds_commands_by_the_prompt(prompt: str) -> None:
    terminal = Terminal()
    for command in ("ls -l", "cd /tmp", "echo '$ # >'"):
        terminal.shows(prompt)
        terminal.types(command + "\r")
        terminal.shows("some output\r\nmore $ output\r\n")
    assert terminal.events == ["ls -l", "cd /tmp", "echo '$ # >'"]


def test_ignores_further_lines_of_a_command() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("cat << X\r")
    for prompt in ("> ", "heredoc> ", "for quote> "):
        terminal.shows(prompt)
        terminal.types("some text\r")
    assert terminal.events == ["cat << X"]


def test_ignores_passwords_and_answers() -> None:
    terminal = Terminal()
    for question in ("Password: ", "[sudo] password for joe: ", "Continue? [y/N] ", "Name: ", ""):
        terminal.shows(question)
        for letter in "hunter2\r":
            terminal.commands.typed(letter.encode())
        terminal.shows("\r\n")
    assert terminal.events == []


def test_does_not_see_password_at_a_line_that_looks_like_a_prompt() -> None:
    terminal = Terminal()
    terminal.shows("secret> $ ")
    terminal.commands.typed(b"hunter2\r")
    terminal.shows("\r\n$ ")
    assert terminal.events == []


def test_finds_edited_line_in_its_final_form() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("lx")
    terminal.commands.typed(b"\x7f")
    terminal.shows("\b\x1b[K")
    terminal.types("s")
    terminal.commands.typed(b"\x1b[A")
    terminal.shows("\r$ make install\x1b[K")
    terminal.commands.typed(b"\r")
    terminal.shows("\r\n")
    assert terminal.events == ["make install"]


def test_ignores_cancelled_and_empty_lines() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("rm -rf /")
    terminal.commands.typed(b"\x03")
    terminal.shows("^C\r\n$ ")
    terminal.types("\r")
    terminal.shows("$ ")
    terminal.types("id\r")
    assert terminal.events == ["id"]


def test_finds_commands_typed_ahead() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.commands.typed(b"ls\rid\r")
    terminal.shows("ls\r\nfile one\r\n$ id\r\nuid=0\r\n$ ")
    assert terminal.events == ["ls", "id"]


def test_finds_none_inside_full_screen_programs() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("vim\r")
    terminal.shows("\x1b[?1049h\x1b[H~\r\n~\r\n# ")
    terminal.types("a comment\r")
    terminal.shows("\x1b[?1049l\r\n$ ")
    terminal.types("id\r")
    assert terminal.events == ["vim", "id"]


MARKED = (
    "\x1b]133;A\x07$ \x1b]133;B\x07ls -x\b \bl\r\n\x1b]133;C\x07file\r\n\x1b]133;D;0\x07"
    "\x1b]133;A\x1b\\$ \x1b]133;B\x1b\\false\r\n\x1b]133;C\x1b\\\x1b]133;D;1\x1b\\"
    "\x1b]133;A;k=i\x07$ \x1b]133;B\x07\r\n\x1b]133;A\x07$ \x1b]133;B\x07"
    "\x1b]633;E;echo a\\x3b b \\\\ c;nonce\x07\x1b]633;C\x07a\x1b]633;D;130\x07"
)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(MARKED.encode()))))
def test_finds_commands_by_marks_in_any_pieces(cuts: list[int]) -> None:
    data = MARKED.encode()
    cuts = sorted({0, len(data), *cuts})
    terminal = Terminal()
    for begin, end in pairwise(cuts):
        terminal.shows(data[begin:end])
    assert terminal.events == ["ls -l", 0, "false", 1, "echo a; b \\ c", 130]


def test_ignores_prompt_of_a_shell_with_marks() -> None:
    terminal = Terminal()
    terminal.shows("\x1b]133;A\x07$ \x1b]133;B\x07")
    terminal.types("ls\r")
    terminal.shows("\x1b]133;C\x07")
    assert terminal.events == ["ls"]


def test_reads_marks_after_much_output() -> None:
    terminal = Terminal()
    terminal.shows("\x1b]133;A\x07$ \x1b]133;B\x07cat big\r\n\x1b]133;C\x07")
    for _ in range(100):
        terminal.shows(b"x" * 32768)
    terminal.shows(b"x" * LOOKED_AT * 3 + b"\x1b]133;D;0\x07\x1b]133;A\x07$ \x1b]133;B\x07")
    terminal.shows("id\r\n\x1b]133;C\x07")
    assert terminal.events == ["cat big", 0, "id"]


PIECES = [
    b"\x1b]133;A\x07", b"\x1b]133;B\x07", b"\x1b]133;C\x07", b"\x1b]133;D;0\x07",
    b"$ ", b"\r\n", b"\r", b"\x1b[?1049h",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60) | st.sampled_from(PIECES))))
def test_accepts_any_input_and_output(talk: list[tuple[bool, bytes]]) -> None:
    terminal = Terminal()
    for typed, data in talk:
        if typed:
            terminal.commands.typed(data)
        else:
            terminal.shows(data)
    assert all(len(event) <= 1024 for event in terminal.events if isinstance(event, str))
