"""Parses a channel message by its layout, and writes it again from its fields.

This is the first step of a relayed message. Pure: ``admission`` decides what is done with the message.
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

#: The longest unknown request that is forwarded, in bytes of its type-specific part.
UNKNOWN_MOST = 4096
SURPLUS = Reason(ReasonCode.SURPLUS_BYTES, "bytes after the last field")

STARTS = frozenset((b"shell", b"exec", b"subsystem"))
#: Requests before the start; sshd answers them with FAILURE after it.
SETUPS = frozenset((b"pty-req", b"env", b"x11-req", *m.AGENT_REQUESTS))
_NEAR_REQUESTS = {
    **dict.fromkeys(STARTS, MessageKind.START),
    **dict.fromkeys(SETUPS, MessageKind.SETUP),
}
_FAR_REQUESTS = dict.fromkeys((b"exit-status", b"exit-signal"), MessageKind.EXIT)

_KINDS = {
    m.CHANNEL_DATA: MessageKind.DATA,
    m.CHANNEL_EOF: MessageKind.EOF,
    m.CHANNEL_SUCCESS: MessageKind.REPLY,
    m.CHANNEL_FAILURE: MessageKind.REPLY,
    m.CHANNEL_WINDOW_ADJUST: MessageKind.WINDOW,
    m.CHANNEL_CLOSE: MessageKind.CLOSE,
}


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """A message that was written again from its fields: ``payload`` contains nothing else.

    ``dropped`` are the bytes that are not forwarded, and ``reason`` says why; ``b""`` and None if there are
    none.
    """

    kind: MessageKind
    payload: Payload
    dropped: bytes = b""
    reason: Reason | None = None


def parse_message(message: int, body: bytes, *, is_session: bool, from_near: bool) -> ParsedMessage:
    """Parse one of the messages 93 to 100; ``body`` is what follows the channel number.

    The result is of kind REFUSED for a known request that is malformed, and for an unknown one that is too
    long. Raises RemoteViolation (Truncated, Malformed) for any other malformed message.
    """
    if message == m.CHANNEL_REQUEST:
        return _parse_request(m.ChannelRequest.parse(body), is_session=is_session, from_near=from_near)
    payload, surplus = message_layouts.rewrite(message_layouts.CHANNEL_MESSAGES[message], body)
    if message == m.CHANNEL_EXTENDED_DATA:
        kind = MessageKind.EXTENDED if payload[:4] == uint32(m.STDERR) else MessageKind.UNKNOWN_DATA
    else:
        kind = _KINDS[message]
    return ParsedMessage(kind, payload, surplus, SURPLUS if surplus else None)


def _parse_request(request: m.ChannelRequest, *, is_session: bool, from_near: bool) -> ParsedMessage:
    name, data = request.name, request.extra
    label = one_line(name, 64)
    layout = _layout(name, is_session=is_session, from_near=from_near)
    if layout is None:
        if len(data) > UNKNOWN_MOST:
            text = f"unknown request {label} is longer than {UNKNOWN_MOST} bytes"
            reason = Reason(ReasonCode.UNKNOWN_REQUEST_TOO_LONG, text)
            return ParsedMessage(MessageKind.REFUSED, request, data, reason)
        return ParsedMessage(MessageKind.REQUEST, request)
    try:
        extra, surplus = message_layouts.rewrite(layout, data)
    except (Truncated, Malformed) as error:
        reason = Reason(error.code, f"malformed request {label}: {error.public}")
        return ParsedMessage(MessageKind.REFUSED, request, data, reason)
    kind = _request_kind(name, from_near=from_near) if is_session else MessageKind.REQUEST
    reason = Reason(ReasonCode.SURPLUS_BYTES, f"bytes after the last field of request {label}")
    return ParsedMessage(kind, replace(request, extra=extra), surplus, reason if surplus else None)


def _layout(name: bytes, *, is_session: bool, from_near: bool) -> Layout | None:
    if not is_session:
        return message_layouts.FORWARD_REQUESTS.get(name)
    return (message_layouts.CLIENT_REQUESTS if from_near else message_layouts.SERVER_REQUESTS).get(name)


def _request_kind(name: bytes, *, from_near: bool) -> MessageKind:
    kinds = _NEAR_REQUESTS if from_near else _FAR_REQUESTS
    return kinds.get(name, MessageKind.REQUEST)
