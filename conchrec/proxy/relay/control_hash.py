"""Hashes all messages of one direction of a channel that are not data."""

from __future__ import annotations

import hashlib

from conchrec.recording.format.manifest import Control
from conchrec.ssh.wire import string


class ControlHash:
    """Computes the ``Control`` of one direction: call ``add`` with each message when it is forwarded."""

    __slots__ = ("_hash", "_messages", "_size")

    def __init__(self) -> None:
        self._messages = 0
        self._size = 0
        #: Created with the first message, because channels that are no sessions add none.
        self._hash: hashlib._Hash | None = None

    def add(self, message: int, body: bytes) -> None:
        """Add a message; ``body`` is what follows its channel number."""
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._messages += 1
        self._size += len(body)
        self._hash.update(bytes((message,)) + string(body))

    def value(self) -> Control | None:
        """Return the sum of the messages so far, or None without any."""
        if self._hash is None:
            return None
        return Control(messages=self._messages, size=self._size, sha256=self._hash.hexdigest())
