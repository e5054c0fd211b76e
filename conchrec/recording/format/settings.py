"""What the configuration says of every recording (``recordings`` in config.yaml), as the recorder and the
store take it."""

from __future__ import annotations

from enum import Enum


class InputPolicy(Enum):
    """What is kept of what the user sends (``recordings.input``)."""

    NO = "no"
    """Counts and hashes only."""
    WITHOUT_PTY = "without-pty"
    """The first MiB where there is no pty: scripts, but not what somebody types."""
    YES = "yes"
    """What is typed at a pty too, as far as it is shown there (``echo``); without a pty the first MiB."""


class Fsync(Enum):
    """When the disk is told (``recordings.fsync``). The operating system has it after 8 ms anyway."""

    INTERVAL = "interval"
    """Every second, and at the close."""
    ALWAYS = "always"
    """After every write, in the background, and at the close."""
    NEVER = "never"
    """When the operating system likes."""
