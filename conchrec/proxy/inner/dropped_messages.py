"""Audits the messages that were not forwarded: their number, their size and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from conchrec.audit import events
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.text import one_line

#: Kinds of dropped messages that one channel distinguishes; all further ones count as one kind.
DROPPED_KINDS = 32


class DroppedKind:
    """The dropped messages of one number, from one sender, for one reason."""

    __slots__ = ("_hash", "_message", "_reason", "_sender", "_size", "count")

    def __init__(self, message: int, reason: str, sender: str) -> None:
        self._message = message
        self._reason = reason
        self._sender = sender
        self.count = 0
        self._size = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Count a message; ``data`` is the part of it that was dropped."""
        self.count += 1
        self._size += len(data)
        self._hash.update(data)

    def event(self, who: events.Who) -> events.MessageDropped:
        """Return one event about all messages so far."""
        return events.MessageDropped(
            **who,
            message=m.NAMES[self._message],
            reason=one_line(self._reason),
            size=self._size,
            sha256=self._hash.hexdigest(),
            sender=self._sender,
            count=self.count,
        )


class DroppedMessages:
    """The dropped messages of one channel, by kind."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, str, str], DroppedKind] = {}

    def add(self, message: int, data: bytes, reason: str, sender: str) -> DroppedKind:
        """Count a message of the ``sender`` (user or target); returns its kind."""
        key = (message, reason, sender)
        if key not in self._kinds and len(self._kinds) >= DROPPED_KINDS:
            reason = Reason(
                ReasonCode.FURTHER_REASONS, f"various reasons: more than {DROPPED_KINDS} kinds of messages"
            )
            key = (message, reason, sender)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = DroppedKind(message, reason, sender)
        kind.add(data)
        return kind

    def repeated(self) -> Iterator[DroppedKind]:
        """Return the kinds with more than one message."""
        return (kind for kind in self._kinds.values() if kind.count > 1)


def dropped_event(
    who: events.Who, message: int, data: bytes, reason: str, sender: str
) -> events.MessageDropped:
    """Return the event about one message that belongs to no channel."""
    kind = DroppedKind(message, reason, sender)
    kind.add(data)
    return kind.event(who)
