"""CommandDetector are found where there are some, and nothing else is; however the output is cut."""

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
        self.found: list[str | int] = []

    def shows(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        first, newline, rest = data.partition(b"\n")
        self.line.feed(first)
        self._take(self.commands.shown(data))
        self.line.feed(newline + rest)

    def types(self, text: str) -> None:
        """And the terminal echoes it."""
        for letter in text:
            self.commands.typed(letter.encode())
            self.shows("\r\n" if letter == "\r" else letter)

    def _take(self, found: list[CommandEvent]) -> None:
        self.found += [one.text if isinstance(one, CommandStart) else one.status for one in found]


PROMPTS = [
    "$ ", "# ", "root@web1:~# ", "\x1b[01;32mjoe@web1\x1b[00m:\x1b[01;34m~/x y\x1b[00m$ ",
    "web1% ", "➜  ~ ❯ ",
    ">>> ", "mysql> ", "db=# ", "[joe@web1 ~]$ ", "first line\r\nsecond $ ",
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_by_the_prompt(prompt: str) -> None:
    terminal = Terminal()
    for command in ("ls -l", "cd /tmp", "echo '$ # >'"):
        terminal.shows(prompt)
        terminal.types(command + "\r")
        terminal.shows("some output\r\nmore $ output\r\n")
    assert terminal.found == ["ls -l", "cd /tmp", "echo '$ # >'"]


def test_the_rest_of_a_command_on_further_lines_is_none() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("cat << X\r")
    for prompt in ("> ", "heredoc> ", "for quote> "):
        terminal.shows(prompt)
        terminal.types("some text\r")
    assert terminal.found == ["cat << X"]


def test_passwords_and_questions_are_no_commands() -> None:
    terminal = Terminal()
    for question in ("Password: ", "[sudo] password for joe: ", "Continue? [y/N] ", "Name: ", ""):
        terminal.shows(question)
        for letter in "hunter2\r":
            terminal.commands.typed(letter.encode())
        terminal.shows("\r\n")
    assert terminal.found == []


def test_a_password_at_what_looks_like_a_prompt_is_not_shown_and_so_not_seen() -> None:
    terminal = Terminal()
    terminal.shows("secret> $ ")
    terminal.commands.typed(b"hunter2\r")
    terminal.shows("\r\n$ ")
    assert terminal.found == []


def test_a_line_that_was_edited_is_there_as_it_was_in_the_end() -> None:
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
    assert terminal.found == ["make install"]


def test_ctrl_c_and_an_empty_line_are_none() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("rm -rf /")
    terminal.commands.typed(b"\x03")
    terminal.shows("^C\r\n$ ")
    terminal.types("\r")
    terminal.shows("$ ")
    terminal.types("id\r")
    assert terminal.found == ["id"]


def test_typed_ahead() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.commands.typed(b"ls\rid\r")
    terminal.shows("ls\r\nfile one\r\n$ id\r\nuid=0\r\n$ ")
    assert terminal.found == ["ls", "id"]


def test_inside_of_a_full_screen_program_there_is_none() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("vim\r")
    terminal.shows("\x1b[?1049h\x1b[H~\r\n~\r\n# ")
    terminal.types("a comment\r")
    terminal.shows("\x1b[?1049l\r\n$ ")
    terminal.types("id\r")
    assert terminal.found == ["vim", "id"]


TOLD = (
    "\x1b]133;A\x07$ \x1b]133;B\x07ls -x\b \bl\r\n\x1b]133;C\x07file\r\n\x1b]133;D;0\x07"
    "\x1b]133;A\x1b\\$ \x1b]133;B\x1b\\false\r\n\x1b]133;C\x1b\\\x1b]133;D;1\x1b\\"
    "\x1b]133;A;k=i\x07$ \x1b]133;B\x07\r\n\x1b]133;A\x07$ \x1b]133;B\x07"
    "\x1b]633;E;echo a\\x3b b \\\\ c;nonce\x07\x1b]633;C\x07a\x1b]633;D;130\x07"
)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(TOLD.encode()))))
def test_as_the_shell_tells_however_it_comes(cuts: list[int]) -> None:
    data = TOLD.encode()
    places = sorted({0, len(data), *cuts})
    terminal = Terminal()
    for begin, end in pairwise(places):
        terminal.shows(data[begin:end])
    assert terminal.found == ["ls -l", 0, "false", 1, "echo a; b \\ c", 130]


def test_a_shell_that_tells_is_believed_and_the_prompt_is_not_looked_at() -> None:
    terminal = Terminal()
    terminal.shows("\x1b]133;A\x07$ \x1b]133;B\x07")
    terminal.types("ls\r")
    terminal.shows("\x1b]133;C\x07")
    assert terminal.found == ["ls"]


def test_after_much_output_the_shell_is_still_heard() -> None:
    terminal = Terminal()
    terminal.shows("\x1b]133;A\x07$ \x1b]133;B\x07cat big\r\n\x1b]133;C\x07")
    for _ in range(100):
        terminal.shows(b"x" * 32768)
    terminal.shows(b"x" * LOOKED_AT * 3 + b"\x1b]133;D;0\x07\x1b]133;A\x07$ \x1b]133;B\x07")
    terminal.shows("id\r\n\x1b]133;C\x07")
    assert terminal.found == ["cat big", 0, "id"]


PIECES = [
    b"\x1b]133;A\x07", b"\x1b]133;B\x07", b"\x1b]133;C\x07", b"\x1b]133;D;0\x07",
    b"$ ", b"\r\n", b"\r", b"\x1b[?1049h",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60) | st.sampled_from(PIECES))))
def test_anything_may_come(talk: list[tuple[bool, bytes]]) -> None:
    terminal = Terminal()
    for typed, data in talk:
        if typed:
            terminal.commands.typed(data)
        else:
            terminal.shows(data)
    assert all(len(one) <= 1024 for one in terminal.found if isinstance(one, str))
