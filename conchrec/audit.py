"""The catalogue of audit events, and the file that they go to.

An event is a frozen value with a name and a code that never change their meaning. It becomes one
JSON object on one line: ``time``, ``event``, ``code``, who and where, then what is its own. Whoever
adds an auditable fact adds a class here; the sink knows none of them by name.

Much of what is audited was chosen by somebody else (names, commands, reasons of a target). Every
control, direction and invisible character in it is written as a JSON escape, so that ``tail -f`` is
safe and a line is a line.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar, Protocol, TypedDict

from conchrec.errors import WriteFailed
from conchrec.model import SessionInfo
from conchrec.ownership import create


class Who(TypedDict):
    """Who and where, as keyword arguments of any event."""

    user: str
    login: str
    target: str
    addr: str
    cid: str
    sid: str


def of_session(info: SessionInfo) -> Who:
    """``SessionEnd(**of_session(info), ...)``: the subject of a session's events."""
    return Who(
        user=info.user,
        login=info.login,
        target=str(info.target),
        addr=info.address,
        cid=info.cid,
        sid=info.sid,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What every event says: the user of the outer login, the login at the target, the target, the
    user's address and port, the connection and (where there is one) the session. Empty where unknown."""

    event: ClassVar[str]
    code: ClassVar[str]

    user: str = ""
    login: str = ""
    target: str = ""
    addr: str = ""
    cid: str = ""
    sid: str = ""


# -- the user's connection


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLogin(AuditEvent):
    """A user has proved who they are, to the proxy. ``key`` is a fingerprint, ``stage`` outer or inner,
    ``second_factor`` what was asked besides the password."""

    event = "user.login"
    code = "CR1000I"
    method: str
    key: str = ""
    certificate: str = ""
    serial: int | None = None
    roles: tuple[str, ...] = ()
    client: str = ""
    stage: str = "outer"
    second_factor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthRefused(AuditEvent):
    """A login that was refused, by the proxy."""

    event = "auth"
    code = "CR1001W"
    reason: str
    method: str = ""
    key: str = ""
    client: str = ""
    stage: str = "outer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDisconnect(AuditEvent):
    """The user's connection has ended. ``duration`` is in seconds."""

    event = "client.disconnect"
    code = "CR1002I"
    reason: str = ""
    duration: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRefused(AuditEvent):
    """Connections from ``addr`` that a limit did not let in: ``count`` of them since the last such event."""

    event = "connection.refused"
    code = "CR1003W"
    reason: str
    count: int


# -- a session channel


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart(AuditEvent):
    """Something runs at the target. ``kind`` is shell, exec or subsystem; ``recording`` a path; ``head``
    that of the ledger of recordings, with this one in it; ``approved_by`` somebody, if that was needed."""

    event = "session.start"
    code = "CR2000I"
    kind: str
    recording: str = ""
    head: str = ""
    term: str = ""
    columns: int | None = None
    rows: int | None = None
    roles: tuple[str, ...] = ()
    approved_by: str = ""
    request: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd(AuditEvent):
    """It has ended. Streams in bytes, ``duration`` in seconds, digests SHA-256 in hexadecimal; ``head`` is
    that of the ledger of recordings (``recordings verify --head``)."""

    event = "session.end"
    code = "CR2001I"
    duration: float
    kind: str = ""
    stdout: int | None = None
    stderr: int | None = None
    stdin: int | None = None
    stdin_sha256: str = ""
    exit_status: int | None = None
    exit_signal: str = ""
    recording: str = ""
    digest: str = ""
    head: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRejected(AuditEvent):
    """The policy, or a limit, does not allow it."""

    event = "session.rejected"
    code = "CR2002W"
    reason: str
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec(AuditEvent):
    """A command is to be run. ``accepted`` is the target's answer, where it is known; ``forced_upon`` what
    was asked for, where the user's certificate says what runs (``force-command``)."""

    event = "exec"
    code = "CR2010I"
    command: str
    tty: bool = False
    accepted: bool | None = None
    forced_upon: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsystem(AuditEvent):
    event = "subsystem"
    code = "CR2011I"
    name: str
    accepted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(AuditEvent):
    event = "resize"
    code = "CR2012I"
    columns: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(AuditEvent):
    """A variable is set. Its value may be a secret and is not written down."""

    event = "env"
    code = "CR2013I"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(AuditEvent):
    """The user sends a signal (``TERM``), or a break (``BREAK``)."""

    event = "signal"
    code = "CR2014I"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownRequest(AuditEvent):
    """A request that conchrec does not know was relayed unread. ``scope`` is channel or global."""

    event = "request.unknown"
    code = "CR2015I"
    request: str
    size: int
    scope: str = "channel"
    sender: str = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sftp(AuditEvent):
    """A file was read from the target or written to it, by SFTP, or something else was changed there.

    ``operation``: read, write, remove, rename, setstat …; ``path`` as the client wrote it, ``other`` the
    second path. ``size`` are the bytes that passed, ``sha256`` is there where the file passed whole and in
    order, else ``unhashed`` says why not. ``result`` is ok or how it failed, ``duration`` in seconds.
    """

    event = "sftp"
    code = "CR2020I"
    operation: str
    path: str
    result: str
    other: str = ""
    name: str = ""
    detail: str = ""
    size: int | None = None
    sha256: str = ""
    unhashed: str = ""
    duration: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scp(Sftp):
    """The same by the old protocol of scp. ``operation``: read, write or directory; ``name`` is what the
    sender calls the file, ``path`` where it is at the target, as far as that can be known."""

    event = "scp"
    code = "CR2021I"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(AuditEvent):
    """A program that moves files has ended: ``sent`` went to the target, ``received`` came from it, in bytes
    of its protocol. ``program``: rsync, git-upload-pack, git-receive-pack, git-upload-archive."""

    event = "transfer"
    code = "CR2022I"
    program: str
    sent: int
    received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLost(AuditEvent):
    """The protocol of a transfer could not be followed any further: what came after is not accounted for.
    ``program`` is sftp or scp."""

    event = "transfer.lost"
    code = "CR2023W"
    program: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughStart(AuditEvent):
    """Bytes go to the target unread, because the configuration says so (``mode``: node or off)."""

    event = "passthrough.start"
    code = "CR2100I"
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughEnd(AuditEvent):
    """``sent`` went to the target and ``received`` came from it, in bytes."""

    event = "passthrough.end"
    code = "CR2101I"
    mode: str
    sent: int
    received: int
    duration: float
    reason: str = ""


# -- forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(AuditEvent):
    """A forward. ``kind``: direct, remote, forwarded, streamlocal-direct, streamlocal-remote …;
    ``action``: open, close, listen, cancel, refused, nested_ssh: it begins as SSH does, and what is done in
    there is not recorded. ``sent`` went to the target."""

    event = "port"
    code = "CR3000I"
    kind: str
    action: str
    destination: str = ""
    origin: str = ""
    sent: int | None = None
    received: int | None = None
    duration: float | None = None
    reason: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class X11Forward(AuditEvent):
    """``action``: request, open, close, refused."""

    event = "x11-forward"
    code = "CR3001I"
    action: str
    origin: str = ""
    sent: int | None = None
    received: int | None = None
    reason: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(AuditEvent):
    """The user's agent. ``action``: announced, opened, signed, relayed, refused; ``path``: outer,
    inner, onward; ``key`` the fingerprint of the key that signed."""

    event = "agent"
    code = "CR3002I"
    action: str
    path: str = ""
    key: str = ""
    reason: str = ""


# -- the target


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConnect(AuditEvent):
    """Logged in at the target. ``address`` is where it was found; ``trust`` says why its key was
    accepted; ``method`` which credential it took; ``weak`` are those of the ``algorithms`` that only a
    rule with ``algorithms: legacy`` allows."""

    event = "upstream.connect"
    code = "CR4000I"
    address: str = ""
    method: str = ""
    key: str = ""
    host_key: str = ""
    trust: str = ""
    server: str = ""
    algorithms: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFailed(AuditEvent):
    """The target could not be reached, was not trusted, or would not have us."""

    event = "upstream.failed"
    code = "CR4001E"
    reason: str
    detail: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeyUnchecked(AuditEvent):
    """A host key that nothing vouches for was accepted: ``proxy_checks_host_keys`` is ``no``."""

    event = "hostkey.unchecked"
    code = "CR4002W"
    host_key: str
    algorithm: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertCreate(AuditEvent):
    """A certificate was signed. ``type`` is user or host; ``valid_until`` RFC 3339."""

    event = "cert.create"
    code = "CR5000I"
    type: str
    key_id: str
    serial: int
    principals: tuple[str, ...]
    valid_until: str
    key: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRotate(AuditEvent):
    """A step of a rotation. ``type`` is user or host, ``phase`` the step; fingerprints of the keys."""

    event = "ca.rotate"
    code = "CR5001I"
    type: str
    phase: str
    signs: str
    trusted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRevoke(AuditEvent):
    """Something was revoked, or counts again (``undo``). ``what`` is serial, key id, key or user."""

    event = "ca.revoke"
    code = "CR5002W"
    what: str
    name: str
    undo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCreate(AuditEvent):
    """A lock: ``kind`` is user, target, login or session, ``until`` RFC 3339 (empty: until taken back). An
    address that was locked with a target's name says ``of`` which."""

    event = "lock.create"
    code = "CR5003W"
    kind: str
    name: str
    by: str
    until: str = ""
    reason: str = ""
    of: str = ""
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRemove(AuditEvent):
    """A lock was taken back."""

    event = "lock.remove"
    code = "CR5004I"
    kind: str
    name: str
    by: str
    sudo_user: str = ""


# -- approval


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest(AuditEvent):
    """A user asks for somebody's approval to be ``login`` at the target. ``approvers`` are roles."""

    event = "access.request"
    code = "CR7000I"
    request: str
    reason: str
    approvers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessApprove(AuditEvent):
    """``by`` approved it, from ``addr``; ``user`` is the one who asked."""

    event = "access.approve"
    code = "CR7001I"
    request: str
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDeny(AuditEvent):
    """``by`` denied it, from ``addr``."""

    event = "access.deny"
    code = "CR7002W"
    request: str
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessWithdraw(AuditEvent):
    """The user waits no longer, or has waited too long."""

    event = "access.withdraw"
    code = "CR7003I"
    request: str
    reason: str


# -- recordings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFailed(AuditEvent):
    """A session is not recorded. ``policy`` says what follows: strict ends it, best_effort does not."""

    event = "recording.failed"
    code = "CR6000E"
    reason: str
    detail: str = ""
    policy: str = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRecovered(AuditEvent):
    """A recording that an earlier process left behind was completed, or could not be (``problem``)."""

    event = "recording.recovered"
    code = "CR6001W"
    status: str = ""
    recording: str = ""
    problem: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingAccess(AuditEvent):
    """Somebody looked into a recording. ``action``: play, text, follow, export, search (which showed lines of
    it); ``by`` is the account of the machine that did, and ``sudo_user`` who it says that stands behind it;
    or the user who did it over ssh, from ``addr`` in the connection ``cid``. The rest is the session's."""

    event = "session.recording.access"
    code = "CR6002I"
    action: str
    by: str
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRemoved(AuditEvent):
    """A recording is removed, for ``reason``; ``by`` the account of the machine, or the service."""

    event = "session.recording.remove"
    code = "CR6003W"
    by: str
    reason: str
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHeld(AuditEvent):
    """A recording must not be removed (``action``: hold), or may be again (release)."""

    event = "session.recording.hold"
    code = "CR6004I"
    action: str
    by: str
    reason: str = ""
    sudo_user: str = ""


# -- the service


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStart(AuditEvent):
    event = "service.start"
    code = "CR9000I"
    version: str
    mode: str
    listen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStop(AuditEvent):
    event = "service.stop"
    code = "CR9001I"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReload(AuditEvent):
    """The configuration was read anew. ``result`` is ok, or failed: then nothing has changed, because of the
    ``problems``. ``changed`` are settings; those in ``waiting`` take effect at the next start."""

    event = "config.reload"
    code = "CR9002I"
    result: str
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


CATALOGUE: tuple[type[AuditEvent], ...] = (
    UserLogin,
    AuthRefused,
    ClientDisconnect,
    ConnectionRefused,
    SessionStart,
    SessionEnd,
    SessionRejected,
    Exec,
    Subsystem,
    Resize,
    Env,
    Signal,
    UnknownRequest,
    Sftp,
    Scp,
    Transfer,
    TransferLost,
    PassthroughStart,
    PassthroughEnd,
    Port,
    X11Forward,
    Agent,
    UpstreamConnect,
    UpstreamFailed,
    HostKeyUnchecked,
    CertCreate,
    CaRotate,
    CaRevoke,
    LockCreate,
    LockRemove,
    AccessRequest,
    AccessApprove,
    AccessDeny,
    AccessWithdraw,
    RecordingFailed,
    RecordingRecovered,
    RecordingAccess,
    RecordingRemoved,
    RecordingHeld,
    ServiceStart,
    ServiceStop,
    ConfigReload,
)
"""Every event that there is."""


class AuditSink(Protocol):
    """Where events go."""

    def emit(self, event: AuditEvent) -> None:
        """The event is kept afterwards. Raises WriteFailed."""

    def reopen(self) -> None:
        """What follows goes to a new file, where the sink has one. Raises WriteFailed."""


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


# All that is not visible, or that changes how what follows is shown: C0, DEL and C1, the separators,
# soft hyphen, zero-width and direction marks, interlinear marks, tags, and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff]"
)


