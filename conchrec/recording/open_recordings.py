"""The recordings that are open: they are flushed, signed and synced by timers, and sealed at their end.

One timer serves all recordings, and one thread syncs at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import RecordingError, SpoolFull
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.settings import Fsync
from conchrec.recording.storage import spool
from conchrec.recording.storage.group_commit import GroupSync
from conchrec.threads import InThread

MERGE_SECONDS = 0.008
"""Output that arrives within this time becomes one event. It reaches the file after this time at most."""
TICK_SECONDS = 1.0
"""The longest time until written lines are signed and synced to the disk."""
TICK_AT_ONCE = 16
"""The recordings that are signed in one turn of the reactor: a signature takes 50 µs."""
SYNC_BYTES = 16 * 1024 * 1024
"""The bytes after which a recording is synced earlier. A sync of a whole second of a fast download kept all
other sessions waiting for tens of milliseconds."""


class RecorderTimer:
    """Calls ``call`` with all recorders that were added, ``seconds`` after the first of them."""

    def __init__(
        self, clock: Clock, seconds: float, call: Callable[[tuple[SessionRecorder, ...]], None]
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._call = call
        self._recorders: dict[SessionRecorder, None] = {}
        self._timer: DelayedCall | None = None

    def add(self, recorder: SessionRecorder) -> None:
        """Add a recorder, and start the timer if it does not run."""
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._expire)
        self._recorders[recorder] = None

    def remove(self, recorder: SessionRecorder) -> None:
        """Remove a recorder, and stop a timer that nobody needs: an idle store is idle."""
        self._recorders.pop(recorder, None)
        if not self._recorders and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        recorders, self._recorders = tuple(self._recorders), {}
        self._call(recorders)


class OpenRecordings:
    """The open recordings of a store; the RecorderStore of their recorders.

    ``in_thread`` runs the syncs, ``to_seal`` what is done at the end of a recording, which may take long.
    ``check_room`` raises SpoolFull or OSError when the disk is so full that open recordings must fail.
    ``on_sealed`` is called with each recording that is complete.
    """

    def __init__(
        self,
        finisher: Finisher,
        clock: Clock,
        *,
        fsync: Fsync,
        in_thread: InThread,
        to_seal: InThread,
        check_room: Callable[[], None],
        on_sealed: Callable[[ClosedRecording], None],
    ) -> None:
        self._finisher = finisher
        self._clock = clock
        self._fsync = fsync
        self._to_seal = to_seal
        self._check_room = check_room
        self._on_sealed = on_sealed
        self._sync_group = GroupSync(clock, in_thread)
        self._recorders: set[SessionRecorder] = set()
        self._sids: set[str] = set()
        self._flush_timer = RecorderTimer(clock, MERGE_SECONDS, _flush)
        self._tick_timer = RecorderTimer(clock, TICK_SECONDS, self._tick)

    # -- called by the store

    @property
    def count(self) -> int:
        """The number of open recordings."""
        return len(self._recorders)

    def has(self, sid: str) -> bool:
        """Whether this recording is open or reserved. May be called in a thread."""
        return sid in self._sids

    def reserve(self, sid: str) -> bool:
        """Reserve a session id before its file exists. Returns whether it was not reserved yet."""
        is_new = sid not in self._sids
        self._sids.add(sid)
        return is_new

    def release(self, sid: str) -> None:
        """Release a session id whose file could not be created."""
        self._sids.discard(sid)

    def add(self, recorder: SessionRecorder) -> None:
        """Add a recorder; its session id is reserved."""
        self._recorders.add(recorder)

    def close(self, reason: str) -> Deferred[None]:
        """Close all recordings. One that fails to close does not keep the others open."""
        closing = [recorder.close(reason).addBoth(lambda _: None) for recorder in tuple(self._recorders)]
        return gatherResults(closing).addCallback(lambda _: None)

    # -- RecorderStore

    def flush_soon(self, recorder: SessionRecorder) -> None:
        """Flush the recorder with the next timer."""
        self._flush_timer.add(recorder)

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """Return the signed text of a checkpoint."""
        return self._finisher.checkpoint(sid, size, sha256)

    def sync_later(self, recorder: SessionRecorder) -> None:
        """Sign and sync the recorder's file with the next timer; sync it now where much was written."""
        self._tick_timer.add(recorder)
        grown = recorder.spool.size - recorder.spool.sync_requested
        if self._fsync is Fsync.ALWAYS or (self._fsync is Fsync.INTERVAL and grown >= SYNC_BYTES):
            self._sync_in_background(recorder)

    def _tick(self, recorders: tuple[SessionRecorder, ...]) -> None:
        """Check the free space, then sign and sync what was written. Called about a second after the first
        write."""
        try:
            self._check_room()
        except (SpoolFull, OSError) as error:
            full = error if isinstance(error, SpoolFull) else spool.recording_error(error)
            for recorder in tuple(self._recorders):
                recorder.background.give_up(full)
            return
        self._tick_batch(deque(recorders))

    def _tick_batch(self, recorders: deque[SessionRecorder]) -> None:
        for _ in range(min(len(recorders), TICK_AT_ONCE)):
            recorder = recorders.popleft()
            recorder.background.checkpoint()
            if self._fsync is not Fsync.NEVER:
                self._sync_in_background(recorder)
        if recorders:
            self._clock.callLater(0, self._tick_batch, recorders)

    def _sync_in_background(self, recorder: SessionRecorder) -> None:
        self.sync(recorder).addErrback(lambda failure: None)

    def sync(self, recorder: SessionRecorder) -> Deferred[None]:
        """Sync the recorder's file. Fires when it is on the disk."""
        recorder.spool.sync_requested = recorder.spool.size
        return self._sync_group.sync(recorder.spool).addErrback(self._sync_failed, recorder)

    def _sync_failed(self, failure: Failure, recorder: SessionRecorder) -> Failure:
        if isinstance(failure.value, RecordingError):
            recorder.background.sync_failed(failure.value)
        return failure

    def seal(self, recorder: SessionRecorder, manifest: Manifest) -> Deferred[ClosedRecording]:
        """Sync, write the manifest and close the file, in a thread."""
        self._flush_timer.remove(recorder)
        self._tick_timer.remove(recorder)
        sealing = self._to_seal(lambda: self._seal(recorder.spool, manifest))
        return sealing.addBoth(self._finish_seal, recorder)

    def _finish_seal(
        self, result: ClosedRecording | Failure, recorder: SessionRecorder
    ) -> ClosedRecording | Failure:
        self._recorders.discard(recorder)
        self._sids.discard(recorder.info.sid)
        if not isinstance(result, Failure):
            self._on_sealed(result)
        return result

    def _seal(self, file: spool.Spool, manifest: Manifest) -> ClosedRecording:
        """Sync and seal a recording, in the thread."""
        durable = self._fsync is not Fsync.NEVER
        try:
            try:
                if durable:
                    file.sync()
            except RecordingError as error:
                failed = replace(manifest, status=Status.FAILED, reason=f"{manifest.reason}: {error.public}")
                self._finisher.seal(failed, durable=False)
                raise
            # The manifest is written before the lock is released: without it another process would take
            # this recording for an interrupted one.
            sealed = self._finisher.seal(manifest, durable=durable)
        except OSError as error:
            raise spool.recording_error(error) from error
        finally:
            file.close()
        path = self._finisher.tree.path(manifest.sid)
        return ClosedRecording(path=path, manifest=sealed.manifest, head=sealed.head)


def _flush(recorders: tuple[SessionRecorder, ...]) -> None:
    for recorder in recorders:
        recorder.background.flush()
