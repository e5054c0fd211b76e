"""The outline of a recording: its size, its duration and its markers. One pass over its lines finds them."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from conchrec.reasons import ReasonCode
from conchrec.recording.format.asciicast import MARKER, Damaged, Event, Header
from conchrec.recording.playback.step_costs import EVENT_COST, SKIP_COST

MOST_MARKERS = 10_000
"""The most markers of one recording; later ones are not shown."""

_LINE = re.compile(rb'\s*\[\s*([0-9.eE+-]+)\s*,\s*"(.)"')


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What one pass over a recording shows. ``duration`` is the time of the last event; ``markers`` are in
    order; ``newline`` is that of a Screen."""

    columns: int
    rows: int
    newline: bool
    duration: float
    markers: tuple[tuple[float, str], ...] = ()

    @cached_property
    def times(self) -> list[float]:
        """The times of the markers."""
        return [time for time, _ in self.markers]

    def marker_after(self, time: float) -> float:
        """Return the time of the next marker; ``time`` itself after the last one."""
        at = bisect_right(self.times, time)
        return self.times[at] if at < len(self.times) else time

    def marker_before(self, time: float) -> float:
        """Return the time of the last marker before ``time``; 0 before the first one."""
        at = bisect_left(self.times, time)
        return self.times[at - 1] if at else 0.0


class OutlineReader:
    """Reads the outline of a recording in steps, from its complete lines, the header first. It ends at a
    damaged line."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._header: Header | None = None
        self._duration = 0.0
        self._markers: list[tuple[float, str]] = []

    def read(self) -> Outline | None:
        """Do one step. Returns None where there is more to read. Raises Damaged where there is no header."""
        left = SKIP_COST
        for line in self._lines:
            left -= len(line) + EVENT_COST
            if self._header is None:
                self._header = Header.parse(line)
            elif not self._event(line):
                break
            if left <= 0:
                return None
        if self._header is None:
            raise Damaged("the recording is still empty: try again later", code=ReasonCode.RECORDING_EMPTY)
        return Outline(
            columns=self._header.width,
            rows=self._header.height,
            newline=not self._header.env.get("TERM"),
            duration=self._duration,
            markers=tuple(self._markers),
        )

    def _event(self, line: bytes) -> bool:
        """Read one event. Returns whether the line is valid."""
        match = _LINE.match(line)
        try:
            if match is None:
                return False
            self._duration = max(self._duration, float(match[1]))
            if match[2] == MARKER.encode() and len(self._markers) < MOST_MARKERS:
                self._markers.append((self._duration, Event.parse(line).text))
        except (Damaged, ValueError):
            return False
        return True
