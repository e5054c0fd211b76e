"""Plays a recording: keys and the time go in, pictures and the time of the next one come out.

It knows no terminal and no clock. A caller that has them calls ``advance`` again and again. Each call is
short: a jump to a distant time is done in steps (``replay``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from conchrec.recording.format.asciicast import OUTPUT, Event
from conchrec.recording.playback.frame import FRAME_SECONDS, Frame
from conchrec.recording.playback.key_decoder import KeyDecoder
from conchrec.recording.playback.outline import Outline
from conchrec.recording.playback.progress_line import ProgressLine
from conchrec.recording.playback.replay import Replay
from conchrec.recording.playback.step_costs import STEP
from conchrec.recording.terminal.painter import Painter, render_lines
from conchrec.recording.terminal.screen import Screen

SHOWN_SECONDS = 3.0
"""How long the progress line covers the picture after a key, where there is no row for it."""
_FASTEST, _SLOWEST = 64.0, 1 / 16
_JUMP, _LEAP = 5.0, 60.0
_BACK = 1.0
"""Seconds after a marker in which the key for the previous marker goes to the one before it."""
_TICK = 0.5


class Player:
    """Plays one recording. ``events`` reads it again from the beginning; ``idle`` is the longest pause, in
    seconds."""

    def __init__(
        self,
        outline: Outline,
        events: Callable[[], Iterator[Event]],
        *,
        speed: float = 1.0,
        idle: float | None = None,
        size: tuple[int, int] = (80, 24),
    ) -> None:
        self._outline = outline
        self._replay = Replay(outline, events)
        self._progress_line = ProgressLine(outline)
        self._speed = speed
        self._idle = idle
        self._keys = KeyDecoder()
        self._painter = Painter(*size)
        #: The caller's time when the position of the replay was reached.
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
            self._replay.read_next()
            if self._is_too_large():
                self._shown_until = now + SHOWN_SECONDS
        if size is not None:
            self._painter.resize(*size)
        for key in self._keys.feed(keys):
            self._shown_until = now + SHOWN_SECONDS
            self._press(key, now)
        left = STEP
        if self._replay.is_behind:
            self._replay.skip()
        elif self._target_time is not None or self._stepping:
            left = self._seek_step(now, left)
        elif not self._paused:
            left = self._play(now, left)
        return self._frame(now, more=left <= 0 or self._target_time is not None)

    @property
    def problem(self) -> str:
        """What could not be read; empty if everything could."""
        return self._replay.problem

    @property
    def screen(self) -> Screen:
        """The recorded terminal, as far as the recording was played."""
        return self._replay.screen

    def picture(self) -> str:
        """Return what is on the screen, as lines."""
        return render_lines(self.screen, self._painter.columns)

    # -- keys

    def _press(self, key: str, now: float) -> None:
        time = self._current_time(now)
        if key in ("q", "Q", "\x03", "\x04"):
            self._is_over = True
        elif key == " ":
            if self._paused and self._replay.next_event is None and self._target_time is None:
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
            self._seek_to(self._outline.marker_after(time))
        elif key == "[":
            self._seek_to(self._outline.marker_before(time - _BACK))

    def _pause(self, paused: bool, now: float) -> None:
        if self._target_time is None:
            self._replay.set_position(self._current_time(now))
            self._since = now
        self._paused = paused

    def _current_time(self, now: float) -> float:
        """Return the time in the recording; during a jump, the time to jump to."""
        position, following = self._replay.position, self._replay.next_event
        if self._target_time is not None:
            return self._target_time
        if self._paused or following is None:
            return position
        return min(position + (now - (self._since or 0.0)) * self._speed, following.time)

    # -- position in the recording

    def _seek_to(self, time: float) -> None:
        """Jump to a time, in this call and the next ones."""
        self._target_time = min(max(time, 0.0), self._outline.duration)
        self._stepping = False
        self._replay.go_back_for(self._target_time)

    def _seek_step(self, now: float, left: int) -> int:
        """Continue a jump as far as ``left`` allows. Returns what is left of it."""
        while (event := self._replay.next_event) is not None and (
            self._target_time is None or event.time <= self._target_time
        ):
            if left <= 0:
                return left
            left -= self._replay.apply(event)
            if self._stepping and event.code == OUTPUT:
                break
        if self._target_time is not None:
            self._replay.set_position(self._target_time)
        self._stepping, self._target_time, self._since = False, None, now
        # At the end the player pauses: a jump to the end does not close it.
        self._paused = self._paused or self._replay.next_event is None
        return left

    def _play(self, now: float, left: int) -> int:
        replay = self._replay
        while left > 0 and (event := replay.next_event) is not None and (due := self._due(event)) <= now:
            left -= replay.apply(event)
            self._since = due
        if replay.next_event is None:
            self._is_over = True
        return left

    def _due(self, event: Event) -> float:
        """Return when the next event is to be shown, in the caller's time."""
        pause = max(event.time - self._replay.position, 0.0)
        pause = pause if self._idle is None else min(pause, self._idle)
        return (self._since or 0.0) + pause / self._speed

    # -- pictures

    def _frame(self, now: float, *, more: bool) -> Frame:
        painter, screen, following = self._painter, self._replay.screen, self._replay.next_event
        if self._is_over:
            text = painter.paint(screen)
            return Frame(text=text, wake=0.0 if painter.behind else None, over=not painter.behind)
        waits = [0.0] if more else []
        if not more and not self._paused and following is not None:
            waits.append(max(self._due(following) - now, FRAME_SECONDS))
        progress = None
        if painter.rows > screen.rows or self._paused or more or now < self._shown_until:
            progress = self._progress(now)
            if not self._paused:
                waits.append(_TICK)
        text = painter.paint(screen, progress)
        if painter.behind:
            waits.append(FRAME_SECONDS)
        return Frame(text=text, wake=min(waits, default=None))

    def _is_too_large(self) -> bool:
        return self._outline.columns > self._painter.columns or self._outline.rows > self._painter.rows

    def _progress(self, now: float) -> str:
        state = "seeking" if self._target_time is not None else "paused" if self._paused else "playing"
        notice = f"{self.screen.columns}x{self.screen.rows} is too large" if self._is_too_large() else ""
        return self._progress_line.text(state, self._current_time(now), self._speed, notice=notice)
