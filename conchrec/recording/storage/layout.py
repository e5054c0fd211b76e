"""Where a recording lies: ``<root>/YYYY/MM/DD/<sid>.cast``, from the session id and nothing else.

The root is the administrator's word and may be a link; below it nothing is followed but real
directories, so whoever can write there still cannot lead us elsewhere. Directories are made 0700.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from conchrec.files import NewFile, open_regular, read_regular, sync_directory
from conchrec.recording.format.session_id import ALPHABET, LENGTH, first_at, time_of

CAST = ".cast"
PACKED = ".cast.zst"
SEALED_AWAY = ".age"
"""After either of the two: encrypted."""
MANIFEST = ".json"
FORMS = (CAST, PACKED, CAST + SEALED_AWAY, PACKED + SEALED_AWAY)
"""How the name of a recording's file ends."""
MANIFEST_LIMIT = 64 * 1024 * 1024
"""Bytes of a manifest; what is larger was not written by us."""
STEP = 256
"""Directory entries, lines or manifests that are processed between two pauses."""
_SORTED = 1024
_FORM = re.compile(f"[{ALPHABET}]{{{LENGTH}}}")
_BELOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RecordingTree:
    """The directories under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable: set[Path] = set()

    def path(self, sid: str) -> Path:
        """Where the recording of ``sid`` is; without one, where a plain one would be. ValueError where that
        is no session id. While one is being encrypted it is there twice: this is then the plain one."""
        day = self.root.joinpath(*_day(sid))
        found = (path for form in FORMS if (path := day / (sid + form)).exists())
        return next(found, day / (sid + CAST))

    def manifest_path(self, sid: str) -> Path:
        return self.root.joinpath(*_day(sid), sid + MANIFEST)

    def make_root(self) -> None:
        """The root exists afterwards; what had to be made is 0700. Raises OSError."""
        for directory in (*reversed(self.root.parents), self.root):
            if not directory.exists():
                _make(str(directory), None)

    def read_manifest(self, sid: str) -> bytes:
        """The manifest's file. No link is followed on the way. Raises OSError (FileNotFoundError)."""
        with self.day(sid) as day:
            return read_regular(sid + MANIFEST, MANIFEST_LIMIT, dir_fd=day)

    @contextmanager
    def day(self, sid: str, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the directory of ``sid``, for ``dir_fd=``. Raises OSError."""
        if make:
            self.make_root()
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in _day(sid):
                if make:
                    _make(name, here)
                below = os.open(name, _BELOW, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def place(self, name: str, sid: str, contents: bytes, *, durable: bool = True) -> None:
        """The file ``name`` beside the cast of ``sid`` has these contents, or is as it was before.

        Mode 0600. Blocks. Raises OSError.
        """
        with self.day(sid) as day, NewFile(name, dir_fd=day) as new:
            new.file.write(contents)
            new.commit(durable=durable)
        if durable:
            self.sync(sid)

    def sync(self, sid: str) -> None:
        """The entries that lead to the files of ``sid`` are on the disk afterwards. Blocks."""
        day = self.root.joinpath(*_day(sid))
        above = () if day in self._durable else day.parents[:3]
        for directory in (day, *above):
            sync_directory(directory)
        self._durable.add(day)

    @contextmanager
    def locked(self, sid: str) -> Iterator[bool]:
        """Hold the lock of the recording's file, as its writer does; False where somebody else has it.

        The lock that cannot be had because there is no file is as good as one. Raises OSError.
        """
        with self.day(sid) as day:
            try:
                descriptor = open_regular(self.path(sid).name, dir_fd=day)
            except FileNotFoundError:
                yield True
                return
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
            finally:
                os.close(descriptor)

    def remove(self, sid: str) -> None:
        """Nothing of this recording is left; the manifest goes last. Blocks. Raises OSError."""
        with self.day(sid) as day:
            for form in (*FORMS, MANIFEST):
                try:
                    os.unlink(sid + form, dir_fd=day)
                except FileNotFoundError:
                    pass
            os.fsync(day)

    def days(self) -> Iterator[Path]:
        """Every day's directory, oldest first. Links, and names that are not of a day, are passed by."""
        for year in _numbered(self.root, 4):
            for month in _numbered(year, 2):
                yield from _numbered(month, 2)

    def recordings(
        self, since: str = "", pause: Callable[[], None] | None = None
    ) -> Iterator[tuple[str, bool]]:
        """Every session id with a recording, oldest first, and whether its manifest is there too.

        ``since`` is the first session id that is wanted; days that are over before it are not read. A caller
        that must not hold Python's lock for long passes ``pause``, which is called after each ``STEP``
        entries.
        """
        for day in self.days():
            bounds = _bounds(day)
            if bounds is None or bounds[1] <= since:
                continue
            sids, manifests = _names_in(day, max(since, bounds[0]), bounds[1], pause)
            for number, sid in enumerate(_in_order(sids, pause), 1):
                yield sid, sid in manifests
                if pause is not None and number % STEP == 0:
                    pause()


def _names_in(
    day: Path, first: str, end: str, pause: Callable[[], None] | None
) -> tuple[list[str], set[str]]:
    """The session ids of the recordings in a day's directory, from ``first`` to before ``end``, and those of
    the manifests."""
    sids: dict[str, None] = {}
    manifests: set[str] = set()
    try:
        with os.scandir(day) as entries:
            for number, entry in enumerate(entries, 1):
                sid, _, form = entry.name.partition(".")
                if first <= sid < end and _FORM.fullmatch(sid):
                    if f".{form}" in FORMS:
                        sids[sid] = None
                    elif f".{form}" == MANIFEST:
                        manifests.add(sid)
                if pause is not None and number % STEP == 0:
                    pause()
    except OSError:
        pass
    return list(sids), manifests


def _in_order(sids: list[str], pause: Callable[[], None] | None) -> Iterable[str]:
    """Sorted. One sort of many names holds Python's lock all the time, so there may be several short ones."""
    if pause is None:
        return sorted(sids)
    runs = []
    for begin in range(0, len(sids), _SORTED):
        runs.append(sorted(sids[begin : begin + _SORTED]))
        pause()
    return heapq.merge(*runs)


def _day(sid: str) -> tuple[str, str, str]:
    year, month, day = time_of(sid).strftime("%Y %m %d").split()
    return year.zfill(4), month, day


def _bounds(day: Path) -> tuple[str, str] | None:
    """The first session id of this day, and that of the next; None where there is no such day."""
    try:
        begin = datetime(*map(int, day.parts[-3:]), tzinfo=timezone.utc)  # type: ignore[arg-type, misc]
        return first_at(begin), first_at(begin + timedelta(days=1))
    except (ValueError, OverflowError):
        return None


def _make(name: str, where: int | None) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=where)
    except FileExistsError:
        pass


def _numbered(directory: Path, digits: int) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return sorted(
                directory / entry.name
                for entry in entries
                if len(entry.name) == digits
                and entry.name.isascii()
                and entry.name.isdecimal()
                and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []
