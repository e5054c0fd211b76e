"""What ``play``, ``text`` and ``follow`` show of a recording, for ``conchrec recordings`` and over SSH.

Where something must be read before anything can be shown, the function returns an ``Opening``: an iterator of
short steps. A step gives None while there is more to read; the last one gives the show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from conchrec.recording.catalogue.library import LibraryEntry, complete_lines, events
from conchrec.recording.format.asciicast import Event
from conchrec.recording.playback.follow import CompleteRecording, Follower, Tail
from conchrec.recording.playback.frame import PictureShow
from conchrec.recording.playback.outline import OutlineReader
from conchrec.recording.playback.plain_output import PlainOutput, followed_parts, output_parts, text_parts
from conchrec.recording.playback.player import Player
from conchrec.recording.storage.recipients import Identities

Opening: TypeAlias = Iterator[PictureShow | PlainOutput | None]
"""Raises RecordingError and OSError."""


@dataclass(frozen=True, slots=True)
class RecordingSource:
    """One recording, and the keys to decrypt it."""

    entry: LibraryEntry
    identities: Identities = ()

    def events(self) -> Iterator[Event]:
        """Yield the events, from the beginning. Raises Damaged, Encrypted and OSError."""
        return events(self.entry.path, self.identities)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, the header first. Raises Encrypted and OSError."""
        return complete_lines(self.entry.path, self.identities)

    def tail(self) -> Tail | CompleteRecording:
        """Return a reader of the recording until its end. Raises OSError."""
        return Tail(self.entry) if self.entry.manifest is None else CompleteRecording(self.lines())


def play(
    source: RecordingSource,
    *,
    size: tuple[int, int] | None,
    speed: float = 1.0,
    idle: float | None = None,
) -> Opening:
    """Play a recording in its own time, in pictures for a terminal of this size; without a size print all its
    output at once. ``idle`` is the longest pause, in seconds."""
    if size is None:
        yield PlainOutput(output_parts(source.events()))
        return
    reader = OutlineReader(source.lines())
    while (outline := reader.read()) is None:
        yield None
    yield Player(outline, source.events, speed=speed, idle=idle, size=size)


def play_raw(source: RecordingSource, *, speed: float | None, idle: float | None) -> PlainOutput:
    """Print the output of a recording unchanged: in its own time, or at once where ``speed`` is None."""
    return PlainOutput(output_parts(source.events(), raw=True, speed=speed, idle=idle))


def text(source: RecordingSource) -> PlainOutput:
    """Print the output of a recording as plain lines."""
    return PlainOutput(text_parts(source.events()))


def follow(source: RecordingSource, *, size: tuple[int, int] | None, raw: bool = False) -> Opening:
    """Show a recording from its beginning, and what is added to it, until its end: in pictures for a terminal
    of this size, else as plain output."""
    tail = source.tail()
    if size is None:
        yield PlainOutput(followed_parts(tail, raw=raw))
    else:
        yield Follower(tail, size=size)
