"""What the commands about recordings share: the library, who looked, and how one is described."""

from __future__ import annotations

import argparse
import json
import os
from datetime import datetime
from typing import TextIO

from conchrec.cli.rights import account
from conchrec.config.loader import Config
from conchrec.errors import RecordingError
from conchrec.reasons import ReasonCode
from conchrec.recording.catalogue import listing
from conchrec.recording.catalogue.library import Library
from conchrec.recording.catalogue.listing import summary
from conchrec.text import escape

FOUND, NOT_FOUND = 0, 1


def library_of(config: Config) -> Library:
    directory = config.recordings.directory
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise RecordingError(
            f"{directory} can not be read by {account()}; try it as the user that runs conchrec",
            code=ReasonCode.RECORDINGS_UNREADABLE,
        )
    return Library(directory)


def accessed(config: Config, sid: str, action: str) -> None:
    """The audit log has it before anything is shown; what cannot be audited is not shown.

    Where there is no log at all (recordings that were taken elsewhere) none is begun: it would be
    whoever asks who owned it, and the service could not write to it. Raises WriteFailed.
    """
    from conchrec.audit.events import RecordingAccess
    from conchrec.audit.open import audit_once

    entry = library_of(config).find(sid)
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


def moment(written: str) -> datetime:
    """An argument that is a time: see ``catalogue.moment``."""
    try:
        return listing.moment(written)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def dump(value: object, out: TextIO) -> None:
    out.write(json.dumps(value, indent=1).replace("\x7f", "\\u007f") + "\n")


def no_such(sid: str, errors: TextIO) -> int:
    print(f"conchrec: no recording {escape(sid)}", file=errors)
    return NOT_FOUND
