"""Returns freed memory to the operating system after many connections have ended."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from conchrec.clock import Clock, DelayedCall
from conchrec.service.garbage import collect_all, collect_new

#: The interval at which the number of connections is checked.
SECONDS = 10.0
#: The shortest time between two returns, in seconds.
PAUSE_SECONDS = 60.0
#: At least this many connections, and at least half of those that were open, must have ended; or all.
LEAST = 100
#: The reactor forgets all cancelled timers when they are more than 50, and more than half of its timers.
CANCELLED = 64
LONG_SECONDS = 3600.0
MOMENT_SECONDS = 0.1


class FreedMemory:
    """Returns freed memory; the service calls ``check`` every SECONDS.

    ``connections`` returns how many connections are open, ``seconds`` is a monotonic clock, and ``release``
    gets the number of connections and does the work.
    """

    def __init__(
        self,
        connections: Callable[[], int],
        seconds: Callable[[], float],
        release: Callable[[int], object],
    ) -> None:
        self._connections = connections
        self._seconds = seconds
        self._release = release
        #: The most connections since the last return.
        self._peak = 0
        #: The number of connections at the last check.
        self._last = 0
        self._not_before = 0.0

    def check(self) -> None:
        """Return freed memory if the number of connections has fallen far, and not too often.

        While many end, it waits: what ends later would keep the memory around it.
        """
        count, now = self._connections(), self._seconds()
        self._peak = max(self._peak, count)
        is_falling, self._last = self._last - count >= LEAST, count
        has_fallen = count == 0 < self._peak or self._peak - count >= max(LEAST, self._peak / 2)
        if not has_fallen or is_falling or now < self._not_before:
            return
        self._release(count)
        self._peak = count
        self._not_before = now + PAUSE_SECONDS


def return_memory(clock: Clock, connections: int) -> None:
    """Return what is free to the system, in some moments, while so many connections are open.

    Python allocates small objects from blocks of 1 MiB, and returns a block when no object is left in it. So
    few objects can keep much memory: garbage, and cancelled timers, of which the reactor keeps 50 until they
    are due.
    """
    timers = [clock.callLater(LONG_SECONDS, int) for _ in range(CANCELLED)]
    clock.callLater(MOMENT_SECONDS, _cancel, timers)
    clock.callLater(2 * MOMENT_SECONDS, _return_memory, connections)


def _cancel(timers: list[DelayedCall]) -> None:
    """Cancel more timers than the reactor keeps."""
    for timer in timers:
        timer.cancel()


def _return_memory(connections: int) -> None:
    if connections:
        collect_new()
    else:
        collect_all()
    trim_heap()


def trim_heap() -> bool:
    """Return the free pages of the heap to the system. Returns False with another C library than glibc.

    glibc returns only the end of the heap by itself (``keep_freed_memory``).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    return bool(trim(0))
