"""The fields of every message of the connection protocol that conchrec relays, in one table.

A relayed message is not forwarded as the received bytes: it is parsed by its layout and encoded again from
its fields (``rewrite``). So bytes after the last field, booleans other than 0 and 1, and language tags
never reach the other side. A message that does not fit its layout raises ``Malformed`` or ``Truncated``: it
is too short, a field is too long, or a C string contains a NUL byte.

Sources: RFC 4254 (sections 4 to 7), OpenSSH's PROTOCOL, and appendix G of PuTTY's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from conchrec.ssh import messages as m
from conchrec.ssh.wire import Malformed, Reader, string, uint32


class FieldType(Enum):
    """The encoding of a field (RFC 4251 section 5)."""

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
    """One field. ``most`` is the maximum length of a string, in bytes."""

    name: str
    type: FieldType
    most: int = 0


Layout = tuple[Field, ...]
Value = int | bool | bytes

#: Longer than any packet: the transport limits these fields.
PACKET = 256 * 1024
#: Command lines: the maximum of Linux (MAX_ARG_STRLEN).
COMMAND = 128 * 1024
#: Terminal names, signal names, X11 protocol names. The longest name in terminfo has 50 letters.
NAME = 255
#: Host names (RFC 1035: 255 bytes) and socket paths (108 bytes on Linux), with a reserve.
ADDRESS = 1024
#: Texts for people: the message of exit-signal, the text of an open failure.
TEXT = 1024
#: 160 opcodes of 5 bytes (RFC 4254 section 8), with a reserve for repeated ones.
MODES = 2048


def _uint32(name: str) -> Field:
    return Field(name, FieldType.UINT32)


def _c_string(name: str, most: int) -> Field:
    return Field(name, FieldType.CSTRING, most)


_BOOLEAN = FieldType.BOOLEAN
_LANGUAGE = Field("language", FieldType.DROPPED_STRING, PACKET)

#: The fields after the recipient channel. Requests and opens have their own tables.
CHANNEL_MESSAGES: dict[int, Layout] = {
    m.CHANNEL_WINDOW_ADJUST: (_uint32("bytes"),),
    m.CHANNEL_DATA: (Field("data", FieldType.STRING, PACKET),),
    m.CHANNEL_EXTENDED_DATA: (_uint32("type"), Field("data", FieldType.STRING, PACKET)),
    m.CHANNEL_EOF: (),
    m.CHANNEL_CLOSE: (),
    m.CHANNEL_SUCCESS: (),
    m.CHANNEL_FAILURE: (),
}

#: Channel requests of the side that opened a session (RFC 4254 section 6; PROTOCOL 2.1, 2.2).
CLIENT_REQUESTS: dict[bytes, Layout] = {
    b"pty-req": (
        _c_string("term", NAME),
        _uint32("columns"),
        _uint32("rows"),
        _uint32("width_px"),
        _uint32("height_px"),
        Field("modes", FieldType.STRING, MODES),
    ),
    b"x11-req": (
        Field("single_connection", _BOOLEAN),
        _c_string("protocol", NAME),
        _c_string("cookie", ADDRESS),
        _uint32("screen"),
    ),
    b"env": (_c_string("name", ADDRESS), _c_string("value", PACKET)),
    b"shell": (),
    b"exec": (_c_string("command", COMMAND),),
    b"subsystem": (_c_string("name", ADDRESS),),
    b"window-change": (_uint32("columns"), _uint32("rows"), _uint32("width_px"), _uint32("height_px")),
    b"signal": (_c_string("signal", NAME),),
    b"break": (_uint32("length"),),
    b"xon-xoff": (Field("client_can_do", _BOOLEAN),),
    b"auth-agent-req@openssh.com": (),
    b"agent-req": (),
    b"eow@openssh.com": (),
    b"keepalive@openssh.com": (),
    b"simple@putty.projects.tartarus.org": (),
    b"winadj@putty.projects.tartarus.org": (),
}

#: Channel requests of the side that accepted a session (RFC 4254 sections 6.8 to 6.10; PROTOCOL 2.1).
SERVER_REQUESTS: dict[bytes, Layout] = {
    b"exit-status": (_uint32("status"),),
    b"exit-signal": (
        _c_string("signal", NAME),
        Field("core_dumped", _BOOLEAN),
        _c_string("message", TEXT),
        _LANGUAGE,
    ),
    b"xon-xoff": (Field("client_can_do", _BOOLEAN),),
    b"eow@openssh.com": (),
    b"keepalive@openssh.com": (),
}

#: Channel requests on forwards, X11 and agent channels, from either side.
FORWARD_REQUESTS: dict[bytes, Layout] = {
    b"eow@openssh.com": (),
    b"keepalive@openssh.com": (),
    b"winadj@putty.projects.tartarus.org": (),
}

_TCPIP: Layout = (
    _c_string("host", ADDRESS),
    _uint32("port"),
    _c_string("originator", ADDRESS),
    _uint32("originator_port"),
)

#: The type-specific data of CHANNEL_OPEN (RFC 4254 sections 6.1, 6.3.2 and 7.2; PROTOCOL 2.4).
CHANNEL_OPENS: dict[bytes, Layout] = {
    b"session": (),
    b"direct-tcpip": _TCPIP,
    b"forwarded-tcpip": _TCPIP,
    b"direct-streamlocal@openssh.com": (
        _c_string("path", ADDRESS),
        Field("reserved", FieldType.DROPPED_STRING, PACKET),
        Field("reserved_number", FieldType.DROPPED_UINT32),
    ),
    b"forwarded-streamlocal@openssh.com": (
        _c_string("path", ADDRESS),
        Field("reserved", FieldType.DROPPED_STRING, PACKET),
    ),
    b"x11": (_c_string("originator", ADDRESS), _uint32("originator_port")),
    b"auth-agent@openssh.com": (),
    b"agent-connect": (),
}

_ADDRESS_PORT: Layout = (_c_string("address", ADDRESS), _uint32("port"))
_PATH: Layout = (_c_string("path", ADDRESS),)

#: Global requests that are relayed (RFC 4254 section 7.1; PROTOCOL 2.4).
GLOBAL_REQUESTS: dict[bytes, Layout] = {
    b"tcpip-forward": _ADDRESS_PORT,
    b"cancel-tcpip-forward": _ADDRESS_PORT,
    b"streamlocal-forward@openssh.com": _PATH,
    b"cancel-streamlocal-forward@openssh.com": _PATH,
    b"keepalive@openssh.com": (),
    b"no-more-sessions@openssh.com": (),
}


def parse(layout: Layout, data: bytes) -> tuple[tuple[Value, ...], bytes]:
    """Return the values of the fields in ``data``, and the bytes after the last field.

    Raises Truncated or Malformed.
    """
    r = Reader(data)
    values = tuple(_read(r, field) for field in layout)
    return values, r.rest()


def _read(r: Reader, field: Field) -> Value:
    """Read one field. Raises Truncated or Malformed."""
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
    """Encode values: the inverse of ``parse``. Dropped fields become empty or 0."""
    return b"".join(_write(field, value) for field, value in zip(layout, values, strict=True))


def _write(field: Field, value: Value) -> bytes:
    """Encode one field."""
    if field.type is FieldType.DROPPED_STRING:
        return string(b"")
    if field.type is FieldType.DROPPED_UINT32:
        return uint32(0)
    if isinstance(value, bytes):
        return string(value)
    return (b"\x01" if value else b"\x00") if field.type is FieldType.BOOLEAN else uint32(value)


def rewrite(layout: Layout, data: bytes) -> tuple[bytes, bytes]:
    """Return ``data`` encoded again from its fields, and the bytes after the last field, which are dropped.

    Raises Truncated or Malformed.
    """
    if not layout:
        return b"", data
    values, surplus = parse(layout, data)
    return encode(layout, values), surplus
