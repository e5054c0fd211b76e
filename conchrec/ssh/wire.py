"""The types of RFC 4251 section 5, read with a cursor that can say no and written by plain functions.

A value that is cut short, and bytes that are left over, raise: Conch's ``getNS`` returns what there is.
"""

from __future__ import annotations

from collections.abc import Iterable

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode


class Truncated(RemoteViolation):
    """A value reaches beyond the end of its message."""

    default_code = ReasonCode.MALFORMED_MESSAGE


class ExtraBytes(RemoteViolation):
    """Bytes follow the last value of a message."""

    default_code = ReasonCode.MALFORMED_MESSAGE


class Malformed(RemoteViolation):
    """A value that its type does not allow."""

    default_code = ReasonCode.MALFORMED_MESSAGE


class Reader:
    """A cursor over one payload. Each method takes the next value, or raises one of the above."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """``count`` raw bytes."""
        end = self._at + count
        if end > len(self._data):
            raise Truncated("the message is truncated")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def boolean(self) -> bool:
        """Every value but 0 is true (RFC 4251 section 5)."""
        return self.take(1) != b"\x00"

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """``uint32 length`` and as many bytes."""
        return self.take(int.from_bytes(self.take(4), "big"))

    def text(self) -> str:
        """A string that is UTF-8; Malformed where it is not."""
        try:
            return self.string().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("invalid text: must be UTF-8") from error

    def mpint(self) -> int:
        """Two's complement, most significant byte first; the sign is kept."""
        return int.from_bytes(self.string(), "big", signed=True)

    def names(self) -> tuple[bytes, ...]:
        """A name-list: names with commas between them; none at all where it is empty."""
        joined = self.string()
        return tuple(joined.split(b",")) if joined else ()

    def rest(self) -> bytes:
        """All that is left."""
        piece = self._data[self._at :]
        self._at = len(self._data)
        return piece

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise ExtraBytes(f"the message has {len(self._data) - self._at} extra bytes at its end")


def uint32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def uint64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def mpint(value: int) -> bytes:
    """The shortest two's complement form; zero has no bytes."""
    if value == 0:
        return b"\x00\x00\x00\x00"
    length = (value.bit_length() if value > 0 else (value + 1).bit_length()) // 8 + 1
    return string(value.to_bytes(length, "big", signed=True))


def names(values: Iterable[bytes]) -> bytes:
    return string(b",".join(values))
