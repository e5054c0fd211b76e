"""The commands ``recordings``, ``play``, ``text`` and ``follow``.

The user's roles say which recordings a user may view (``recordings: own|all|none``); to the user, the others
do not exist. The audit has each view before its first output. Files are read and screens are drawn in
threads, in short steps (``reading_queue``), so that no viewer waits for another. A recording's control
sequences never reach the user's terminal: it gets a drawing of the recorded screen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import NoReturn, TypeVar

from twisted.internet.defer import Deferred

from conchrec.access.options import VisibleRecordings
from conchrec.access.policy import visible_recordings
from conchrec.audit import events as audit_events
from conchrec.errors import RecordingError
from conchrec.proxy.commands.command_request import CommandRefused, CommandRequest, UsageError
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue.library import Library, LibraryEntry
from conchrec.recording.catalogue.listing import Filter, matching_recordings, parse_time, summary
from conchrec.recording.playback import commands as playback
from conchrec.recording.playback.commands import Opening, RecordingSource
from conchrec.recording.playback.frame import Show
from conchrec.recording.playback.plain_output import Part, PlainOutput
from conchrec.recording.storage.encodings import is_encrypted
from conchrec.recording.terminal.painter import ENTER, LEAVE
from conchrec.text import one_line, quote

T = TypeVar("T")

#: The longest line of the list, in characters.
LINE = 300
#: What argparse says of a missing positional argument ``id``.
_NO_ID = "the following arguments are required: id"


async def recordings(request: CommandRequest) -> str:
    """List recordings: recordings [--live] [--user|--login|--host|--target NAME] [--since|--until WHEN]"""
    words = _Words("recordings")
    words.add_argument("--live", action="store_true")
    for name in ("--user", "--login", "--host", "--target", "--approved-by"):
        words.add_argument(name)
    for name in ("--since", "--until"):
        words.add_argument(name, type=_moment)
    query = Filter(**vars(words.parse_args(request.words)))
    seen = viewable_recordings(request)
    if seen is VisibleRecordings.NONE:
        return ""
    user = request.identity.user
    lines = (
        Part(text=one_line(item.line(), LINE) + "\n", cost=LINE)
        if (seen is VisibleRecordings.ALL or item.user == user) and query.matches_recording(item)
        else Part(cost=LINE)  # reading it was work, too
        for item in matching_recordings(_library(request), Filter())
    )
    await _print(request, PlainOutput(lines))
    return ""


async def play(request: CommandRequest) -> str:
    """Play a recording (with ssh -t at its own speed): play ID [--speed N] [--idle SECONDS]"""
    words = _Words("play")
    words.add_argument("--speed", type=_positive_number, default=1.0)
    words.add_argument("--idle", type=_positive_number)
    words.add_argument("id")
    arguments = words.parse_args(request.words)
    entry = await _find(request, arguments.id, "play")
    opening = playback.play(
        RecordingSource(entry), size=request.console.size, speed=arguments.speed, idle=arguments.idle
    )
    await _show(request, entry, opening)
    return ""


async def text(request: CommandRequest) -> str:
    """Print the output of a recording as plain text: text ID"""
    entry = await _find(request, _only_id(request, "text"), "text")
    await _print(request, playback.text(RecordingSource(entry)))
    return ""


async def follow(request: CommandRequest) -> str:
    """Watch a session while it is recorded: follow ID"""
    entry = await _find(request, _only_id(request, "follow"), "follow")
    await _show(request, entry, playback.follow(RecordingSource(entry), size=request.console.size))
    return ""


# -- access


def viewable_recordings(request: CommandRequest) -> VisibleRecordings:
    """Which recordings the roles of this user allow to view now."""
    return visible_recordings(
        request.settings.policy, request.identity, request.source, request.services.now()
    )


def _library(request: CommandRequest) -> Library:
    return Library(request.settings.config.recordings.directory)


async def _find(request: CommandRequest, sid: str, action: str) -> LibraryEntry:
    """Find a recording that this user may view, and audit the view. Raises CommandRefused, WriteFailed."""
    seen = viewable_recordings(request)
    entry = await _read(request, partial(_library(request).find, sid))
    fields = summary(entry) if entry is not None else {}
    user = str(fields.get("user", ""))
    if entry is None or not (
        seen is VisibleRecordings.ALL or (seen is VisibleRecordings.OWN and user == request.identity.user)
    ):
        raise CommandRefused(
            f"no recording {quote(sid, 40)}, or you may not view it. "
            "To list those that you may view: recordings"
        )
    if is_encrypted(entry.path):
        raise CommandRefused(
            f"recording {sid} is encrypted. Someone with its key can read it on the proxy: "
            f"conchrec recordings {action} {sid} --identity FILE"
        )
    request.services.audit.emit(
        audit_events.RecordingAccess(
            action=action,
            by=request.identity.user,
            sid=sid,
            user=user,
            login=str(fields.get("login", "")),
            target=str(fields.get("target", "")),
            addr=request.address,
            cid=request.cid,
        )
    )
    return entry


# -- output


async def _show(request: CommandRequest, entry: LibraryEntry, opening: Opening) -> None:
    """Show a recording until it ends, or the user stops it; the last screen stays on the user's terminal."""
    console = request.console
    while (show := await _read(request, partial(next, opening))) is None:
        pass
    if isinstance(show, PlainOutput):
        await _print(request, show)
        return
    try:
        await console.write(ENTER)
        await _print(request, show)
    finally:
        # Also when it is cancelled, where nothing can be awaited.
        console.write(LEAVE)
    await console.write(await _read(request, show.picture))
    if show.problem:
        raise RecordingError(f"{entry.sid}: {show.problem}", code=ReasonCode.RECORDING_UNREADABLE)


async def _print(request: CommandRequest, show: Show) -> None:
    """Print frame by frame, each made in a thread, until the last one."""
    console, clock = request.console, request.services.clock
    while True:
        frame = await _read(
            request, partial(show.advance, clock.seconds(), console.typed(), console.resized())
        )
        await console.write(frame.text)
        if frame.over:
            return
        if frame.wake != 0:
            await console.wait(frame.wake)


async def _read(request: CommandRequest, work: Callable[[], T]) -> T:
    """Run one step in a thread. Raises ConchrecError."""
    try:
        step: Deferred[T] = request.services.reading(request.identity.user, work)
        return await step
    except OSError as error:
        raise RecordingError(
            f"cannot read the recording: {error.strerror or 'input/output error'}",
            repr(error),
            code=ReasonCode.RECORDING_UNREADABLE,
        ) from error


# -- arguments


class _Words(argparse.ArgumentParser):
    """Parses the words that follow a command. Raises UsageError."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        if message == _NO_ID:
            message = "the ID of a recording is required. To list them: recordings"
        raise UsageError(f"{self.prog}: {message}")


def _only_id(request: CommandRequest, name: str) -> str:
    """The one argument of a command: the id of a recording."""
    words = _Words(name)
    words.add_argument("id")
    sid: str = words.parse_args(request.words).id
    return sid


def _moment(written: str) -> datetime:
    """``parse_time``, with its error as argparse shows it."""
    try:
        return parse_time(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive_number(written: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(
            f"invalid number {quote(written, 40)}: must be greater than 0 and less than 1000000"
        )
    return number
