"""The recorded terminal at a position of the recording, which can move on and back.

The recording is read from its beginning. A move back starts at the nearest snapshot of the screen: the events
that the snapshot contains are read again, and skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from conchrec.errors import RecordingError, error_text
from conchrec.recording.format.asciicast import OUTPUT, RESIZE, Event
from conchrec.recording.playback.outline import Outline
from conchrec.recording.playback.step_costs import EVENT_COST, PIECE, SKIP_COST
from conchrec.recording.terminal.screen import Screen

SNAPSHOT_INTERVAL = 1024 * 1024
"""The characters between two snapshots of a short recording."""
SNAPSHOT_CELLS = 250_000
"""The cells of all snapshots, with 16 bytes each."""

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")


def split_output(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the same events, in which no output is longer than PIECE."""
    for event in events:
        if event.code != OUTPUT or len(event.text) <= PIECE:
            yield event
            continue
        for start in range(0, len(event.text), PIECE):
            yield Event(time=event.time, code=OUTPUT, text=event.text[start : start + PIECE])


def resize_screen(screen: Screen, text: str) -> None:
    """Resize the screen by the text of an event: ``120x40``."""
    if size := _SIZE.fullmatch(text):
        screen.resize(int(size[1]), int(size[2]))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The screen after ``index`` events."""

    index: int
    time: float
    screen: Screen


class _Snapshots:
    """The snapshots of one recording, in order. Where they get too many, every second one is dropped."""

    def __init__(self, screen: Screen) -> None:
        self._snapshots = [_Snapshot(0, 0.0, screen.copy())]
        self._interval = SNAPSHOT_INTERVAL
        #: The characters since the last one.
        self._size = 0

    def before(self, time: float) -> _Snapshot:
        """Return the last one at or before this time."""
        return next(snapshot for snapshot in reversed(self._snapshots) if snapshot.time <= time)

    def restart(self) -> None:
        """Count from a snapshot again: the screen was put back to one."""
        self._size = 0

    def count(self, size: int, index: int, time: float, screen: Screen) -> None:
        """Count the characters of the event before ``index``, and add a snapshot where one is due."""
        self._size += size
        if self._size < self._interval or index <= self._snapshots[-1].index:
            return
        self._size = 0
        self._snapshots.append(_Snapshot(index, time, screen.copy()))
        if len(self._snapshots) > 2 and len(self._snapshots) * screen.columns * screen.rows > SNAPSHOT_CELLS:
            del self._snapshots[1::2]
            self._interval *= 2


class Replay:
    """The recorded terminal. ``events`` reads the recording again from the beginning.

    ``next_event`` is the event to show next, None at the end; ``position`` is the time that is shown.
    ``problem`` says what could not be read, if anything.
    """

    def __init__(self, outline: Outline, events: Callable[[], Iterator[Event]]) -> None:
        self.problem = ""
        self.screen = Screen(outline.columns, outline.rows, newline=outline.newline)
        self.next_event: Event | None = None
        self.position = 0.0
        self._read_events = events
        self._snapshots = _Snapshots(self.screen)
        self._events = self._open()
        #: The number of events that the screen has shown, and of those to skip before the next one.
        self._index = 0
        self._skip = 0

    def _open(self) -> Iterator[Event]:
        return split_output(self._read_events())

    def read_next(self) -> None:
        """Read the next event."""
        try:
            self.next_event = next(self._events, None)
        except (RecordingError, OSError) as error:
            self.next_event, self.problem = None, error_text(error)

    def set_position(self, time: float) -> None:
        """Store which time is shown, between the last event and the next one."""
        self.position = time

    def go_back_for(self, time: float) -> None:
        """Go to the snapshot before this time, unless the screen is between that snapshot and this time."""
        snapshot = self._snapshots.before(time)
        if time >= self.position and not self._skip and snapshot.index <= self._index:
            return
        self.screen = snapshot.screen.copy()
        self._events, self.next_event = self._open(), None
        self._index, self._skip, self.position = snapshot.index, snapshot.index, snapshot.time
        self._snapshots.restart()
        if not self._skip:
            self.read_next()

    @property
    def is_behind(self) -> bool:
        """Whether events must be skipped, by ``skip``, before the next one."""
        return self._skip > 0

    def skip(self) -> None:
        """Skip events that the snapshot contains, as many as one call may."""
        left = SKIP_COST
        while self._skip and left > 0:
            self.read_next()
            self._skip -= 1
            left -= EVENT_COST + (len(self.next_event.text) if self.next_event is not None else 0)
        if not self._skip:
            self.read_next()

    def apply(self, event: Event) -> int:
        """Show the next event, and read the one after it. Returns the work that it took."""
        before = self.screen.work
        if event.code == OUTPUT:
            self.screen.feed(event.text)
        elif event.code == RESIZE:
            resize_screen(self.screen, event.text)
        self.position = max(self.position, event.time)
        self._index += 1
        self._snapshots.count(len(event.text), self._index, self.position, self.screen)
        self.read_next()
        return self.screen.work - before + EVENT_COST
