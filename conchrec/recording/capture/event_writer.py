"""Turns events into lines of an asciicast, in the order in which they happen.

Output that arrives within a few milliseconds becomes one event, of about 32 KiB at most. Lines are written
when the timer of the store requests it, when about 256 KiB are held, and at every ``flush``.

This is the data path: it has no thread, no Deferred and no log line, and reads the clock once for each piece.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from datetime import timedelta

from conchrec.recording.capture.recording_file import RecordingFile
from conchrec.recording.format import asciicast
from conchrec.text import escape

_EVENT_SIZE = 32 * 1024
_FLUSH_AT = 256 * 1024
_HELD_AT_MOST = 0.5
_decoder = codecs.getincrementaldecoder("utf-8")


class Timeline:
    """The times of events: seconds since the header, by a monotonic clock."""

    __slots__ = ("_monotonic", "_opened", "_zero", "last")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._opened = self._zero = monotonic()
        #: The last result of ``elapsed``.
        self.last = 0.0

    def start(self) -> None:
        """Count from now: the header is written."""
        self._zero = self._monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the header; never less than the last result."""
        elapsed = self._monotonic() - self._zero
        if elapsed > self.last:
            self.last = elapsed
        return self.last

    def duration(self) -> timedelta:
        """Return the time since the recording was opened. The wall clock may have been set since."""
        return timedelta(seconds=max(self._monotonic() - self._opened, 0.0))


class TextStream:
    """One stream of one channel as text: its event code, its decoder (characters may come in parts), and the
    pieces that are not a line yet."""

    __slots__ = ("_decoder", "began", "code", "is_lossy", "pieces", "size")

    def __init__(self, code: str) -> None:
        self.code = code
        self._decoder = _decoder("replace")
        #: Bytes of the text were replaced: they were not UTF-8.
        self.is_lossy = False
        self.pieces: list[bytes] = []
        self.size = 0
        #: The time of the first piece.
        self.began = 0.0

    def cut(self) -> bytes:
        """Return the pieces as a line; empty where they are not a whole character."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.pieces = []
        self.size = 0
        text = self._decoder.decode(data)
        if not text:
            return b""
        if not text.isascii() and "\ufffd" in text:
            self.is_lossy = True
        return asciicast.event_line(self.began, self.code, text)

    def end(self) -> str:
        """Return the incomplete character at the end of the stream."""
        return self._decoder.decode(b"", final=True)


class EventWriter:
    """Collects lines for the file, and merges consecutive pieces of one stream into one event.

    ``request_flush`` must make ``flush`` be called within some milliseconds; it is called once for each
    flush. Each method raises RecordingError where a line cannot be kept.
    """

    __slots__ = (
        "_file", "_flush_requested", "_held", "_held_since", "_lines", "_request_flush", "_stream",
        "timeline",
    )  # fmt: skip

    def __init__(self, file: RecordingFile, timeline: Timeline, request_flush: Callable[[], None]) -> None:
        self._file = file
        self.timeline = timeline
        self._request_flush = request_flush
        self._flush_requested = False
        self._lines: list[bytes] = []
        self._stream: TextStream | None = None
        self._held = 0
        self._held_since = 0.0

    def header(self, line: bytes) -> None:
        """Add the first line: times count from here."""
        self.timeline.start()
        self._lines.append(line)

    def text(self, stream: TextStream, data: bytes) -> None:
        """Add a piece of a stream; what arrives soon after it becomes the same event."""
        if self._stream is not stream:
            self.cut()
            self._stream = stream
        now = self.timeline.elapsed()
        if not stream.pieces:
            stream.began = now
        size = len(data)
        stream.pieces.append(data)
        stream.size += size
        if stream.size >= _EVENT_SIZE:
            self.cut()
        self._hold(size, now)

    def event(self, code: str, text: str) -> None:
        """Add one event on its own line."""
        now = self.cut()
        self._add(asciicast.event_line(now, code, text), now)

    def marker(self, text: str) -> None:
        """Add a named point in time; ``text`` may come from outside."""
        self.event(asciicast.MARKER, escape(text))

    def resize(self, columns: int, rows: int) -> None:
        """Add a new size, which is a valid one."""
        now = self.cut()
        self._add(asciicast.resize_line(now, columns, rows), now)

    def exit(self, status: int) -> None:
        """Add an exit status."""
        now = self.cut()
        self._add(asciicast.exit_line(now, status), now)

    def end(self, stream: TextStream) -> None:
        """End a stream: an incomplete character counts as one."""
        if text := stream.end():
            self._lines.append(asciicast.event_line(self.timeline.elapsed(), stream.code, text))

    def cut(self) -> float:
        """End the current event, so that a line of another kind can follow. Returns the time."""
        stream = self._stream
        if stream is not None and stream.pieces:
            size = stream.size
            if line := stream.cut():
                self._lines.append(line)
                # JSON escapes make control characters six times as long.
                self._held += len(line) - size
        return self.timeline.elapsed()

    def flush(self) -> None:
        """Write all lines: the operating system has them afterwards, and they survive the end of this
        process."""
        self._file.check()
        self.cut()
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        self._held = 0
        self._file.append(lines)

    def flush_soon(self) -> None:
        """Request a flush."""
        if not self._flush_requested:
            self._flush_requested = True
            self._request_flush()

    def flush_began(self) -> None:
        """The requested flush begins: the next one has to be requested again."""
        self._flush_requested = False

    def discard(self) -> None:
        """Drop what is held: the recording has failed, and nothing more can be written."""
        self._lines.clear()
        if self._stream is not None:
            self._stream.pieces = []

    def _add(self, line: bytes, now: float) -> None:
        self._lines.append(line)
        self._hold(len(line), now)

    def _hold(self, size: int, now: float) -> None:
        if not self._held:
            self._held_since = now
        self._held += size
        # The second test is for a timer that does not fire: Twisted's timers follow the wall clock, which may
        # be set back by an hour.
        if self._held >= _FLUSH_AT or now - self._held_since > _HELD_AT_MOST:
            self.flush()
        elif not self._flush_requested:
            self.flush_soon()
