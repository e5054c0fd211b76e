"""Messages of the wire as lines of text: the name, then each field. Keys, signatures and cookies become
placeholders. Nothing here uses conchrec's own parsers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

#: The text of ours that a field holds, with its reasons replaced by their codes.
Texts = Callable[[str], str]

#: Begins a line of conchrec in a session.
OURS = b"conchrec: "
#: Longer data is shown by its size and digest.
LONGEST = 200
TRANSPORT = {
    1: "DISCONNECT", 2: "IGNORE", 3: "UNIMPLEMENTED", 4: "DEBUG", 5: "SERVICE_REQUEST", 6: "SERVICE_ACCEPT",
    7: "EXT_INFO", 20: "KEXINIT", 21: "NEWKEYS", 30: "KEX_ECDH_INIT", 31: "KEX_ECDH_REPLY",
}  # fmt: skip
USERAUTH = {50: "USERAUTH_REQUEST", 51: "USERAUTH_FAILURE", 52: "USERAUTH_SUCCESS", 53: "USERAUTH_BANNER"}
CONNECTION = {
    80: "GLOBAL_REQUEST", 81: "REQUEST_SUCCESS", 82: "REQUEST_FAILURE", 90: "CHANNEL_OPEN",
    91: "CHANNEL_OPEN_CONFIRMATION", 92: "CHANNEL_OPEN_FAILURE", 93: "CHANNEL_WINDOW_ADJUST",
    94: "CHANNEL_DATA", 95: "CHANNEL_EXTENDED_DATA", 96: "CHANNEL_EOF", 97: "CHANNEL_CLOSE",
    98: "CHANNEL_REQUEST", 99: "CHANNEL_SUCCESS", 100: "CHANNEL_FAILURE",
}  # fmt: skip
OPENS = {
    b"direct-tcpip": "host:s port:u originator:s originator_port:u",
    b"forwarded-tcpip": "host:s port:u originator:s originator_port:u",
    b"direct-streamlocal@openssh.com": "path:s reserved:s reserved_number:u",
    b"forwarded-streamlocal@openssh.com": "path:s reserved:s",
    b"x11": "originator:s originator_port:u",
}
REQUESTS = {
    b"pty-req": "term:s columns:u rows:u width:u height:u modes:x",
    b"x11-req": "single:b protocol:s cookie:s screen:u",
    b"env": "name:s value:s",
    b"exec": "command:s",
    b"subsystem": "name:s",
    b"window-change": "columns:u rows:u width:u height:u",
    b"signal": "signal:s",
    b"break": "length:u",
    b"xon-xoff": "client_can_do:b",
    b"exit-status": "status:u",
    b"exit-signal": "signal:s core_dumped:b message:s language:s",
    b"tcpip-forward": "address:s port:u",
    b"cancel-tcpip-forward": "address:s port:u",
    b"streamlocal-forward@openssh.com": "path:s",
    b"cancel-streamlocal-forward@openssh.com": "path:s",
}
_LISTS = (
    "kex host_key cipher_out cipher_in mac_out mac_in compression_out compression_in language_out language_in"
)


class _Short(Exception):
    """A field is not there."""


class _Fields:
    """Takes fields from the front of a payload."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def flag(self) -> bool:
        return self.take(1) != b"\0"

    def string(self) -> bytes:
        return self.take(self.u32())

    def take(self, size: int) -> bytes:
        if len(self.rest) < size:
            raise _Short
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


def quoted(data: bytes) -> str:
    """Bytes as a quoted text in ASCII."""
    text = repr(data)[1:]
    return text if text.startswith("'") else "'" + text[1:-1].replace("'", "\\'") + "'"


