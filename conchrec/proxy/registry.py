"""What is open in this process now: connections, sessions and commands, counted for each user."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

from conchrec.model import Identity
from conchrec.proxy.held_bytes import UserHeldBytes


class LiveConnection(Protocol):
    """A user's connection after its login, as shutdown, reloads and ``status`` use it."""

    @property
    def identity(self) -> Identity:
        """The user, as of the last check."""

    @property
    def session_count(self) -> int:
        """Sessions at targets."""

    @property
    def connection_count(self) -> int:
        """Connections to targets."""

    @property
    def target_channel_count(self) -> int:
        """Channels to targets (``ssh -J``), including those whose target was never reached."""

    def end_with_reason(self, reason: str) -> None:
        """Tell the user the reason in every session, then end the connection."""

    def drop(self) -> None:
        """End the connection without a message."""

    def recheck(self) -> None:
        """Decide again about all that is open, after a change of the policy, the locks or the users."""

    def recheck_expired(self, now: datetime) -> None:
        """Decide again about all that was allowed until a time that has passed at ``now``."""


class Registry:
    """The live connections of one process, and how much each user has open.

    The owner of a connection, session or command reports its beginning and its end; limits, ``status`` and
    shutdown read.
    """

    def __init__(self) -> None:
        #: The connections, each with its user, and those of each user.
        self._connections: dict[LiveConnection, str] = {}
        self._by_user: dict[str, dict[LiveConnection, None]] = {}
        self._sessions: Counter[str] = Counter()
        self._commands: Counter[str] = Counter()
        #: By user; an entry lasts as long as a channel of the user.
        self._held_bytes: WeakValueDictionary[str, UserHeldBytes] = WeakValueDictionary()
        self._is_stopping = False

    # --- the service

    @property
    def is_stopping(self) -> bool:
        """Whether the service is stopping: it accepts no new connection and no new session."""
        return self._is_stopping

    def stop(self) -> None:
        """Accept no new connections and sessions from now on."""
        self._is_stopping = True

    # --- connections

    @property
    def connections(self) -> tuple[LiveConnection, ...]:
        """The connections that have logged in and have not ended."""
        return tuple(self._connections)

    @property
    def connection_count(self) -> int:
        """The number of connections that have logged in and have not ended."""
        return len(self._connections)

    def connections_of(self, user: str) -> tuple[LiveConnection, ...]:
        """The connections of one user."""
        return tuple(self._by_user.get(user, ()))

    def add_connection(self, connection: LiveConnection) -> None:
        """Count a connection whose user has logged in."""
        user = connection.identity.user
        self._connections[connection] = user
        self._by_user.setdefault(user, {})[connection] = None

    def remove_connection(self, connection: LiveConnection) -> None:
        """Forget a connection that has ended. May be called again."""
        user = self._connections.pop(connection, None)
        if user is not None:
            others = self._by_user[user]
            del others[connection]
            if not others:
                del self._by_user[user]

    # --- sessions

    def session_count(self, user: str) -> int:
        """How many sessions of this user run, or wait for their turn."""
        return self._sessions[user]

    def add_session(self, user: str) -> None:
        """Count a session of this user."""
        self._sessions[user] += 1

    def remove_session(self, user: str) -> None:
        """Count one session of this user less."""
        _subtract(self._sessions, user)

    def user_held_bytes(self, user: str) -> UserHeldBytes:
        """Return the count of the bytes that this user's channels hold; each new channel keeps it alive."""
        held_bytes = self._held_bytes.get(user)
        if held_bytes is None:
            held_bytes = self._held_bytes[user] = UserHeldBytes()
        return held_bytes

    # --- commands

    def command_count(self, user: str) -> int:
        """How many commands of the proxy run for this user."""
        return self._commands[user]

    def add_command(self, user: str) -> None:
        """Count a command of this user."""
        self._commands[user] += 1

    def remove_command(self, user: str) -> None:
        """Count one command of this user less."""
        _subtract(self._commands, user)


def _subtract(counts: Counter[str], user: str) -> None:
    """Count one less; a user who has none left is forgotten."""
    if counts[user] > 1:
        counts[user] -= 1
    else:
        counts.pop(user, None)
