"""Syncs many files to the disk, in one thread.

At most one sync runs at a time. Requests that come during a sync share the next one, so a hundred sessions
cost as many syncs as the disk can do, and no more.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import RecordingError, WriteFailed
from conchrec.threads import InThread


class Syncable(Protocol):
    """An object with a ``sync`` that blocks and may raise RecordingError."""

    def sync(self) -> None:
        """Sync to the disk."""


class GroupSync:
    """Groups requests for ``sync`` by the turn of the reactor, and by the sync that runs."""

    def __init__(self, clock: Clock, in_thread: InThread) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._requests: dict[Syncable, list[Deferred[None]]] = {}
        self._is_busy = False

    def sync(self, what: Syncable) -> Deferred[None]:
        """Fires when all that ``what`` was given before this call is on the disk."""
        done: Deferred[None] = Deferred()
        if not self._requests and not self._is_busy:
            # One turn later, so that all requests of this turn of the reactor share a sync.
            self._clock.callLater(0, self._start)
        self._requests.setdefault(what, []).append(done)
        return done

    def _start(self) -> None:
        group, self._requests = self._requests, {}
        self._is_busy = True
        self._in_thread(lambda: _sync_each(tuple(group))).addBoth(self._done, group)

    def _done(
        self, results: dict[Syncable, RecordingError] | Failure, group: dict[Syncable, list[Deferred[None]]]
    ) -> None:
        self._is_busy = False
        if self._requests:
            self._clock.callLater(0, self._start)
        for what, waiters in group.items():
            error: RecordingError | Failure | None
            error = results if isinstance(results, Failure) else results.get(what)
            for waiter in waiters:
                if error is None:
                    waiter.callback(None)
                else:
                    waiter.errback(error)


def _sync_each(group: tuple[Syncable, ...]) -> dict[Syncable, RecordingError]:
    """Sync each, in the thread. Returns the errors of those that failed."""
    errors: dict[Syncable, RecordingError] = {}
    for what in group:
        try:
            what.sync()
        except RecordingError as error:
            errors[what] = error
        except Exception as error:  # an internal error of one must not keep the others waiting for ever
            errors[what] = WriteFailed("this session cannot be recorded", repr(error))
    return errors
