"""The store of recordings: a directory of this machine.

The store opens recorders, flushes them (one timer for all), syncs them to the disk (one thread at a time) and
seals them. It never removes a recording.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall, utc_now
from conchrec.disk_space import check_room
from conchrec.errors import RecordingError, SpoolFull, WriteFailed
from conchrec.model import SessionInfo
from conchrec.reasons import ReasonCode
from conchrec.recording import recovery
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.manifest import Manifest, Status
from conchrec.recording.format.settings import Fsync, InputPolicy
from conchrec.recording.recovery import Recovered
from conchrec.recording.storage import spool
from conchrec.recording.storage.encodings import ZstdFrames
from conchrec.recording.storage.group_commit import GroupSync
from conchrec.recording.storage.layout import COMPRESSED
from conchrec.threads import InThread

_log = Logger()

MERGE_SECONDS = 0.008
"""Output that arrives within this time becomes one event. It reaches the file after this time at most."""
TICK_SECONDS = 1.0
"""The longest time until written lines are signed and synced to the disk."""
TICK_AT_ONCE = 16
"""The recordings that are signed in one turn of the reactor: a signature takes 50 µs."""
PAUSE_SECONDS = 0.004
"""How long work in a thread sleeps after each millisecond or so, because other threads need Python's lock."""
SYNC_BYTES = 16 * 1024 * 1024
"""The bytes after which a recording is synced earlier. A sync of a whole second of a fast download kept all
other sessions waiting for tens of milliseconds."""


def let_others_run() -> None:
    """Sleep between two steps of work in a thread that holds Python's lock."""
    time.sleep(PAUSE_SECONDS)


