"""What is shown of a recording, frame by frame: who shows it has a terminal, a clock and a way to wait.

A show knows none of these. Each call of ``advance`` is short, whatever the recording is like, so that it may
run between the work of others: a command on a terminal calls it in a loop, the proxy in a thread, step by
step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What to print now. ``wake``: in so many seconds there is more, or sooner with a key; None: with a key
    only. ``over``: that was all."""

    text: str
    wake: float | None = None
    over: bool = False


class Show(Protocol):
    """What is shown frame by frame: a Player or a Follower (pictures), or a PlainOutput."""

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """What to print at ``now`` (seconds, monotonic), after these keys, in a terminal of this size.

        Raises RecordingError and OSError.
        """


class PictureShow(Show, Protocol):
    """A show of pictures, for somebody at a terminal. ``problem`` says at the end what could not be read, if
    anything."""

    problem: str

    def picture(self) -> str:
        """What is on the screen, as lines."""
