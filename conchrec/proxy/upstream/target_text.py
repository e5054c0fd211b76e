"""What a target says to a person before there is a session: its banner, its questions, why it disconnects.

A malicious target may write exactly what the proxy would write, for instance the question for the second
factor at the proxy, and get the answer. So each line of a target begins with its name in brackets, and none
can begin like ours (``conchrec: …``) or pass for one of ours on a terminal that wraps it: lines are cut
short of a terminal's width, and our name before a colon is put in quotes. The output of a session is the
target's own, and not marked.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import replace

from conchrec.ssh.disconnect import ConnectionEnd
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.text import PREFIX, foreign_line, one_line

#: Columns of a line, the mark among them. ssh itself writes ``(root@web1) `` before a question.
BANNER_WIDTH, QUESTION_WIDTH = 79, 60
#: A longer name is cut in the mark.
MAX_NAME = 32
#: Of all banners of one login.
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
        return f'"{foreign_line(text, MAX_DISCONNECT)}"'
    return text


class TargetText:
    """Marks the words of one target, whose ``name`` is a host name with or without a port."""

    def __init__(self, name: str) -> None:
        self._mark = f"[{one_line(name, MAX_NAME)}] "
        self._banner_left = MAX_BANNER
        self._banner_lines_left = MAX_BANNER_LINES

    def banner(self, text: str) -> str:
        """The lines of a banner; empty once there were more than a person reads."""
        if self._banner_left <= 0 or self._banner_lines_left <= 0:
            return ""
        lines = self._lines(text, self._banner_left, self._banner_lines_left, BANNER_WIDTH)
        self._banner_left -= len(text)
        self._banner_lines_left -= len(lines)
        return "".join(f"{line}\n" for line in lines)

    def challenge(self, challenge: Challenge) -> Challenge:
        """The same questions, each line of them marked."""
        return replace(
            challenge,
            name="\n".join(self._lines(challenge.name, MAX_TITLE, MAX_LINES, QUESTION_WIDTH)),
            instruction="\n".join(
                self._lines(challenge.instruction, MAX_INSTRUCTION, MAX_LINES, QUESTION_WIDTH)
            ),
            prompts=tuple(replace(prompt, text=self._prompt(prompt)) for prompt in challenge.prompts),
        )

    def _prompt(self, prompt: Prompt) -> str:
        """People type behind its last line. A question without a text is marked as well."""
        lines = self._lines(prompt.text, MAX_PROMPT, MAX_LINES, QUESTION_WIDTH)
        return "\n".join(lines or [self._mark]) + ("\n" if prompt.text.endswith(("\n", "\r")) else "")

    def refusal(self, text: bytes) -> bytes:
        """Why it does not open a channel. Clients show it behind words of their own, and programs compare
        it, so that it is marked only where it could pass for ours."""
        shown = foreign_line(text, MAX_DISCONNECT)
        plain = shown.isascii() and PREFIX.strip(": ") not in shown.casefold()
        return shown.encode() if plain else (self._mark + shown).encode()

    def line(self, text: bytes) -> bytes:
        """Why it disconnects."""
        shown = foreign_line(text, MAX_DISCONNECT)
        return (self._mark + shown).encode()

    def _lines(self, text: str, most: int, most_lines: int, width: int) -> list[str]:
        lines: list[str] = []
        was_empty = False
        for line in text[:most].splitlines():
            # Two empty lines say no more than one, and a hundred push off the screen what was there.
            if line.strip() or not was_empty:
                lines += [self._mark + row for row in _rows(line, width - len(self._mark))]
            was_empty = not line.strip()
        if len(text) > most or len(lines) > most_lines:
            lines = [*lines[: most_lines - 1], self._mark + CUT]
        return lines


def _rows(line: str, width: int) -> Iterator[str]:
    """The line in pieces that take at most ``width`` columns; at least one."""
    row, columns = "", 0
    for letter in foreign_line(line, None):
        takes = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if columns + takes > width:
            yield row
            row, columns = "", 0
        row, columns = row + letter, columns + takes
    yield row
