"""What one user may have of the memory and the sessions of this process, over all connections.

Budgets delay: a tunnel that is one of many gets a smaller window, a session that is one of very many waits
for its turn. Only what would wait too long is refused.
"""

from __future__ import annotations

from collections import OrderedDict

from conchrec.clock import Clock
from conchrec.ssh.channel_stream import MAX_PACKET, WINDOW

#: Bytes that may wait in the tunnels of one user, each for its target or for the inner connection.
USER_BYTES = 64 * 1024 * 1024
#: The least that a tunnel gets: one packet.
LEAST_ROOM = MAX_PACKET
#: New sessions of one user: so many at once after a rest, so many a second, and so long one may wait.
SESSION_BURST = 300
SESSIONS_PER_SECOND = 20.0
LONGEST_WAIT = 60.0
#: Less than this is nothing but rounding, in seconds.
_NO_WAIT = 0.001
#: Users that are remembered while they rest.
REMEMBERED = 10_000


class TunnelMemory:
    """The bytes that may wait in each tunnel of a user: a full window for some, less for each one more."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def taken(self, user: str) -> int:
        """Bytes that the tunnels of this user have, together."""
        return self._taken.get(user, 0)

    def take(self, user: str) -> int:
        """Room for one tunnel more, in bytes; at its end it goes to ``give_back``."""
        left = max(0, USER_BYTES - self.taken(user))
        room = max(LEAST_ROOM, min(WINDOW, left // 4))
        self._taken[user] = self.taken(user) + room
        return room

    def give_back(self, user: str, room: int) -> None:
        left = self._taken[user] - room
        if left:
            self._taken[user] = left
        else:
            del self._taken[user]


class SessionRate:
    """When each user's next session may begin."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By user: when all that has begun is paid for.
        self._paid_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, user: str) -> float | None:
        """Seconds until one session more of this user may begin, which this call counts; None where that
        would take too long, and then it counts nothing."""
        now, each = self._clock.seconds(), 1 / SESSIONS_PER_SECOND
        earliest = now - (SESSION_BURST - 1) * each
        paid_at = max(self._paid_at.get(user, earliest), earliest)
        seconds = paid_at - now if paid_at - now >= _NO_WAIT else 0.0
        if seconds > LONGEST_WAIT:
            return None
        self._paid_at[user] = paid_at + each
        self._paid_at.move_to_end(user)
        while len(self._paid_at) > REMEMBERED:
            self._paid_at.popitem(last=False)
        return seconds
