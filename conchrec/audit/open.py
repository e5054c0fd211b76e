"""Opens the audit log as configured: the file, and a copy to syslog."""

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

#: Facility and severities of RFC 3164, section 4.1.1.
_AUTHPRIV = 10
_SEVERITIES = {"I": 6, "W": 4, "E": 3}


def open_log(
    config: Config,
    *,
    signer: RecordingSigner | None = None,
    dropped: Callable[[str], None] = lambda why: None,
    complain: Callable[[str], None] = lambda why: None,
) -> AuditLog:
    """Open the configured audit log. Raises WriteFailed.

    ``signer`` signs the chain; by default this is the key of the state directory, which is created where it
    is missing. ``dropped`` is called with the reason when syslog does not accept events, and ``complain``
    when heads cannot be kept.
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
    """Write these events in a chain of their own: for a command. Raises WriteFailed."""
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

    A second copy, which somebody who changes the file cannot reach. The file is the one that counts: what
    syslog does not accept at once is dropped. ``dropped`` is called for the first event that is dropped, and
    again after others were accepted.
    """

    def __init__(self, path: Path, *, dropped: Callable[[str], None]) -> None:
        self._path = path
        self._dropped = dropped
        self._is_up = True
        self._socket: socket.socket | None = None

    def send(self, event: AuditEvent, entry: bytes) -> None:
        """Send the line ``entry`` of an event. Never raises, and never blocks."""
        priority = _AUTHPRIV * 8 + _SEVERITIES.get(event.code[-1:], 6)
        message = b"<%d>conchrec[%d]: %s" % (priority, os.getpid(), entry.rstrip(b"\n"))
        try:
            if self._socket is None:
                self._socket = self._connect()
            self._socket.send(message, socket.MSG_DONTWAIT)
        except OSError:
            # The daemon may have been restarted.
            self.close()
            try:
                self._socket = self._connect()
                self._socket.send(message, socket.MSG_DONTWAIT)
            except OSError as error:
                if self._is_up:
                    self._dropped(f"{self._path}: {error.strerror}")
                self._is_up = False
                return
        self._is_up = True

    def close(self) -> None:
        """Close the socket. The next ``send`` opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection
