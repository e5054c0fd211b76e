"""The facts of one session channel, in the order in which they happen, as an asciicast.

Knows neither SSH nor directories. Every fact is a synchronous call that raises RecordingError when it cannot
be kept. Nothing here makes a thread, a Deferred or a log line while a session runs: those are for the edges
(``sync``, ``close``, a failure).

``SessionRecorder`` puts the parts together, each of which has one subject:

- ``lifecycle``: what may happen in each state.
- ``session_facts``: what becomes the header and the manifest.
- ``streams``: what of output and input is kept, counted and hashed; ``terminal_watch``: of what is typed.
- ``event_writer``: events become lines, and are merged.
- ``recording_file``: lines reach the file, or the recording fails.
- ``outcome``: the answer for who closes it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from conchrec.errors import RecordingError, WriteFailed
from conchrec.model import SessionInfo
from conchrec.recording.capture.event_writer import EventWriter, Timeline
from conchrec.recording.capture.lifecycle import RecordingLifecycle, RecordingState, RecordingStep
from conchrec.recording.capture.outcome import ClosedRecording, RecordingOutcome
from conchrec.recording.capture.recording_file import RecordingFile
from conchrec.recording.capture.session_facts import SessionFacts, StartFacts
from conchrec.recording.capture.streams import StreamCapture, Totals
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import Control, Manifest, Pty
from conchrec.recording.format.settings import InputPolicy
from conchrec.recording.format.signatures import CHECKPOINT
from conchrec.recording.format.transfer_account import Files
from conchrec.recording.storage.spool import Spool


class RecorderStore(Protocol):
    """What a recorder asks of the store that opened it."""

    def flush_soon(self, recorder: SessionRecorder) -> None:
        """Call ``flush_late`` within some milliseconds. Asked once per flush."""

    def written(self, recorder: SessionRecorder) -> None:
        """The spool has grown."""

    def synced(self, recorder: SessionRecorder) -> Deferred[None]:
        """Fires when what the spool holds now is on the disk; errbacks with RecordingError."""

    def work_in_thread(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread, soon."""

    def checkpoint(self, sid: str, size: int, sha256: str) -> str:
        """Signed: the first ``size`` bytes of this recording have that digest."""

    def seal(self, recorder: SessionRecorder, manifest: Manifest) -> Deferred[ClosedRecording]:
        """Sync, write the manifest, close the spool; errbacks with RecordingError."""


