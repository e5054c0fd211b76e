"""Bandwidth: so many bytes a second for all connections of one user, or to one target, both ways together.

What has come is passed on; then the connection that brought it pauses, until the bytes of all are paid for,
or for as long as its own bytes take at its share, if that is sooner. So nothing is dropped or kept, and
nobody waits for what others have sent.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.clock import Clock
from conchrec.model import Target

#: Seconds' worth of bytes that may pass at once, after a rest.
BURST = 0.25
#: Users and targets that are remembered while they rest.
REMEMBERED = 1000
#: Seconds for which somebody who has sent something counts as one who shares.
SHARES = 1.0
Key = tuple[str, str]


class _Shared:
    """The bytes of one user, or to one target."""

    def __init__(self) -> None:
        self._paid_at = 0.0
        #: Until when each connection shares, and when those were last looked through.
        self._sharing: dict[object, float] = {}
        self._looked = 0.0

    def passed(self, size: int, rate: int, now: float) -> None:
        self._paid_at = max(self._paid_at, now - BURST) + size / rate

    def pause(self, by: object, unpaid: int, rate: int, now: float) -> float:
        """How many seconds this connection has to pause for so many bytes."""
        if now - self._looked > BURST:
            self._looked = now
            self._sharing = {one: until for one, until in self._sharing.items() if until > now}
        self._sharing[by] = now + SHARES
        pause = max(0.0, min(self._paid_at - now, unpaid * len(self._sharing) / rate))
        self._sharing[by] += pause
        return pause

    def rests(self, now: float) -> bool:
        return self._paid_at <= now - BURST


class Bandwidth:
    """What each user and each target has used up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shared: dict[Key, _Shared] = {}

    @property
    def remembered(self) -> int:
        """Users and targets."""
        return len(self._shared)

    def _of(self, key: Key, now: float) -> _Shared:
        if key not in self._shared and len(self._shared) >= REMEMBERED:
            self._shared = {key: one for key, one in self._shared.items() if not one.rests(now)}
        return self._shared.setdefault(key, _Shared())

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
        connection = object()
        paused = False
        # What was on its way when the pause began is paid for after it.
        unpaid = 0

        def go_on() -> None:
            nonlocal paused
            paused = False
            pause(False)

        def passed(size: int) -> None:
            nonlocal paused, unpaid
            now = self._clock.seconds()
            limited = [(self._of(key, now), rate) for key, rate in zip(keys, rates(), strict=True) if rate]
            for shared, rate in limited:
                shared.passed(size, rate, now)
            unpaid += size
            if paused:
                return
            owed, unpaid = unpaid, 0
            seconds = max(
                (shared.pause(connection, owed, rate, now) for shared, rate in limited), default=0.0
            )
            if seconds > 0:
                paused = True
                pause(True)
                self._clock.callLater(seconds, go_on)

        return passed
