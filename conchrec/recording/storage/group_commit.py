"""Many wait for the disk, one thread goes there.

At most one sync runs at a time. Whoever asks meanwhile shares the next one, so a hundred sessions
cost as many trips as the disk can make, and no more.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import RecordingError, WriteFailed
from conchrec.threads import InThread


class Syncable(Protocol):
    """Something with a ``sync`` that blocks and may raise RecordingError."""

    def sync(self) -> None: ...


class GroupSync:
    """Groups calls for ``sync`` by the turn of the reactor and by the trip that is under way."""

    def __init__(self, clock: Clock, in_thread: InThread) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._waiting: dict[Syncable, list[Deferred[None]]] = {}
        self._under_way = False

    def sync(self, what: Syncable) -> Deferred[None]:
        """Fires when all that ``what`` had been given before this call is on the disk."""
        done: Deferred[None] = Deferred()
        if not self._waiting and not self._under_way:
            # One turn later, so that all that this turn of the reactor brings goes together.
            self._clock.callLater(0, self._go)
        self._waiting.setdefault(what, []).append(done)
        return done

    def _go(self) -> None:
        group, self._waiting = self._waiting, {}
        self._under_way = True
        self._in_thread(lambda: _sync_each(tuple(group))).addBoth(self._done, group)

    def _done(
        self, results: dict[Syncable, RecordingError] | Failure, group: dict[Syncable, list[Deferred[None]]]
    ) -> None:
        self._under_way = False
        if self._waiting:
            self._clock.callLater(0, self._go)
        for what, waiters in group.items():
            error: RecordingError | Failure | None
            error = results if isinstance(results, Failure) else results.get(what)
            for waiter in waiters:
                if error is None:
                    waiter.callback(None)
                else:
                    waiter.errback(error)


def _sync_each(group: tuple[Syncable, ...]) -> dict[Syncable, RecordingError]:
    """In the thread: sync each; what went wrong, for those where something did."""
    errors: dict[Syncable, RecordingError] = {}
    for what in group:
        try:
            what.sync()
        except RecordingError as error:
            errors[what] = error
        except Exception as error:  # a bug in one must not let the others wait for ever
            errors[what] = WriteFailed("this session cannot be recorded", repr(error))
    return errors
