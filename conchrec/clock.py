"""The clocks as everybody gets them handed in: Twisted's IReactorTime, with types, and the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol


class DelayedCall(Protocol):
    """A call that is to come (IDelayedCall)."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """A reactor's time, or ``twisted.internet.task.Clock``. Seconds are monotonic."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, what: Callable[..., object], /, *args: object) -> DelayedCall: ...


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(timezone.utc)
