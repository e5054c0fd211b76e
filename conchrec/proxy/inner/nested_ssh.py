"""Detects an SSH connection inside a forward, whose sessions would not be recorded. Pure."""

from __future__ import annotations

import re

SEARCHED_BYTES = 8 * 1024
"""How many bytes are searched: a server may send other lines before its identification (RFC 4253, 4.2)."""
#: The identification string of the protocol versions 2.0, 1.99 and 1.x.
_IDENTIFICATION = re.compile(rb"(?:\A|\n)SSH-[12]")


class SshDetector:
    """Detects the identification string of SSH in one direction of a stream."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: bytes | None = b""

    def feed(self, data: bytes) -> bool:
        """Search the next piece of data. Returns True once: when ``SSH-1`` or ``SSH-2`` is complete.

        At most four of these characters were forwarded before; a peer cannot use them.
        """
        seen = self._seen
        if seen is None:
            return False
        seen += data[: SEARCHED_BYTES - len(seen)]
        is_ssh = _IDENTIFICATION.search(seen) is not None
        self._seen = None if is_ssh or len(seen) >= SEARCHED_BYTES else seen
        return is_ssh
