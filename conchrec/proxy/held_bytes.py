"""Counts the bytes that channels hold until their other end accepts them, for each user. Pure."""

from __future__ import annotations

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode

#: The most bytes that may be held for one user, in all channels of all connections.
HELD_BYTES_OF_USER = 64 * 1024 * 1024
#: What a held message costs in memory, in addition to its payload.
OVERHEAD = 200


class UserHeldBytes:
    """The bytes that all channels of one user hold."""

    __slots__ = ("__weakref__", "bytes")

    def __init__(self) -> None:
        self.bytes = 0

    def channel(self) -> ChannelHeldBytes:
        """Return the count of a new channel, which adds to this one."""
        return ChannelHeldBytes(self)


class ChannelHeldBytes:
    """The bytes that one channel holds. Call ``close`` at the end of the channel."""

    __slots__ = ("_user", "bytes")

    def __init__(self, user: UserHeldBytes) -> None:
        self._user = user
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count a message of ``size`` bytes. Raises RemoteViolation if the user has too many bytes held."""
        self._count(size + OVERHEAD)
        if self._user.bytes > HELD_BYTES_OF_USER:
            raise RemoteViolation(
                "too much data of this user is waiting to be forwarded", code=ReasonCode.TOO_MANY_MESSAGES
            )

    def remove(self, size: int) -> None:
        """Remove a message of ``size`` bytes, which was forwarded or dropped."""
        self._count(-size - OVERHEAD)

    def close(self) -> None:
        """Remove everything that the channel still holds."""
        self._count(-self.bytes)

    def _count(self, size: int) -> None:
        self.bytes += size
        self._user.bytes += size
