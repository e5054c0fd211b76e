"""Where recordings rest: the ``RecordingStore`` protocol, and the local directory.

The store opens recorders, flushes them (one timer for all), takes them to the disk (one thread at a
time for syncs) and seals them. It never deletes a recording.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from conchrec.errors import RecordingError, SpoolFull, WriteFailed
from conchrec.model import SessionInfo
from conchrec.recording import recovery, spool
from conchrec.recording.groupsync import Delayed, GroupSync, InThread, Timers
from conchrec.recording.manifest import Manifest, Status
from conchrec.recording.recorder import ClosedRecording, InputPolicy, SessionRecorder
from conchrec.recording.recovery import Recovered
from conchrec.recording.tree import CAST, MANIFEST, Tree

MERGE_SECONDS = 0.008
"""Output that arrives within this time becomes one event; also how late it may reach the file."""
SYNC_SECONDS = 1.0
SYNC_BYTES = 16 * 1024 * 1024
"""Sooner, where this much was written: a second of a fast download, taken to the disk at once, kept all other
sessions waiting for tens of milliseconds."""


class Fsync(Enum):
    """When the disk is told (``recordings.fsync``). The operating system has it after 8 ms anyway."""

    INTERVAL = "interval"
    """Every second, and at the close."""
    ALWAYS = "always"
    """After every write, in the background, and at the close."""
    NEVER = "never"
    """When the operating system likes."""


class RecordingStore(Protocol):
    """Opens recordings."""

    def open(self, info: SessionInfo) -> SessionRecorder:
        """The recording exists afterwards. Raises RecordingError."""

    def recover(self) -> Deferred[tuple[Recovered, ...]]:
        """Complete what an earlier process left behind; what was done."""

    def shutdown(self, reason: str) -> Deferred[None]:
        """Close every recording that is still open; fires when all of them are sealed."""


class LocalStore:
    """A RecordingStore in a directory.

    ``in_thread`` runs blocking work; ``min_free`` is in bytes; ``monotonic`` is the clock of event
    times and must not follow the wall clock, as a reactor's does.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Timers,
        in_thread: InThread,
        min_free: int = 0,
        policy: InputPolicy = InputPolicy.NO,
        fsync: Fsync = Fsync.INTERVAL,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        create: Callable[[str, int], spool.SpoolFile] = spool.create,
    ) -> None:
        self.directory = directory
        self._tree = Tree(directory)
        self._clock = clock
        self._in_thread = in_thread
        self._min_free = min_free
        self._policy = policy
        self._fsync = fsync
        self._monotonic = monotonic
        self._now = now
        self._create = create
        self._group = GroupSync(clock, in_thread)
        self._live: set[SessionRecorder] = set()
        self._alive: set[str] = set()
        self._to_flush: dict[SessionRecorder, None] = {}
        self._flush_call: Delayed | None = None
        self._to_sync: set[SessionRecorder] = set()
        self._sync_call: Delayed | None = None

    def path(self, sid: str) -> Path:
        """Where the cast of ``sid`` is or would be. ValueError where that is no session id."""
        return self._tree.path(sid)

    @property
    def live(self) -> int:
        """How many recordings of this store are open."""
        return len(self._live)

    def open(self, info: SessionInfo) -> SessionRecorder:
        """Make the file, empty and locked, mode 0600. Raises SpoolFull or WriteFailed."""
        try:
            path = self._tree.path(info.sid)
        except ValueError as error:
            raise WriteFailed(
                "this session can not be recorded: it has no proper id", repr(info.sid)
            ) from error
        alive = info.sid in self._alive
        self._alive.add(info.sid)
        try:
            with self._tree.day(info.sid, make=True) as day:
                self._check_room(day)
                file = self._create(info.sid + CAST, day)
        except BaseException as error:
            if not alive:
                self._alive.discard(info.sid)
            if isinstance(error, OSError):
                raise spool.failure(error) from error
            raise
        recorder = SessionRecorder(
            info,
            spool.Spool(file, lambda: self._tree.sync(info.sid)),
            path,
            keeper=self,
            policy=self._policy,
            monotonic=self._monotonic,
            now=self._now,
        )
        self._live.add(recorder)
        return recorder

    def recover(self) -> Deferred[tuple[Recovered, ...]]:
        """In a thread: see ``recovery.recover``. Recordings that are being written are left alone."""
        return self._in_thread(lambda: recovery.recover(self._tree, self._alive.__contains__))

    def shutdown(self, reason: str) -> Deferred[None]:
        """Close what is open. A recording that fails to close does not keep the others open."""
        closing = [recorder.close(reason).addBoth(lambda _: None) for recorder in tuple(self._live)]
        return gatherResults(closing).addCallback(lambda _: None)

    def _check_room(self, directory: int) -> None:
        if self._min_free:
            room = os.statvfs(directory)
            if room.f_bavail * room.f_frsize < self._min_free:
                raise SpoolFull(
                    "this session can not be recorded: the disk for recordings is almost full",
                    f"{room.f_bavail * room.f_frsize} bytes free of {self._min_free} at {self.directory}",
                )

    # -- Keeper

    def flush_soon(self, recorder: SessionRecorder) -> None:
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(MERGE_SECONDS, self._flush)
        self._to_flush[recorder] = None

    def _flush(self) -> None:
        self._flush_call = None
        recorders, self._to_flush = self._to_flush, {}
        for recorder in recorders:
            recorder.flush_late()

    def written(self, recorder: SessionRecorder) -> None:
        if self._fsync is Fsync.INTERVAL:
            if recorder.spool.size - recorder.spool.asked >= SYNC_BYTES:
                self._sync_in_background(recorder)
                return
            self._to_sync.add(recorder)
            if self._sync_call is None:
                self._sync_call = self._clock.callLater(SYNC_SECONDS, self._sync_dirty)
        elif self._fsync is Fsync.ALWAYS:
            self._sync_in_background(recorder)

    def _sync_dirty(self) -> None:
        self._sync_call = None
        recorders, self._to_sync = self._to_sync, set()
        for recorder in recorders:
            self._sync_in_background(recorder)

    def _sync_in_background(self, recorder: SessionRecorder) -> None:
        self.synced(recorder).addErrback(lambda failure: None)

    def synced(self, recorder: SessionRecorder) -> Deferred[None]:
        recorder.spool.asked = recorder.spool.size
        return self._group.sync(recorder.spool).addErrback(self._sync_failed, recorder)

    def _sync_failed(self, failure: Failure, recorder: SessionRecorder) -> Failure:
        if isinstance(failure.value, RecordingError):
            recorder.sync_failed(failure.value)
        return failure

    def seal(self, recorder: SessionRecorder, manifest: Manifest) -> Deferred[ClosedRecording]:
        self._forget(recorder)
        closed = ClosedRecording(path=recorder.path, manifest=manifest)
        sealing = self._in_thread(lambda: self._seal(recorder.spool, manifest))
        return sealing.addBoth(self._sealed, recorder, closed)

    def _forget(self, recorder: SessionRecorder) -> None:
        """No timer runs for what is closed: an idle store is idle."""
        self._to_flush.pop(recorder, None)
        if not self._to_flush and self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        self._to_sync.discard(recorder)
        if not self._to_sync and self._sync_call is not None:
            self._sync_call.cancel()
            self._sync_call = None

    def _sealed(
        self, result: Failure | None, recorder: SessionRecorder, closed: ClosedRecording
    ) -> ClosedRecording | Failure:
        self._live.discard(recorder)
        self._alive.discard(recorder.info.sid)
        return result if isinstance(result, Failure) else closed

    def _seal(self, file: spool.Spool, manifest: Manifest) -> None:
        """In the thread."""
        durable = self._fsync is not Fsync.NEVER
        try:
            try:
                if durable:
                    file.sync()
            except RecordingError as error:
                failed = replace(manifest, status=Status.FAILED, reason=f"{manifest.reason}: {error.public}")
                self._place(failed, durable=False)
                raise
            # The manifest comes before the lock is lifted: without it another process would think
            # that this recording was interrupted.
            self._place(manifest, durable=durable)
        except OSError as error:
            raise spool.failure(error) from error
        finally:
            file.close()

    def _place(self, manifest: Manifest, *, durable: bool) -> None:
        self._tree.place(manifest.sid + MANIFEST, manifest.sid, manifest.encode(), durable=durable)
