"""Detects a stream that begins as SSH does: a forward in which a session would go unrecorded. Pure."""

from __future__ import annotations

import re

LOOKED_AT = 8 * 1024
"""A server may send other lines before (RFC 4253 section 4.2); no more than these bytes of them are read."""
#: The protocol versions that there are: 2.0, 1.99 and 1.x.
_IDENTIFICATION = re.compile(rb"(?:\A|\n)SSH-[12]")


class SshDetector:
    """One direction of a stream, in the pieces in which it comes."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: bytes | None = b""

    def feed(self, data: bytes) -> bool:
        """True once: with the piece that completes the first characters of an identification string.

        Of those characters no more than four can have come before it: not enough for anybody.
        """
        seen = self._seen
        if seen is None:
            return False
        seen += data[: LOOKED_AT - len(seen)]
        found = _IDENTIFICATION.search(seen) is not None
        self._seen = None if found or len(seen) >= LOOKED_AT else seen
        return found
