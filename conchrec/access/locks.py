"""A lock of a user, target, login or session: it refuses logins and ends sessions. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from conchrec.access.login_names import denies, folded
from conchrec.access.patterns import HostPattern, TargetAddress, seen_through


class LockKind(Enum):
    """What a lock applies to."""

    USER = "user"
    TARGET = "target"
    LOGIN = "login"
    SESSION = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock. ``name`` is a user's name, a host pattern, a login pattern, or the id of a session.

    ``until`` is aware (None: until it is removed). ``by`` is the account that created it, at ``made``. ``of``
    is the host name of a locked address, where that was locked with its name.
    """

    kind: LockKind
    name: str
    until: datetime | None = None
    reason: str = ""
    by: str = ""
    made: datetime | None = None
    of: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.until is None or now < self.until

    def is_of_user(self, user: str) -> bool:
        """Whether it locks this user."""
        return self.kind is LockKind.USER and folded(self.name) == folded(user)

    def is_of_session(self, sid: str) -> bool:
        """Whether it locks the session with this id."""
        return self.kind is LockKind.SESSION and self.name == sid

    def is_of_login(self, login: str, user: str) -> bool:
        """Whether it locks this login of the user."""
        return self.kind is LockKind.LOGIN and denies(self.name, login, user)

    def is_of_target(self, target: TargetAddress) -> bool:
        """Whether it locks the target, by its name or any of its addresses: as a deny of a role does."""
        if self.kind is not LockKind.TARGET:
            return False
        pattern = HostPattern.parse(self.name)
        return pattern.names(target) or any(
            pattern.covers(ip, target) for _, address in target.addresses for ip in seen_through(address)
        )

    def __str__(self) -> str:
        """``user joe is locked until 2026-11-24 08:00:00 UTC; reason: stolen laptop``"""
        until = f" until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until is not None else ""
        reason = f"; reason: {self.reason}" if self.reason else ""
        of = f" (an address of {self.of})" if self.of else ""
        return f"{self.kind.value} {self.name}{of} is locked{until}{reason}"
