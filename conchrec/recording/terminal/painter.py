"""Paints a screen on the reviewer's terminal: only what has changed since the last time.

The output is made here: positions, colours and printable letters. None of it queries a terminal, or stays
after ``LEAVE`` was printed.

A screen can be such that its picture has megabytes: one frame paints ``MOST`` characters or a little more,
and the next frame continues with the rows after it.
"""

from __future__ import annotations

from itertools import groupby

from conchrec.recording.terminal.screen import Screen
from conchrec.recording.terminal.screen_line import ScreenLine

ENTER = "\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[m\x1b[2J\x1b[H"
"""Printed before the first picture: switches to the alternate screen, so that the other one stays."""
LEAVE = "\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Printed after the last picture, also after an error."""

MOST = 64 * 1024
"""The characters and cells after which a frame ends; the remaining rows come with the next one."""
MOST_WHOLE = 256 * 1024
"""The most characters of a whole screen."""
LARGEST = (1000, 300)
"""The most columns and rows of the viewer's terminal that are painted."""

_CLEAR = "\x1b[m\x1b[2J"
_BLANK = "\x1b[K"


class Painter:
    """Remembers what is on the terminal, ``columns`` by ``rows`` cells."""

    def __init__(self, columns: int, rows: int) -> None:
        #: The pictures of the rows on the terminal; empty where its contents are not known.
        self._painted: list[str] = []
        #: The next row, how many are left, and the state of the screen when the first was painted.
        self._next = self._left = 0
        self._painting: tuple[Screen | None, int] = (None, 0)
        #: Rows are left for the next frame.
        self.behind = False
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size. Also called where the terminal may show something else: the next picture is painted
        completely."""
        self.columns = min(max(columns, 1), LARGEST[0])
        self.rows = min(max(rows, 1), LARGEST[1])
        self._painted = []
        self.behind = False
        self._next = 0

    def paint(self, screen: Screen, progress: str | None = None) -> str:
        """Return what shows ``screen``, and ``progress`` in the last row over its contents.

        Of a screen that is too large, the left columns are shown, and the rows up to the one with the cursor.
        """
        rows = self.rows - (progress is not None and screen.rows < self.rows)
        row, column = screen.cursor
        first = min(max(0, row - rows + 1), max(0, screen.rows - rows))
        lines = screen.lines[first : first + rows]
        parts: list[str] = []
        if not self._painted:
            parts.append(_CLEAR)
            self._painted = [_BLANK] * self.rows
        if progress is not None:
            self._row(self.rows - 1, f"\x1b[7m{progress[: self.columns].ljust(self.columns)}\x1b[m", parts)
        if not self.behind:
            self._begin(screen)
        size = 0
        while self._left and size <= MOST:
            number, self._left = self._next, self._left - 1
            self._next = (number + 1) % self.rows
            if progress is None or number < self.rows - 1:
                row_picture = picture(lines[number], self.columns) if number < len(lines) else _BLANK
                self._row(number, row_picture, parts)
                size += len(row_picture) + self.columns
        self.behind = bool(self._left)
        if not self.behind and self._painting != (screen, screen.work):
            # Rows that were painted have changed since.
            self._begin(screen)
            self.behind = True
        shown = screen.cursor_shown and row - first < self.rows and column < self.columns
        if parts or shown:
            parts.append(f"\x1b[{row - first + 1};{column + 1}H\x1b[?25h" if shown else "\x1b[?25l")
        return "".join(parts)

    def _begin(self, screen: Screen) -> None:
        """Start to check every row once."""
        self._left = self.rows
        self._painting = (screen, screen.work)

    def _row(self, number: int, row_picture: str, parts: list[str]) -> None:
        if row_picture != self._painted[number]:
            parts.append(f"\x1b[{number + 1};1H{row_picture}")
            self._painted[number] = row_picture


def picture(line: ScreenLine, columns: int) -> str:
    """Return one row as it is printed, from its first column; blanks at its end are erased."""
    letters, styles = line.letters[:columns], line.styles[:columns]
    if line.letters[columns : columns + 1] == [""]:
        letters[-1] = " "  # half of a wide letter would be cut off
    end = len(letters)
    while end and letters[end - 1] == " " and not styles[end - 1]:
        end -= 1
    parts: list[str] = []
    at = 0
    for style, run in groupby(styles[:end]):
        after = at + sum(1 for _ in run)
        text = "".join(letters[at:after])
        if not text.isascii():
            text = "".join(_position_after(letter, at) for at, letter in enumerate(letters[at:after], at))
        parts.append(f"\x1b[{style}m{text}\x1b[m" if style else text)
        at = after
    if end < columns:
        parts.append(_BLANK)
    return "".join(parts)


def _position_after(letter: str, column: int) -> str:
    """Return the letter, and for other letters than ASCII the position of the next one: terminals differ in
    their widths."""
    return letter if letter and letter.isascii() else f"{letter}\x1b[{column + 2}G"


def render_lines(screen: Screen, columns: int) -> str:
    """Return the screen as lines, without blank ones at the end; only the upper ones where there are too many
    styles."""
    lines: list[str] = []
    size = 0
    for line in screen.lines:
        lines.append(picture(line, columns))
        size += len(lines[-1])
        if size > MOST_WHOLE:
            break
    while lines and lines[-1] == _BLANK:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)
