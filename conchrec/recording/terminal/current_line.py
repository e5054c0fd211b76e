"""The line with the cursor, as far as the output since the last newline shows it.

Output is kept as raw bytes until somebody reads the line, which is when a person types; then what is new is
parsed once. So bulk output only costs a search for its last newline, and a key costs the same on a long line
as on a short one.
"""

from __future__ import annotations

from codecs import getincrementaldecoder

from conchrec.recording.terminal.transcript import Transcript

LONGEST = 8 * 1024
MOST_CONTROLS = 512
"""The most bytes, and control characters among them, that are read at a time. A line that gets more before
somebody reads it counts as empty until its newline: it is not a prompt, and not typed by a person."""

#: 0xC2 begins the control characters from U+0080 on, in UTF-8.
_NO_CONTROLS = bytes({*range(32, 127), *range(128, 256)} - {0xC2})
_decoder = getincrementaldecoder("utf-8")


class ShownLine:
    """The current line of one terminal. On an alternate screen it has no meaning."""

    __slots__ = ("_controls", "_decoder", "_is_too_long", "_size", "_transcript", "_unread")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._transcript: Transcript | None = None
        self._is_too_long = False
        self._clear_unread()

    def _clear_unread(self) -> None:
        self._unread: list[bytes] = []
        self._size = self._controls = 0

    def feed(self, data: bytes) -> None:
        """Add output."""
        end = data.rfind(b"\n") + 1
        if end:
            self._begin()
            data = data[end:]
        if not data or self._is_too_long:
            return
        self._size += len(data)
        if self._size <= LONGEST:
            self._controls += len(data.translate(None, _NO_CONTROLS))
        if self._size > LONGEST or self._controls > MOST_CONTROLS:
            self._begin()
            self._is_too_long = True
        else:
            self._unread.append(data)

    @property
    def column(self) -> int:
        """The column of the cursor, from 0."""
        return self._read().column

    def letters(self, start: int, count: int) -> str:
        """Return at most ``count`` letters of the line, from the column ``start`` on."""
        return self._read().letters(start, count)

    def mark(self) -> None:
        """Begin the time of ``new_letters``."""
        self._read().mark()

    def new_letters(self, start: int, count: int) -> str:
        """Return at most ``count`` letters of the line, from the column ``start`` on, that were drawn since
        ``mark``. ``start`` is not left of the cursor of then."""
        return self._read().new_letters(start, count)

    def before_cursor(self, limit: int) -> str | None:
        """Return what is left of the cursor, or None where that is more than ``limit`` letters."""
        column = self.column
        return self.letters(0, column) if column <= limit else None

    def _read(self) -> Transcript:
        if self._transcript is None:
            self._transcript = Transcript()
            self._decoder = _decoder("replace")
        if self._unread:
            self._transcript.feed(self._decoder.decode(b"".join(self._unread)))
            self._clear_unread()
        return self._transcript
