"""``session_recording: node`` and ``off``: bytes go to the target untouched.

The client authenticates to the target itself; the audit says who went where, for how long, and how
much passed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from conchrec.access.options import Mfa
from conchrec.audit import events
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy import refusals
from conchrec.proxy.authorization import REQUIRE_MFA, check_steps, may_reach
from conchrec.proxy.relay.tunnel import OuterWindow, Tunnel
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.time_limits import LAST_WORDS_SECONDS, TimeLimits
from conchrec.reasons import Reason, ReasonCode


class Passthrough:
    """One splice between a tunnel and a TCP connection to the target."""

    def __init__(self, access: TargetAccess) -> None:
        self.access = access
        self._context = access.context
        self._services = access.services
        self._mode = access.settings.config.session_recording.value
        self._target = _TargetEnd(self)
        self._address = ""
        self._tunnel: Tunnel | None = None
        self._tell: Callable[[str], None] = lambda text: None
        self._leave: Callable[[], None] = lambda: None
        self._began = 0.0
        self._sent = 0
        self._received = 0
        self._over = False
        self._limits = TimeLimits(access, self.end_with_reason)

    async def connect(self) -> None:
        """TCP to the target. Raises Unreachable, and SpoolFull where the audit has no room."""
        access = self.access
        if access.strict:
            self._services.disks.check()
        self._address = await self._services.dialer.splice(
            access.target, access.destination.addresses, self._target
        )

    def enter(self, tunnel: Tunnel, over: Callable[[], None], tell: Callable[[str], None]) -> None:
        """Let it flow; ``over`` is called where we end it, and ``tell`` with the reason. Who owns the
        tunnel calls ``drop`` when that is over. Raises WriteFailed where it cannot be audited."""
        self._tunnel = tunnel
        self._tell, self._leave = tell, over
        self._began = self._services.clock.seconds()
        target = self._target
        self.access.emit(events.PassthroughStart(**self.access.who(), mode=self._mode))
        self._limits.begin()
        tunnel.on_pressure = lambda on: target.pressure("tunnel", on)
        target.start(tunnel)
        tunnel.start(_UserEnd(self))

    def drop(self) -> None:
        """Close the connection to the target, when what was sent has gone."""
        self._target.close()

    def brake(self, on: bool) -> None:
        """The outer connection's socket does not drain, or does again."""
        self._target.pressure("outer", on)

    @property
    def until(self) -> datetime | None:
        return self.access.until

    def recheck(self, identity: Identity) -> None:
        """It ends where it could not begin any more."""
        self.access.set_identity(identity)
        if self.access.strict and (full := self._services.disks.critical):
            text = f"this connection was ended: the disk for {full} is full. Tell your administrator"
            self.end_with_reason(Reason(ReasonCode.DISK_FULL, text))
            return
        try:
            self.judge()
        except AccessDenied as error:
            self._context.emit(refusals.event(error, self.access.who()))
            self.end_with_reason(error.public)

    def judge(self) -> None:
        """Raises AccessDenied where this connection to the target is not allowed now."""
        access, context = self.access, self._context
        if context.settings.config.session_recording.value != self._mode:
            what = "session_recording"
            raise AccessDenied(
                f"the administrator changed how sessions are recorded ({what}): connect again",
                rule=what,
                code=ReasonCode.RECORDING_MODE_CHANGED,
            )
        answer = may_reach(access)
        access.set_allowed(answer)
        if self._address not in answer.addresses:
            user, host = access.identity.user, access.target.host
            rule = f"no role of {user} allows this address any longer"
            raise AccessDenied(
                f"{user} may not reach {host} ({rule})", rule=rule, code=ReasonCode.ADDRESS_NOT_ALLOWED
            )
        if answer.options.require_mfa is not Mfa.NO and not access.identity.second_factor:
            raise AccessDenied(
                "your roles now require a second factor: log in again",
                rule=REQUIRE_MFA,
                code=ReasonCode.SECOND_FACTOR_REQUIRED,
            )
        check_steps(access)
        self._limits.apply(answer.options)

    def end_with_reason(self, text: str) -> None:
        """The bytes are between the client and the target: only the outer connection can say why."""
        if self._over or self._tunnel is None:
            return
        tunnel = self._tunnel
        self._target.abort()
        self._ended(text)
        # Who is told first, and not that the other end is gone, reads why.
        self._services.clock.callLater(LAST_WORDS_SECONDS, tunnel.loseConnection)
        self._leave()
        self._tell(text)

    def slow_down(self, on: bool) -> None:
        """The bandwidth is used up, or there is some again."""
        self._target.pressure("bandwidth", on)

    def from_user(self, data: bytes) -> None:
        if self._over:
            return
        self._sent += len(data)
        self.access.activity.touch()
        self._target.send(data)

    def from_target(self, data: bytes) -> None:
        if self._over:
            return
        self._received += len(data)
        if self._tunnel is not None:
            self._tunnel.write(data)

    def over(self, reason: str) -> None:
        if self._over or self._tunnel is None:
            return
        self._tunnel.loseConnection()
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        self._over = True
        self._limits.stop()
        self._context.emit(
            events.PassthroughEnd(
                **self.access.who(),
                mode=self._mode,
                sent=self._sent,
                received=self._received,
                duration=round(self._services.clock.seconds() - self._began, 3),
                reason=reason,
            )
        )


class _TargetEnd(Protocol):
    """The socket to the target."""

    transport: Any

    def __init__(self, owner: Passthrough) -> None:
        self._owner = owner
        self._started = False
        self._gone = False
        self._reasons: set[str] = set()

    def connectionMade(self) -> None:
        # A server speaks first; nobody is there to hear it yet.
        self.transport.pauseProducing()

    def start(self, tunnel: Tunnel) -> None:
        self._started = True
        if self.transport is not None:
            self.transport.registerProducer(OuterWindow(tunnel), True)
            self._read()

    def dataReceived(self, data: bytes) -> None:
        self._owner.from_target(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._gone = True
        self._owner.over(Reason(ReasonCode.TARGET_CLOSED, "the target closed the connection"))

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self._gone:
            self.transport.write(data)

    def pressure(self, reason: str, on: bool) -> None:
        """Read nothing while there is any reason not to."""
        (self._reasons.add if on else self._reasons.discard)(reason)
        if self._started and not self._gone:
            self._read()

    def _read(self) -> None:
        if self._reasons:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def close(self) -> None:
        """When what was sent has gone."""
        if self.transport is not None and not self._gone:
            # A producer that is paused, because somebody does not read, would keep it open.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """At once: what it has not read yet does not go there any more."""
        if self.transport is not None and not self._gone:
            self.transport.abortConnection()


class _UserEnd(Protocol):
    """The tunnel's bytes."""

    def __init__(self, owner: Passthrough) -> None:
        self._owner = owner

    def dataReceived(self, data: bytes) -> None:
        self._owner.from_user(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._owner.over(Reason(ReasonCode.USER_CLOSED, "the user closed the connection"))
