"""A recording, played: keys and the time in, pictures and the time of the next one out.

Knows no terminal and no clock; whoever has them calls ``advance`` in turns, each of which is short whatever
is asked: a long way through a recording is gone in steps. Going back begins at the nearest of the screens
that were kept on the way.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.format.asciicast import MARKER, OUTPUT, RESIZE, Damaged, Event, Header
from conchrec.recording.playback.frame import Frame
from conchrec.recording.terminal.painter import Painter, whole
from conchrec.recording.terminal.screen import Screen
from conchrec.recording.terminal.screen_line import width
from conchrec.text import escape

FRAME_SECONDS = 1 / 25
"""No picture sooner after the one before."""
SHOWN_SECONDS = 3.0
"""How long the progress line lies over the picture after a key, where there is no room beside it."""

STEP = 32 * 1024
"""How much of a screen's ``work`` one turn does: some hundredths of a second."""
_EVENT = 64
"""The cost of an event in addition to its characters."""
PIECE = 2 * 1024
"""Characters of output that are shown without a look at what is left of the turn."""
_PASSED = 512 * 1024
"""Characters, and ``_EVENT`` for each event, that one turn passes by, or looks over."""
MOST_MARKERS = 10_000
"""The most markers of one recording; later ones are not shown."""
_KEPT_EVERY = 1024 * 1024
_KEPT_CELLS = 250_000
"""Of all the screens that are kept; 16 bytes each."""
_FASTEST, _SLOWEST = 64.0, 1 / 16
_JUMP, _LEAP = 5.0, 60.0
_BACK = 1.0
"""Seconds after a marker in which the key for the one before does not mean this one."""
_LONGEST_NAME = 40
_TICK = 0.5
_BAR = 20

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")
_LINE = re.compile(rb'\s*\[\s*([0-9.eE+-]+)\s*,\s*"(.)"')
_KEY = re.compile("\x1b[\\[O]([0-9;]{0,8})([A-Za-z~])|([^\x1b])|\x1b(?:[\\[O][0-9;]{0,8})?")
_BEGINNING = re.compile("\x1b(?:[\\[O][0-9;]{0,8})?\\Z")
_NAMES = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "1~": "home", "7~": "home",
    "4~": "end", "8~": "end", "5~": "page up", "6~": "page down",
}  # fmt: skip


class KeyDecoder:
    """What is typed at a terminal, as keys: ``q``, ``left``, ``page up``. A sequence may come in parts."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, typed: str) -> list[str]:
        typed, self._held = self._held + typed, ""
        found: list[str] = []
        if beginning := _BEGINNING.search(typed):
            typed, self._held = typed[: beginning.start()], beginning.group()
        for numbers, final, letter in _KEY.findall(typed):
            if letter:
                found.append(letter)
            elif name := _NAMES.get(numbers + final if final == "~" else final):
                found.append(name)
        return found


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What one look over a recording says. ``duration`` is the time of the last event; ``markers`` are in
    order; ``newline`` as of a Screen."""

    columns: int
    rows: int
    newline: bool
    duration: float
    markers: tuple[tuple[float, str], ...] = ()

    @cached_property
    def times(self) -> list[float]:
        """The times of the markers."""
        return [time for time, _ in self.markers]

    @cached_property
    def marked(self) -> frozenset[int]:
        """The cells of the progress bar with a marker."""
        return frozenset(self.cell(time) for time in self.times)

    def cell(self, time: float) -> int:
        """The cell of the progress bar for this time."""
        return min(int(time / self.duration * _BAR), _BAR - 1) if self.duration else 0