class Describer:
    """Names messages of one leg. Message 60 means what the login's last method says. ``hides_data``: what
    channels carry is text of conchrec, which may be reworded. ``asks``: so may be questions of the login."""

    def __init__(self, texts: Texts, *, hides_data: bool = False, asks: bool = True) -> None:
        self._texts = texts
        self._asks = asks
        self._hides_data = hides_data
        self._method = b""

    def line(self, number: int, payload: bytes) -> str:
        """The message without its number, as one line."""
        fields = _Fields(payload)
        name = TRANSPORT.get(number) or USERAUTH.get(number) or CONNECTION.get(number) or f"MESSAGE_{number}"
        if number in (60, 61):
            name = self._login_name(number)
        parts = [name]
        try:
            parts += self._fields(number, fields)
        except _Short:
            parts.append("cut short")
        if fields.rest:
            parts.append(f"surplus={quoted(fields.rest)}")
        return " ".join(parts)

    def _login_name(self, number: int) -> str:
        if self._method == b"publickey":
            return "USERAUTH_PK_OK"
        return "USERAUTH_INFO_REQUEST" if number == 60 else "USERAUTH_INFO_RESPONSE"

    def _text(self, data: bytes) -> str:
        return quoted(self._texts(data.decode("utf-8", "backslashreplace")).encode())

    def _question(self, data: bytes) -> str:
        """Ours is ``<text>``; a target's is marked with its name in brackets, or comes from the target."""
        is_ours = data and OURS not in data and self._asks and not data.startswith(b"[")
        return "<text>" if is_ours else self._text(data)

    def _fields(self, number: int, fields: _Fields) -> Iterator[str]:
        if number in TRANSPORT:
            yield from self._transport(number, fields)
        elif number in USERAUTH or number in (60, 61):
            yield from self._userauth(number, fields)
        elif number in (80, 98):
            if number == 98:
                yield f"channel={fields.u32()}"
            kind = fields.string()
            yield f"{kind.decode('ascii')} want_reply={fields.flag():d}"
            yield from self._layout(REQUESTS.get(kind, ""), fields)
        elif number == 90:
            kind = fields.string()
            yield f"{kind.decode('ascii')} sender={fields.u32()}"
            yield f"window={fields.u32()} packet={fields.u32()}"
            yield from self._layout(OPENS.get(kind, ""), fields)
        elif number >= 91:
            yield f"channel={fields.u32()}"
            yield from self._channel(number, fields)

    def _transport(self, number: int, fields: _Fields) -> Iterator[str]:
        if number == 1:
            yield f"reason={fields.u32()} text={self._text(fields.string())}"
            fields.string()
        elif number in (5, 6):
            yield fields.string().decode("ascii")
        elif number == 7:
            for _ in range(fields.u32()):
                yield f"{fields.string().decode('ascii')}={quoted(fields.string())}"
        elif number == 20:
            fields.take(16)
            yield "cookie=<random>"
            for name in _LISTS.split():
                yield f"{name}={fields.string().decode('ascii')}"
            yield f"first_follows={fields.flag():d}"
            fields.u32()
        elif number in (30, 31):
            fields.rest = b""
            yield "<random>"

    def _userauth(self, number: int, fields: _Fields) -> Iterator[str]:
        if number == 50:
            yield f"user={quoted(fields.string())} {fields.string().decode('ascii')}"
            self._method = fields.string()
            yield self._method.decode("ascii")
            if self._method in (b"publickey", b"publickey-hostbound-v00@openssh.com"):
                signed = fields.flag()
                yield f"{fields.string().decode('ascii')} signed={signed:d}"
                fields.rest = b""
            elif self._method == b"keyboard-interactive":
                fields.string()
                yield f"submethods={quoted(fields.string())}"
        elif number == 51:
            yield f"methods={fields.string().decode('ascii')} partial={fields.flag():d}"
        elif number == 53:
            yield f"text={self._text(fields.string())}"
            fields.string()
        elif number == 60 and self._method == b"keyboard-interactive":
            yield f"name={self._question(fields.string())} instruction={self._question(fields.string())}"
            fields.string()
            for _ in range(fields.u32()):
                yield f"prompt={self._question(fields.string())} echo={fields.flag():d}"
        elif number == 60:
            yield fields.string().decode("ascii")
            fields.rest = b""
        elif number == 61:
            count = fields.u32()
            yield f"answers={count}"
            fields.rest = b""

    def _channel(self, number: int, fields: _Fields) -> Iterator[str]:
        if number == 91:
            yield f"sender={fields.u32()} window={fields.u32()} packet={fields.u32()}"
        elif number == 92:
            yield f"reason={fields.u32()} text={self._text(fields.string())}"
            fields.string()
        elif number == 93:
            yield f"bytes={fields.u32()}"
        elif number == 94:
            yield from self._data(fields.string())
        elif number == 95:
            yield f"type={fields.u32()}"
            yield from self._data(fields.string())

    def _data(self, data: bytes) -> Iterator[str]:
        if OURS in data:
            yield self._text(data)
        elif self._hides_data:
            yield "<text>"
        elif len(data) > LONGEST:
            yield f"size={len(data)} sha256={hashlib.sha256(data).hexdigest()[:16]}"
        else:
            yield quoted(data)

    def _layout(self, layout: str, fields: _Fields) -> Iterator[str]:
        for item in layout.split():
            name, _, kind = item.partition(":")
            if kind == "u":
                yield f"{name}={fields.u32()}"
            elif kind == "b":
                yield f"{name}={fields.flag():d}"
            else:
                yield f"{name}={quoted(fields.string())}"
