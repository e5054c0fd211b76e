"""Reads recordings for the users who view them: in threads, in short steps, and the users take turns.

Each user has one step in progress at a time, however many recordings the user views. A step that is cancelled
before it begins does not run. After each step its thread pauses as long as the step took: a step holds
Python's global lock, and the sessions come first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.threads import InThread

T = TypeVar("T")

THREADS = 2
MOST_USERS = 1000
"""The most users whose last turn is remembered."""
SHORTEST_REST, LONGEST_REST = 0.0005, 1.0
"""Limits of the pause after a step, in seconds: as long as the processor time of the step. A wait for the
disk delays nobody else and does not count."""


class ReadingQueue:
    """The steps that wait, for each user. ``in_thread`` has at least ``threads`` threads."""

    def __init__(self, clock: Clock, in_thread: InThread, *, threads: int = THREADS) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._free = threads
        #: The steps of each user that have not begun.
        self._waiting: dict[str, deque[tuple[Deferred[Any], Callable[[], Any]]]] = {}
        self._busy: set[str] = set()
        #: The number of each user's last turn.
        self._turns: dict[str, int] = {}
        self._turn = 0

    def run(self, user: str, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work`` in a thread when it is the user's turn; fires with its result.

        It must be short, whatever the recording contains.
        """
        done: Deferred[T] = Deferred(lambda done: self._cancel(user, done))
        self._waiting.setdefault(user, deque()).append((done, work))
        self._next()
        return done

    def _cancel(self, user: str, done: Deferred[Any]) -> None:
        waiting = self._waiting.get(user, deque())
        others = deque(step for step in waiting if step[0] is not done)
        if others:
            self._waiting[user] = others
        else:
            self._waiting.pop(user, None)

    def _next(self) -> None:
        while self._free:
            ready = [user for user in self._waiting if user not in self._busy]
            if not ready:
                return
            user = min(ready, key=lambda user: self._turns.get(user, 0))
            if len(self._turns) > MOST_USERS:
                self._turns.clear()
            self._turn += 1
            self._turns[user] = self._turn
            done, work = self._waiting[user].popleft()
            if not self._waiting[user]:
                del self._waiting[user]
            self._free -= 1
            self._busy.add(user)
            self._in_thread(lambda work=work: _timed(work)).addBoth(  # type: ignore[misc]
                self._finished, user, done
            )

    def _finished(self, outcome: tuple[float, Any] | Failure, user: str, done: Deferred[Any]) -> None:
        seconds, result = outcome if isinstance(outcome, tuple) else (0.0, outcome)
        self._busy.discard(user)
        if seconds > SHORTEST_REST:
            self._clock.callLater(min(seconds, LONGEST_REST), self._rested)
        else:
            self._rested()
        if not done.called:
            done.callback(result)

    def _rested(self) -> None:
        self._free += 1
        self._next()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The processor time of ``work`` in seconds, and its result or Failure."""
    began = time.thread_time()
    try:
        result: Any = work()
    except Exception:
        result = Failure()
    return time.thread_time() - began, result
