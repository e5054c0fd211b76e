"""The catalogue of audit events.

An event is a frozen value with a name and a code that never change their meaning. A new auditable fact
is a new class here. ``audit_encoder`` writes an event as a JSON line, ``audit_log`` appends the line to
the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, TypedDict


class Who(TypedDict):
    """Who and where, as keyword arguments of any event."""

    user: str
    login: str
    target: str
    addr: str
    cid: str
    sid: str


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
    that of the ledger of recordings, with this one in it. The texts at the end are those of the manifest's
    ``provenance``."""

    event = "session.start"
    code = "CR2000I"
    kind: str
    recording: str = ""
    head: str = ""
    term: str = ""
    columns: int | None = None
    rows: int | None = None
    roles: tuple[str, ...] = ()
    dialled: str = ""
    host_key: str = ""
    trust: str = ""
    target_method: str = ""
    target_key: str = ""
    proxy_address: str = ""
    method: str = ""
    key: str = ""
    certificate: str = ""
    second_factor: str = ""
    request: str = ""
    approved_by: str = ""
    approval_reason: str = ""
    approval_note: str = ""


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
    stdout_sha256: str = ""
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
class SessionsDelayed(AuditEvent):
    """The user opens sessions faster than the limit: ``seconds`` is how long this one waits. Once a minute
    for each user."""

    event = "session.delayed"
    code = "CR2003W"
    seconds: float


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
    #: SHA-256 of the command's bytes where ``command`` is cut, or has bytes that are not UTF-8 as ``\\xNN``.
    bytes_sha256: str = ""


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
    """The user requests an environment variable. The recording's header has the value; here are its size in
    bytes and its SHA-256."""

    event = "env"
    code = "CR2013I"
    name: str
    size: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(AuditEvent):
    """The user sends a signal (``TERM``), or a break (``BREAK``)."""

    event = "signal"
    code = "CR2014I"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownRequest(AuditEvent):
    """A request that conchrec does not know was relayed unread, or refused where a role says
    ``unknown_requests: no``. ``scope`` is channel or global; ``size`` and ``sha256`` are of its bytes."""

    event = "request.unknown"
    code = "CR2015I"
    request: str
    size: int
    scope: str = "channel"
    sender: str = "user"
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(AuditEvent):
    """A part of the SSH protocol was not relayed, because the other end would ignore it or because it does
    not belong there. ``message`` names it, ``size`` and ``sha256`` are of the bytes. ``count`` is more than 1
    where this repeats for the whole channel what was said of the first one."""

    event = "message.dropped"
    code = "CR2016W"
    message: str
    reason: str
    size: int
    sha256: str
    sender: str = "user"
    count: int = 1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceTampered(AuditEvent):
    """The ledger of recordings does not continue what was known of it: it was cut, replaced or changed by
    something else than conchrec. It must contain the head ``expected``; it was continued from ``found``, by a
    line that says so and has the head ``head`` (empty: that line could not be written)."""

    event = "evidence.tampered"
    code = "CR6005E"
    ledger: str
    reason: str
    expected: str
    found: str
    head: str = ""


# -- the audit log itself


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead(AuditEvent):
    """A signed line of the audit log (docs/audit.md). ``reason``: open, interval, rotated, continue,
    truncated, close; ``head``: the SHA-256 of the chain before this line. In an opening line ``after`` are
    the last heads of other chains, and ``adopted_size`` and ``adopted_sha256`` what stood in the file before
    there was any chain."""

    event = "audit.head"
    code = "CR9100I"
    reason: str
    head: str
    pid: int | None = None
    after: tuple[str, ...] = ()
    adopted_size: int | None = None
    adopted_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRepair(AuditEvent):
    """The line before was incomplete (a crash, or a full disk) and was ended: ``size`` bytes with that
    digest, without the newline."""

    event = "audit.repair"
    code = "CR9101W"
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLost(AuditEvent):
    """``count`` events could not be written; ``events`` are their names, each with its count. ``first`` and
    ``last`` are RFC 3339."""

    event = "audit.lost"
    code = "CR9102E"
    count: int
    events: tuple[str, ...]
    first: str
    last: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated(AuditEvent):
    """``count`` more events named ``of`` between ``first`` and ``last`` (RFC 3339), beyond the rate at which
    each has a line of its own. ``size`` is the sum of their sizes, ``sha256`` the digest of their digests
    (each with a newline), ``examples`` are some of them."""

    event = "repeated"
    code = "CR9103W"
    of: str
    count: int
    first: str
    last: str
    size: int | None = None
    sha256: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLow(AuditEvent):
    """A file system that conchrec writes to is almost full (``state``: low), so full that live sessions end
    (critical), or has room again (ok). ``free`` and ``least`` are in bytes."""

    event = "disk.low"
    code = "CR9104E"
    what: str
    path: str
    state: str
    free: int
    least: int


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
    """``head`` is that of the ledger of recordings, whose file is ``ledger``."""

    event = "service.stop"
    code = "CR9001I"
    reason: str = ""
    ledger: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReload(AuditEvent):
    """The configuration was read again. ``result`` is ok, or failed: then nothing has changed, because of the
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
    SessionsDelayed,
    Exec,
    Subsystem,
    Resize,
    Env,
    Signal,
    UnknownRequest,
    MessageDropped,
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
    EvidenceTampered,
    AuditHead,
    AuditRepair,
    AuditLost,
    Repeated,
    DiskLow,
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
