"""The file systems that conchrec writes to, and their free space.

With less than ``least`` free bytes no session starts that must be recorded and audited; with less than half
of it live sessions end. The rest is for the last lines of these sessions, and for the audit of refusals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from conchrec.errors import SpoolFull

_ROOM_AGAIN = 1.1
"""A volume is OK again when this many times ``least`` is free: otherwise a level near the limit would cause
an event each second."""


class Level(Enum):
    """How full a file system is."""

    OK = "ok"
    LOW = "low"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory that is written to. ``what`` its purpose, ``least`` the required free bytes (0: none)."""

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
    """The bytes that an ordinary user may still write there. Raises OSError."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def check_room(what: str, path: Path | int, least: int, shown: Path) -> None:
    """Raise SpoolFull if less is free. Raises OSError. ``shown`` is the path for the log."""
    if least and (free := free_bytes(path)) < least:
        raise almost_full(what, shown, free, least)


def almost_full(what: str, path: Path, free: int, least: int) -> SpoolFull:
    """The error for the user."""
    return SpoolFull(
        f"this session cannot be recorded: the disk for {what} is almost full",
        f"{free} bytes free of {least} at {path}",
    )


class Disks:
    """Watches volumes. Without room on the ``required`` ones no strict session may start.

    The volume of the recordings is watched here for the log only: the store refuses sessions itself, so that
    a session with ``record: best_effort`` can continue.
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
        """Raise SpoolFull if a required volume is almost full."""
        for volume in self._required:
            free = self._free_of(volume)
            if free is not None and free < volume.least:
                raise almost_full(volume.what, volume.path, free, volume.least)

    @property
    def is_low(self) -> bool:
        """Whether a required volume was low at the last ``update``."""
        return any(self._levels[volume] is not Level.OK for volume in self._required)

    @property
    def critical(self) -> str:
        """The purpose of a required volume that was critical at the last ``update``; empty without one."""
        full = (volume.what for volume in self._required if self._levels[volume] is Level.CRITICAL)
        return next(full, "")

    def update(self) -> tuple[Change, ...]:
        """Measure all volumes, and return the changes of levels. Called about once a second."""
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
        """The free bytes; None if they are unknown: then a write fails with its own error."""
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
