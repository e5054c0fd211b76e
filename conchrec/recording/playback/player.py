"""Plays a recording: keys and the time go in, pictures and the time of the next one come out.

It knows no terminal and no clock. A caller that has them calls ``advance`` again and again. Each call is
short: a jump to a distant time is done in steps. A jump back starts at the nearest snapshot of the screen.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from conchrec.errors import RecordingError, error_text
from conchrec.reasons import ReasonCode
from conchrec.recording.format.asciicast import MARKER, OUTPUT, RESIZE, Damaged, Event, Header
from conchrec.recording.playback.frame import Frame
from conchrec.recording.terminal.painter import Painter, render_lines
from conchrec.recording.terminal.screen import Screen
from conchrec.recording.terminal.screen_line import width
from conchrec.text import escape

FRAME_SECONDS = 1 / 25
"""The shortest time between two pictures."""
SHOWN_SECONDS = 3.0
"""How long the progress line covers the picture after a key, where there is no row for it."""

STEP = 32 * 1024
"""The ``work`` of a screen that one call does: some hundredths of a second."""
_EVENT = 64
"""The cost of an event in addition to its characters."""
PIECE = 2 * 1024
"""The characters of output that are shown between two checks of the work that is left."""
_SKIP_COST = 512 * 1024
"""The characters, and ``_EVENT`` for each event, that one call skips or reads for the outline."""
MOST_MARKERS = 10_000
"""The most markers of one recording; later ones are not shown."""
_SNAPSHOT_INTERVAL = 1024 * 1024
_SNAPSHOT_CELLS = 250_000
"""The cells of all snapshots, with 16 bytes each."""
_FASTEST, _SLOWEST = 64.0, 1 / 16
_JUMP, _LEAP = 5.0, 60.0
_BACK = 1.0
"""Seconds after a marker in which the key for the previous marker goes to the one before it."""
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
    """Decodes what is typed at a terminal into keys: ``q``, ``left``, ``page up``. A sequence may come in
    parts."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, typed: str) -> list[str]:
        """Return the keys that these characters complete."""
        typed, self._held = self._held + typed, ""
        keys: list[str] = []
        if beginning := _BEGINNING.search(typed):
            typed, self._held = typed[: beginning.start()], beginning.group()
        for numbers, final, letter in _KEY.findall(typed):
            if letter:
                keys.append(letter)
            elif name := _NAMES.get(numbers + final if final == "~" else final):
                keys.append(name)
        return keys


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

    @cached_property
    def marked(self) -> frozenset[int]:
        """The cells of the progress bar that have a marker."""
        return frozenset(self.cell(time) for time in self.times)

    def cell(self, time: float) -> int:
        """Return the cell of the progress bar for this time."""
        return min(int(time / self.duration * _BAR), _BAR - 1) if self.duration else 0


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
        left = _SKIP_COST
        for line in self._lines:
            left -= len(line) + _EVENT
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


