"""A lock: nobody logs in who, or where, it says, and who has is sent away. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from conchrec.access.login_names import denies, folded
from conchrec.access.patterns import HostPattern, TargetAddress, seen_through


class LockKind(Enum):
    """What a lock is of."""

    USER = "user"
    TARGET = "target"
    LOGIN = "login"
    SESSION = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """``name`` is a user's name, a pattern as in ``hosts``, a login pattern, or a session's id. ``until`` is
    aware (None: until it is taken back); ``by`` is who made it, at ``made``; ``of`` the name with which an
    address was locked."""

    kind: LockKind
    name: str
    until: datetime | None = None
    reason: str = ""
    by: str = ""
    made: datetime | None = None
    of: str = ""

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until

    def is_of_user(self, user: str) -> bool:
        return self.kind is LockKind.USER and folded(self.name) == folded(user)

    def is_of_session(self, sid: str) -> bool:
        return self.kind is LockKind.SESSION and self.name == sid

    def is_of_login(self, login: str, user: str) -> bool:
        return self.kind is LockKind.LOGIN and denies(self.name, login, user)

    def is_of_place(self, place: TargetAddress) -> bool:
        """By its name, or by any of its addresses: as with what a role denies."""
        if self.kind is not LockKind.TARGET:
            return False
        pattern = HostPattern.parse(self.name)
        return pattern.names(place) or any(
            pattern.covers(ip, place) for _, given in place.addresses for ip in seen_through(given)
        )

    def __str__(self) -> str:
        """``user joe is locked until 2026-11-24 08:00:00 UTC: stolen laptop``"""
        until = f" until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until is not None else ""
        reason = f": {self.reason}" if self.reason else ""
        of = f" (an address of {self.of})" if self.of else ""
        return f"{self.kind.value} {self.name}{of} is locked{until}{reason}"
