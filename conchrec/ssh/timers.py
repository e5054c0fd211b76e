"""Timers of one owner: named ones, and one that can be paused."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.clock import Clock, DelayedCall


class Timers:
    """The timers of one object. After ``stop`` no timer can be started."""

    __slots__ = (
        "_calls", "_clock", "_stopped",
    )  # fmt: skip

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[str, DelayedCall] = {}
        self._stopped = False

    def start(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """Call ``call`` after ``seconds``. A running timer with the same name is replaced."""
        self.cancel(name)
        if not self._stopped:
            self._calls[name] = self._clock.callLater(seconds, call)

    def cancel(self, name: str) -> None:
        """Cancel the timer with this name, if it is running."""
        timer = self._calls.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def stop(self) -> None:
        """Cancel all timers permanently."""
        self._stopped = True
        for name in tuple(self._calls):
            self.cancel(name)


class PausableTimer:
    """Calls ``call`` once, after it has run for ``seconds`` in total. It starts paused."""

    __slots__ = (
        "_call", "_clock", "_seconds_left", "_started_at", "_stopped", "_timer",
    )  # fmt: skip

    def __init__(self, clock: Clock, seconds: float, call: Callable[[], object]) -> None:
        self._clock = clock
        self._seconds_left = seconds
        self._call = call
        self._started_at = 0.0
        self._timer: DelayedCall | None = None
        self._stopped = False

    def run(self) -> None:
        """Start or continue, unless it runs or was stopped."""
        if self._timer is None and not self._stopped:
            self._started_at = self._clock.seconds()
            self._timer = self._clock.callLater(max(0.0, self._seconds_left), self._expire)

    def pause(self) -> None:
        """Pause, if it runs."""
        if self._timer is not None:
            self._seconds_left -= self._clock.seconds() - self._started_at
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Cancel the timer permanently, and forget ``call``."""
        self.pause()
        self._stopped = True
        self._call = lambda: None

    def _expire(self) -> None:
        self._timer = None
        self._call()
