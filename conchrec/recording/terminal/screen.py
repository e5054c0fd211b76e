"""The screen of a recorded terminal, as a value.

A reviewer's terminal never gets the recorded output itself, only pictures of this screen. So it does not
matter what a recording contains, how large its terminal was, or in which order it is played. It implements
what SafeOutput lets through of ECMA-48 and xterm's ctlseqs, and ignores the rest. It has no blinking, no
sizes of letters and no scrollback.

Recorded output is untrusted, so no sequence costs more than some moves of the cells of one row, or of the
list of rows: blank rows are one object that is copied when it is written to, and so are the rows of a copied
screen.
"""

from __future__ import annotations

import copy
import re

from conchrec.recording.terminal.sanitize import SafeOutput
from conchrec.recording.terminal.screen_line import ScreenLine, width

_TAB = 8
_LARGEST = 1000
LARGEST_CELLS = 100_000
"""The most cells. A larger terminal lacks its lower rows: what is written there is in the last row."""
_LARGEST_NUMBER = 9999
SEQUENCE = 8
"""The cost of one escape sequence, in letters, measured on the widest screen."""
_COMBINED = 8
"""The most combining marks of one letter."""
_PIECE = re.compile(
    "\x1b\\[(?P<private>\\??)(?P<numbers>[0-9:;]*)(?P<middle>[ -/]*)(?P<final>[@-~])"
    "|\x1b(?P<escape>[ -/]*[0-~])|(?P<control>[\x00-\x1f])"
)
_LINES = str.maketrans("`afgjklmnopqrstuvwxyz{|}~", "◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")
"""DEC's character set for drawing lines, where it differs from ASCII."""
_SLOTS = {
    "1": "bold", "2": "bold", "22": "bold", "3": "italic", "23": "italic", "4": "under", "21": "under",
    "24": "under", "5": "blink", "25": "blink", "7": "reverse", "27": "reverse", "8": "hidden",
    "28": "hidden", "9": "struck", "29": "struck", "53": "over", "55": "over", "39": "ink", "49": "paper",
    "59": "line",
    **{str(number): "ink" for number in (*range(30, 38), *range(90, 98))},
    **{str(number): "paper" for number in (*range(40, 48), *range(100, 108))},
}  # fmt: skip
"""The attribute that each number of SGR sets: of two that set the same, the later counts."""
_PLAIN = frozenset({"22", "23", "24", "25", "27", "28", "29", "39", "49", "55", "59"})
_COLOURS = {"38": "ink", "48": "paper", "58": "line"}
_LONGEST_COLOUR, _LONGEST_LOOK = 32, 4
"""The most characters of one attribute of SGR: a longer one is invalid, and would be painted for each
cell."""


class _Pen:
    """The position and the style of what is written next: what a terminal saves with its cursor."""

    def __init__(self) -> None:
        self.row = 0
        self.column = 0
        self.attributes: dict[str, str] = {}
        self.sets = ["B", "B"]
        self.shift = 0
        self.origin = False

    def copy(self) -> _Pen:
        pen = copy.copy(self)
        pen.attributes, pen.sets = self.attributes.copy(), self.sets.copy()
        return pen


