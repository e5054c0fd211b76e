"""SHA-256 of a stream, computed in batches in a thread."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable

#: With so many bytes a batch goes to the thread. Few bytes are hashed at once, where it is time: that costs
#: less than to wake a thread.
BATCH = 256 * 1024
AT_ONCE = 64 * 1024
#: More than this does not wait: where the threads lag, the caller hashes it.
WAITING = 1024 * 1024


class StreamDigest:
    """The digest of everything that ``update`` was given, in that order.

    ``in_thread`` runs a function in some thread, soon, and hears nothing of it. All methods are called in one
    thread, the reactor's. At most WAITING bytes are held, and only until the next ``flush``.
    """

    __slots__ = ("_busy", "_hash", "_hashed", "_in_thread", "_lock", "_waiting", "size")

    def __init__(self, in_thread: Callable[[Callable[[], None]], None]) -> None:
        self.size = 0
        self._in_thread = in_thread
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        #: Appended to by the caller, taken from by whoever has the lock.
        self._waiting: deque[bytes] = deque()
        self._hashed = 0
        #: The thread has been asked to hash, and has not.
        self._busy = False

    @property
    def waiting(self) -> int:
        """Bytes that are not hashed yet."""
        return self.size - self._hashed

    def update(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self.size += len(data)
        self._waiting.append(data)
        if self.waiting >= WAITING:
            self._catch_up()
        elif self.waiting >= BATCH:
            self._hand_over()

    def flush(self) -> None:
        """See to it that nothing is held for long: called some milliseconds after an ``update``."""
        if self._busy:
            return
        if self.waiting <= AT_ONCE:
            self._catch_up()
        else:
            self._hand_over()

    def hexdigest(self) -> str:
        """The digest of everything so far. It waits for a batch that is being hashed, and for no thread."""
        self._catch_up()
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        if not self._busy:
            self._busy = True
            self._in_thread(self._work)

    def _work(self) -> None:
        """In the thread."""
        self._busy = False
        self._catch_up()

    def _catch_up(self) -> None:
        """Hash what waits, in one piece: after each piece the thread waits for Python's lock."""
        with self._lock:
            chunks = []
            while self._waiting:
                chunks.append(self._waiting.popleft())
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._hash.update(data)
            self._hashed += len(data)
