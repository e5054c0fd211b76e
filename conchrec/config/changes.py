"""What a new configuration changes while the proxy runs, and what has to wait for the next start. Pure."""

from __future__ import annotations

from dataclasses import replace

from conchrec.config.fields import at_start, keys
from conchrec.config.model import Config, Recordings

AT_START = at_start(Config)
RECORDINGS_AT_START = at_start(Recordings)


def changed(before: Config, after: Config) -> tuple[str, ...]:
    """The settings that are not the same, by their names in the file."""
    names = keys(Config, "warnings", "recordings")
    found = [name for name in names if getattr(before, name) != getattr(after, name)]
    return (
        *found,
        *(
            f"recordings.{name}"
            for name in keys(Recordings)
            if getattr(before.recordings, name) != getattr(after.recordings, name)
        ),
    )


def waits(name: str) -> bool:
    """Does this setting take effect at the next start?"""
    section, _, part = name.partition(".")
    return part in RECORDINGS_AT_START if section == "recordings" else name in AT_START


def effective(before: Config, after: Config) -> Config:
    """The new configuration, but for what waits."""
    kept = {name: getattr(before.recordings, name) for name in RECORDINGS_AT_START}
    return replace(
        after,
        recordings=replace(after.recordings, **kept),
        **{name: getattr(before, name) for name in AT_START},
    )
