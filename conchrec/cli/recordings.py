"""``conchrec recordings …``: list, show, play, read and export what was recorded.

Exit codes: 0 done, 1 there is no such recording or it can not be read, 78 the configuration.
Everything that came from outside is printed escaped, and a recording is played through a filter:
neither may make the reader's terminal do, or answer, anything.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.audit import RecordingAccess
from conchrec.auditing import open_log
from conchrec.cli import recordings_keep
from conchrec.cli.shown import account, shown
from conchrec.config import Config
from conchrec.errors import RecordingError
from conchrec.recording.asciicast import OUTPUT, Event
from conchrec.recording.library import Entry, Library, events, whole_lines
from conchrec.recording.replay import RESET, SafeOutput
from conchrec.recording.transcript import Transcript
from conchrec.yamlread import parse_duration

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

FOUND, NOT_FOUND = 0, 1
_LONGEST_COMMAND = 60


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("recordings", help="list, show, play and export recordings")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    ls = commands.add_parser("ls", help="one line for each, oldest first")
    ls.add_argument("--live", action="store_true", help="only those that are still being written")
    ls.add_argument("--user", metavar="NAME", help="only of this user (* and ? as in the shell)")
    ls.add_argument("--login", metavar="NAME", help="only as this login")
    ls.add_argument("--host", metavar="NAME", help="only at this host, or host:port")
    ls.add_argument(
        "--since", metavar="WHEN", type=moment, help="2026-11-23, 2026-11-23T14:00, or 2h (ago); UTC"
    )
    ls.add_argument("--until", metavar="WHEN", type=moment, help="before that time")
    ls.add_argument("--json", action="store_true")
    ls.set_defaults(command=_ls)
    shown_one = commands.add_parser("show", help="all that is known of one")
    shown_one.add_argument("id", metavar="ID")
    shown_one.add_argument("--json", action="store_true")
    shown_one.set_defaults(command=_show)
    played = commands.add_parser("play", help="replay one in its own time; into a pipe, at once")
    played.add_argument("id", metavar="ID")
    played.add_argument("--speed", type=_factor, default=1.0, metavar="N", help="so many times as fast")
    played.add_argument("--idle", type=_factor, metavar="SECONDS", help="no pause is longer")
    played.set_defaults(command=_play)
    read = commands.add_parser("text", help="the output as plain lines")
    read.add_argument("id", metavar="ID")
    read.set_defaults(command=_text)
    exported = commands.add_parser("export", help="one as a file")
    exported.add_argument("id", metavar="ID")
    exported.add_argument("--format", choices=("cast", "text", "json"), default="cast")
    exported.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="must not exist; else standard output"
    )
    exported.set_defaults(command=_export)
    recordings_keep.register(commands)


def _library(config: Config) -> Library:
    directory = config.recordings.directory
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise RecordingError(
            f"{directory} can not be read by {account()}; try it as the user that runs conchrec"
        )
    return Library(directory)


def _accessed(config: Config, sid: str, action: str) -> None:
    """The audit log has it before anything is shown; what can not be audited is not shown.

    Where there is no log at all (recordings that were taken elsewhere) none is begun: it would be
    whoever asks who owned it, and the service could not write to it. Raises WriteFailed.
    """
    entry = _library(config).find(sid)
    if entry is None or not config.audit.file.exists():
        return
    fields = _summary(entry)
    open_log(config).emit(
        RecordingAccess(
            action=action,
            by=account(),
            sudo_user=os.environ.get("SUDO_USER", ""),
            sid=entry.sid,
            user=str(fields.get("user", "")),
            login=str(fields.get("login", "")),
            target=str(fields.get("target", "")),
        )
    )


def _ls(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    wanted = Filter(
        live=args.live, user=args.user, login=args.login, host=args.host, since=args.since, until=args.until
    )
    return listing(_library(config), out, as_json=args.json, wanted=wanted)


def _show(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    return show(_library(config), args.id, out, err, as_json=args.json)


def _play(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    _accessed(config, args.id, "play")
    return play(_library(config), args.id, out, err, speed=args.speed, idle=args.idle)


def _text(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    _accessed(config, args.id, "text")
    return text(_library(config), args.id, out, err)


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    _accessed(config, args.id, "export")
    return export(_library(config), args.id, out, err, form=args.format, path=args.output)


def moment(written: str) -> datetime:
    """A date, a date and time (UTC where it names no other zone), or how long ago."""
    with contextlib.suppress(ValueError):
        return datetime.now(timezone.utc) - parse_duration(written)
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{written!r} is not a time (2026-11-23, 2026-11-23T14:00, or 2h for two hours ago)"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def _factor(written: str) -> float:
    number = float(written)
    if not 0 < number < 1e6:
        raise ValueError
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which recordings are asked for; texts may have ``*`` and ``?``."""

    live: bool = False
    user: str | None = None
    login: str | None = None
    host: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, entry: Entry, fields: dict[str, object]) -> bool:
        if self.live and entry.status != "live":
            return False
        if (self.since and entry.started < self.since) or (self.until and entry.started >= self.until):
            return False
        target = str(fields.get("target", ""))
        return (
            _like(self.user, str(fields.get("user", "")))
            and _like(self.login, str(fields.get("login", "")))
            and (_like(self.host, target) or _like(self.host, target.rpartition(":")[0].strip("[]")))
        )


