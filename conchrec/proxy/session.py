"""One session channel of the user: relayed, recorded, audited.

The recording's file exists before the target's channel opens, and its header is written before the
shell, the command or the subsystem is asked for. Each byte is recorded and then forwarded; what can't
be recorded is not forwarded (``record: strict``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec import audit
from conchrec.access.options import Options, Record, why_not
from conchrec.access.policy import shut_by
from conchrec.errors import AccessDenied, ConchrecError, RecordingError, RemoteViolation, WriteFailed
from conchrec.model import SessionInfo
from conchrec.proxy import refusal
from conchrec.proxy.file_audit import FileAudit, Journal
from conchrec.proxy.relay import Relay, Verdict
from conchrec.proxy.visit import Visit
from conchrec.recording.recorder import ClosedRecording, SessionRecorder
from conchrec.recording.session_id import new_session_id
from conchrec.recording.transfers import transfer_programs
from conchrec.settings import Mode
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen
from conchrec.ssh.wire import string

_log = Logger()

#: Kind, command line or name, and the programs that transfer files in it.
Start = tuple[str, str, frozenset[str]]
STARTS = (b"shell", b"exec", b"subsystem")
#: Requests of a client that mean nothing to an auditor: hints about windows and ends.
QUIET = frozenset(
    {b"eow@openssh.com", b"simple@putty.projects.tartarus.org", b"winadj@putty.projects.tartarus.org"}
)
#: Requests of a client that are relayed whatever a role says of those that nobody knows.
KNOWN = QUIET | frozenset((*STARTS, b"pty-req", b"window-change", b"env", b"signal", b"break", b"xon-xoff"))


class Session:
    """See the module; the relay's Observer.

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
        self._site = visit.site
        self._inner_settled = inner_settled
        self._over = over
        self._relayed = relayed
        self.sid = new_session_id(self._site.now())
        self._began = self._site.clock.seconds()
        self._recorder: SessionRecorder | None = None
        self._refusal: ConchrecError | None = None
        self._asked_to_start = False
        #: What it runs: kind, command line or name, and what moves files in it; as ``why_not`` has them. More
        #: than one where a client asks again: which of them the target takes is known when it has answered.
        self._started: list[Start] = []
        self._starting: deque[Start] = deque()
        #: What a command was forced upon; empty where it is the user's own.
        self._asked = ""
        self._confirmed_early = False
        self._running = False
        self._kind = ""
        self._has_pty = False
        self._pty_size: tuple[int, int] | None = None
        self._term = ""
        self._exit_status: int | None = None
        self._exit_signal = ""
        self._reason = ""
        #: Names of the requests that the target still has to answer, in order.
        self._unanswered: deque[bytes] = deque()
        self._counts = [0, 0, 0]
        #: What is known of the files that this session moves, if it does. A target may refuse what was asked
        #: for first: until it has taken one, these are all such requests, and whether an answer will come.
        journal = Journal(
            record=self._record, emit=self._emit, emit_quietly=self._emit_quietly, who=self._who
        )
        self._files = FileAudit(journal, self._site.clock.seconds)
        self._asked_for: deque[tuple[str, str, bool]] = deque()
        self._taken = False
        self._relay = Relay(opening, self)
        self._site.session_began(visit.identity.user)

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
            self._emit_quietly(refusal.event(error, self._visit.who(self.sid)))
            self.fail(error)
            return
        sync = None
        if self._site.config.session_recording is Mode.PROXY_SYNC and self._recorder is not None:
            sync = self._on_disk
        self._relay.dial(connection, sync)

    def fail(self, error: ConchrecError) -> None:
        """There will be no session. The user reads why as soon as the client would show it."""
        if self._relay.finished:
            return
        self._reason = error.public
        if self._asked_to_start:
            self._relay.abort(refusal.line(error))
        else:
            self._refusal = error
            self.wait()

    def end(self, text: str) -> bool:
        """Over, for a reason that is not the session's own. Does the client show it?"""
        self._reason = text
        if self._recorder is not None and self._running:
            try:
                self._recorder.marker(f"conchrec: {text}")
            except RecordingError as error:
                _log.info("no marker in {sid}: {why}", sid=self.sid, why=error.public)
        # Whatever stands on the terminal's last line, the reason has one of its own.
        told = self._relay.abort(f"\r\nconchrec: {text}" if self._has_pty else f"conchrec: {text}")
        return told and self._running

    def rejudge(self) -> None:
        """It ends where the options do not allow what it runs, or its terminal, any more."""
        options = [why_not(self._options, *start) for start in self._started]
        if self._has_pty and not self._options.pty:
            options.append("pty")
        if option := next(filter(None, options), ""):
            denied = self._forbidden(option)
            self._emit_quietly(refusal.event(denied, self._visit.who(self.sid)))
            self.end(denied.public)

    # --- recording

    @property
    def _options(self) -> Options:
        """As they are now: they may change while it runs."""
        return self._visit.options or Options()

    @property
    def _strict(self) -> bool:
        return self._options.record is Record.STRICT

    def _open_recording(self) -> None:
        visit = self._visit
        info = SessionInfo(
            sid=self.sid,
            cid=visit.cid,
            user=visit.identity.user,
            login=visit.login,
            target=visit.target,
            address=visit.address,
            started=self._site.now(),
            roles=visit.identity.roles,
        )
        try:
            recorder = self._site.store.open(info)
        except RecordingError as error:
            if self._strict:
                raise
            self._emit_quietly(refusal.event(error, visit.who(self.sid), policy="best_effort"))
            return
        self._recorder = recorder
        self._site.recorders[self.sid] = recorder
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
        self._close(recorder, "not recorded any more")
        self._emit_quietly(refusal.event(error, self._visit.who(self.sid), policy="best_effort"))

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

    def _emit(self, event: audit.AuditEvent) -> None:
        """An event that can't be written is a recording that has failed."""
        try:
            self._site.audit.emit(event)
        except WriteFailed as error:
            if self._strict:
                raise
            _log.error("AUDIT EVENT LOST: {event}: {why}", event=event.event, why=error.detail)

    def _emit_quietly(self, event: audit.AuditEvent) -> None:
        self._site.emit(event)

    # --- Observer

    def requested(self, request: m.ChannelRequest) -> Verdict | m.ChannelRequest:
        visit, name = self._visit, request.name
        if name in m.AGENT_REQUESTS:
            if not visit.inner_agent.announced:
                visit.inner_agent.announced = True
                self._emit(audit.Agent(**visit.who(self.sid), action="announced", path="inner"))
            self._inner_settled()
            return Verdict.PASS if self._options.forward_agent else Verdict.ACCEPT
        if name == b"pty-req" and not self._options.pty:
            self._emit(refusal.event(self._forbidden("pty"), visit.who(self.sid)))
            return Verdict.REFUSE
        if name == b"x11-req" and not self._options.x11_forwarding:
            self._emit(
                audit.X11Forward(
                    **visit.who(self.sid),
                    action="refused",
                    reason="the role does not allow it",
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
            self._refuse_to_start(request)
            if visit.identity.force_command:
                return request
        elif name != b"x11-req" and name not in KNOWN and not self._options.unknown_requests:
            self._emit(
                audit.UnknownRequest(**visit.who(self.sid), request=_text(name), size=len(request.extra))
            )
            self._emit(
                audit.SessionRejected(
                    **visit.who(self.sid),
                    reason="a request that nobody knows",
                    rule=shut_by(visit.roles, "unknown_requests").rule,
                )
            )
            return Verdict.REFUSE
        return Verdict.PASS

    def _refuse_to_start(self, request: m.ChannelRequest) -> None:
        """What the roles do not allow, as far as that can be seen: what a shell does can not."""
        argument = b"" if request.name == b"shell" else m.parse_string(request.extra)
        kind, text = request.name.decode(), _text(argument)
        if option := why_not(self._options, *_start(kind, text)):
            denied = self._forbidden(option)
            self._emit(refusal.event(denied, self._visit.who(self.sid)))
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
        return AccessDenied(text, rule=shut.rule)

    def _forced(self, request: m.ChannelRequest) -> m.ChannelRequest:
        """The user's certificate says what runs (PROTOCOL.certkeys, "Critical options")."""
        argument = b"" if request.name == b"shell" else m.parse_string(request.extra)
        self._asked = f"{request.name.decode()} {_text(argument)}".rstrip()
        command = string(self._visit.identity.force_command.encode())
        return m.ChannelRequest(name=b"exec", want_reply=request.want_reply, extra=command)

    def opened(self) -> None:
        self._relayed()

    def refused(self, code: int, text: bytes) -> None:
        shown = refusal.one_line(text.decode("utf-8", "replace")) or f"reason {code}"
        error = ConchrecError(f"{self._visit.target} would not open a session: {shown}")
        self._emit_quietly(
            audit.UpstreamFailed(**self._visit.who(self.sid), reason="no session", detail=shown)
        )
        if self._confirmed_early:
            self.fail(error)
        else:
            self._reason = error.public

    def failed(self, error: ConchrecError) -> str:
        self._reason = error.public
        if isinstance(error, RecordingError):
            self._emit_quietly(refusal.event(error, self._visit.who(self.sid)))
        return refusal.line(error)

    def from_near(self, message: int, body: bytes) -> None:
        if message in (m.CHANNEL_DATA, m.CHANNEL_REQUEST):
            # Not what a client says by itself: window, and answers to the target's keepalives.
            self._visit.last_activity = self._site.clock.seconds()
        if message == m.CHANNEL_DATA:
            data = _content(body, 4)
            self._counts[2] += len(data)
            if self._recorder is not None:
                self._record(lambda recorder: recorder.input(data))
            self._files.from_user(data)
        elif message == m.CHANNEL_REQUEST:
            self._user_request(m.ChannelRequest.parse(body))
        elif message == m.CHANNEL_EXTENDED_DATA:
            more = _content(body, 8)
            self._counts[2] += len(more)
            self._record(lambda recorder: recorder.input(more))

    def from_far(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA:
            data = _content(body, 4)
            self._counts[0] += len(data)
            if self._recorder is not None:
                self._record(lambda recorder: recorder.output(data))
            self._files.from_target(data)
        elif message == m.CHANNEL_EXTENDED_DATA:
            error = _content(body, 8)
            self._counts[1] += len(error)
            self._record(lambda recorder: recorder.error_output(error))
        elif message == m.CHANNEL_REQUEST:
            self._target_request(m.ChannelRequest.parse(body))
        elif message in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self._answered(message == m.CHANNEL_SUCCESS)

    def finished(self) -> None:
        self._site.session_over(self._visit.identity.user)
        self._site.recorders.pop(self.sid, None)
        self._files.end()
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._close(recorder, self._reason or "the channel was closed", at_end=True)
        elif self._running:
            self._ended(None)
        self._over(self)

    # --- requests

    def _user_request(self, request: m.ChannelRequest) -> None:
        name, extra = request.name, request.extra
        if request.want_reply:
            self._unanswered.append(name)
        if name in STARTS:
            # It may have waited for the target, and the roles may be others by now.
            self._refuse_to_start(request)
            argument = b"" if name == b"shell" else m.parse_string(extra)
            self._start(name, argument)
            kind, text = name.decode(), _text(argument)
            start = _start(kind, text)
            self._started.append(start)
            if request.want_reply:
                self._starting.append(start)
            if not self._taken:
                self._asked_for.append((kind, text, request.want_reply))
                if len(self._asked_for) == 1:
                    self._count_files()
        elif name == b"pty-req":
            pty = m.PtyRequest.parse(extra)
            self._has_pty = True
            self._term = _text(pty.term)
            self._pty_size = (pty.columns, pty.rows)
            self._record(lambda recorder: recorder.pty(self._term, pty.columns, pty.rows))
        elif name == b"window-change":
            change = m.WindowChange.parse(extra)
            self._record(lambda recorder: recorder.resize(change.columns, change.rows))
            self._emit(audit.Resize(**self._who(), columns=change.columns, rows=change.rows))
        elif name == b"env":
            env = m.Env.parse(extra)
            self._record(lambda recorder: recorder.env(_text(env.name), _text(env.value)))
            self._emit(audit.Env(**self._who(), name=_text(env.name)))
        elif name == b"signal":
            self._emit(audit.Signal(**self._who(), name=_text(m.parse_string(extra))))
        elif name == b"break":
            self._emit(audit.Signal(**self._who(), name="BREAK"))
        elif name == b"x11-req":
            self._visit.x11_requested = True
            self._emit(audit.X11Forward(**self._who(), action="request"))
        elif name in m.AGENT_REQUESTS:
            self._visit.onward_agent = True
        elif name not in QUIET and name != b"xon-xoff":
            self._emit(audit.UnknownRequest(**self._who(), request=_text(name), size=len(extra)))

    def _start(self, name: bytes, argument: bytes) -> None:
        kind, command = name.decode(), _text(argument)
        again, self._running, self._kind = self._running, True, kind
        self._record(lambda recorder: recorder.start(kind, command))
        columns, rows = self._pty_size or (None, None)
        if not again:
            path = self._recorder.path if self._recorder is not None else ""
            self._emit(
                audit.SessionStart(
                    **self._who(),
                    kind=kind,
                    recording=str(path),
                    head=self._recorder.head if self._recorder is not None else "",
                    term=self._term,
                    columns=columns,
                    rows=rows,
                    roles=self._visit.identity.roles,
                    approved_by=self._visit.approved_by,
                    request=self._visit.request,
                )
            )
        if kind == "exec":
            self._emit(audit.Exec(**self._who(), command=command, tty=self._has_pty, forced_upon=self._asked))
        elif kind == "subsystem":
            self._emit(audit.Subsystem(**self._who(), name=command))

    def _target_request(self, request: m.ChannelRequest) -> None:
        if request.name == b"exit-status":
            self._exit_status = status = m.parse_uint32(request.extra)
            self._record(lambda recorder: recorder.exit_status(status))
        elif request.name == b"exit-signal":
            self._exit_signal = name = _text(m.ExitSignal.parse(request.extra).signal)
            self._record(lambda recorder: recorder.exit_signal(name))
        elif request.name not in QUIET and request.name not in (b"xon-xoff", b"keepalive@openssh.com"):
            self._emit(
                audit.UnknownRequest(
                    **self._who(), request=_text(request.name), size=len(request.extra), sender="target"
                )
            )

    def _answered(self, success: bool) -> None:
        """The target's answer to the oldest request that wanted one."""
        if not self._unanswered:
            return
        name = self._unanswered.popleft()
        if name in STARTS:
            start = self._starting.popleft()
            if not success:
                self._started.remove(start)
        if name in STARTS and not self._taken:
            self._taken = success
            if not success:
                self._asked_for.popleft()
                self._count_files()
        if success:
            return
        if name == b"pty-req":
            self._has_pty = False
            self._record(lambda recorder: recorder.pty_refused())
        if self._running:
            self._record(lambda recorder: recorder.marker(f"the target refused {_text(name)}"))
        if name in STARTS:
            self._reason = f"the target refused {_text(name)}"

    # --- files

    def _count_files(self) -> None:
        """For the oldest of the requests that the target has not refused, which is what runs."""
        if not self._asked_for:
            self._files.withdraw()
            return
        kind, command, wants_reply = self._asked_for[0]
        self._taken = not wants_reply
        self._files.begin(kind, command)

    # --- the end

    def _close(self, recorder: SessionRecorder, reason: str, *, at_end: bool = False) -> None:
        def closed(result: ClosedRecording | Failure) -> None:
            if isinstance(result, Failure):
                error = result.value
                if not isinstance(error, RecordingError):
                    _log.failure("while the recording {sid} is closed", failure=result, sid=self.sid)
                    error = WriteFailed("the recording could not be completed", str(error))
                if recorder.failed is None:
                    # What failed before was said when it did.
                    policy = self._options.record.value
                    self._emit_quietly(refusal.event(error, self._visit.who(self.sid), policy=policy))
            if at_end and self._running:
                self._ended(result if isinstance(result, ClosedRecording) else None)

        if (files := self._files.files) is not None:
            recorder.files(files)
        for beside in self._visit.beside:
            recorder.not_kept(beside)
        recorder.close(reason).addBoth(closed)

    def _ended(self, closed: ClosedRecording | None) -> None:
        stdin = closed.manifest.stdin if closed is not None else None
        self._emit_quietly(
            audit.SessionEnd(
                **self._who(),
                kind=self._kind,
                duration=round(self._site.clock.seconds() - self._began, 3),
                stdout=self._counts[0],
                stderr=self._counts[1],
                stdin=self._counts[2],
                stdin_sha256=stdin.sha256 if stdin is not None else "",
                exit_status=self._exit_status,
                exit_signal=self._exit_signal,
                recording=str(closed.path) if closed is not None else "",
                digest=closed.digest if closed is not None else "",
                head=closed.head if closed is not None else "",
                reason=refusal.one_line(self._reason),
            )
        )

    def _who(self) -> audit.Who:
        return self._visit.who(self.sid)


def _start(kind: str, text: str) -> Start:
    return kind, text, transfer_programs(kind, text)


def _content(body: bytes, start: int) -> bytes:
    """The bytes of CHANNEL_DATA (``start`` 4) or CHANNEL_EXTENDED_DATA (8), length checked."""
    if len(body) < start or int.from_bytes(body[start - 4 : start], "big") != len(body) - start:
        raise RemoteViolation("data whose length is wrong")
    return body[start:]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
