"""``recordings``, ``play``, ``text`` and ``follow`` over ssh: a user looks at what was recorded.

Whose, the user's roles say (``recordings: own|all|none``); what is not theirs is not there. That somebody
looked is in the audit before anything is shown. Files are read, and pictures made, in a thread, in short
steps (``reading_queue``): no viewer waits for another. Nothing goes to the user's terminal but what draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import NoReturn, TypeVar

from twisted.internet.defer import Deferred

from conchrec.access.options import Sees
from conchrec.access.policy import sees
from conchrec.audit import events as audit_events
from conchrec.errors import RecordingError
from conchrec.proxy.commands.request import CommandRefused, CommandRequest, UsageError
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue.library import Library, LibraryEntry
from conchrec.recording.catalogue.listing import Filter, found, moment, summary
from conchrec.recording.playback import commands as playback
from conchrec.recording.playback.commands import Opening, RecordingSource
from conchrec.recording.playback.frame import Show
from conchrec.recording.playback.plain_output import Part, PlainOutput
from conchrec.recording.storage.encodings import is_encrypted
from conchrec.recording.terminal.painter import ENTER, LEAVE
from conchrec.text import one_line

T = TypeVar("T")

#: Characters of one line of the list.
LINE = 300


async def recordings(asking: CommandRequest) -> str:
    """List recordings: recordings [--live] [--user|--login|--host|--target NAME] [--since|--until WHEN]"""
    words = _Words("recordings")
    words.add_argument("--live", action="store_true")
    for name in ("--user", "--login", "--host", "--target", "--approved-by"):
        words.add_argument(name)
    for name in ("--since", "--until"):
        words.add_argument(name, type=_moment)
    wanted = Filter(**vars(words.parse_args(asking.words)))
    seen = viewable_recordings(asking)
    if seen is Sees.NONE:
        return ""
    user = asking.identity.user
    lines = (
        Part(text=one_line(one.line(), LINE) + "\n", cost=LINE)
        if (seen is Sees.ALL or one.user == user) and wanted.is_met_by(one)
        else Part(cost=LINE)  # it is work, too
        for one in found(_library(asking), Filter())
    )
    await _printed(asking, PlainOutput(lines))
    return ""


async def play(asking: CommandRequest) -> str:
    """Play a recording (with ssh -t at its own speed): play ID [--speed N] [--idle SECONDS]"""
    words = _Words("play")
    words.add_argument("--speed", type=_positive_number, default=1.0)
    words.add_argument("--idle", type=_positive_number)
    words.add_argument("id")
    given = words.parse_args(asking.words)
    entry = await _found(asking, given.id, "play")
    source, size = RecordingSource(entry), asking.console.size
    await _looked(asking, entry, playback.play(source, size=size, speed=given.speed, idle=given.idle))
    return ""


async def text(asking: CommandRequest) -> str:
    """Print the output of a recording as plain text: text ID"""
    entry = await _found(asking, _only_id(asking, "text"), "text")
    await _printed(asking, playback.text(RecordingSource(entry)))
    return ""


async def follow(asking: CommandRequest) -> str:
    """Watch a session while it is recorded: follow ID"""
    entry = await _found(asking, _only_id(asking, "follow"), "follow")
    await _looked(asking, entry, playback.follow(RecordingSource(entry), size=asking.console.size))
    return ""


# -- who may


def viewable_recordings(asking: CommandRequest) -> Sees:
    """Recordings this user may look at, now."""
    return sees(asking.settings.policy, asking.identity, asking.source, asking.services.now())


def _library(asking: CommandRequest) -> Library:
    return Library(asking.settings.config.recordings.directory)


async def _found(asking: CommandRequest, sid: str, action: str) -> LibraryEntry:
    """One that this user may look at, and the audit knows it. Raises Refused, WriteFailed."""
    seen = viewable_recordings(asking)
    entry = await _read(asking, partial(_library(asking).find, sid))
    fields = summary(entry) if entry is not None else {}
    user = str(fields.get("user", ""))
    if entry is None or not (seen is Sees.ALL or (seen is Sees.OWN and user == asking.identity.user)):
        raise CommandRefused(f"no recording {one_line(sid, 40)} that you may view. To list them: recordings")
    if is_encrypted(entry.path):
        raise CommandRefused(
            f"recording {sid} is encrypted. Someone with its key can read it on the proxy: "
            f"conchrec recordings {action} {sid} --identity FILE"
        )
    asking.services.audit.emit(
        audit_events.RecordingAccess(
            action=action,
            by=asking.identity.user,
            sid=sid,
            user=user,
            login=str(fields.get("login", "")),
            target=str(fields.get("target", "")),
            addr=asking.address,
            cid=asking.cid,
        )
    )
    return entry


# -- what is shown


async def _looked(asking: CommandRequest, entry: LibraryEntry, opening: Opening) -> None:
    """Until it is over; the last picture stays on the user's terminal."""
    console = asking.console
    while (show := await _read(asking, partial(next, opening))) is None:
        pass
    if isinstance(show, PlainOutput):
        await _printed(asking, show)
        return
    try:
        await console.write(ENTER)
        await _printed(asking, show)
    finally:
        # Whatever happened; and there may be no time to wait.
        console.write(LEAVE)
    await console.write(await _read(asking, show.picture))
    if show.problem:
        raise RecordingError(f"{entry.sid}: {show.problem}", code=ReasonCode.RECORDING_UNREADABLE)


async def _printed(asking: CommandRequest, show: Show) -> None:
    """Frame by frame, each made in a thread, until it is over."""
    console, clock = asking.console, asking.services.clock
    while True:
        frame = await _read(
            asking, partial(show.advance, clock.seconds(), console.typed(), console.resized())
        )
        await console.write(frame.text)
        if frame.over:
            return
        if frame.wake != 0:
            await console.wait(frame.wake)


async def _read(asking: CommandRequest, work: Callable[[], T]) -> T:
    """One step, in a thread. Raises ConchrecError."""
    try:
        step: Deferred[T] = asking.services.reading(asking.identity.user, work)
        return await step
    except OSError as error:
        raise RecordingError(
            f"cannot read the recording: {error.strerror or 'input/output error'}",
            repr(error),
            code=ReasonCode.RECORDING_UNREADABLE,
        ) from error


# -- what is asked


class _Words(argparse.ArgumentParser):
    """What follows a command; whatever is wrong with it is Unknown."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def _only_id(asking: CommandRequest, name: str) -> str:
    words = _Words(name)
    words.add_argument("id")
    sid: str = words.parse_args(asking.words).id
    return sid


def _moment(written: str) -> datetime:
    """``moment``, with its error as argparse shows it."""
    try:
        return moment(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive_number(written: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{written!r} is not a number above 0 and below 1000000")
    return number
