"""The file systems that conchrec writes to, and how much room they have.

Below ``least`` no session begins that must be recorded and audited; below half of it those that are live end.
What is left is for the last lines of those sessions, and for the audit of who was refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from conchrec.errors import SpoolFull

_ROOM_AGAIN = 1.1
"""This many times ``least`` must be free before a volume counts as having room again: a level near the limit
must not cause an event each second."""


class Level(Enum):
    """How full a file system is."""

    OK = "ok"
    LOW = "low"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory that is written to: ``what`` for, and how many bytes must be free; 0: none must."""

    what: str
    path: Path
    least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A volume has reached another level."""

    volume: Volume
    level: Level
    free: int


def free_bytes(path: Path | int) -> int:
    """What an ordinary user may still write there. Raises OSError."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def check_room(what: str, path: Path | int, least: int, shown: Path) -> None:
    """Raises SpoolFull where less is free, and OSError. ``shown`` names the path in the log."""
    if least and (free := free_bytes(path)) < least:
        raise almost_full(what, shown, free, least)


def almost_full(what: str, path: Path, free: int, least: int) -> SpoolFull:
    """The error that a user reads."""
    return SpoolFull(
        f"this session cannot be recorded: the disk for {what} is almost full",
        f"{free} bytes free of {least} at {path}",
    )


class Disks:
    """Watches volumes; ``required`` are those without which no strict session may begin.

    The recordings' own is watched here for the log alone: their store refuses by itself, so that a session
    that need not be recorded goes on.
    """

    def __init__(
        self,
        volumes: Iterable[Volume],
        *,
        required: Iterable[Volume] = (),
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._required = tuple(required)
        self._free = free
        self._levels: dict[Volume, Level] = dict.fromkeys((*volumes, *self._required), Level.OK)

    def check(self) -> None:
        """Raises SpoolFull where a required volume is almost full."""
        for volume in self._required:
            free = self._free_of(volume)
            if free is not None and free < volume.least:
                raise almost_full(volume.what, volume.path, free, volume.least)

    @property
    def is_low(self) -> bool:
        """Is a required volume, as of the last ``look``?"""
        return any(self._levels[volume] is not Level.OK for volume in self._required)

    @property
    def critical(self) -> str:
        """What the required volume is for that is so full that live sessions end, as of the last ``look``."""
        full = (each.what for each in self._required if self._levels[each] is Level.CRITICAL)
        return next(full, "")

    def look(self) -> tuple[Change, ...]:
        """What has changed since the last time. Called about once a second."""
        changes = []
        for volume, before in self._levels.items():
            free = self._free_of(volume)
            if free is None:
                continue
            level = _level(volume, free, before)
            if level is not before:
                changes.append(Change(volume=volume, level=level, free=free))
        self._levels |= {change.volume: change.level for change in changes}
        return tuple(changes)

    def _free_of(self, volume: Volume) -> int | None:
        """None where nothing can be said: what is written there fails, and says why."""
        try:
            return self._free(volume.path) if volume.least else None
        except OSError:
            return None


def _level(volume: Volume, free: int, before: Level) -> Level:
    if free < volume.least // 2:
        return Level.CRITICAL
    if free < volume.least or (before is not Level.OK and free < volume.least * _ROOM_AGAIN):
        return Level.LOW
    return Level.OK
