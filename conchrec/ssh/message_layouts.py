"""The fields of every connection-protocol message that conchrec relays, as one table.

A relayed message is never forwarded as the bytes that arrived: it is parsed by its layout and written
again from its fields (``rewrite``). Bytes behind the last field, a boolean that is not 0 or 1 and a
language tag therefore never reach the far end. A message that its layout does not describe (cut short,
a field that is longer than the layout allows, a NUL byte in a C string) raises ``Malformed`` or
``Truncated``.

Sources: RFC 4254 (sections 4 to 7), OpenSSH's PROTOCOL, PuTTY's documentation, appendix G.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from conchrec.ssh import messages as m
from conchrec.ssh.wire import Malformed, Reader, string, uint32


class FieldType(Enum):
    """How a field is written (RFC 4251, 5)."""

    UINT32 = "uint32"
    BOOLEAN = "boolean"
    STRING = "string"
    """Any bytes."""
    CSTRING = "cstring"
    """A string that OpenSSH reads as a C string: no NUL byte."""
    DROPPED_STRING = "dropped string"
    """Parsed, and always written as the empty string: a language tag or a reserved field."""
    DROPPED_UINT32 = "dropped uint32"
    """Parsed, and always written as 0."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``most`` is the longest string that is accepted, in bytes."""

    name: str
    type: FieldType
    most: int = 0


Layout = tuple[Field, ...]
Value = int | bool | bytes

#: Longer than any packet: what has no limit of its own is limited by the transport.
PACKET = 256 * 1024
#: Command lines: Linux runs none that is longer (MAX_ARG_STRLEN).
COMMAND = 128 * 1024
#: Terminal names, signal names, X11 protocol names. terminfo's longest name has 50 letters.
NAME = 255
#: Host names (RFC 1035: 255) and socket paths (108 on Linux), with room for odd ones.
ADDRESS = 1024
#: Texts for people: the message of exit-signal, the reason of an open failure.
TEXT = 1024
#: 160 opcodes of 5 bytes (RFC 4254, 8), with room for repeated ones.
MODES = 2048


def _uint32(name: str) -> Field:
    return Field(name, FieldType.UINT32)


def _cstring(name: str, most: int) -> Field:
    return Field(name, FieldType.CSTRING, most)


_BOOLEAN = FieldType.BOOLEAN
_LANGUAGE = Field("language", FieldType.DROPPED_STRING, PACKET)

#: What follows the recipient channel. Requests, opens and data have tables of their own or are parsed
#: by ``messages``.
CHANNEL_MESSAGES: dict[int, Layout] = {
    m.CHANNEL_WINDOW_ADJUST: (_uint32("bytes"),),
    m.CHANNEL_DATA: (Field("data", FieldType.STRING, PACKET),),
    m.CHANNEL_EXTENDED_DATA: (_uint32("type"), Field("data", FieldType.STRING, PACKET)),
    m.CHANNEL_EOF: (),
    m.CHANNEL_CLOSE: (),
    m.CHANNEL_SUCCESS: (),
    m.CHANNEL_FAILURE: (),
}

#: Channel requests of the end that opened a session (RFC 4254, 6; PROTOCOL 2.1, 2.2).
CLIENT_REQUESTS: dict[bytes, Layout] = {
    b"pty-req": (
        _cstring("term", NAME),
        _uint32("columns"),
        _uint32("rows"),
        _uint32("width_px"),
        _uint32("height_px"),
        Field("modes", FieldType.STRING, MODES),
    ),
    b"x11-req": (
        Field("single_connection", _BOOLEAN),
        _cstring("protocol", NAME),
        _cstring("cookie", ADDRESS),
        _uint32("screen"),
    ),
    b"env": (_cstring("name", ADDRESS), _cstring("value", PACKET)),
    b"shell": (),
    b"exec": (_cstring("command", COMMAND),),
    b"subsystem": (_cstring("name", ADDRESS),),
    b"window-change": (_uint32("columns"), _uint32("rows"), _uint32("width_px"), _uint32("height_px")),
    b"signal": (_cstring("signal", NAME),),
    b"break": (_uint32("length"),),
    b"xon-xoff": (Field("client_can_do", _BOOLEAN),),
    b"auth-agent-req@openssh.com": (),
    b"agent-req": (),
    b"eow@openssh.com": (),
    b"keepalive@openssh.com": (),
    b"simple@putty.projects.tartarus.org": (),
    b"winadj@putty.projects.tartarus.org": (),
}

