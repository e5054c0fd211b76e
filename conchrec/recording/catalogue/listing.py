"""Lists of recordings: which ones match a filter, and the line of each.

The index is read where there is one, and the directory for what is not in it yet: without an index, a list
only takes longer.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from conchrec.clock import utc_now
from conchrec.provenance import Provenance
from conchrec.recording.catalogue.library import Library, LibraryEntry
from conchrec.text import quote
from conchrec.yaml_cursor import parse_duration

if TYPE_CHECKING:
    from conchrec.recording.catalogue.index import IndexRow

_LONGEST_COMMAND = 60
MANY_WITHOUT_INDEX = 100
"""The manifests that are read before the user gets a hint about the index."""


def parse_time(written: str) -> datetime:
    """Read a date, a date and time (UTC where it has no zone), or how long ago. Raises ValueError."""
    with contextlib.suppress(ValueError):
        return utc_now() - parse_duration(written)
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(
            f"invalid time {quote(written, 40)}: write it like 2026-11-23, 2026-11-23T14:00, "
            "or 2h for two hours ago"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The recordings to list; texts may have ``*`` and ``?``."""

    live: bool = False
    status: str | None = None
    kind: str | None = None
    user: str | None = None
    login: str | None = None
    host: str | None = None
    target: str | None = None
    approved_by: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(
        self,
        *,
        started: float,
        status: str,
        kind: str,
        user: str,
        login: str,
        target: str,
        dialled: str,
        approved_by: str,
    ) -> bool:
        """Return whether a recording matches. ``started`` is in seconds since 1970; ``dialled`` is the IP
        address and port of the target."""
        if self.live and status != "live":
            return False
        if self.since is not None and started < self.since.timestamp():
            return False
        if self.until is not None and started >= self.until.timestamp():
            return False
        return (
            _matches(self.status, status)
            and _matches(self.kind, kind)
            and _matches(self.user, user)
            and _matches(self.login, login)
            and _matches_host(self.host, target)
            and (_matches_host(self.target, target) or _matches_host(self.target, dialled))
            and _matches(self.approved_by, approved_by)
        )

    def matches_recording(self, recording: ListedRecording) -> bool:
        """Return whether this recording matches."""
        return self.matches(
            started=recording.started, status=recording.status, kind=recording.kind,
            user=recording.user, login=recording.login, target=recording.target,
            dialled=recording.dialled, approved_by=recording.approved_by,
        )  # fmt: skip


def _matches(pattern: str | None, matching_recordings: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(matching_recordings, pattern)


def _matches_host(pattern: str | None, target: str) -> bool:
    """Return whether a target (host and port) matches: the pattern may name either or both (``web1``,
    ``*:2222``)."""
    return _matches(pattern, target) or _matches(pattern, target.rpartition(":")[0].strip("[]"))


class ListedRecording(NamedTuple):
    """One recording in a list, from the index or from its files. ``fields`` returns everything that is known
    of it."""

    sid: str
    started: float
    duration: float | None
    status: str
    kind: str
    user: str
    login: str
    target: str
    dialled: str
    approved_by: str
    what: str
    fields: Callable[[], dict[str, object]]

    def line(self) -> str:
        """Return a line for a person. Some of it comes from outside and is not escaped."""
        duration = " " * 8 + "-" if self.duration is None else f"{self.duration:8.1f}s"
        who = f"{self.user or '-'} {self.login or '-'}@{self.target or '-'}"
        return f"{self.sid} {format_time(self.started)} {duration} {self.status:11} {who} {self.what}"


def matching_recordings(
    library: Library,
    condition: Filter,
    *,
    summaries: bool = False,
    hint: Callable[[str], None] = lambda why: None,
) -> Iterator[ListedRecording]:
    """Yield the recordings that match, oldest first. What is in the index is not read again. ``hint`` is
    called with the reason where the index cannot be used and would help."""
    for recording in _list_all(library, summaries=summaries, hint=hint):
        if condition.matches_recording(recording):
            yield recording


def _list_all(library: Library, *, summaries: bool, hint: Callable[[str], None]) -> Iterator[ListedRecording]:
    rows, why = _rows(library, summaries=summaries)
    read = 0
    for sid, sealed in library.recordings():
        row = rows.get(sid) if sealed else None
        if row is not None and row.status not in ("unreadable", "reading"):
            yield ListedRecording(
                sid=sid, started=row.started, duration=row.duration, status=row.status, kind=row.kind,
                user=row.user, login=row.login, target=row.target,
                dialled=row.dialled, approved_by=row.approved_by, what=_what(row.kind, row.command),
                fields=partial(_indexed, library, row),
            )  # fmt: skip
            continue
        read += sealed
        if read == MANY_WITHOUT_INDEX and sealed and why:
            hint(why)
        entry = library.entry(sid, sealed)
        fields = summary(entry)
        provenance = Provenance.parse(fields.get("provenance"))
        texts = {name: str(fields.get(name, "")) for name in ("kind", "user", "login", "target")}
        yield ListedRecording(
            sid=sid, started=entry.started.timestamp(),
            duration=entry.manifest.duration if entry.manifest else None, status=entry.status,
            what=_what(texts["kind"], str(fields.get("command") or fields.get("subsystem") or "")),
            dialled=provenance.dialled, approved_by=provenance.approved_by,
            fields=partial(dict, fields), **texts,
        )  # fmt: skip


def _rows(library: Library, *, summaries: bool) -> tuple[dict[str, IndexRow], str]:
    """Return the rows of the index, and the reason where it cannot be used."""
    from conchrec.recording.catalogue.index import Index, IndexUnusable

    try:
        with Index(library.root) as index:
            return index.rows(summaries=summaries), ""
    except IndexUnusable as error:
        return {}, error.public


def _indexed(library: Library, row: IndexRow) -> dict[str, object]:
    fields: dict[str, object] = json.loads(row.summary)
    return fields | {"sid": row.sid, "status": row.status, "path": str(library.path(row.sid))}


def summary(entry: LibraryEntry) -> dict[str, object]:
    """Return the fields of the manifest; of a live recording those of its header."""
    fields: dict[str, object] = {"sid": entry.sid, "status": entry.status, "path": str(entry.path)}
    if entry.manifest is not None:
        manifest: dict[str, object] = json.loads(entry.manifest.encode())
        return manifest | fields
    if entry.header is not None:
        fields |= entry.header.ours
        if entry.header.command:
            fields["command"] = entry.header.command
    if entry.problem:
        fields["problem"] = entry.problem
    return fields


def format_time(started: float) -> str:
    """Return ``2026-11-23 12:00:00``, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(started))


def _what(kind: str, command: str) -> str:
    what = f"{kind or '-'} {command}".rstrip()
    return what if len(what) <= _LONGEST_COMMAND else what[: _LONGEST_COMMAND - 1] + "…"
