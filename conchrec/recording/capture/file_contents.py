"""Hashes the contents of a file that is transferred, in the order of its offsets, in whatever order its parts
arrive.

The bytes are hashed as they pass and are not kept, except a few that arrive before their turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

#: The most bytes of all files that are kept before their turn. Each packet costs its data and _EARLY bytes.
WINDOW = 4 * 1024 * 1024
_EARLY = 256


class EarlyBytes:
    """How many bytes of all files of a session are kept because they arrived before their turn."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class FileContents:
    """The contents of one file in one direction.

    ``passed`` counts all bytes, and ``next`` those that are hashed, from the beginning; ``reach`` is the
    furthest end of a part. ``reason`` says, where that is so, why there will be no hash. ``result`` is how a
    part failed, empty where none did.
    """

    __slots__ = ("_early", "_hash", "_reserved", "_window", "next", "passed", "reach", "reason", "result")

    def __init__(self, window: EarlyBytes) -> None:
        self._window = window
        self._hash = hashlib.sha256()
        self._early: dict[int, bytearray] = {}
        #: This file's share of ``_window``: an early part counts in full from its first byte on.
        self._reserved = 0
        self.next = 0
        self.passed = 0
        self.reach = 0
        self.reason = ""
        self.result = ""

    def begin(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Begin a packet. Returns a function that takes its bytes, in pieces."""
        self.reach = max(self.reach, offset + length)
        if not length or self.reason:
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
        """A packet is complete: hash the parts whose turn has come."""
        while self._early and (early := self._early.pop(self.next, None)) is not None:
            self._reserve(-len(early) - _EARLY)
            self._hash.update(early)
            self.next += len(early)

    def failed(self, result: str) -> None:
        """Note a failure; the first one is the one that is reported."""
        self.result = self.result or result

    def give_up(self, reason: str) -> None:
        """There will be no hash. The first reason is the one that is reported."""
        self.reason = self.reason or reason
        self._reserve(-self._reserved)
        self._early.clear()

    def close(self, end: int | None, otherwise: str) -> tuple[str, str]:
        """Return the hash, where everything up to ``end`` was hashed, and the reason why it is missing. The
        reason is ``otherwise`` where the end is not known or was not reached."""
        if self._early:
            self.give_up("a part of it is missing" if self.next else "not from its beginning")
        if not self.reason and (end is None or end > self.next):
            self.reason = otherwise
        return ("", self.reason) if self.reason else (self._hash.hexdigest(), "")

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
