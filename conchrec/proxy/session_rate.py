"""How fast one user may open sessions, over all connections of the user.

A session beyond the rate waits for its turn. Only one that would wait too long is refused.
"""

from __future__ import annotations

from conchrec.clock import Clock
from conchrec.token_bucket import Rate, TokenBuckets

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
    """When each user's next session may begin."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: TokenBuckets[str] = TokenBuckets(Rate(SESSION_BURST, SESSIONS_PER_SECOND), REMEMBERED)
        self._events: TokenBuckets[str] = TokenBuckets(Rate(1, 1 / DELAY_EVENT_SECONDS), DELAYED_USERS)

    def delay(self, user: str) -> float | None:
        """Count a new session of this user, and return the seconds that it must wait.

        None where it would wait longer than LONGEST_WAIT; such a session is not counted.
        """
        now = self._clock.seconds()
        seconds = (1 - self._sessions.level(user, now)) / SESSIONS_PER_SECOND
        if seconds > LONGEST_WAIT:
            return None
        self._sessions.charge(user, now)
        return seconds if seconds >= _NO_WAIT else 0.0

    def is_event_due(self, user: str) -> bool:
        """Whether to audit now that sessions of this user wait: at most once a minute.

        The caller writes the event if this returns True: the next minute begins now.
        """
        return self._events.take(user, self._clock.seconds())