class OutlineReader:
    """Looks over a recording, in steps: whole lines, the header first. What is damaged ends it."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._header: Header | None = None
        self._duration = 0.0
        self._markers: list[tuple[float, str]] = []

    def read(self) -> Outline | None:
        """One step; None where there is more to be read. Raises Damaged where there is no header."""
        left = _PASSED
        for line in self._lines:
            left -= len(line) + _EVENT
            if self._header is None:
                self._header = Header.parse(line)
            elif not self._event(line):
                break
            if left <= 0:
                return None
        if self._header is None:
            raise Damaged("there is nothing to play yet", code=ReasonCode.RECORDING_EMPTY)
        return Outline(
            columns=self._header.width,
            rows=self._header.height,
            newline=not self._header.env.get("TERM"),
            duration=self._duration,
            markers=tuple(self._markers),
        )

    def _event(self, line: bytes) -> bool:
        """Read one event; false where the line is not a valid one."""
        found = _LINE.match(line)
        try:
            if found is None:
                return False
            self._duration = max(self._duration, float(found[1]))
            if found[2] == MARKER.encode() and len(self._markers) < MOST_MARKERS:
                self._markers.append((self._duration, Event.parse(line).text))
        except (Damaged, ValueError):
            return False
        return True


def pieces(events: Iterable[Event]) -> Iterator[Event]:
    """The same, in which no output is longer than a PIECE."""
    for event in events:
        if event.code != OUTPUT or len(event.text) <= PIECE:
            yield event
            continue
        for start in range(0, len(event.text), PIECE):
            yield Event(time=event.time, code=OUTPUT, text=event.text[start : start + PIECE])


@dataclass(frozen=True, slots=True)
class _Kept:
    """The screen after so many events."""

    index: int
    time: float
    screen: Screen


class Player:
    """One playing of one recording. ``events`` begins it again each time; ``idle`` is the longest pause, in
    seconds. ``problem`` says what of it cannot be read, if anything."""

    def __init__(
        self,
        about: Outline,
        events: Callable[[], Iterator[Event]],
        *,
        speed: float = 1.0,
        idle: float | None = None,
        size: tuple[int, int] = (80, 24),
    ) -> None:
        self.problem = ""
        self._about = about
        self._read_events = events
        self._speed = speed
        self._idle = idle
        self._keys = KeyDecoder()
        self._painter = Painter(*size)
        self._screen = Screen(about.columns, about.rows, newline=about.newline)
        self._kept = [_Kept(0, 0.0, self._screen.copy())]
        self._every = _KEPT_EVERY
        self._fed = 0
        self._events = self._open()
        self._next: Event | None = None
        #: How many events the screen has seen, and how many more are to be passed by before the next.
        self._index = 0
        self._skip = 0
        #: The time in the recording that is shown, and the caller's time since which that is so.
        self._position = 0.0
        self._since: float | None = None
        self._paused = False
        self._stepping = False
        self._goal: float | None = None
        self._over = False
        self._shown_until = 0.0

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """``now`` is in seconds of any clock that does not go back, ``keys`` what was typed since the last
        time, ``size`` the terminal's columns and rows where it has another size now."""
        if self._since is None:
            self._since = now
            self._fill()
            if self._too_large():
                self._shown_until = now + SHOWN_SECONDS
        if size is not None:
            self._painter.resize(*size)
        for key in self._keys.feed(keys):
            self._shown_until = now + SHOWN_SECONDS
            self._press(key, now)
        left = STEP
        if self._skip:
            self._pass_by()
        elif self._goal is not None or self._stepping:
            left = self._seek(now, left)
        elif not self._paused:
            left = self._play(now, left)
        return self._frame(now, more=left <= 0 or self._goal is not None)

    def picture(self) -> str:
        """What is on the screen, as lines."""
        return whole(self._screen, self._painter.columns)

    def _open(self) -> Iterator[Event]:
        return pieces(self._read_events())

    # -- keys

    def _press(self, key: str, now: float) -> None:
        here = self._here(now)
        if key in ("q", "Q", "\x03", "\x04"):
            self._over = True
        elif key == " ":
            if self._paused and self._next is None and self._goal is None:
                self._to(0.0)
            self._pause(not self._paused, now)
        elif key == "." and self._goal is None:
            self._pause(True, now)
            self._stepping = True
        elif key in ("+", "=", "-"):
            self._pause(self._paused, now)
            factor = 0.5 if key == "-" else 2.0
            self._speed = min(max(self._speed * factor, _SLOWEST), _FASTEST)
        elif key in ("left", "right"):
            self._to(here + (_JUMP if key == "right" else -_JUMP))
        elif key in ("page up", "page down"):
            self._to(here + (_LEAP if key == "page down" else -_LEAP))
        elif key in ("home", "end"):
            self._to(self._about.duration if key == "end" else 0.0)
        elif key in "0123456789":
            self._to(self._about.duration * int(key) / 10)
        elif key == "]":
            self._to(self._marker_after(here))
        elif key == "[":
            self._to(self._marker_before(here - _BACK))

    def _marker_after(self, here: float) -> float:
        times = self._about.times
        at = bisect_right(times, here)
        return times[at] if at < len(times) else here

    def _marker_before(self, here: float) -> float:
        at = bisect_left(self._about.times, here)
        return self._about.times[at - 1] if at else 0.0

    def _pause(self, paused: bool, now: float) -> None:
        if self._goal is None:
            self._position, self._since = self._here(now), now
        self._paused = paused

    def _here(self, now: float) -> float:
        """The time in the recording; while it is sought, the one that is sought."""
        if self._goal is not None:
            return self._goal
        if self._paused or self._next is None:
            return self._position
        return min(self._position + (now - (self._since or 0.0)) * self._speed, self._next.time)

    # -- the way through the recording

    def _to(self, time: float) -> None:
        """Go there, in this turn and the next ones."""
        self._goal = goal = min(max(time, 0.0), self._about.duration)
        self._stepping = False
        kept = next(kept for kept in reversed(self._kept) if kept.time <= goal)
        if goal < self._position or self._skip or kept.index > self._index:
            self._screen = kept.screen.copy()
            self._events, self._next = self._open(), None
            self._index, self._skip, self._position = kept.index, kept.index, kept.time
            self._fed = 0
            if not self._skip:
                self._fill()

    def _pass_by(self) -> None:
        """What the screen that was kept has seen."""
        left = _PASSED
        while self._skip and left > 0:
            self._fill()
            self._skip -= 1
            left -= _EVENT + (len(self._next.text) if self._next is not None else 0)
        if not self._skip:
            self._fill()

    def _fill(self) -> None:
        try:
            self._next = next(self._events, None)
        except (RecordingError, OSError) as error:
            self._next, self.problem = None, str(error)

    def _seek(self, now: float, left: int) -> int:
        """As far as ``left`` leads; what is left of it."""
        while (event := self._next) is not None and (self._goal is None or event.time <= self._goal):
            if left <= 0:
                return left
            left -= self._apply(event)
            if self._stepping and event.code == OUTPUT:
                break
        if self._goal is not None:
            self._position = self._goal
        self._stepping, self._goal, self._since = False, None, now
        # At the end there is something to look at: it is not over because somebody went there.
        self._paused = self._paused or self._next is None
        return left

    def _play(self, now: float, left: int) -> int:
        while left > 0 and self._next is not None and (due := self._due()) <= now:
            left -= self._apply(self._next)
            self._since = due
        if self._next is None:
            self._over = True
        return left

    def _due(self) -> float:
        """When the next event is to be shown, in the caller's time."""
        assert self._next is not None
        pause = max(self._next.time - self._position, 0.0)
        pause = pause if self._idle is None else min(pause, self._idle)
        return (self._since or 0.0) + pause / self._speed

    def _apply(self, event: Event) -> int:
        """The screen has seen it; the work that it has made."""
        before = self._screen.work
        if event.code == OUTPUT:
            self._screen.feed(event.text)
        elif event.code == RESIZE:
            resized(self._screen, event.text)
        self._position = max(self._position, event.time)
        self._index += 1
        self._fed += len(event.text)
        if self._fed >= self._every and self._index > self._kept[-1].index:
            self._keep()
        self._fill()
        return self._screen.work - before + _EVENT

    def _keep(self) -> None:
        self._fed = 0
        self._kept.append(_Kept(self._index, self._position, self._screen.copy()))
        if len(self._kept) > 2 and len(self._kept) * self._cells() > _KEPT_CELLS:
            del self._kept[1::2]
            self._every *= 2

    def _cells(self) -> int:
        return self._screen.columns * self._screen.rows

    # -- what is seen

    def _frame(self, now: float, *, more: bool) -> Frame:
        if self._over:
            text = self._painter.paint(self._screen)
            return Frame(text=text, wake=0.0 if self._painter.behind else None, over=not self._painter.behind)
        waits = [0.0] if more else []
        if not more and not self._paused and self._next is not None:
            waits.append(max(self._due() - now, FRAME_SECONDS))
        progress = None
        if self._painter.rows > self._screen.rows or self._paused or more or now < self._shown_until:
            progress = self._progress(now)
            if not self._paused:
                waits.append(_TICK)
        text = self._painter.paint(self._screen, progress)
        if self._painter.behind:
            waits.append(FRAME_SECONDS)
        return Frame(text=text, wake=min(waits, default=None))

    def _too_large(self) -> bool:
        return self._about.columns > self._painter.columns or self._about.rows > self._painter.rows

    def _progress(self, now: float) -> str:
        about, here = self._about, self._here(now)
        parts = [
            "seeking" if self._goal is not None else "paused" if self._paused else "playing",
            f"{clock(here)} / {clock(about.duration)}",
            f"{self._speed:g}x",
            _bar(here, about),
        ]
        passed = bisect_right(about.times, here)
        if about.markers:
            parts.append(f"marker {passed}/{len(about.markers)}")
            if passed:
                parts[-1] += f" {_plain(about.markers[passed - 1][1][:_LONGEST_NAME])}"
        if self._too_large():
            parts.append(f"{self._screen.columns}x{self._screen.rows} is larger than this terminal")
        return " " + "  ".join(parts)


def resized(screen: Screen, text: str) -> None:
    """``120x40``, as a cast has it."""
    if size := _SIZE.fullmatch(text):
        screen.resize(int(size[1]), int(size[2]))


def clock(seconds: float) -> str:
    """``0:07``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(here: float, about: Outline) -> str:
    """``[====>---|---]``, with the markers."""
    if not about.duration:
        return "[" + "=" * _BAR + "]"

    cells = ["="] * about.cell(here) + [">"] + ["-"] * (_BAR - 1 - about.cell(here))
    for cell in about.marked:
        cells[cell] = "|"
    return f"[{''.join(cells)}]"


def _plain(text: str) -> str:
    """In which each letter is one cell."""
    return "".join(letter if width(letter) == 1 else "?" for letter in escape(text))
