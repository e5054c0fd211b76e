"""The recordings as a list: which ones are asked for, and what a line says of each.

The index is asked where there is one, and the directory tells what it does not know yet: without an index
it takes longer, and that is all.
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
from conchrec.yaml_cursor import parse_duration

if TYPE_CHECKING:
    from conchrec.recording.catalogue.index import IndexRow

_LONGEST_COMMAND = 60
_MANY = 100
"""Manifests that are read without a word about the index."""


def moment(written: str) -> datetime:
    """A date, a date and time (UTC where it names no other zone), or how long ago. Raises ValueError."""
    with contextlib.suppress(ValueError):
        return utc_now() - parse_duration(written)
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(
            f"{written!r} is not a time (2026-11-23, 2026-11-23T14:00, or 2h for two hours ago)"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which recordings are asked for; texts may have ``*`` and ``?``."""

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

    def wants(
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
        """``started`` is in seconds since 1970; ``dialled`` the target's IP address and port."""
        if self.live and status != "live":
            return False
        if self.since is not None and started < self.since.timestamp():
            return False
        if self.until is not None and started >= self.until.timestamp():
            return False
        return (
            _like(self.status, status)
            and _like(self.kind, kind)
            and _like(self.user, user)
            and _like(self.login, login)
            and _is_at(self.host, target)
            and (_is_at(self.target, target) or _is_at(self.target, dialled))
            and _like(self.approved_by, approved_by)
        )

    def matches_recording(self, one: ListedRecording) -> bool:
        """Whether this recording is asked for."""
        return self.wants(
            started=one.started, status=one.status, kind=one.kind,
            user=one.user, login=one.login, target=one.target,
            dialled=one.dialled, approved_by=one.approved_by,
        )  # fmt: skip


def _like(pattern: str | None, found: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(found, pattern)


def _is_at(pattern: str | None, place: str) -> bool:
    """``place`` is a host and a port: either, or both, may be asked for (``web1``, ``*:2222``)."""
    return _like(pattern, place) or _like(pattern, place.rpartition(":")[0].strip("[]"))


class ListedRecording(NamedTuple):
    """One recording as a list shows it; from the index, or from its files. ``fields`` is all of it."""

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
        """For a person; some of it came from outside, and is not escaped."""
        taken = " " * 8 + "-" if self.duration is None else f"{self.duration:8.1f}s"
        who = f"{self.user or '-'} {self.login or '-'}@{self.target or '-'}"
        return f"{self.sid} {format_time(self.started)} {taken} {self.status:11} {who} {self.what}"


def found(
    library: Library,
    wanted: Filter,
    *,
    summaries: bool = False,
    hint: Callable[[str], None] = lambda why: None,
) -> Iterator[ListedRecording]:
    """Those that are asked for, oldest first. What is in the index is not read again; ``hint`` hears why it
    is of no use, where it would have been."""
    for one in _all(library, summaries=summaries, hint=hint):
        if wanted.matches_recording(one):
            yield one


def _all(library: Library, *, summaries: bool, hint: Callable[[str], None]) -> Iterator[ListedRecording]:
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
        if read == _MANY and sealed and why:
            hint(why)
        entry = library.entry(sid, sealed)
        fields = summary(entry)
        how = Provenance.parse(fields.get("provenance"))
        said = {name: str(fields.get(name, "")) for name in ("kind", "user", "login", "target")}
        yield ListedRecording(
            sid=sid, started=entry.started.timestamp(),
            duration=entry.manifest.duration if entry.manifest else None, status=entry.status,
            what=_what(said["kind"], str(fields.get("command") or fields.get("subsystem") or "")),
            dialled=how.dialled, approved_by=how.approved_by,
            fields=partial(dict, fields), **said,
        )  # fmt: skip


def _rows(library: Library, *, summaries: bool) -> tuple[dict[str, IndexRow], str]:
    """Empty where there is no index that can be used; and why."""
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
    """The manifest, or of a live recording what its header says."""
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
    """``2026-11-23 12:00:00``, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(started))


def _what(kind: str, command: str) -> str:
    what = f"{kind or '-'} {command}".rstrip()
    return what if len(what) <= _LONGEST_COMMAND else what[: _LONGEST_COMMAND - 1] + "…"
