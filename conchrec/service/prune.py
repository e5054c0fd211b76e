"""Removes recordings that are older or larger than ``recordings.retention`` allows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from conchrec.audit import events
from conchrec.proxy.context import ProxyContext
from conchrec.recording import retention
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.store import let_others_run
from conchrec.threads import InThread

_log = Logger()

SECONDS = 3600.0
"""The interval."""


class Pruner:
    """Removes old recordings; the service calls it once an hour. ``removed`` is called after a removal."""

    def __init__(
        self, context: ProxyContext, finisher: Finisher, in_thread: InThread, removed: Callable[[], None]
    ) -> None:
        self._context = context
        self._finisher = finisher
        self._in_thread = in_thread
        self._removed = removed

    def prune(self) -> Deferred[None]:
        """Remove old recordings. Never fails."""
        return Deferred.fromCoroutine(self._remove_old()).addErrback(
            lambda failure: _log.failure("cannot remove old recordings", failure=failure)
        )

    async def _remove_old(self) -> None:
        kept, finisher = self._context.settings.config.recordings.retention, self._finisher
        now = self._context.services.now
        if kept.age is None and not kept.size:
            return

        def find() -> tuple[retention.ExpiredRecording, ...]:
            # First, so that the ledger knows every hold that is added while the rest is read.
            finisher.ledger.refresh()
            expired = retention.expired_recordings(
                finisher.tree, finisher.keys, now(), age=kept.age, size=kept.size, pause=let_others_run
            )
            return tuple(expired)

        expired = await self._in_thread(find)
        for recording in expired:
            if self._context.registry.is_stopping:
                return
            if await self._in_thread(partial(finisher.ledger.is_held, recording.sid)):
                continue
            # A recording whose removal cannot be audited stays.
            self._context.services.audit.emit(
                events.RecordingRemoved(sid=recording.sid, by="conchrec", reason=recording.reason)
            )
            await self._in_thread(partial(self._remove, recording))
        if expired:
            self._removed()

    def _remove(self, recording: retention.ExpiredRecording) -> None:
        """Runs in a thread."""
        finisher = self._finisher
        retention.remove(
            finisher.tree, finisher.ledger, recording.sid, reason=recording.reason, by="conchrec"
        )
