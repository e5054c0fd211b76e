"""One session channel of the user: relayed, recorded, audited.

The recording's file exists before the target's channel opens, and its header is written before the
shell, the command or the subsystem is requested of the target. What is seen here is what the target was
asked, accepted and was given: the relay admits nothing else. Each message is recorded and then forwarded;
what cannot be recorded is not forwarded (``record: strict``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.options import Record, SessionOptions, why_not
from conchrec.access.policy import shut_by
from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.config.model import Mode
from conchrec.errors import AccessDenied, ConchrecError, RecordingError, WriteFailed
from conchrec.proxy import refusals
from conchrec.proxy.inner.file_audit import FileAudit, Journal
from conchrec.proxy.relay.intake import STARTS
from conchrec.proxy.relay.observer import NOT_FORWARDED, Verdict
from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.target_access import Visit
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.file_transfers import transfer_programs
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.kept_text import COMMAND_MOST, NAME_MOST, keep
from conchrec.recording.format.session_id import new_session_id
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen
from conchrec.ssh.wire import string

_log = Logger()

#: sshd answers a start request at once; a target that never answers would keep all that follows waiting.
START_SECONDS = 60.0
#: Known requests that tell an auditor nothing; the manifest's ``control`` covers them.
QUIET = frozenset(
    {
        b"xon-xoff",
        b"keepalive@openssh.com",
        b"simple@putty.projects.tartarus.org",
        b"winadj@putty.projects.tartarus.org",
    }
)
#: Kinds of dropped messages that one session tells apart; further ones count as one.
DROPPED_KINDS = 32
#: Why an option forbids what is requested.
_FORBIDDEN = {
    "commands": ReasonCode.COMMAND_NOT_ALLOWED,
    "pty": ReasonCode.PTY_NOT_ALLOWED,
    "shell": ReasonCode.SHELL_NOT_ALLOWED,
    "exec": ReasonCode.EXEC_NOT_ALLOWED,
    "sftp": ReasonCode.SFTP_NOT_ALLOWED,
    "scp": ReasonCode.SCP_NOT_ALLOWED,
    "subsystem": ReasonCode.SUBSYSTEM_NOT_ALLOWED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A request for a shell, a command or a subsystem: ``kind`` is the request's name, ``text`` the command
    line or the subsystem's name, whole, with bytes that are not UTF-8 as ``\\xNN``."""

    kind: str
    argument: bytes
    text: str

    @classmethod
    def parse(cls, request: m.ChannelRequest) -> Start:
        argument = b"" if request.name == b"shell" else m.parse_string(request.extra)
        text = argument.decode("utf-8", "backslashreplace")
        return cls(kind=request.name.decode("ascii"), argument=argument, text=text)

    def forbidden_by(self, options: SessionOptions) -> str:
        """The option that forbids it; empty where none does. What a shell does cannot be seen beforehand."""
        return why_not(options, self.kind, self.text, transfer_programs(self.kind, self.text))