def split_output(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the same events, in which no output is longer than PIECE."""
    for event in events:
        if event.code != OUTPUT or len(event.text) <= PIECE:
            yield event
            continue
        for start in range(0, len(event.text), PIECE):
            yield Event(time=event.time, code=OUTPUT, text=event.text[start : start + PIECE])


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The screen after ``index`` events."""

    index: int
    time: float
    screen: Screen


class Player:
    """Plays one recording. ``events`` reads it again from the beginning; ``idle`` is the longest pause, in
    seconds. ``problem`` says what could not be read, if anything."""

    def __init__(
        self,
        outline: Outline,
        events: Callable[[], Iterator[Event]],
        *,
        speed: float = 1.0,
        idle: float | None = None,
        size: tuple[int, int] = (80, 24),
    ) -> None:
        self.problem = ""
        self._outline = outline
        self._read_events = events
        self._speed = speed
        self._idle = idle
        self._keys = KeyDecoder()
        self._painter = Painter(*size)
        self._screen = Screen(outline.columns, outline.rows, newline=outline.newline)
        self._snapshots = [_Snapshot(0, 0.0, self._screen.copy())]
        self._snapshot_interval = _SNAPSHOT_INTERVAL
        self._since_snapshot = 0
        self._events = self._open()
        self._next: Event | None = None
        #: The number of events that the screen has shown, and of those to skip before the next one.
        self._index = 0
        self._skip = 0
        #: The time in the recording that is shown, and the caller's time when it was reached.
        self._position = 0.0
        self._since: float | None = None
        self._paused = False
        self._stepping = False
        self._target_time: float | None = None
        self._is_over = False
        self._shown_until = 0.0

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """Return the next frame. ``now`` is in seconds of a clock that never goes back, ``keys`` are the
        characters that were typed since the last call, and ``size`` is the terminal's columns and rows where
        they have changed."""
        if self._since is None:
            self._since = now
            self._read_next()
            if self._is_too_large():
                self._shown_until = now + SHOWN_SECONDS
        if size is not None:
            self._painter.resize(*size)
        for key in self._keys.feed(keys):
            self._shown_until = now + SHOWN_SECONDS
            self._press(key, now)
        left = STEP
        if self._skip:
            self._skip_events()
        elif self._target_time is not None or self._stepping:
            left = self._seek_step(now, left)
        elif not self._paused:
            left = self._play(now, left)
        return self._frame(now, more=left <= 0 or self._target_time is not None)

    @property
    def screen(self) -> Screen:
        """The recorded terminal, as far as the recording was played."""
        return self._screen

    def picture(self) -> str:
        """Return what is on the screen, as lines."""
        return render_lines(self._screen, self._painter.columns)

    def _open(self) -> Iterator[Event]:
        return split_output(self._read_events())

    # -- keys

    def _press(self, key: str, now: float) -> None:
        time = self._current_time(now)
        if key in ("q", "Q", "\x03", "\x04"):
            self._is_over = True
        elif key == " ":
            if self._paused and self._next is None and self._target_time is None:
                self._seek_to(0.0)
            self._pause(not self._paused, now)
        elif key == "." and self._target_time is None:
            self._pause(True, now)
            self._stepping = True
        elif key in ("+", "=", "-"):
            self._pause(self._paused, now)
            factor = 0.5 if key == "-" else 2.0
            self._speed = min(max(self._speed * factor, _SLOWEST), _FASTEST)
        elif key in ("left", "right"):
            self._seek_to(time + (_JUMP if key == "right" else -_JUMP))
        elif key in ("page up", "page down"):
            self._seek_to(time + (_LEAP if key == "page down" else -_LEAP))
        elif key in ("home", "end"):
            self._seek_to(self._outline.duration if key == "end" else 0.0)
        elif key in "0123456789":
            self._seek_to(self._outline.duration * int(key) / 10)
        elif key == "]":
            self._seek_to(self._marker_after(time))
        elif key == "[":
            self._seek_to(self._marker_before(time - _BACK))

    def _marker_after(self, time: float) -> float:
        times = self._outline.times
        at = bisect_right(times, time)
        return times[at] if at < len(times) else time

    def _marker_before(self, time: float) -> float:
        at = bisect_left(self._outline.times, time)
        return self._outline.times[at - 1] if at else 0.0

    def _pause(self, paused: bool, now: float) -> None:
        if self._target_time is None:
            self._position, self._since = self._current_time(now), now
        self._paused = paused

    def _current_time(self, now: float) -> float:
        """Return the time in the recording; during a jump, the time to jump to."""
        if self._target_time is not None:
            return self._target_time
        if self._paused or self._next is None:
            return self._position
        return min(self._position + (now - (self._since or 0.0)) * self._speed, self._next.time)

    # -- position in the recording

    def _seek_to(self, time: float) -> None:
        """Jump to a time, in this call and the next ones."""
        self._target_time = target = min(max(time, 0.0), self._outline.duration)
        self._stepping = False
        snapshot = next(snapshot for snapshot in reversed(self._snapshots) if snapshot.time <= target)
        if target < self._position or self._skip or snapshot.index > self._index:
            self._screen = snapshot.screen.copy()
            self._events, self._next = self._open(), None
            self._index, self._skip, self._position = snapshot.index, snapshot.index, snapshot.time
            self._since_snapshot = 0
            if not self._skip:
                self._read_next()

    def _skip_events(self) -> None:
        """Skip the events that the snapshot contains."""
        left = _SKIP_COST
        while self._skip and left > 0:
            self._read_next()
            self._skip -= 1
            left -= _EVENT + (len(self._next.text) if self._next is not None else 0)
        if not self._skip:
            self._read_next()

    def _read_next(self) -> None:
        try:
            self._next = next(self._events, None)
        except (RecordingError, OSError) as error:
            self._next, self.problem = None, error_text(error)

    def _seek_step(self, now: float, left: int) -> int:
        """Continue a jump as far as ``left`` allows. Returns what is left of it."""
        while (event := self._next) is not None and (
            self._target_time is None or event.time <= self._target_time
        ):
            if left <= 0:
                return left
            left -= self._apply(event)
            if self._stepping and event.code == OUTPUT:
                break
        if self._target_time is not None:
            self._position = self._target_time
        self._stepping, self._target_time, self._since = False, None, now
        # At the end the player pauses: a jump to the end does not close it.
        self._paused = self._paused or self._next is None
        return left

    def _play(self, now: float, left: int) -> int:
        while left > 0 and self._next is not None and (due := self._due()) <= now:
            left -= self._apply(self._next)
            self._since = due
        if self._next is None:
            self._is_over = True
        return left

    def _due(self) -> float:
        """Return when the next event is to be shown, in the caller's time."""
        assert self._next is not None
        pause = max(self._next.time - self._position, 0.0)
        pause = pause if self._idle is None else min(pause, self._idle)
        return (self._since or 0.0) + pause / self._speed

    def _apply(self, event: Event) -> int:
        """Show the event on the screen. Returns the work that it took."""
        before = self._screen.work
        if event.code == OUTPUT:
            self._screen.feed(event.text)
        elif event.code == RESIZE:
            resize_screen(self._screen, event.text)
        self._position = max(self._position, event.time)
        self._index += 1
        self._since_snapshot += len(event.text)
        if self._since_snapshot >= self._snapshot_interval and self._index > self._snapshots[-1].index:
            self._add_snapshot()
        self._read_next()
        return self._screen.work - before + _EVENT

    def _add_snapshot(self) -> None:
        self._since_snapshot = 0
        self._snapshots.append(_Snapshot(self._index, self._position, self._screen.copy()))
        if len(self._snapshots) > 2 and len(self._snapshots) * self._cells() > _SNAPSHOT_CELLS:
            del self._snapshots[1::2]
            self._snapshot_interval *= 2

    def _cells(self) -> int:
        return self._screen.columns * self._screen.rows

    # -- pictures

    def _frame(self, now: float, *, more: bool) -> Frame:
        if self._is_over:
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

    def _is_too_large(self) -> bool:
        return self._outline.columns > self._painter.columns or self._outline.rows > self._painter.rows

    def _progress(self, now: float) -> str:
        outline, time = self._outline, self._current_time(now)
        parts = [
            "seeking" if self._target_time is not None else "paused" if self._paused else "playing",
            f"{format_clock(time)} / {format_clock(outline.duration)}",
            f"{self._speed:g}x",
            _bar(time, outline),
        ]
        passed = bisect_right(outline.times, time)
        if outline.markers:
            parts.append(f"marker {passed}/{len(outline.markers)}")
            if passed:
                parts[-1] += f" {_one_cell_letters(outline.markers[passed - 1][1][:_LONGEST_NAME])}"
        if self._is_too_large():
            parts.append(f"{self._screen.columns}x{self._screen.rows} is too large")
        return " " + "  ".join(parts)


def resize_screen(screen: Screen, text: str) -> None:
    """Resize the screen by the text of an event: ``120x40``."""
    if size := _SIZE.fullmatch(text):
        screen.resize(int(size[1]), int(size[2]))


def format_clock(seconds: float) -> str:
    """Return a time as ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(time: float, outline: Outline) -> str:
    """Return the progress bar, ``[====>---|---]``, with the markers."""
    if not outline.duration:
        return "[" + "=" * _BAR + "]"

    cells = ["="] * outline.cell(time) + [">"] + ["-"] * (_BAR - 1 - outline.cell(time))
    for cell in outline.marked:
        cells[cell] = "|"
    return f"[{''.join(cells)}]"


def _one_cell_letters(text: str) -> str:
    """Return the text with a question mark for each letter that is not one cell wide."""
    return "".join(letter if width(letter) == 1 else "?" for letter in escape(text))
