"""The catalogue of audit events.

An event is a frozen value with a name and a code. Neither ever changes its meaning, and no field does. A new
auditable fact is a new class in this module: ``CATALOGUE`` has all of them. ``audit.encoder`` writes an event
as a JSON line, and ``audit.log`` appends the line to the file.

A code is ``CR``, four digits and the level: I (information), W (warning: something was refused, or needs
attention) or E (error: something was not done). The first digit is the group: 1 the user's connection, 2 a
session, 3 forwards, 4 the target, 5 certificates, authorities and locks, 6 recordings, 7 approval, 9 the
service and the audit log. A new event gets the next number of its group.

The docstring of an event says when it is written; those below its fields say what they mean. The reference in
docs/reference/audit-events.md is made of them.
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
    """The fields of every event. A field is empty if it is unknown or does not apply."""

    event: ClassVar[str]
    code: ClassVar[str]

    user: str = ""
    """The user, as logged in at the proxy."""
    login: str = ""
    """The account at the target."""
    target: str = ""
    """The target: host and port."""
    addr: str = ""
    """The address and port of the user's client."""
    cid: str = ""
    """The ID of the user's connection to the proxy."""
    sid: str = ""
    """The ID of the session, which is also the name of its recording."""


# -- the user's connection


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLogin(AuditEvent):
    """Written when a user has logged in to the proxy, and again for the login of each connection to a target.
    """

    event = "user.login"
    code = "CR1000I"

    method: str
    """The SSH authentication method (`publickey`, `password` …)."""
    key: str = ""
    """The fingerprint of the key, or of the key in the certificate."""
    certificate: str = ""
    """The fingerprint of the certificate."""
    roles: tuple[str, ...] = ()
    """The user's roles."""
    client: str = ""
    """The identification string of the user's client."""
    stage: str = "outer"
    """`outer`: the login at the proxy; `inner`: the login at the target."""
    second_factor: str = ""
    """The second factor: `totp` (a code) or `sk` (the touch of a hardware key)."""
    algorithms: tuple[str, ...] = ()
    """The algorithms negotiated with the user's client: key exchange, host key, ciphers and MACs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthRefused(AuditEvent):
    """Written when the proxy refuses a login."""

    event = "auth"
    code = "CR1001W"

    reason: str
    """Why."""
    method: str = ""
    """The SSH authentication method."""
    stage: str = "outer"
    """`outer`: the login at the proxy; `inner`: the login at the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDisconnect(AuditEvent):
    """Written when the connection of a user who was logged in has ended, after ``duration`` seconds."""

    event = "client.disconnect"
    code = "CR1002I"

    reason: str = ""
    """Why."""
    duration: float | None = None
    """Seconds from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRefused(AuditEvent):
    """Written when a limit refuses new connections from one address, before any login."""

    event = "connection.refused"
    code = "CR1003W"

    reason: str
    """Which limit."""
    count: int
    """How many connections were refused since the last such event."""


# -- a session channel


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart(AuditEvent):
    """Written before a shell, a command or a subsystem is started at the target."""

    event = "session.start"
    code = "CR2000I"

    kind: str
    """`shell`, `exec` or `subsystem`; `none` if the session ended before any start."""
    recording: str = ""
    """The path of the recording."""
    head: str = ""
    """The head of the ledger of recordings, with the entry of this recording."""
    term: str = ""
    """The type of the terminal (`TERM`)."""
    columns: int | None = None
    """The width of the terminal."""
    rows: int | None = None
    """The height of the terminal."""
    roles: tuple[str, ...] = ()
    """The user's roles."""
    dialled: str = ""
    """The address and port of the target. This and the following fields are also in the manifest
    (`provenance`)."""
    host_key: str = ""
    """The fingerprint of the target's host key."""
    trust: str = ""
    """Why the host key was accepted."""
    target_method: str = ""
    """The authentication methods by which the proxy logged in at the target."""
    target_key: str = ""
    """The fingerprint of the key for that."""
    proxy_address: str = ""
    """The address and port of the proxy that the user connected to."""
    method: str = ""
    """How the user logged in at the proxy."""
    key: str = ""
    """The fingerprint of the key for that."""
    certificate: str = ""
    """The key ID and serial number of the certificate for that."""
    second_factor: str = ""
    """The second factor: `totp` or `sk`."""
    request: str = ""
    """The ID of the approval request."""
    approved_by: str = ""
    """Who approved the access."""
    approval_reason: str = ""
    """The user's reason for the request."""
    approval_note: str = ""
    """The approver's note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd(AuditEvent):
    """Written when a session has ended, and its recording is on the disk."""

    event = "session.end"
    code = "CR2001I"

    duration: float
    """Seconds from its start."""
    kind: str = ""
    """`shell`, `exec` or `subsystem`."""
    stdout: int | None = None
    """Bytes of output."""
    stderr: int | None = None
    """Bytes of error output."""
    stdin: int | None = None
    """Bytes of input."""
    stdin_sha256: str = ""
    """SHA-256 of the input."""
    stdout_sha256: str = ""
    """SHA-256 of the output."""
    exit_status: int | None = None
    """The exit status."""
    exit_signal: str = ""
    """The signal that ended the process."""
    recording: str = ""
    """The path of the recording."""
    digest: str = ""
    """SHA-256 of the recording's cast."""
    head: str = ""
    """The head of the ledger of recordings after the line that completes this recording (for `conchrec
    recordings verify --head`)."""
    reason: str = ""
    """Why it ended, if the proxy ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRejected(AuditEvent):
    """Written when the policy, a limit or the target refuses a session, or when the proxy refuses a
    connection to a target or a command."""

    event = "session.rejected"
    code = "CR2002W"

    reason: str
    """Why."""
    rule: str = ""
    """The role, option or limit that decided, with its line in the configuration; `target` if the target
    refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsDelayed(AuditEvent):
    """Written when a user opens sessions faster than the limit allows, once a minute for each user."""

    event = "session.delayed"
    code = "CR2003W"

    seconds: float
    """How long this session has to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec(AuditEvent):
    """Written before a command is started at the target."""

    event = "exec"
    code = "CR2010I"

    command: str
    """The command."""
    tty: bool = False
    """Whether the session has a terminal."""
    forced_upon: str = ""
    """What the user requested, if the user's certificate prescribes the command (`force-command`)."""
    bytes_sha256: str = ""
    """SHA-256 of the command's bytes, if `command` is cut or contains escapes for bytes that are not UTF-8.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsystem(AuditEvent):
    """Written before the subsystem ``name`` (``sftp``, for example) is started at the target."""

    event = "subsystem"
    code = "CR2011I"

    name: str
    """The name of the subsystem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(AuditEvent):
    """Written when the user's terminal has a new size, in ``columns`` and ``rows`` of characters."""

    event = "resize"
    code = "CR2012I"

    columns: int
    """The width."""
    rows: int
    """The height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(AuditEvent):
    """Written when the user requests an environment variable."""

    event = "env"
    code = "CR2013I"

    name: str
    """The name of the variable."""
    size: int | None = None
    """The size of the value, in bytes."""
    sha256: str = ""
    """SHA-256 of the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(AuditEvent):
    """Written when the user sends a signal or a break."""

    event = "signal"
    code = "CR2014I"

    name: str
    """The signal without `SIG` (`TERM`), or `BREAK`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownRequest(AuditEvent):
    """Written when a request arrives that conchrec does not know. It is relayed unread, or refused where a
    role has ``unknown_requests: no``."""

    event = "request.unknown"
    code = "CR2015I"

    request: str
    """The name of the request."""
    size: int
    """The size of its data, in bytes."""
    scope: str = "channel"
    """`channel` or `global`."""
    sender: str = "user"
    """`user` or `target`."""
    sha256: str = ""
    """SHA-256 of its data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(AuditEvent):
    """Written when a message of the SSH protocol is not relayed, because the other end would ignore it or
    because it is not allowed at that point."""

    event = "message.dropped"
    code = "CR2016W"

    message: str
    """The name of the message."""
    reason: str
    """Why."""
    size: int
    """Its size, in bytes."""
    sha256: str
    """SHA-256 of its bytes."""
    sender: str = "user"
    """`user` or `target`."""
    count: int = 1
    """How many such messages of the channel this event stands for. The first has an event of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sftp(AuditEvent):
    """Written when a file was read from the target or written to it by SFTP, or when something else was
    changed there."""

    event = "sftp"
    code = "CR2020I"

    operation: str
    """`read`, `write`, `remove`, `rename`, `setstat` …"""
    path: str
    """The path, as the client wrote it."""
    result: str
    """`ok`, or how it failed."""
    other: str = ""
    """The second path, of a `rename` for example."""
    name: str = ""
    """The name of the file as the sender says it (scp)."""
    detail: str = ""
    """Flags, mode and other attributes of the request."""
    size: int | None = None
    """The transferred bytes."""
    sha256: str = ""
    """SHA-256 of the file, if it was transferred as a whole and in order."""
    unhashed: str = ""
    """Why there is no `sha256`."""
    duration: float | None = None
    """Seconds."""


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
    """Written when a program that transfers files has ended, whose protocol conchrec does not follow."""

    event = "transfer"
    code = "CR2022I"

    program: str
    """`rsync`, `git-upload-pack`, `git-receive-pack` or `git-upload-archive`."""
    sent: int
    """Bytes of its protocol to the target."""
    received: int
    """Bytes of its protocol from the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLost(AuditEvent):
    """Written when the protocol of a file transfer cannot be followed any further: later files have no event.
    """

    event = "transfer.lost"
    code = "CR2023W"

    program: str
    """`sftp` or `scp`."""
    reason: str
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughStart(AuditEvent):
    """Written when a connection to a target begins that is relayed without being read."""

    event = "passthrough.start"
    code = "CR2100I"

    mode: str
    """`node` or `off`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughEnd(AuditEvent):
    """Written when a connection has ended that was relayed without being read."""

    event = "passthrough.end"
    code = "CR2101I"

    mode: str
    """`node` or `off`."""
    sent: int
    """Bytes to the target."""
    received: int
    """Bytes from the target."""
    duration: float
    """Seconds."""
    reason: str = ""
    """Why it ended."""


# -- forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(AuditEvent):
    """Written when a forward is opened, closed, refused, requested or cancelled."""

    event = "port"
    code = "CR3000I"

    kind: str
    """`direct`, `remote`, `forwarded`, `streamlocal-direct`, `streamlocal-remote` …"""
    action: str
    """`request`, `listen`, `open`, `close`, `cancel`, `refused`; `nested_ssh`: it begins as SSH does, and
    what happens in it is not recorded."""
    destination: str = ""
    """Where it leads to: host and port, or the path of a socket."""
    origin: str = ""
    """Where it comes from."""
    sent: int | None = None
    """Bytes to the target."""
    received: int | None = None
    """Bytes from the target."""
    duration: float | None = None
    """Seconds."""
    reason: str = ""
    """Why it was refused or ended."""
    rule: str = ""
    """The setting that refused it, with its line in the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X11Forward(AuditEvent):
    """Written when X11 forwarding is requested or refused, and when an X11 channel is opened or closed."""

    event = "x11-forward"
    code = "CR3001I"

    action: str
    """`request`, `open`, `close` or `refused`."""
    origin: str = ""
    """Where it comes from."""
    sent: int | None = None
    """Bytes to the target."""
    received: int | None = None
    """Bytes from the target."""
    reason: str = ""
    """Why it was refused or ended."""
    rule: str = ""
    """The setting that refused it, with its line in the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(AuditEvent):
    """Written when the user's SSH agent is announced, opened, used or refused."""

    event = "agent"
    code = "CR3002I"

    action: str
    """`announced`, `opened`, `signed`, `relayed` or `refused`."""
    path: str = ""
    """`outer`: forwarded to the proxy; `inner`: forwarded through the connection to the target; `onward`:
    forwarded to the target."""
    reason: str = ""
    """Why it was refused."""


