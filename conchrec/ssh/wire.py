"""The data types of RFC 4251 section 5: a cursor that reads them, and functions that encode them.

A truncated value and extra bytes raise; Conch's ``getNS`` returns whatever is there.
"""

from __future__ import annotations

from collections.abc import Iterable

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode


class Truncated(RemoteViolation):
    """A value is longer than the rest of its message."""

    default_code = ReasonCode.MALFORMED_MESSAGE


class ExtraBytes(RemoteViolation):
    """Bytes follow the last value of a message."""

    default_code = ReasonCode.MALFORMED_MESSAGE


class Malformed(RemoteViolation):
    """A value is invalid for its type."""

    default_code = ReasonCode.MALFORMED_MESSAGE


class Reader:
    """A cursor over one payload. Each method returns the next value, or raises one of the errors above."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise Truncated("the message is truncated")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def byte(self) -> int:
        """Return a byte as a number."""
        return self.take(1)[0]

    def boolean(self) -> bool:
        """Return a boolean: every byte except 0 is true (RFC 4251 section 5)."""
        return self.take(1) != b"\x00"

    def uint32(self) -> int:
        """Return a uint32."""
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        """Return a uint64."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """Return the bytes of a string: ``uint32 length``, then that many bytes."""
        # Without calling take, which is slower: a login reads 145 strings.
        data, begin = self._data, self._at + 4
        end = begin + int.from_bytes(data[self._at : begin], "big")
        if end > len(data):
            raise Truncated("the message is truncated")
        self._at = end
        return data[begin:end]

    def text(self) -> str:
        """Return a string as UTF-8 text. Raises Malformed."""
        try:
            return self.string().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("invalid text: must be UTF-8") from error

    def mpint(self) -> int:
        """Return an mpint: two's complement, most significant byte first. It may be negative."""
        return int.from_bytes(self.string(), "big", signed=True)

    def names(self) -> tuple[bytes, ...]:
        """Return a name-list: names separated by commas. An empty string is an empty list."""
        joined = self.string()
        return tuple(joined.split(b",")) if joined else ()

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        piece = self._data[self._at :]
        self._at = len(self._data)
        return piece

    @property
    def at_end(self) -> bool:
        """Whether no bytes are left."""
        return self._at >= len(self._data)

    def end(self) -> None:
        """Raise ExtraBytes if bytes are left."""
        if self._at != len(self._data):
            raise ExtraBytes(f"the message has {len(self._data) - self._at} extra bytes at its end")


def uint32(value: int) -> bytes:
    """Encode a uint32."""
    return value.to_bytes(4, "big")


def uint64(value: int) -> bytes:
    """Encode a uint64."""
    return value.to_bytes(8, "big")


def string(value: bytes) -> bytes:
    """Encode a string: ``uint32 length``, then the bytes."""
    return len(value).to_bytes(4, "big") + value


def mpint(value: int) -> bytes:
    """Encode an mpint in the shortest two's complement form; zero has no bytes."""
    if value == 0:
        return b"\x00\x00\x00\x00"
    length = (value.bit_length() if value > 0 else (value + 1).bit_length()) // 8 + 1
    return string(value.to_bytes(length, "big", signed=True))


def names(values: Iterable[bytes]) -> bytes:
    """Encode a name-list."""
    return string(b",".join(values))
