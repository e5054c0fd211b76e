"""Named timers with one owner, who stops them all at once."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.clock import Clock, DelayedCall


class Timers:
    """The timers of one object. After ``stop`` none is set any more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[str, DelayedCall] = {}
        self._stopped = False

    def start(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """Call ``call`` after ``seconds``; a timer of the same name that runs is replaced."""
        self.cancel(name)
        if not self._stopped:
            self._calls[name] = self._clock.callLater(seconds, call)

    def cancel(self, name: str) -> None:
        """Cancel the timer of this name, where it runs."""
        timer = self._calls.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def stop(self) -> None:
        """Cancel all timers, for good."""
        self._stopped = True
        for name in tuple(self._calls):
            self.cancel(name)
