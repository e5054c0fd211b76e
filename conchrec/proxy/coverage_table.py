"""What is recorded and audited: a table of channels and requests, and a table of the fields of each message.

These tables are documentation: no code of the proxy uses them. ``docs/coverage.md`` shows both.
``tests/interop/test_coverage.py`` checks the first with real clients and servers,
``tests/proxy/relay/test_field_values.py`` the second with a message for each field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """A request on a channel, from the ``user`` or the ``target``.

    The request ``""`` is the channel itself; *other* stands for each name that is not in the table.
    ``recorded`` is its position in the cast or the manifest, ``audited`` the names of the audit events. If
    both are empty, ``why`` gives the reason.
    """

    channel: str
    request: str
    sender: str = "user"
    recorded: str = ""
    audited: tuple[str, ...] = ()
    why: str = ""


_SESSION = ("session.start", "session.end")

TABLE: tuple[CoverageRow, ...] = (
    # sessions
    CoverageRow(channel="session", request="shell", recorded="cast: output", audited=_SESSION),
    CoverageRow(channel="session", request="exec",
        recorded="cast: output, command", audited=(*_SESSION, "exec")),
    CoverageRow(
        channel="session", request="subsystem sftp",
        recorded="cast: a marker for each file; manifest: files, digests of both streams",
        audited=(*_SESSION, "subsystem", "sftp"),
    ),
    CoverageRow(
        channel="session", request="subsystem other",
        recorded="cast: output", audited=(*_SESSION, "subsystem"),
    ),
    CoverageRow(channel="session", request="pty-req",
        recorded="cast: size, TERM", audited=("session.start",)),
    CoverageRow(channel="session", request="window-change", recorded="cast: resize", audited=("resize",)),
    CoverageRow(channel="session", request="env", recorded="cast: header", audited=("env",)),
    CoverageRow(channel="session", request="signal", audited=("signal",)),
    CoverageRow(channel="session", request="break", audited=("signal",)),
    CoverageRow(channel="session", request="x11-req", audited=("x11-forward",)),
    CoverageRow(channel="session", request="auth-agent-req@openssh.com", audited=("agent",)),
    CoverageRow(channel="session", request="agent-req", audited=("agent",)),
    CoverageRow(channel="session", request="other", audited=("request.unknown",)),
    CoverageRow(channel="session", request="eow@openssh.com", recorded="cast: a marker"),
    CoverageRow(channel="session", request="xon-xoff", sender="target",
        why="only says how the client handles Ctrl-S and Ctrl-Q"),
    CoverageRow(
        channel="session", request="exit-status", sender="target",
        recorded="cast, manifest", audited=("session.end",),
    ),
    CoverageRow(
        channel="session", request="exit-signal", sender="target",
        recorded="cast, manifest", audited=("session.end",),
    ),
    CoverageRow(channel="session", request="other", sender="target", audited=("request.unknown",)),
    # other channels
    CoverageRow(channel="direct-tcpip", request="", audited=("port",)),
    CoverageRow(channel="direct-streamlocal@openssh.com", request="", audited=("port",)),
    CoverageRow(channel="other", request="", audited=("request.unknown",)),
    CoverageRow(channel="forwarded-tcpip", request="", sender="target", audited=("port",)),
    CoverageRow(channel="forwarded-streamlocal@openssh.com", request="", sender="target", audited=("port",)),
    CoverageRow(channel="x11", request="", sender="target", audited=("x11-forward",)),
    CoverageRow(channel="auth-agent@openssh.com", request="", sender="target", audited=("agent",)),
    CoverageRow(channel="other", request="", sender="target", audited=("request.unknown",)),
    # the connection
    CoverageRow(channel="global", request="tcpip-forward", audited=("port",)),
    CoverageRow(channel="global", request="cancel-tcpip-forward", audited=("port",)),
    CoverageRow(channel="global", request="streamlocal-forward@openssh.com", audited=("port",)),
    CoverageRow(channel="global", request="cancel-streamlocal-forward@openssh.com", audited=("port",)),
    CoverageRow(channel="global", request="other", audited=("request.unknown",)),
    CoverageRow(channel="global", request="other", sender="target", audited=("request.unknown",)),
    CoverageRow(channel="global", request="keepalive@openssh.com",
        why="only checks that the other side answers"),
    CoverageRow(channel="global", request="no-more-sessions@openssh.com",
        why="only promises that the client opens no more sessions"),
    CoverageRow(channel="global", request="hostkeys-00@openssh.com", sender="target",
        why="not relayed: the client sees the proxy's host key, not the target's"),
)  # fmt: skip


class Treatment(Enum):
    """How the bytes of a field are treated."""

    RECORDED = "recorded"
    DIGESTED = "digested"
    CONSTANT = "constant"
    AUDITED = "audited"


TREATMENTS = {
    Treatment.RECORDED: "the value is in the recording (cast or manifest)",
    Treatment.DIGESTED: "the hash in the manifest's `control` covers the value, and its size is limited",
    Treatment.CONSTANT: "the same bytes are always forwarded, regardless of what was sent",
    Treatment.AUDITED: "the value is in the audit log",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """One field of one message that the proxy forwards.

    ``message`` is a key of ``message_layouts``: the name of a request or of a channel type, or the name of
    the message in RFC 4254.
    """

    group: str
    message: str
    field: str
    treatment: Treatment
    where: str


def _rows(group: str, message: str, /, **fields: tuple[Treatment, str]) -> tuple[FieldRow, ...]:
    return tuple(
        FieldRow(group=group, message=message, field=field, treatment=treatment, where=where)
        for field, (treatment, where) in fields.items()
    )


_CONTROL = (Treatment.DIGESTED, "manifest: control")
_EMPTY = (Treatment.CONSTANT, "empty")
_PORT = (Treatment.AUDITED, "port: destination")
_ORIGIN = (Treatment.AUDITED, "port: origin")
_STATUS = (Treatment.RECORDED, "cast: exit status; manifest: exit")

#: The fields of messages on session channels, of requests to open any channel, and of global requests. Data
#: and windows of forwards are not here: data is counted, and not recorded.
FIELDS: tuple[FieldRow, ...] = (
    *_rows("message", "SSH_MSG_CHANNEL_WINDOW_ADJUST", bytes=_CONTROL),
    *_rows(
        "message", "SSH_MSG_CHANNEL_DATA",
        data=(Treatment.RECORDED, "cast; counted and hashed: manifest"),
    ),
    *_rows(
        "message", "SSH_MSG_CHANNEL_EXTENDED_DATA",
        type=(Treatment.CONSTANT, "1, and only from the target"), data=(Treatment.RECORDED, "cast"),
    ),
    *_rows(
        "request of the user", "pty-req",
        term=(Treatment.RECORDED, "cast: header; manifest: pty"),
        columns=(Treatment.RECORDED, "cast: header; manifest: pty"),
        rows=(Treatment.RECORDED, "cast: header; manifest: pty"),
        width_px=_CONTROL, height_px=_CONTROL, modes=_CONTROL,
    ),
    *_rows(
        "request of the user", "x11-req",
        single_connection=_CONTROL, protocol=_CONTROL, cookie=_CONTROL, screen=_CONTROL,
    ),
    *_rows(
        "request of the user", "env",
        name=(Treatment.RECORDED, "cast: header"),
        value=(Treatment.RECORDED, "cast: header; beyond 4 KiB its size and SHA-256"),
    ),
    *_rows(
        "request of the user", "exec",
        command=(Treatment.RECORDED, "cast: header; manifest: command; beyond 16 KiB its SHA-256"),
    ),
    *_rows("request of the user", "subsystem", name=(Treatment.RECORDED, "cast: header; manifest: command")),
    *_rows(
        "request of the user", "window-change",
        columns=(Treatment.RECORDED, "cast: resize"), rows=(Treatment.RECORDED, "cast: resize"),
        width_px=_CONTROL, height_px=_CONTROL,
    ),
    *_rows("request of the user", "signal", signal=(Treatment.AUDITED, "signal: name")),
    *_rows("request of the user", "break", length=_CONTROL),
    *_rows("request of the user", "xon-xoff", client_can_do=_CONTROL),
    *_rows("request of the target", "exit-status", status=_STATUS),
    *_rows(
        "request of the target", "exit-signal",
        signal=(Treatment.RECORDED, "cast: a marker; manifest: exit"),
        core_dumped=_CONTROL, message=(Treatment.RECORDED, "cast: a marker"), language=_EMPTY,
    ),
    *_rows("request of the target", "xon-xoff", client_can_do=_CONTROL),
    *_rows(
        "open", "direct-tcpip", host=_PORT, port=_PORT, originator=_ORIGIN, originator_port=_ORIGIN,
    ),
    *_rows(
        "open", "forwarded-tcpip", host=_PORT, port=_PORT, originator=_ORIGIN, originator_port=_ORIGIN,
    ),
    *_rows(
        "open", "direct-streamlocal@openssh.com",
        path=_PORT, reserved=_EMPTY, reserved_number=(Treatment.CONSTANT, "0"),
    ),
    *_rows("open", "forwarded-streamlocal@openssh.com", path=_PORT, reserved=_EMPTY),
    *_rows(
        "open", "x11",
        originator=(Treatment.AUDITED, "x11-forward: origin"),
        originator_port=(Treatment.AUDITED, "x11-forward: origin"),
    ),
    *_rows("global request", "tcpip-forward", address=_PORT, port=_PORT),
    *_rows("global request", "cancel-tcpip-forward", address=_PORT, port=_PORT),
    *_rows("global request", "streamlocal-forward@openssh.com", path=_PORT),
    *_rows("global request", "cancel-streamlocal-forward@openssh.com", path=_PORT),
    *_rows("global reply", "tcpip-forward", port=_PORT),
    *_rows(
        "open failure", "any",
        code=(Treatment.AUDITED, "port: reason"), text=(Treatment.AUDITED, "port: reason"), language=_EMPTY,
    ),
    *_rows(
        "unknown request", "any",
        name=(Treatment.AUDITED, "request.unknown: request"),
        data=(Treatment.AUDITED, "request.unknown: size, sha256; at most 4 KiB"),
    ),
)  # fmt: skip
