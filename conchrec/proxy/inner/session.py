"""One session channel of the user: relayed, recorded and audited.

The recording's file exists before the target's channel opens, and its header is written before the shell, the
command or the subsystem is requested from the target. The relay admits only messages that the target accepts
at this point, so that the recording is what the target received. Output and requests are recorded first and
then forwarded; what cannot be recorded is not forwarded (``record: strict``). Input is counted, and recorded
as the setting ``recordings.input`` says: on a terminal only after its echo.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.config.model import Mode
from conchrec.errors import ConchrecError, RecordingError
from conchrec.proxy import refusals
from conchrec.proxy.inner.dropped_messages import DroppedMessages
from conchrec.proxy.inner.file_audit import FileAudit, Journal
from conchrec.proxy.inner.request_audit import RequestAudit
from conchrec.proxy.inner.session_recording import SessionRecording
from conchrec.proxy.inner.session_report import SessionReport
from conchrec.proxy.inner.session_rules import SessionRules
from conchrec.proxy.inner.start_requests import StartRequest, StartTracker
from conchrec.proxy.relay.message_parser import STARTS
from conchrec.proxy.relay.observer import NOT_FORWARDED, Verdict
from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.outcome import ClosedRecording
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.format.kept_text import NAME_MOST, keep
from conchrec.recording.format.session_id import new_session_id
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen
from conchrec.text import MAX_LINE, foreign_quote, one_line

#: sshd answers a start request at once; all messages after it would wait for a target that never answers.
START_SECONDS = 60.0


class Session:
    """One session; the Observer of its relay.

    ``inner_settled`` is called when it is known whether the client has an agent, ``on_granted`` when the
    target granted the channel, and ``on_end`` once, at the end.
    """

    __slots__ = (
        "_access", "_clock", "_confirmed_early", "_context", "_dropped", "_files", "_has_pty",
        "_inner_settled", "_on_end", "_on_granted", "_refusal", "_relay", "_report", "_requests",
        "_rules", "_start_timer", "_starts", "recording", "sid",
    )  # fmt: skip

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        *,
        inner_settled: Callable[[], None],
        on_end: Callable[[Session], None],
        on_granted: Callable[[], None],
    ) -> None:
        self._access = access
        self._context = access.context
        self._clock = access.services.clock
        self._inner_settled = inner_settled
        self._on_end = on_end
        self._on_granted = on_granted
        self.sid = sid = new_session_id(access.services.now())
        self._refusal: ConchrecError | None = None
        self._confirmed_early = False
        self._has_pty = False
        self._starts = StartTracker()
        self._start_timer: DelayedCall | None = None
        self._rules = SessionRules(access, sid)
        self.recording = SessionRecording(
            access, sid, complete=self._complete_recording, failed=self._end_unrecorded
        )
        journal = Journal(
            record=self.recording.write, emit=access.emit, emit_quietly=self._context.emit, who=self._who
        )
        self._requests = RequestAudit(access, journal)
        self._report = SessionReport(self._clock.seconds(), self._requests.facts)
        self._files = FileAudit(journal, self._clock.seconds)
        self._dropped = DroppedMessages()
        registry = self._context.registry
        self._relay = Relay(opening, self, registry.user_held_bytes(access.identity.user).channel())
        registry.add_session(access.identity.user)

    # --- called by the inner connection

    def confirm_early(self) -> None:
        """Confirm the channel, because the target is not connected yet: the client can send its requests."""
        if not self._confirmed_early:
            self._confirmed_early = True
            self._relay.confirm_early()

    def open_target(self, connection: Connection) -> None:
        """Open the recording, and the channel on the connection to the target."""
        if self._relay.finished:
            return
        try:
            self.recording.open()
        except RecordingError as error:
            self._context.emit(refusals.failure_event(error, self._who()))
            self.fail(error)
            return
        is_sync = self._context.settings.config.session_recording is Mode.PROXY_SYNC
        sync = self.recording.sync if is_sync and self.recording.recorder is not None else None
        self._relay.open_far(connection, sync)

    def fail(self, error: ConchrecError) -> None:
        """End the session before its start, and show the error as soon as the client would show it."""
        if self._relay.finished:
            return
        self._report.reason = error.public
        if self._starts.is_requested:
            self._relay.abort(refusals.error_line(error))
        else:
            self._refusal = error
            self.confirm_early()

    def end(self, text: str) -> bool:
        """End the session, with ``text`` as the reason. Returns whether the client shows the reason."""
        self._report.reason = text
        if self._starts.is_forwarded:
            self.recording.mark_quietly(f"conchrec: {text}")
        # On a terminal the reason starts a new line.
        was_sent = self._relay.abort(f"\r\nconchrec: {text}" if self._has_pty else f"conchrec: {text}")
        return was_sent and self._starts.is_forwarded

    def recheck(self) -> None:
        """End the session if the options no longer allow its command or its terminal.

        With a strict role also if a disk is full, or if the recording was given up before.
        """
        if self._access.is_strict and (full := self._context.services.disks.critical):
            text = f"this session was ended: the disk for {full} is full. Tell your administrator"
            self.end(Reason(ReasonCode.DISK_FULL, text))
        elif self._access.is_strict and self.recording.is_given_up:
            text = "this session was ended: it is not recorded, and your role now requires a recording"
            self.end(Reason(ReasonCode.RECORDING_GIVEN_UP, text))
        elif denied := self._rules.find_refusal(self._starts.current, has_pty=self._has_pty):
            self._context.emit(refusals.failure_event(denied, self._who()))
            self.end(denied.public)

    # --- Observer: requests

    def requested(self, request: m.ChannelRequest) -> Verdict | m.ChannelRequest:
        """Decide about a request of the user; the target need not be connected yet."""
        access, name, options = self._access, request.name, self._rules.options
        if name in STARTS:
            return self._start_requested(request)
        if name in m.AGENT_REQUESTS:
            if not access.agents.inner.announced:
                access.agents.inner.announced = True
                access.emit(events.Agent(**self._who(), action="announced", path="inner"))
            self._inner_settled()
            return Verdict.PASS if self._rules.options.forward_agent else Verdict.ACCEPT
        if name == b"pty-req":
            if not options.pty:
                self._rules.refuse_pty()
                return Verdict.REFUSE
            if self._has_pty:
                why = Reason(ReasonCode.SECOND_PTY, "second pty-req in one session")
                self.dropped(m.CHANNEL_REQUEST, request.extra, why, from_near=True)
                return Verdict.REFUSE
            # Set now, though the request may wait for the target: it counts for a second one and for recheck.
            self._has_pty = True
            return Verdict.PASS
        if name == b"x11-req" and not options.x11_forwarding:
            self._rules.refuse_x11()
            return Verdict.REFUSE
        return self._decide_unknown(request, "user", message_layouts.CLIENT_REQUESTS)

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        """Decide about a request of the target."""
        return self._decide_unknown(request, "target", message_layouts.SERVER_REQUESTS)

    def _decide_unknown(self, request: m.ChannelRequest, sender: str, known: Container[bytes]) -> Verdict:
        if request.name in known or self._rules.options.unknown_requests:
            return Verdict.PASS
        self._requests.unknown(request, sender)
        self._rules.refuse_unknown()
        return Verdict.REFUSE

    def _start_requested(self, request: m.ChannelRequest) -> m.ChannelRequest:
        """Decide about a start request. Raises AccessDenied if the roles do not allow it."""
        start = StartRequest.parse(request)
        if command := self._access.identity.force_command:
            start = start.force(command)
        self._starts.request(start)
        self._inner_settled()
        if self._refusal is not None:
            raise self._refusal
        self._rules.check_start(start)
        return start.message(want_reply=request.want_reply)

    def _start_forwarded(self) -> None:
        """Record and audit the start request before it is forwarded."""
        # The roles may have changed while it waited for the target.
        self._rules.check_start(self._starts.pending)
        is_first = not self._starts.is_forwarded
        start = self._starts.forward()
        self._report.kind = start.kind
        self._requests.record_start(start)
        self._files.begin(start.kind, start.text)
        if is_first:
            self._access.emit(self._report.start(self._access, self.sid, self.recording.recorder))
        self._requests.audit_start(start, has_pty=self._has_pty)
        self._start_timer = self._clock.callLater(START_SECONDS, self._start_unanswered, start.kind)

    def _start_unanswered(self, kind: str) -> None:
        self._start_timer = None
        error = ConchrecError(
            f"{self._access.target} did not answer the {kind} request within {START_SECONDS:.0f} s. "
            "The host may be overloaded: try again, or check sshd there",
            code=ReasonCode.START_UNANSWERED,
        )
        self._context.emit(events.UpstreamFailed(**self._who(), reason=error.public))
        self.end(error.public)

    def _cancel_start_timer(self) -> None:
        timer, self._start_timer = self._start_timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        """Record the target's answer to a request of the user."""
        name = request.name
        if name in STARTS:
            self._cancel_start_timer()
            self._starts.answer(success)
        if success:
            return
        shown = keep(name, NAME_MOST).text
        if name == b"pty-req":
            self._has_pty = False
            self.recording.write(lambda recorder: recorder.pty_refused())
        if self._starts.is_forwarded:
            self.recording.write(lambda recorder: recorder.marker(f"the target refused the {shown} request"))
        if name in STARTS:
            self._files.withdraw()
            self._report.reason = Reason(ReasonCode.START_REFUSED, f"the target refused the {shown} request")
            self._access.emit(
                events.SessionRejected(**self._who(), reason=self._report.reason, rule="target")
            )

    # --- Observer: messages

    def from_near(self, message: int, body: bytes) -> None:
        """Record and audit a message of the user."""
        if message in (m.CHANNEL_DATA, m.CHANNEL_REQUEST):
            # Only what the user does: not windows, and not answers to the target's keepalives.
            self._access.activity.touch()
        if message == m.CHANNEL_DATA:
            if self._has_pty:
                self._context.services.turns.note_keystroke()
            data = body[4:]
            self._report.stdin += len(data)
            if self.recording.recorder is not None:
                self.recording.write(lambda recorder: recorder.input(data))
            self._files.from_user(data)
        elif message == m.CHANNEL_REQUEST:
            request = m.ChannelRequest.parse(body)
            if request.name in STARTS:
                self._start_forwarded()
            else:
                self._requests.from_user(request)

    def from_far(self, message: int, body: bytes) -> None:
        """Record and audit a message of the target."""
        if message == m.CHANNEL_DATA:
            data = body[4:]
            self._report.stdout += len(data)
            if self.recording.recorder is not None:
                self.recording.write(lambda recorder: recorder.output(data))
            self._files.from_target(data)
        elif message == m.CHANNEL_EXTENDED_DATA:
            error = body[8:]
            self._report.stderr += len(error)
            self.recording.write(lambda recorder: recorder.error_output(error))
        elif message == m.CHANNEL_REQUEST:
            self._requests.from_target(m.ChannelRequest.parse(body))

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        """Audit the first dropped message of its kind; the others are audited together at the end."""
        sender = "user" if from_near else "target"
        kind = self._dropped.add(message, data, reason, sender)
        if reason == NOT_FORWARDED and from_near and message == m.CHANNEL_DATA:
            size = len(data) - 4
            self._report.stdin -= size
            if self.recording.recorder is not None:
                self.recording.recorder.withdraw_input(size)
        if kind.count == 1:
            self._context.emit(kind.event(self._who()))
            if reason == NOT_FORWARDED:
                self.recording.mark_quietly(f"the last data from the {sender} was {NOT_FORWARDED}")

    # --- Observer: the channel

    def opened(self) -> None:
        """Tell the owner that the target granted the channel."""
        self._on_granted()

    def refused(self, code: int, text: bytes) -> None:
        """Audit that the target refused the channel, and end a session that was confirmed early."""
        shown = one_line(text) or f"reason {code}"
        error = ConchrecError(
            f"{self._access.target} refused to open a session: {foreign_quote(shown, MAX_LINE)}",
            code=ReasonCode.SESSION_REFUSED,
        )
        reason = Reason(ReasonCode.SESSION_REFUSED, "the target refused to open a session")
        self._context.emit(events.UpstreamFailed(**self._who(), reason=reason, detail=shown))
        if self._confirmed_early:
            self.fail(error)
        else:
            self._report.reason = error.public

    def failed(self, error: ConchrecError) -> str:
        """Note the error that ends the channel; returns the line for the user."""
        self._report.reason = error.public
        if isinstance(error, RecordingError):
            self._context.emit(refusals.failure_event(error, self._who()))
        return refusals.error_line(error)

    def finished(self) -> None:
        """Close the recording, and audit the end of the session."""
        self._cancel_start_timer()
        self._context.registry.remove_session(self._access.identity.user)
        for kind in self._dropped.repeated():
            self._context.emit(kind.event(self._who()))
        self._files.end()
        recorder, self.recording.recorder = self.recording.recorder, None
        if self.recording.was_opened and not self._starts.is_forwarded:
            # Each recording has its start and its end in the audit.
            self._report.kind = "none"
            self._context.emit(self._report.start(self._access, self.sid, recorder))
        if recorder is not None:
            reason = self._report.reason or Reason(ReasonCode.CHANNEL_CLOSED, "the channel was closed")
            self.recording.close(recorder, reason, self._emit_end)
        elif self._report.kind:
            self._emit_end(None)
        self._on_end(self)
        # Later, because the parts may be at work now.
        self._clock.callLater(0, self._release)

    def _release(self) -> None:
        """Drop the parts that refer to this object: they would keep it until a full garbage collection."""
        self._relay.release()
        del self.recording, self._requests, self._files

    def _emit_end(self, closed: ClosedRecording | None) -> None:
        now = self._clock.seconds()
        self._context.emit(self._report.end(self._access, self.sid, now, closed))

    def _complete_recording(self, recorder: SessionRecorder) -> None:
        if (files := self._files.files) is not None:
            recorder.files(files)
        recorder.control(self._relay.control(from_near=True), self._relay.control(from_near=False))
        for kind in self._access.activity.not_kept:
            recorder.not_kept(kind)

    def _end_unrecorded(self, error: RecordingError) -> None:
        """End the session, because its recording failed and the role is strict."""
        self._relay.abort(self.failed(error))

    def _who(self) -> events.Who:
        return self._access.who(self.sid)
