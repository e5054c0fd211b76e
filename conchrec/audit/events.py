"""The catalogue of audit events.

An event is a frozen value with a name and a code. Neither ever changes its meaning, and no field does. A new
auditable fact is a new class in this module: ``CATALOGUE`` has all of them. ``audit.encoder`` writes an event
as a JSON line, and ``audit.log`` appends the line to the file.

The docstring of an event says when it is written, and what its fields are. The reference of audit events in
the documentation is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, TypedDict


class Who(TypedDict):
    """The fields that say who and where, as keyword arguments of any event."""

    user: str
    login: str
    target: str
    addr: str
    cid: str
    sid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """The fields of every event: ``user`` is the name at the proxy, ``login`` the account at the target,
    ``target`` its host and port, ``addr`` the user's address and port, ``cid`` the user's connection, and
    ``sid`` the session. A field is empty where it is unknown or does not apply."""

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
    """Written when a user has logged in to the proxy, and again for the login of each connection to a target.

    ``stage`` is ``outer`` for the login to the proxy and ``inner`` for that of a connection to a target.
    ``method`` is the method of SSH (``publickey``, ``password``), and ``key`` and ``certificate`` are
    fingerprints. ``second_factor`` is what was asked for in addition. ``client`` is the identification string
    of the user's program.
    """

    event = "user.login"
    code = "CR1000I"
    method: str
    key: str = ""
    certificate: str = ""
    roles: tuple[str, ...] = ()
    client: str = ""
    stage: str = "outer"
    second_factor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthRefused(AuditEvent):
    """Written when the proxy refuses a login.

    ``stage`` is ``outer`` for the login to the proxy and ``inner`` for that of a connection to a target.
    ``method`` is the method of SSH.
    """

    event = "auth"
    code = "CR1001W"
    reason: str
    method: str = ""
    stage: str = "outer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDisconnect(AuditEvent):
    """Written when the connection of a user who was logged in has ended, after ``duration`` seconds."""

    event = "client.disconnect"
    code = "CR1002I"
    reason: str = ""
    duration: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRefused(AuditEvent):
    """Written when a limit refuses new connections from one address, before any login.

    ``count`` is the number of such connections from ``addr`` since the event before.
    """

    event = "connection.refused"
    code = "CR1003W"
    reason: str
    count: int


# -- a session channel


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart(AuditEvent):
    """Written before a shell, a command or a subsystem is started at the target.

    ``kind`` is ``shell``, ``exec`` or ``subsystem``; it is ``none`` where the session ended before any start.
    ``recording`` is the path of the recording, and ``head`` the head of the ledger of recordings that has a
    line for it. ``term``, ``columns`` and ``rows`` are there for a session with a terminal. The other fields
    are those of ``provenance`` in the manifest: how the target was reached and trusted (``dialled``,
    ``host_key``, ``trust``, ``target_method``, ``target_key``), how the user logged in (``proxy_address``,
    ``method``, ``key``, ``certificate``, ``second_factor``), and who approved it (``request``,
    ``approved_by``, ``approval_reason``, ``approval_note``).
    """

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
    """Written when a session has ended, and its recording is on the disk.

    ``duration`` is in seconds; ``stdout``, ``stderr`` and ``stdin`` are in bytes. ``stdin_sha256``,
    ``stdout_sha256`` and ``digest`` (of the recording's cast) are SHA-256 in hexadecimal. ``head`` is the
    head of the ledger of recordings after the line that completes this one: ``recordings verify --head``
    takes it.
    """

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
    """Written when the policy, a limit or the target refuses a session, or when the proxy refuses a
    connection to a target or a command.

    ``rule`` names the role, the option or the limit that decided; ``target`` where the target refused the
    start.
    """

    event = "session.rejected"
    code = "CR2002W"
    reason: str
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsDelayed(AuditEvent):
    """Written when a user opens sessions faster than the limit allows, once a minute for each user.

    ``seconds`` is how long this session waits.
    """

    event = "session.delayed"
    code = "CR2003W"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec(AuditEvent):
    """Written before a command is started at the target.

    ``tty`` says whether there is a terminal. ``forced_upon`` is the command that the user requested, where
    the ``force-command`` of the certificate replaces it by ``command``. ``bytes_sha256`` is the SHA-256 of
    the command's bytes, where ``command`` is cut or has bytes that are not UTF-8 (they are written as
    ``\\xNN``).
    """

    event = "exec"
    code = "CR2010I"
    command: str
    tty: bool = False
    forced_upon: str = ""
    bytes_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsystem(AuditEvent):
    """Written before the subsystem ``name`` (``sftp``, for example) is started at the target."""

    event = "subsystem"
    code = "CR2011I"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(AuditEvent):
    """Written when the user's terminal has a new size, in ``columns`` and ``rows`` of characters."""

    event = "resize"
    code = "CR2012I"
    columns: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(AuditEvent):
    """Written when the user requests an environment variable.

    The recording's header has the value. ``size`` is in bytes, and ``sha256`` the digest of the value.
    """

    event = "env"
    code = "CR2013I"
    name: str
    size: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(AuditEvent):
    """Written when the user sends a signal or a break.

    ``name`` is the signal without ``SIG`` (``TERM``), or ``BREAK``.
    """

    event = "signal"
    code = "CR2014I"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownRequest(AuditEvent):
    """Written when a request arrives that conchrec does not know. It is relayed unread, or refused where a
    role has ``unknown_requests: no``.

    ``request`` is its name, ``scope`` is ``channel`` or ``global``, and ``sender`` is ``user`` or ``target``.
    ``size`` and ``sha256`` are of the bytes after the name.
    """

    event = "request.unknown"
    code = "CR2015I"
    request: str
    size: int
    scope: str = "channel"
    sender: str = "user"
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(AuditEvent):
    """Written when a message of the SSH protocol is not relayed, because the other end would ignore it or
    because it is not allowed at that point.

    ``message`` is its name, ``sender`` is ``user`` or ``target``, and ``size`` and ``sha256`` are of its
    bytes. A ``count`` of more than 1 repeats the first such event for all messages of the channel.
    """

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
    """Written when a file was read from the target or written to it by SFTP, or when something else was
    changed there.

    ``operation`` is ``read``, ``write``, ``remove``, ``rename``, ``setstat`` …; ``path`` is the path as the
    client wrote it, ``other`` the second path. ``detail`` has flags and attributes. ``size`` is the number of
    bytes that were transferred. ``sha256`` is there where the file was transferred completely and in order;
    else ``unhashed`` says why not. ``result`` is ``ok`` or the error, and ``duration`` is in seconds.
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
    """Written when a file was read from the target or written to it by the protocol of scp.

    ``operation`` is ``read``, ``write`` or ``directory``. ``name`` is what the sender calls the file, and
    ``path`` where it is at the target, as far as that can be known. The other fields are those of ``sftp``.
    """

    event = "scp"
    code = "CR2021I"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(AuditEvent):
    """Written when a program that transfers files has ended, whose protocol conchrec does not follow.

    ``program`` is ``rsync``, ``git-upload-pack``, ``git-receive-pack`` or ``git-upload-archive``. ``sent``
    went to the target and ``received`` came from it, in bytes of the protocol.
    """

    event = "transfer"
    code = "CR2022I"
    program: str
    sent: int
    received: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLost(AuditEvent):
    """Written when the protocol of a file transfer cannot be followed any further: later files have no event.

    ``program`` is ``sftp`` or ``scp``.
    """

    event = "transfer.lost"
    code = "CR2023W"
    program: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughStart(AuditEvent):
    """Written when a connection to a target begins that is relayed without being read.

    ``mode`` is ``node`` or ``off``, as in ``session_recording``.
    """

    event = "passthrough.start"
    code = "CR2100I"
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughEnd(AuditEvent):
    """Written when a connection has ended that was relayed without being read.

    ``sent`` went to the target and ``received`` came from it, in bytes. ``duration`` is in seconds.
    """

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
    """Written when a forward is opened, closed, refused, requested or cancelled.

    ``kind`` is ``direct``, ``remote``, ``forwarded``, ``streamlocal-direct``, ``streamlocal-remote`` …;
    ``action`` is ``open``, ``close``, ``listen``, ``cancel``, ``refused`` or ``nested_ssh`` (the forward
    carries SSH, and what is done in it is not recorded). ``destination`` and ``origin`` are addresses or
    paths. ``sent`` went to the target and ``received`` came from it, in bytes; ``duration`` is in seconds.
    ``rule`` names what refused it.
    """

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
    """Written when X11 forwarding is requested or refused, and when an X11 channel is opened or closed.

    ``action`` is ``request``, ``refused``, ``open`` or ``close``. ``sent`` went to the target and
    ``received`` came from it, in bytes. ``rule`` names what refused it.
    """

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
    """Written when the user's SSH agent is announced, opened, used or refused.

    ``action`` is ``announced``, ``opened``, ``signed``, ``relayed`` or ``refused``. ``path`` says how the
    agent is reached: ``outer`` and ``inner`` for the two connections of the user, ``onward`` for the agent
    that is forwarded to the target.
    """

    event = "agent"
    code = "CR3002I"
    action: str
    path: str = ""
    reason: str = ""


# -- the target


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConnect(AuditEvent):
    """Written when the proxy has logged in at the target.

    ``address`` is the IP address and port, ``method`` the accepted methods of login, ``key`` the credential,
    ``host_key`` a fingerprint, and ``trust`` the reason why the host key was accepted. ``server`` is the
    identification string of the target. ``weak`` has those of the ``algorithms`` that only a rule with
    ``algorithms: legacy`` allows.
    """

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
    """Written when the target could not be reached, was not trusted, rejected the login, or failed later.

    ``detail`` has what the target or the operating system said.
    """

    event = "upstream.failed"
    code = "CR4001E"
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeyUnchecked(AuditEvent):
    """Written when a host key was accepted that nothing vouches for, because ``proxy_checks_host_keys`` is
    ``no``.

    ``host_key`` is a fingerprint.
    """

    event = "hostkey.unchecked"
    code = "CR4002W"
    host_key: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertCreate(AuditEvent):
    """Written before a certificate is given out that a CA of conchrec has signed.

    ``type`` is ``user`` or ``host``, ``valid_until`` is a time in RFC 3339, ``key`` the fingerprint of the
    certified key, and ``purpose`` who or what the certificate is for.
    """

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
    """Written when a step of the rotation of a CA is done.

    ``type`` is ``user`` or ``host``, ``phase`` is the step, and ``signs`` and ``trusted`` are fingerprints of
    keys.
    """

    event = "ca.rotate"
    code = "CR5001I"
    type: str
    phase: str
    signs: str
    trusted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRevoke(AuditEvent):
    """Written when a certificate, a key or a user is revoked, or a revocation is taken back (``undo``).

    ``what`` is ``serial``, ``key id``, ``key`` or ``user``, and ``name`` its value.
    """

    event = "ca.revoke"
    code = "CR5002W"
    what: str
    name: str
    undo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCreate(AuditEvent):
    """Written when an administrator locks a user, a target, a login or a session.

    ``kind`` is ``user``, ``target``, ``login`` or ``session``. ``until`` is a time in RFC 3339, or empty
    where the lock has no end. ``by`` is the account of the administrator and ``sudo_user`` the one behind
    sudo. A lock of an address that was made together with a lock of a target names that target in ``of``.
    """

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
    """Written when an administrator removes a lock. The fields are those of ``lock.create``."""

    event = "lock.remove"
    code = "CR5004I"
    kind: str
    name: str
    by: str
    sudo_user: str = ""


# -- approval


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest(AuditEvent):
    """Written when a user requests approval for a login at a target.

    ``request`` is the id of the request, and ``approvers`` are the roles that may approve it.
    """

    event = "access.request"
    code = "CR7000I"
    request: str
    reason: str
    approvers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessApprove(AuditEvent):
    """Written when somebody approves a request.

    ``by`` is the approver, and ``addr`` their address; ``user`` is the one who made the request.
    """

    event = "access.approve"
    code = "CR7001I"
    request: str
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDeny(AuditEvent):
    """Written when somebody denies a request.

    ``by`` is the one who denied it, and ``addr`` their address; ``user`` is the one who made the request.
    """

    event = "access.deny"
    code = "CR7002W"
    request: str
    by: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessWithdraw(AuditEvent):
    """Written when a request ends without a decision: the user left, the time is over, or another role must
    approve."""

    event = "access.withdraw"
    code = "CR7003I"
    request: str
    reason: str


# -- recordings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFailed(AuditEvent):
    """Written when a session cannot be recorded, or not any more.

    ``policy`` says what follows: ``strict`` ends the session, and ``best_effort`` lets it continue.
    ``detail`` has the error of the operating system.
    """

    event = "recording.failed"
    code = "CR6000E"
    reason: str
    detail: str = ""
    policy: str = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRecovered(AuditEvent):
    """Written after a start, for each recording that an earlier process did not complete.

    ``status`` is the one of its new manifest, and ``head`` the head of the ledger with it. Where the
    recording could not be completed, ``problem`` says why.
    """

    event = "recording.recovered"
    code = "CR6001W"
    status: str = ""
    recording: str = ""
    problem: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingAccess(AuditEvent):
    """Written before somebody reads a recording.

    ``action`` is ``play``, ``text``, ``follow``, ``export`` or ``search`` (which showed lines of it). ``by``
    is the account on the proxy's machine, with ``sudo_user`` behind sudo, or the user who did it over SSH,
    from ``addr`` in the connection ``cid``. ``user``, ``login``, ``target`` and ``sid`` are those of the
    recorded session.
    """

    event = "session.recording.access"
    code = "CR6002I"
    action: str
    by: str
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRemoved(AuditEvent):
    """Written before a recording is removed.

    ``by`` is the account on the proxy's machine, or ``conchrec`` for the retention of the service. ``reason``
    is also in the ledger.
    """

    event = "session.recording.remove"
    code = "CR6003W"
    by: str
    reason: str
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHeld(AuditEvent):
    """Written before a recording is held, so that it must not be removed, or released.

    ``action`` is ``hold`` or ``release``, and ``by`` the account on the proxy's machine.
    """

    event = "session.recording.hold"
    code = "CR6004I"
    action: str
    by: str
    reason: str = ""
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceTampered(AuditEvent):
    """Written when the ledger of recordings was cut, replaced or changed by something other than conchrec.

    ``ledger`` is its path. The ledger should contain the head ``expected``; it was continued after the head
    ``found``. ``head`` is the head of the new line that says so, and empty where that line could not be
    written.
    """

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
    """Written as a signed line of the audit log: see docs/audit.md.

    ``reason`` is ``open``, ``interval``, ``rotated``, ``continue``, ``truncated`` or ``close``, and ``head``
    the SHA-256 of the chain before this line. An opening line also has ``pid``; in ``after`` the last heads
    of other chains; and in ``adopted_size`` and ``adopted_sha256`` the contents of the file before there was
    any chain.
    """

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
    """Written when the last line of the audit log was incomplete, because of a crash or a full disk.

    ``size`` and ``sha256`` are of that line, without a newline.
    """

    event = "audit.repair"
    code = "CR9101W"
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLost(AuditEvent):
    """Written when the audit log can be written again, after events were lost.

    ``count`` is their number; ``events`` are their names, each with its count. ``first`` and ``last`` are
    times in RFC 3339.
    """

    event = "audit.lost"
    code = "CR9102E"
    count: int
    events: tuple[str, ...]
    first: str
    last: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated(AuditEvent):
    """Written in place of events that were more frequent than their rate, every ten seconds and at the end of
    the connection.

    ``of`` is the name of the events, ``count`` their number, and ``first`` and ``last`` are times in RFC
    3339. ``size`` is the sum of their sizes, ``sha256`` the digest of their digests (each with a newline),
    and ``examples`` are some of them.
    """

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
    """Written when the free space of a file system that conchrec writes to has crossed a limit.

    ``state`` is ``low`` (no new recorded sessions), ``critical`` (live ones end) or ``ok``. ``what`` says
    what is stored there. ``free`` and ``least`` (the configured limit) are in bytes.
    """

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
    """Written when the service has started.

    ``mode`` is ``session_recording``, and ``listen`` are the endpoints.
    """

    event = "service.start"
    code = "CR9000I"
    version: str
    mode: str
    listen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStop(AuditEvent):
    """Written when the service stops.

    ``ledger`` is the path of the ledger of recordings, and ``head`` its last head.
    """

    event = "service.stop"
    code = "CR9001I"
    reason: str = ""
    ledger: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReload(AuditEvent):
    """Written when the configuration was read again.

    ``result`` is ``ok``, or ``failed``: then nothing has changed, and ``problems`` says why. ``changed`` are
    the settings that changed; those in ``waiting`` take effect at the next start.
    """

    event = "config.reload"
    code = "CR9002I"
    result: str
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


CATALOGUE: tuple[type[AuditEvent], ...] = tuple(
    value
    for value in globals().copy().values()
    if isinstance(value, type) and issubclass(value, AuditEvent) and value is not AuditEvent
)
"""All events of this module, in its order."""


class AuditSink(Protocol):
    """Takes audit events."""

    def emit(self, event: AuditEvent) -> None:
        """Keep the event. Raises WriteFailed."""

    def reopen(self) -> None:
        """Write later events to a new file, where the sink has one. Raises WriteFailed."""