class SessionRecorder:
    """Records one session channel. Made by a store's ``open``."""

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
        #: The ledger's head, with this recording in it.
        self.head = ""
        self._store = store
        self._now = now
        self._lifecycle = RecordingLifecycle(info.sid)
        self._facts = SessionFacts(info)
        # Weak, so that there is no cycle: the memory is given back as soon as the session lets go of it.
        this = weakref.ref(self)
        self._file = RecordingFile(spool, info.sid, self._lifecycle, lambda: _tell(store.written, this))
        self._writer = EventWriter(self._file, Timeline(monotonic), lambda: _tell(store.flush_soon, this))
        self._streams = StreamCapture(self._writer, policy, self._facts.coverage, store.work_in_thread)
        self._outcome = RecordingOutcome()

    # -- what anybody may ask

    @property
    def info(self) -> SessionInfo:
        """Whose session it is."""
        return self._facts.info

    @property
    def spool(self) -> Spool:
        """The file, for the store."""
        return self._file.spool

    @property
    def failed(self) -> RecordingError | None:
        """What the recording failed of, or None. Every further fact raises that again."""
        return self._lifecycle.failure

    @property
    def state(self) -> RecordingState:
        """How far the recording has come."""
        return self._lifecycle.state

    @property
    def totals(self) -> Totals:
        """How much has passed, kept or not."""
        return self._streams.totals

    def on_failure(self, callback: Callable[[RecordingError], None]) -> None:
        """``callback`` hears, once, of a failure that no call of the caller's own could raise.

        That is one of the merged output's later write, or of a sync in the background.
        """
        self._file.on_failure(callback)

    # -- before it starts

    def pty(self, term: str, columns: int, rows: int) -> None:
        """The user requests a terminal, for the next start: also after the target has refused one."""
        self._facts.setup.request_pty(Pty(term=term, columns=columns, rows=rows))
        self.resize(columns, rows)

    def pty_refused(self) -> None:
        """The target gives none: the session counts as one without a pty."""
        self._facts.setup.pty = None
        if self.state is RecordingState.RUNNING:
            self._streams.choose(has_pty=False)

    def env(self, name: bytes, value: bytes) -> None:
        """The user requests a variable. The header keeps those that come before it, up to a size; of one that
        is requested twice the last value, and a marker has the one before."""
        text, replaced = self._facts.setup.set_variable(name, value)
        if self.state is RecordingState.RUNNING:
            self._writer.marker(text)
        elif replaced:
            self.marker(f"{replaced}, replaced before the start")

    def start(self, kind: str, command: str = "", command_sha256: str = "") -> None:
        """Write the header, through to the file: call it before the request is forwarded.

        ``kind`` is shell, exec or subsystem; ``command`` the command line or the subsystem's name, and
        ``command_sha256`` its digest where it was cut or is not UTF-8. Called again where the target has
        refused the first request: what the manifest says is the last one, and a marker tells.
        """
        facts, writer = self._facts, self._writer
        again = self.state is RecordingState.RUNNING
        self._lifecycle.enter(RecordingStep.START)
        facts.start = StartFacts(kind=kind, command=command, command_sha256=command_sha256)
        self._streams.start(has_pty=facts.setup.pty is not None)
        if again:
            fields = {"kind": kind, "command": command, "command_sha256": command_sha256}
            writer.event(asciicast.START, json.dumps(fields))
            writer.marker(f"{kind} {command}".rstrip())
        else:
            writer.header(facts.header(self._now()).line())
            for text in facts.setup.markers:
                writer.marker(text)
            facts.setup.markers.clear()
            if kind == "subsystem":
                writer.marker(f"subsystem {command}")
        self.flush()

    # -- while it runs

    def output(self, data: bytes) -> None:
        """The target's standard output."""
        if self._lifecycle.state is not RecordingState.RUNNING:
            self._begin_early()
        self._streams.output(data)

    def error_output(self, data: bytes) -> None:
        """The target's standard error, of a session without a pty."""
        if self._lifecycle.state is not RecordingState.RUNNING:
            self._begin_early()
        self._streams.error_output(data)

    def input(self, data: bytes) -> None:
        """What the user sends."""
        if self._lifecycle.state is not RecordingState.RUNNING:
            self._begin_early()
        self._streams.input(data)

    def withdraw_input(self, size: int) -> None:
        """``size`` bytes of the input were not forwarded after all: they do not count, and the digest, which
        includes them, is left out."""
        self._streams.withdraw_input(size)

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size; one that players refuse is dropped."""
        if not asciicast.valid_size(columns, rows):
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
        """A point in time with a name: for what happened that is not on the screen."""
        if self.state is RecordingState.OPEN:
            self._facts.setup.markers.append(text)
            return
        self._lifecycle.enter(RecordingStep.FACT)
        self._writer.marker(text)

    def transfer(self, *, digest_only: bool) -> None:
        """The session is a file transfer whose protocol the caller follows: hash its output, too.

        Called after ``start``, before anything passes. With ``digest_only`` nothing of what passes is kept
        until ``keep_from_here``; not where there is a pty, for which no such protocol is made.
        """
        self._lifecycle.enter(RecordingStep.FACT)
        self._streams.transfer(digest_only=digest_only, has_pty=self._facts.setup.pty is not None)

    def keep_from_here(self, from_user: bytes, from_target: bytes) -> None:
        """The protocol is not followed any more: capture everything, as of any other session.

        The arguments are bytes that ``input`` and ``output`` were given already, and that stand in no part of
        the protocol that was followed.
        """
        self._lifecycle.enter(RecordingStep.FACT)
        self._streams.keep_from_here(from_user, from_target)

    def files(self, files: Files) -> None:
        """What the session did with files, for the manifest: before ``close``."""
        self._facts.files = files

    def control(self, user: Control | None, target: Control | None) -> None:
        """The messages besides data that were forwarded from user and from target: before ``close``."""
        self._facts.control = (user, target)

    def not_kept(self, what: NotKept) -> None:
        """For the manifest's ``coverage``: something that only its caller knows of."""
        self._facts.coverage.add(what)

    def exit_status(self, code: int) -> None:
        """The command's exit status, as the target says it."""
        if self.state is not RecordingState.RUNNING:
            self._begin_early()
        self._facts.exit_status = code
        if self._streams.is_digest_only:
            # The cast of a file transfer holds markers only.
            self._writer.marker(f"exit-status {code}")
        else:
            self._writer.exit(code)

    def exit_signal(self, name: str, message: str = "") -> None:
        """The command was ended by a signal (``TERM``); ``message`` is the target's."""
        if self.state is not RecordingState.RUNNING:
            self._begin_early()
        self._facts.exit_signal = name
        self._writer.marker(f"exit-signal {name}: {message}" if message else f"exit-signal {name}")

    def flush(self) -> None:
        """Everything so far is with the operating system afterwards; it survives our own death."""
        self._writer.flush()

    def _begin_early(self) -> None:
        """Something happens before shell, exec or subsystem: it is recorded anyway."""
        if self.state is RecordingState.OPEN:
            self.start("none")
        else:
            self._lifecycle.enter(RecordingStep.FACT)

    # -- at its edges

    def sync(self) -> Deferred[None]:
        """Fires when everything so far is on the disk; errbacks with RecordingError."""
        try:
            self.flush()
        except RecordingError as error:
            return fail(error)
        return self._store.synced(self)

    def close(self, reason: str) -> Deferred[ClosedRecording]:
        """Complete the file, write the manifest; fires when both are on the disk.

        Errbacks with RecordingError where the recording is not whole: because it failed before, or
        now. What could be kept is then kept, with a manifest that says *failed* as far as the disk
        lets us. May be called again: each caller gets the same answer.
        """
        done = self._outcome.wait()
        if self.state not in (RecordingState.SEALING, RecordingState.STORED):
            self._finish()
            self._lifecycle.enter(RecordingStep.CLOSE)
            self._store.seal(self, self._manifest(reason)).addBoth(self._sealed)
        return done

    def _finish(self) -> None:
        """Write what is left, so that the file plays whatever happened. Never raises."""
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
            self._lifecycle.fail(error)  # and close says it

    def _manifest(self, reason: str) -> Manifest:
        spool = self.spool
        if self._streams.is_lossy:
            self._facts.coverage.add(NotKept.OUTPUT_BYTES)
        manifest = self._facts.manifest(reason, self.failed, self._writer.timeline.duration())
        return replace(
            self._streams.complete(manifest),
            cast_size=spool.size,
            cast_sha256=spool.digest,
            cast_lines=spool.lines,
        )

    def _sealed(self, result: ClosedRecording | Failure) -> None:
        self._lifecycle.enter(RecordingStep.SEALED)
        outcome = self.failed or (result.value if isinstance(result, Failure) else result)
        if not isinstance(outcome, (ClosedRecording, RecordingError)):
            outcome = WriteFailed("this session cannot be recorded", repr(outcome))
        if isinstance(outcome, RecordingError):
            self._lifecycle.failure = outcome
        self._outcome.settle(outcome)

    # -- what the store calls

    def checkpoint(self) -> None:
        """Sign what the file holds. A failure goes to ``on_failure``."""
        spool = self.spool
        if self.state is not RecordingState.RUNNING or self._file.is_signed:
            return
        try:
            self.flush()
            text = self._store.checkpoint(self.info.sid, spool.size, spool.digest)
            line = asciicast.event_line(self._writer.timeline.elapsed(), CHECKPOINT, text)
            self._file.append_signature(line)
        except RecordingError as error:
            self._fail(error)

    def flush_late(self) -> None:
        """The timer's flush: a failure goes to ``on_failure``."""
        self._writer.flush_began()
        if self.state is RecordingState.RUNNING:
            self._streams.flush_digests()
            try:
                self.flush()
            except RecordingError as error:
                self._fail(error)

    def give_up(self, error: RecordingError) -> None:
        """There is no room for more: what came so far is kept, and nothing more is taken."""
        if self.state is RecordingState.RUNNING:
            try:
                self.flush()
            except RecordingError as failed:
                # No call of the session's own has raised this.
                self._fail(failed)
                return
        self.sync_failed(error)

    def sync_failed(self, error: RecordingError) -> None:
        """A sync in the background failed: what the disk holds is not known any more."""
        if self._lifecycle.is_writable():
            self._fail(error)

    def _fail(self, error: RecordingError) -> None:
        """It fails of what no call of the session's own could raise."""
        self._writer.discard()
        self._file.fail(error)


def _tell(method: Callable[[SessionRecorder], None], reference: weakref.ref[SessionRecorder]) -> None:
    """Call a method of the store with a recorder that still exists."""
    if (recorder := reference()) is not None:
        method(recorder)
