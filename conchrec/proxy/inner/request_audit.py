"""Records and audits the requests of one session channel when they are forwarded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from conchrec.audit import events
from conchrec.proxy.inner.file_audit import Journal
from conchrec.proxy.inner.start_requests import StartRequest
from conchrec.proxy.inner.unknown_messages import unknown_request
from conchrec.proxy.target_access import TargetAccess
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.kept_text import NAME_MOST, keep
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m

#: Known requests that are not audited, because they do not change the session; ``control`` covers them.
QUIET = frozenset(
    {
        b"xon-xoff",
        b"keepalive@openssh.com",
        b"simple@putty.projects.tartarus.org",
        b"winadj@putty.projects.tartarus.org",
    }
)


@dataclass(slots=True)
class RequestFacts:
    """Facts from the requests of one session; only RequestAudit changes them."""

    term: str = ""
    #: Columns and rows; None without a terminal.
    pty_size: tuple[int, int] | None = None
    exit_status: int | None = None
    exit_signal: str = ""


class RequestAudit:
    """Records and audits requests; ``facts`` are those that ``session.start`` and ``session.end`` contain.

    Each method raises the error that ends the session (``record: strict``).
    """

    __slots__ = ("_access", "_eow_senders", "_journal", "facts")

    def __init__(self, access: TargetAccess, journal: Journal[SessionRecorder]) -> None:
        self._access = access
        self._journal = journal
        self.facts = RequestFacts()
        #: The senders of eow@openssh.com: it is recorded once for each.
        self._eow_senders: set[str] = set()

    def record_start(self, start: StartRequest) -> None:
        """Record a start request before it is forwarded."""
        command = start.kept
        self._journal.record(lambda recorder: recorder.start(start.kind, command.text, command.sha256))
        if command.is_cut:
            self._journal.record(lambda recorder: recorder.not_kept(NotKept.COMMAND))

    def audit_start(self, start: StartRequest, *, has_pty: bool) -> None:
        """Audit a command or a subsystem; for a shell ``session.start`` is enough."""
        journal, command = self._journal, start.kept
        if start.kind == "exec":
            journal.emit(
                events.Exec(
                    **journal.who(),
                    command=command.text,
                    tty=has_pty,
                    forced_upon=start.forced_upon,
                    bytes_sha256=command.sha256,
                )
            )
        elif start.kind == "subsystem":
            journal.emit(events.Subsystem(**journal.who(), name=command.text))

    def from_user(self, request: m.ChannelRequest) -> None:
        """Record and audit a request, other than a start, before it is forwarded to the target."""
        name, extra, journal = request.name, request.extra, self._journal
        if name == b"pty-req":
            pty = m.PtyRequest.parse(extra)
            self.facts.term = term = keep(pty.term, NAME_MOST).text
            self.facts.pty_size = (pty.columns, pty.rows)
            journal.record(lambda recorder: recorder.pty(term, pty.columns, pty.rows))
        elif name == b"window-change":
            change = m.WindowChange.parse(extra)
            journal.record(lambda recorder: recorder.resize(change.columns, change.rows))
            journal.emit(events.Resize(**journal.who(), columns=change.columns, rows=change.rows))
        elif name == b"env":
            env = m.EnvRequest.parse(extra)
            journal.record(lambda recorder: recorder.env(env.name, env.value))
            label, digest = keep(env.name, NAME_MOST).text, hashlib.sha256(env.value).hexdigest()
            journal.emit(events.Env(**journal.who(), name=label, size=len(env.value), sha256=digest))
        elif name == b"signal":
            signal = keep(m.parse_string(extra), NAME_MOST).text
            journal.emit(events.Signal(**journal.who(), name=signal))
        elif name == b"break":
            journal.emit(events.Signal(**journal.who(), name="BREAK"))
        elif name == b"x11-req":
            self._access.activity.request_x11()
            journal.emit(events.X11Forward(**journal.who(), action="request"))
        elif name in m.AGENT_REQUESTS:
            self._access.activity.request_agent()
        else:
            self._other(request, "user")

    def from_target(self, request: m.ChannelRequest) -> None:
        """Record and audit a request before it is forwarded to the user."""
        journal, facts = self._journal, self.facts
        if request.name == b"exit-status":
            facts.exit_status = status = m.parse_uint32(request.extra)
            journal.record(lambda recorder: recorder.exit_status(status))
        elif request.name == b"exit-signal":
            exit_signal = m.ExitSignal.parse(request.extra)
            facts.exit_signal = name = keep(exit_signal.signal, NAME_MOST).text
            message = keep(exit_signal.message, message_layouts.TEXT).text
            journal.record(lambda recorder: recorder.exit_signal(name, message))
        else:
            self._other(request, "target")

    def unknown(self, request: m.ChannelRequest, sender: str) -> None:
        """Audit a request that no known specification defines."""
        journal = self._journal
        journal.emit(unknown_request(journal.who(), request.name, request.extra, sender=sender))

    def _other(self, request: m.ChannelRequest, sender: str) -> None:
        if request.name == b"eow@openssh.com":
            # PROTOCOL, 2.1: the sender reads no more data; it may not have read all data that was recorded.
            if sender not in self._eow_senders:
                self._eow_senders.add(sender)
                text = f"the {sender} stopped reading (eow@openssh.com)"
                self._journal.record(lambda recorder: recorder.marker(text))
        elif request.name not in QUIET:
            self.unknown(request, sender)
