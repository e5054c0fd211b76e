"""``conchrec recordings ls | show | search | rebuild-index``: finds recordings.

``ls`` uses the index where there is one, and reads from the directory what the index does not have yet:
without an index it is slower. All foreign text is printed escaped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.recordings.common import (
    DONE,
    NO,
    audit_access,
    open_library,
    print_json,
    report_missing,
)
from conchrec.config.loader import Config
from conchrec.recording.catalogue.library import Library, LibraryEntry
from conchrec.recording.catalogue.listing import (
    Filter,
    ListedRecording,
    format_time,
    matching_recordings,
    summary,
)
from conchrec.text import count_of, escape

if TYPE_CHECKING:
    from conchrec.recording.catalogue.index import Index

PROBLEMS = 10
"""At most so many recordings that cannot be searched are named."""
NOTHING_FOUND = "no recordings found"
CONTEXT = 80
"""Characters of a line that are printed before and after a match."""


def _filter_of(args: argparse.Namespace) -> Filter:
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
    """Print which recordings the indexer has skipped, where there is an index."""
    from conchrec.recording.catalogue.index import Index, IndexUnusable

    with contextlib.suppress(IndexUnusable), Index(library.root) as index:
        _name_skipped(index, errors)


def _name_skipped(index: Index, errors: TextIO) -> None:
    for sid, problem in index.problems()[:PROBLEMS]:
        print(f"warning: {sid} is not in the index and was not searched: {escape(problem)}", file=errors)


def run_ls(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings ls``."""
    name_skipped(open_library(config), err)
    return listing(
        open_library(config),
        out,
        as_json=args.json,
        wanted=replace(_filter_of(args), live=args.live, status=args.status, kind=args.kind),
        limit=args.limit,
        hint=lambda reason: print(f"note: this is slow: {escape(reason)}", file=err),
        errors=err,
    )