def line(event: AuditEvent, when: datetime) -> bytes:
    """The event as it is written: one JSON object that ends in a newline."""
    values: dict[str, object] = {
        "time": when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event.event,
        "code": event.code,
    }
    for item in fields(event):
        value = getattr(event, item.name)
        if item.name in _ALWAYS or (value is not None and value != "" and value != ()):
            values[item.name] = value
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return _UNSAFE.sub(_escape, text).encode("utf-8") + b"\n"


_ALWAYS = frozenset({"user", "login", "target", "addr", "cid"})


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1] if match.group() != "\x7f" else "\\u007f"


class AuditLog:
    """An AuditSink in a file of JSON lines, made 0600; a directory that is missing is made 0700. ``copy``
    gets each event and its line, too.

    A line is one ``write`` to the end of the file, so several processes may share it. The file is
    opened anew by ``reopen`` (SIGHUP), and by itself within a second where logrotate has put another
    in its place. Raises WriteFailed where it can not be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        write: Callable[[int, bytes], int] = os.write,
        copy: Callable[[AuditEvent, bytes], None] | None = None,
    ) -> None:
        self.path = path
        self._copy = copy
        self._now = now
        self._monotonic = monotonic
        self._write = write
        self._torn = False
        self._looked = monotonic()
        self._descriptor = self._open()

    def emit(self, event: AuditEvent) -> None:
        """The event is with the operating system afterwards. Raises WriteFailed."""
        if self._monotonic() - self._looked >= 1:
            self._look()
        entry = line(event, self._now())
        if self._copy is not None:
            self._copy(event, entry)
        if self._torn:
            entry = b"\n" + entry
        try:
            written = self._write(self._descriptor, entry)
            while written < len(entry):
                self._torn = True
                count = self._write(self._descriptor, entry[written:])
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            raise _failed(error, self.path) from error
        self._torn = False

    def reopen(self) -> None:
        """Open the path anew. Raises WriteFailed, and then goes on with the file that it had."""
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Nothing can be emitted afterwards."""
        os.close(self._descriptor)

    def _look(self) -> None:
        """Was the file moved away, or replaced?"""
        ours = os.fstat(self._descriptor)
        try:
            there: os.stat_result | None = os.stat(self.path)
        except FileNotFoundError:
            there = None
        except OSError as error:
            raise _failed(error, self.path) from error
        if there is None or not os.path.samestat(ours, there):
            self.reopen()
        self._looked = self._monotonic()

    def _open(self) -> int:
        try:
            _make(self.path.parent)
            descriptor = self._existing()
        except OSError as error:
            raise _failed(error, self.path) from error
        try:
            size = os.fstat(descriptor).st_size
            # A line that was torn by a full disk or a crash must not swallow ours.
            self._torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        except OSError:
            self._torn = False  # a pipe or a terminal has no end to look at
        return descriptor

    def _existing(self) -> int:
        flags = os.O_RDWR | os.O_APPEND
        try:
            return create(self.path, flags)
        except FileExistsError:
            # A link that leads nowhere yet is made to lead somewhere.
            return os.open(self.path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


class AuditMemory:
    """An AuditSink in memory, for tests: ``events`` holds what was emitted, in order.

    ``broken`` set to an error makes every ``emit`` raise it.
    """

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.broken: WriteFailed | None = None

    def emit(self, event: AuditEvent) -> None:
        if self.broken is not None:
            raise self.broken
        self.events.append(event)

    def reopen(self) -> None:
        """There is no file."""


def _make(directory: Path) -> None:
    for missing in (*reversed(directory.parents), directory):
        if not missing.exists():
            try:
                os.mkdir(missing, 0o700)
            except FileExistsError:
                pass  # another process was quicker


def _failed(error: OSError, path: Path) -> WriteFailed:
    why = error.strerror or "the disk failed"
    return WriteFailed(f"the audit log can not be written: {why}", f"{path}: {error!r}")
