"""``conchrec recordings ls | show | search | rebuild-index``: find one.

The index is asked where there is one, and the directory tells what it does not know yet: without an index
``ls`` takes longer, and that is all. Everything that came from outside is printed escaped.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.shelf import FOUND, NOT_FOUND, dump, library_of, moment, no_such, summary
from conchrec.cli.shown import shown
from conchrec.config import Config
from conchrec.recording.library import Library

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers
    from conchrec.recording.index import Row

_LONGEST_COMMAND = 60


def register(commands: Subparsers) -> None:
    ls = commands.add_parser("ls", help="one line for each, oldest first")
    ls.add_argument("--live", action="store_true", help="only those that are still being written")
    ls.add_argument("--limit", metavar="N", type=_count, help="only the newest")
    _filters(ls)
    ls.set_defaults(command=_ls)
    one = commands.add_parser("show", help="all that is known of one")
    one.add_argument("id", metavar="ID")
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=_show)
    search = commands.add_parser(
        "search", help="what was on the screen, what was run, and which files were moved"
    )
    search.add_argument("phrase", metavar="PHRASE", nargs="+", help="words that stand together: 'drop table'")
    search.add_argument("--limit", metavar="N", type=_count, default=100, help="lines at most (100)")
    _filters(search)
    search.set_defaults(command=_search)
    rebuild = commands.add_parser("rebuild-index", help="make the index anew from the recordings")
    rebuild.set_defaults(command=_rebuild)


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="NAME", help="only of this user (* and ? as in the shell)")
    parser.add_argument("--login", metavar="NAME", help="only as this login")
    parser.add_argument("--host", metavar="NAME", help="only at this host, or host:port")
    parser.add_argument(
        "--since", metavar="WHEN", type=moment, help="2026-11-23, 2026-11-23T14:00, or 2h (ago); UTC"
    )
    parser.add_argument("--until", metavar="WHEN", type=moment, help="before that time")
    parser.add_argument("--json", action="store_true")


def _ls(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    wanted = Filter.of(args, live=args.live)
    return listing(library_of(config), out, as_json=args.json, wanted=wanted, limit=args.limit)


def _show(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    return show(library_of(config), args.id, out, err, as_json=args.json)


def _search(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    return search(
        library_of(config),
        args.phrase,
        out,
        err,
        wanted=Filter.of(args),
        limit=args.limit,
        as_json=args.json,
    )


def _rebuild(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    from conchrec.recording import index, indexing

    root = library_of(config).root
    index.remove(root / index.NAME)
    count = 0

    def did(done: int, of: int) -> None:
        nonlocal count
        count = of
        if err.isatty():
            err.write(f"\r{done} of {of}")

    problems = indexing.fill(root, did)
    if err.isatty():
        err.write("\r\x1b[K")
    for problem in problems:
        print(f"conchrec: {shown(problem)}", file=err)
    print(f"{count - len(problems)} recordings are in the index", file=out)
    return NOT_FOUND if problems else FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which recordings are asked for; texts may have ``*`` and ``?``."""

    live: bool = False
    user: str | None = None
    login: str | None = None
    host: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(cls, args: argparse.Namespace, *, live: bool = False) -> Filter:
        return cls(
            live=live, user=args.user, login=args.login, host=args.host, since=args.since, until=args.until
        )

    def wants(self, *, started: float, status: str, user: str, login: str, target: str) -> bool:
        """``started`` is in seconds since 1970."""
        if self.live and status != "live":
            return False
        if self.since is not None and started < self.since.timestamp():
            return False
        if self.until is not None and started >= self.until.timestamp():
            return False
        return (
            _like(self.user, user)
            and _like(self.login, login)
            and (_like(self.host, target) or _like(self.host, target.rpartition(":")[0].strip("[]")))
        )


