"""The requests of one session channel besides its start: recorded and audited when they are forwarded."""

from __future__ import annotations

import hashlib

from conchrec.audit import events
from conchrec.proxy.inner.file_audit import Journal
from conchrec.proxy.inner.session_report import SessionReport
from conchrec.proxy.target_access import TargetAccess
from conchrec.recording.format.kept_text import NAME_MOST, keep
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m

#: Known requests that tell an auditor nothing; the manifest's ``control`` covers them.
QUIET = frozenset(
    {
        b"xon-xoff",
        b"keepalive@openssh.com",
        b"simple@putty.projects.tartarus.org",
        b"winadj@putty.projects.tartarus.org",
    }
)


class RequestAudit:
    """Each method raises what ends the session (``record: strict``)."""

    __slots__ = ("_access", "_ended_writes", "_journal", "_report")

    def __init__(self, access: TargetAccess, journal: Journal, report: SessionReport) -> None:
        self._access = access
        self._journal = journal
        self._report = report
        self._ended_writes: set[str] = set()

    def from_user(self, request: m.ChannelRequest) -> None:
        """About to be forwarded to the target; no start request."""
        name, extra, journal = request.name, request.extra, self._journal
        if name == b"pty-req":
            pty = m.PtyRequest.parse(extra)
            self._report.term = term = keep(pty.term, NAME_MOST).text
            self._report.pty_size = (pty.columns, pty.rows)
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
        """About to be forwarded to the user."""
        journal, report = self._journal, self._report
        if request.name == b"exit-status":
            report.exit_status = status = m.parse_uint32(request.extra)
            journal.record(lambda recorder: recorder.exit_status(status))
        elif request.name == b"exit-signal":
            ended = m.ExitSignal.parse(request.extra)
            report.exit_signal = name = keep(ended.signal, NAME_MOST).text
            message = keep(ended.message, message_layouts.TEXT).text
            journal.record(lambda recorder: recorder.exit_signal(name, message))
        else:
            self._other(request, "target")

    def unknown(self, request: m.ChannelRequest, sender: str) -> None:
        """A request that no document names."""
        journal = self._journal
        journal.emit(
            events.UnknownRequest(
                **journal.who(),
                request=keep(request.name, NAME_MOST).text,
                size=len(request.extra),
                sha256=hashlib.sha256(request.extra).hexdigest(),
                sender=sender,
            )
        )

    def _other(self, request: m.ChannelRequest, sender: str) -> None:
        if request.name == b"eow@openssh.com":
            # PROTOCOL 2.1: the sender reads no more; some of what was recorded may not have been read.
            if sender not in self._ended_writes:
                self._ended_writes.add(sender)
                text = f"the {sender} stopped reading (eow@openssh.com)"
                self._journal.record(lambda recorder: recorder.marker(text))
        elif request.name not in QUIET:
            self.unknown(request, sender)
