"""The settings and services that all connections of one process share; passed in, never global."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from conchrec.access.credentials import Credentials
from conchrec.access.policy import Policy
from conchrec.audit.events import AuditEvent, AuditSink, SessionsDelayed, Who
from conchrec.ca.authority import Authority
from conchrec.clock import Clock
from conchrec.config.model import Config
from conchrec.disk_space import Disks
from conchrec.errors import WriteFailed
from conchrec.model import Target
from conchrec.proxy.approvals import Approvals
from conchrec.proxy.dial.bandwidth import Bandwidth
from conchrec.proxy.dial.dialer import Dialer
from conchrec.proxy.password_login import PasswordLogin
from conchrec.proxy.registry import Registry
from conchrec.proxy.session_rate import SessionRate
from conchrec.proxy.tunnel_memory import TunnelMemory
from conchrec.recording.store import LocalStore
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.host_key_check import HostTrust
from conchrec.ssh.kex_helper import KeyExchangeHelper
from conchrec.threads import InThread

_log = Logger()

#: For how long a target that rejected a certificate of our CA is offered no other one.
REJECTION_TIME = timedelta(minutes=5)
#: The most targets that are remembered.
REJECTIONS_MOST = 4096


class CertificateRejections:
    """Targets, each with a login, that rejected a certificate of our user CA in the last minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[Target, str], float] = OrderedDict()

    def add(self, target: Target, login: str) -> None:
        """Remember a target that rejected our certificate just now."""
        self._until[target, login] = self._clock.seconds() + REJECTION_TIME.total_seconds()
        while len(self._until) > REJECTIONS_MOST:
            self._until.popitem(last=False)

    def contains(self, target: Target, login: str) -> bool:
        """Whether the target rejected a certificate for this login in the last minutes."""
        return self._until.get((target, login), 0.0) > self._clock.seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration, and the objects that are made from it.

    A reload replaces all of it with one assignment. Do not keep a reference: read it from the ProxyContext
    each time.
    """

    config: Config
    #: Decides who may reach which target: the roles of ``config``, and the locks.
    policy: Policy
    #: The algorithms that our servers offer.
    algorithms: Algorithms
    credentials: Credentials
    #: None if no user has a password.
    passwords: PasswordLogin | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Objects that exist as long as the process, and facts about its start.

    ``now`` returns an aware time in UTC.
    """

    authority: Authority
    store: LocalStore
    audit: AuditSink
    dialer: Dialer
    trust: Callable[[Target, Sequence[str]], HostTrust]
    clock: Clock
    now: Callable[[], datetime]
    #: Returns the addresses of a host; the arguments are the user who needs them, and the host.
    resolve: Callable[[str, str], Deferred[tuple[str, ...]]]
    #: Runs a function that needs signatures of the authority: at once, or in a thread if they take long.
    signing: InThread
    #: Runs in a thread, for a user, one step of a function that reads recordings.
    reading: Callable[[str, Callable[[], Any]], Deferred[Any]]
    started: datetime
    #: The names in the host certificate of the proxy itself.
    outer_names: tuple[str, ...]
    certificate_rejections: CertificateRejections
    approvals: Approvals
    bandwidth: Bandwidth
    disks: Disks
    #: Decides whose messages are handled next.
    turns: TurnScheduler
    #: Computes finite-field Diffie-Hellman in another process.
    kex_helper: KeyExchangeHelper
    tunnel_memory: TunnelMemory
    session_rate: SessionRate


class ProxyContext:
    """The current settings, the services, and the registry of open connections. One in each process."""

    __slots__ = ("registry", "services", "settings")

    def __init__(self, settings: Settings, services: Services) -> None:
        #: Assigned by ``conchrec.service`` only.
        self.settings = settings
        self.services = services
        self.registry = Registry()

    def emit(self, event: AuditEvent) -> None:
        """Write an audit event that ends a session, or belongs to none. A failure is logged, not raised."""
        try:
            self.services.audit.emit(event)
        except WriteFailed as error:
            _log.error(
                "AUDIT EVENT LOST: cannot write {event}: {detail}", event=event.event, detail=error.detail
            )

    def session_delayed(self, user: str, who: Who, seconds: float) -> None:
        """Audit, once a minute for each user, that sessions of this user are delayed."""
        if self.services.session_rate.is_event_due(user):
            self.emit(SessionsDelayed(**who, seconds=round(seconds, 3)))