def _like(pattern: str | None, found: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(found, pattern)


def listing(library: Library, out: TextIO, *, as_json: bool, wanted: Filter | None = None) -> int:
    """One line for each recording, oldest first; or a JSON array."""
    wanted = wanted or Filter()
    found = ((entry, fields) for entry in library.entries() if wanted.wants(entry, fields := _summary(entry)))
    if as_json:
        _dump([fields for _, fields in found], out)
        return FOUND
    for entry, fields in found:
        print(
            entry.sid,
            entry.started.strftime("%Y-%m-%d %H:%M:%S"),
            f"{entry.manifest.duration:8.1f}s" if entry.manifest else " " * 8 + "-",
            f"{entry.status:11}",
            shown(f"{fields.get('user', '-')} {fields.get('login', '-')}@{fields.get('target', '-')}"),
            shown(_what(fields)),
            file=out,
        )
    return FOUND


def show(library: Library, sid: str, out: TextIO, errors: TextIO, *, as_json: bool) -> int:
    """All that is known of one recording."""
    entry = library.find(sid)
    if entry is None:
        return _no_such(sid, errors)
    fields = _summary(entry)
    if as_json:
        _dump(fields, out)
    else:
        width = max(len(name) for name in fields)
        for name, value in fields.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"{name:{width}}  {shown(text)}", file=out)
    return NOT_FOUND if entry.problem else FOUND


def play(
    library: Library,
    sid: str,
    out: TextIO,
    errors: TextIO,
    *,
    speed: float = 1,
    idle: float | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Replay one recording in its own time; into a pipe, at once."""
    entry = library.find(sid)
    if entry is None:
        return _no_such(sid, errors)
    terminal = out.isatty()
    safe = SafeOutput()
    try:
        for pause, event in _paced(events(entry.path), speed, idle):
            if terminal and pause > 0:
                out.flush()
                wait(pause)
            if event.code == OUTPUT:
                out.write(safe.feed(event.text))
    except (RecordingError, OSError) as error:
        return _damaged(sid, error, errors)
    except KeyboardInterrupt:
        pass  # the reviewer has seen enough
    finally:
        if terminal:
            out.write(RESET + "\r\n")
        out.flush()
    return FOUND


def text(library: Library, sid: str, out: TextIO, errors: TextIO) -> int:
    """The output of one recording as plain lines."""
    entry = library.find(sid)
    if entry is None:
        return _no_such(sid, errors)
    try:
        for line in _lines(entry):
            out.write(line)
    except (RecordingError, OSError) as error:
        return _damaged(sid, error, errors)
    return FOUND


def export(
    library: Library, sid: str, out: TextIO, errors: TextIO, *, form: str, path: Path | None = None
) -> int:
    """One recording as cast, text or JSON (the manifest and the events), to a new file or to ``out``.

    Of one that is damaged there is what comes before, and the exit code says so.
    """
    entry = library.find(sid)
    if entry is None:
        return _no_such(sid, errors)
    if path is None:
        if form != "text" and out.isatty():
            print("conchrec: that is not for a terminal; name a file with -o", file=errors)
            return NOT_FOUND
        return _exported(entry, form, out, errors)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        print(f"conchrec: {shown(str(path))}: {error.strerror}", file=errors)
        return NOT_FOUND
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        return _exported(entry, form, file, errors)


def _exported(entry: Entry, form: str, out: TextIO, errors: TextIO) -> int:
    parts = {"cast": _cast, "text": _lines, "json": _json}[form](entry)
    try:
        for part in parts:
            out.write(part)
    except (RecordingError, OSError) as error:
        return _damaged(entry.sid, error, errors)
    return FOUND


def _lines(entry: Entry) -> Iterator[str]:
    transcript = Transcript()
    try:
        for event in events(entry.path):
            if event.code == OUTPUT:
                yield transcript.feed(event.text)
    except (RecordingError, OSError):
        yield transcript.end()
        raise
    yield transcript.end()


def _cast(entry: Entry) -> Iterator[str]:
    return (line.decode("utf-8", "surrogateescape") for line in whole_lines(entry.path))


def _json(entry: Entry) -> Iterator[str]:
    yield json.dumps({"recording": _summary(entry)})[:-1] + ', "events": ['
    separator = "\n"
    try:
        for event in events(entry.path):
            yield separator + json.dumps([event.time, event.code, event.text])
            separator = ",\n"
    except (RecordingError, OSError):
        yield "\n]}\n"
        raise
    yield "\n]}\n"


def _damaged(sid: str, error: Exception, errors: TextIO) -> int:
    if isinstance(error, BrokenPipeError):
        raise error
    print(f"conchrec: {sid}: {shown(str(error))}", file=errors)
    return NOT_FOUND


def _paced(played: Iterable[Event], speed: float, idle: float | None) -> Iterator[tuple[float, Event]]:
    before = 0.0
    for event in played:
        pause = event.time - before
        before = max(before, event.time)
        yield (pause if idle is None else min(pause, idle)) / speed, event


def _summary(entry: Entry) -> dict[str, object]:
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


def _what(fields: dict[str, object]) -> str:
    what = f"{fields.get('kind', '-')} {fields.get('command') or fields.get('subsystem') or ''}".rstrip()
    return what if len(what) <= _LONGEST_COMMAND else what[: _LONGEST_COMMAND - 1] + "…"


def _dump(value: object, out: TextIO) -> None:
    out.write(json.dumps(value, indent=1).replace("\x7f", "\\u007f") + "\n")


def _no_such(sid: str, errors: TextIO) -> int:
    print(f"conchrec: no recording {shown(sid)}", file=errors)
    return NOT_FOUND
