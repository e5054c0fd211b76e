"""Translates errors into SSH reason codes, lines for the user and audit events."""

from __future__ import annotations

from conchrec.audit import events
from conchrec.errors import (
    AccessDenied,
    ConchrecError,
    RecordingError,
    SpoolFull,
    UpstreamError,
    WriteFailed,
)
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.text import PREFIX, foreign_line

CONNECTION_ENDING = Reason(ReasonCode.CONNECTION_ENDING, "this connection is ending. Open a new one")
NO_MORE_SESSIONS = Reason(
    ReasonCode.NO_MORE_SESSIONS,
    "your client declared that it opens no more sessions on this connection. Open a new connection",
)
PROXY_STOPPING = Reason(ReasonCode.PROXY_STOPPING, "the proxy is shutting down. Connect again later")
NO_LONGER_ALLOWED = Reason(ReasonCode.NO_LONGER_ALLOWED, "your role no longer allows this")


def error_line(error: ConchrecError) -> str:
    """The line that the user reads about an error."""
    text = error.public
    if isinstance(error, (SpoolFull, WriteFailed)):
        text = Reason(error.code, f"{text}. Tell your administrator")
    return PREFIX + foreign_line(text.removeprefix(PREFIX))


def reason_line(reason: Reason) -> str:
    """The line that the user reads about a reason that is not an error."""
    return PREFIX + reason


def open_failure(error: ConchrecError) -> tuple[int, str]:
    """The reason code and the text of CHANNEL_OPEN_FAILURE (RFC 4254, section 5.1)."""
    if isinstance(error, AccessDenied):
        return m.ADMINISTRATIVELY_PROHIBITED, error_line(error)
    if isinstance(error, RecordingError):
        return m.RESOURCE_SHORTAGE, error_line(error)
    return m.CONNECT_FAILED, error_line(error)


def failure_event(error: ConchrecError, who: events.Who, *, policy: str = "strict") -> events.AuditEvent:
    """The audit event about an error. ``policy`` is how strictly the session is recorded."""
    if isinstance(error, AccessDenied):
        return events.SessionRejected(**who, reason=error.public, rule=error.rule)
    if isinstance(error, RecordingError):
        return events.RecordingFailed(**who, reason=error.public, detail=error.detail, policy=policy)
    if isinstance(error, UpstreamError):
        return events.UpstreamFailed(**who, reason=error.public, detail=error.detail)
    return events.SessionRejected(**who, reason=error.public)
