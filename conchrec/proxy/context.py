"""What all connections of one process share, handed in and never global."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakValueDictionary

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
from conchrec.model import Identity, Target
from conchrec.proxy.approvals import Approvals
from conchrec.proxy.dial.bandwidth import Bandwidth
from conchrec.proxy.dial.dialer import Dialer
from conchrec.proxy.held_bytes import UserWaiting
from conchrec.proxy.password_login import PasswordLogin
from conchrec.proxy.user_limits import SessionRate, TunnelMemory
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.storage.group_commit import InThread
from conchrec.recording.store import LocalStore
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.dh_helper import DiffieHellmanHelper
from conchrec.ssh.fair_turns import Turns
from conchrec.ssh.hostkeys import HostTrust

_log = Logger()

#: How long a target that would not have a certificate of our CA is not asked again.
REFUSED_LIFE = timedelta(minutes=5)
REFUSALS = 4096
#: Seconds between two events that sessions of one user wait.
DELAYS_TOLD = 60.0


class LiveConnection(Protocol):
    """A user's connection, as shutdown and ``status`` see it."""

    @property
    def identity(self) -> Identity: ...

    @property
    def session_count(self) -> int: ...

    @property
    def connection_count(self) -> int:
        """To targets."""

    @property
    def way_count(self) -> int:
        """Of ways to targets, those that may never lead to one among them."""

    def tell_and_end(self, text: str) -> None:
        """Say why in every session, then end it."""

    def drop(self) -> None:
        """End it, and say nothing."""

    def rejudge(self) -> None:
        """Something that allowed it has changed: what is not allowed any more ends."""

    def look(self, now: datetime) -> None:
        """The time has come to ``now``; what was allowed until then is judged again."""


class Refusals:
    """Targets that do not trust our user CA, remembered for some minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[Target, str], float] = OrderedDict()

    def note(self, target: Target, login: str) -> None:
        self._until[target, login] = self._clock.seconds() + REFUSED_LIFE.total_seconds()
        while len(self._until) > REFUSALS:
            self._until.popitem(last=False)

    def knows(self, target: Target, login: str) -> bool:
        return self._until.get((target, login), 0.0) > self._clock.seconds()


@dataclass(slots=True, kw_only=True)
class Site:
    """See the module. ``now`` is aware and in UTC."""

    config: Config
    #: Who may go where: that of ``config``, and what is locked.
    policy: Policy
    #: What our servers offer.
    algorithms: Algorithms
    authority: Authority
    credentials: Credentials
    store: LocalStore
    audit: AuditSink
    dialer: Dialer
    trust: Callable[[Target, Sequence[str]], HostTrust]
    clock: Clock
    now: Callable[[], datetime]
    #: The addresses of a host, for a user.
    resolve: Callable[[str, str], Deferred[tuple[str, ...]]]
    #: Runs what asks the authority for signatures: at once, or in a thread where they take long.
    signing: InThread
    #: Runs, in a thread, one step of what reads recordings for a user who looks at them.
    reading: Callable[[str, Callable[[], Any]], Deferred[Any]]
    started: datetime
    #: The names in the host certificate of the proxy itself.
    outer_names: tuple[str, ...]
    refusals: Refusals
    #: None where nobody has a password.
    passwords: PasswordLogin | None
    approvals: Approvals
    bandwidth: Bandwidth
    disks: Disks
    #: Who handles messages next.
    turns: Turns
    #: Computes finite-field Diffie-Hellman, in a process of its own.
    diffie_hellman: DiffieHellmanHelper
    #: The memory of tunnels, by user.
    rooms: TunnelMemory
    session_rate: SessionRate
    #: What waits in channels for their other end, by user; as long as a channel of the user is there.
    waiting: WeakValueDictionary[str, UserWaiting] = field(default_factory=WeakValueDictionary)
    live: set[LiveConnection] = field(default_factory=set)
    #: Recordings that are open, by session id, with the user's name.
    recorders: dict[str, SessionRecorder] = field(default_factory=dict)
    #: How many sessions each user has now.
    sessions: dict[str, int] = field(default_factory=dict)
    #: How many commands of the proxy run for each user.
    commands: dict[str, int] = field(default_factory=dict)
    #: When it was last said that sessions of a user wait.
    delays: dict[str, float] = field(default_factory=dict)
    #: No new connection and no new session: the service is being stopped.
    stopping: bool = False

    def emit(self, event: AuditEvent) -> None:
        """An event that belongs to no session, or ends one: that it is lost is said in the log."""
        try:
            self.audit.emit(event)
        except WriteFailed as error:
            _log.error("AUDIT EVENT LOST: {event}: {detail}", event=event.event, detail=error.detail)

    def waiting_of(self, user: str) -> UserWaiting:
        waiting = self.waiting.get(user)
        if waiting is None:
            waiting = self.waiting[user] = UserWaiting()
        return waiting

    def session_began(self, user: str) -> None:
        self.sessions[user] = self.sessions.get(user, 0) + 1

    def session_delayed(self, user: str, who: Who, seconds: float) -> None:
        """Audit that sessions of this user wait: once a minute for each user."""
        now = self.clock.seconds()
        said = self.delays.get(user)
        if said is None or now - said >= DELAYS_TOLD:
            if len(self.delays) >= REFUSALS:
                self.delays.clear()
            self.delays[user] = now
            self.emit(SessionsDelayed(**who, seconds=round(seconds, 3)))

    def session_over(self, user: str) -> None:
        left = self.sessions.get(user, 0) - 1
        if left > 0:
            self.sessions[user] = left
        else:
            self.sessions.pop(user, None)
