"""The path of a recording: ``<root>/YYYY/MM/DD/<sid>.cast``, made of the session id and nothing else.

The root is configured by the administrator and may be a link. Below it only real directories are followed, so
somebody who can write there cannot lead conchrec to other files. Directories are created with mode 0700.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path

from conchrec.file_lock import lock
from conchrec.files import open_regular, read_regular, sync_directory
from conchrec.recording.format.session_id import ALPHABET, LENGTH, first_at, time_of

CAST = ".cast"
COMPRESSED = ".cast.zst"
ENCRYPTED = ".age"
"""Follows either of the two where the recording is encrypted."""
MANIFEST = ".json"
SUFFIXES = (CAST, COMPRESSED, CAST + ENCRYPTED, COMPRESSED + ENCRYPTED)
"""The endings of the names of recordings' files."""
MANIFEST_LIMIT = 64 * 1024 * 1024
"""The most bytes of a manifest; conchrec writes no larger one."""
PAUSE_STEP = 256
"""The directory entries, lines or manifests that are processed between two pauses."""
_SORT_BATCH = 1024
_FORM = re.compile(f"[{ALPHABET}]{{{LENGTH}}}")
_BELOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RecordingTree:
    """The directories below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable: set[Path] = set()

    def path(self, sid: str) -> Path:
        """Return where the recording of ``sid`` is; without a file, the path of a plain one. Raises
        ValueError for an invalid session id. While a recording is being encrypted it exists twice: this is
        then the plain one."""
        day = self._directory(sid)
        paths = (path for form in SUFFIXES if (path := day / (sid + form)).exists())
        return next(paths, day / (sid + CAST))

    def new_path(self, sid: str) -> Path:
        """Return the path of a plain recording that does not exist yet. Raises ValueError for an invalid
        session id."""
        return self._directory(sid) / (sid + CAST)

    def manifest_path(self, sid: str) -> Path:
        """Return where the manifest of ``sid`` is or would be. Raises ValueError for an invalid session
        id."""
        return self._directory(sid) / (sid + MANIFEST)

    def _directory(self, sid: str) -> Path:
        """Return the path of the directory of ``sid``. Raises ValueError for an invalid session id."""
        return self.root.joinpath(*_day(sid))

    def make_root(self) -> None:
        """Create the root and its missing parents, with mode 0700. Raises OSError."""
        for directory in (*reversed(self.root.parents), self.root):
            if not directory.exists():
                _make(str(directory), None)

    def read_manifest(self, sid: str) -> bytes:
        """Return the contents of a manifest. No link is followed. Raises OSError (FileNotFoundError)."""
        with self.open_day(sid) as day:
            return read_regular(sid + MANIFEST, MANIFEST_LIMIT, dir_fd=day)

    @contextmanager
    def open_day(self, sid: str, *, make: bool = False) -> Iterator[int]:
        """Yield a descriptor of the directory of ``sid``, for ``dir_fd=``. Raises OSError."""
        try:
            descriptor = self._descend(sid, make=False)
        except FileNotFoundError:
            if not make:
                raise
            self.make_root()
            descriptor = self._descend(sid, make=True)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _descend(self, sid: str, *, make: bool) -> int:
        """Return a descriptor of the directory of ``sid``; with ``make``, directories below the root are
        created."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in _day(sid):
                if make:
                    _make(name, descriptor)
                child = os.open(name, _BELOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = child
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def sync(self, sid: str) -> None:
        """Sync the directory entries that lead to the files of ``sid``. Blocks."""
        day = self._directory(sid)
        above = () if day in self._durable else day.parents[:3]
        for directory in (day, *above):
            sync_directory(directory)
        self._durable.add(day)

    @contextmanager
    def locked(self, sid: str) -> Iterator[bool]:
        """Hold the lock of the recording's file, as its writer does. Yields False where another process has
        it.

        Without a file there is nothing to lock, which counts as having the lock. Raises OSError.
        """
        with self.open_day(sid) as day:
            try:
                descriptor = open_regular(self.path(sid).name, dir_fd=day)
            except FileNotFoundError:
                yield True
                return
            try:
                lock(descriptor)
            except BlockingIOError:
                yield False
            else:
                yield True
            finally:
                os.close(descriptor)

    def remove(self, sid: str) -> None:
        """Remove all files of a recording; the manifest is removed last. Blocks. Raises OSError."""
        with self.open_day(sid) as day:
            for form in (*SUFFIXES, MANIFEST):
                try:
                    os.unlink(sid + form, dir_fd=day)
                except FileNotFoundError:
                    pass
            os.fsync(day)

    def days(self) -> Iterator[Path]:
        """Yield the directory of every day, oldest first. Links, and names that are not of a day, are
        skipped."""
        for year in _numbered(self.root, 4):
            for month in _numbered(year, 2):
                yield from _numbered(month, 2)

    def recordings(
        self, since: str = "", pause: Callable[[], None] | None = None
    ) -> Iterator[tuple[str, bool]]:
        """Yield every session id with a recording, oldest first, and whether its manifest exists.

        ``since`` is the first session id that is wanted; earlier days are not read. A caller that must not
        hold Python's lock for long passes ``pause``, which is called after each ``PAUSE_STEP`` entries.
        """
        for day in self.days():
            bounds = _bounds(day)
            if bounds is None or bounds[1] <= since:
                continue
            sids, manifests = _names_in(day, max(since, bounds[0]), bounds[1], pause)
            for number, sid in enumerate(_in_order(sids, pause), 1):
                yield sid, sid in manifests
                if pause is not None and number % PAUSE_STEP == 0:
                    pause()


def _names_in(
    day: Path, first: str, end: str, pause: Callable[[], None] | None
) -> tuple[list[str], set[str]]:
    """Return the session ids of the recordings in the directory of a day, from ``first`` to before ``end``,
    and those of the manifests."""
    sids: dict[str, None] = {}
    manifests: set[str] = set()
    try:
        with os.scandir(day) as entries:
            for number, entry in enumerate(entries, 1):
                sid, _, form = entry.name.partition(".")
                if first <= sid < end and _FORM.fullmatch(sid):
                    if f".{form}" in SUFFIXES:
                        sids[sid] = None
                    elif f".{form}" == MANIFEST:
                        manifests.add(sid)
                if pause is not None and number % PAUSE_STEP == 0:
                    pause()
    except OSError:
        pass
    return list(sids), manifests


def _in_order(sids: list[str], pause: Callable[[], None] | None) -> Iterable[str]:
    """Return the ids sorted. One sort of many names holds Python's lock all the time, so there may be several
    short ones."""
    if pause is None:
        return sorted(sids)
    runs = []
    for begin in range(0, len(sids), _SORT_BATCH):
        runs.append(sorted(sids[begin : begin + _SORT_BATCH]))
        pause()
    return heapq.merge(*runs)


def _day(sid: str) -> tuple[str, str, str]:
    return _names_of(time_of(sid).toordinal())


@lru_cache(maxsize=16)
def _names_of(ordinal: int) -> tuple[str, str, str]:
    # By day, not by id: a text for each of many ended sessions would keep the memory around it.
    year, month, day = date.fromordinal(ordinal).strftime("%Y %m %d").split()
    return year.zfill(4), month, day


def _bounds(day: Path) -> tuple[str, str] | None:
    """Return the first session id of this day, and that of the next; None where there is no such day."""
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