class _Dropped:
    """Messages of one kind that were not forwarded."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self.hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.count += 1
        self.size += len(data)
        self.hash.update(data)


class Session:
    """One session; the relay's Observer.

    ``inner_settled`` is called when it is known whether the client has an agent, ``over`` once at the end.
    """

    def __init__(
        self,
        visit: Visit,
        opening: IncomingOpen,
        *,
        inner_settled: Callable[[], None],
        over: Callable[[Session], None],
        relayed: Callable[[], None],
    ) -> None:
        self._visit = visit
        self._context = visit.context
        self._services = visit.context.services
        self._inner_settled = inner_settled
        self._over = over
        self._relayed = relayed
        self.sid = new_session_id(self._services.now())
        self._began = self._services.clock.seconds()
        self._recorder: SessionRecorder | None = None
        self._was_recorded = False
        self._refusal: ConchrecError | None = None
        self._asked_to_start = False
        #: What runs, or was forwarded and not answered; None where the target refused it.
        self._start: Start | None = None
        self._unanswered_start: DelayedCall | None = None
        #: What a command was forced upon; empty where it is the user's own.
        self._asked = ""
        self._confirmed_early = False
        #: A start was forwarded: ``session.start`` is in the audit.
        self._running = False
        self._kind = ""
        self._has_pty = False
        self._pty_size: tuple[int, int] | None = None
        self._term = ""
        self._exit_status: int | None = None
        self._exit_signal = ""
        self._reason = ""
        self._counts = [0, 0, 0]
        self._ended_writes: set[str] = set()
        self._dropped: dict[tuple[int, str, bool], _Dropped] = {}
        journal = Journal(
            record=self._record, emit=self._emit, emit_quietly=self._emit_quietly, who=self._who
        )
        self._files = FileAudit(journal, self._services.clock.seconds)
        self._relay = Relay(opening, self, self._context.registry.user_waiting(visit.identity.user).channel())
        self._context.registry.session_began(visit.identity.user)

    # --- what the inner connection does with it

    def wait(self) -> None:
        """The target's connection is not there yet: let the client say what it wants."""
        if not self._confirmed_early:
            self._confirmed_early = True
            self._relay.early()

    def go(self, connection: Connection) -> None:
        """The target's connection is there: record, and open the target's channel."""
        if self._relay.finished:
            return
        try:
            self._open_recording()
        except RecordingError as error:
            self._emit_quietly(refusals.event(error, self._who()))
            self.fail(error)
            return
        sync = None
        if self._context.settings.config.session_recording is Mode.PROXY_SYNC and self._recorder is not None:
            sync = self._on_disk
        self._relay.dial(connection, sync)

    def fail(self, error: ConchrecError) -> None:
        """There will be no session. The user reads why as soon as the client would show it."""
        if self._relay.finished:
            return
        self._reason = error.public
        if self._asked_to_start:
            self._relay.abort(refusals.line(error))
        else:
            self._refusal = error
            self.wait()

    def end(self, text: str) -> bool:
        """Over, for a reason that is not the session's own. Does the client show it?"""
        self._reason = text
        if self._running:
            self._mark_quietly(f"conchrec: {text}")
        # Whatever stands on the terminal's last line, the reason has one of its own.
        told = self._relay.abort(f"\r\nconchrec: {text}" if self._has_pty else f"conchrec: {text}")
        return told and self._running

    def _mark_quietly(self, text: str) -> None:
        if self._recorder is not None:
            try:
                self._recorder.marker(text)
            except RecordingError as error:
                _log.info("no marker in {sid}: {why}", sid=self.sid, why=error.public)

    def rejudge(self) -> None:
        """It ends where the options do not allow what it runs, or its terminal, any more; and where the audit
        has no room, for a role that is strict."""
        if self._strict and (full := self._services.disks.critical):
            self.end(Reason(ReasonCode.DISK_FULL, f"the disk for {full} is full"))
            return
        options = [self._start.forbidden_by(self._options)] if self._start is not None else []
        if self._has_pty and not self._options.pty:
            options.append("pty")
        if option := next(filter(None, options), ""):
            denied = self._forbidden(option)
            self._emit_quietly(refusals.event(denied, self._who()))
            self.end(denied.public)

    # --- recording

    @property
    def _options(self) -> SessionOptions:
        """As they are now: they may change while it runs."""
        return self._visit.options or SessionOptions()

    @property
    def _strict(self) -> bool:
        return self._options.record is Record.STRICT

    def _open_recording(self) -> None:
        visit = self._visit
        info = visit.session_info(self.sid)
        if self._strict:
            self._services.disks.check()
        try:
            recorder = self._services.store.open(info)
        except RecordingError as error:
            if self._strict:
                raise
            self._emit_quietly(refusals.event(error, self._who(), policy="best_effort"))
            return
        self._recorder, self._was_recorded = recorder, True
        recorder.on_failure(self._recording_failed)

    def _recording_failed(self, error: RecordingError) -> None:
        """A write that nobody waited for has failed."""
        if self._strict:
            self._relay.abort(self.failed(error))
        else:
            self._goes_unrecorded(error)

    def _goes_unrecorded(self, error: RecordingError) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        self._close(recorder, Reason(ReasonCode.RECORDING_GIVEN_UP, "not recorded any more"))
        self._emit_quietly(refusals.event(error, self._who(), policy="best_effort"))

    def _record(self, write: Callable[[SessionRecorder], None]) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        try:
            write(recorder)
        except RecordingError as error:
            if self._strict:
                raise
            self._goes_unrecorded(error)

    def _on_disk(self) -> Deferred[None]:
        """Fires when all that was recorded is on the disk, or when nothing is recorded any more."""
        if self._recorder is None:
            return succeed(None)
        synced = self._recorder.sync()
        if not self._strict:
            synced.addErrback(self._not_on_disk)
        return synced

    def _not_on_disk(self, failure: Failure) -> Failure | None:
        if not isinstance(failure.value, RecordingError):
            return failure
        self._goes_unrecorded(failure.value)
        return None

    def _emit(self, event: events.AuditEvent) -> None:
        """An event that can't be written is a recording that has failed."""
        try:
            self._services.audit.emit(event)
        except WriteFailed as error:
            if self._strict:
                raise
            _log.error("AUDIT EVENT LOST: {event}: {why}", event=event.event, why=error.detail)

    def _emit_quietly(self, event: events.AuditEvent) -> None:
        self._context.emit(event)

    # --- Observer

    def requested(self, request: m.ChannelRequest) -> Verdict | m.ChannelRequest:
        visit, name = self._visit, request.name
        if name in m.AGENT_REQUESTS:
            if not visit.inner_agent.announced:
                visit.inner_agent.announced = True
                self._emit(events.Agent(**self._who(), action="announced", path="inner"))
            self._inner_settled()
            return Verdict.PASS if self._options.forward_agent else Verdict.ACCEPT
        if name == b"pty-req" and not self._options.pty:
            self._emit(refusals.event(self._forbidden("pty"), visit.who(self.sid)))
            return Verdict.REFUSE
        if name == b"x11-req" and not self._options.x11_forwarding:
            self._emit(
                events.X11Forward(
                    **self._who(),
                    action="refused",
                    reason=Reason(ReasonCode.X11_NOT_ALLOWED, "the role does not allow it"),
                    rule=shut_by(visit.roles, "x11_forwarding").rule,
                )
            )
            return Verdict.REFUSE
        if name in STARTS:
            self._asked_to_start = True
            self._inner_settled()
            if self._refusal is not None:
                raise self._refusal
            if visit.identity.force_command:
                request = self._forced(request)
            self._refuse_to_start(Start.parse(request))
            return request
        if name == b"pty-req" and self._has_pty:
            why = Reason(ReasonCode.SECOND_PTY, "a second pty-req")
            self.dropped(m.CHANNEL_REQUEST, request.extra, why, from_near=True)
            return Verdict.REFUSE
        if name == b"pty-req":
            # It counts from now on, though it may wait for the target: for a second one, and for the roles.
            self._has_pty = True
            return Verdict.PASS
        if name not in message_layouts.CLIENT_REQUESTS and not self._options.unknown_requests:
            self._unknown(request, "user")
            return self._unknown_refused()
        return Verdict.PASS

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        if request.name not in message_layouts.SERVER_REQUESTS and not self._options.unknown_requests:
            self._unknown(request, "target")
            return self._unknown_refused()
        return Verdict.PASS

    def _unknown_refused(self) -> Verdict:
        rule = shut_by(self._visit.roles, "unknown_requests").rule
        reason = Reason(ReasonCode.UNKNOWN_REQUEST, "unknown request")
        self._emit(events.SessionRejected(**self._who(), reason=reason, rule=rule))
        return Verdict.REFUSE

    def _refuse_to_start(self, start: Start) -> None:
        """Raises AccessDenied where the roles do not allow it."""
        if option := start.forbidden_by(self._options):
            denied = self._forbidden(option)
            self._emit(refusals.event(denied, self._who()))
            raise denied

    def _forbidden(self, option: str) -> AccessDenied:
        visit = self._visit
        shut = shut_by(visit.roles, option)
        what = {
            "commands": "run this command",
            "pty": "have a terminal",
            "shell": "have a shell",
            "exec": "run commands",
            "sftp": "copy files by sftp",
            "scp": "copy files by scp",
            "subsystem": "use this subsystem",
        }[option]
        text = f"{visit.identity.user} may not {what} as {visit.login}@{visit.target.host} ({shut.why})"
        return AccessDenied(text, rule=shut.rule, code=_FORBIDDEN[option])

    def _forced(self, request: m.ChannelRequest) -> m.ChannelRequest:
        """The user's certificate says what runs (PROTOCOL.certkeys, "Critical options")."""
        asked = Start.parse(request)
        self._asked = f"{asked.kind} {keep(asked.argument, COMMAND_MOST).text}".rstrip()
        command = string(self._visit.identity.force_command.encode())
        return m.ChannelRequest(name=b"exec", want_reply=request.want_reply, extra=command)

    def opened(self) -> None:
        self._relayed()

    def refused(self, code: int, text: bytes) -> None:
        shown = refusals.one_line(text.decode("utf-8", "replace")) or f"reason {code}"
        error = ConchrecError(
            f"{self._visit.target} would not open a session: {shown}", code=ReasonCode.SESSION_REFUSED
        )
        reason = Reason(ReasonCode.SESSION_REFUSED, "no session")
        self._emit_quietly(events.UpstreamFailed(**self._who(), reason=reason, detail=shown))
        if self._confirmed_early:
            self.fail(error)
        else:
            self._reason = error.public

    def failed(self, error: ConchrecError) -> str:
        self._reason = error.public
        if isinstance(error, RecordingError):
            self._emit_quietly(refusals.event(error, self._who()))
        return refusals.line(error)

    def from_near(self, message: int, body: bytes) -> None:
        if message in (m.CHANNEL_DATA, m.CHANNEL_REQUEST):
            # Not what a client says by itself: window, and answers to the target's keepalives.
            self._visit.last_activity = self._services.clock.seconds()
        if message == m.CHANNEL_DATA:
            data = body[4:]
            self._counts[2] += len(data)
            if self._recorder is not None:
                self._record(lambda recorder: recorder.input(data))
            self._files.from_user(data)
        elif message == m.CHANNEL_REQUEST:
            self._user_request(m.ChannelRequest.parse(body))

    def from_far(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA:
            data = body[4:]
            self._counts[0] += len(data)
            if self._recorder is not None:
                self._record(lambda recorder: recorder.output(data))
            self._files.from_target(data)
        elif message == m.CHANNEL_EXTENDED_DATA:
            error = body[8:]
            self._counts[1] += len(error)
            self._record(lambda recorder: recorder.error_output(error))
        elif message == m.CHANNEL_REQUEST:
            self._target_request(m.ChannelRequest.parse(body))

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        key = (message, reason, from_near)
        if key not in self._dropped and len(self._dropped) >= DROPPED_KINDS:
            key = (message, Reason(ReasonCode.FURTHER_REASONS, "further reasons"), from_near)
        entry = self._dropped.setdefault(key, _Dropped())
        entry.add(data)
        if reason == NOT_FORWARDED and from_near and message == m.CHANNEL_DATA:
            size = len(data) - 4
            self._counts[2] -= size
            if self._recorder is not None:
                self._recorder.withdraw_input(size)
        if entry.count == 1:
            self._emit_quietly(self._dropped_event(key, entry))
            if reason == NOT_FORWARDED:
                sender = "user" if from_near else "target"
                self._mark_quietly(f"the last data from the {sender} was {NOT_FORWARDED}")

    def _dropped_event(self, key: tuple[int, str, bool], entry: _Dropped) -> events.MessageDropped:
        message, reason, from_near = key
        return events.MessageDropped(
            **self._who(),
            message=m.NAMES[message],
            reason=refusals.one_line(reason),
            size=entry.size,
            sha256=entry.hash.hexdigest(),
            sender="user" if from_near else "target",
            count=entry.count,
        )

    def finished(self) -> None:
        self._start_answered()
        self._context.registry.session_over(self._visit.identity.user)
        for key, entry in self._dropped.items():
            if entry.count > 1:
                self._emit_quietly(self._dropped_event(key, entry))
        self._files.end()
        recorder, self._recorder = self._recorder, None
        if self._was_recorded and not self._running:
            # Whatever was recorded has its beginning and its end in the audit.
            self._kind = "none"
            self._emit_quietly(self._start_event(recorder))
            self._running = True
        if recorder is not None:
            reason = self._reason or Reason(ReasonCode.CHANNEL_CLOSED, "the channel was closed")
            self._close(recorder, reason, at_end=True)
        elif self._running:
            self._ended(None)
        self._over(self)

    # --- requests

    def _user_request(self, request: m.ChannelRequest) -> None:
        name, extra = request.name, request.extra
        if name in STARTS:
            start = Start.parse(request)
            # It may have waited for the target, and the roles may be others by now.
            self._refuse_to_start(start)
            self._begin(start)
        elif name == b"pty-req":
            pty = m.PtyRequest.parse(extra)
            self._term = keep(pty.term, NAME_MOST).text
            self._pty_size = (pty.columns, pty.rows)
            self._record(lambda recorder: recorder.pty(self._term, pty.columns, pty.rows))
        elif name == b"window-change":
            change = m.WindowChange.parse(extra)
            self._record(lambda recorder: recorder.resize(change.columns, change.rows))
            self._emit(events.Resize(**self._who(), columns=change.columns, rows=change.rows))
        elif name == b"env":
            env = m.EnvRequest.parse(extra)
            self._record(lambda recorder: recorder.env(env.name, env.value))
            label, digest = keep(env.name, NAME_MOST).text, hashlib.sha256(env.value).hexdigest()
            self._emit(events.Env(**self._who(), name=label, size=len(env.value), sha256=digest))
        elif name == b"signal":
            self._emit(events.Signal(**self._who(), name=keep(m.parse_string(extra), NAME_MOST).text))
        elif name == b"break":
            self._emit(events.Signal(**self._who(), name="BREAK"))
        elif name == b"x11-req":
            self._visit.x11_requested = True
            self._emit(events.X11Forward(**self._who(), action="request"))
        elif name in m.AGENT_REQUESTS:
            self._visit.onward_agent = True
        elif name == b"eow@openssh.com":
            self._end_of_write("user")
        elif name not in QUIET:
            self._unknown(request, "user")

    def _end_of_write(self, sender: str) -> None:
        """PROTOCOL 2.1: the sender reads no more; some of what was recorded may not have been read."""
        if sender not in self._ended_writes:
            self._ended_writes.add(sender)
            self._record(lambda recorder: recorder.marker(f"the {sender} reads no more (eow@openssh.com)"))

    def _unknown(self, request: m.ChannelRequest, sender: str) -> None:
        self._emit(
            events.UnknownRequest(
                **self._who(),
                request=keep(request.name, NAME_MOST).text,
                size=len(request.extra),
                sha256=hashlib.sha256(request.extra).hexdigest(),
                sender=sender,
            )
        )

    def _begin(self, start: Start) -> None:
        """The start is about to be forwarded."""
        command = keep(start.argument, COMMAND_MOST)
        first = not self._running
        self._running, self._kind, self._start = True, start.kind, start
        self._record(lambda recorder: recorder.start(start.kind, command.text, command.sha256))
        if command.is_cut:
            self._record(lambda recorder: recorder.not_kept(NotKept.COMMAND))
        self._files.begin(start.kind, start.text)
        if first:
            self._emit(self._start_event(self._recorder))
        if start.kind == "exec":
            self._emit(
                events.Exec(
                    **self._who(),
                    command=command.text,
                    tty=self._has_pty,
                    forced_upon=self._asked,
                    bytes_sha256=command.sha256,
                )
            )
        elif start.kind == "subsystem":
            self._emit(events.Subsystem(**self._who(), name=command.text))
        self._unanswered_start = self._services.clock.callLater(START_SECONDS, self._no_answer, start.kind)

    def _start_event(self, recorder: SessionRecorder | None) -> events.SessionStart:
        columns, rows = self._pty_size or (None, None)
        return events.SessionStart(
            **self._who(),
            kind=self._kind,
            recording=str(recorder.path) if recorder is not None else "",
            head=recorder.head if recorder is not None else "",
            term=self._term,
            columns=columns,
            rows=rows,
            roles=self._visit.identity.roles,
            **asdict(self._visit.provenance),
        )

    def _no_answer(self, kind: str) -> None:
        self._unanswered_start = None
        error = ConchrecError(
            f"{self._visit.target} did not answer the request for {kind}", code=ReasonCode.START_UNANSWERED
        )
        self._emit_quietly(events.UpstreamFailed(**self._who(), reason=error.public))
        self.end(error.public)

    def _start_answered(self) -> None:
        timer, self._unanswered_start = self._unanswered_start, None
        if timer is not None and timer.active():
            timer.cancel()

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        name = request.name
        if name in STARTS:
            self._start_answered()
        if success:
            return
        shown = keep(name, NAME_MOST).text
        if name == b"pty-req":
            self._has_pty = False
            self._record(lambda recorder: recorder.pty_refused())
        if self._running:
            self._record(lambda recorder: recorder.marker(f"the target refused {shown}"))
        if name in STARTS:
            self._start = None
            self._files.withdraw()
            self._reason = Reason(ReasonCode.START_REFUSED, f"the target refused {shown}")
            self._emit(events.SessionRejected(**self._who(), reason=self._reason, rule="target"))

    def _target_request(self, request: m.ChannelRequest) -> None:
        if request.name == b"exit-status":
            self._exit_status = status = m.parse_uint32(request.extra)
            self._record(lambda recorder: recorder.exit_status(status))
        elif request.name == b"exit-signal":
            ended = m.ExitSignal.parse(request.extra)
            self._exit_signal = name = keep(ended.signal, NAME_MOST).text
            message = keep(ended.message, message_layouts.TEXT).text
            self._record(lambda recorder: recorder.exit_signal(name, message))
        elif request.name == b"eow@openssh.com":
            self._end_of_write("target")
        elif request.name not in QUIET:
            self._unknown(request, "target")

    # --- the end

    def _close(self, recorder: SessionRecorder, reason: str, *, at_end: bool = False) -> None:
        def closed(result: ClosedRecording | Failure) -> None:
            if isinstance(result, Failure):
                error = result.value
                if not isinstance(error, RecordingError):
                    _log.failure("while the recording {sid} is closed", failure=result, sid=self.sid)
                    error = WriteFailed(
                        "the recording could not be completed",
                        str(error),
                        code=ReasonCode.RECORDING_INCOMPLETE,
                    )
                if recorder.failed is None:
                    # What failed before was said when it did.
                    policy = self._options.record.value
                    self._emit_quietly(refusals.event(error, self._who(), policy=policy))
            if at_end and self._running:
                self._ended(result if isinstance(result, ClosedRecording) else None)

        if (files := self._files.files) is not None:
            recorder.files(files)
        recorder.control(self._relay.control(from_near=True), self._relay.control(from_near=False))
        for beside in self._visit.beside:
            recorder.not_kept(beside)
        recorder.close(reason).addBoth(closed)

    def _ended(self, closed: ClosedRecording | None) -> None:
        stdin = closed.manifest.stdin if closed is not None else None
        stdout = closed.manifest.stdout if closed is not None else None
        self._emit_quietly(
            events.SessionEnd(
                **self._who(),
                kind=self._kind,
                duration=round(self._services.clock.seconds() - self._began, 3),
                stdout=self._counts[0],
                stderr=self._counts[1],
                stdin=self._counts[2],
                stdin_sha256=stdin.sha256 if stdin is not None else "",
                stdout_sha256=stdout.sha256 if stdout is not None else "",
                exit_status=self._exit_status,
                exit_signal=self._exit_signal,
                recording=str(closed.path) if closed is not None else "",
                digest=closed.digest if closed is not None else "",
                head=closed.head if closed is not None else "",
                reason=refusals.one_line(self._reason),
            )
        )

    def _who(self) -> events.Who:
        return self._visit.who(self.sid)