# -- the target


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConnect(AuditEvent):
    """Written when the proxy has logged in at the target."""

    event = "upstream.connect"
    code = "CR4000I"

    address: str = ""
    """The address and port of the target."""
    method: str = ""
    """The authentication methods that the target accepted."""
    key: str = ""
    """The credential for that."""
    host_key: str = ""
    """The fingerprint of the target's host key."""
    trust: str = ""
    """Why the host key was accepted."""
    server: str = ""
    """The identification string of the target."""
    algorithms: tuple[str, ...] = ()
    """The negotiated algorithms: key exchange, host key, ciphers and MACs."""
    weak: tuple[str, ...] = ()
    """Those of them that only `algorithms: legacy` allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFailed(AuditEvent):
    """Written when the target could not be reached, was not trusted, rejected the login, or failed later."""

    event = "upstream.failed"
    code = "CR4001E"

    reason: str
    """Why."""
    detail: str = ""
    """What the target or the operating system said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeyUnchecked(AuditEvent):
    """Written when a host key was accepted that nothing vouches for, because ``proxy_checks_host_keys`` is
    ``no``."""

    event = "hostkey.unchecked"
    code = "CR4002W"

    host_key: str
    """The fingerprint of the host key."""
    reason: str = ""
    """Why it would have been rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertCreate(AuditEvent):
    """Written before a certificate is given out that a CA of conchrec has signed."""

    event = "cert.create"
    code = "CR5000I"

    type: str
    """`user` or `host`."""
    key_id: str
    """The key ID."""
    serial: str
    """The serial number, as text: it has up to 19 digits, and many programs round such numbers."""
    principals: tuple[str, ...]
    """The principals."""
    valid_until: str
    """The end of its validity (RFC 3339)."""
    key: str = ""
    """The fingerprint of the certified key."""
    purpose: str = ""
    """Who or what the certificate is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRotate(AuditEvent):
    """Written when a step of the rotation of a CA is done."""

    event = "ca.rotate"
    code = "CR5001I"

    type: str
    """`user` or `host`."""
    phase: str
    """The step: `init`, `update`, `finish` or `rollback`."""
    signs: str
    """The fingerprint of the key that signs from now on."""
    trusted: tuple[str, ...]
    """The fingerprints of the keys that are trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRevoke(AuditEvent):
    """Written when a certificate, a key or a user is revoked, or a revocation is taken back (``undo``)."""

    event = "ca.revoke"
    code = "CR5002W"

    what: str
    """`serial`, `key id`, `key` or `user`."""
    name: str
    """What was revoked."""
    undo: bool = False
    """Whether a revocation was undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCreate(AuditEvent):
    """Written when an administrator locks a user, a target, a login or a session."""

    event = "lock.create"
    code = "CR5003W"

    kind: str
    """`user`, `target`, `login` or `session`."""
    name: str
    """What is locked."""
    by: str
    """The account on the proxy's machine that created it."""
    until: str = ""
    """When it ends (RFC 3339). Empty: when it is removed."""
    reason: str = ""
    """The administrator's reason."""
    of: str = ""
    """The target whose address is locked, if it was locked by its name."""
    sudo_user: str = ""
    """The user behind sudo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRemove(AuditEvent):
    """Written when an administrator removes a lock. The fields are those of ``lock.create``."""

    event = "lock.remove"
    code = "CR5004I"

    kind: str
    """`user`, `target`, `login` or `session`."""
    name: str
    """What was locked."""
    by: str
    """The account on the proxy's machine that removed it."""
    sudo_user: str = ""
    """The user behind sudo."""


