"""Typed input is kept where it was shown, and nowhere else; a password is never kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.recording.capture.echoed_input import HELD_AT_MOST, EchoFilter, EchoResult, ShownInput
from conchrec.recording.terminal.current_line import ShownLine


class Terminal:
    def __init__(self) -> None:
        self.line = ShownLine()
        self.echo = EchoFilter(self.line)
        self.now = 0.0
        self.results: list[str] = []

    def shows(self, text: str) -> None:
        first, newline, rest = text.encode().partition(b"\n")
        self.line.feed(first)
        self.take(self.echo.shown(self.now, newline=bool(newline)))
        self.line.feed(newline + rest)

    def types(self, text: str) -> None:
        self.take(self.echo.typed(text.encode(), self.now))

    def take(self, results: list[EchoResult]) -> None:
        self.results += [result.text if isinstance(result, ShownInput) else "<dropped>" for result in results]

    @property
    def kept(self) -> str:
        return "".join(result for result in self.results if result != "<dropped>")


def test_keeps_keys_that_are_echoed() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    for letter in "ls -l":
        terminal.types(letter)
        terminal.shows(letter)
    terminal.types("\r")
    terminal.shows("\r\n")
    assert terminal.results == ["l", "s", " ", "-", "l", "\r"]


@pytest.mark.parametrize("question", ["Password: ", "[sudo] password for joe: ", "", "Passphrase: P", "$ "])
@pytest.mark.parametrize("at_once", [False, True])
def test_drops_input_with_echo_off(question: str, at_once: bool) -> None:
    terminal = Terminal()
    terminal.shows(question)
    for piece in ["Pass1word\r"] if at_once else "Pass1word\r":
        terminal.types(piece)
        terminal.now += 0.1
    terminal.shows("\r\nSorry, try again.\r\n")
    assert terminal.results == ["<dropped>", "\r"]


@pytest.mark.parametrize("prompt", ["Password: ", "Pass phrase for key: ", "Passwort: "])
def test_drops_password_typed_before_its_prompt(prompt: str) -> None:
    """Even where the prompt begins as the password does."""
    terminal = Terminal()
    terminal.types("Pass1word\r")
    terminal.shows(prompt)
    terminal.shows("\r\n")
    assert terminal.results == ["<dropped>", "\r"]


def test_drops_password_during_other_output() -> None:
    terminal = Terminal()
    terminal.shows("Password: ")
    terminal.types("s")
    terminal.shows("\r\nsyslog: something\r\nPassword: ")
    terminal.types("ecret\r")
    terminal.shows("\r\n")
    assert terminal.kept == "\r"


def test_drops_password_shown_as_stars() -> None:
    terminal = Terminal()
    terminal.shows("Password: ")
    for letter in "secret":
        terminal.types(letter)
        terminal.shows("*")
    terminal.types("\r")
    terminal.shows("\r\n")
    assert terminal.kept == "\r"


@pytest.mark.parametrize("between", ["", "\a", "\x1b[7m", "\x1b[9C", "\x1b[9Cx", "\t\t", "\r", "\b"])
def test_drops_password_that_is_on_the_line_before(between: str) -> None:
    """The cursor stands on letters that were drawn earlier, and something else happens."""
    terminal = Terminal()
    terminal.shows("secret? (password)\r")
    terminal.types("secret")
    terminal.shows(between)
    terminal.types("\r")
    terminal.shows("\r\n")
    assert terminal.results == ["<dropped>", "\r"]


@pytest.mark.parametrize("drawn", ["l", "\x1b[@l", "llo\b\b", "\x1b[Kllo\x1b[2D"])
def test_keeps_letter_that_is_typed_before_the_same_letter(drawn: str) -> None:
    terminal = Terminal()
    terminal.shows("$ helo\x1b[2D")
    terminal.types("l")
    terminal.shows(drawn)
    assert terminal.results == ["l"]


def test_drops_input_that_is_echoed_late() -> None:
    """A password that takes long to type, and a program that prints it afterwards."""
    terminal = Terminal()
    terminal.shows("Password: ")
    terminal.types("secret")
    terminal.now += 5
    terminal.shows("secret")
    assert terminal.results == ["<dropped>"]


def test_keeps_keys_that_draw_nothing() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    for key in ("\x1b[A", "\x1b[B", "\x03", "\t", "\x1bOP", "\x7f", "\x04"):
        terminal.types(key)
    assert terminal.results == ["\x1b[A", "\x1b[B", "\x03", "\t", "\x1bOP", "\x7f", "\x04"]


def test_drops_alt_with_a_letter() -> None:
    terminal = Terminal()
    terminal.shows("Password: ")
    terminal.types("\x1bs")
    terminal.types("s\x1be")
    terminal.shows("\r\n")
    assert terminal.results == ["<dropped>"]


def test_keeps_letters_that_the_shell_draws_again() -> None:
    """zsh with colours: each key draws the word again."""
    terminal = Terminal()
    terminal.shows("web1% ")
    terminal.types("l")
    terminal.shows("\x1b[1m\x1b[31ml\x1b[0m\x1b[39m")
    terminal.types("s")
    terminal.shows("\x08\x1b[0m\x1b[32ml\x1b[32ms\x1b[39m")
    assert terminal.kept == "ls"


def test_keeps_pasted_input() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    terminal.types("echo one two")
    terminal.shows("echo o")
    terminal.shows("ne two")
    terminal.types("\r")
    assert terminal.kept == "echo one two\r"


def test_keeps_letters_that_come_in_parts() -> None:
    terminal = Terminal()
    terminal.shows("$ ")
    data = "ü".encode()
    terminal.take(terminal.echo.typed(data[:1], 0))
    terminal.take(terminal.echo.typed(data[1:], 0))
    terminal.shows("ü")
    assert terminal.kept == "ü"


def test_limits_held_input() -> None:
    terminal = Terminal()
    terminal.types("x" * (HELD_AT_MOST + 1))
    assert terminal.results == ["<dropped>"]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="Secret9x \r\n\x1b[A", max_size=12)))
def test_keeps_only_letters_that_were_shown(pieces: list[str]) -> None:
    """All letters that are kept are on the screen, in order."""
    terminal, shown = Terminal(), ""
    for number, piece in enumerate(pieces):
        if number % 2:
            terminal.types(piece)
        else:
            terminal.shows(piece)
            shown += piece
    letters = [
        letter
        for result in terminal.results
        if result != "<dropped>"
        for letter in re.sub("\x1b\\[[0-9]* *[@-~]", "", result)  # keys that draw nothing
    ]
    rest = iter(shown)
    assert all(letter in rest for letter in letters if letter.isalnum())
