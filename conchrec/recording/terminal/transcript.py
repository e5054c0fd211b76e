"""Recorded output as plain lines: what a person would have read, without the terminal.

Within a line it does what a terminal does (carriage return, backspace, the few sequences of line editing), so
that a corrected command appears once and corrected. It is not a screen: the output of a full-screen program
becomes its pieces of text, one after the other.

Output is untrusted: a few bytes can request thousands of blank cells (``ESC [ 4000 G``). Each cell that a
sequence makes or rewrites is paid from an allowance that grows with the output, so the work, and the text
that is produced, stay within a constant factor of the input. Without allowance a gap becomes one blank.
"""

from __future__ import annotations

import re
from functools import lru_cache

from conchrec.recording.terminal.sanitize import SafeOutput
from conchrec.text import escape

WIDEST = 4096
"""The last column that a sequence may move to; a longer line is broken there."""
CELLS_PER_LETTER = 8
"""The cells that sequences may make or rewrite for each character that is read (a tab makes as many)."""
FREE_CELLS = 4096
"""The allowance at the beginning."""
_MOST_CELLS = 16 * 1024
"""The largest allowance."""
_TAB = 8
_FIRST_NUMBER = re.compile("[0-9]{1,6}")
_PIECE = re.compile(
    "\x1b\\[(?P<private>[<-?]?)(?P<numbers>[0-9:;]*)[ -/]*(?P<final>[@-~])"
    "|\x1b[ -/]*[0-~]|(?P<control>[\x00-\x1f])"
)


class _EarlierLetter(str):
    """A cell that was drawn before ``mark``."""

    __slots__ = ()


@lru_cache(maxsize=1024)
def _earlier(letter: str) -> _EarlierLetter:
    """The cell for a letter; the same one for all cells with it, because of its size."""
    return _EarlierLetter(letter)


class Transcript:
    """Reads one stream. An incomplete line is kept until ``end``.

    ``work`` counts the cells that were written, made or rewritten so far.
    """

    def __init__(self) -> None:
        self._safe = SafeOutput()
        self._line: list[str] = []
        self._column = 0
        self._allowance = FREE_CELLS
        self.work = 0

    @property
    def column(self) -> int:
        """The column of the cursor in the incomplete line, from 0."""
        return self._column

    def letters(self, start: int, count: int) -> str:
        """Return at most ``count`` letters of the incomplete line, from the column ``start`` on."""
        return "".join(self._line[start : start + count])

    def mark(self) -> None:
        """From now on, ``new_letters`` returns what is drawn right of the cursor. A letter that is drawn over
        the same letter is new, too."""
        here = self._column
        if here < len(self._line):
            self._line[here:] = [
                letter if type(letter) is _EarlierLetter else _earlier(letter)
                for letter in self._line[here:]
            ]

    def new_letters(self, start: int, count: int) -> str:
        """Return at most ``count`` letters of the incomplete line, from the column ``start`` on, up to the
        first one that was drawn before ``mark``. ``start`` is not left of the cursor of then."""
        cells = self._line[start : start + count]
        for number, letter in enumerate(cells):
            if type(letter) is _EarlierLetter:
                del cells[number:]
                break
        return "".join(cells)

    def feed(self, text: str) -> str:
        """Return the lines that this text completes, each with its newline, safe to print."""
        text = self._safe.feed(text)
        lines: list[str] = []
        position = 0
        for piece in _PIECE.finditer(text):
            if position < piece.start():
                self._write(text[position : piece.start()], lines)
            position = piece.end()
            private, numbers, final, control = piece.groups()
            if control:
                self._control(control, lines)
            elif final and not private:
                self._sequence(final, numbers, lines)
            self._earn(position - piece.start())
        if position < len(text):
            self._write(text[position:], lines)
        return "".join(lines)

    def end(self) -> str:
        """Return the incomplete line."""
        lines: list[str] = []
        if self._line:
            self._break(lines)
        return "".join(lines)

    def _write(self, text: str, lines: list[str]) -> None:
        position = 0
        while position < len(text):
            if self._column >= WIDEST:
                self._break(lines)
            gap = self._column - len(self._line)
            if gap > 0:
                self._line += " " * self._pay(gap)
                self._column = len(self._line)
            piece = text[position : position + WIDEST - self._column]
            position += len(piece)
            self._line[self._column : self._column + len(piece)] = piece
            self._column += len(piece)
        self.work += len(text)
        self._earn(len(text))

    def _earn(self, letters: int) -> None:
        # After the letters were processed, so that the result does not depend on the parts in which they
        # come.
        self._allowance = min(self._allowance + CELLS_PER_LETTER * letters, _MOST_CELLS)

    def _pay(self, cells: int) -> int:
        """Return how many of these cells a sequence may make or rewrite: all of them, or one."""
        if cells > self._allowance:
            cells = 1
        self._allowance = max(self._allowance - cells, 0)
        self.work += cells
        return cells

    def _control(self, letter: str, lines: list[str]) -> None:
        if letter in "\n\x0b\x0c":
            self._break(lines)
        elif letter == "\r":
            self._column = 0
        elif letter == "\b":
            self._column = max(0, self._column - 1)
        elif letter == "\t":
            self._column = min(WIDEST, (self._column // _TAB + 1) * _TAB)

    def _sequence(self, final: str, numbers: str, lines: list[str]) -> None:
        digits = _FIRST_NUMBER.match(numbers)
        number = min(int(digits[0]), WIDEST) if digits else 0
        count = max(1, number)
        here = self._column
        if final == "K":
            if number == 0:
                del self._line[here:]
            elif number == 1:
                self._erase_left(lines)
            else:
                self._line.clear()
        elif final == "C":
            self._column = min(WIDEST, here + count)
        elif final == "D":
            self._column = max(0, here - count)
        elif final == "G":
            self._column = count - 1
        elif final == "P":
            del self._line[here : here + count]
        elif final == "@" and here < len(self._line):
            self._line[here:here] = " " * self._pay(count)
            del self._line[WIDEST:]
        elif final in "ABEFHfd" or (final == "J" and number != 0):
            if self._line:
                self._break(lines)
            self._column = 0

    def _erase_left(self, lines: list[str]) -> None:
        """Blank the line up to the cursor. Where that is too much work, the line ends and a new one
        begins."""
        count = min(self._column + 1, len(self._line))
        if count <= self._allowance:
            self._line[:count] = " " * self._pay(count)
        else:
            self._break(lines)

    def _break(self, lines: list[str]) -> None:
        lines.append(escape("".join(self._line).rstrip(" ")) + "\n")
        self._line.clear()
        self._column = 0
