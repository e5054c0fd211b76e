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
        self._hash = hashlib.sha256()

    def add(self, message: int, body: bytes) -> None:
        self._messages += 1
        self._size += len(body)
        self._hash.update(bytes((message,)) + string(body))

    def value(self) -> Control:
        return Control(messages=self._messages, size=self._size, sha256=self._hash.hexdigest())
