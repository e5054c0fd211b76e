"""Fields of the connection protocol, written and parsed here without conchrec's own code.

The oracle must not inherit a mistake of the parsers that it checks.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE = 80, 81, 82
OPEN, OPEN_CONFIRMATION, OPEN_FAILURE = 90, 91, 92
ADJUST, DATA, EXTENDED, EOF, CLOSE, REQUEST, SUCCESS, FAILURE = 93, 94, 95, 96, 97, 98, 99, 100

NAMES = {
    GLOBAL_REQUEST: "GLOBAL_REQUEST", REQUEST_SUCCESS: "REQUEST_SUCCESS", REQUEST_FAILURE: "REQUEST_FAILURE",
    OPEN: "OPEN", OPEN_CONFIRMATION: "OPEN_CONFIRMATION", OPEN_FAILURE: "OPEN_FAILURE", ADJUST: "ADJUST",
    DATA: "DATA", EXTENDED: "EXTENDED", EOF: "EOF", CLOSE: "CLOSE", REQUEST: "REQUEST", SUCCESS: "SUCCESS",
    FAILURE: "FAILURE",
}  # fmt: skip


class Short(Exception):
    """A message that ends too early."""


def u32(value: int) -> bytes:
    """Encode a uint32."""
    return struct.pack(">I", value & 0xFFFFFFFF)


def text(value: bytes) -> bytes:
    """Encode a string."""
    return struct.pack(">I", len(value)) + value


class Cursor:
    """Takes fields from the front of a message."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def u32(self) -> int:
        """Read a uint32."""
        return int.from_bytes(self._take(4), "big")

    def flag(self) -> bool:
        """Read a boolean."""
        return self._take(1) != b"\0"

    def text(self) -> bytes:
        """Read a string."""
        return self._take(self.u32())

    def _take(self, size: int) -> bytes:
        if len(self.left) < size:
            raise Short
        data, self.left = self.left[:size], self.left[size:]
        return data


@dataclass(frozen=True, slots=True)
class Request:
    """A global or channel request."""

    name: bytes
    want_reply: bool
    extra: bytes

    @classmethod
    def parse(cls, body: bytes) -> Request:
        """Parse name, want_reply and the rest."""
        cursor = Cursor(body)
        return cls(cursor.text(), cursor.flag(), cursor.left)

    def encode(self) -> bytes:
        """Encode name, want_reply and the rest."""
        return text(self.name) + (b"\1" if self.want_reply else b"\0") + self.extra


class Control:
    """Digests of messages other than data, as a manifest has them: SHA-256 over each one's number, length and
    body. CLOSE may have been sent by the proxy itself, so there is one digest without a CLOSE at the end."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._before_close = self._hash

    def add(self, number: int, body: bytes) -> None:
        """Add a control message to the digest."""
        if number in (OPEN_CONFIRMATION, OPEN_FAILURE, DATA, EXTENDED):
            return
        if number == CLOSE:
            self._before_close = self._hash.copy()
        self._hash.update(bytes((number,)) + text(body))
        if number != CLOSE:
            self._before_close = self._hash

    def digests(self) -> set[str]:
        """Return the digests with and without the CLOSE."""
        return {self._hash.hexdigest(), self._before_close.hexdigest()}


#: The fields of the requests that are known: t for a text, i for a number, b for a boolean.
LAYOUTS = {
    b"shell": "",
    b"exec": "t",
    b"subsystem": "t",
    b"env": "tt",
    b"pty-req": "tiiiit",
    b"window-change": "iiii",
    b"signal": "t",
    b"break": "i",
    b"xon-xoff": "b",
    b"x11-req": "btti",
    b"auth-agent-req@openssh.com": "",
    b"eow@openssh.com": "",
    b"keepalive@openssh.com": "",
    b"simple@putty.projects.tartarus.org": "",
    b"winadj@putty.projects.tartarus.org": "",
    b"exit-status": "i",
    b"exit-signal": "tbtt",
}


def fields(layout: str, body: bytes) -> tuple[list[bytes | int | bool], bytes] | None:
    """The fields of a body and the surplus behind them; None if they are not there."""
    cursor = Cursor(body)
    values: list[bytes | int | bool] = []
    try:
        for kind in layout:
            values.append(cursor.text() if kind == "t" else cursor.u32() if kind == "i" else cursor.flag())
    except Short:
        return None
    return values, cursor.left
