"""What passes of one file, hashed in the order of its offsets however its parts arrive.

The bytes are hashed as they pass and are never kept, except a few that come before their turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

#: Bytes that came before their turn, of all files; each packet costs its data and this.
WINDOW = 4 * 1024 * 1024
_EARLY = 256


class EarlyBytes:
    """How much of all files of a session is kept because it came before its turn."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class FileContents:
    """What passes of one file in one direction.

    ``passed`` are the bytes that passed at all, ``next`` those that are hashed, all from the beginning,
    ``reach`` where the furthest of them ends; ``why`` says, once that is so, why there will be no hash.
    """

    __slots__ = ("_early", "_hash", "_reserved", "_window", "next", "passed", "reach", "why")

    def __init__(self, window: EarlyBytes) -> None:
        self._window = window
        self._hash = hashlib.sha256()
        self._early: dict[int, bytearray] = {}
        #: This file's share of ``_window``: an early part counts in full from its first byte on.
        self._reserved = 0
        self.next = 0
        self.passed = 0
        self.reach = 0
        self.why = ""

    def begin(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Where the bytes of this packet go, in pieces."""
        self.reach = max(self.reach, offset + length)
        if not length or self.why:
            return self._count
        if offset == self.next:
            return self._in_turn
        if offset < self.next or offset in self._early:
            self.give_up("a part of it passed twice")
        elif self._window.held + length + _EARLY > WINDOW:
            self.give_up("not from its beginning" if not self.next else "too far out of order")
        else:
            self._reserve(length + _EARLY)
            early = self._early[offset] = bytearray()
            return partial(self._before_its_turn, early)
        return self._count

    def catch_up(self) -> None:
        """A packet is complete: hash what now has its turn."""
        while self._early and (early := self._early.pop(self.next, None)) is not None:
            self._reserve(-len(early) - _EARLY)
            self._hash.update(early)
            self.next += len(early)

    def give_up(self, why: str) -> None:
        """There will be no hash. The first reason is the one that is told."""
        self.why = self.why or why
        self._reserve(-self._reserved)
        self._early.clear()

    def close(self, end: int | None, unless: str) -> tuple[str, str]:
        """The hash, where all up to ``end`` was hashed, or why there is none: ``unless``, where nobody said
        what the end is, or it was not reached."""
        if self._early:
            self.give_up("a part of it is missing" if self.next else "not from its beginning")
        if not self.why and (end is None or end > self.next):
            self.why = unless
        return ("", self.why) if self.why else (self._hash.hexdigest(), "")

    def _reserve(self, size: int) -> None:
        self._reserved += size
        self._window.held += size

    def _count(self, piece: memoryview) -> None:
        self.passed += len(piece)

    def _in_turn(self, piece: memoryview) -> None:
        self.passed += len(piece)
        self.next += len(piece)
        self._hash.update(piece)

    def _before_its_turn(self, early: bytearray, piece: memoryview) -> None:
        self.passed += len(piece)
        early += piece
