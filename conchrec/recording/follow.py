"""A recording that is still being written, read as it grows: by anybody, with no other channel than its file.

``Tail`` reads and never waits; whoever has a clock asks it again every ``POLL_SECONDS``. It ends with the
manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from conchrec.errors import RecordingError
from conchrec.recording.asciicast import OUTPUT, RESIZE, Event, Header
from conchrec.recording.forms import is_packed, regular
from conchrec.recording.library import Entry
from conchrec.recording.picture import Painter, whole
from conchrec.recording.player import Frame, Keys, clock, resized
from conchrec.recording.screen import Screen
from conchrec.recording.tree import MANIFEST

if TYPE_CHECKING:
    import zstandard

POLL_SECONDS = 0.2

_PIECE = 64 * 1024
_PACKED_PIECE = 4 * 1024
_LINES = 256


class Tail:
    """Of one that is not encrypted. ``header`` is None until it was read; ``ended``: there is no more."""

    def __init__(self, entry: Entry) -> None:
        """Raises OSError."""
        self.header: Header | None = None
        self.ended = False
        path = entry.path
        self._file = open(path, "rb", buffering=0, opener=regular)  # noqa: SIM115  # closed with this object
        self._manifest = path.with_name(entry.sid + MANIFEST)
        self._packed = is_packed(path)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._held = b""

    def read(self) -> list[Event]:
        """What is new, a piece of it at most; nothing where nothing is. Raises RecordingError, OSError."""
        # Asked before the file is read: what was written by then is all that there will be.
        sealed = self._manifest.exists()
        data = self._file.read(_PACKED_PIECE if self._packed else _PIECE)
        self.ended = sealed and not data
        *lines, self._held = (self._held + (self._unpacked(data) if self._packed else data)).split(b"\n")
        if lines and self.header is None:
            self.header = Header.parse(lines.pop(0))
        return [Event.parse(line) for line in lines]

    def _unpacked(self, data: bytes) -> bytes:
        import zstandard

        parts = []
        try:
            while data:
                if self._frame is None:
                    self._frame = zstandard.ZstdDecompressor().decompressobj()
                parts.append(self._frame.decompress(data))
                data = self._frame.unused_data
                if self._frame.eof:
                    self._frame = None
        except zstandard.ZstdError as error:
            raise RecordingError("the recording can not be unpacked", str(error)) from error
        return b"".join(parts)


class Whole:
    """One that has ended, as if it were followed: its lines, the header first."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.header: Header | None = None
        self.ended = False
        self._lines = lines

    def read(self) -> list[Event]:
        """As of a Tail; raises what the lines do, too."""
        lines = list(islice(self._lines, _LINES))
        self.ended = not lines
        if lines and self.header is None:
            self.header = Header.parse(lines.pop(0))
        return [Event.parse(line) for line in lines]


class Follower:
    """Pictures of what is on the screen now; to be used like a Player."""

    def __init__(self, tail: Tail | Whole, *, size: tuple[int, int] = (80, 24)) -> None:
        self._tail = tail
        self._keys = Keys()
        self._painter = Painter(*size)
        self._screen: Screen | None = None
        self._time = 0.0

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """As of a Player. Raises RecordingError and OSError."""
        if size is not None:
            self._painter.resize(*size)
        over = any(key in ("q", "Q", "\x03", "\x04") for key in self._keys.feed(keys))
        found = self._tail.read()
        header = self._tail.header
        if header is None:
            return Frame(text="", wake=POLL_SECONDS, over=over or self._tail.ended)
        if self._screen is None:
            self._screen = Screen(header.width, header.height, newline=not header.env.get("TERM"))
        for event in found:
            self._time = event.time
            if event.code == OUTPUT:
                self._screen.feed(event.text)
            elif event.code == RESIZE:
                resized(self._screen, event.text)
        progress = None
        if self._painter.rows > self._screen.rows and not self._tail.ended:
            progress = f" live  {clock(self._time)}  q: look no longer"
        return Frame(
            text=self._painter.paint(self._screen, progress),
            wake=0.0 if found else POLL_SECONDS,
            over=over or self._tail.ended,
        )

    def picture(self) -> str:
        """What is on the screen, as lines."""
        return whole(self._screen, self._painter.columns) if self._screen is not None else ""