#: Channel requests of the end that granted a session (RFC 4254, 6.8 to 6.10; PROTOCOL 2.1).
SERVER_REQUESTS: dict[bytes, Layout] = {
    b"exit-status": (_uint32("status"),),
    b"exit-signal": (
        _cstring("signal", NAME),
        Field("core_dumped", _BOOLEAN),
        _cstring("message", TEXT),
        _LANGUAGE,
    ),
    b"xon-xoff": (Field("client_can_do", _BOOLEAN),),
    b"eow@openssh.com": (),
    b"keepalive@openssh.com": (),
}

#: Channel requests on forwards, X11 and agent channels, of either end.
FORWARD_REQUESTS: dict[bytes, Layout] = {
    b"eow@openssh.com": (),
    b"keepalive@openssh.com": (),
    b"winadj@putty.projects.tartarus.org": (),
}

_TCPIP: Layout = (
    _cstring("host", ADDRESS),
    _uint32("port"),
    _cstring("originator", ADDRESS),
    _uint32("originator_port"),
)

#: The type-specific part of CHANNEL_OPEN (RFC 4254, 6.1, 6.3.2 and 7.2; PROTOCOL 2.4).
CHANNEL_OPENS: dict[bytes, Layout] = {
    b"session": (),
    b"direct-tcpip": _TCPIP,
    b"forwarded-tcpip": _TCPIP,
    b"direct-streamlocal@openssh.com": (
        _cstring("path", ADDRESS),
        Field("reserved", FieldType.DROPPED_STRING, PACKET),
        Field("reserved_number", FieldType.DROPPED_UINT32),
    ),
    b"forwarded-streamlocal@openssh.com": (
        _cstring("path", ADDRESS),
        Field("reserved", FieldType.DROPPED_STRING, PACKET),
    ),
    b"x11": (_cstring("originator", ADDRESS), _uint32("originator_port")),
    b"auth-agent@openssh.com": (),
    b"agent-connect": (),
}

_ADDRESS_PORT: Layout = (_cstring("address", ADDRESS), _uint32("port"))
_PATH: Layout = (_cstring("path", ADDRESS),)

#: Global requests that are relayed (RFC 4254, 7.1; PROTOCOL 2.4).
GLOBAL_REQUESTS: dict[bytes, Layout] = {
    b"tcpip-forward": _ADDRESS_PORT,
    b"cancel-tcpip-forward": _ADDRESS_PORT,
    b"streamlocal-forward@openssh.com": _PATH,
    b"cancel-streamlocal-forward@openssh.com": _PATH,
    b"keepalive@openssh.com": (),
    b"no-more-sessions@openssh.com": (),
}


def parse(layout: Layout, data: bytes) -> tuple[tuple[Value, ...], bytes]:
    """The values of ``data``'s fields, and the surplus bytes behind the last one.

    Raises Truncated or Malformed.
    """
    r = Reader(data)
    values = tuple(_read(r, field) for field in layout)
    return values, r.rest()


def _read(r: Reader, field: Field) -> Value:
    if field.type in (FieldType.UINT32, FieldType.DROPPED_UINT32):
        return r.uint32()
    if field.type is FieldType.BOOLEAN:
        return r.boolean()
    value = r.string()
    if len(value) > field.most:
        raise Malformed(f"{field.name} is too long: {len(value)} bytes, the limit is {field.most}")
    if field.type is FieldType.CSTRING and b"\0" in value:
        raise Malformed(f"{field.name} contains a NUL byte")
    return value


def encode(layout: Layout, values: tuple[Value, ...]) -> bytes:
    """The inverse of ``parse``; dropped fields become empty or 0."""
    return b"".join(_write(field, value) for field, value in zip(layout, values, strict=True))


def _write(field: Field, value: Value) -> bytes:
    if field.type is FieldType.DROPPED_STRING:
        return string(b"")
    if field.type is FieldType.DROPPED_UINT32:
        return uint32(0)
    if isinstance(value, bytes):
        return string(value)
    return (b"\x01" if value else b"\x00") if field.type is FieldType.BOOLEAN else uint32(value)


def rewrite(layout: Layout, data: bytes) -> tuple[bytes, bytes]:
    """``data`` written again from its fields, and the surplus bytes that are dropped.

    Raises Truncated or Malformed.
    """
    if not layout:
        return b"", data
    values, surplus = parse(layout, data)
    return encode(layout, values), surplus
