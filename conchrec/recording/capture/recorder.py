"""The facts of one session channel, in the order in which they happen, as an asciicast.

Decides what is captured; knows neither SSH nor directories. Every fact is a synchronous call that
raises RecordingError when it can not be kept. Nothing here makes a thread, a Deferred or a log line
while a session runs: those are for the edges (``sync``, ``close``, a failure).

What is captured:

- output and error output as ``o``, in the order of arrival. Not while the caller follows the protocol of
  a file transfer (``transfer``): then the cast holds markers, and the manifest's ``files`` have the hash of
  each file. From the point where it is not followed any more everything is captured (``keep_from_here``).
- input: always counted, and hashed where there is no pty (the hash of a typed password could be
  guessed). ``InputPolicy`` says what of it is kept.
- of a file transfer the hash of its output, too.
- resizes, markers, and how it ended.

Output that arrives within a few milliseconds becomes one event, of about 32 KiB at most. Events are
written when the store's timer says so, when 256 KiB are held, and at every ``flush``.
"""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.errors import RecordingError, WriteFailed
from conchrec.model import SessionInfo
from conchrec.reasons import ReasonCode
from conchrec.recording.capture.echoed_input import Echo, HiddenInput, Kept
from conchrec.recording.capture.shell_commands import Begun, Commands
from conchrec.recording.capture.stream_digest import StreamDigest
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.environment import Environment
from conchrec.recording.format.kept_text import KeptText
from conchrec.recording.format.manifest import Control, Manifest, Pty, ShellCommand, Status, StreamTotals
from conchrec.recording.format.signatures import CHECKPOINT
from conchrec.recording.format.transfer_account import Files
from conchrec.recording.storage.spool import Spool
from conchrec.recording.terminal.current_line import ShownLine

COMMANDS_LISTED = 1000
"""Commands of a shell session that the manifest lists."""
INPUT_KEPT = 1024 * 1024
"""Bytes of standard input that are kept of a session without a pty, where input is kept at all."""

_log = Logger()
_EVENT_SIZE = 32 * 1024
_FLUSH_AT = 256 * 1024
#: More pieces than this are joined: a system call takes 1,024 (IOV_MAX), and small ones cost more than that.
_PIECES = 64
_HELD_AT_MOST = 0.5
_decoder = codecs.getincrementaldecoder("utf-8")


class InputPolicy(Enum):
    """What is kept of what the user sends (``recordings.input``)."""

    NO = "no"
    """Counts and hashes only."""
    WITHOUT_PTY = "without-pty"
    """The first MiB where there is no pty: scripts, but not what somebody types."""
    YES = "yes"
    """What is typed at a pty too, as far as it is shown there (``echo``); without a pty the first MiB."""


class RecordingState(Enum):
    """The life of a recording."""

    OPEN = "open"
    """The file is there, and empty."""
    RUNNING = "running"
    """The header is written."""
    FAILED = "failed"
    SEALING = "sealing"
    STORED = "stored"


class RecordingStep(Enum):
    """What can happen to a recording."""

    START = "start"
    FACT = "fact"
    FAIL = "fail"
    CLOSE = "close"
    SEALED = "sealed"


NEXT: dict[tuple[RecordingState, RecordingStep], RecordingState] = {
    (RecordingState.OPEN, RecordingStep.START): RecordingState.RUNNING,
    # A channel may ask again where the target refused the first request (a subsystem, then exec).
    (RecordingState.RUNNING, RecordingStep.START): RecordingState.RUNNING,
    (RecordingState.RUNNING, RecordingStep.FACT): RecordingState.RUNNING,
    (RecordingState.OPEN, RecordingStep.FAIL): RecordingState.FAILED,
    (RecordingState.RUNNING, RecordingStep.FAIL): RecordingState.FAILED,
    (RecordingState.RUNNING, RecordingStep.CLOSE): RecordingState.SEALING,
    (RecordingState.FAILED, RecordingStep.CLOSE): RecordingState.SEALING,
    (RecordingState.SEALING, RecordingStep.SEALED): RecordingState.STORED,
}
"""Where each act leads. What is not here raises RecordingError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRecording:
    """A recording that is on the disk, with its manifest beside it; ``head`` is the ledger's, with it."""

    path: Path
    manifest: Manifest
    head: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the .cast file, hexadecimal."""
        return self.manifest.cast_sha256

    @property
    def size(self) -> int:
        """Bytes of the .cast file."""
        return self.manifest.cast_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Bytes of each stream so far."""

    stdout: int
    stderr: int
    stdin: int


