"""Helpers of the commands about recordings: the library, the audit of an access, and output."""

from __future__ import annotations

import json
import os
from typing import TextIO

from conchrec.cli.rights import account
from conchrec.config.loader import Config
from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue.library import Library
from conchrec.recording.catalogue.listing import summary
from conchrec.text import escape

DONE, NO = 0, 1


def open_library(config: Config) -> Library:
    """The configured recordings. Raises RecordingError where their directory cannot be read."""
    directory = config.recordings.directory
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise RecordingError(
            f"{account()} cannot read {directory}; run this as the account that runs conchrec",
            code=ReasonCode.RECORDINGS_UNREADABLE,
        )
    return Library(directory)


def audit_access(config: Config, sid: str, action: str) -> None:
    """Append the access to the audit log. Called before anything of the recording is shown.

    Does nothing where there is no audit log (recordings that were copied to another machine): a new file
    would belong to the account that runs the command, and the service could not write to it. Raises
    WriteFailed; then the recording must not be shown.
    """
    from conchrec.audit.events import RecordingAccess
    from conchrec.audit.open import audit_once

    entry = open_library(config).find(sid)
    if entry is None or not config.audit.file.exists():
        return
    fields = summary(entry)
    audit_once(
        config,
        RecordingAccess(
            action=action,
            by=account(),
            sudo_user=os.environ.get("SUDO_USER", ""),
            sid=entry.sid,
            user=str(fields.get("user", "")),
            login=str(fields.get("login", "")),
            target=str(fields.get("target", "")),
        ),
    )


"""The type of an argument that is a time, like ``2026-11-23T14:00`` or ``2h``."""


def print_json(value: object, out: TextIO) -> None:
    """Print a value as JSON that is safe on a terminal."""
    out.write(json.dumps(value, indent=1).replace("\x7f", "\\u007f") + "\n")


def report_missing(sid: str, errors: TextIO) -> int:
    """Print that there is no such recording, and return the exit code."""
    print(f"conchrec: no recording {escape(sid)}; list them with: conchrec recordings ls", file=errors)
    return NO
