"""Messages that wait for the end of a key exchange (RFC 4253 section 7.1). Pure values."""

from __future__ import annotations

#: The cost of a waiting message in addition to its payload, in bytes.
_OVERHEAD = 128


class BlockedMessages:
    """Messages that wait for new keys, in order."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, bytes]] = []
        #: The payload bytes and the overhead of the messages.
        self.cost = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, number: int, payload: bytes) -> None:
        """Add a message."""
        self._messages.append((number, payload))
        self.cost += len(payload) + _OVERHEAD

    def take(self) -> list[tuple[int, bytes]]:
        """Remove and return all messages."""
        messages, self._messages = self._messages, []
        self.cost = 0
        return messages
