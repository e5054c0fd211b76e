"""The settings that a new configuration changes, and which of them take effect only at a start. Pure."""

from __future__ import annotations

from dataclasses import replace

from conchrec.config.fields import at_start, keys
from conchrec.config.model import Config, Recordings

AT_START = at_start(Config)
RECORDINGS_AT_START = at_start(Recordings)


def changed(before: Config, after: Config) -> tuple[str, ...]:
    """The names of the settings that differ, as in the file."""
    names = keys(Config, "warnings", "recordings")
    return (
        *(name for name in names if getattr(before, name) != getattr(after, name)),
        *(
            f"recordings.{name}"
            for name in keys(Recordings)
            if getattr(before.recordings, name) != getattr(after.recordings, name)
        ),
    )


def waits(name: str) -> bool:
    """Whether a change of this setting takes effect only at the next start."""
    section, _, part = name.partition(".")
    return part in RECORDINGS_AT_START if section == "recordings" else name in AT_START


def effective(before: Config, after: Config) -> Config:
    """The new configuration, with the old values of the settings that wait for the next start."""
    kept = {name: getattr(before.recordings, name) for name in RECORDINGS_AT_START}
    return replace(
        after,
        recordings=replace(after.recordings, **kept),
        **{name: getattr(before, name) for name in AT_START},
    )
