"""What leaves which trace: for every kind of channel and request, what is recorded and what is only audited.

The table is the promise; ``docs/coverage.md`` shows it, and ``tests/interop/test_coverage.py`` walks it with
real clients and servers. Nothing in here is used to decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A request on a channel, ``""`` for the channel itself, by the ``user`` or the ``target``; *other*
    stands for every name that is not in the table. ``recorded``: where it is found in the cast or the
    manifest; ``audited``: the names of audit events. Where both are empty ``why`` says why."""

    channel: str
    request: str
    sender: str = "user"
    recorded: str = ""
    audited: tuple[str, ...] = ()
    why: str = ""


_SESSION = ("session.start", "session.end")

TABLE: tuple[Row, ...] = (
    # sessions
    Row(channel="session", request="shell", recorded="cast: output", audited=_SESSION),
    Row(channel="session", request="exec", recorded="cast: output, command", audited=(*_SESSION, "exec")),
    Row(
        channel="session", request="subsystem sftp",
        recorded="cast: a marker for each file; manifest: files", audited=(*_SESSION, "subsystem", "sftp"),
    ),
    Row(
        channel="session", request="subsystem other",
        recorded="cast: output", audited=(*_SESSION, "subsystem"),
    ),
    Row(channel="session", request="pty-req", recorded="cast: size, TERM", audited=("session.start",)),
    Row(channel="session", request="window-change", recorded="cast: resize", audited=("resize",)),
    Row(channel="session", request="env", recorded="cast: TERM and SHELL alone", audited=("env",)),
    Row(channel="session", request="signal", audited=("signal",)),
    Row(channel="session", request="break", audited=("signal",)),
    Row(channel="session", request="x11-req", audited=("x11-forward",)),
    Row(channel="session", request="auth-agent-req@openssh.com", audited=("agent",)),
    Row(channel="session", request="agent-req", audited=("agent",)),
    Row(channel="session", request="other", audited=("request.unknown",)),
    Row(channel="session", request="eow@openssh.com", why="an end, and no act"),
    Row(channel="session", request="xon-xoff", sender="target", why="a hint for the keyboard"),
    Row(
        channel="session", request="exit-status", sender="target",
        recorded="cast, manifest", audited=("session.end",),
    ),
    Row(
        channel="session", request="exit-signal", sender="target",
        recorded="cast, manifest", audited=("session.end",),
    ),
    Row(channel="session", request="other", sender="target", audited=("request.unknown",)),
    # other channels
    Row(channel="direct-tcpip", request="", audited=("port",)),
    Row(channel="direct-streamlocal@openssh.com", request="", audited=("port",)),
    Row(channel="other", request="", audited=("request.unknown",)),
    Row(channel="forwarded-tcpip", request="", sender="target", audited=("port",)),
    Row(channel="forwarded-streamlocal@openssh.com", request="", sender="target", audited=("port",)),
    Row(channel="x11", request="", sender="target", audited=("x11-forward",)),
    Row(channel="auth-agent@openssh.com", request="", sender="target", audited=("agent",)),
    Row(channel="other", request="", sender="target", audited=("request.unknown",)),
    # the connection
    Row(channel="global", request="tcpip-forward", audited=("port",)),
    Row(channel="global", request="cancel-tcpip-forward", audited=("port",)),
    Row(channel="global", request="streamlocal-forward@openssh.com", audited=("port",)),
    Row(channel="global", request="cancel-streamlocal-forward@openssh.com", audited=("port",)),
    Row(channel="global", request="other", audited=("request.unknown",)),
    Row(channel="global", request="other", sender="target", audited=("request.unknown",)),
    Row(channel="global", request="keepalive@openssh.com", why="a question whether somebody is there"),
    Row(channel="global", request="no-more-sessions@openssh.com", why="a promise to open nothing more"),
    Row(channel="global", request="hostkeys-00@openssh.com", sender="target",
        why="never reaches the user: the keys are not those that they see"),
)  # fmt: skip


def as_markdown() -> str:
    """The table for people."""
    lines = ["| channel | request | from | recorded | audited |", "|---|---|---|---|---|"]
    for row in TABLE:
        request = (
            f"`{row.request}`" if row.request not in ("", "other") else row.request or "the channel itself"
        )
        channel = "any other" if row.channel == "other" else f"`{row.channel}`"
        audited = ", ".join(f"`{name}`" for name in row.audited)
        trace = f"{row.recorded or '–'} | {audited or '–'}"
        if row.why:
            trace = f"– | – ({row.why})"
        lines.append(f"| {channel} | {request} | {row.sender} | {trace} |")
    return "\n".join(lines) + "\n"
