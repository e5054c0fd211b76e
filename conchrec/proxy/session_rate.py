"""How fast one user may open sessions, over all connections of the user.

A session beyond the rate waits for its turn. Only one that would wait too long is refused.
"""

from __future__ import annotations

from collections import OrderedDict

from conchrec.clock import Clock

#: New sessions of one user: how many may begin at once after a pause, how many in a second after that, and
#: how many seconds a session may wait for its turn.
SESSION_BURST = 300
SESSIONS_PER_SECOND = 20.0
LONGEST_WAIT = 60.0
#: A shorter wait is a rounding error, in seconds.
_NO_WAIT = 0.001
#: The most users whose last sessions are remembered.
REMEMBERED = 10_000
#: Seconds between two audit events which say that sessions of one user wait.
DELAY_EVENT_SECONDS = 60.0
#: The most users whose last such event is remembered.
DELAYED_USERS = 4096


class SessionRate:
    """When each user's next session may begin (a token bucket for each user)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By user: the time at which the rate allows all sessions that have begun.
        self._due_at: OrderedDict[str, float] = OrderedDict()
        #: By user: when the last event about delayed sessions was written.
        self._last_event: dict[str, float] = {}

    def delay(self, user: str) -> float | None:
        """Count a new session of this user, and return the seconds that it must wait.

        None where it would wait longer than LONGEST_WAIT; such a session is not counted.
        """
        now, interval = self._clock.seconds(), 1 / SESSIONS_PER_SECOND
        earliest = now - (SESSION_BURST - 1) * interval
        due_at = max(self._due_at.get(user, earliest), earliest)
        seconds = due_at - now if due_at - now >= _NO_WAIT else 0.0
        if seconds > LONGEST_WAIT:
            return None
        self._due_at[user] = due_at + interval
        self._due_at.move_to_end(user)
        while len(self._due_at) > REMEMBERED:
            self._due_at.popitem(last=False)
        return seconds

    def is_event_due(self, user: str) -> bool:
        """Whether to audit now that sessions of this user wait: at most once a minute.

        The caller writes the event if this returns True: the next minute begins now.
        """
        now = self._clock.seconds()
        last = self._last_event.get(user)
        if last is not None and now - last < DELAY_EVENT_SECONDS:
            return False
        if len(self._last_event) >= DELAYED_USERS:
            self._last_event.clear()
        self._last_event[user] = now
        return True
