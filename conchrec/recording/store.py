"""The store of recordings: a directory of this machine.

The store opens recorders, and completes interrupted recordings. It never removes one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from twisted.internet.defer import Deferred

from conchrec.clock import Clock, utc_now
from conchrec.disk_space import check_room
from conchrec.errors import WriteFailed
from conchrec.model import SessionInfo
from conchrec.reasons import ReasonCode
from conchrec.recording import recovery
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.format.settings import Fsync, InputPolicy
from conchrec.recording.open_recordings import OpenRecordings
from conchrec.recording.recovery import Recovered
from conchrec.recording.storage import spool
from conchrec.recording.storage.encodings import ZstdFrames
from conchrec.recording.storage.layout import COMPRESSED
from conchrec.threads import InThread

PAUSE_SECONDS = 0.004
"""How long work in a thread sleeps after each millisecond or so, because other threads need Python's lock."""


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
        self._in_thread = in_thread
        self._min_free = min_free
        self._policy = policy
        self._monotonic = monotonic
        self._now = now
        self._create = create
        self._stopping = False
        self._recordings = OpenRecordings(
            finisher,
            clock,
            fsync=fsync,
            in_thread=in_thread,
            to_seal=to_seal or in_thread,
            check_room=lambda: self._check_room(self.directory, min_free // 2),
            on_sealed=on_sealed,
        )

    def path(self, sid: str) -> Path:
        """Return where the cast of ``sid`` is or would be. Raises ValueError for an invalid session id."""
        return self._tree.path(sid)

    @property
    def live(self) -> int:
        """The number of recordings of this store that are open."""
        return self._recordings.count

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
        is_new = self._recordings.reserve(info.sid)
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
            if is_new:
                self._recordings.release(info.sid)
            if isinstance(error, OSError):
                raise spool.recording_error(error) from error
            raise
        recorder = SessionRecorder(
            info,
            spool.Spool(file, lambda: self._tree.sync(info.sid), ZstdFrames() if self._compress else None),
            path,
            store=self._recordings,
            policy=self._policy,
            monotonic=self._monotonic,
            now=self._now,
        )
        recorder.head = head
        self._recordings.add(recorder)
        return recorder

    def recover(self) -> Deferred[tuple[Recovered, ...]]:
        """Run ``recovery.recover`` in a thread. Recordings that are being written are left alone."""

        def pause() -> None:
            if self._stopping:
                raise recovery.RecoveryStopped
            let_others_run()

        return self._in_thread(lambda: recovery.recover(self._finisher, self._recordings.has, pause))

    def shutdown(self, reason: str) -> Deferred[None]:
        """Stop a recovery and close the open recordings."""
        self._stopping = True
        return self._recordings.close(reason)

    def _check_room(self, directory: int | Path, least: int | None = None) -> None:
        least = self._min_free if least is None else least
        check_room("recordings", directory, least, self.directory)
