"""The first step of a relayed message: parsed by its layout, and written again from its fields.

Pure: what becomes of the message is decided in ``admission``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from conchrec.proxy.relay.admission import MessageKind, Payload
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.message_layouts import Layout
from conchrec.ssh.wire import Malformed, Truncated, uint32
from conchrec.text import one_line

#: The longest unknown request that is relayed, in bytes of its type-specific part.
UNKNOWN_MOST = 4096
SURPLUS = Reason(ReasonCode.SURPLUS_BYTES, "bytes after the last field")

STARTS = frozenset((b"shell", b"exec", b"subsystem"))
#: sshd answers these with FAILURE once a session was started.
SETUPS = frozenset((b"pty-req", b"env", b"x11-req", *m.AGENT_REQUESTS))
_EXITS = frozenset((b"exit-status", b"exit-signal"))

_KINDS = {
    m.CHANNEL_DATA: MessageKind.DATA,
    m.CHANNEL_EOF: MessageKind.EOF,
    m.CHANNEL_SUCCESS: MessageKind.REPLY,
    m.CHANNEL_FAILURE: MessageKind.REPLY,
    m.CHANNEL_WINDOW_ADJUST: MessageKind.WINDOW,
    m.CHANNEL_CLOSE: MessageKind.CLOSE,
}


@dataclass(frozen=True, slots=True)
class Intake:
    """``payload`` holds the fields alone. ``dropped`` are bytes that are not forwarded, and ``reason`` says
    why; empty and None where all of the message was understood."""

    kind: MessageKind
    payload: Payload
    dropped: bytes = b""
    reason: Reason | None = None


def take(message: int, body: bytes, *, is_session: bool, from_near: bool) -> Intake:
    """Parse one of 93 to 100; ``body`` is what follows the channel number.

    A known request that is malformed, and an unknown one that is too long, becomes one that is answered with
    FAILURE. Raises RemoteViolation (Truncated, Malformed) for any other message that is malformed.
    """
    if message == m.CHANNEL_REQUEST:
        return _request(m.ChannelRequest.parse(body), is_session=is_session, from_near=from_near)
    payload, surplus = message_layouts.rewrite(message_layouts.CHANNEL_MESSAGES[message], body)
    if message == m.CHANNEL_EXTENDED_DATA:
        kind = MessageKind.EXTENDED if payload[:4] == uint32(m.STDERR) else MessageKind.UNKNOWN_DATA
    else:
        kind = _KINDS[message]
    return Intake(kind, payload, surplus, SURPLUS if surplus else None)


def _request(request: m.ChannelRequest, *, is_session: bool, from_near: bool) -> Intake:
    name, data = request.name, request.extra
    label = one_line(name, 64)
    layout = _layout(name, is_session=is_session, from_near=from_near)
    if layout is None:
        if len(data) > UNKNOWN_MOST:
            text = f"unknown request {label} is longer than {UNKNOWN_MOST} bytes"
            reason = Reason(ReasonCode.UNKNOWN_REQUEST_TOO_LONG, text)
            return Intake(MessageKind.REFUSED, request, data, reason)
        return Intake(MessageKind.REQUEST, request)
    try:
        extra, surplus = message_layouts.rewrite(layout, data)
    except (Truncated, Malformed) as error:
        reason = Reason(error.code, f"malformed request {label}: {error.public}")
        return Intake(MessageKind.REFUSED, request, data, reason)
    kind = _request_kind(name, from_near=from_near) if is_session else MessageKind.REQUEST
    why = Reason(ReasonCode.SURPLUS_BYTES, f"bytes after the last field of request {label}")
    return Intake(kind, replace(request, extra=extra), surplus, why if surplus else None)


def _layout(name: bytes, *, is_session: bool, from_near: bool) -> Layout | None:
    if not is_session:
        return message_layouts.FORWARD_REQUESTS.get(name)
    return (message_layouts.CLIENT_REQUESTS if from_near else message_layouts.SERVER_REQUESTS).get(name)


def _request_kind(name: bytes, *, from_near: bool) -> MessageKind:
    if from_near:
        return (
            MessageKind.START
            if name in STARTS
            else MessageKind.SETUP
            if name in SETUPS
            else MessageKind.REQUEST
        )
    return MessageKind.EXIT if name in _EXITS else MessageKind.REQUEST
