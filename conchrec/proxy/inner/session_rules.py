"""Decides what the roles of a user allow in one session, and audits refusals."""

from __future__ import annotations

from conchrec.access.closed_options import find_closed_option
from conchrec.access.options import SessionOptions, why_not
from conchrec.audit import events
from conchrec.errors import AccessDenied
from conchrec.proxy import refusals
from conchrec.proxy.inner.start_requests import StartRequest
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.capture.file_transfers import transfer_programs

#: By option: what the user may not do without it, and the reason code of the refusal.
_FORBIDDEN = {
    "commands": ("run this command", ReasonCode.COMMAND_NOT_ALLOWED),
    "pty": ("use a terminal", ReasonCode.PTY_NOT_ALLOWED),
    "shell": ("start a shell", ReasonCode.SHELL_NOT_ALLOWED),
    "exec": ("run commands", ReasonCode.EXEC_NOT_ALLOWED),
    "sftp": ("copy files with sftp", ReasonCode.SFTP_NOT_ALLOWED),
    "scp": ("copy files with scp", ReasonCode.SCP_NOT_ALLOWED),
    "subsystem": ("use this subsystem", ReasonCode.SUBSYSTEM_NOT_ALLOWED),
}


class SessionRules:
    """The current rules of the session ``sid``; a reload may change them while the session runs.

    Each refusal is audited. Raises WriteFailed if that fails and the role is strict.
    """

    __slots__ = ("_access", "_sid")

    def __init__(self, access: TargetAccess, sid: str) -> None:
        self._access = access
        self._sid = sid

    @property
    def options(self) -> SessionOptions:
        """The combined options of the user's roles."""
        return self._access.session_options

    def check_start(self, start: StartRequest) -> None:
        """Raise AccessDenied if the roles do not allow this start request."""
        if option := self._start_option(start):
            denied = self._denied(option)
            self._access.emit(refusals.failure_event(denied, self._who()))
            raise denied

    def find_refusal(self, start: StartRequest | None, *, has_pty: bool) -> AccessDenied | None:
        """Return why the running command or its terminal is no longer allowed; None if it is allowed."""
        option = self._start_option(start) if start is not None else ""
        if not option and has_pty and not self.options.pty:
            option = "pty"
        return self._denied(option) if option else None

    def refuse_pty(self) -> None:
        """Audit that a terminal was refused."""
        self._access.emit(refusals.failure_event(self._denied("pty"), self._who()))

    def refuse_x11(self) -> None:
        """Audit that X11 was refused."""
        event = events.X11Forward(
            **self._who(),
            action="refused",
            reason=Reason(ReasonCode.X11_NOT_ALLOWED, "the role does not allow X11 forwarding"),
            rule=find_closed_option(self._access.roles, "x11_forwarding").rule,
        )
        self._access.emit(event)

    def refuse_unknown(self) -> None:
        """Audit that an unknown request was refused."""
        rule = find_closed_option(self._access.roles, "unknown_requests").rule
        reason = Reason(ReasonCode.UNKNOWN_REQUEST, "the role does not allow unknown requests")
        self._access.emit(events.SessionRejected(**self._who(), reason=reason, rule=rule))

    def _start_option(self, start: StartRequest) -> str:
        """Return the option that forbids a start request, or ``""``. A shell's commands are not known yet."""
        text = start.text
        return why_not(self.options, start.kind, text, transfer_programs(start.kind, text))

    def _denied(self, option: str) -> AccessDenied:
        access = self._access
        closed = find_closed_option(access.roles, option)
        what, code = _FORBIDDEN[option]
        text = f"{access.identity.user} may not {what} as {access.login}@{access.target.host} ({closed.why})"
        return AccessDenied(text, rule=closed.rule, code=code)

    def _who(self) -> events.Who:
        return self._access.who(self._sid)
