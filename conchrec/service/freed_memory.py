"""Returns freed memory to the operating system after many connections have ended."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

#: The interval at which the number of connections is checked.
SECONDS = 10.0
#: The shortest time between two returns, in seconds.
PAUSE_SECONDS = 60.0
#: At least this many connections, and at least half of those that were open, must have ended.
LEAST = 100


class FreedMemory:
    """Returns freed memory; the service calls ``check`` every SECONDS.

    ``connections`` returns how many connections are open, ``seconds`` is a monotonic clock, and ``release``
    does the work.
    """

    def __init__(
        self,
        connections: Callable[[], int],
        seconds: Callable[[], float],
        release: Callable[[], object],
    ) -> None:
        self._connections = connections
        self._seconds = seconds
        self._release = release
        #: The most connections since the last return.
        self._peak = 0
        self._not_before = 0.0

    def check(self) -> None:
        """Return freed memory if the number of connections has fallen far, and not too often."""
        count, now = self._connections(), self._seconds()
        self._peak = max(self._peak, count)
        if self._peak - count < max(LEAST, self._peak / 2) or now < self._not_before:
            return
        self._release()
        self._peak = count
        self._not_before = now + PAUSE_SECONDS


def trim_heap() -> bool:
    """Return the free pages of the heap to the system. Returns False with another C library than glibc.

    glibc returns only the end of the heap by itself (``keep_freed_memory``).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    return bool(trim(0))
