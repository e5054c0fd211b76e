"""The configuration as frozen values that mirror the keys of ``config.yaml``, with their defaults.

``conchrec.config.loader`` reads them from YAML. They are passed to the objects that need them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from conchrec.access.authorized_keys import AuthorizedKey
from conchrec.access.options import Record
from conchrec.access.patterns import HostPattern, IPNetwork
from conchrec.access.policy import Policy
from conchrec.access.role import Role
from conchrec.config.fields import SIZE, WAITS_FOR_START, written_as
from conchrec.model import MAX_PORT, Target, parse_host_and_port
from conchrec.recording.format.settings import Fsync, InputPolicy


class Mode(Enum):
    """What the proxy does with sessions (``session_recording``)."""

    PROXY = "proxy"
    """The proxy records. The recording is written through to the disk at least once a second."""
    PROXY_SYNC = "proxy-sync"
    """The proxy records, and each byte is on the disk before it is forwarded."""
    NODE = "node"
    """The proxy passes sessions through. They are recorded by the target, if at all."""
    OFF = "off"
    """The proxy passes sessions through. Nobody records."""

    @property
    def records(self) -> bool:
        """Whether the proxy records sessions."""
        return self in (Mode.PROXY, Mode.PROXY_SYNC)


class UpstreamAuth(Enum):
    """A method to log in at a target."""

    AGENT = "agent"
    """With the keys and certificates in the user's agent."""
    CERTIFICATE = "certificate"
    """With a certificate that the user CA signs for this one connection."""
    PROMPT = "prompt"
    """With the user's answers to the target's own questions, such as a password."""


class AgentProbe(Enum):
    """When to ask for an agent that the client has not announced."""

    LAST = "last"
    """If the login would otherwise fail."""
    ALWAYS = "always"
    """At each login."""
    NEVER = "never"
    """Never."""


class InnerAuth(Enum):
    """What the inner login has to prove."""

    KEY = "key"
    """A key of the same user."""
    TUNNEL = "tunnel"
    """Nothing: the outer login is enough."""


class Offer(Enum):
    """The algorithms that users are offered."""

    MODERN = "modern"
    """Algorithms that current clients prefer."""
    COMPATIBLE = "compatible"
    """Also those of older clients: NIST curves, finite-field Diffie-Hellman, encrypt-and-MAC."""


