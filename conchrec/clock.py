"""The clock as everybody gets it handed in: Twisted's IReactorTime, with types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class DelayedCall(Protocol):
    """A call that is to come (IDelayedCall)."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """A reactor's time, or ``twisted.internet.task.Clock``. Seconds are monotonic."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, what: Callable[..., object], /, *args: object) -> DelayedCall: ...
