"""How much memory all tunnels of one user may use: each further tunnel gets a smaller window."""

from __future__ import annotations

from conchrec.ssh.channel_stream import MAX_PACKET, WINDOW

#: Bytes that may wait in all tunnels of one user, for the target or for the inner connection.
TUNNEL_BYTES = 64 * 1024 * 1024
#: The smallest window of a tunnel, in bytes: one packet.
MIN_WINDOW = MAX_PACKET


class TunnelMemory:
    """The windows of all tunnels of each user: a full window for the first ones, then smaller ones."""

    def __init__(self) -> None:
        self._reserved: dict[str, int] = {}

    @property
    def user_count(self) -> int:
        """How many users have tunnels."""
        return len(self._reserved)

    def reserved(self, user: str) -> int:
        """Bytes that all tunnels of this user may hold together."""
        return self._reserved.get(user, 0)

    def reserve(self, user: str) -> int:
        """Return the window of a new tunnel, in bytes; pass it to ``release`` when the tunnel ends."""
        free = max(0, TUNNEL_BYTES - self.reserved(user))
        window = max(MIN_WINDOW, min(WINDOW, free // 4))
        self._reserved[user] = self.reserved(user) + window
        return window

    def release(self, user: str, window: int) -> None:
        """Return the window of a tunnel that has ended."""
        remaining = self._reserved[user] - window
        if remaining:
            self._reserved[user] = remaining
        else:
            del self._reserved[user]