class Keeper(Protocol):
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
        keeper: Keeper,
        policy: InputPolicy,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self.info = info
        self.path = path
        self.spool = spool
        #: The ledger's head, with this recording in it.
        self.head = ""
        self._keeper = keeper
        self._policy = policy
        self._monotonic = monotonic
        self._now = now
        self._state = RecordingState.OPEN
        self._failure: RecordingError | None = None
        self._on_failure: Callable[[RecordingError], None] | None = None
        self._closers: list[Deferred[ClosedRecording]] = []
        self._outcome: ClosedRecording | RecordingError | None = None
        # what the header and the manifest say
        self._pty: Pty | None = None
        self._size = asciicast.DEFAULT_SIZE
        self._env: dict[str, str] = {}
        self._environment = Environment()
        self._kind = ""
        self._command = ""
        self._command_sha256 = ""
        self._control: tuple[Control | None, Control | None] = (None, None)
        self._exit_status: int | None = None
        self._exit_signal = ""
        self._early_markers: list[str] = []
        # what was seen
        self._stdout = 0
        self._stderr = 0
        self._stdin = 0
        self._stdin_digest = StreamDigest(keeper.work_in_thread)
        #: Of the output of a file transfer.
        self._stdout_digest: StreamDigest | None = None
        self._files: Files | None = None
        #: A file transfer is followed: neither its output nor its input is kept.
        self._digest_only = False
        self._input_left = 0
        # what a person types at a terminal, as far as the screen tells
        self._line: ShownLine | None = None
        self._commands: Commands | None = None
        self._echo: Echo | None = None
        self._given: list[ShellCommand] = []
        self._given_left_out = 0
        self._not_kept: set[NotKept] = set()
        # what is not yet in the file: whole lines, then one run of chunks of one stream
        self._out = _StreamDecoder(asciicast.OUTPUT)
        self._err = _StreamDecoder(asciicast.OUTPUT)
        self._in = _StreamDecoder(asciicast.INPUT)
        self._lines: list[bytes] = []
        self._run: _StreamDecoder | None = None
        self._chunks: list[bytes] = []
        self._run_size = 0
        self._run_time = 0.0
        self._held = 0
        self._held_since = 0.0
        self._flush_asked = False
        self._opened = monotonic()
        self._zero = self._opened
        self._last = 0.0
        #: What the spool's size was after the last checkpoint.
        self._signed = 0

    # -- what anybody may ask

    @property
    def failed(self) -> RecordingError | None:
        """What the recording failed of, or None. Every further fact raises that again."""
        return self._failure

    @property
    def state(self) -> RecordingState:
        return self._state

    @property
    def totals(self) -> Totals:
        """How much has passed, kept or not."""
        return Totals(stdout=self._stdout, stderr=self._stderr, stdin=self._stdin)

    def on_failure(self, callback: Callable[[RecordingError], None]) -> None:
        """``callback`` hears, once, of a failure that no call of the caller's own could raise.

        That is one of the merged output's later write, or of a sync in the background.
        """
        self._on_failure = callback

    # -- before it starts

    def pty(self, term: str, columns: int, rows: int) -> None:
        """The user asks for a terminal."""
        if self._state is RecordingState.OPEN:
            self._pty = Pty(term=term, columns=columns, rows=rows)
            self._env["TERM"] = term
        self.resize(columns, rows)

    def pty_refused(self) -> None:
        """The target gives none: the session counts as one without a pty."""
        self._pty = None
        if self._state is RecordingState.RUNNING:
            self._choose_capture()

    def env(self, name: bytes, value: bytes) -> None:
        """The user requests a variable. The header keeps those that come before it, up to a size; of one that
        is requested twice the last value, and a marker has the one before."""
        label, kept, replaced = self._environment.set(name, value)
        if label == "SHELL" or (label == "TERM" and self._pty is None):
            self._env[label] = kept.text
        if self._state is RecordingState.RUNNING:
            self._marker(_env_text(label, kept))
        elif replaced is not None:
            self.marker(f"{_env_text(label, replaced)}, replaced before the start")

    def start(self, kind: str, command: str = "", command_sha256: str = "") -> None:
        """Write the header, through to the file: call it before the request is forwarded.

        ``kind`` is shell, exec or subsystem; ``command`` the command line or the subsystem's name, and
        ``command_sha256`` its digest where it was cut or is not UTF-8. Called again where the target has
        refused the first request: what the manifest says is the last one, and a marker tells.
        """
        again = self._state is RecordingState.RUNNING
        self._enter(RecordingStep.START)
        self._kind, self._command, self._command_sha256 = kind, command, command_sha256
        self._digest_only = False
        self._choose_capture()
        if again:
            fields = {"kind": kind, "command": command, "command_sha256": command_sha256}
            self._add(asciicast.event_line(self._cut(), asciicast.START, json.dumps(fields)))
            self._marker(f"{kind} {command}".rstrip())
            self.flush()
            return
        self._zero = self._monotonic()
        self._lines.append(self._header().line())
        for text in self._early_markers:
            self._marker(text)
        self._early_markers.clear()
        if kind == "subsystem":
            self._marker(f"subsystem {command}")
        self.flush()

    # -- while it runs

    def output(self, data: bytes) -> None:
        """The target's standard output."""
        if self._state is not RecordingState.RUNNING:
            self._begin_unasked()
        self._stdout += len(data)
        if self._stdout_digest is not None:
            self._digest(self._stdout_digest, data)
        if not self._digest_only:
            self._take(self._out, data)
            if self._line is not None:
                self._watch(self._line, data)
        else:
            self._not_kept.add(NotKept.DIGEST_ONLY)

    def error_output(self, data: bytes) -> None:
        """The target's standard error, of a session without a pty."""
        if self._state is not RecordingState.RUNNING:
            self._begin_unasked()
        self._stderr += len(data)
        # A player knows no other code than `o` for it; the manifest has the count.
        self._take(self._err, data)

    def input(self, data: bytes) -> None:
        """What the user sends."""
        if self._state is not RecordingState.RUNNING:
            self._begin_unasked()
        self._stdin += len(data)
        if self._pty is None:
            self._digest(self._stdin_digest, data)
        if self._digest_only:
            self._not_kept.add(NotKept.DIGEST_ONLY)
        else:
            self._keep_input(data)

    def _keep_input(self, data: bytes) -> None:
        """What ``InputPolicy`` says."""
        if self._commands is not None:
            self._commands.typed(data)
        if self._echo is not None:
            self._note(self._echo.typed(data, self._elapsed()))
        elif self._input_left:
            kept = data[: self._input_left]
            self._input_left -= len(kept)
            self._take(self._in, kept)
            if not self._input_left:
                self._not_kept.add(NotKept.LATER_INPUT)
                self._marker("input is not kept from here on")
        elif NotKept.LATER_INPUT not in self._not_kept:
            self._not_kept.add(NotKept.INPUT)

    def withdraw_input(self, size: int) -> None:
        """``size`` bytes of the input were not forwarded after all: they do not count, and the digest, which
        includes them, is left out."""
        self._stdin -= size

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's new size; one that players refuse is dropped."""
        if not asciicast.valid_size(columns, rows):
            return
        if self._state is RecordingState.OPEN:
            self._size = (columns, rows)
        else:
            self._enter(RecordingStep.FACT)
            if (columns, rows) != self._size:
                self._size = (columns, rows)
                self._add(asciicast.resize_line(self._cut(), columns, rows))

    def marker(self, text: str) -> None:
        """A point in time with a name: for what happened that is not on the screen."""
        if self._state is RecordingState.OPEN:
            self._early_markers.append(text)
            return
        self._enter(RecordingStep.FACT)
        self._marker(text)

    def transfer(self, *, digest_only: bool) -> None:
        """The session is a file transfer whose protocol the caller follows: hash its output, too.

        Called after ``start``, before anything passes. With ``digest_only`` nothing of what passes is kept
        until ``keep_from_here``; not where there is a pty, for which no such protocol is made.
        """
        self._enter(RecordingStep.FACT)
        if not self._stdout:
            self._stdout_digest = StreamDigest(self._keeper.work_in_thread)
        self._digest_only = digest_only and self._pty is None
        self._choose_capture()

    def keep_from_here(self, from_user: bytes, from_target: bytes) -> None:
        """The protocol is not followed any more: capture everything, as of any other session.

        The arguments are bytes that ``input`` and ``output`` were given already, and that stand in no part of
        the protocol that was followed.
        """
        self._enter(RecordingStep.FACT)
        if not self._digest_only:
            return
        self._digest_only = False
        self._input_left = 0 if self._policy is InputPolicy.NO else INPUT_KEPT
        if from_target:
            self._take(self._out, from_target)
        if from_user:
            self._keep_input(from_user)

    def files(self, files: Files) -> None:
        """What the session did with files, for the manifest: before ``close``."""
        self._files = files

    def control(self, user: Control | None, target: Control | None) -> None:
        """The messages besides data that were forwarded from user and from target: before ``close``."""
        self._control = (user, target)

    def not_kept(self, what: NotKept) -> None:
        """For the manifest's ``coverage``: something that only its caller knows of."""
        self._not_kept.add(what)

    def exit_status(self, code: int) -> None:
        """The command's exit status, as the target says it."""
        if self._state is not RecordingState.RUNNING:
            self._begin_unasked()
        self._exit_status = code
        if not self._digest_only:
            self._add(asciicast.exit_line(self._cut(), code))
        else:
            # The cast of a file transfer holds markers only.
            self._marker(f"exit-status {code}")

    def exit_signal(self, name: str, message: str = "") -> None:
        """The command was ended by a signal (``TERM``); ``message`` is the target's."""
        if self._state is not RecordingState.RUNNING:
            self._begin_unasked()
        self._exit_signal = name
        self._marker(f"exit-signal {name}: {message}" if message else f"exit-signal {name}")

    def flush(self) -> None:
        """Everything so far is with the operating system afterwards; it survives our own death."""
        if self._failure is not None:
            raise self._failure
        self._cut()
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        self._held = 0
        try:
            self.spool.append(*(lines if len(lines) <= _PIECES else (b"".join(lines),)))
        except RecordingError as error:
            self._fail(error)
            raise
        self._keeper.written(self)

    # -- at its edges

    def sync(self) -> Deferred[None]:
        """Fires when everything so far is on the disk; errbacks with RecordingError."""
        try:
            self.flush()
        except RecordingError as error:
            return fail(error)
        return self._keeper.synced(self)

    def close(self, reason: str) -> Deferred[ClosedRecording]:
        """Complete the file, write the manifest; fires when both are on the disk.

        Errbacks with RecordingError where the recording is not whole: because it failed before, or
        now. What could be kept is then kept, with a manifest that says *failed* as far as the disk
        lets us. May be called again: each caller gets the same answer.
        """
        done: Deferred[ClosedRecording] = Deferred()
        if self._outcome is not None:
            _fire(done, self._outcome)
            return done
        self._closers.append(done)
        if self._state is not RecordingState.SEALING:
            self._finish()
            self._enter(RecordingStep.CLOSE)
            manifest = self._manifest(reason)
            self._keeper.seal(self, manifest).addBoth(self._sealed)
        return done

    # -- what the store calls

    def checkpoint(self) -> None:
        """Sign what the file holds. A failure goes to ``on_failure``."""
        if self._state is not RecordingState.RUNNING or self.spool.size == self._signed:
            return
        try:
            self.flush()
            text = self._keeper.checkpoint(self.info.sid, self.spool.size, self.spool.digest)
            self.spool.append(asciicast.event_line(self._elapsed(), CHECKPOINT, text))
            self.spool.cut()
        except RecordingError as error:
            if self._failure is None:
                self._fail(error)
            self._report(error)
        self._signed = self.spool.size

    def flush_late(self) -> None:
        """The timer's flush: a failure goes to ``on_failure``."""
        self._flush_asked = False
        if self._state is RecordingState.RUNNING:
            for digest in (self._stdin_digest, self._stdout_digest):
                if digest is not None and digest.waiting:
                    digest.flush()
                    if digest.waiting:
                        self._flush_soon()
            try:
                self.flush()
            except RecordingError as error:
                self._report(error)

    def give_up(self, error: RecordingError) -> None:
        """There is no room for more: what came so far is kept, and nothing more is taken."""
        if self._state is RecordingState.RUNNING:
            with contextlib.suppress(RecordingError):
                self.flush()
        self.sync_failed(error)

    def sync_failed(self, error: RecordingError) -> None:
        """A sync in the background failed: what the disk holds is not known any more."""
        if self._state in (RecordingState.OPEN, RecordingState.RUNNING):
            self._fail(error)
            self._report(error)

    # -- inside

    def _enter(self, act: RecordingStep) -> None:
        after = NEXT.get((self._state, act))
        if after is None:
            raise self._failure or RecordingError(
                "this recording is closed",
                f"{self.info.sid}: {act.value} in state {self._state.value}",
                code=ReasonCode.RECORDING_CLOSED,
            )
        self._state = after

    def _begin_unasked(self) -> None:
        """Something happens before shell, exec or subsystem: it is recorded all the same."""
        if self._state is RecordingState.OPEN:
            self.start("none")
        else:
            self._enter(RecordingStep.FACT)

    def _choose_capture(self) -> None:
        """What is kept of a terminal, and of input, from here on."""
        pty = self._pty is not None
        if not pty:
            self._line = self._commands = self._echo = None
        elif self._line is None:
            self._line = ShownLine()
            self._commands = Commands(self._line)
            self._echo = Echo(self._line) if self._policy is InputPolicy.YES else None
        if not pty and not self._digest_only and self._policy is not InputPolicy.NO:
            self._input_left = max(INPUT_KEPT - self._stdin, 0)
        else:
            self._input_left = 0

    def _header(self) -> asciicast.Header:
        info = self.info
        ours: dict[str, object] = {
            "sid": info.sid,
            "cid": info.cid,
            "user": info.user,
            "login": info.login,
            "target": str(info.target),
            "address": info.address,
            "kind": self._kind,
        }
        if provenance := info.provenance.fields():
            ours["provenance"] = provenance
        if self._kind == "subsystem":
            ours["subsystem"] = self._command
        if self._command_sha256:
            ours["command_sha256"] = self._command_sha256
        ours |= self._environment.fields()
        return asciicast.Header(
            width=self._size[0],
            height=self._size[1],
            timestamp=int(self._now().timestamp()),
            command=self._command if self._kind == "exec" else "",
            title=_plain(f"{info.login}@{info.target}"),
            env=self._env,
            ours=ours,
        )

    def _watch(self, line: ShownLine, data: bytes) -> None:
        """What output tells of what was typed."""
        end = data.find(b"\n")
        line.feed(data if end < 0 else data[:end])
        if self._echo is not None:
            self._note(self._echo.shown(self._elapsed(), newline=end >= 0))
        if self._commands is not None:
            for found in self._commands.shown(data):
                if isinstance(found, Begun):
                    self._command_given(found.text)
                elif self._given:
                    self._given[-1] = replace(self._given[-1], status=found.status)
        if end >= 0:
            line.feed(data[end:])

    def _command_given(self, text: str) -> None:
        self._marker(text)
        if len(self._given) < COMMANDS_LISTED:
            self._given.append(ShellCommand(time=round(self._last, 3), text=_plain(text)))
        else:
            self._given_left_out += 1

    def _note(self, typed: list[Kept | HiddenInput]) -> None:
        for one in typed:
            if isinstance(one, Kept):
                self._add(asciicast.event_line(self._cut(), asciicast.INPUT, one.text))
            else:
                self._not_kept.add(NotKept.HIDDEN_INPUT)
                self._marker("typed, but not shown: not kept")

    def _take(self, source: _StreamDecoder, data: bytes) -> None:
        if self._run is not source:
            self._cut()
            self._run = source
        if not self._chunks:
            self._run_time = self._elapsed()
        self._chunks.append(data)
        self._run_size += len(data)
        if self._run_size >= _EVENT_SIZE:
            self._cut()
        self._hold(len(data))

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._hold(len(line))

    def _hold(self, size: int) -> None:
        if not self._held:
            self._held_since = self._monotonic()
        self._held += size
        # The second test is for a timer that does not come: Twisted's follow the wall clock, and
        # that may be set back by an hour.
        if self._held >= _FLUSH_AT or self._monotonic() - self._held_since > _HELD_AT_MOST:
            self.flush()
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_asked:
            self._flush_asked = True
            self._keeper.flush_soon(self)

    def _digest(self, digest: StreamDigest, data: bytes) -> None:
        digest.update(data)
        if digest.waiting:
            self._flush_soon()

    def _cut(self) -> float:
        """End the run of chunks, so that a line of another kind can follow; what time it is."""
        if self._chunks:
            run, chunks = self._run, self._chunks
            assert run is not None
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
            self._run_size = 0
            text = run.decoder.decode(data)
            if text:
                if not text.isascii() and "\ufffd" in text and run.code == asciicast.OUTPUT:
                    self._not_kept.add(NotKept.OUTPUT_BYTES)
                self._lines.append(asciicast.event_line(self._run_time, run.code, text))
        return self._elapsed()

    def _elapsed(self) -> float:
        """Seconds since the header; never less than the last answer."""
        self._last = max(self._last, self._monotonic() - self._zero)
        return self._last

    def _marker(self, text: str) -> None:
        self._add(asciicast.event_line(self._cut(), asciicast.MARKER, _plain(text)))

    def _finish(self) -> None:
        """Write what is left, so that the file plays whatever happened. Never raises."""
        if self._state is RecordingState.FAILED:
            return
        try:
            if self._state is RecordingState.OPEN:
                self.start("none")
            self._cut()
            if self._echo is not None:
                self._note(self._echo.end())
            for source in (self._out, self._err, self._in):
                if text := source.decoder.decode(b"", final=True):
                    self._lines.append(asciicast.event_line(self._elapsed(), source.code, text))
            if self._digest_only:
                self._marker(f"{self._stdout} bytes out, {self._stdin} bytes in")
            self._marker("end")
            self.flush()
            self.spool.cut()
        except RecordingError as error:
            if self._failure is None:
                self._fail(error)  # and close says it

    def _manifest(self, reason: str) -> Manifest:
        info, failure = self.info, self._failure
        if failure:
            self._not_kept.add(NotKept.REST)
        if self._files is not None and self._files.lost:
            self._not_kept.add(NotKept.FILES_LOST)
        if not self._environment.is_complete:
            self._not_kept.add(NotKept.ENV)
        # Not where some of it came from a terminal that the target then refused.
        stdin, stdout = self._stdin_digest, self._stdout_digest
        stdin_sha256 = stdin.hexdigest() if self._pty is None and stdin.size == self._stdin else ""
        # The wall clock may have been set; how long it took is the monotonic clock's to say.
        taken = timedelta(seconds=max(self._monotonic() - self._opened, 0.0))
        return Manifest(
            sid=info.sid,
            status=Status.FAILED if failure else Status.COMPLETE,
            reason=f"{reason}: {failure.public}" if failure else reason,
            started=info.started,
            ended=info.started + taken,
            cast_size=self.spool.size,
            cast_sha256=self.spool.digest,
            cast_lines=self.spool.lines,
            cid=info.cid,
            user=info.user,
            login=info.login,
            target=str(info.target),
            address=info.address,
            provenance=info.provenance,
            roles=info.roles,
            kind=self._kind,
            command=self._command,
            command_sha256=self._command_sha256,
            control_user=self._control[0],
            control_target=self._control[1],
            pty=self._pty,
            input=self._policy.value,
            exit_status=self._exit_status,
            exit_signal=self._exit_signal,
            stdout=StreamTotals(size=self._stdout, sha256=stdout.hexdigest() if stdout is not None else ""),
            stderr=StreamTotals(size=self._stderr),
            stdin=StreamTotals(size=self._stdin, sha256=stdin_sha256),
            files=self._files,
            coverage=tuple(word for word in NotKept if word in self._not_kept),
            commands=tuple(self._given),
            commands_left_out=self._given_left_out,
        )

    def _fail(self, error: RecordingError) -> None:
        self._enter(RecordingStep.FAIL)
        self._failure = error
        self._lines.clear()
        self._chunks = []

    def _report(self, error: RecordingError) -> None:
        _log.error("recording of {session} failed: {error}", session=self.info.sid, error=error.detail)
        if self._on_failure is not None:
            self._on_failure(error)

    def _sealed(self, result: ClosedRecording | Failure) -> None:
        self._enter(RecordingStep.SEALED)
        outcome: ClosedRecording | RecordingError
        if self._failure is not None:
            outcome = self._failure
        elif not isinstance(result, Failure):
            outcome = result
        elif isinstance(result.value, RecordingError):
            outcome = self._failure = result.value
        else:
            outcome = self._failure = WriteFailed("this session cannot be recorded", repr(result.value))
        self._outcome = outcome
        closers, self._closers = self._closers, []
        for done in closers:
            _fire(done, outcome)


class _StreamDecoder:
    """One stream of one channel: its event code and its own decoder (characters may come in parts)."""

    __slots__ = ("code", "decoder")

    def __init__(self, code: str) -> None:
        self.code = code
        self.decoder = _decoder("replace")


def _fire(done: Deferred[ClosedRecording], outcome: ClosedRecording | RecordingError) -> None:
    if isinstance(outcome, RecordingError):
        done.errback(outcome)
    else:
        done.callback(outcome)


def _env_text(label: str, value: KeptText) -> str:
    digest = f" ({value.size} bytes, sha256 {value.sha256})" if value.sha256 else ""
    return f"env {label}={_escaped(value.text)}{digest}"


def _escaped(text: str) -> str:
    """Without characters that ``_plain`` would replace, so that nothing is lost."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def _plain(text: str) -> str:
    """Text for titles and markers, which players print: without control or direction characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
