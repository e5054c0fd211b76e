"""The index of all recordings, for lists and searches. It is a cache and nothing more.

It is ``index.sqlite`` in the directory of the recordings, through peewee (which also supports PostgreSQL).
Every fact in it comes from a manifest or a cast. Without it, or where it is damaged or of another version,
everything still works, and it can be built again. Only the full text is specific to SQLite (FTS5): ``_Text``.

The text of a recording is the output on its screen, with control sequences applied within a line (see
``transcript``) and programs on the alternate screen included; its command; and the names of transferred
files. Of long recordings, the first ``TEXT_AT_MOST`` letters are read, and of the rest the recognised
commands. Of encrypted recordings, only the manifest is read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import peewee
from playhouse.sqlite_ext import FTS5Model, SearchField

from conchrec.errors import RecordingError
from conchrec.ownership import create
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue import library
from conchrec.recording.format.asciicast import OUTPUT
from conchrec.recording.format.manifest import Manifest
from conchrec.recording.format.session_id import time_of
from conchrec.recording.storage.encodings import is_encrypted
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.terminal.transcript import Transcript
from conchrec.text import escape, one_line

NAME = "index.sqlite"
VERSION = 4
"""The version of the tables (``user_version``): an index with another one is built again."""
TEXT_AT_MOST = 8 * 1024 * 1024
"""The letters of output of one recording that are read for the text."""
BUSY_SECONDS = 10
"""How long one process waits for another that writes."""
READING = "reading"
"""The status of a recording that is being read for the index, or that was when its process ended."""
_PIECE = 4096
_LONGEST_PROBLEM = 200
_BLANKS = re.compile("  +")
_BEGIN, _END = "\x01", "\x02"
_REBUILD = "run conchrec recordings rebuild-index"
_NONE = f"there is no index of the recordings; {_REBUILD}"
_WORD = re.compile(r"\w")


class _Recording(peewee.Model):  # type: ignore[misc]
    """The fields of a list. The texts of the recording are the rows from ``first_text`` up to, and without,
    ``after_texts``."""

    sid = peewee.TextField(primary_key=True)
    started = peewee.FloatField(index=True)
    duration = peewee.FloatField(default=0)
    status = peewee.TextField(default="unreadable")
    user = peewee.TextField(default="")
    login = peewee.TextField(default="")
    target = peewee.TextField(default="")
    kind = peewee.TextField(default="")
    command = peewee.TextField(default="")
    dialled = peewee.TextField(default="")
    approved_by = peewee.TextField(default="")
    problem = peewee.TextField(default="")
    first_text = peewee.IntegerField(default=0)
    after_texts = peewee.IntegerField(default=0)

    class Meta:
        table_name = "recordings"
        without_rowid = True


class _Summary(peewee.Model):  # type: ignore[misc]
    """The manifest as JSON, without its signature: in its own table, so that lists are read without it."""

    sid = peewee.TextField(primary_key=True)
    summary = peewee.TextField()

    class Meta:
        table_name = "summaries"


class _Text(FTS5Model):  # type: ignore[misc]
    """Some lines of one recording. ``times`` has the seconds of each; it is empty for the command and the
    files."""

    sid = SearchField(unindexed=True)
    times = SearchField(unindexed=True)
    body = SearchField()

    class Meta:
        table_name = "texts"
        options = {"tokenize": "unicode61"}  # noqa: RUF012  # peewee reads it from the class


_TABLES = (_Recording, _Summary, _Text)


class IndexUnusable(RecordingError):
    """There is no index, or it cannot be read; ``rebuild-index`` makes one."""

    default_code = ReasonCode.INDEX_UNUSABLE


class IndexBroken(IndexUnusable):
    """The file is damaged; nobody needs to keep it."""


class NothingToSearch(RecordingError):
    """The phrases of a search have no word."""

    default_code = ReasonCode.NOTHING_TO_SEARCH


class IndexRow(NamedTuple):
    """One recording, with the fields of a list. ``started`` is in seconds since 1970; ``summary`` is JSON,
    and empty where the manifest cannot be read."""

    sid: str
    started: float
    duration: float
    status: str
    user: str
    login: str
    target: str
    kind: str
    command: str
    dialled: str
    approved_by: str
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A line that was on a screen ``time`` seconds after the beginning; None: a command or the name of a
    file.

    ``parts`` are the pieces of the line; every second one is what was searched for.
    """

    sid: str
    started: float
    user: str
    login: str
    target: str
    time: float | None
    parts: tuple[str, ...]
    dialled: str = ""
    approved_by: str = ""


class Index:
    """The index of one directory, a context manager. Errors of the database are raised as IndexUnusable."""

    def __init__(self, root: Path, *, make: bool = False) -> None:
        """``make``: where it is missing or damaged, an empty one is created."""
        self._tree = RecordingTree(root)
        self.path = root / NAME
        self._make = make
        self._database = peewee.SqliteDatabase(
            str(self.path),
            pragmas={
                "journal_mode": "wal",
                "synchronous": "normal",
                "busy_timeout": BUSY_SECONDS * 1000,
                # Removed recordings are overwritten in this file too.
                "secure_delete": 1,
            },
        )
        self._database.bind(_TABLES)

    def __enter__(self) -> Index:
        if not self._make and (not self.path.exists() or not self.path.stat().st_size):
            raise IndexUnusable(_NONE)
        try:
            with _index_errors(self.path):
                self._open()
        except (IndexUnusable, OSError) as error:
            self._database.close()
            if isinstance(error, IndexUnusable):
                raise
            if isinstance(error, FileNotFoundError):
                raise IndexUnusable(
                    f"cannot create the index {self.path}: the directory {self.path.parent} does not exist."
                    " Check recordings.directory, or start conchrec once"
                ) from error
            raise IndexUnusable(f"cannot use the index {self.path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def _open(self) -> None:
        if self._make:
            _create(self.path)
            try:
                with _index_errors(self.path):
                    self._create_tables()
            except IndexBroken:
                self._database.close()
                remove(self.path)
                _create(self.path)
                self._create_tables()
        elif (version := self._version()) != VERSION:
            other = f"the index {self.path} is of another version of conchrec; {_REBUILD}"
            raise IndexUnusable(other if version else _NONE)

    def _create_tables(self) -> None:
        """Create the tables, also where those of another version exist."""
        if self._version() != VERSION:
            with self._database.atomic("IMMEDIATE"):
                if self._version() != VERSION:  # no other process was faster
                    self._make_tables()

    def _make_tables(self) -> None:
        # In this file and not in a new one: another process may have it open.
        self._database.drop_tables(_TABLES)
        self._database.create_tables(_TABLES)
        self._database.execute_sql(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        self._database.connect(reuse_if_open=True)
        (version,) = self._database.execute_sql("PRAGMA user_version").fetchone()
        return int(version)

    # -- writing

    def differences(self) -> tuple[list[str], set[str]]:
        """Return the sealed recordings that are not in the index, oldest first, and those in it that do not
        exist any more."""
        there = {sid for sid, sealed in self._tree.recordings() if sealed}
        with _index_errors(self.path):
            known = dict(_Recording.select(_Recording.sid, _Recording.status).tuples())
        read = {sid for sid, status in known.items() if status != READING}
        return sorted(there - read), known.keys() - there

    def add(self, sid: str) -> None:
        """Read a sealed recording, for which ``begin`` has returned True. One that is damaged is added as far
        as it can be read. Raises OSError."""
        try:
            manifest = Manifest.parse(self._tree.read_manifest(sid))
        except RecordingError:
            # `ls` and `verify` report it. Without a row it would be read again and again.
            manifest = None
        # Everything is read before anything is written: it may take long, and other processes would have to
        # wait.
        texts = list(self._texts(manifest)) if manifest is not None else []
        with _index_errors(self.path), self._database.atomic("IMMEDIATE"):
            if manifest is None:
                _Recording.replace(sid=sid, started=time_of(sid).timestamp()).execute()
                return
            rowids = [_Text.insert(sid=sid, times=times, body=body).execute() for times, body in texts]
            _Recording.replace(
                sid=sid,
                started=manifest.started.timestamp(),
                duration=manifest.duration,
                status=manifest.status.value,
                user=manifest.user,
                login=manifest.login,
                target=manifest.target,
                kind=manifest.kind,
                command=escape(manifest.command),
                dialled=escape(manifest.provenance.dialled),
                approved_by=escape(manifest.provenance.approved_by),
                first_text=rowids[0] if rowids else 0,
                after_texts=rowids[-1] + 1 if rowids else 0,
            ).execute()
            _Summary.insert(sid=sid, summary=manifest.encode().decode("ascii")).execute()

    def begin(self, sid: str) -> bool:
        """Note that this recording is going to be read: where this ends the process, the next process skips
        it. Returns False where that has happened."""
        r = _Recording
        with _index_errors(self.path), self._database.atomic("IMMEDIATE"):
            status = r.select(r.status).where(r.sid == sid).scalar()
            if status == READING:
                return False
            if status is not None:
                self._forget(sid)
            r.insert(sid=sid, started=time_of(sid).timestamp(), status=READING).execute()
            return True

    def skip(self, sid: str, problem: str) -> None:
        """Note that this recording is not read again; ``problems`` names it."""
        with _index_errors(self.path), self._database.atomic("IMMEDIATE"):
            self._forget(sid)
            problem = escape(problem, _LONGEST_PROBLEM)
            _Recording.insert(sid=sid, started=time_of(sid).timestamp(), problem=problem).execute()

    def forget(self, sid: str) -> None:
        """Remove a recording, as if it had never been read."""
        with _index_errors(self.path), self._database.atomic("IMMEDIATE"):
            self._forget(sid)

    def problems(self) -> list[tuple[str, str]]:
        """Return the recordings that were skipped, oldest first, and why."""
        r = _Recording
        with _index_errors(self.path):
            return list(r.select(r.sid, r.problem).where(r.problem != "").order_by(r.sid).tuples())

    def remove(self, sids: Iterable[str]) -> None:
        """Remove these recordings: nothing that was on their screens is left in the file."""
        with _index_errors(self.path):
            with self._database.atomic("IMMEDIATE"):
                for sid in sids:
                    self._forget(sid)
                # Without this the words stay in the file until FTS5 rewrites that part.
                _Text.optimize()
            self._database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def clear(self) -> None:
        """Remove everything."""
        with _index_errors(self.path), self._database.atomic("IMMEDIATE"):
            self._make_tables()

    def _forget(self, sid: str) -> None:
        for first, after in (
            _Recording.select(_Recording.first_text, _Recording.after_texts)
            .where(_Recording.sid == sid)
            .tuples()
        ):
            _Text.delete().where((_Text.rowid >= first) & (_Text.rowid < after)).execute()
            _Summary.delete().where(_Summary.sid == sid).execute()
            _Recording.delete().where(_Recording.sid == sid).execute()

    def _texts(self, manifest: Manifest) -> Iterator[tuple[str, str]]:
        provenance = manifest.provenance
        names = [
            manifest.command,
            provenance.approval_reason,
            provenance.approval_note,
            *file_names(manifest),
        ]
        if text := "\n".join(escape(name) for name in names if name):
            yield "", text
        path = self._tree.path(manifest.sid)
        if is_encrypted(path):
            return
        times: list[str] = []
        lines: list[str] = []
        size, time = 0, 0.0
        for time, line in _screen(path):
            times.append(f"{time:.1f}")
            lines.append(line)
            size += len(line)
            if size >= _PIECE:
                yield " ".join(times), "\n".join(lines)
                times, lines, size = [], [], 0
        # Earlier commands were on the screen.
        later = [command for command in manifest.commands if command.time > time]
        times += [f"{command.time:.1f}" for command in later]
        lines += [escape(command.text) for command in later]
        if lines:
            yield " ".join(times), "\n".join(lines)

    # -- queries

    def rows(
        self, *, since: datetime | None = None, until: datetime | None = None, summaries: bool = False
    ) -> dict[str, IndexRow]:
        """Return every recording by its id; with ``summaries`` also the manifest as JSON."""
        r = _Recording
        columns = [r.sid, r.started, r.duration, r.status, r.user, r.login, r.target, r.kind, r.command]
        columns += [r.dialled, r.approved_by]
        with _index_errors(self.path):
            query = r.select(*columns).tuples()
            if summaries:
                query = (
                    query.select_extend(peewee.fn.COALESCE(_Summary.summary, ""))
                    .join(_Summary, peewee.JOIN.LEFT_OUTER, on=(_Summary.sid == r.sid))
                )  # fmt: skip
            if since is not None:
                query = query.where(_Recording.started >= since.timestamp())
            if until is not None:
                query = query.where(_Recording.started < until.timestamp())
            # Not through peewee's rows: their conversions are not needed, and take most of the time.
            return {row[0]: IndexRow(*row) for row in self._database.execute(query)}

    def search(
        self, phrases: Sequence[str], *, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[Hit]:
        """Yield lines with these phrases, newest recording first. Operators of FTS5 count as words. Several
        phrases have to stand within some lines of each other. Raises NothingToSearch."""
        if not phrases or not all(_WORD.search(phrase) for phrase in phrases):
            raise NothingToSearch("nothing to search for: a phrase must contain a letter or a digit")
        # The texts are escaped in the same way.
        escaped = (one_line(phrase, None).replace('"', '""') for phrase in phrases)
        expression = " AND ".join(f'"{phrase}"' for phrase in escaped)
        with _index_errors(self.path):
            query = (
                _Text.select(
                    _Recording.sid, _Recording.started, _Recording.user, _Recording.login, _Recording.target,
                    _Recording.dialled, _Recording.approved_by,
                    _Text.times, _Text.body.highlight(_BEGIN, _END),
                )
                .join(_Recording, on=(_Recording.sid == _Text.sid))
                .where(_Text.match(expression))
                .order_by(_Recording.started.desc(), _Text.rowid)
                .tuples()
            )  # fmt: skip
            if since is not None:
                query = query.where(_Recording.started >= since.timestamp())
            if until is not None:
                query = query.where(_Recording.started < until.timestamp())
            for sid, started, user, login, target, dialled, approved_by, times, body in query.iterator():
                for time, parts in _hits(times.split(), body):
                    yield Hit(
                        sid=sid,
                        started=started,
                        user=user,
                        login=login,
                        target=target,
                        time=time,
                        parts=parts,
                        dialled=dialled,
                        approved_by=approved_by,
                    )


def file_names(manifest: Manifest) -> Iterable[str]:
    """Return the names of the files that this session transferred or changed."""
    operations = manifest.files.operations if manifest.files is not None else ()
    return dict.fromkeys(
        name for operation in operations for name in (operation.path, operation.other, operation.name)
    )


def remove(path: Path) -> None:
    """Remove the files of an index."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)


def _hits(times: Sequence[str], body: str) -> Iterator[tuple[float | None, tuple[str, ...]]]:
    """Yield the lines that match. A phrase that goes over the end of a line counts where it begins."""
    inside = False
    for number, line in enumerate(body.split("\n")):
        begins = _BEGIN in line
        if begins:
            text = line + _END if line.rfind(_BEGIN) > line.rfind(_END) else line
            if inside:
                text = text.partition(_END)[2]
            time = float(times[number]) if number < len(times) else None
            yield time, tuple(re.split(f"[{_BEGIN}{_END}]", text))
        if begins or _END in line:
            inside = line.rfind(_BEGIN) > line.rfind(_END)


def _screen(path: Path) -> Iterator[tuple[float, str]]:
    """Yield what a person would have read, line by line, each with the time at which it was complete."""
    transcript, read, time = Transcript(), 0, 0.0
    with contextlib.suppress(RecordingError, OSError):  # what is readable is indexed
        for event in library.events(path):
            if event.code != OUTPUT:
                continue
            time = event.time
            read += len(event.text)
            for line in transcript.feed(event.text).splitlines():
                if line:
                    yield time, _BLANKS.sub(" ", line)
            if read >= TEXT_AT_MOST:
                break
    for line in transcript.end().splitlines():
        if line:
            yield time, _BLANKS.sub(" ", line)


def _create(path: Path) -> None:
    """Create an empty file, private to the owner of its directory."""
    try:
        os.close(create(path, os.O_RDWR))
    except FileExistsError:
        pass


@contextmanager
def _index_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except peewee.OperationalError as error:
        if "vtable constructor failed" in str(error):
            raise IndexBroken(f"cannot use the index {path}: {error}; {_REBUILD}") from error
        raise IndexUnusable(f"cannot use the index {path}: {error}") from error
    except peewee.DatabaseError as error:
        raise IndexBroken(f"cannot use the index {path}: {error}; {_REBUILD}") from error
