"""One row of a terminal's screen, and the number of cells that a letter takes."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


@lru_cache(maxsize=4096)
def width(letter: str) -> int:
    """Return the width in cells: 0 joins the letter before, -1 cannot be shown."""
    kind = unicodedata.category(letter)
    if kind in ("Mn", "Me") or letter == "\N{ZERO WIDTH JOINER}":
        return 0
    if kind in ("Cf", "Cc", "Cs", "Zl", "Zp"):
        return -1
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


class ScreenLine:
    """One row: a letter for each cell, and its style as the numbers of SGR. The second cell of a wide letter
    is empty. Only the screen that owns it may change it: others may show the same object."""

    __slots__ = ("letters", "owner", "styles")

    def __init__(self, letters: list[str], styles: list[str], owner: object = None) -> None:
        self.letters = letters
        self.styles = styles
        self.owner = owner

    @classmethod
    def filled(cls, columns: int, style: str = "", letter: str = " ") -> ScreenLine:
        """Return a row with the same letter in every cell."""
        return cls([letter] * columns, [style] * columns)

    def copy(self, owner: object) -> ScreenLine:
        """Return a copy for another owner."""
        return ScreenLine(self.letters.copy(), self.styles.copy(), owner)

    def put(self, start: int, letters: list[str], style: str) -> None:
        """Write ``letters`` at ``start``. A wide letter that is partly overwritten is removed."""
        end = start + len(letters)
        self._cut(start)
        self._cut(end)
        self.letters[start:end] = letters
        self.styles[start:end] = [style] * len(letters)

    def move(self, start: int, count: int, style: str) -> None:
        """Move the cells from ``start`` on to the right; to the left where ``count`` is negative."""
        columns = len(self.letters)
        size = min(abs(count), columns - start)
        self._cut(start)
        self._cut(columns - size if count > 0 else start + size)
        for cells, blank in ((self.letters, " "), (self.styles, style)):
            if count > 0:
                cells[start:start] = [blank] * size
                del cells[columns:]
            else:
                del cells[start : start + size]
                cells += [blank] * size

    def resized(self, columns: int) -> ScreenLine:
        """Return a copy of this width, which has no owner."""
        line = self.copy(None)
        line._cut(columns)
        more = columns - len(line.letters)
        del line.letters[columns:], line.styles[columns:]
        line.letters += [" "] * more
        line.styles += [""] * more
        return line

    def _cut(self, at: int) -> None:
        """Remove a wide letter that stands on both sides of ``at``."""
        if 0 < at < len(self.letters) and self.letters[at] == "":
            self.letters[at - 1 : at + 1] = "  "
