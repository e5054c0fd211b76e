"""``conchrec recordings play | text | export``: look at one.

A recording is played through a filter, so that it can not make the reader's terminal do, or answer, anything.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.cli.shelf import FOUND, NOT_FOUND, accessed, library_of, no_such, summary
from conchrec.cli.shown import shown
from conchrec.config import Config
from conchrec.errors import RecordingError
from conchrec.recording.asciicast import OUTPUT, Event
from conchrec.recording.library import Entry, Library, events, whole_lines
from conchrec.recording.replay import RESET, SafeOutput
from conchrec.recording.seal import CHECKPOINT, is_checkpoint
from conchrec.recording.transcript import Transcript

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


def register(commands: Subparsers) -> None:
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


def _play(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "play")
    return play(library_of(config), args.id, out, err, speed=args.speed, idle=args.idle)


def _text(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "text")
    return text(library_of(config), args.id, out, err)


def _export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    accessed(config, args.id, "export")
    return export(library_of(config), args.id, out, err, form=args.format, path=args.output)


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
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Replay one recording in its own time; into a pipe, at once."""
    entry = library.find(sid)
    if entry is None:
        return no_such(sid, errors)
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
        return no_such(sid, errors)
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
        return no_such(sid, errors)
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
    """Without checkpoints: they are about the file as it lies here."""
    lines = (line for line in whole_lines(entry.path) if not is_checkpoint(line))
    return (line.decode("utf-8", "surrogateescape") for line in lines)


def _json(entry: Entry) -> Iterator[str]:
    yield json.dumps({"recording": summary(entry)})[:-1] + ', "events": ['
    separator = "\n"
    try:
        for event in events(entry.path):
            if event.code == CHECKPOINT:
                continue
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
