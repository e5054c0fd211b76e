"""The hash over all messages of one direction of a channel that are not data."""

from __future__ import annotations

import hashlib

from conchrec.recording.format.manifest import Control
from conchrec.ssh.wire import string


class ControlHash:
    """Adds up a ``Control``: ``add`` each message as it is forwarded."""

    __slots__ = ("_hash", "_messages", "_size")

    def __init__(self) -> None:
        self._messages = 0
        self._size = 0
        #: Made with the first message: most channels that are no sessions never have one.
        self._hash: hashlib._Hash | None = None

    def add(self, message: int, body: bytes) -> None:
        """One more message, with what follows its channel number."""
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._messages += 1
        self._size += len(body)
        self._hash.update(bytes((message,)) + string(body))

    def value(self) -> Control | None:
        """What was added so far; None where nothing was."""
        if self._hash is None:
            return None
        return Control(messages=self._messages, size=self._size, sha256=self._hash.hexdigest())
