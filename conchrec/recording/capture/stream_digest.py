"""SHA-256 of a stream, computed in batches in a thread.

The bytes are copied into batches: to keep the pieces themselves until a thread takes them would cost more, in
memory that is touched and in waiting for Python's lock after each of them, than to hash them at once.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable

#: The size of a batch.
BATCH = 1024 * 1024
#: Pieces of this size are hashed at once where nothing waits, and the rest of a batch where it is time: that
#: costs less than to wake a thread.
PIECE = 4 * 1024
REST = 64 * 1024
#: So many batches may wait: where the threads lag, the caller hashes them.
BATCHES = 2


class StreamDigest:
    """The digest of everything that ``update`` was given, in that order.

    ``in_thread`` runs a function in some thread, soon, and hears nothing of it. All methods are called in one
    thread, the reactor's. At most BATCHES are held, and nothing for long after the last ``flush``.
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
        #: Batches to use again.
        self._free: list[bytearray] = []
        #: The thread has been asked to hash, and has not.
        self._busy = False

    @property
    def waiting(self) -> int:
        """Bytes that are not hashed yet."""
        return self.size - self._hashed

    def update(self, data: bytes) -> None:
        """The next bytes of the stream."""
        if len(data) <= PIECE and not self.waiting:
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
        """Hash what waits, soon: called some milliseconds after an ``update``."""
        if self._ready:
            return  # the thread comes for it, and ``flush`` is called again
        if self._filled > REST:
            self._next()
        else:
            self._catch_up()

    def hexdigest(self) -> str:
        """The digest of everything so far. It waits for a batch that is being hashed, and for no thread."""
        self._catch_up()
        return self._hash.hexdigest()

    def _next(self) -> None:
        """The batch is to be hashed, and another one begins."""
        if self._filled:
            self._ready.append((self._batch, self._filled))
            self._batch, self._filled = bytearray(), 0
        if len(self._ready) >= BATCHES:
            self._hash_ready()
        elif not self._busy:
            self._busy = True
            self._in_thread(self._work)

    def _work(self) -> None:
        """In the thread."""
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
        """Hash everything here and now, and give the memory back."""
        self._hash_ready()
        with self._lock:
            self._hash.update(memoryview(self._batch)[: self._filled])
            self._hashed += self._filled
        self._batch, self._filled = bytearray(), 0
        self._free.clear()