# -- approval


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest(AuditEvent):
    """Written when a user requests approval for a login at a target."""

    event = "access.request"
    code = "CR7000I"

    request: str
    """The ID of the request."""
    reason: str
    """The user's reason."""
    approvers: str
    """The roles that can approve it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessApprove(AuditEvent):
    """Written when somebody approves a request."""

    event = "access.approve"
    code = "CR7001I"

    request: str
    """The ID of the request."""
    by: str
    """The approver."""
    note: str = ""
    """The approver's note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDeny(AuditEvent):
    """Written when somebody denies a request."""

    event = "access.deny"
    code = "CR7002W"

    request: str
    """The ID of the request."""
    by: str
    """The approver."""
    note: str = ""
    """The approver's note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessWithdraw(AuditEvent):
    """Written when a request ends without a decision: its connection ended, the time is over, or another role
    must approve."""

    event = "access.withdraw"
    code = "CR7003I"

    request: str
    """The ID of the request."""
    reason: str
    """Why: the user has gone, or the time is over."""


# -- recordings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFailed(AuditEvent):
    """Written when a session cannot be recorded, or not any more."""

    event = "recording.failed"
    code = "CR6000E"

    reason: str
    """Why."""
    detail: str = ""
    """The error of the operating system."""
    policy: str = "strict"
    """`strict`: the session does not start, or ends; `best_effort`: it goes on unrecorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRecovered(AuditEvent):
    """Written after a start, for each recording that an earlier process did not complete."""

    event = "recording.recovered"
    code = "CR6001W"

    status: str = ""
    """The status in its new manifest."""
    recording: str = ""
    """The path of the recording."""
    problem: str = ""
    """Why it could not be completed."""
    head: str = ""
    """The head of the ledger of recordings with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingAccess(AuditEvent):
    """Written before somebody reads a recording."""

    event = "session.recording.access"
    code = "CR6002I"

    action: str
    """`play`, `text`, `follow`, `export`, or `search` (which showed lines of it)."""
    by: str
    """The reader: a user of the proxy, or an account on the proxy's machine."""
    sudo_user: str = ""
    """The user behind sudo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRemoved(AuditEvent):
    """Written before a recording is removed."""

    event = "session.recording.remove"
    code = "CR6003W"

    by: str
    """The account on the proxy's machine, or `conchrec` for the retention of the service."""
    reason: str
    """Why. The ledger has it, too."""
    sudo_user: str = ""
    """The user behind sudo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHeld(AuditEvent):
    """Written before a recording is held, so that it must not be removed, or released."""

    event = "session.recording.hold"
    code = "CR6004I"

    action: str
    """`hold` or `release`."""
    by: str
    """The account on the proxy's machine."""
    reason: str = ""
    """The account's reason."""
    sudo_user: str = ""
    """The user behind sudo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceTampered(AuditEvent):
    """Written when the ledger of recordings was cut, replaced or changed by something other than conchrec."""

    event = "evidence.tampered"
    code = "CR6005E"

    ledger: str
    """The path of the ledger."""
    reason: str
    """What is wrong."""
    expected: str
    """The head that the ledger has to contain."""
    found: str
    """The head from which it was continued."""
    head: str = ""
    """The head after the line that says so. Empty: that line could not be written."""


# -- the audit log itself


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead(AuditEvent):
    """Written as a signed line of the audit log: see docs/audit.md."""

    event = "audit.head"
    code = "CR9100I"

    reason: str
    """`open`, `interval`, `rotated`, `continue`, `truncated` or `close`."""
    head: str
    """SHA-256 of the chain before this line."""
    pid: int | None = None
    """The process that writes the chain."""
    after: tuple[str, ...] = ()
    """In the first line of a chain: the last heads of other chains."""
    adopted_size: int | None = None
    """The size of the file before it had any chain, in bytes."""
    adopted_sha256: str = ""
    """SHA-256 of the file before it had any chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRepair(AuditEvent):
    """Written when the last line of the audit log was incomplete, because of a crash or a full disk."""

    event = "audit.repair"
    code = "CR9101W"

    size: int
    """The size of the incomplete line, in bytes."""
    sha256: str
    """SHA-256 of the incomplete line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLost(AuditEvent):
    """Written when the audit log can be written again, after events were lost."""

    event = "audit.lost"
    code = "CR9102E"

    count: int
    """How many."""
    events: tuple[str, ...]
    """Their names, each with its count."""
    first: str
    """The time of the first (RFC 3339)."""
    last: str
    """The time of the last (RFC 3339)."""
    reason: str = ""
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated(AuditEvent):
    """Written in place of events that were more frequent than their rate, every ten seconds and at the end of
    the connection."""

    event = "repeated"
    code = "CR9103W"

    of: str
    """The name of the events."""
    count: int
    """How many."""
    first: str
    """The time of the first (RFC 3339)."""
    last: str
    """The time of the last (RFC 3339)."""
    size: int | None = None
    """The sum of their sizes."""
    sha256: str = ""
    """SHA-256 of their digests, each with a newline."""
    examples: tuple[str, ...] = ()
    """Fields of some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLow(AuditEvent):
    """Written when the free space of a file system that conchrec writes to has crossed a limit."""

    event = "disk.low"
    code = "CR9104E"

    what: str
    """What is written there."""
    path: str
    """A path in the file system."""
    state: str
    """`low`: no session starts that must be recorded; `critical`: such sessions end; `ok`: there is enough
    space again."""
    free: int
    """The free space, in bytes."""
    least: int
    """The limit (`min_free`), in bytes."""


# -- the service


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStart(AuditEvent):
    """Written when the service has started."""

    event = "service.start"
    code = "CR9000I"

    version: str
    """The version of conchrec."""
    mode: str
    """The value of `session_recording`."""
    listen: tuple[str, ...] = ()
    """The endpoints it listens on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStop(AuditEvent):
    """Written when the service stops."""

    event = "service.stop"
    code = "CR9001I"

    reason: str = ""
    """Why."""
    ledger: str = ""
    """The path of the ledger of recordings."""
    head: str = ""
    """The head of the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReload(AuditEvent):
    """Written when the configuration was read again."""

    event = "config.reload"
    code = "CR9002I"

    result: str
    """`ok`, or `failed`: the running configuration stays in effect."""
    changed: tuple[str, ...] = ()
    """The settings that have changed."""
    waiting: tuple[str, ...] = ()
    """Those of them that take effect at the next start."""
    problems: tuple[str, ...] = ()
    """Why it failed."""


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
