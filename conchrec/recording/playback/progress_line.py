"""The line below the picture that shows the position in the recording, its speed and its markers."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

from conchrec.recording.playback.outline import Outline
from conchrec.recording.terminal.screen_line import width
from conchrec.text import escape

_LONGEST_NAME = 40
_BAR = 20


class ProgressLine:
    """The progress line of one recording."""

    def __init__(self, outline: Outline) -> None:
        self._outline = outline

    def text(self, state: str, time: float, speed: float, *, notice: str = "") -> str:
        """Return the line. ``state`` is a word, ``notice`` stands at the end."""
        outline = self._outline
        parts = [
            state,
            f"{format_clock(time)} / {format_clock(outline.duration)}",
            f"{speed:g}x",
            self._bar(time),
        ]
        passed = bisect_right(outline.times, time)
        if outline.markers:
            parts.append(f"marker {passed}/{len(outline.markers)}")
            if passed:
                parts[-1] += f" {_one_cell_letters(outline.markers[passed - 1][1][:_LONGEST_NAME])}"
        if notice:
            parts.append(notice)
        return " " + "  ".join(parts)

    def _bar(self, time: float) -> str:
        """Return the progress bar, ``[====>---|---]``, with the markers."""
        if not self._outline.duration:
            return "[" + "=" * _BAR + "]"

        cells = ["="] * self._cell(time) + [">"] + ["-"] * (_BAR - 1 - self._cell(time))
        for cell in self._marked:
            cells[cell] = "|"
        return f"[{''.join(cells)}]"

    @cached_property
    def _marked(self) -> frozenset[int]:
        """The cells of the progress bar that have a marker."""
        return frozenset(self._cell(time) for time in self._outline.times)

    def _cell(self, time: float) -> int:
        """Return the cell of the progress bar for this time."""
        return min(int(time / self._outline.duration * _BAR), _BAR - 1)


def format_clock(seconds: float) -> str:
    """Return a time as ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _one_cell_letters(text: str) -> str:
    """Return the text with a question mark for each letter that is not one cell wide."""
    return "".join(letter if width(letter) == 1 else "?" for letter in escape(text))
