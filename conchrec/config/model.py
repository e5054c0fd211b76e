"""What a configuration is: frozen values that mirror the keys of ``config.yaml``, with their defaults.

``conchrec.config.loader`` reads them from YAML. Whoever needs one gets it handed in.
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
from conchrec.access.policy import Policy, Role
from conchrec.config.fields import SIZE, WAITS_FOR_START
from conchrec.model import Target
from conchrec.recording.format.settings import Fsync, InputPolicy

#: The longest name that DNS allows.
MAX_HOST = 255
_HOST = re.compile(r"[A-Za-z0-9_:.-]+")


class Mode(Enum):
    """``session_recording``."""

    PROXY = "proxy"
    """Terminate and record."""
    PROXY_SYNC = "proxy-sync"
    """The same, and on disk before it is forwarded."""
    NODE = "node"
    """Pass through; the host records."""
    OFF = "off"
    """Pass through."""

    @property
    def records(self) -> bool:
        return self in (Mode.PROXY, Mode.PROXY_SYNC)


class UpstreamAuth(Enum):
    """A way to log in at a target."""

    AGENT = "agent"
    CERTIFICATE = "certificate"
    PROMPT = "prompt"
    """The target's own questions, answered by the user in the inner login."""


class AgentProbe(Enum):
    """When an agent that was not announced is asked for."""

    LAST = "last"
    """Only when the login would otherwise fail."""
    ALWAYS = "always"
    NEVER = "never"


class InnerAuth(Enum):
    """What the inner login has to prove."""

    KEY = "key"
    """A key of the same user again."""
    TUNNEL = "tunnel"
    """Nothing: the outer login is enough."""


class Offer(Enum):
    """The algorithms that users are offered."""

    MODERN = "modern"
    COMPATIBLE = "compatible"


