"""``conchrec recordings play | text | follow | export``: look at one.

Nothing that was recorded makes the reader's terminal do, or answer, anything: on a terminal there are
pictures of the recorded one, and into a pipe goes what draws and nothing else. ``--raw`` is for those who
want it all.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.recordings.common import FOUND, NOT_FOUND, accessed, library_of, no_such
from conchrec.cli.recordings.keep import add_identity, identities_of
from conchrec.cli.rights import for_files
from conchrec.cli.terminal import look, print_frames, terminal_size
from conchrec.config.loader import Config
from conchrec.errors import RecordingError
from conchrec.files import NewFile
from conchrec.ownership import as_invoker
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue.library import Library
from conchrec.recording.catalogue.listing import summary
from conchrec.recording.format.asciicast import EXIT, INPUT, MARKER, OUTPUT, RESIZE, Header, event_line
from conchrec.recording.playback import commands as playback
from conchrec.recording.playback.commands import Opening, RecordingSource
from conchrec.recording.playback.frame import PictureShow
from conchrec.recording.playback.plain_output import PlainOutput, text_parts
from conchrec.recording.storage.recipients import Identities
from conchrec.recording.terminal.sanitize import RESET
from conchrec.text import escape

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

_PLAYERS_KNOW = frozenset({OUTPUT, INPUT, RESIZE, MARKER, EXIT})
_RAW = "conchrec: --raw: what was recorded goes out as it is, and can make a terminal do, and type, anything"


def register(commands: Subparsers) -> None:
    played = commands.add_parser(
        "play",
        help="replay one in its own time; into a pipe, at once",
        description="Keys: space pause · . one step · arrows 5 s · PgUp PgDn 60 s · [ ] markers"
        " · 0-9 tenth parts · Home End · + - speed · q",
    )
    played.add_argument("id", metavar="ID")
    played.add_argument("--speed", type=_factor, default=1.0, metavar="N", help="so many times as fast")
    played.add_argument("--idle", type=_factor, metavar="SECONDS", help="no pause is longer")
    played.set_defaults(command=_play)
    read = commands.add_parser("text", help="the output as plain lines")
    read.add_argument("id", metavar="ID")
    read.set_defaults(command=_text)
    followed = commands.add_parser("follow", help="one as it is being recorded, until it ends")
    followed.add_argument("id", metavar="ID")
    followed.set_defaults(command=_follow)
    for parser in (played, followed):
        parser.add_argument(
            "--raw", action="store_true", help="what was recorded, as it is: it may do anything to a terminal"
        )
    exported = commands.add_parser("export", help="one as a file")
    exported.add_argument("id", metavar="ID")
    exported.add_argument("--format", choices=("cast", "text", "json"), default="cast")
    exported.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="must not exist; else standard output"
    )
    exported.set_defaults(command=_export)
    for parser in (played, read, followed, exported):
        add_identity(parser)
        parser.set_defaults(rights=for_files("identity", "output"))


def _play(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "play")
    keys = identities_of(args)
    return play(
        library_of(config), args.id, out, err, speed=args.speed, idle=args.idle, raw=args.raw, identities=keys
    )


def _text(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "text")
    return text(library_of(config), args.id, out, err, identities=identities_of(args))


def _follow(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "follow")
    keys = identities_of(args)
    return follow(library_of(config), args.id, out, err, raw=args.raw, identities=keys)


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "export")
    keys = identities_of(args)
    return export(library_of(config), args.id, out, err, form=args.format, path=args.output, identities=keys)


def _factor(written: str) -> float:
    number = float(written)
    if not 0 < number < 1e6:
        raise ValueError
    return number


def play(
    library: Library,
    sid: str,
    out: TextIO,
    errors: TextIO,
    *,
    speed: float = 1,
    idle: float | None = None,
    raw: bool = False,
    identities: Identities = (),
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Replay one recording in its own time; into a pipe, at once."""

    def show(source: RecordingSource) -> None:
        if raw:
            _print(playback.play_raw(source, speed=speed if out.isatty() else None, idle=idle), out, wait)
        else:
            _print(_opened(playback.play(source, size=_size(out), speed=speed, idle=idle)), out, wait)

    return _shown(library, sid, errors, show, raw=raw, identities=identities)


