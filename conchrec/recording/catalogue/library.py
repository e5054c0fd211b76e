"""The recordings of one directory, for readers. A damaged recording does not hide the others.

Only reads, and takes no lock, so that it never delays a session that begins.
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
"""The most bytes of a line. conchrec writes none that is half as long; a longer one is not read into
memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEntry:
    """One recording. ``manifest`` is None while it is being written (or before its recovery), and ``header``
    is None before its first start. ``problem`` says what cannot be read."""

    sid: str
    path: Path
    manifest: Manifest | None = None
    header: Header | None = None
    problem: str = ""

    @property
    def started(self) -> datetime:
        """When the session began."""
        return self.manifest.started if self.manifest else time_of(self.sid)

    @property
    def status(self) -> str:
        """The status in the manifest; ``live`` before it is written, or ``unreadable``."""
        if self.problem:
            return "unreadable"
        return self.manifest.status.value if self.manifest else "live"


class Library:
    """The recordings below one directory."""

    def __init__(self, directory: Path) -> None:
        self._tree = RecordingTree(directory)

    @property
    def root(self) -> Path:
        """The directory."""
        return self._tree.root

    def recordings(self) -> Iterator[tuple[str, bool]]:
        """Yield every session id, oldest first, and whether it has a manifest."""
        return self._tree.recordings()

    def path(self, sid: str) -> Path:
        """Return where the recording is. Raises ValueError for an invalid session id."""
        return self._tree.path(sid)

    def entries(self) -> Iterator[LibraryEntry]:
        """Yield all recordings, oldest first."""
        for sid, sealed in self._tree.recordings():
            yield self.entry(sid, sealed)

    def find(self, sid: str) -> LibraryEntry | None:
        """Return the recording with this id, or None."""
        try:
            path = self._tree.path(sid)
        except ValueError:
            return None
        if not path.is_file():
            return None
        return self.entry(sid, self._tree.manifest_path(sid).exists())

    def entry(self, sid: str, sealed: bool) -> LibraryEntry:
        """Read one recording; ``sealed``: there is a manifest."""
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
    """Yield the events of a cast, also of one that is still being written: an incomplete last line is left
    out.

    ``identities`` decrypt it. Raises Damaged at a malformed line, Encrypted, and OSError.
    """
    with open_recording(path, identities) as file:
        lines = _complete_lines(file)
        if first := next(lines, b""):
            Header.parse(first)
            yield from map(Event.parse, lines)


def complete_lines(path: Path, identities: Identities = ()) -> Iterator[bytes]:
    """Yield the lines of a cast, decompressed and decrypted, up to its last complete line. Raises Encrypted
    and OSError."""
    with open_recording(path, identities) as file:
        yield from _complete_lines(file)


def _complete_lines(file: BinaryIO) -> Iterator[bytes]:
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
