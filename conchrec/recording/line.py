"""The line that the cursor is in, as far as the output since the end of the last line tells. Pure.

Kept as raw bytes, and made into text only when somebody asks, which is when a person types: bulk output
costs a search for its last newline.
"""

from __future__ import annotations

from conchrec.recording.transcript import Transcript

LONGEST = 8 * 1024
"""Bytes of a line that are kept; of a longer one nothing is known."""


class ShownLine:
    """See the module. What is on an alternate screen is no line: then there is none."""

    __slots__ = ("_raw",)

    def __init__(self) -> None:
        self._raw = b""

    def feed(self, data: bytes) -> None:
        """More output."""
        end = data.rfind(b"\n") + 1
        self._raw = data[end:] if end else self._raw + data
        if len(self._raw) > LONGEST:
            # A newline that will never come: what is known begins anew, as something that is no prompt.
            self._raw = b"\r"

    def copy(self, other: ShownLine) -> None:
        """Become what another one is."""
        self._raw = other._raw

    def text(self) -> tuple[str, int]:
        """What is on it, and the column that the cursor is in."""
        transcript = Transcript()
        transcript.feed(self._raw.decode("utf-8", "replace"))
        return transcript.line, transcript.column
