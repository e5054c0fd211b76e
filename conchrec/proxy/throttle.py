"""Bandwidth: so many bytes a second for all connections of one user, or to one target, both ways together.

What has come is passed on; then the connection that brought it pauses for as long as the bytes were too many.
So nothing is dropped or kept, and another connection of the same user waits for no more than its own bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.model import Target
from conchrec.timing import Clock

#: Seconds' worth of bytes that may pass at once, after a rest.
BURST = 0.25
#: Users and targets that are remembered while they rest.
REMEMBERED = 1000
Key = tuple[str, str]


class Bandwidth:
    """When each user and each target has used up what it may."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used_up_at: dict[Key, float] = {}

    def passed(self, key: Key, size: int, rate: int) -> float:
        """``size`` bytes have passed, of ``rate`` in a second; how many seconds to pause."""
        now = self._clock.seconds()
        if len(self._used_up_at) >= REMEMBERED:
            self._used_up_at = {key: at for key, at in self._used_up_at.items() if at > now - BURST}
        at = max(self._used_up_at.get(key, 0.0), now - BURST) + size / rate
        self._used_up_at[key] = at
        return max(0.0, at - now)

    def meter(
        self,
        user: str,
        target: Target,
        rates: Callable[[], tuple[int, int]],
        pause: Callable[[bool], None],
    ) -> Callable[[int], None]:
        """What hears of every byte of one connection. ``rates`` are those of a user and of a target now, in
        bytes a second (0: no limit); ``pause`` stops both ways, and lets them go on."""
        keys: tuple[Key, Key] = ("user", user), ("target", str(target))
        paused = False

        def go_on() -> None:
            nonlocal paused
            paused = False
            pause(False)

        def passed(size: int) -> None:
            nonlocal paused
            limits = zip(keys, rates(), strict=True)
            seconds = max(self.passed(key, size, rate) if rate else 0.0 for key, rate in limits)
            if seconds > 0 and not paused:
                paused = True
                pause(True)
                self._clock.callLater(seconds, go_on)

        return passed
