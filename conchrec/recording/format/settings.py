"""What the configuration says of every recording (``recordings`` in config.yaml), as the recorder and the
store take it."""

from __future__ import annotations

from enum import Enum


class InputPolicy(Enum):
    """What is kept of what the user sends (``recordings.input``)."""

    NO = "no"
    """None of it."""
    WITHOUT_PTY = "without-pty"
    """Of sessions without a terminal the first MiB: scripts, but nothing that a person types."""
    YES = "yes"
    """Also what is typed at a terminal, as far as the terminal shows it: no passwords."""


class Fsync(Enum):
    """When a recording is written through to the disk (``recordings.fsync``). The operating system gets it
    within 8 ms in any case."""

    INTERVAL = "interval"
    """Once a second, and at its end."""
    ALWAYS = "always"
    """After each write, in the background, and at its end."""
    NEVER = "never"
    """Whenever the operating system does so."""
