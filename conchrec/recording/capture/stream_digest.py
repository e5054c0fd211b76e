"""SHA-256 of a stream, computed in batches in a thread.

The bytes are copied into batches. To keep the pieces themselves until a thread takes them would cost more
than to hash them at once: in memory that is touched, and in waits for Python's lock after each of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable

#: The size of a batch.
BATCH = 1024 * 1024
#: Pieces of this size are hashed at once where nothing is pending, and a rest of a batch of this size at a
#: flush: that costs less than to wake a thread.
PIECE = 4 * 1024
REST = 64 * 1024
#: The most batches that may wait: where the threads are late, the caller hashes them.
BATCHES = 2


class StreamDigest:
    """The digest of everything that ``update`` was given, in that order.

    ``in_thread`` runs a function in some thread, soon. All methods are called in one thread, that of the
    reactor. At most BATCHES are held, and nothing for long after the last ``flush``.
    """

    __slots__ = (
        "_batch",
        "_busy",
        "_filled",
        "_free",
        "_hash",
        "_hashed",
        "_in_thread",
        "_lock",
        "_ready",
        "size",
    )

    def __init__(self, in_thread: Callable[[Callable[[], None]], None]) -> None:
        self.size = 0
        self._in_thread = in_thread
        self._hash = hashlib.sha256()
        self._hashed = 0
        #: Held by the thread that hashes.
        self._lock = threading.Lock()
        #: The batch that is being filled, and how far.
        self._batch = bytearray()
        self._filled = 0
        #: Batches and their sizes: appended by the caller, taken by the holder of the lock.
        self._ready: deque[tuple[bytearray, int]] = deque()
        #: Batches that can be used again.
        self._free: list[bytearray] = []
        #: A thread was requested, and has not begun.
        self._busy = False

    @property
    def pending(self) -> int:
        """The number of bytes that are not hashed yet."""
        return self.size - self._hashed

    def update(self, data: bytes) -> None:
        """Add the next bytes of the stream."""
        if len(data) <= PIECE and not self.pending:
            self.size += len(data)
            self._hash.update(data)
            self._hashed += len(data)
            return
        self.size += len(data)
        view = memoryview(data)
        while view:
            if not self._batch:
                self._batch = self._free.pop() if self._free else bytearray(BATCH)
            piece = view[: BATCH - self._filled]
            self._batch[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == BATCH:
                self._next()

    def flush(self) -> None:
        """Hash what is pending, soon. Called some milliseconds after an ``update``."""
        if self._ready:
            return  # the thread takes them, and ``flush`` is called again
        if self._filled > REST:
            self._next()
        else:
            self._catch_up()

    def hexdigest(self) -> str:
        """Return the digest of everything so far. Waits for a batch that is being hashed, but for no
        thread."""
        self._catch_up()
        return self._hash.hexdigest()

    def _next(self) -> None:
        """Hand the batch over for hashing, and begin another one."""
        if self._filled:
            self._ready.append((self._batch, self._filled))
            self._batch, self._filled = bytearray(), 0
        if len(self._ready) >= BATCHES:
            self._hash_ready()
        elif not self._busy:
            self._busy = True
            self._in_thread(self._work)

    def _work(self) -> None:
        """Hash the batches, in the thread."""
        self._busy = False
        self._hash_ready()

    def _hash_ready(self) -> None:
        with self._lock:
            while self._ready:
                batch, size = self._ready.popleft()
                self._hash.update(memoryview(batch)[:size])
                self._hashed += size
                self._free.append(batch)

    def _catch_up(self) -> None:
        """Hash everything now, and release the memory."""
        self._hash_ready()
        with self._lock:
            self._hash.update(memoryview(self._batch)[: self._filled])
            self._hashed += self._filled
        self._batch, self._filled = bytearray(), 0
        self._free.clear()
