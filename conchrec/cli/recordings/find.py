"""``conchrec recordings ls | show | search | rebuild-index``: find one.

The index is asked where there is one, and the directory tells what it does not know yet: without an index
``ls`` takes longer, and that is all. Everything that came from outside is printed escaped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.recordings.common import FOUND, NOT_FOUND, accessed, dump, library_of, moment, no_such
from conchrec.config.loader import Config
from conchrec.recording.catalogue.library import Library, LibraryEntry
from conchrec.recording.catalogue.listing import Filter, ListedRecording, date_and_time, found, summary
from conchrec.recording.evidence.ledger import NAME as LEDGER
from conchrec.recording.retention import held
from conchrec.text import escape

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers
    from conchrec.recording.catalogue.index import Index

PROBLEMS = 10
"""Recordings that are named because they cannot be searched."""
CONTEXT = 80
"""Letters before and after what was searched for, where a line is printed."""


def register(commands: Subparsers) -> None:
    ls = commands.add_parser("ls", help="one line for each, oldest first")
    ls.add_argument("--live", action="store_true", help="only those that are still being written")
    ls.add_argument(
        "--status", metavar="WORD", help="complete, interrupted, failed, damaged, unreadable, live"
    )
    ls.add_argument("--kind", metavar="WORD", help="shell, exec, subsystem")
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
        "--target",
        metavar="NAME",
        help="only at this machine: its name as requested, or its address; with or without a port",
    )
    parser.add_argument("--approved-by", metavar="NAME", help="only sessions that this user approved")
    parser.add_argument(
        "--since", metavar="WHEN", type=moment, help="2026-11-23, 2026-11-23T14:00, or 2h (ago); UTC"
    )
    parser.add_argument("--until", metavar="WHEN", type=moment, help="before that time")
    parser.add_argument("--json", action="store_true")


def _wanted(args: argparse.Namespace) -> Filter:
    return Filter(
        user=args.user,
        login=args.login,
        host=args.host,
        target=args.target,
        approved_by=args.approved_by,
        since=args.since,
        until=args.until,
    )


def name_skipped(library: Library, errors: TextIO) -> None:
    """Say which recordings the indexer has skipped, where there is an index."""
    from conchrec.recording.catalogue.index import Index, IndexUnusable

    with contextlib.suppress(IndexUnusable), Index(library.root) as index:
        _name_skipped(index, errors)


def _name_skipped(index: Index, errors: TextIO) -> None:
    for sid, problem in index.problems()[:PROBLEMS]:
        print(f"conchrec: {sid} is not searched: {escape(problem)}", file=errors)


def _ls(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    name_skipped(library_of(config), err)
    return listing(
        library_of(config),
        out,
        as_json=args.json,
        wanted=replace(_wanted(args), live=args.live, status=args.status, kind=args.kind),
        limit=args.limit,
        hint=lambda why: print(f"conchrec: this takes longer: {escape(why)}", file=err),
    )


def _show(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    return show(library_of(config), args.id, out, err, as_json=args.json)


def _search(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    return search(
        library_of(config),
        args.phrase,
        out,
        err,
        wanted=_wanted(args),
        limit=args.limit,
        as_json=args.json,
        looked=lambda sid: accessed(config, sid, "search"),
    )


def _rebuild(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    from conchrec.recording.catalogue.indexer import fill

    root = library_of(config).root
    count = 0

    def did(done: int, of: int) -> None:
        nonlocal count
        count = of
        if err.isatty():
            err.write(f"\r{done} of {of}")

    problems = fill(root, did, rebuild=True)
    if err.isatty():
        err.write("\r\x1b[K")
    for problem in problems:
        print(f"conchrec: {escape(problem)}", file=err)
    print(f"{count - len(problems)} recordings are in the index", file=out)
    return NOT_FOUND if problems else FOUND


def listing(
    library: Library,
    out: TextIO,
    *,
    as_json: bool,
    wanted: Filter | None = None,
    limit: int | None = None,
    hint: Callable[[str], None] = lambda why: None,
) -> int:
    """One line for each recording, oldest first; or a JSON array. ``hint`` hears why it takes long."""
    those: Iterable[ListedRecording] = found(library, wanted or Filter(), summaries=as_json, hint=hint)
    if limit is not None:
        those = deque(those, limit)
    if as_json:
        dump([one.fields() for one in those], out)
        return FOUND
    out.writelines(f"{escape(one.line())}\n" for one in those)
    return FOUND


def search(
    library: Library,
    phrases: Sequence[str],
    out: TextIO,
    errors: TextIO,
    *,
    wanted: Filter,
    limit: int,
    as_json: bool,
    looked: Callable[[str], None] = lambda sid: None,
) -> int:
    """One line for each line that was found, newest recording first; or a JSON array. ``looked`` hears of
    each recording before anything of it is shown."""
    from conchrec.recording.catalogue.index import Hit, Index

    hits: list[Hit] = []
    more = False
    with Index(library.root) as index:
        missing, gone = index.differences()
        if missing:
            print(f"conchrec: {len(missing)} recordings are not in the index yet", file=errors)
        _name_skipped(index, errors)
        for hit in index.search(phrases, since=wanted.since, until=wanted.until):
            if hit.sid not in gone and wanted.wants(
                started=hit.started, status="", kind="",
                user=hit.user, login=hit.login, target=hit.target,
                dialled=hit.dialled, approved_by=hit.approved_by,
            ):  # fmt: skip
                if len(hits) == limit:
                    more = True
                    break
                hits.append(hit)
    for sid in dict.fromkeys(hit.sid for hit in hits):
        looked(sid)
    if as_json:
        dump(
            [
                {
                    "sid": hit.sid, "started": date_and_time(hit.started), "user": hit.user,
                    "login": hit.login, "target": hit.target, "time": hit.time, "line": "".join(hit.parts),
                }
                for hit in hits
            ],
            out,
        )  # fmt: skip
    else:
        mark = ("\x1b[1m", "\x1b[m") if out.isatty() else ("", "")
        for hit in hits:
            time = "      -" if hit.time is None else f"{hit.time:6.1f}s"
            line = "".join(
                f"{mark[0]}{escape(part)}{mark[1]}" if number % 2 else escape(part)
                for number, part in enumerate(_context(hit.parts))
            )
            who = escape(f"{hit.user} {hit.login}@{hit.target}")
            print(hit.sid, date_and_time(hit.started), time, f"{who}: {line}", file=out)
    if more:
        print(f"conchrec: there are more; --limit {limit} is reached", file=errors)
    return FOUND if hits else NOT_FOUND


def _context(parts: Sequence[str]) -> list[str]:
    """The pieces of a line: what was searched for, and of a long line what is near."""
    near = []
    for number, part in enumerate(parts):
        before, after = number < len(parts) - 1, number > 0  # something that was searched for
        if number % 2 == 0 and len(part) > CONTEXT * (before + after):
            part = (part[:CONTEXT] if after else "") + "…" + (part[-CONTEXT:] if before else "")
        near.append(part)
    return near


def show(library: Library, sid: str, out: TextIO, errors: TextIO, *, as_json: bool) -> int:
    """All that is known of one recording."""
    entry = library.find(sid)
    if entry is None:
        return no_such(sid, errors)
    fields = summary(entry)
    if why := held(library.root / LEDGER).get(sid):
        fields["held"] = why
    if as_json:
        dump(fields, out)
    else:
        listed = _listed(entry)
        width = max(len(name) for name in fields)
        for name, value in fields.items():
            if name not in listed:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                print(f"{name:{width}}  {escape(text)}", file=out)
        for name, lines in listed.items():
            for line in lines:
                print(f"{name:{width}}  {escape(line)}", file=out)
    return NOT_FOUND if entry.problem else FOUND


def _listed(entry: LibraryEntry) -> dict[str, list[str]]:
    """What has a line for each: commands, and files."""
    if entry.manifest is None:
        return {}
    commands = [
        f"{one.time:8.1f}s  {one.text}" + ("" if one.status is None else f"  (exit {one.status})")
        for one in entry.manifest.commands
    ]
    files = entry.manifest.files
    moved = [
        "  ".join(
            (one.operation, one.path, *([f"→ {one.other}"] if one.other else []))
            + (() if one.size is None else (f"{one.size} bytes",))
            + ((f"sha256 {one.sha256}",) if one.sha256 else ())
            + (() if one.result == "ok" else (one.result,))
        )
        for one in (files.operations if files is not None else ())
    ]
    if files is not None:
        moved.insert(0, f"{files.by}: {files.read} read, {files.written} written, {files.changes} changes")
    return {name: lines for name, lines in (("commands", commands), ("files", moved)) if lines}


def _count(written: str) -> int:
    number = int(written)
    if number < 1:
        raise ValueError
    return number
