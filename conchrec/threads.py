"""The type of the functions that run work in a thread; they are passed to all modules that need one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class InThread(Protocol):
    """A function that runs work in a thread."""

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run ``work`` in a thread. Fires with its result, in the reactor."""
        ...
