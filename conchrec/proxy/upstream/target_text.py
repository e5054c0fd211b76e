"""Marks the text of a target that a user reads outside a session: banner, questions, reasons for its end.

A malicious target could otherwise imitate the proxy: for instance, ask for the user's code and get it. So
each line of a target begins with its name in brackets, and none can look like a line of the proxy
(``conchrec: …``), also on a terminal that wraps it: lines are shorter than a terminal's width, and
``conchrec`` before a colon is put in quotes. The output of a session is not marked.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import replace

from conchrec.ssh.disconnect import ConnectionEnd
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.text import PREFIX, foreign_line, foreign_quote, one_line

#: Columns of a line with its mark. OpenSSH's client writes ``(root@web1) `` before a question.
BANNER_WIDTH, QUESTION_WIDTH = 79, 60
#: The longest name in a mark; a longer one is cut.
MAX_NAME = 32
#: The most characters and lines of all banners of one login together.
MAX_BANNER, MAX_BANNER_LINES = 8 * 1024, 100
MAX_TITLE, MAX_INSTRUCTION, MAX_PROMPT = 256, 4 * 1024, 1024
MAX_LINES = 40
MAX_DISCONNECT = 255
CUT = "… (the rest is not shown)"


def end_text(lost: ConnectionEnd) -> str:
    """How a target's connection ended, for a sentence of ours: the target's own words in quotes.

    Empty where the target closed the connection without a word.
    """
    text = lost.describe()
    if lost.error is None and (lost.description or lost.greeting):
        return foreign_quote(text, MAX_DISCONNECT)
    return text


class TargetText:
    """Marks the text of one target, whose ``name`` is a host name with or without a port."""

    __slots__ = (
        "_banner_left", "_banner_lines_left", "_mark",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self._mark = f"[{one_line(name, MAX_NAME)}] "
        self._banner_left = MAX_BANNER
        self._banner_lines_left = MAX_BANNER_LINES

    def banner(self, text: str) -> str:
        """The marked lines of a banner; empty once all banners exceed the limits."""
        if self._banner_left <= 0 or self._banner_lines_left <= 0:
            return ""
        lines = self._lines(text, self._banner_left, self._banner_lines_left, BANNER_WIDTH)
        self._banner_left -= len(text)
        self._banner_lines_left -= len(lines)
        return "".join(f"{line}\n" for line in lines)

    def challenge(self, challenge: Challenge) -> Challenge:
        """The same questions with each line marked."""
        return replace(
            challenge,
            name="\n".join(self._lines(challenge.name, MAX_TITLE, MAX_LINES, QUESTION_WIDTH)),
            instruction="\n".join(
                self._lines(challenge.instruction, MAX_INSTRUCTION, MAX_LINES, QUESTION_WIDTH)
            ),
            prompts=tuple(replace(prompt, text=self._prompt(prompt)) for prompt in challenge.prompts),
        )

    def _prompt(self, prompt: Prompt) -> str:
        """A marked question: the user types after its last line. An empty one gets a mark, too."""
        lines = self._lines(prompt.text, MAX_PROMPT, MAX_LINES, QUESTION_WIDTH)
        return "\n".join(lines or [self._mark]) + ("\n" if prompt.text.endswith(("\n", "\r")) else "")

    def refusal(self, text: bytes) -> bytes:
        """The target's reason for refusing a channel.

        It is marked only if it could pass for one of ours: clients show it after words of their own, and
        programs compare it.
        """
        shown = foreign_line(text, MAX_DISCONNECT)
        is_plain = shown.isascii() and PREFIX.strip(": ") not in shown.casefold()
        return shown.encode() if is_plain else (self._mark + shown).encode()

    def line(self, text: bytes) -> bytes:
        """The marked reason of the target's DISCONNECT."""
        shown = foreign_line(text, MAX_DISCONNECT)
        return (self._mark + shown).encode()

    def _lines(self, text: str, most: int, most_lines: int, width: int) -> list[str]:
        lines: list[str] = []
        was_empty = False
        for line in text[:most].splitlines():
            # One empty line is enough: a hundred would push earlier text off the screen.
            if line.strip() or not was_empty:
                lines += [self._mark + row for row in _rows(line, width - len(self._mark))]
            was_empty = not line.strip()
        if len(text) > most or len(lines) > most_lines:
            lines = [*lines[: most_lines - 1], self._mark + CUT]
        return lines


def _rows(line: str, width: int) -> Iterator[str]:
    """Split a line into pieces of at most ``width`` columns; at least one piece."""
    row, columns = "", 0
    for letter in foreign_line(line, None):
        letter_width = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if columns + letter_width > width:
            yield row
            row, columns = "", 0
        row, columns = row + letter, columns + letter_width
    yield row
