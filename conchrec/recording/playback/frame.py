"""What is shown of a recording, frame by frame. The caller has a terminal, a clock and a way to wait.

A show knows none of these. Each call of ``advance`` is short for every recording, so that other work can run
between two calls: a command at a terminal calls it in a loop, the proxy in a thread, step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

FRAME_SECONDS = 1 / 25
"""The shortest time between two pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What to print now. ``wake`` is the number of seconds until there is more, or sooner with a key; None:
    only with a key. ``over``: this was all."""

    text: str
    wake: float | None = None
    over: bool = False


class Show(Protocol):
    """Something that is shown frame by frame: a Player or a Follower (pictures), or a PlainOutput."""

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """Return what to print at ``now`` (seconds, monotonic), after these keys, in a terminal of this size.

        Raises RecordingError and OSError.
        """


class PictureShow(Show, Protocol):
    """A show of pictures at a terminal."""

    @property
    def problem(self) -> str:
        """What could not be read, at the end; empty if everything could."""

    def picture(self) -> str:
        """Return what is on the screen, as lines."""
