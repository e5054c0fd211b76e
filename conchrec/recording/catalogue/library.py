"""The recordings that there are, for whoever reads: one that is corrupt does not hide the others.

Reads only, and takes no lock, so that it never gets in the way of a session that begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from conchrec.errors import RecordingError
from conchrec.recording.format.asciicast import Damaged, Event, Header
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.format.session_id import time_of
from conchrec.recording.storage.encodings import open_recording
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.storage.recipients import Identities

_LONGEST_HEADER = 1024 * 1024
LONGEST_LINE = 4 * 1024 * 1024
"""In bytes; we write none that is half as long. What is longer is not read into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEntry:
    """One recording. ``manifest`` is None while it is being written (or before a crash is repaired);
    ``header`` is None before the command is known. ``problem`` says what cannot be read."""

    sid: str
    path: Path
    manifest: Manifest | None = None
    header: Header | None = None
    problem: str = ""

    @property
    def started(self) -> datetime:
        return self.manifest.started if self.manifest else time_of(self.sid)

    @property
    def status(self) -> str:
        """The manifest's word for it; ``live`` where there is none yet, ``unreadable``."""
        if self.problem:
            return "unreadable"
        return self.manifest.status.value if self.manifest else "live"


class Library:
    """The recordings below one directory."""

    def __init__(self, directory: Path) -> None:
        self._tree = RecordingTree(directory)

    @property
    def root(self) -> Path:
        return self._tree.root

    def recordings(self) -> Iterator[tuple[str, bool]]:
        """Every session id, oldest first, and whether it has a manifest."""
        return self._tree.recordings()

    def path(self, sid: str) -> Path:
        """Where the recording is. ValueError where that is no session id."""
        return self._tree.path(sid)

    def entries(self) -> Iterator[LibraryEntry]:
        """All of them, oldest first."""
        for sid, sealed in self._tree.recordings():
            yield self.entry(sid, sealed)

    def find(self, sid: str) -> LibraryEntry | None:
        """The one with this id; None without one, whatever ``sid`` is."""
        try:
            path = self._tree.path(sid)
        except ValueError:
            return None
        if not path.is_file():
            return None
        return self.entry(sid, self._tree.manifest_path(sid).exists())

    def entry(self, sid: str, sealed: bool) -> LibraryEntry:
        """What its files say; ``sealed``: there is a manifest."""
        path = self._tree.path(sid)
        try:
            if sealed:
                return LibraryEntry(
                    sid=sid, path=path, manifest=Manifest.parse(self._tree.read_manifest(sid))
                )
            return LibraryEntry(sid=sid, path=path, header=_header(path))
        except RecordingError as error:
            return LibraryEntry(sid=sid, path=path, problem=error.public)
        except OSError as error:
            return LibraryEntry(sid=sid, path=path, problem=error.strerror or "input/output error")


def events(path: Path, identities: Identities = ()) -> Iterator[Event]:
    """The events of a cast, also of one that is still being written: a torn last line ends it.

    ``identities`` are the keys for one that is encrypted. Raises Damaged at a line that is no event,
    Encrypted, and OSError.
    """
    with open_recording(path, identities) as file:
        lines = _whole(file)
        if first := next(lines, b""):
            Header.parse(first)
            yield from map(Event.parse, lines)


def whole_lines(path: Path, identities: Identities = ()) -> Iterator[bytes]:
    """A cast as it is, plain, up to its last whole line. Raises Encrypted and OSError."""
    with open_recording(path, identities) as file:
        yield from _whole(file)


def _whole(file: BinaryIO) -> Iterator[bytes]:
    while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
        yield line
    if len(line) == LONGEST_LINE:
        raise Damaged("the recording has a line that is too long")


def _header(path: Path) -> Header | None:
    with open_recording(path) as file:
        first = file.readline(_LONGEST_HEADER)
    if not first.endswith(b"\n"):
        if len(first) == _LONGEST_HEADER:
            raise Damaged("the recording has no asciicast v2 header")
        return None
    return Header.parse(first)