class TargetOffer(Enum):
    """The algorithms that a target is offered."""

    MODERN = "modern"
    """Algorithms that current servers prefer."""
    COMPATIBLE = "compatible"
    """Also those of older servers: NIST curves, finite-field Diffie-Hellman, encrypt-and-MAC."""
    LEGACY = "legacy"
    """Also SHA-1, CBC and DSA. The audit event `upstream.connect` names those that were used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedHosts:
    """Whose word counts for a target's host key, besides certificates of our own host CA."""

    known_hosts: tuple[Path, ...] = ()
    """Files in the format of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Lines with `@cert-authority` and
    `@revoked` are obeyed.

    Example: [/etc/ssh/ssh_known_hosts]
    """
    authorities: tuple[bytes, ...] = ()
    """Host CAs whose certificates are accepted for every target: public keys, or files of public keys.

    Example: [host_ca.pub]
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredUser:
    """A user. One without keys and password can only log in with a certificate of our user CA, whose key ID
    is the user's name.

    ``ends`` has the time at which the grant of a role ends. ``line`` is the line in the file; 0: in no file.
    """

    name: str
    keys: tuple[AuthorizedKey, ...] = field(
        default=(), metadata=written_as("authorized_keys_file", "authorized_keys")
    )
    """The public keys with which the user logs in. `authorized_keys_file` names a file or a list of files,
    which may contain `*`, `?` and `~`; `authorized_keys` is a list of lines. Of the options of such lines
    `from` and `expiry-time` are enforced; any other option is an error.

    Type: text, or list of texts
    Example: [joe.keys, "~joe/.ssh/*.pub"]
    """
    password: bytes = field(default=b"", repr=False)
    """The bcrypt hash of a password, as `conchrec passwd` prints it. Only the proxy may be able to read a
    configuration with passwords.

    Example: "$2b$12$abcdefghijklmnopqrstuuDu04JDDLyTdn41b/25JYYK7I0BwmU9a"
    """
    totp: bytes = field(default=b"", repr=False)
    """The secret of the user's authenticator app, as `conchrec passwd --totp` prints it. With a password,
    a code of the app is required at each login; without one, where a role says `require_mfa`.

    Example: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ
    """
    roles: tuple[str, ...] = ()
    """The names of the user's roles, each with the end of its grant if it has one.

    Example: [ops, "oncall until 2030-12-24 18:00 Europe/Berlin"]
    """
    ends: Mapping[str, datetime] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """A group of targets, and the settings that differ for them. The first group that matches a target
    counts. None means that the general setting counts."""

    name: str
    hosts: tuple[HostPattern, ...] = ()
    """The targets of this group.

    Example: ["db*.example.com", 10.0.7.0/24]
    """
    address: tuple[str, ...] = ()
    """The address, or the list of addresses, to connect to. The default is what the name resolves to.

    Type: text, or list of texts
    Example: 10.0.0.5
    """
    port: int | None = field(default=None, metadata={"most": MAX_PORT})
    """The port to connect to if the user names none, or names 22. The default is 22.

    Example: 2222
    """
    labels: Mapping[str, str] = field(default_factory=dict)
    """Words by which roles can name this group: `label:tier=data` in the `hosts` of a role.

    Example: {tier: data}
    """
    algorithms: TargetOffer | None = None
    """The algorithms that are offered to these targets. The default is `compatible`.

    Example: legacy
    """
    upstream_auth: tuple[UpstreamAuth, ...] | None = None
    """How to log in at these targets. The default is the general `upstream_auth`.

    Example: [prompt]
    """
    known_hosts: tuple[Path, ...] = ()
    """Files of known host keys for these targets, besides `trusted_hosts.known_hosts`.

    Example: [/etc/ssh/ssh_known_hosts]
    """
    check_host_keys: bool | None = None
    """Whether host keys are checked at these targets. The default is `proxy_checks_host_keys`.

    Example: yes
    """
    record: Record | None = None
    """What happens if a session at these targets cannot be recorded. The stricter of this and the role's
    `record` counts; the default is the role's.

    Example: strict
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Startups:
    """Three numbers, as in sshd's `MaxStartups`: from `begin` connections on, `rate` percent of new ones are
    dropped at random; the share grows until at `full` connections all new ones are dropped."""

    begin: int = 300
    rate: int = 30
    full: int = 500

    @classmethod
    def parse(cls, text: str) -> Startups:
        """Read ``300:30:500``, or ``500``, which means the same. Raises ValueError."""
        parts = text.split(":")
        if len(parts) not in (1, 3) or not all(re.fullmatch("[0-9]{1,6}", part) for part in parts):
            raise ValueError("must be a number, like 500, or BEGIN:PERCENT:FULL, like 300:30:500")
        numbers = [int(part) for part in parts]
        begin, rate, full = numbers if len(numbers) == 3 else (numbers[0] * 3 // 5, cls().rate, numbers[0])
        if not full:
            raise ValueError(f"{'the number' if len(numbers) == 1 else 'FULL'} must be greater than 0")
        if begin > full:
            raise ValueError("BEGIN must not be greater than FULL (BEGIN:PERCENT:FULL)")
        if not 1 <= rate <= 100:
            raise ValueError("PERCENT must be from 1 to 100 (BEGIN:PERCENT:FULL)")
        return cls(begin=begin, rate=rate, full=full)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is allowed at one time, and for how long. A bandwidth of 0 is no limit."""

    login_time: timedelta = timedelta(minutes=2)
    """How long a user may take to log in, from the end of the key exchange. Only the time in which the client
    has to answer counts."""
    tries: int = field(default=6, metadata={"most": 1000})
    """How many login attempts may fail in one connection."""
    unauthenticated: Startups = Startups()
    """How many connections may exist that have not logged in. `500` alone means `300:30:500`: 60 percent of
    the number, 30 percent, and the number."""
    connections: int = 5000
    """How many connections of users may exist in all."""
    handshake_time: timedelta = timedelta(seconds=30)
    """How long a connection may take from its start to the end of the key exchange."""
    channels: int = 1024
    """How many channels one connection may have."""
    sessions_per_user: int = 1000
    """How many sessions one user may have over all connections, and, counted separately, how many tunnels."""
    commands: int = 16
    """How many commands to the proxy (`play`, `follow` …) may run for one user."""
    bandwidth_per_user: int = field(default=0, metadata=SIZE)
    """Bytes per second for all connections of one user, both directions together; 0: no limit.

    Example: 50MiB
    """
    bandwidth_per_target: int = field(default=0, metadata=SIZE)
    """Bytes per second for all connections to one target, both directions together; 0: no limit.

    Example: 100MiB
    """
    per_address: int = 250
    """How many connections may come from one address."""
    target_handshakes: int = 8
    """How many key exchanges with one target may be in progress. sshd itself begins to drop connections at
    10 (`MaxStartups`)."""
    # The smallest packet has 28 bytes, so 32 GiB are less than 2**31 packets. ChaCha20 must not seal 2**32
    # packets with one key, and AES should not encrypt 2**32 blocks (RFC 4344 section 3.2).
    rekey_bytes: int = field(default=1 << 30, metadata={**SIZE, "least": 1 << 20, "most": 32 << 30})
    """The keys of a connection, with a user or a target, are renewed after this many bytes in both directions
    together; from 1MiB to 32GiB. Only after the login. Like the first value of sshd's `RekeyLimit`."""
    rekey_time: timedelta = timedelta(hours=1)
    """The keys of a connection, with a user or a target, are renewed at the latest after this time. Only
    after the login. Like the second value of sshd's `RekeyLimit`."""
    connect_timeout: timedelta = timedelta(seconds=30)
    """How long a connection to a target may take, from the first attempt to the end of the key exchange."""
    keepalive_interval: timedelta = timedelta(minutes=5)
    """After this time without data, a user's client or a target is asked whether it is still there."""
    keepalive_count_max: int = field(default=3, metadata={"least": 0})
    """After this many unanswered questions the connection is closed; 0: never."""
    approval_time: timedelta = timedelta(minutes=15)
    """How long a connection waits for an approval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which recordings are removed. Each removal leaves a tombstone, an entry in the ledger. None and 0:
    none are removed."""

    age: timedelta | None = None
    """Recordings that ended longer ago than this are removed.

    Example: 365d
    """
    size: int = field(default=0, metadata=SIZE)
    """While all recordings together are larger than this, the oldest are removed; 0: no limit.

    Example: 500GiB
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """How sessions are recorded, and for how long recordings are kept."""

    directory: Path = field(metadata=WAITS_FOR_START)
    """Where recordings are written.

    Example: /var/lib/conchrec/recordings
    """
    input: InputPolicy = field(default=InputPolicy.NO, metadata=WAITS_FOR_START)
    """Which part of a user's input is recorded. Counts and hashes of it are always kept."""
    min_free: int = field(default=500 * 1024 * 1024, metadata={**SIZE, **WAITS_FOR_START})
    """If the file system has less free space, no session starts that must be recorded. Below half of it such
    sessions end."""
    fsync: Fsync = field(default=Fsync.INTERVAL, metadata=WAITS_FOR_START)
    """When recordings are written through to the disk (fsync)."""
    compress: bool = field(default=False, metadata=WAITS_FOR_START)
    """Whether recordings are compressed (zstd) while they are written."""
    encrypt_to: tuple[str, ...] = field(default=(), metadata=WAITS_FOR_START)
    """Public keys of the people who may read recordings: age keys, or SSH keys (Ed25519 or RSA). If there are
    any, the proxy itself cannot read a recording after its end.

    Example: ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]
    """
    retention: Retention = field(default_factory=lambda: Retention())
    """Which recordings are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """The web server, which serves the public keys and the list of revoked keys."""

    listen: tuple[str, ...] = ()
    """Where the web server listens: Twisted server endpoints; by default nowhere.

    Example: ["tcp:3080:interface=127.0.0.1"]
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The audit log."""

    file: Path
    """The file of the audit log.

    Example: /var/log/conchrec/audit.jsonl
    """
    syslog: Path | None = None
    """Whether each event also goes to syslog: `no` (the default), `yes` (to /dev/log), or the path of a
    socket.

    Type: `no`, `yes` or a path
    Example: yes
    """
    min_free: int = field(default=100 * 1024 * 1024, metadata=SIZE)
    """If the file system of the audit log or of the state directory has less free space, no session starts
    that must be recorded. Below half of it such sessions end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the file says, with defaults filled in; all paths are absolute.

    ``public_address`` and ``ca_agent`` are empty if the file does not name them. ``warnings`` are whole lines
    for the log and for ``config check``.
    """

    file: Path = field(metadata=WAITS_FOR_START)
    cluster_name: str = field(metadata=WAITS_FOR_START)
    """The name of this proxy in the certificates that it signs.

    Example: example.com
    """
    state_dir: Path = field(metadata=WAITS_FOR_START)
    """The state directory: the keys of both certificate authorities, the host key, locks, revocations and
    more. It is created with mode 0700. Anyone who can read it can pose as any user and any host; back it up.

    Example: /var/lib/conchrec
    """
    ca_agent: str = field(metadata=WAITS_FOR_START)
    """The socket of an ssh-agent that holds the private keys of the certificate authorities, or
    `SSH_AUTH_SOCK` for the agent of the environment. `user_ca.pub` and `host_ca.pub` in the state directory
    say which keys of the agent are used. By default the keys are files in the state directory.

    Example: /run/conchrec-ca/agent.sock
    """
    listen: tuple[str, ...] = field(metadata=WAITS_FOR_START)
    """Where the proxy listens: Twisted server endpoints, such as `tcp:3023:interface=127.0.0.1`, `tcp6:3023`
    or `systemd:domain=INET:index=0`.

    Example: ["tcp:3023"]
    """
    public_address: str = field(metadata=WAITS_FOR_START)
    """The address that users connect to: for the output of `conchrec ssh-config`, and for the host
    certificate of the proxy.

    Example: proxy.example.com:3023
    """
    session_recording: Mode
    """Whether sessions are recorded here. If not, connections to targets pass through; the audit log has who,
    where and how long."""
    proxy_checks_host_keys: bool
    """Whether the host keys of targets are checked. With `no`, anyone between the proxy and a target can read
    and change sessions; each one is audited with a warning."""
    trusted_hosts: TrustedHosts
    """Whose word counts for a target's host key, besides certificates of our own host CA."""
    upstream_auth: tuple[UpstreamAuth, ...]
    """How to log in at targets: the methods to try, in this order. `prompt` can only be the last one."""
    agent_probe: AgentProbe
    """When to ask for the user's agent if the client has not announced one (`ssh -J` without `-A`)."""
    inner_auth: InnerAuth
    """What the user proves again in the login at the target. A user who logged in with a password proves
    nothing again."""
    notice: str
    """A text that users see at each login.

    Example: "Sessions are recorded."
    """
    users: Mapping[str, ConfiguredUser]
    """Who may log in. The name `{me}` stands for the account that runs conchrec.

    Example: {joe: {authorized_keys_file: joe.keys, roles: [ops]}}
    """
    roles: Mapping[str, Role]
    """Who may log in where, and do what there.

    Example: {ops: {logins: ["{user}"], hosts: ["*.example.com"]}}
    """
    targets: tuple[TargetRule, ...]
    """Groups of targets, by name, and the settings that differ for them.

    Example: {db: {hosts: ["db*.example.com"], labels: {tier: data}}}
    """
    algorithms: Offer
    """The algorithms that users are offered."""
    limits: Limits
    """How much is allowed at one time, and for how long."""
    proxy_protocol_from: tuple[IPNetwork, ...] = field(metadata=WAITS_FOR_START)
    """Load balancers whose PROXY header is believed: addresses and networks. Required for a `haproxy:`
    endpoint in `listen`.

    Example: [10.0.0.0/24]
    """
    recordings: Recordings
    """How sessions are recorded, and for how long recordings are kept."""
    audit: Audit = field(metadata=WAITS_FOR_START)
    """The audit log."""
    web: Web = field(metadata=WAITS_FOR_START)
    """The web server, which serves the public keys and the list of revoked keys."""
    warnings: tuple[str, ...]

    @property
    def policy(self) -> Policy:
        """The policy, without locks, which are not in the file."""
        ends = {(user.name, role): end for user in self.users.values() for role, end in user.ends.items()}
        return Policy(roles=self.roles, ends=ends)

    @property
    def public(self) -> Target | None:
        """``public_address`` as a value; None where it was not given."""
        return parse_host_and_port(self.public_address) if self.public_address else None