class Screen:
    """The cells of a terminal. ``newline``: a line feed also returns, as for output without a terminal.
    ``work`` grows with the work that was done: about one for each letter, and ``SEQUENCE`` for each control
    or sequence."""

    def __init__(self, columns: int, rows: int, *, newline: bool = False) -> None:
        self.columns, self.rows = _clamp_size(columns, rows)
        self.work = 0
        self._owner = object()
        self._newline = newline
        self._safe = SafeOutput()
        self.lines = self._blank(self.rows)
        self._other: list[ScreenLine] = []
        self._alternate = False
        self._reset()
        self._saved = {False: _Pen(), True: _Pen()}

    def _reset(self) -> None:
        self._pen = _Pen()
        self._style = self._paper = ""
        self._top, self._bottom = 0, self.rows - 1
        self._wraps = True
        self._inserts = False
        self._last = " "
        self.cursor_shown = True

    def copy(self) -> Screen:
        """Return an independent copy."""
        other = copy.copy(self)
        other._safe = copy.copy(self._safe)
        other.lines, other._other = self.lines.copy(), self._other.copy()
        other._pen = self._pen.copy()
        other._saved = {alternate: pen.copy() for alternate, pen in self._saved.items()}
        # The rows that both show now have neither as their owner.
        self._owner, other._owner = object(), object()
        return other

    def _row(self, row: int) -> ScreenLine:
        """Return the row, as a copy that this screen may change."""
        line = self.lines[row]
        if line.owner is not self._owner:
            line = self.lines[row] = line.copy(self._owner)
        return line

    @property
    def cursor(self) -> tuple[int, int]:
        """The row and the column of the cursor, from 0."""
        return self._pen.row, min(self._pen.column, self.columns - 1)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal. What does not fit is removed, first below the cursor."""
        columns, rows = _clamp_size(columns, rows)
        above = max(0, self._pen.row - rows + 1)
        for lines in (self.lines, self._other):
            if lines:
                del lines[:above]
                del lines[rows:]
                if columns != self.columns:
                    resized: dict[int, ScreenLine] = {}
                    for number, line in enumerate(lines):
                        if id(line) not in resized:
                            resized[id(line)] = line.resized(columns)
                        lines[number] = resized[id(line)]
                lines += [ScreenLine.filled(columns)] * (rows - len(lines))
        self.work += SEQUENCE * rows
        self.columns, self.rows = columns, rows
        self._top, self._bottom = 0, rows - 1
        for pen in (self._pen, *self._saved.values()):
            pen.row = min(max(pen.row - above, 0), rows - 1)
            pen.column = min(pen.column, columns)

    def feed(self, text: str) -> None:
        """Process output; a sequence may come in parts."""
        text = self._safe.feed(text)
        position = 0
        for match in _PIECE.finditer(text):
            if position < match.start():
                self._print(text[position : match.start()])
            position = match.end()
            self.work += SEQUENCE
            if match["control"]:
                self._control(match["control"])
            elif match["escape"]:
                self._escape(match["escape"])
            else:
                self._sequence(match["private"], match["numbers"], match["middle"], match["final"])
        if position < len(text):
            self._print(text[position:])

    # -- letters

    def _print(self, text: str) -> None:
        pen = self._pen
        if pen.sets[pen.shift] == "0":
            text = text.translate(_LINES)
        self.work += len(text)
        if text.isascii() and not self._inserts:
            position = 0
            while position < len(text):
                piece = text[position : position + self._room(1)]
                position += len(piece)
                self._row(pen.row).put(pen.column, list(piece), self._style)
                pen.column += len(piece)
            self._last = text[-1]
            return
        for letter in text:
            self._put(letter)

    def _put(self, letter: str) -> None:
        cells = width(letter)
        if cells == 0:
            self._join(letter)
        elif 0 < cells <= self.columns:
            self._room(cells)
            self._fill([letter] + [""] * (cells - 1))
            self._last = letter

    def _fill(self, cells: list[str]) -> None:
        """Write cells at the cursor, in a row that has room for them."""
        pen = self._pen
        line = self._row(pen.row)
        if self._inserts:
            line.move(pen.column, len(cells), self._style)
        line.put(pen.column, cells, self._style)
        pen.column += len(cells)

    def _repeat(self, count: int) -> None:
        """Repeat the last letter, at most as many times as a row has cells."""
        cells, left = max(width(self._last), 1), min(count, self.columns)
        if cells > self.columns:
            return
        while left > 0:
            fits = min(self._room(cells) // cells, left)
            self._fill(([self._last] + [""] * (cells - 1)) * fits)
            left -= fits

    def _join(self, mark: str) -> None:
        line, at = self._row(self._pen.row), min(self._pen.column, self.columns) - 1
        if at > 0 and line.letters[at] == "":
            at -= 1
        if at >= 0 and len(line.letters[at]) <= _COMBINED:
            line.letters[at] += mark

    def _room(self, wanted: int) -> int:
        """Return how many cells are free in this row, at least ``wanted``; where needed, go to the next
        row."""
        pen = self._pen
        if pen.column + wanted > self.columns:
            if self._wraps:
                pen.column = 0
                self._down()
            else:
                pen.column = self.columns - wanted
        return self.columns - pen.column

    # -- controls

    def _control(self, letter: str) -> None:
        pen = self._pen
        if letter in "\n\x0b\x0c":
            if self._newline:
                pen.column = 0
            self._down()
        elif letter == "\r":
            pen.column = 0
        elif letter == "\b":
            pen.column = max(0, min(pen.column, self.columns - 1) - 1)
        elif letter == "\t":
            pen.column = max(pen.column, min(self.columns - 1, (pen.column // _TAB + 1) * _TAB))
        elif letter in "\x0e\x0f":
            pen.shift = 1 if letter == "\x0e" else 0

    def _down(self) -> None:
        if self._pen.row == self._bottom:
            self._scroll(self._top, 1)
        elif self._pen.row < self.rows - 1:
            self._pen.row += 1

    def _up(self) -> None:
        if self._pen.row == self._top:
            self._scroll(self._top, -1)
        elif self._pen.row > 0:
            self._pen.row -= 1

    def _scroll(self, top: int, count: int) -> None:
        """The rows from ``top`` to the lower margin go up, or down where ``count`` is negative."""
        blank = self._blank(min(abs(count), self._bottom - top + 1), self._paper)
        if count > 0:
            del self.lines[top : top + len(blank)]
            end = self._bottom + 1 - len(blank)
            self.lines[end:end] = blank
        else:
            del self.lines[self._bottom + 1 - len(blank) : self._bottom + 1]
            self.lines[top:top] = blank

    def _escape(self, escape: str) -> None:
        if escape in "78":
            self._restore() if escape == "8" else self._save()
        elif escape == "D":
            self._down()
        elif escape == "E":
            self._pen.column = 0
            self._down()
        elif escape == "M":
            self._up()
        elif escape == "#8":
            self._margins([])
            self.lines = [ScreenLine.filled(self.columns, letter="E")] * self.rows
        elif escape[0] in "()":
            self._pen.sets["()".index(escape[0])] = escape[1:]

    def _save(self) -> None:
        self._saved[self._alternate] = self._pen.copy()

    def _restore(self) -> None:
        self._pen = self._saved[self._alternate].copy()
        self._restyle()

    # -- sequences

    def _sequence(self, private: str, numbers: str, middle: str, final: str) -> None:
        if final == "m" and not private and not middle:
            self._select_rendition(numbers)
            return
        values = [min(int(number or 0), _LARGEST_NUMBER) for number in re.split("[:;]", numbers)]
        if middle:
            if final == "p":
                self._soft_reset()
        elif final in "hl":
            for mode in values:
                self._mode(mode, on=final == "h", private=bool(private))
        elif final in "JK":
            self._erase(final, values[0])
        elif final in "su":
            if not numbers:
                self._save() if final == "s" else self._restore()
        elif final == "r":
            self._margins(values)
        elif final in "@PXLMSTb":
            self._change(final, max(1, values[0]))
        else:
            self._move(final, values)

    def _soft_reset(self) -> None:
        row, column = self._pen.row, self._pen.column
        self._reset()
        self._pen.row, self._pen.column = row, column
        self._saved[self._alternate] = _Pen()

    def _mode(self, mode: int, *, on: bool, private: bool) -> None:
        if not private:
            self._inserts = on if mode == 4 else self._inserts
        elif mode == 6:
            self._pen.origin = on
            self._go(0, 0)
        elif mode == 7:
            self._wraps = on
        elif mode == 25:
            self.cursor_shown = on
        elif mode in (47, 1047, 1049):
            if on is not self._alternate:
                self._switch_screen(saves=mode == 1049, blank=mode != 47)
        elif mode == 1048:
            self._save() if on else self._restore()

    def _switch_screen(self, *, saves: bool, blank: bool) -> None:
        """Switch to the other of the two screens. The cursor stays, or returns to where it was saved."""
        if saves and not self._alternate:
            self._save()
        self._alternate = not self._alternate
        self.lines, self._other = self._other or self._blank(self.rows), self.lines
        if self._alternate and blank:
            self.lines = self._blank(self.rows, self._paper)
        if saves and not self._alternate:
            self._restore()

    def _margins(self, values: list[int]) -> None:
        top, bottom = (*values, 0, 0)[:2]
        top, bottom = max(top, 1) - 1, min(bottom or self.rows, self.rows) - 1
        if top < bottom:
            self._top, self._bottom = top, bottom
            self._go(0, 0)

    def _erase(self, final: str, what: int) -> None:
        row, column = self.cursor
        if what == 2 or (what == 0 and column == 0):
            self.lines[row : row + 1] = self._blank(1, self._paper)
        elif what == 0:
            self._row(row).put(column, [" "] * (self.columns - column), self._paper)
        elif what == 1:
            self._row(row).put(0, [" "] * (column + 1), self._paper)
        if final == "J":
            if what in (0, 2):
                self.lines[row + 1 :] = self._blank(self.rows - row - 1, self._paper)
            if what in (1, 2):
                self.lines[:row] = self._blank(row, self._paper)

    def _change(self, final: str, count: int) -> None:
        row, column = self.cursor
        if final == "@":
            self._row(row).move(column, count, self._paper)
        elif final == "P":
            self._row(row).move(column, -count, self._paper)
        elif final == "X":
            self._row(row).put(column, [" "] * min(count, self.columns - column), self._paper)
        elif final == "b":
            self._repeat(count)
        elif final in "ST":
            self._scroll(self._top, count if final == "S" else -count)
        elif self._top <= row <= self._bottom:
            self._scroll(row, count if final == "M" else -count)

    def _move(self, final: str, values: list[int]) -> None:
        row, column = self.cursor
        count = max(1, values[0])
        second = max(1, values[1]) if len(values) > 1 else 1
        if final in "AF":
            row = max(row - count, self._top if row >= self._top else 0)
        elif final in "BEe":
            row = min(row + count, self._bottom if row <= self._bottom else self.rows - 1)
        elif final in "Ca":
            column += count
        elif final == "D":
            column -= count
        elif final in "G`":
            column = count - 1
        elif final == "I":
            column = (column // _TAB + count) * _TAB
        elif final == "Z":
            column = ((column - 1) // _TAB - count + 1) * _TAB
        elif final in "Hf":
            self._go(count - 1, second - 1)
            return
        elif final == "d":
            self._go(count - 1, column)
            return
        else:
            return
        self._pen.row = row
        self._pen.column = 0 if final in "EF" else min(max(column, 0), self.columns - 1)

    def _go(self, row: int, column: int) -> None:
        top, bottom = (self._top, self._bottom) if self._pen.origin else (0, self.rows - 1)
        self._pen.row = min(top + row, bottom)
        self._pen.column = min(column, self.columns - 1)

    # -- looks

    def _select_rendition(self, numbers: str) -> None:
        """Select Graphic Rendition: colours are ``38;5;N``, ``38;2;R;G;B`` or have colons."""
        attributes = self._pen.attributes
        words = numbers.split(";")
        while words:
            word = words.pop(0)
            number, _, _ = word.partition(":")
            number = number.lstrip("0")
            if not number:
                attributes.clear()
            elif number in _COLOURS:
                if ":" not in word:
                    count = {"5": 1, "2": 3}.get(words[0] if words else "", 0)
                    word = ";".join((word, *words[: count + 1])) if count and len(words) > count else ""
                    del words[: count + 1]
                if word and len(word) <= _LONGEST_COLOUR:
                    attributes[_COLOURS[number]] = word
            elif number in _PLAIN or word == "4:0":
                attributes.pop(_SLOTS[number], None)
            elif number in _SLOTS and len(word) <= _LONGEST_LOOK:
                attributes[_SLOTS[number]] = word
        self._restyle()

    def _restyle(self) -> None:
        self._style = ";".join(self._pen.attributes.values())
        self._paper = self._pen.attributes.get("paper", "")

    def _blank(self, rows: int, style: str = "") -> list[ScreenLine]:
        return [ScreenLine.filled(self.columns, style)] * rows


def _clamp_size(columns: int, rows: int) -> tuple[int, int]:
    columns = min(max(columns, 1), _LARGEST)
    return columns, min(max(rows, 1), _LARGEST, LARGEST_CELLS // columns)