def _like(pattern: str | None, found: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(found, pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One recording as a list shows it; from the index, or from its files."""

    sid: str
    started: float
    duration: float | None
    status: str
    user: str
    login: str
    target: str
    what: str
    fields: Callable[[], dict[str, object]]


def listing(
    library: Library, out: TextIO, *, as_json: bool, wanted: Filter | None = None, limit: int | None = None
) -> int:
    """One line for each recording, oldest first; or a JSON array."""
    wanted = wanted or Filter()
    found = [
        one
        for one in _all(library, summaries=as_json)
        if wanted.wants(
            started=one.started, status=one.status, user=one.user, login=one.login, target=one.target
        )
    ][-(limit or 0) :]
    if as_json:
        dump([one.fields() for one in found], out)
        return FOUND
    for one in found:
        taken = " " * 8 + "-" if one.duration is None else f"{one.duration:8.1f}s"
        who = f"{one.user or '-'} {one.login or '-'}@{one.target or '-'}"
        out.write(
            f"{one.sid} {_moment(one.started)} {taken} {one.status:11} {shown(who)} {shown(one.what)}\n"
        )
    return FOUND


def _all(library: Library, *, summaries: bool) -> Iterator[_Found]:
    """What is in the index is not read again; the directory says what there is."""
    rows = _rows(library, summaries=summaries)
    for sid, sealed in library.recordings():
        row = rows.get(sid) if sealed else None
        if row is not None and row.status != "unreadable":
            yield _Found(
                sid=sid, started=row.started, duration=row.duration, status=row.status, user=row.user,
                login=row.login, target=row.target, what=_what({"kind": row.kind, "command": row.command}),
                fields=partial(_indexed, library, row),
            )  # fmt: skip
            continue
        entry = library.entry(sid, sealed)
        fields = summary(entry)
        yield _Found(
            sid=sid, started=entry.started.timestamp(),
            duration=entry.manifest.duration if entry.manifest else None, status=entry.status,
            user=str(fields.get("user", "")), login=str(fields.get("login", "")),
            target=str(fields.get("target", "")), what=_what(fields), fields=partial(dict, fields),
        )  # fmt: skip


def _rows(library: Library, *, summaries: bool) -> dict[str, Row]:
    """Empty where there is no index that can be used."""
    from conchrec.recording.index import Index, IndexUnusable

    try:
        with Index(library.root) as index:
            return index.rows(summaries=summaries)
    except IndexUnusable:
        return {}


def _indexed(library: Library, row: Row) -> dict[str, object]:
    fields: dict[str, object] = json.loads(row.summary)
    return fields | {"sid": row.sid, "status": row.status, "path": str(library.path(row.sid))}


def search(
    library: Library,
    phrases: Sequence[str],
    out: TextIO,
    errors: TextIO,
    *,
    wanted: Filter,
    limit: int,
    as_json: bool,
) -> int:
    """One line for each line that was found, newest recording first; or a JSON array."""
    from conchrec.recording.index import Hit, Index

    found: list[Hit] = []
    more = False
    with Index(library.root) as index:
        if waiting := len(index.missing()):
            print(f"conchrec: {waiting} recordings are not in the index yet", file=errors)
        for hit in index.search(phrases, since=wanted.since, until=wanted.until):
            if wanted.wants(
                started=hit.started, status="", user=hit.user, login=hit.login, target=hit.target
            ):
                if len(found) == limit:
                    more = True
                    break
                found.append(hit)
    if as_json:
        dump(
            [
                {
                    "sid": hit.sid, "started": _moment(hit.started), "user": hit.user, "login": hit.login,
                    "target": hit.target, "time": hit.time, "line": "".join(hit.parts),
                }
                for hit in found
            ],
            out,
        )  # fmt: skip
    else:
        mark = ("\x1b[1m", "\x1b[m") if out.isatty() else ("", "")
        for hit in found:
            time = "      -" if hit.time is None else f"{hit.time:6.1f}s"
            line = "".join(
                f"{mark[0]}{shown(part)}{mark[1]}" if number % 2 else shown(part)
                for number, part in enumerate(hit.parts)
            )
            who = shown(f"{hit.user} {hit.login}@{hit.target}")
            print(hit.sid, _moment(hit.started), time, f"{who}: {line}", file=out)
    if more:
        print(f"conchrec: there are more; --limit {limit} is reached", file=errors)
    return FOUND if found else NOT_FOUND


def show(library: Library, sid: str, out: TextIO, errors: TextIO, *, as_json: bool) -> int:
    """All that is known of one recording."""
    entry = library.find(sid)
    if entry is None:
        return no_such(sid, errors)
    fields = summary(entry)
    if as_json:
        dump(fields, out)
    else:
        width = max(len(name) for name in fields)
        for name, value in fields.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"{name:{width}}  {shown(text)}", file=out)
    return NOT_FOUND if entry.problem else FOUND


def _what(fields: dict[str, object]) -> str:
    what = f"{fields.get('kind', '-')} {fields.get('command') or fields.get('subsystem') or ''}".rstrip()
    return what if len(what) <= _LONGEST_COMMAND else what[: _LONGEST_COMMAND - 1] + "…"


def _moment(started: float) -> str:
    return datetime.fromtimestamp(started, timezone.utc).isoformat(" ", "seconds")[:19]


def _count(written: str) -> int:
    number = int(written)
    if number < 1:
        raise ValueError
    return number
