"""asciicast v2, one line at a time: the header and the events, written and read.

Knows the format and nothing else: no files, no clock, no SSH. Real players accept less than the format allows
(a ``null`` breaks the timing of the web player, ``0x0`` hangs one reader, a time that decreases stops
another), so only lines that all of them accept are written.

Layout::

    {"version":2,"width":80,"height":24,"timestamp":1767000000, ... ,"conchrec":{...}}\\n
    [0.012345, "o", "text"]\\n          o output · i input · r "COLSxROWS" · m marker · x exit status
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring

import orjson

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode

OUTPUT = "o"
INPUT = "i"
RESIZE = "r"
MARKER = "m"
EXIT = "x"
#: A later start on the same channel, where the target refused the first: kind and command as in the header,
#: as JSON. Players ignore codes that they do not know.
START = "s"

DEFAULT_SIZE = (80, 24)
_LARGEST = 1000
_ENVIRONMENT = ("TERM", "SHELL")
_ZEROS = "\0" * 16


class Damaged(RecordingError):
    """A line that is not asciicast v2."""

    default_code = ReasonCode.RECORDING_DAMAGED


def is_valid_size(columns: int, rows: int) -> bool:
    """Return whether every player can show this size."""
    return 1 <= columns <= _LARGEST and 1 <= rows <= _LARGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line. ``ours`` goes under the key ``conchrec``; an empty field is left out."""

    width: int = DEFAULT_SIZE[0]
    height: int = DEFAULT_SIZE[1]
    timestamp: int = 0
    command: str = ""
    title: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    ours: Mapping[str, object] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the header as a line. A size that players refuse becomes 80x24."""
        width, height = (self.width, self.height) if is_valid_size(self.width, self.height) else DEFAULT_SIZE
        fields: dict[str, object] = {"version": 2, "width": width, "height": height}
        fields["timestamp"] = max(int(self.timestamp), 0)
        if self.command:
            fields["command"] = self.command
        if self.title:
            fields["title"] = self.title
        env = {name: self.env[name] for name in _ENVIRONMENT if self.env.get(name)}
        if env:
            fields["env"] = env
        if self.ours:
            fields["conchrec"] = _without_nulls(self.ours)
        return _encode(fields) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Header:
        """Read a first line. Raises Damaged where it is not a header of version 2."""
        fields = _decode(line)
        if not isinstance(fields, dict) or fields.get("version") != 2:
            raise Damaged("the recording has no asciicast v2 header")
        width, height, timestamp = (fields.get(name) for name in ("width", "height", "timestamp"))
        if not isinstance(width, int) or not isinstance(height, int):
            raise Damaged("the recording's header has no size")
        env, ours = fields.get("env"), fields.get("conchrec")
        return cls(
            width=width,
            height=height,
            timestamp=timestamp if isinstance(timestamp, int) else 0,
            command=_text(fields.get("command")),
            title=_text(fields.get("title")),
            env={name: _text(value) for name, value in env.items()} if isinstance(env, dict) else {},
            ours=ours if isinstance(ours, dict) else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line after the header; ``time`` is in seconds since the header."""

    time: float
    code: str
    text: str

    @classmethod
    def parse(cls, line: bytes) -> Event:
        """Read an event. Raises Damaged."""
        fields = _decode(line)
        if (
            not isinstance(fields, list)
            or len(fields) != 3
            or not isinstance(fields[0], (int, float))
            or not isinstance(fields[1], str)
            or not isinstance(fields[2], str)
        ):
            raise Damaged("the recording is damaged: a line is not an event")
        return cls(time=float(fields[0]), code=fields[1], text=fields[2])


def event_line(time: float, code: str, text: str) -> bytes:
    """Return the line of one event. ``time`` must not be less than that of the event before it.

    This is a function and not a method of Event, because the data path makes no objects.
    """
    # isascii costs nothing, and most output then needs no search for separators.
    if not text.isascii():
        encoded = _encode(text)
    elif _ZEROS in text:
        # Endless zeros are a flood, and orjson takes three times as long for them.
        encoded = encode_basestring(text).encode("ascii")
    else:
        encoded = orjson.dumps(text)
    # join, because formatting grows its result step by step, which costs most of the time for long lines.
    return b"".join((f'[{time:.6f}, "{code}", '.encode("ascii"), encoded, b"]\n"))


def resize_line(time: float, columns: int, rows: int) -> bytes:
    """Return the event of a new size, which must be a valid size."""
    return event_line(time, RESIZE, f"{columns}x{rows}")


def exit_line(time: float, status: int) -> bytes:
    """Return the event of an exit status, an unsigned number of 32 bits (RFC 4254, section 6.10).

    asciinema 3 reads a signed number and refuses the whole file for a larger one; Windows has such.
    """
    return event_line(time, EXIT, str((status + 2**31) % 2**32 - 2**31))


def _encode(value: object) -> bytes:
    """Return compact JSON in UTF-8, in which nothing can be taken for the end of a line."""
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        # A lone surrogate: the text was not UTF-8. It must not end the session.
        encoded = orjson.dumps(_without_surrogates(value))
    # U+0085, U+2028 and U+2029 end a line for str.splitlines and for JavaScript; JSON allows them unescaped.
    if b"\xc2\x85" in encoded:
        encoded = encoded.replace(b"\xc2\x85", b"\\u0085")
    if b"\xe2\x80" in encoded:
        encoded = encoded.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return encoded


def _decode(line: bytes) -> object:
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Damaged("the recording is damaged: a line is not JSON", str(error)) from error
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _without_nulls(fields: Mapping[str, object]) -> dict[str, object]:
    return {
        name: _without_nulls(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if value is not None
    }


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item) for item in value]
    return value
