"""What is open in one process now: connections, sessions and commands, counted for each user."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from conchrec.model import Identity
from conchrec.proxy.held_bytes import UserWaiting

#: Seconds between two events that say that sessions of one user wait.
DELAY_EVENT_SECONDS = 60.0
#: Users whose last such event is remembered.
DELAYED_USERS = 4096


class LiveConnection(Protocol):
    """A user's connection that has logged in, as shutdown and ``status`` see it."""

    @property
    def identity(self) -> Identity:
        """The user, as of the last time that it was judged."""

    @property
    def session_count(self) -> int:
        """Sessions at targets."""

    @property
    def connection_count(self) -> int:
        """Connections to targets."""

    @property
    def target_channel_count(self) -> int:
        """Channels to targets (``ssh -J``), including those whose target was never reached."""

    def tell_and_end(self, text: str) -> None:
        """Say why in every session, then end it."""

    def drop(self) -> None:
        """End it, and say nothing."""

    def rejudge(self) -> None:
        """Something that allowed it has changed: what is not allowed any more ends."""

    def look(self, now: datetime) -> None:
        """The time has come to ``now``; what was allowed until then is judged again."""


class Registry:
    """The live connections of one process, and how much each user has open.

    Those that begin something report its beginning and its end; limits, ``status`` and shutdown read.
    """

    def __init__(self) -> None:
        self._connections: set[LiveConnection] = set()
        self._sessions: Counter[str] = Counter()
        self._commands: Counter[str] = Counter()
        #: By user: when it was last said that sessions wait, in seconds of the reactor's clock.
        self._delay_events: dict[str, float] = {}
        #: By user; an entry lasts as long as a channel of the user.
        self._waiting: WeakValueDictionary[str, UserWaiting] = WeakValueDictionary()
        self._stopping = False

    # --- the service

    @property
    def stopping(self) -> bool:
        """Whether the service is being stopped: no new connection and no new session."""
        return self._stopping

    def stop(self) -> None:
        """Let nothing new begin."""
        self._stopping = True

    # --- connections

    @property
    def connections(self) -> tuple[LiveConnection, ...]:
        """All that have logged in and have not ended."""
        return tuple(self._connections)

    def connections_of(self, user: str) -> tuple[LiveConnection, ...]:
        """Those of one user."""
        return tuple(live for live in self._connections if live.identity.user == user)

    def connection_began(self, connection: LiveConnection) -> None:
        """A user has logged in."""
        self._connections.add(connection)

    def connection_over(self, connection: LiveConnection) -> None:
        """It has ended. May be called again."""
        self._connections.discard(connection)

    # --- sessions

    def session_count(self, user: str) -> int:
        """How many sessions of this user run, or wait for their turn."""
        return self._sessions[user]

    def session_began(self, user: str) -> None:
        """One session more of this user."""
        self._sessions[user] += 1

    def session_over(self, user: str) -> None:
        """One session less."""
        _remove_one(self._sessions, user)

    def is_delay_event_due(self, user: str, now: float) -> bool:
        """Whether to say that sessions of this user wait: once a minute. A call that returns True counts."""
        last = self._delay_events.get(user)
        if last is not None and now - last < DELAY_EVENT_SECONDS:
            return False
        if len(self._delay_events) >= DELAYED_USERS:
            self._delay_events.clear()
        self._delay_events[user] = now
        return True

    def user_waiting(self, user: str) -> UserWaiting:
        """What waits in all channels of this user for their other ends; each new channel keeps it."""
        waiting = self._waiting.get(user)
        if waiting is None:
            waiting = self._waiting[user] = UserWaiting()
        return waiting

    # --- commands

    def command_count(self, user: str) -> int:
        """How many commands of the proxy run for this user."""
        return self._commands[user]

    def command_began(self, user: str) -> None:
        """One command more of this user."""
        self._commands[user] += 1

    def command_over(self, user: str) -> None:
        """One command less."""
        _remove_one(self._commands, user)


def _remove_one(counts: Counter[str], user: str) -> None:
    """Count one less; a user who has none left is forgotten."""
    if counts[user] > 1:
        counts[user] -= 1
    else:
        counts.pop(user, None)
