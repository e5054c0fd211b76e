"""Connections that are not recorded here (``session_recording: node`` and ``off``).

The bytes are forwarded unchanged, and the client logs in at the target itself. The audit has the user, the
target, the duration and the number of bytes.
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
from conchrec.ssh.backpressure import change_reasons


class Passthrough:
    """Forwards bytes between a tunnel and a TCP connection to the target.

    Its life: ``connect``, ``start``, bytes, ``drop``.
    """

    def __init__(self, access: TargetAccess) -> None:
        self.access = access
        self._context = access.context
        self._services = access.services
        self._mode = access.settings.config.session_recording.value
        self._target = _TargetSocket(self)
        self._address = ""
        self._tunnel: Tunnel | None = None
        self._show: Callable[[str], None] = lambda text: None
        self._on_end: Callable[[], None] = lambda: None
        self._began = 0.0
        self._sent = 0
        self._received = 0
        self._has_ended = False
        self._limits = TimeLimits(access, self.end_with_reason)

    async def connect(self) -> None:
        """Connect to the target by TCP. Raises Unreachable, or SpoolFull if the audit's disk is full."""
        access = self.access
        try:
            if access.is_strict:
                self._services.disks.check()
            self._address = await self._services.dialer.splice(
                access.target, access.destination.addresses, self._target
            )
        except BaseException:
            self._target.release()
            self._release()
            raise

    def start(self, tunnel: Tunnel, on_end: Callable[[], None], show: Callable[[str], None]) -> None:
        """Forward bytes between ``tunnel`` and the target.

        If the proxy ends the connection, it calls ``on_end``, and ``show`` with the reason. The owner of the
        tunnel calls ``drop`` when the tunnel is closed. Raises WriteFailed if the start cannot be audited.
        """
        self._tunnel = tunnel
        self._show, self._on_end = show, on_end
        self._began = self._services.clock.seconds()
        target = self._target
        self.access.emit(events.PassthroughStart(**self.access.who(), mode=self._mode))
        self._limits.begin()
        tunnel.on_pressure = lambda on: target.pause("tunnel", on)
        target.start(tunnel)
        tunnel.start(_TunnelProtocol(self))

    def drop(self) -> None:
        """Close the connection to the target when all data was sent."""
        self._target.close()
        if self._tunnel is None:
            # It was not started, and has no end.
            self._target.release()
            self._release()

    def brake(self, on: bool) -> None:
        """Read nothing from the target while the outer connection's socket does not drain."""
        self._target.pause("outer", on)

    @property
    def until(self) -> datetime | None:
        """When the access has to be checked again; None if its rules do not depend on the time."""
        return self.access.until

    def recheck(self, identity: Identity) -> None:
        """End the connection if it would not be allowed to begin now."""
        if self._has_ended:
            # It is live until the user's channel is closed, too.
            return
        self.access.set_identity(identity)
        if self.access.is_strict and (full := self._services.disks.critical):
            text = f"this connection was ended: the disk for {full} is full. Tell your administrator"
            self.end_with_reason(Reason(ReasonCode.DISK_FULL, text))
            return
        try:
            self.check_allowed()
        except AccessDenied as error:
            self._context.emit(refusals.failure_event(error, self.access.who()))
            self.end_with_reason(error.public)

    def check_allowed(self) -> None:
        """Raise AccessDenied if this connection to the target is not allowed now."""
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
        """End the connection, and show ``text`` in the outer connection: the inner bytes are the client's."""
        if self._has_ended or self._tunnel is None:
            return
        tunnel = self._tunnel
        self._target.abort()
        self._end(text)
        # The tunnel closes later: a client that first notices the end of the tunnel does not show the text.
        self._services.clock.callLater(LAST_WORDS_SECONDS, tunnel.loseConnection)
        self._on_end()
        self._show(text)

    def slow_down(self, on: bool) -> None:
        """Read nothing from the target while the user's bandwidth is used up."""
        self._target.pause("bandwidth", on)

    def from_user(self, data: bytes) -> None:
        """Forward bytes of the user."""
        if self._has_ended:
            return
        self._sent += len(data)
        self.access.activity.touch()
        self._target.send(data)

    def from_target(self, data: bytes) -> None:
        """Forward bytes of the target."""
        if self._has_ended:
            return
        self._received += len(data)
        if self._tunnel is not None:
            self._tunnel.write(data)

    def end(self, reason: str) -> None:
        """End the connection, because one side has closed it."""
        if self._has_ended or self._tunnel is None:
            return
        self._tunnel.loseConnection()
        self._end(reason)

    def _end(self, reason: str) -> None:
        self._has_ended = True
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
        # Later, because the parts may be at work now.
        self._services.clock.callLater(0, self._release)

    def _release(self) -> None:
        """Drop what refers to this object, and would keep it until a full garbage collection."""
        del self._limits, self._on_end, self._show


class _TargetSocket(Protocol):
    """The TCP connection to the target."""

    transport: Any

    def __init__(self, owner: Passthrough) -> None:
        #: None after the end, and if the dial was cancelled.
        self._owner: Passthrough | None = owner
        self._is_started = False
        self._is_lost = False
        self._pause_reasons: tuple[str, ...] = ()

    def connectionMade(self) -> None:
        # A server sends its identification string first; there is no tunnel for it yet.
        self.transport.pauseProducing()

    def start(self, tunnel: Tunnel) -> None:
        """Read from the socket; ``tunnel`` is paused while the socket does not drain."""
        self._is_started = True
        if self.transport is not None:
            self.transport.registerProducer(OuterWindow(tunnel), True)
            self._pause_or_resume()

    def dataReceived(self, data: bytes) -> None:
        if self._owner is not None:
            self._owner.from_target(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._is_lost = True
        owner = self._owner
        self.release()
        if owner is not None:
            owner.end(Reason(ReasonCode.TARGET_CLOSED, "the target closed the connection"))

    def release(self) -> None:
        """Forget the owner, which refers to this object: it gets nothing from the target any more."""
        self._owner = None

    def send(self, data: bytes) -> None:
        """Send bytes to the target."""
        if self.transport is not None and not self._is_lost:
            self.transport.write(data)

    def pause(self, reason: str, on: bool) -> None:
        """Read nothing while ``reason``, or another one, is on."""
        self._pause_reasons = change_reasons(self._pause_reasons, reason, on)
        if self._is_started and not self._is_lost:
            self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        if self._pause_reasons:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def close(self) -> None:
        """Close the connection when all data was sent."""
        if self.transport is not None and not self._is_lost:
            # A paused producer would keep the connection open.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once, and discard data that was not sent yet."""
        if self.transport is not None and not self._is_lost:
            self.transport.abortConnection()


class _TunnelProtocol(Protocol):
    """Gives the tunnel's bytes to the Passthrough."""

    def __init__(self, owner: Passthrough) -> None:
        self._owner = owner

    def dataReceived(self, data: bytes) -> None:
        self._owner.from_user(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._owner.end(Reason(ReasonCode.USER_CLOSED, "the user closed the connection"))
