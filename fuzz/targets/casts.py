"""Recordings that somebody has touched: read, found damaged, or shown; a terminal is never asked anything."""

from __future__ import annotations

import re

from conchrec.errors import RecordingError
from conchrec.recording.catalogue.library import complete_lines, events
from conchrec.recording.format.asciicast import Event, Header, event_line
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.terminal.sanitize import SafeOutput
from conchrec.recording.terminal.transcript import Transcript
from fuzz.limits import Broken
from fuzz.scratch import scratch
from fuzz.target import Each, Target, chosen

#: Strings to the terminal, its reports, and what makes it type: none of them may come out.
_ASKS = re.compile(
    "\x1b[\\]PX^_]|\x1b\\[[0-9;?]*[cn]|\x1b\\[[?]?[0-9;]*\\$p|\x1bZ|\x05|[\x80-\x9f]|\x1b\\[[0-9;]*t"
)

HEADER = Header(command="ls", title="joe", env={"TERM": "xterm"}, ours={"sid": "s", "roles": ["a"]}).line()
EVENTS = (
    event_line(0.5, "o", "$ ls \x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07\x1b[6n"),
    event_line(1, "r", "100x30"),
    event_line(1.5, "x", "0"),
)
MANIFEST = (
    b'{"version":1,"sid":"s","status":"complete","reason":"","started":"2026-01-01T00:00:00Z",'
    b'"ended":"2026-01-01T00:00:01Z","cast":{"name":"s.cast","size":1,"sha256":"00"},"roles":["a"],'
    b'"exit":{"status":0},"pty":{"term":"xterm","columns":80,"rows":24},"stdout":{"bytes":1,"sha256":"00"}}'
)
OUTPUT = (
    "a\x1b[1;31mred\x1b[0m\x1b]0;title\x07\x1b[6n\x1b[?1049h\x1b[c\x1bPq\x1b\\"
    "\x9b6n\tü\r\n\b\x1b[2K\x1b[3@\x1b[9P"
)


def _cast(data: bytes) -> None:
    path = scratch("one.cast")
    path.write_bytes(data)
    for line in complete_lines(path):
        if not line.endswith(b"\n"):
            raise Broken("a line that is not whole")
    for event in events(path):
        event_line(event.time, "o", event.text)


def _header(data: bytes) -> None:
    header = Header.parse(data)
    if Header.parse(header.line()).title != header.title:
        raise Broken("a header is written as another")


def _event(data: bytes) -> None:
    Event.parse(data)


def _manifest(data: bytes) -> None:
    manifest = Manifest.parse(data)
    if Manifest.parse(manifest.encode()) != manifest:
        raise Broken("a manifest is written as another")


def _output(data: bytes) -> None:
    """Pieces make no difference, and what comes out is harmless."""
    text = data[1:].decode("utf-8", "replace")
    cut = (data[0] if data else 0) * (len(text) + 1) // 256
    whole, parts, lines = SafeOutput(), SafeOutput(), Transcript()
    shown = whole.feed(text)
    pieces = parts.feed(text[:cut]) + parts.feed(text[cut:])
    if len(text) < 2048 and shown != pieces:
        raise Broken(f"{shown!r} in one piece, {pieces!r} in two")
    if asks := _ASKS.search(shown):
        raise Broken(f"the terminal is told {asks.group()!r}")
    written = lines.feed(text[:cut]) + lines.feed(text[cut:]) + lines.end()
    if not written.replace("\n", "").isprintable():
        raise Broken(f"not plain lines: {written!r}")


_read = chosen((_cast, _header, _event, _manifest, _output, _output))


def _shown(data: bytes) -> None:
    try:
        _read(data)
    except RecordingError as error:
        if not error.public.isprintable():
            raise Broken(f"it says {error.public!r}") from error


def _corpus() -> list[bytes]:
    inputs = (HEADER + b"".join(EVENTS), HEADER, EVENTS[0], MANIFEST, b"\x80" + OUTPUT.encode())
    return [bytes((number,)) + entry for number, entry in enumerate(inputs)]


TARGET = Target(
    name="casts",
    about="casts and manifests: format/asciicast.py, manifest.py, catalogue/library.py, terminal/sanitize.py",
    corpus=_corpus,
    begin=lambda: Each(_shown),
)
