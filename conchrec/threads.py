"""Threads as everybody gets them handed in: a function that runs work in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class InThread(Protocol):
    """Runs ``work`` in a thread and fires with its result, in the reactor."""

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]: ...
