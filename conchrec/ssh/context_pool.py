"""Limits how many ciphers keep an OpenSSL context, so that idle connections need little memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol
from weakref import ref

#: How many contexts are kept by default: about forty active sessions do not lose theirs.
MAX_CONTEXTS = 256


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
        #: Oldest context first. A reference leaves with its cipher: the memory around it can be returned.
        self._owners: OrderedDict[ref[ContextOwner], None] = OrderedDict()

    def add(self, owner: ContextOwner) -> None:
        """Add a cipher that has made a context."""
        self._owners[ref(owner, self._forget)] = None
        while len(self._owners) > self.most:
            oldest = self._owners.popitem(last=False)[0]()
            if oldest is not None:
                oldest.drop_context()

    def _forget(self, owner: ref[ContextOwner]) -> None:
        self._owners.pop(owner, None)


#: The pool of this process.
CONTEXTS = ContextPool()
