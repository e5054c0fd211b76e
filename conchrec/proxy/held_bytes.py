"""The bytes of channels that wait for their other end, counted for each user. Pure."""

from __future__ import annotations

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode

#: What may wait on behalf of one user, in all channels of all connections, in bytes.
USER_BYTES = 64 * 1024 * 1024
#: What a message that waits costs beside its payload.
OVERHEAD = 200


class UserWaiting:
    """All that waits on behalf of one user."""

    __slots__ = ("__weakref__", "bytes")

    def __init__(self) -> None:
        self.bytes = 0

    def channel(self) -> ChannelWaiting:
        """The part of a new channel."""
        return ChannelWaiting(self)


class ChannelWaiting:
    """What waits in one channel. ``close`` it at the end of the channel, whatever still waits."""

    __slots__ = ("_user", "bytes")

    def __init__(self, user: UserWaiting) -> None:
        self._user = user
        self.bytes = 0

    def add(self, size: int) -> None:
        """A message of ``size`` bytes waits. Raises RemoteViolation where the user has too much waiting."""
        self._count(size + OVERHEAD)
        if self._user.bytes > USER_BYTES:
            raise RemoteViolation(
                "too much data of this user is waiting to be forwarded", code=ReasonCode.TOO_MANY_MESSAGES
            )

    def remove(self, size: int) -> None:
        """A message of ``size`` bytes was forwarded or dropped."""
        self._count(-size - OVERHEAD)

    def close(self) -> None:
        self._count(-self.bytes)

    def _count(self, size: int) -> None:
        self.bytes += size
        self._user.bytes += size
