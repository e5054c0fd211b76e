"""Reads a recording that is still being written, from its file alone.

``Tail`` reads and never waits; a caller with a clock calls it every ``POLL_SECONDS``. The manifest is the
end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue.library import LONGEST_LINE, LibraryEntry
from conchrec.recording.format.asciicast import OUTPUT, RESIZE, Damaged, Event, Header
from conchrec.recording.playback.frame import FRAME_SECONDS, Frame
from conchrec.recording.playback.key_decoder import KeyDecoder
from conchrec.recording.playback.progress_line import format_clock
from conchrec.recording.playback.replay import resize_screen, split_output
from conchrec.recording.playback.step_costs import STEP
from conchrec.recording.storage.encodings import is_compressed, open_regular_file
from conchrec.recording.storage.layout import MANIFEST
from conchrec.recording.terminal.painter import Painter, render_lines
from conchrec.recording.terminal.screen import Screen

if TYPE_CHECKING:
    import zstandard

POLL_SECONDS = 0.2

_PIECE = 64 * 1024
_COMPRESSED_PIECE = 64
"""Few bytes, because each compressed byte can become 30 kB of output."""


class Tail:
    """Reads a recording that is not encrypted. ``header`` is None until it was read; ``ended`` says that
    there is no more."""

    def __init__(self, entry: LibraryEntry) -> None:
        """Open the recording. Raises OSError."""
        self.header: Header | None = None
        self.ended = False
        path = entry.path
        self._file = open(path, "rb", buffering=0, opener=open_regular_file)  # noqa: SIM115  # closed with this object
        self._manifest = path.with_name(entry.sid + MANIFEST)
        self._is_compressed = is_compressed(path)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        #: Bytes that are not decompressed yet, and a line that is not complete.
        self._raw = b""
        self._partial_line = b""

    def read(self) -> list[Event]:
        """Return new events, of a limited number of bytes; none where there are none. Raises RecordingError
        and OSError."""
        # Checked before the file is read: everything was written before the manifest.
        is_complete = self._manifest.exists()
        data = self._decompressed() if self._is_compressed else self._file.read(_PIECE)
        self.ended = is_complete and not data and not self._raw
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        if len(self._partial_line) > LONGEST_LINE:
            raise Damaged("the recording has a line that is too long")
        if lines and self.header is None:
            self.header = Header.parse(lines.pop(0))
        return [Event.parse(line) for line in lines]

    def _decompressed(self) -> bytes:
        """Return new bytes; empty where there are none. Few compressed bytes may become many."""
        import zstandard

        parts: list[bytes] = []
        size = 0
        try:
            while size < _PIECE:
                self._raw = self._raw or self._file.read(_PIECE)
                if not self._raw:
                    break
                data, self._raw = self._raw[:_COMPRESSED_PIECE], self._raw[_COMPRESSED_PIECE:]
                while data:
                    if self._frame is None:
                        self._frame = zstandard.ZstdDecompressor().decompressobj()
                    parts.append(self._frame.decompress(data))
                    size += len(parts[-1])
                    data = self._frame.unused_data
                    if self._frame.eof:
                        self._frame = None
        except zstandard.ZstdError as error:
            raise RecordingError(
                "cannot decompress the recording", str(error), code=ReasonCode.RECORDING_UNREADABLE
            ) from error
        return b"".join(parts)


class CompleteRecording:
    """Reads a recording that has ended, with the interface of Tail, from its lines."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.header: Header | None = None
        self.ended = False
        self._lines = lines

    def read(self) -> list[Event]:
        """Return events, of a limited number of bytes; none at the end. Raises what the lines raise."""
        lines: list[bytes] = []
        size = 0
        for line in self._lines:
            lines.append(line)
            size += len(line)
            if size >= _PIECE:
                break
        self.ended = not lines
        if lines and self.header is None:
            self.header = Header.parse(lines.pop(0))
        return [Event.parse(line) for line in lines]


class Follower:
    """Shows pictures of the current screen, with the interface of Player."""

    def __init__(self, tail: Tail | CompleteRecording, *, size: tuple[int, int] = (80, 24)) -> None:
        #: Always empty: ``advance`` raises what cannot be read.
        self.problem = ""
        self._tail = tail
        self._keys = KeyDecoder()
        self._painter = Painter(*size)
        self._screen: Screen | None = None
        self._time = 0.0
        #: Events that are not on the screen yet.
        self._events: deque[Event] = deque()

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """Return the next frame. Raises RecordingError and OSError."""
        if size is not None:
            self._painter.resize(*size)
        is_over = any(key in ("q", "Q", "\x03", "\x04") for key in self._keys.feed(keys))
        if not self._events:
            self._events.extend(split_output(self._tail.read()))
        header = self._tail.header
        if header is None:
            return Frame(text="", wake=POLL_SECONDS, over=is_over or self._tail.ended)
        if self._screen is None:
            self._screen = Screen(header.width, header.height, newline=not header.env.get("TERM"))
        has_events = bool(self._events)
        until = self._screen.work + STEP
        while self._events and self._screen.work < until:
            event = self._events.popleft()
            self._time = event.time
            if event.code == OUTPUT:
                self._screen.feed(event.text)
            elif event.code == RESIZE:
                resize_screen(self._screen, event.text)
        progress = None
        if self._painter.rows > self._screen.rows and not self._tail.ended:
            progress = f" live  {format_clock(self._time)}  q: quit"
        text = self._painter.paint(self._screen, progress)
        behind = self._painter.behind
        return Frame(
            text=text,
            wake=0.0 if has_events else FRAME_SECONDS if behind else POLL_SECONDS,
            over=is_over or (self._tail.ended and not self._events and not behind),
        )

    @property
    def screen(self) -> Screen | None:
        """The recorded terminal as it is now; None before the header was read."""
        return self._screen

    def picture(self) -> str:
        """Return what is on the screen, as lines."""
        return render_lines(self._screen, self._painter.columns) if self._screen is not None else ""
