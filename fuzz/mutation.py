"""Inputs out of valid ones: the same for the same seed and corpus.

Knows that SSH is made of numbers of 32 bits and of strings that follow their length; knows no message.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from conchrec.ssh.wire import string
from fuzz.sequence import pack, unpack

#: Inputs are short, but for a few that show what takes more than linear time.
MAX_SIZE = 4096
MAX_LARGE = 64 * 1024
#: Messages that a sequence has at most.
MAX_MESSAGES = 6
NUMBERS = (0, 1, 2, 4, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x40000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
BYTES = (0x00, 0x01, 0x0A, 0x1B, 0x20, 0x22, 0x2C, 0x7F, 0x80, 0xC3, 0xFE, 0xFF)


class Mutator:
    """Makes inputs without end. ``packed``: of sequences of messages, whose frames stay whole."""

    def __init__(self, seed: str, corpus: Sequence[bytes], *, packed: bool) -> None:
        self._chance = random.Random(seed)
        self._packed = packed
        self._sequences = [unpack(entry) for entry in corpus] if packed else []
        self._pieces = [piece for entry in self._sequences for piece in entry] if packed else list(corpus)
        self._changes = (
            self._flip, self._set, self._number, self._insert, self._delete, self._double, self._splice,
            self._cut, self._change_string, self._change_string, self._change_string,
        )  # fmt: skip

    def next(self) -> bytes:
        """Return the next input."""
        return self._sequence() if self._packed else self._mutated(self._any(self._pieces))

    def _below(self, limit: int) -> int:
        # Several times faster than randrange, and as good for this.
        return int(self._chance.random() * limit)

    def _any(self, of: Sequence[bytes]) -> bytes:
        return of[self._below(len(of))]

    def _sequence(self) -> bytes:
        """A valid sequence with mistakes in it, messages of others put in, left out, twice or swapped."""
        messages = list(self._sequences[self._below(len(self._sequences))])
        for _ in range(self._below(5)):
            at = self._below(len(messages) + 1)
            change = self._below(8)
            if change == 0 or not messages:
                messages.insert(at, self._any(self._pieces))
            elif change == 1:
                messages[at:at] = messages[at - 1 : at + 1]
            elif change == 2:
                del messages[at - 1]
            elif change == 3:
                other = self._below(len(messages))
                messages[at - 1], messages[other] = messages[other], messages[at - 1]
            else:
                messages[at - 1] = self._mutated(messages[at - 1])
        return pack(messages[:MAX_MESSAGES])

    def _mutated(self, piece: bytes) -> bytes:
        if self._below(64) == 0:
            return self._chance.randbytes(self._below(64))
        data = bytearray(piece)
        for _ in range(1 + self._below(4)):
            self._changes[self._below(len(self._changes))](data)
        if self._below(2000) == 0 and data:
            data *= 1 + MAX_LARGE // len(data)
            return bytes(data[:MAX_LARGE])
        return bytes(data[:MAX_SIZE])

    # --- ways, in place

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._below(len(data))] ^= 1 << self._below(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._below(len(data))] = BYTES[self._below(len(BYTES))]

    def _number(self, data: bytearray) -> None:
        """A number of 32 bits, at a place where one may be."""
        at = self._below(len(data) + 1)
        number = NUMBERS[self._below(len(NUMBERS))]
        if self._below(2):
            number = (int.from_bytes(data[at : at + 4], "big") + self._below(5) - 2) & 0xFFFFFFFF
        data[at : at + 4] = number.to_bytes(4, "big")

    def _insert(self, data: bytearray) -> None:
        at = self._below(len(data) + 1)
        data[at:at] = self._chance.randbytes(1 + self._below(8))

    def _delete(self, data: bytearray) -> None:
        at = self._below(len(data) + 1)
        del data[at : at + 1 + self._below(16)]

    def _double(self, data: bytearray) -> None:
        at = self._below(len(data) + 1)
        data[at:at] = data[at : at + 1 + self._below(64)]

    def _splice(self, data: bytearray) -> None:
        """The end, or the middle, of another."""
        other = self._any(self._pieces)
        at, begin = self._below(len(data) + 1), self._below(len(other) + 1)
        size = self._below(len(other) - begin + 1)
        data[at : at + size] = other[begin : begin + size]

    def _cut(self, data: bytearray) -> None:
        del data[self._below(len(data) + 1) :]

    def _change_string(self, data: bytearray) -> None:
        """Something else in the place of a string, with the right length before it."""
        start = self._below(len(data) + 1)
        for at in range(start, min(start + 64, len(data) - 3)):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                continue
            inside = data[at + 4 : end]
            change = self._below(5)
            if change == 0:
                inside = bytearray()
            elif change == 1:
                inside = bytearray(self._chance.randbytes(self._below(48)))
            elif change == 2:
                inside *= 2
            else:
                self._changes[self._below(8)](inside)
            data[at:end] = string(bytes(inside))
            return
