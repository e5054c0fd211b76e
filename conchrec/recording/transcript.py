"""Recorded output as plain lines: what a person would have read, without the terminal.

Within a line it does what a terminal does (carriage return, backspace, the few sequences of line
editing), so that a corrected command is there once and corrected. It is no screen: a full-screen
program comes out as its pieces of text, one after the other.
"""

from __future__ import annotations

import re

from conchrec.recording.replay import SafeOutput

_WIDEST = 4096
"""Columns that a sequence may move to; a line that is longer is broken there."""
_TAB = 8
_PIECE = re.compile(
    "\x1b\\[(?P<private>[<-?]?)(?P<numbers>[0-9:;]*)[ -/]*(?P<final>[@-~])"
    "|\x1b[ -/]*[0-~]|(?P<control>[\x00-\x1f])"
)


class Transcript:
    """Reads one stream; what is not yet a whole line is kept until ``end``."""

    def __init__(self) -> None:
        self._safe = SafeOutput()
        self._line: list[str] = []
        self._column = 0

    @property
    def line(self) -> str:
        """The line that is not yet whole."""
        return "".join(self._line)

    @property
    def column(self) -> int:
        """Where in it the cursor is."""
        return self._column

    def feed(self, text: str) -> str:
        """The lines that this completes, each with its newline, safe to print."""
        text = self._safe.feed(text)
        lines: list[str] = []
        position = 0
        for found in _PIECE.finditer(text):
            self._write(text[position : found.start()], lines)
            position = found.end()
            if found["control"]:
                self._control(found["control"], lines)
            elif found["final"] and not found["private"]:
                self._sequence(found["final"], found["numbers"], lines)
        self._write(text[position:], lines)
        return "".join(lines)

    def end(self) -> str:
        """What is left, as a line."""
        lines: list[str] = []
        if self._line:
            self._break(lines)
        return "".join(lines)

    def _write(self, text: str, lines: list[str]) -> None:
        for letter in text:
            if self._column >= _WIDEST:
                self._break(lines)
            if self._column < len(self._line):
                self._line[self._column] = letter
            else:
                self._line += " " * (self._column - len(self._line)) + letter
            self._column += 1

    def _control(self, letter: str, lines: list[str]) -> None:
        if letter in "\n\x0b\x0c":
            self._break(lines)
        elif letter == "\r":
            self._column = 0
        elif letter == "\b":
            self._column = max(0, self._column - 1)
        elif letter == "\t":
            self._column = min(_WIDEST, (self._column // _TAB + 1) * _TAB)

    def _sequence(self, final: str, numbers: str, lines: list[str]) -> None:
        first = re.split("[;:]", numbers)[0]
        number = min(int(first[:6] or 0), _WIDEST)
        count = max(1, number)
        here = self._column
        if final == "K":
            if number == 0:
                del self._line[here:]
            elif number == 1:
                self._line[: here + 1] = " " * min(here + 1, len(self._line))
            else:
                self._line.clear()
        elif final == "C":
            self._column = min(_WIDEST, here + count)
        elif final == "D":
            self._column = max(0, here - count)
        elif final == "G":
            self._column = count - 1
        elif final == "P":
            del self._line[here : here + count]
        elif final == "@" and here < len(self._line):
            self._line[here:here] = " " * count
            del self._line[_WIDEST:]
        elif final in "ABEFHfd" or (final == "J" and number != 0):
            if self._line:
                self._break(lines)
            self._column = 0

    def _break(self, lines: list[str]) -> None:
        lines.append(_shown("".join(self._line).rstrip(" ")) + "\n")
        self._line.clear()
        self._column = 0


def _shown(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
