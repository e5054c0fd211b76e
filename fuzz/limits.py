"""What no input may do, whatever comes of it: take for ever, keep memory, or have an error logged."""

from __future__ import annotations

import functools
import gc
import re
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher


class Broken(Exception):
    """A promise that does not hold, with what was seen instead."""


class Stuck(BaseException):
    """An input that takes too long. No Exception, so that what it interrupts does not swallow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``seconds``: of CPU for one input, roughly. ``blocks`` of Python's allocator (an object is one or
    more), ``resident`` and ``peak`` bytes of the process: by so much may they grow over a whole run."""

    seconds: float = 2.0
    blocks: int = 5000
    resident: int = 48 << 20
    peak: int = 128 << 20


LIMITS = Limits()


class Memory:
    """How much of it there is, without what is only garbage."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._before: tuple[int, int, int] | None = None

    def check(self) -> None:
        """Compare with the first time. Raises Broken."""
        _forget()
        gc.collect()
        now = (
            sys.getallocatedblocks(),
            _resident(),
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        )
        if self._before is None:
            self._before = now
            return
        bounds = (self._limits.blocks, self._limits.resident, self._limits.peak)
        names = ("blocks", "resident bytes", "bytes at most")
        for name, before, after, bound in zip(names, self._before, now, bounds, strict=True):
            if after - before > bound:
                raise Broken(f"memory grows: {before} {name} have become {after}")


_LRU_CACHE = type(functools.cache(len))


def _forget() -> None:
    """Caches that have a bound of their own fill up, which is not what is looked for."""
    re.purge()
    for item in gc.get_objects():
        if type(item) is _LRU_CACHE and item.cache_parameters()["maxsize"] is not None:
            item.cache_clear()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Vigil:
    """While it is entered: the time of each input is taken, and errors in the log are heard."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inputs = 0
        self._seen = -1
        self._errors: list[LogEvent] = []

    def next_input(self) -> None:
        """Count an input."""
        self._inputs += 1

    def check(self) -> None:
        """After an input. Raises Broken where one caused an error that is logged: a peer must not be
        able to."""
        if self._errors:
            event = self._errors[0]
            failure = event.get("log_failure")
            raise Broken(f"logged: {formatEvent(event)}\n{failure.getTraceback() if failure else ''}")

    def __enter__(self) -> Vigil:
        globalLogPublisher.addObserver(self._log)  # type: ignore[arg-type]
        self._handler = signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, self._limits.seconds, self._limits.seconds)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._handler)
        globalLogPublisher.removeObserver(self._log)  # type: ignore[arg-type]

    def _log(self, event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self._errors.append(event)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if self._seen == self._inputs:
            raise Stuck(f"it takes more than {self._limits.seconds} s of CPU")
        self._seen = self._inputs
