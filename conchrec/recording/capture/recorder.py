"""Records the facts of one session channel, in the order in which they happen, as an asciicast.

Knows neither SSH nor directories. Every fact is a synchronous call that raises RecordingError where it cannot
be kept. No thread, no Deferred and no log line is made while a session runs, except at its edges (``sync``,
``close``, a failure).

``SessionRecorder`` puts the parts together, each of which has one subject:

- ``lifecycle``: the states of a recording, and the allowed steps.
- ``session_facts``: the facts that become the header and the manifest.
- ``streams``: what of output and input is recorded, counted and hashed; ``terminal_input``: of typed input.
- ``event_writer``: events become lines, and are merged.
- ``recording_file``: lines reach the file, or the recording fails.
- ``background_writes``: flushes and checkpoints by the timers of the store.
- ``outcome``: the result for everyone who closes it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from conchrec.errors import RecordingError
from conchrec.model import SessionInfo
from conchrec.recording.capture.background_writes import BackgroundWrites
from conchrec.recording.capture.event_writer import EventWriter, Timeline
from conchrec.recording.capture.lifecycle import RecordingLifecycle, RecordingState, RecordingStep
from conchrec.recording.capture.outcome import ClosedRecording, RecordingOutcome, recording_error_of
from conchrec.recording.capture.recording_file import RecordingFile
from conchrec.recording.capture.session_facts import SessionFacts, StartFacts
from conchrec.recording.capture.streams import StreamCapture, Totals
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import Control, Manifest, Pty
from conchrec.recording.format.settings import InputPolicy
from conchrec.recording.format.transfer_account import Files
from conchrec.recording.storage.spool import Spool


class RecorderStore(Protocol):
    """What a recorder needs of the store that opened it."""

    def flush_soon(self, recorder: SessionRecorder) -> None:
        """Call ``background.flush`` within some milliseconds. Called once for each flush."""

    def sync_later(self, recorder: SessionRecorder) -> None:
        """Sign and sync the spool later: it has grown."""

    def sync(self, recorder: SessionRecorder) -> Deferred[None]:
        """Sync the spool. Fires when what it holds now is on the disk; errbacks with RecordingError."""

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """Return a signed text: the first ``size`` bytes of this recording have that digest."""

    def seal(self, recorder: SessionRecorder, manifest: Manifest) -> Deferred[ClosedRecording]:
        """Sync, write the manifest, and close the spool; errbacks with RecordingError."""


class SessionRecorder:
    """Records one session channel. Created by ``LocalStore.open``."""

    __slots__ = (
        "__weakref__", "_facts", "_file", "_lifecycle", "_now", "_outcome", "_store", "_streams", "_writer",
        "background", "head", "path",
    )  # fmt: skip

    def __init__(
        self,
        info: SessionInfo,
        spool: Spool,
        path: Path,
        *,
        store: RecorderStore,
        policy: InputPolicy,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self.path = path
        #: The head of the ledger after the line of this recording.
        self.head = ""
        self._store = store
        self._now = now
        self._lifecycle = RecordingLifecycle(info.sid)
        self._facts = SessionFacts(info)
        # A weak reference makes no cycle: the memory is released as soon as the session drops the recorder.
        this = weakref.ref(self)
        self._file = RecordingFile(
            spool, info.sid, self._lifecycle, lambda: _call_store(store.sync_later, this)
        )
        self._writer = EventWriter(
            self._file, Timeline(monotonic), lambda: _call_store(store.flush_soon, this)
        )
        self._streams = StreamCapture(self._writer, policy, self._facts.coverage)
        self._outcome = RecordingOutcome()
        #: For the store.
        self.background = BackgroundWrites(
            self._lifecycle,
            self._file,
            self._writer,
            lambda size, sha256: store.checkpoint(info.sid, size, sha256),
        )

    # -- state

    @property
    def info(self) -> SessionInfo:
        """The session: user, login, target and connection."""
        return self._facts.info

    @property
    def spool(self) -> Spool:
        """The file, for the store."""
        return self._file.spool

    @property
    def failed(self) -> RecordingError | None:
        """The failure of the recording, or None. Every further fact raises it again."""
        return self._lifecycle.failure

    @property
    def state(self) -> RecordingState:
        """The state of the recording."""
        return self._lifecycle.state

    @property
    def totals(self) -> Totals:
        """How much has passed, recorded or not."""
        return self._streams.totals

    def on_failure(self, callback: Callable[[RecordingError], None]) -> None:
        """Set a function that is called, once, with a failure that no call of the session could raise.

        That is a failure of the later write of merged output, or of a sync in the background.
        """
        self._file.on_failure(callback)

    # -- before it starts

    def pty(self, term: str, columns: int, rows: int) -> None:
        """The user requests a terminal, for the next start; also after the target has refused one."""
        self._facts.setup.request_pty(Pty(term=term, columns=columns, rows=rows))
        self.resize(columns, rows)

    def pty_refused(self) -> None:
        """The target refuses the terminal: the session counts as one without a pty."""
        self._facts.setup.pty = None
        if self.state is RecordingState.RUNNING:
            self._streams.choose(has_pty=False)

    def env(self, name: bytes, value: bytes) -> None:
        """The user requests a variable. The header has those that come before it, up to a size. Of a variable
        that is requested twice it has the last value, and a marker has the one before."""
        text, replaced = self._facts.setup.set_variable(name, value)
        if self.state is RecordingState.RUNNING:
            self._writer.marker(text)
        elif replaced:
            self.marker(f"{replaced}, replaced before the start")

    def start(self, kind: str, command: str = "", command_sha256: str = "") -> None:
        """Write the header to the file. Called before the request is forwarded.

        ``kind`` is shell, exec or subsystem; ``command`` the command line or the name of the subsystem, and
        ``command_sha256`` its digest where it was cut or is not UTF-8. Called again where the target has
        refused the first request: the manifest has the last one, and a marker notes it.
        """
        facts, writer = self._facts, self._writer
        again = self.state is RecordingState.RUNNING
        self._lifecycle.enter(RecordingStep.START)
        facts.start = StartFacts(kind=kind, command=command, command_sha256=command_sha256)
        self._streams.start(has_pty=facts.setup.pty is not None)
        if again:
            writer.event(asciicast.START, facts.start.encode())
            writer.marker(f"{kind} {command}".rstrip())
        else:
            writer.header(facts.header(self._now()).line())
            for text in facts.setup.take_markers():
                writer.marker(text)
            if kind == "subsystem":
                writer.marker(f"subsystem {command}")
        self.flush()

    # -- while it runs

    def output(self, data: bytes) -> None:
        """Record output of the target."""
        if self._lifecycle.state is not RecordingState.RUNNING:
            self._begin_early()
        self._streams.output(data)

    def error_output(self, data: bytes) -> None:
        """Record error output of the target, in a session without a pty."""
        if self._lifecycle.state is not RecordingState.RUNNING:
            self._begin_early()
        self._streams.error_output(data)

    def input(self, data: bytes) -> None:
        """Record input of the user."""
        if self._lifecycle.state is not RecordingState.RUNNING:
            self._begin_early()
        self._streams.input(data)

    def withdraw_input(self, size: int) -> None:
        """Do not count ``size`` bytes of the input, which were not forwarded. The digest, which includes
        them, is left out."""
        self._streams.withdraw_input(size)

    def resize(self, columns: int, rows: int) -> None:
        """Record a new size of the terminal; one that players refuse is dropped."""
        if not asciicast.is_valid_size(columns, rows):
            return
        setup = self._facts.setup
        if self.state is RecordingState.OPEN:
            setup.size = (columns, rows)
            return
        self._lifecycle.enter(RecordingStep.FACT)
        if (columns, rows) != setup.size:
            setup.size = (columns, rows)
            self._writer.resize(columns, rows)

    def marker(self, text: str) -> None:
        """Record a named point in time, for something that is not on the screen."""
        if self.state is RecordingState.OPEN:
            self._facts.setup.markers.append(text)
            return
        self._lifecycle.enter(RecordingStep.FACT)
        self._writer.marker(text)

    def transfer(self, *, digest_only: bool) -> None:
        """The session is a file transfer whose protocol is followed: hash its output too.

        Called after ``start``, before anything passes. With ``digest_only`` nothing is recorded until
        ``keep_from_here``, except with a pty, for which no such protocol is made.
        """
        self._lifecycle.enter(RecordingStep.FACT)
        self._streams.transfer(digest_only=digest_only, has_pty=self._facts.setup.pty is not None)

    def keep_from_here(self, from_user: bytes, from_target: bytes) -> None:
        """The protocol is not followed any more: record everything, as of any other session.

        The arguments are bytes that ``input`` and ``output`` were given already, and that are in no part of
        the protocol that was understood.
        """
        self._lifecycle.enter(RecordingStep.FACT)
        self._streams.keep_from_here(from_user, from_target)

    def files(self, files: Files) -> None:
        """Set the file transfers, for the manifest. Called before ``close``."""
        self._facts.files = files

    def control(self, user: Control | None, target: Control | None) -> None:
        """Set the messages other than data that were forwarded from user and from target. Called before
        ``close``."""
        self._facts.control = (user, target)

    def not_kept(self, what: NotKept) -> None:
        """Add to ``coverage`` in the manifest something that only the caller knows of."""
        self._facts.coverage.add(what)

    def exit_status(self, code: int) -> None:
        """Record the exit status of the command."""
        if self.state is not RecordingState.RUNNING:
            self._begin_early()
        self._facts.exit_status = code
        if self._streams.is_digest_only:
            # The cast of a file transfer holds markers only.
            self._writer.marker(f"exit-status {code}")
        else:
            self._writer.exit(code)

    def exit_signal(self, name: str, message: str = "") -> None:
        """Record that a signal (``TERM``) ended the command; ``message`` is that of the target."""
        if self.state is not RecordingState.RUNNING:
            self._begin_early()
        self._facts.exit_signal = name
        self._writer.marker(f"exit-signal {name}: {message}" if message else f"exit-signal {name}")

    def flush(self) -> None:
        """Write everything so far: the operating system has it afterwards, and it survives the end of this
        process."""
        self._writer.flush()

    def _begin_early(self) -> None:
        """Something happens before shell, exec or subsystem: it is recorded anyway."""
        if self.state is RecordingState.OPEN:
            self.start("none")
        else:
            self._lifecycle.enter(RecordingStep.FACT)

    # -- at its edges

    def sync(self) -> Deferred[None]:
        """Sync everything so far. Fires when it is on the disk; errbacks with RecordingError."""
        try:
            self.flush()
        except RecordingError as error:
            return fail(error)
        return self._store.sync(self)

    def close(self, reason: str) -> Deferred[ClosedRecording]:
        """Complete the file and write the manifest. Fires when both are on the disk.

        Errbacks with RecordingError where the recording is incomplete, because it failed before or now. What
        could be kept is kept, with a manifest that says *failed* as far as the disk allows it. May be called
        again: each caller gets the same result.
        """
        done = self._outcome.wait()
        if self.state not in (RecordingState.SEALING, RecordingState.STORED):
            self._finish()
            self._lifecycle.enter(RecordingStep.CLOSE)
            self._store.seal(self, self._manifest(reason)).addBoth(self._sealed)
        return done

    def _finish(self) -> None:
        """Write what is left, so that the file plays in any case. Never raises."""
        if self.state is RecordingState.FAILED:
            return
        try:
            if self.state is RecordingState.OPEN:
                self.start("none")
            self._writer.cut()
            self._streams.end()
            self._writer.marker("end")
            self.flush()
            self.spool.cut()
        except RecordingError as error:
            self._lifecycle.fail(error)  # ``close`` reports it

    def _manifest(self, reason: str) -> Manifest:
        if self._streams.is_lossy:
            self._facts.coverage.add(NotKept.OUTPUT_BYTES)
        manifest = self._facts.manifest(reason, self.failed, self._writer.timeline.duration())
        return self._file.complete(self._streams.complete(manifest))

    def _sealed(self, result: ClosedRecording | Failure) -> None:
        outcome = recording_error_of(result) if isinstance(result, Failure) else result
        self._lifecycle.finish(outcome if isinstance(outcome, RecordingError) else None)
        self._outcome.settle(self.failed or outcome)


def _call_store(method: Callable[[SessionRecorder], None], reference: weakref.ref[SessionRecorder]) -> None:
    """Call a method of the store with a recorder that still exists."""
    if (recorder := reference()) is not None:
        method(recorder)
