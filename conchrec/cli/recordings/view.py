"""``conchrec recordings play | text | follow | export``: shows and exports the contents of a recording.

Recorded output cannot control the reader's terminal. A terminal gets pictures of the recorded terminal, and
a pipe gets only text and sequences that draw. ``--raw`` prints everything unchanged.
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
from typing import TextIO

from conchrec.cli.recordings.common import (
    DONE,
    NO,
    audit_access,
    open_library,
    report_missing,
)
from conchrec.cli.recordings.keep import identities_of
from conchrec.cli.terminal import play_pictures, print_frames, terminal_size
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

_EXPORTED_EVENTS = frozenset({OUTPUT, INPUT, RESIZE, MARKER, EXIT})
"""The events that every player understands."""
_RAW_WARNING = (
    "warning: --raw prints control sequences unchanged: they can change your terminal, and make it type"
    " commands"
)


def run_play(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings play``."""
    audit_access(config, args.id, "play")
    keys = identities_of(args)
    library = open_library(config)
    return play(library, args.id, out, err, speed=args.speed, idle=args.idle, raw=args.raw, identities=keys)


def run_text(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings text``."""
    audit_access(config, args.id, "text")
    return text(open_library(config), args.id, out, err, identities=identities_of(args))


def run_follow(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings follow``."""
    audit_access(config, args.id, "follow")
    keys = identities_of(args)
    return follow(open_library(config), args.id, out, err, raw=args.raw, identities=keys)


def run_export(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Run ``conchrec recordings export``."""
    audit_access(config, args.id, "export")
    keys = identities_of(args)
    library = open_library(config)
    return export(library, args.id, out, err, form=args.format, path=args.output, identities=keys)


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
    """Play a recording with its original timing; into a pipe, all at once. Returns the exit code."""

    def show(source: RecordingSource) -> None:
        if raw:
            _print(playback.play_raw(source, speed=speed if out.isatty() else None, idle=idle), out, wait)
        else:
            _print(_run_opening(playback.play(source, size=_size(out), speed=speed, idle=idle)), out, wait)

    return _show_recording(library, sid, errors, show, raw=raw, identities=identities)


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
    """Show a recording from its beginning, and what is added to it, until it ends. Returns the exit code."""

    def show(source: RecordingSource) -> None:
        opening = playback.follow(source, size=None if raw else _size(out), raw=raw)
        _print(_run_opening(opening), out, wait)

    return _show_recording(library, sid, errors, show, raw=raw, identities=identities)


def text(library: Library, sid: str, out: TextIO, errors: TextIO, *, identities: Identities = ()) -> int:
    """Print the output of a recording as plain text. Returns the exit code."""

    def show(source: RecordingSource) -> None:
        print_frames(playback.text(source), out, time.sleep)

    return _show_recording(library, sid, errors, show, identities=identities)


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
    """Write a recording as cast, text or JSON (the manifest and the events) to a new file or to ``out``.

    Of a damaged recording everything before the damage is written. Returns the exit code.
    """
    parts = {"cast": _cast_lines, "text": _text_parts, "json": _json_parts}[form]
    if path is None and form != "text" and out.isatty():
        print(
            f"conchrec: {form} is not for a terminal; name a file with -o FILE, or redirect it", file=errors
        )
        return NO

    def show(source: RecordingSource) -> None:
        if path is None:
            out.writelines(parts(source))
            return
        with _new_file(path) as file:
            file.writelines(parts(source))

    return _show_recording(library, sid, errors, show, identities=identities)


def _show_recording(
    library: Library,
    sid: str,
    errors: TextIO,
    show: Callable[[RecordingSource], None],
    *,
    raw: bool = False,
    identities: Identities = (),
) -> int:
    """Call ``show`` with the recording; report a missing or damaged one. Returns the exit code."""
    entry = library.find(sid)
    if entry is None:
        return report_missing(sid, errors)
    if raw:
        print(_RAW_WARNING, file=errors)
    try:
        show(RecordingSource(entry, identities))
    except BrokenPipeError:
        raise
    except (RecordingError, OSError) as error:
        where = error.filename if isinstance(error, OSError) and error.filename else sid
        reason = error.strerror if isinstance(error, OSError) else str(error)
        advice = ""
        if isinstance(error, RecordingError) and error.code is ReasonCode.RECORDING_DAMAGED:
            advice = f"; to check it: conchrec recordings verify {sid}"
        print(f"conchrec: {escape(str(where))}: {escape(reason or str(error))}{advice}", file=errors)
        return NO
    except KeyboardInterrupt:
        pass  # the user ends the show
    return DONE


def _size(out: TextIO) -> tuple[int, int] | None:
    """The size of the terminal that shows the pictures; None where ``out`` is not a terminal."""
    return terminal_size(out.fileno()) if out.isatty() else None


def _run_opening(opening: Opening) -> PictureShow | PlainOutput:
    """The show, after all steps of its opening."""
    show = None
    while show is None:
        show = next(opening)
    return show


def _print(show: PictureShow | PlainOutput, out: TextIO, wait: Callable[[float], None]) -> None:
    """Print a show until it is over, and restore the terminal. Raises RecordingError."""
    if not isinstance(show, PlainOutput):
        play_pictures(show, out)
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
def _new_file(path: Path) -> Iterator[TextIO]:
    """A new file with mode 0600, which appears when it is complete. Raises OSError."""
    with as_invoker():
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "already exists; choose another file with -o", str(path))
        try:
            new = NewFile(path.absolute(), replaces=False)
        except OSError as error:
            raise OSError(error.errno, f"cannot create the file: {error.strerror}", str(path)) from error
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


def _text_parts(source: RecordingSource) -> Iterator[str]:
    """The output as plain text."""
    return (part.text for part in text_parts(source.events()))


def _cast_lines(source: RecordingSource) -> Iterator[str]:
    """The events that every player understands, without checkpoints, which describe the original file."""
    first = next(source.lines(), None)
    if first is None:
        raise RecordingError("the recording is still empty: try again later", code=ReasonCode.RECORDING_EMPTY)
    yield replace(Header.parse(first), ours={}).line().decode()
    for event in source.events():
        if event.code in _EXPORTED_EVENTS:
            yield event_line(event.time, event.code, event.text).decode()


def _json_parts(source: RecordingSource) -> Iterator[str]:
    """A JSON object with the fields of the recording and its events; complete also where one is damaged."""
    yield json.dumps({"recording": summary(source.entry)})[:-1] + ', "events": ['
    separator = "\n"
    try:
        for event in source.events():
            if event.code in _EXPORTED_EVENTS:
                yield separator + json.dumps([event.time, event.code, event.text])
                separator = ",\n"
    except (RecordingError, OSError):
        yield "\n]}\n"
        raise
    yield "\n]}\n"
