"""A screen, painted on the terminal of whoever looks at it: only what has changed since the last time.

What is printed is made here: positions, colours and letters that can be seen. Nothing of it asks a terminal
anything, or stays when ``LEAVE`` has been printed.
"""

from __future__ import annotations

from itertools import groupby

from conchrec.recording.screen import Line, Screen

ENTER = "\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[m\x1b[2J\x1b[H"
"""Before the first picture: the other screen of the terminal, so that what is on this one stays."""
LEAVE = "\x1b[m\x1b[?7h\x1b[?25h\x1b[?1049l"
"""After the last one, whatever happened."""

_ANEW = "\x1b[m\x1b[2J"
_BLANK = "\x1b[K"


class Painter:
    """Remembers what is on the terminal, ``columns`` by ``rows`` cells."""

    def __init__(self, columns: int, rows: int) -> None:
        self._painted: list[str] = []
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Also where the terminal may show something else: the next picture is painted whole."""
        self.columns, self.rows = max(columns, 1), max(rows, 1)
        self._painted = []

    def paint(self, screen: Screen, progress: str | None = None) -> str:
        """What shows ``screen``, and ``progress`` in the last row, over what may be there.

        Of a screen that is too large there are its left columns, and the rows down to the cursor at least.
        """
        rows = self.rows - (progress is not None and screen.rows < self.rows)
        row, column = screen.cursor
        first = min(max(0, row - rows + 1), max(0, screen.rows - rows))
        wanted = [picture(line, self.columns) for line in screen.lines[first : first + rows]]
        wanted += [_BLANK] * (self.rows - len(wanted))
        if progress is not None:
            wanted[-1] = f"\x1b[7m{progress[: self.columns].ljust(self.columns)}\x1b[m"
        parts = [] if self._painted else [_ANEW]
        painted = self._painted or [_BLANK] * self.rows
        for number, (new, old) in enumerate(zip(wanted, painted, strict=True), 1):
            if new != old:
                parts.append(f"\x1b[{number};1H{new}")
        self._painted = wanted
        shown = screen.cursor_shown and row - first < self.rows and column < self.columns
        if parts or shown:
            parts.append(f"\x1b[{row - first + 1};{column + 1}H\x1b[?25h" if shown else "\x1b[?25l")
        return "".join(parts)


def picture(line: Line, columns: int) -> str:
    """One row as it is printed, from its first column on; what is blank at its end is erased."""
    letters, styles = line.letters[:columns], line.styles[:columns]
    if line.letters[columns : columns + 1] == [""]:
        letters[-1] = " "  # of a wide one there would be one half
    end = len(letters)
    while end and letters[end - 1] == " " and not styles[end - 1]:
        end -= 1
    parts: list[str] = []
    at = 0
    for style, run in groupby(styles[:end]):
        after = at + sum(1 for _ in run)
        text = "".join(letters[at:after])
        if not text.isascii():
            text = "".join(_placed(letter, at) for at, letter in enumerate(letters[at:after], at))
        parts.append(f"\x1b[{style}m{text}\x1b[m" if style else text)
        at = after
    if end < columns:
        parts.append(_BLANK)
    return "".join(parts)


def _placed(letter: str, column: int) -> str:
    """Whatever the terminal thinks of how wide a letter is, the next ones stand where they should."""
    return letter if letter and letter.isascii() else f"{letter}\x1b[{column + 2}G"


def whole(screen: Screen, columns: int) -> str:
    """All of it as lines, without the blank ones at the end."""
    lines = [picture(line, columns) for line in screen.lines]
    while lines and lines[-1] == _BLANK:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)