class LocalStore:
    """Recordings in a directory.

    ``in_thread`` runs blocking work. ``min_free`` is in bytes: below it no recording is opened, and below
    half of it the open ones fail. ``monotonic`` is the clock of event times: it must not follow the wall
    clock, as a reactor's does. ``to_seal`` runs work that may take long, so that it does not delay syncs of
    live recordings. ``on_sealed`` is called with each recording that is complete.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        in_thread: InThread,
        finisher: Finisher,
        min_free: int = 0,
        compress: bool = False,
        policy: InputPolicy = InputPolicy.NO,
        fsync: Fsync = Fsync.INTERVAL,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        create: Callable[[str, int], spool.SpoolFile] = spool.create,
        to_seal: InThread | None = None,
        on_sealed: Callable[[ClosedRecording], None] = lambda closed: None,
    ) -> None:
        self._finisher = finisher
        self._tree = finisher.tree
        self.directory = self._tree.root
        self._compress = compress
        self._clock = clock
        self._in_thread = in_thread
        self._min_free = min_free
        self._policy = policy
        self._fsync = fsync
        self._monotonic = monotonic
        self._now = now
        self._create = create
        self._to_seal = to_seal or in_thread
        self._on_sealed = on_sealed
        self._group = GroupSync(clock, in_thread)
        self._live: set[SessionRecorder] = set()
        self._alive: set[str] = set()
        self._stopping = False
        self._to_flush: dict[SessionRecorder, None] = {}
        self._flush_call: DelayedCall | None = None
        self._dirty: dict[SessionRecorder, None] = {}
        self._tick_call: DelayedCall | None = None

    def path(self, sid: str) -> Path:
        """Return where the cast of ``sid`` is or would be. Raises ValueError for an invalid session id."""
        return self._tree.path(sid)

    @property
    def live(self) -> int:
        """The number of recordings of this store that are open."""
        return len(self._live)

    def open(self, info: SessionInfo) -> SessionRecorder:
        """Create the file, empty and locked, with mode 0600. Raises SpoolFull or WriteFailed."""
        try:
            path = self._tree.new_path(info.sid)
            if self._compress:
                path = path.with_name(info.sid + COMPRESSED)
        except ValueError as error:
            raise WriteFailed(
                "this session cannot be recorded: invalid session id",
                repr(info.sid),
                code=ReasonCode.INVALID_NAME,
            ) from error
        alive = info.sid in self._alive
        self._alive.add(info.sid)
        try:
            with self._tree.open_day(info.sid, make=True) as day:
                self._check_room(day)
                file = self._create(path.name, day)
                try:
                    head = self._finisher.begin(info.sid)
                except BaseException:
                    # The file is empty, and nothing names it.
                    os.unlink(path.name, dir_fd=day)
                    file.close()
                    raise
        except BaseException as error:
            if not alive:
                self._alive.discard(info.sid)
            if isinstance(error, OSError):
                raise spool.recording_error(error) from error
            raise
        recorder = SessionRecorder(
            info,
            spool.Spool(file, lambda: self._tree.sync(info.sid), ZstdFrames() if self._compress else None),
            path,
            store=self,
            policy=self._policy,
            monotonic=self._monotonic,
            now=self._now,
        )
        recorder.head = head
        self._live.add(recorder)
        return recorder

    def recover(self) -> Deferred[tuple[Recovered, ...]]:
        """Run ``recovery.recover`` in a thread. Recordings that are being written are left alone."""

        def pause() -> None:
            if self._stopping:
                raise recovery.RecoveryStopped
            let_others_run()

        return self._in_thread(lambda: recovery.recover(self._finisher, self._alive.__contains__, pause))

    def shutdown(self, reason: str) -> Deferred[None]:
        """Stop a recovery and close the open recordings. One that fails to close does not keep the others
        open."""
        self._stopping = True
        closing = [recorder.close(reason).addBoth(lambda _: None) for recorder in tuple(self._live)]
        return gatherResults(closing).addCallback(lambda _: None)

    def _check_room(self, directory: int | Path, least: int | None = None) -> None:
        least = self._min_free if least is None else least
        check_room("recordings", directory, least, self.directory)

    # -- RecorderStore

    def flush_soon(self, recorder: SessionRecorder) -> None:
        """Flush the recorder with the next timer."""
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(MERGE_SECONDS, self._flush)
        self._to_flush[recorder] = None

    def _flush(self) -> None:
        self._flush_call = None
        recorders, self._to_flush = self._to_flush, {}
        for recorder in recorders:
            recorder.background.flush()

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """Return the signed text of a checkpoint."""
        return self._finisher.checkpoint(sid, size, sha256)

    def sync_later(self, recorder: SessionRecorder) -> None:
        """Sign and sync the recorder's file with the next timer; sync it now where much was written."""
        self._dirty[recorder] = None
        if self._tick_call is None:
            self._tick_call = self._clock.callLater(TICK_SECONDS, self._tick)
        grown = recorder.spool.size - recorder.spool.sync_requested
        if self._fsync is Fsync.ALWAYS or (self._fsync is Fsync.INTERVAL and grown >= SYNC_BYTES):
            self._sync_in_background(recorder)

    def _tick(self) -> None:
        """Check the free space, then sign and sync what was written. Called about a second after the first
        write."""
        self._tick_call = None
        recorders, self._dirty = self._dirty, {}
        try:
            self._check_room(self.directory, self._min_free // 2)
        except (SpoolFull, OSError) as error:
            full = error if isinstance(error, SpoolFull) else spool.recording_error(error)
            for recorder in tuple(self._live):
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
        return self._group.sync(recorder.spool).addErrback(self._sync_failed, recorder)

    def _sync_failed(self, failure: Failure, recorder: SessionRecorder) -> Failure:
        if isinstance(failure.value, RecordingError):
            recorder.background.sync_failed(failure.value)
        return failure

    def seal(self, recorder: SessionRecorder, manifest: Manifest) -> Deferred[ClosedRecording]:
        """Sync, write the manifest and close the file, in a thread."""
        self._cancel_timers(recorder)
        sealing = self._to_seal(lambda: self._seal(recorder.spool, manifest))
        return sealing.addBoth(self._finish_seal, recorder)

    def _cancel_timers(self, recorder: SessionRecorder) -> None:
        """Forget a closed recorder, and stop the timers that nobody needs: an idle store is idle."""
        self._to_flush.pop(recorder, None)
        if not self._to_flush and self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        self._dirty.pop(recorder, None)
        if not self._dirty and self._tick_call is not None:
            self._tick_call.cancel()
            self._tick_call = None

    def _finish_seal(
        self, result: ClosedRecording | Failure, recorder: SessionRecorder
    ) -> ClosedRecording | Failure:
        self._live.discard(recorder)
        self._alive.discard(recorder.info.sid)
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
        return ClosedRecording(path=self._tree.path(manifest.sid), manifest=sealed.manifest, head=sealed.head)
