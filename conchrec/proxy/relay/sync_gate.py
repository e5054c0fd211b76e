"""Delays messages until their recording is on disk (``session_recording: proxy-sync``)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError
from conchrec.proxy.relay.lane import Lane
from conchrec.reasons import ReasonCode


class SyncGate:
    """The gate of the ``lanes`` of one channel: one sync at a time, for all messages that wait.

    The Deferred of ``sync`` fires when everything that was recorded is on disk. ``failed`` is called if it
    cannot be written; the messages then are not released. If ``is_over()``, nothing happens.
    """

    __slots__ = ("_failed", "_is_over", "_is_syncing", "_lanes", "_sync")

    def __init__(
        self,
        sync: Callable[[], Deferred[None]],
        lanes: tuple[Lane, ...],
        *,
        failed: Callable[[ConchrecError], None],
        is_over: Callable[[], bool],
    ) -> None:
        self._sync = sync
        self._lanes = lanes
        self._failed = failed
        self._is_over = is_over
        self._is_syncing = False

    def release(self) -> None:
        """Forget the lanes, which refer to this gate."""
        self._lanes = ()

    def message_waits(self) -> None:
        """Start a sync for a message that was recorded; the lanes call this for each message."""
        if self._is_syncing:
            return
        self._is_syncing = True
        # Messages that are recorded while this sync runs are covered by the next one.
        marks = tuple(lane.mark() for lane in self._lanes)
        self._sync().addCallbacks(lambda _: self._synced(marks), self._sync_failed)

    def _synced(self, marks: tuple[int, ...]) -> None:
        self._is_syncing = False
        if self._is_over():
            return
        for lane, mark in zip(self._lanes, marks, strict=True):
            lane.release(mark)
        if any(lane.pending for lane in self._lanes):
            self.message_waits()

    def _sync_failed(self, failure: Failure) -> None:
        self._is_syncing = False
        if self._is_over():
            return
        error = failure.value
        if not isinstance(error, ConchrecError):
            error = ConchrecError(
                "the recording cannot be written to disk", str(error), code=ReasonCode.WRITE_FAILED
            )
        self._failed(error)
