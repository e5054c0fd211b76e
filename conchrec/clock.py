"""The clocks that are passed to all other modules: Twisted's IReactorTime, with types, and the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol


class DelayedCall(Protocol):
    """A scheduled call (IDelayedCall)."""

    def cancel(self) -> None:
        """Do not make the call. Raises an error if it was made or cancelled."""
        ...

    def active(self) -> bool:
        """Whether the call will still be made."""
        ...


class Clock(Protocol):
    """The time of a reactor, or ``twisted.internet.task.Clock``."""

    def seconds(self) -> float:
        """The current time in seconds, from a clock that is never set back."""
        ...

    def callLater(self, delay: float, what: Callable[..., object], /, *args: object) -> DelayedCall:
        """Call ``what`` with these arguments after ``delay`` seconds."""
        ...


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(timezone.utc)