def follow(
    library: Library,
    sid: str,
    out: TextIO,
    errors: TextIO,
    *,
    raw: bool = False,
    identities: Identities = (),
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """One recording from its beginning, and what is added to it, until it has ended."""

    def show(source: RecordingSource) -> None:
        opening = playback.follow(source, size=None if raw else _size(out), raw=raw)
        _print(_opened(opening), out, wait)

    return _shown(library, sid, errors, show, raw=raw, identities=identities)


def text(library: Library, sid: str, out: TextIO, errors: TextIO, *, identities: Identities = ()) -> int:
    """The output of one recording as plain lines."""

    def show(source: RecordingSource) -> None:
        print_frames(playback.text(source), out, time.sleep)

    return _shown(library, sid, errors, show, identities=identities)


def export(
    library: Library,
    sid: str,
    out: TextIO,
    errors: TextIO,
    *,
    form: str,
    path: Path | None = None,
    identities: Identities = (),
) -> int:
    """One recording as cast, text or JSON (the manifest and the events), to a new file or to ``out``.

    Of one that is damaged there is what comes before, and the exit code says so.
    """
    parts = {"cast": _cast, "text": _lines, "json": _json}[form]
    if path is None and form != "text" and out.isatty():
        print("conchrec: that is not for a terminal; name a file with -o", file=errors)
        return NOT_FOUND

    def show(source: RecordingSource) -> None:
        if path is None:
            out.writelines(parts(source))
            return
        with _new(path) as file:
            file.writelines(parts(source))

    return _shown(library, sid, errors, show, identities=identities)


def _shown(
    library: Library,
    sid: str,
    errors: TextIO,
    show: Callable[[RecordingSource], None],
    *,
    raw: bool = False,
    identities: Identities = (),
) -> int:
    entry = library.find(sid)
    if entry is None:
        return no_such(sid, errors)
    if raw:
        print(_RAW, file=errors)
    try:
        show(RecordingSource(entry, identities))
    except BrokenPipeError:
        raise
    except (RecordingError, OSError) as error:
        where = error.filename if isinstance(error, OSError) and error.filename else sid
        said = error.strerror if isinstance(error, OSError) else str(error)
        print(f"conchrec: {escape(str(where))}: {escape(said or str(error))}", file=errors)
        return NOT_FOUND
    except KeyboardInterrupt:
        pass  # the reviewer has seen enough
    return FOUND


def _size(out: TextIO) -> tuple[int, int] | None:
    """The size of the terminal that pictures are for; None without one."""
    return terminal_size(out.fileno()) if out.isatty() else None


def _opened(opening: Opening) -> PictureShow | PlainOutput:
    """The show, after all steps that lead to it."""
    show = None
    while show is None:
        show = next(opening)
    return show


def _print(show: PictureShow | PlainOutput, out: TextIO, wait: Callable[[float], None]) -> None:
    """Print a show until it is over; a terminal is as it was afterwards."""
    if not isinstance(show, PlainOutput):
        look(show, out)
        if show.problem:
            raise RecordingError(show.problem, code=ReasonCode.RECORDING_UNREADABLE)
        return
    try:
        print_frames(show, out, wait)
    finally:
        if out.isatty():
            out.write(RESET + "\r\n")
        out.flush()


@contextmanager
def _new(path: Path) -> Iterator[TextIO]:
    """A file that was not there before, mode 0600; there as soon as it is complete."""
    with as_invoker():
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        new = NewFile(path.absolute(), replaces=False)
    try:
        text = io.TextIOWrapper(new.file, encoding="utf-8", newline="")
        damaged: RecordingError | None = None
        try:
            yield text
        except RecordingError as error:
            damaged = error
        text.flush()
        with as_invoker():
            new.commit(durable=False)
        if damaged is not None:
            raise damaged
    finally:
        with as_invoker():
            new.close()


def _lines(source: RecordingSource) -> Iterator[str]:
    """The output as plain lines."""
    return (part.text for part in text_parts(source.events()))


def _cast(source: RecordingSource) -> Iterator[str]:
    """What every player knows, and no more: checkpoints are about the file as it lies here."""
    first = next(source.lines(), None)
    if first is None:
        raise RecordingError("there is nothing to export yet", code=ReasonCode.RECORDING_EMPTY)
    yield replace(Header.parse(first), ours={}).line().decode()
    for event in source.events():
        if event.code in _PLAYERS_KNOW:
            yield event_line(event.time, event.code, event.text).decode()


def _json(source: RecordingSource) -> Iterator[str]:
    yield json.dumps({"recording": summary(source.entry)})[:-1] + ', "events": ['
    separator = "\n"
    try:
        for event in source.events():
            if event.code in _PLAYERS_KNOW:
                yield separator + json.dumps([event.time, event.code, event.text])
                separator = ",\n"
    except (RecordingError, OSError):
        yield "\n]}\n"
        raise
    yield "\n]}\n"
