"""The messages of the connection protocol as values (RFC 4254 sections 4 to 7, OpenSSH's PROTOCOL).

Parsers raise RemoteViolation for a truncated payload and for extra bytes. Text stays ``bytes`` here; decode
and escape it before you show it to a person.
"""

from __future__ import annotations

from dataclasses import dataclass

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.wire import Reader, string, uint32

GLOBAL_REQUEST = 80
REQUEST_SUCCESS = 81
REQUEST_FAILURE = 82
CHANNEL_OPEN = 90
CHANNEL_OPEN_CONFIRMATION = 91
CHANNEL_OPEN_FAILURE = 92
CHANNEL_WINDOW_ADJUST = 93
CHANNEL_DATA = 94
CHANNEL_EXTENDED_DATA = 95
CHANNEL_EOF = 96
CHANNEL_CLOSE = 97
CHANNEL_REQUEST = 98
CHANNEL_SUCCESS = 99
CHANNEL_FAILURE = 100

#: The names of the messages in RFC 4254 section 9.
NAMES = {
    number: f"SSH_MSG_{name}"
    for name, number in tuple(globals().items())
    if isinstance(number, int) and name.startswith(("GLOBAL_", "REQUEST_", "CHANNEL_"))
}

#: Reason codes of CHANNEL_OPEN_FAILURE (RFC 4254 section 5.1).
ADMINISTRATIVELY_PROHIBITED = 1
CONNECT_FAILED = 2
UNKNOWN_CHANNEL_TYPE = 3
RESOURCE_SHORTAGE = 4

#: The only data type code of CHANNEL_EXTENDED_DATA (RFC 4254 section 5.2).
STDERR = 1

AGENT_CHANNELS = (b"auth-agent@openssh.com", b"agent-connect")
AGENT_REQUESTS = (b"auth-agent-req@openssh.com", b"agent-req")


def _name(r: Reader) -> bytes:
    """Read a name: printable US-ASCII without spaces (RFC 4251 section 6). Raises RemoteViolation.

    OpenSSH reads a name up to a NUL byte: it would run the command of a request named ``exec`` and NUL,
    which is an unknown name here.
    """
    name = r.string()
    if any(not 0x20 < byte < 0x7F for byte in name):
        raise RemoteViolation(
            "invalid name: must be printable ASCII without spaces", code=ReasonCode.MALFORMED_MESSAGE
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOpen:
    """CHANNEL_OPEN (RFC 4254 section 5.1).

    ``string type, uint32 sender channel, uint32 window, uint32 maximum packet``, then type-specific data
    """

    kind: bytes
    sender: int
    window: int
    max_packet: int
    extra: bytes

    @classmethod
    def parse(cls, payload: bytes) -> ChannelOpen:
        """Parse the payload."""
        r = Reader(payload)
        return cls(kind=_name(r), sender=r.uint32(), window=r.uint32(), max_packet=r.uint32(), extra=r.rest())

    def encode(self) -> bytes:
        """Encode the payload."""
        return (
            string(self.kind)
            + uint32(self.sender)
            + uint32(self.window)
            + uint32(self.max_packet)
            + self.extra
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRequest:
    """CHANNEL_REQUEST after the channel number (RFC 4254 section 5.4).

    ``string type, boolean want reply``, then type-specific data
    """

    name: bytes
    want_reply: bool
    extra: bytes

    @classmethod
    def parse(cls, body: bytes) -> ChannelRequest:
        """Parse the body, which follows the channel number."""
        r = Reader(body)
        return cls(name=_name(r), want_reply=r.boolean(), extra=r.rest())

    def encode(self) -> bytes:
        """Encode the body, which follows the channel number."""
        return string(self.name) + (b"\x01" if self.want_reply else b"\x00") + self.extra


#: A global request has the same layout (RFC 4254 section 4).
GlobalRequest = ChannelRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyRequest:
    """The channel request ``pty-req`` (RFC 4254 section 6.2).

    ``string TERM, uint32 columns, uint32 rows, uint32 width px, uint32 height px, string modes``
    """

    term: bytes
    columns: int
    rows: int
    width_px: int = 0
    height_px: int = 0
    modes: bytes = b""

    @classmethod
    def parse(cls, extra: bytes) -> PtyRequest:
        """Parse the type-specific data of ``pty-req``."""
        r = Reader(extra)
        value = cls(
            term=r.string(),
            columns=r.uint32(),
            rows=r.uint32(),
            width_px=r.uint32(),
            height_px=r.uint32(),
            modes=r.string(),
        )
        r.end()
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowChange:
    """The channel request ``window-change`` (RFC 4254 section 6.7).

    ``uint32 columns, uint32 rows, uint32 width px, uint32 height px``
    """

    columns: int
    rows: int

    @classmethod
    def parse(cls, extra: bytes) -> WindowChange:
        """Parse the type-specific data of ``window-change``."""
        r = Reader(extra)
        value = cls(columns=r.uint32(), rows=r.uint32())
        r.uint32()
        r.uint32()
        r.end()
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvRequest:
    """The channel request ``env`` (RFC 4254 section 6.4): ``string name, string value``."""

    name: bytes
    value: bytes

    @classmethod
    def parse(cls, extra: bytes) -> EnvRequest:
        """Parse the type-specific data of ``env``."""
        r = Reader(extra)
        value = cls(name=r.string(), value=r.string())
        r.end()
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSignal:
    """The channel request ``exit-signal`` (RFC 4254 section 6.10).

    ``string signal without SIG, boolean core dumped, string message, string language``
    """

    signal: bytes
    core_dumped: bool
    message: bytes

    @classmethod
    def parse(cls, extra: bytes) -> ExitSignal:
        """Parse the type-specific data of ``exit-signal``."""
        r = Reader(extra)
        value = cls(signal=r.string(), core_dumped=r.boolean(), message=r.string())
        r.string()
        r.end()
        return value


def parse_uint32(extra: bytes) -> int:
    """Parse one uint32: the data of ``exit-status``, of ``break``, or a reply with a port."""
    r = Reader(extra)
    value = r.uint32()
    r.end()
    return value


def parse_string(extra: bytes) -> bytes:
    """Parse one string: the data of ``exec``, ``subsystem`` or ``signal``.

    Raises RemoteViolation for a NUL byte, because OpenSSH ignores what follows it.
    """
    r = Reader(extra)
    value = r.string()
    r.end()
    if b"\0" in value:
        raise RemoteViolation("invalid text: contains a NUL byte", code=ReasonCode.MALFORMED_MESSAGE)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """The data of ``direct-tcpip`` and ``forwarded-tcpip`` (RFC 4254 section 7.2).

    ``string host, uint32 port, string originator address, uint32 originator port``
    """

    host: bytes
    port: int
    originator: bytes
    originator_port: int

    @classmethod
    def parse(cls, extra: bytes) -> Forwarded:
        """Parse the type-specific data of the channel open."""
        r = Reader(extra)
        value = cls(host=r.string(), port=r.uint32(), originator=r.string(), originator_port=r.uint32())
        r.end()
        return value


def open_failure(recipient: int, code: int, text: str) -> bytes:
    """Encode CHANNEL_OPEN_FAILURE: ``uint32 recipient, uint32 code, string text, string language``."""
    return uint32(recipient) + uint32(code) + string(text.encode("utf-8", "replace")) + string(b"")


def exit_status(code: int) -> bytes:
    """Encode the channel request ``exit-status``, after the channel number (RFC 4254 section 6.10)."""
    return ChannelRequest(name=b"exit-status", want_reply=False, extra=uint32(code)).encode()
