"""Limits how many ciphers keep an OpenSSL context, so that idle connections need little memory."""

from __future__ import annotations

from collections import deque
from typing import Protocol
from weakref import ref

#: How many contexts are kept by default: about a hundred active connections do not lose theirs.
MAX_CONTEXTS = 512


class ContextOwner(Protocol):
    """A cipher that can make its OpenSSL context again from its key."""

    def drop_context(self) -> None:
        """Release the context; the next packet makes another one."""


class ContextPool:
    """The ciphers that have a context.

    A context takes 2 to 3 KiB, and a session has six. A cipher makes its own when a packet needs it, in 1 to
    5 µs; then the cipher whose context is the oldest loses it. So there is no timer, active connections keep
    their contexts, and those of idle ones go.
    """

    def __init__(self, most: int = MAX_CONTEXTS) -> None:
        self.most = most
        self._owners: deque[ref[ContextOwner]] = deque()

    def add(self, owner: ContextOwner) -> None:
        """Add a cipher that has made a context."""
        self._owners.append(ref(owner))
        while len(self._owners) > self.most:
            oldest = self._owners.popleft()()
            if oldest is not None:
                oldest.drop_context()


#: The pool of this process.
CONTEXTS = ContextPool()
