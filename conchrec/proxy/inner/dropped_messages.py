"""Messages of one channel that were not forwarded: counted and hashed, for the audit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from conchrec.audit import events
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.text import one_line

#: Kinds of dropped messages that one session tells apart; further ones count as one.
DROPPED_KINDS = 32


class DroppedKind:
    """Dropped messages of one number, from one sender, for one reason."""

    __slots__ = ("_from_near", "_hash", "_message", "_reason", "_size", "count")

    def __init__(self, message: int, reason: str, *, from_near: bool) -> None:
        self._message = message
        self._reason = reason
        self._from_near = from_near
        self.count = 0
        self._size = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """One more, with what was dropped of it."""
        self.count += 1
        self._size += len(data)
        self._hash.update(data)

    def event(self, who: events.Who) -> events.MessageDropped:
        """All of them so far, as one event."""
        return events.MessageDropped(
            **who,
            message=m.NAMES[self._message],
            reason=one_line(self._reason),
            size=self._size,
            sha256=self._hash.hexdigest(),
            sender="user" if self._from_near else "target",
            count=self.count,
        )


class DroppedMessages:
    """The dropped messages of one session channel, by kind."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, str, bool], DroppedKind] = {}

    def add(self, message: int, data: bytes, reason: str, *, from_near: bool) -> DroppedKind:
        """Count ``data`` of a message; returns its kind."""
        key = (message, reason, from_near)
        if key not in self._kinds and len(self._kinds) >= DROPPED_KINDS:
            reason = Reason(ReasonCode.FURTHER_REASONS, f"other reasons, after {DROPPED_KINDS}")
            key = (message, reason, from_near)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = DroppedKind(message, reason, from_near=from_near)
        kind.add(data)
        return kind

    def repeated(self) -> Iterator[DroppedKind]:
        """The kinds of which there was more than one message."""
        return (kind for kind in self._kinds.values() if kind.count > 1)
