"""What the commands about recordings share: the library, who looked, and how one is described."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from datetime import datetime, timezone
from typing import TextIO

from conchrec.audit import RecordingAccess
from conchrec.auditing import open_log
from conchrec.cli.shown import account, shown
from conchrec.config import Config
from conchrec.errors import RecordingError
from conchrec.recording.library import Entry, Library
from conchrec.yamlread import parse_duration

FOUND, NOT_FOUND = 0, 1


def library_of(config: Config) -> Library:
    directory = config.recordings.directory
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise RecordingError(
            f"{directory} can not be read by {account()}; try it as the user that runs conchrec"
        )
    return Library(directory)


def accessed(config: Config, sid: str, action: str) -> None:
    """The audit log has it before anything is shown; what can not be audited is not shown.

    Where there is no log at all (recordings that were taken elsewhere) none is begun: it would be
    whoever asks who owned it, and the service could not write to it. Raises WriteFailed.
    """
    entry = library_of(config).find(sid)
    if entry is None or not config.audit.file.exists():
        return
    fields = summary(entry)
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


def summary(entry: Entry) -> dict[str, object]:
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


def dump(value: object, out: TextIO) -> None:
    out.write(json.dumps(value, indent=1).replace("\x7f", "\\u007f") + "\n")


def no_such(sid: str, errors: TextIO) -> int:
    print(f"conchrec: no recording {shown(sid)}", file=errors)
    return NOT_FOUND
