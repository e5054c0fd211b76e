"""What ``play``, ``text`` and ``follow`` show of a recording, for ``conchrec recordings`` and over ssh.

Where something must be read before anything can be shown, there is an ``Opening``: steps that are short, as a
frame is. A step gives None while there is more to be read; the last one gives the show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from conchrec.recording.catalogue.library import LibraryEntry, events, whole_lines
from conchrec.recording.format.asciicast import Event
from conchrec.recording.playback.follow import Follower, Tail, Whole
from conchrec.recording.playback.frame import PictureShow
from conchrec.recording.playback.plain_output import PlainOutput, followed_parts, output_parts, text_parts
from conchrec.recording.playback.player import OutlineReader, Player
from conchrec.recording.storage.recipients import Identities

Opening: TypeAlias = Iterator[PictureShow | PlainOutput | None]
"""Raises RecordingError and OSError."""


@dataclass(frozen=True, slots=True)
class RecordingSource:
    """One recording, and the keys to read it by where it is encrypted."""

    entry: LibraryEntry
    identities: Identities = ()

    def events(self) -> Iterator[Event]:
        """Its events, from the beginning. Raises Damaged, Encrypted and OSError."""
        return events(self.entry.path, self.identities)

    def lines(self) -> Iterator[bytes]:
        """Its lines, the header first. Raises Encrypted and OSError."""
        return whole_lines(self.entry.path, self.identities)

    def tail(self) -> Tail | Whole:
        """What is read of it from now on, until it has ended. Raises OSError."""
        return Tail(self.entry) if self.entry.manifest is None else Whole(self.lines())


def play(
    source: RecordingSource,
    *,
    size: tuple[int, int] | None,
    speed: float = 1.0,
    idle: float | None = None,
) -> Opening:
    """A recording in its own time, in pictures for a terminal of this size; without one all its output, at
    once. ``idle`` is the longest pause, in seconds."""
    if size is None:
        yield PlainOutput(output_parts(source.events()))
        return
    reader = OutlineReader(source.lines())
    while (about := reader.read()) is None:
        yield None
    yield Player(about, source.events, speed=speed, idle=idle, size=size)


def play_raw(source: RecordingSource, *, speed: float | None, idle: float | None) -> PlainOutput:
    """The output of a recording as it was recorded: in its own time, or at once where ``speed`` is None."""
    return PlainOutput(output_parts(source.events(), raw=True, speed=speed, idle=idle))


def text(source: RecordingSource) -> PlainOutput:
    """The output of a recording as plain lines."""
    return PlainOutput(text_parts(source.events()))


def follow(source: RecordingSource, *, size: tuple[int, int] | None, raw: bool = False) -> Opening:
    """A recording from its beginning, and what is added to it, until it has ended: in pictures for a terminal
    of this size, else as plain output."""
    tail = source.tail()
    if size is None:
        yield PlainOutput(followed_parts(tail, raw=raw))
    else:
        yield Follower(tail, size=size)
