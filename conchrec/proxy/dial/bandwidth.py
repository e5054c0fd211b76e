"""Limits the bytes per second of all connections of one user, and of all connections to one target.

Bytes are counted in both directions together. They are forwarded first; then their connection pauses, until
the limit allows all bytes of the user or target, or for the time that its own bytes take at its share of the
limit, if that is shorter. So nothing is dropped or stored, and no connection waits for the bytes of others.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.clock import Clock
from conchrec.model import Target
from conchrec.token_bucket import Rate, TokenBucket

#: How many seconds of the limit may pass at once after a pause.
BURST = 0.25
#: Tokens are seconds of a limit, because the limit of a user can differ between targets, and change.
_RATE = Rate(BURST, 1)
#: The most users and targets that are remembered while they send nothing.
REMEMBERED = 1000
#: For how many seconds a connection that has sent something gets a share of the limit.
SHARES = 1.0
Key = tuple[str, str]


class _Budget:
    """The bytes of one user, or of one target."""

    def __init__(self) -> None:
        self.bucket = TokenBucket(_RATE)
        #: By connection: until when it gets a share; and when expired ones were last removed.
        self._shares_until: dict[object, float] = {}
        self._cleaned_at = 0.0

    def pause(self, connection: object, size: int, rate: int, now: float) -> float:
        """How many seconds a connection must pause after it has sent ``size`` bytes."""
        if now - self._cleaned_at > BURST:
            self._cleaned_at = now
            self._shares_until = {key: until for key, until in self._shares_until.items() if until > now}
        self._shares_until[connection] = now + SHARES
        pause = max(0.0, min(-self.bucket.fill(now), size * len(self._shares_until) / rate))
        self._shares_until[connection] += pause
        return pause

    def is_idle(self, now: float) -> bool:
        """Whether it is as if nothing had passed."""
        return self.bucket.fill(now) >= BURST


class Bandwidth:
    """The bytes of each user and of each target."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._budgets: dict[Key, _Budget] = {}

    @property
    def remembered(self) -> int:
        """How many users and targets are remembered."""
        return len(self._budgets)

    def _budget(self, key: Key, now: float) -> _Budget:
        budget = self._budgets.get(key)
        if budget is None:
            if len(self._budgets) >= REMEMBERED:
                self._budgets = {
                    other: budget for other, budget in self._budgets.items() if not budget.is_idle(now)
                }
            budget = self._budgets[key] = _Budget()
        return budget

    def meter(
        self,
        user: str,
        target: Target,
        rates: Callable[[], tuple[int, int]],
        pause: Callable[[bool], None],
    ) -> Callable[[int], None]:
        """Return a function that must be called with the size of all data of one connection.

        ``rates`` returns the limits of a user and of a target now, in bytes a second (0: no limit).
        ``pause(True)`` stops both directions, ``pause(False)`` lets them continue.
        """
        keys: tuple[Key, Key] = ("user", user), ("target", str(target))
        connection = object()
        paused = False
        # Bytes that pass during a pause count after it.
        uncounted = 0

        def resume() -> None:
            nonlocal paused
            paused = False
            pause(False)

        def passed(size: int) -> None:
            nonlocal paused, uncounted
            now = self._clock.seconds()
            limited = [
                (self._budget(key, now), rate) for key, rate in zip(keys, rates(), strict=True) if rate
            ]
            for budget, rate in limited:
                budget.bucket.charge(now, size / rate)
            uncounted += size
            if paused:
                return
            counted, uncounted = uncounted, 0
            seconds = max(
                (budget.pause(connection, counted, rate, now) for budget, rate in limited), default=0.0
            )
            if seconds > 0:
                paused = True
                pause(True)
                self._clock.callLater(seconds, resume)

        return passed
