"""Opens the audit log as the configuration says: the file, and a copy to syslog."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from conchrec.audit.events import AuditEvent
from conchrec.audit.heads import NAME, AuditHeadFile
from conchrec.audit.log import AuditLog
from conchrec.config.model import Config
from conchrec.errors import ConfigError, WriteFailed
from conchrec.keys import open_signer
from conchrec.reasons import ReasonCode
from conchrec.recording.format.signatures import RecordingSigner

#: RFC 3164 section 4.1.1.
_AUTHPRIV = 10
_SEVERITIES = {"I": 6, "W": 4, "E": 3}


def open_log(
    config: Config,
    *,
    signer: RecordingSigner | None = None,
    dropped: Callable[[str], None] = lambda why: None,
    complain: Callable[[str], None] = lambda why: None,
) -> AuditLog:
    """``signer`` signs the chain: else the key of the state directory, which is made where it is missing.
    ``dropped`` hears why syslog does not take events, ``complain`` why heads are not kept.

    Raises WriteFailed.
    """
    path = config.audit.syslog
    copy = Syslog(path, dropped=dropped).send if path is not None else None
    return AuditLog(
        config.audit.file,
        signer=signer or _signer(config),
        heads=AuditHeadFile(config.state_dir / NAME),
        copy=copy,
        complain=complain,
    )


def audit_once(
    config: Config, *events: AuditEvent, dropped: Callable[[str], None] = lambda why: None
) -> None:
    """For a command: a chain of its own with these events. Raises WriteFailed."""
    log = open_log(config, dropped=dropped)
    try:
        for event in events:
            log.emit(event)
    finally:
        log.close()


def _signer(config: Config) -> RecordingSigner:
    try:
        return open_signer(config.state_dir, make=True)[0]
    except ConfigError as error:
        raise WriteFailed(
            "the audit log cannot be signed", str(error), code=ReasonCode.AUDIT_SIGNING_FAILED
        ) from error
    except OSError as error:
        detail = f"{error.filename}: {error.strerror}"
        raise WriteFailed(
            "the audit log cannot be signed", detail, code=ReasonCode.AUDIT_SIGNING_FAILED
        ) from error


class Syslog:
    """Sends every event to the syslog of this machine (RFC 3164), facility authpriv, as JSON.

    A second copy, out of reach of whoever changes the first: the file is the one that counts, and what
    syslog does not take at once is dropped rather than waited for. ``dropped`` hears of the first one, and
    again after some were taken.
    """

    def __init__(self, path: Path, *, dropped: Callable[[str], None]) -> None:
        self._path = path
        self._dropped = dropped
        self._well = True
        self._socket: socket.socket | None = None

    def send(self, event: AuditEvent, entry: bytes) -> None:
        """``entry`` is the event's line. Never raises, and never blocks."""
        priority = _AUTHPRIV * 8 + _SEVERITIES.get(event.code[-1:], 6)
        message = b"<%d>conchrec[%d]: %s" % (priority, os.getpid(), entry.rstrip(b"\n"))
        try:
            if self._socket is None:
                self._socket = self._connect()
            self._socket.send(message, socket.MSG_DONTWAIT)
        except OSError:
            # The daemon may have been started again since.
            self.close()
            try:
                self._socket = self._connect()
                self._socket.send(message, socket.MSG_DONTWAIT)
            except OSError as error:
                if self._well:
                    self._dropped(f"{self._path}: {error.strerror}")
                self._well = False
                return
        self._well = True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            one.connect(str(self._path))
        except OSError:
            one.close()
            raise
        return one