class TargetOffer(Enum):
    """The algorithms that a target is offered."""

    MODERN = "modern"
    COMPATIBLE = "compatible"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedHosts:
    """Besides certificates of our own host CA. ``authorities`` are wire blobs of public keys."""

    known_hosts: tuple[Path, ...] = ()
    authorities: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredUser:
    """Without keys and password: nobody, unless with a certificate of our user CA. ``password`` is a bcrypt
    hash, ``totp`` the secret of the codes that are asked for besides; both empty where there are none. The
    grants of some ``roles`` end (``ends``). ``line`` of the file (0: in none)."""

    name: str
    keys: tuple[AuthorizedKey, ...] = ()
    roles: tuple[str, ...] = ()
    ends: Mapping[str, datetime] = field(default_factory=dict)
    password: bytes = field(default=b"", repr=False)
    totp: bytes = field(default=b"", repr=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """A group of targets, and what is different at them; None: as everywhere. Found by ``rule_for``.

    ``address`` is dialled in the place of what the name resolves to (empty: that), ``port`` where the user
    asked for 22. ``record`` counts where it is stricter than the role's.
    """

    name: str
    hosts: tuple[HostPattern, ...] = ()
    address: tuple[str, ...] = ()
    port: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    algorithms: TargetOffer | None = None
    upstream_auth: tuple[UpstreamAuth, ...] | None = None
    known_hosts: tuple[Path, ...] = ()
    check_host_keys: bool | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Startups:
    """As sshd's ``MaxStartups``: from ``begin`` on ``rate`` percent are dropped, more and more of them until,
    from ``full`` on, all are."""

    begin: int = 300
    rate: int = 30
    full: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``connections`` are those of users, in all. ``channels`` counts in one, ``sessions_per_user`` and
    ``commands`` (of the proxy itself) in all of a user. Bandwidth is in bytes a second; 0: no limit.

    ``per_address`` and ``unauthenticated`` count connections of users; ``connect_timeout`` is all
    the time that a target has, from the first try to the end of the key exchange. A user or a target that
    says nothing for ``keepalive_interval`` is asked, and given up after ``keepalive_count_max`` questions
    without an answer; with 0 never. Nobody waits for an approval for longer than ``approval_time``."""

    login_time: timedelta = timedelta(minutes=2)
    tries: int = field(default=6, metadata={"most": 1000})
    unauthenticated: Startups = Startups()
    connections: int = 5000
    handshake_time: timedelta = timedelta(seconds=30)
    channels: int = 1024
    sessions_per_user: int = 1000
    commands: int = 16
    bandwidth_per_user: int = field(default=0, metadata=SIZE)
    bandwidth_per_target: int = field(default=0, metadata=SIZE)
    per_address: int = 250
    target_handshakes: int = 8
    connect_timeout: timedelta = timedelta(seconds=30)
    keepalive_interval: timedelta = timedelta(minutes=5)
    keepalive_count_max: int = field(default=3, metadata={"least": 0})
    approval_time: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What goes: what is older than ``age``, and the oldest while all are more than ``size`` bytes. None and
    0: nothing does."""

    age: timedelta | None = None
    size: int = field(default=0, metadata=SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """``min_free`` is in bytes; ``encrypt_to`` are the texts of public keys: ``age1…`` or an SSH key."""

    directory: Path = field(metadata=WAITS_FOR_START)
    input: InputPolicy = field(default=InputPolicy.NO, metadata=WAITS_FOR_START)
    min_free: int = field(default=500 * 1024 * 1024, metadata={**SIZE, **WAITS_FOR_START})
    fsync: Fsync = field(default=Fsync.INTERVAL, metadata=WAITS_FOR_START)
    compress: bool = field(default=False, metadata=WAITS_FOR_START)
    encrypt_to: tuple[str, ...] = field(default=(), metadata=WAITS_FOR_START)
    retention: Retention = field(default_factory=lambda: Retention())


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Server endpoints; none: nothing listens."""

    listen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """``syslog`` is a socket that takes every event, too; None: there is none. ``min_free`` is in bytes, of
    the file systems of the log and of the state directory."""

    file: Path
    syslog: Path | None = None
    min_free: int = field(default=100 * 1024 * 1024, metadata=SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the file says, defaults filled in; all paths absolute.

    ``public_address`` is empty where it was not given; ``ca_agent``, the socket of the agent that holds the
    keys of our authorities, too. ``warnings`` are for the log and for
    ``config check``: whole lines.
    """

    file: Path = field(metadata=WAITS_FOR_START)
    cluster_name: str = field(metadata=WAITS_FOR_START)
    state_dir: Path = field(metadata=WAITS_FOR_START)
    ca_agent: str = field(metadata=WAITS_FOR_START)
    listen: tuple[str, ...] = field(metadata=WAITS_FOR_START)
    public_address: str = field(metadata=WAITS_FOR_START)
    session_recording: Mode
    proxy_checks_host_keys: bool
    trusted_hosts: TrustedHosts
    upstream_auth: tuple[UpstreamAuth, ...]
    agent_probe: AgentProbe
    inner_auth: InnerAuth
    notice: str
    users: Mapping[str, ConfiguredUser]
    roles: Mapping[str, Role]
    targets: tuple[TargetRule, ...]
    algorithms: Offer
    limits: Limits
    proxy_protocol_from: tuple[IPNetwork, ...] = field(metadata=WAITS_FOR_START)
    recordings: Recordings
    audit: Audit = field(metadata=WAITS_FOR_START)
    web: Web = field(metadata=WAITS_FOR_START)
    warnings: tuple[str, ...]

    @property
    def policy(self) -> Policy:
        """Without locks, which are not in the file."""
        ends = {(user.name, role): end for user in self.users.values() for role, end in user.ends.items()}
        return Policy(roles=self.roles, ends=ends)

    @property
    def public(self) -> Target | None:
        """``public_address`` as a value; None where it was not given."""
        return host_and_port(self.public_address) if self.public_address else None


def host_and_port(text: str) -> Target | None:
    """``host``, ``host:port``, ``[v6]:port`` or ``v6``; 22 is the port where there is none."""
    host, port = text, "22"
    if bracketed := re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]+))?", text):
        host, port = bracketed[1], bracketed[2] or "22"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not _HOST.fullmatch(host) or not is_port(port):
        return None
    return Target(host=host.lower(), port=int(port))


def named_target(host: str, port: str) -> Target | None:
    """A target as a user names it: a name or an address, in brackets or not, with a dot at the end or not.
    None where it is invalid."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host.isascii() or not 0 < len(bare) <= MAX_HOST:
        return None
    found = host_and_port(f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}")
    return None if found is None else Target(host=found.host.rstrip(".") or found.host, port=found.port)


def is_port(text: str, *, least: int = 1) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and least <= int(text) < 65536