def run_show(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings show``."""
    return show(open_library(config), args.id, out, err, as_json=args.json)


def run_search(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings search``."""
    return search(
        open_library(config),
        args.phrase,
        out,
        err,
        wanted=_filter_of(args),
        limit=args.limit,
        as_json=args.json,
        on_access=lambda sid: audit_access(config, sid, "search"),
    )


def run_rebuild(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings rebuild-index``."""
    from conchrec.recording.catalogue.indexer import fill

    root = open_library(config).root
    count = 0

    def show_progress(done: int, total: int) -> None:
        nonlocal count
        count = total
        if err.isatty():
            err.write(f"\r{done} of {total}")

    problems = fill(root, show_progress, rebuild=True)
    if err.isatty():
        err.write("\r\x1b[K")
    for problem in problems:
        print(f"conchrec: {escape(problem)}", file=err)
    print(f"the index has {count_of(count - len(problems), 'recording')}", file=out)
    return NO if problems else DONE


def listing(
    library: Library,
    out: TextIO,
    *,
    as_json: bool,
    wanted: Filter | None = None,
    limit: int | None = None,
    hint: Callable[[str], None] = lambda reason: None,
    errors: TextIO | None = None,
) -> int:
    """Print one line for each recording, oldest first; or a JSON array.

    ``hint`` is called with a reason where the listing takes long. Without recordings a note is printed to
    ``errors``.
    """
    recordings: Iterable[ListedRecording] = matching_recordings(
        library, wanted or Filter(), summaries=as_json, hint=hint
    )
    if limit is not None:
        recordings = deque(recordings, limit)
    if as_json:
        print_json([recording.fields() for recording in recordings], out)
        return DONE
    is_empty = True
    for recording in recordings:
        is_empty = False
        out.write(f"{escape(recording.line())}\n")
    if is_empty and errors is not None:
        print(NOTHING_FOUND, file=errors)
    return DONE


def search(
    library: Library,
    phrases: Sequence[str],
    out: TextIO,
    errors: TextIO,
    *,
    wanted: Filter,
    limit: int,
    as_json: bool,
    on_access: Callable[[str], None] = lambda sid: None,
) -> int:
    """Print each line that matches, newest recording first; or a JSON array.

    ``on_access`` is called with the id of each recording before anything of it is shown.
    """
    from conchrec.recording.catalogue.index import Hit, Index

    hits: list[Hit] = []
    more = False
    with Index(library.root) as index:
        missing, gone = index.differences()
        if missing:
            print(f"note: {len(missing)} recordings are not in the index yet", file=errors)
        _name_skipped(index, errors)
        for hit in index.search(phrases, since=wanted.since, until=wanted.until):
            if hit.sid not in gone and wanted.matches(
                started=hit.started, status="", kind="",
                user=hit.user, login=hit.login, target=hit.target,
                dialled=hit.dialled, approved_by=hit.approved_by,
            ):  # fmt: skip
                if len(hits) == limit:
                    more = True
                    break
                hits.append(hit)
    for sid in dict.fromkeys(hit.sid for hit in hits):
        on_access(sid)
    if as_json:
        print_json(
            [
                {
                    "sid": hit.sid, "started": format_time(hit.started), "user": hit.user,
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
            session = escape(f"{hit.user} {hit.login}@{hit.target}")
            print(hit.sid, format_time(hit.started), time, f"{session}: {line}", file=out)
    if not hits and not as_json:
        print(NOTHING_FOUND, file=errors)
    if more:
        print(f"note: there are more lines; show them with --limit {10 * limit}", file=errors)
    return DONE if hits else NO


def _context(parts: Sequence[str]) -> list[str]:
    """The parts of a line, matches and what is between them, cut to ``CONTEXT`` around each match."""
    shortened = []
    for number, part in enumerate(parts):
        before, after = number < len(parts) - 1, number > 0  # whether a match follows, or precedes
        if number % 2 == 0 and len(part) > CONTEXT * (before + after):
            part = (part[:CONTEXT] if after else "") + "…" + (part[-CONTEXT:] if before else "")
        shortened.append(part)
    return shortened


def show(library: Library, sid: str, out: TextIO, errors: TextIO, *, as_json: bool) -> int:
    """Print everything that is known about one recording."""
    entry = library.find(sid)
    if entry is None:
        return report_missing(sid, errors)
    fields = summary(entry)
    from conchrec.recording.evidence.ledger import NAME as LEDGER  # slow to import
    from conchrec.recording.retention import held_recordings

    if reason := held_recordings(library.root / LEDGER).get(sid):
        fields["held"] = reason
    if as_json:
        print_json(fields, out)
    else:
        lists = _describe_lists(entry)
        width = max(len(name) for name in fields)
        for name, value in fields.items():
            if name not in lists:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                print(f"{name:{width}}  {escape(text)}", file=out)
        for name, lines in lists.items():
            for line in lines:
                print(f"{name:{width}}  {escape(line)}", file=out)
    return NO if entry.problem else DONE


def _describe_lists(entry: LibraryEntry) -> dict[str, list[str]]:
    """The fields that are printed as one line for each item: commands and files."""
    if entry.manifest is None:
        return {}
    commands = [
        f"{command.time:8.1f}s  {command.text}"
        + ("" if command.status is None else f"  (exit {command.status})")
        for command in entry.manifest.commands
    ]
    files = entry.manifest.files
    transfers = [
        "  ".join(
            (operation.operation, operation.path, *([f"→ {operation.other}"] if operation.other else []))
            + (() if operation.size is None else (f"{operation.size} bytes",))
            + ((f"sha256 {operation.sha256}",) if operation.sha256 else ())
            + (() if operation.result == "ok" else (operation.result,))
        )
        for operation in (files.operations if files is not None else ())
    ]
    if files is not None:
        counts = f"{files.read} read, {files.written} written, {files.changes} changes"
        transfers.insert(0, f"{files.by}: {counts}")
    return {name: lines for name, lines in (("commands", commands), ("files", transfers)) if lines}
