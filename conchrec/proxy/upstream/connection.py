"""One Conch client connection to a target: dial, verify, authenticate, then carry channels.

There is one for each inner connection. It is begun as soon as the inner connection has named the
login and the policy has allowed it, in parallel with the inner login, so that the target's banner
arrives in time. Where only the agent of the inner connection could help, it waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.errors import (
    ConchrecError,
    LoginRejected,
    Unreachable,
    UpstreamError,
)
from conchrec.provenance import Provenance, host_and_port
from conchrec.proxy import refusals
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.lifecycle import UpstreamLifecycle, UpstreamState
from conchrec.proxy.upstream.login import TargetLogin
from conchrec.proxy.upstream.prompts import Questions
from conchrec.proxy.upstream.target_text import TargetText, end_text
from conchrec.proxy.upstream.target_transport import algorithms_of, new_transport
from conchrec.reasons import ReasonCode
from conchrec.ssh.algorithms import WEAK
from conchrec.ssh.connection import Connection, ConnectionHandler
from conchrec.ssh.keepalive import Keepalive
from conchrec.ssh.kexinit import NoCommonAlgorithm
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.transport import ClientTransport, ConnectionEnd
from conchrec.ssh.userauth_client import Login
from conchrec.text import one_line

_log = Logger()

#: A connection that was made for its banner, and that nobody logs in on, goes away after this.
UNUSED_SECONDS = 10.0


class Upstream:
    """The connection to one target for one user. ``on_banner`` gets the target's banner;
    ``on_lost`` the end of what was ready."""

    def __init__(
        self,
        access: TargetAccess,
        handler: ConnectionHandler,
        *,
        link: Link | None,
        on_banner: Callable[[str], None],
        on_lost: Callable[[ConnectionEnd], None],
    ) -> None:
        self._access = access
        self._context = access.context
        self._services = access.services
        self._handler = handler
        self._link = link
        self._on_lost = on_lost
        self._lifecycle = UpstreamLifecycle()
        #: Whatever the target says to the user goes through this.
        self.text = TargetText(str(access.target))
        self._login = TargetLogin(
            access, self._lifecycle, self.text, on_banner=on_banner, settled=self._settle
        )
        self._running: Deferred[None] | None = None
        self._settled: list[Deferred[None]] = []
        self._ready: list[Deferred[Connection]] = []
        self._braked: set[str] = set()
        self._closed = False
        self._keepalive: Keepalive | None = None
        self.connection: Connection | None = None
        self.failure: ConchrecError | None = None
        self._unused = (
            self._services.clock.callLater(UNUSED_SECONDS, self._nobody_came) if link is not None else None
        )

    # --- what others ask

    def is_at(self, addresses: Sequence[str]) -> bool:
        """Is it at one of these; or will it be, where it is dialling?"""
        dialled = self._access.destination.addresses if self._link is None else (self._link.address,)
        return set(dialled) <= set(addresses)

    @property
    def state(self) -> UpstreamState:
        """How far the connection has come."""
        return self._lifecycle.state

    @property
    def questions(self) -> Questions:
        """What the target asks of a person."""
        return self._login.questions

    @property
    def transport(self) -> ClientTransport | None:
        return self._link.transport if self._link is not None else None

    @property
    def settled(self) -> bool:
        """Ready, failed, or waiting for the inner connection's agent or for a person: the inner login may
        go on."""
        return self._login.is_waiting or self._lifecycle.state in (UpstreamState.READY, UpstreamState.LOST)

    def when_settled(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if self.settled:
            done.callback(None)
        else:
            self._settled.append(done)
        return done

    def when_ready(self) -> Deferred[Connection]:
        """Fires with the connection, or fails with a ConchrecError."""
        done: Deferred[Connection] = Deferred()
        if self.connection is not None and self._lifecycle.state is UpstreamState.READY:
            done.callback(self.connection)
        elif self._lifecycle.state is UpstreamState.LOST:
            done.errback(
                Failure(
                    self.failure
                    or Unreachable("the connection to the target is closed", code=ReasonCode.TARGET_GONE)
                )
            )
        else:
            self._ready.append(done)
        return done

    def inner_settled(self) -> None:
        """It is known now whether the inner connection has an agent."""
        self._login.inner_agent.settle()

    def brake(self, reason: str, on: bool) -> None:
        """Read nothing from the target while there is any reason not to."""
        (self._braked.add if on else self._braked.discard)(reason)
        if self.transport is not None:
            self.transport.brake(reason, on)

    # --- life

    def begin(self, version: bytes) -> None:
        """Dial, as the client whose version line is ``version``."""
        self._lifecycle.enter(UpstreamState.DIALING)
        if self._unused is not None and self._unused.active():
            self._unused.cancel()
        self._running = Deferred.fromCoroutine(self._run(version))
        self._running.addErrback(self._failed)

    def close(self, lost: ConnectionEnd | None = None) -> None:
        """Nobody needs it any more. ``lost`` says how the user's connection ended, where that came first: the
        target hears the same reason, or none where the user's connection went without one."""
        if self._closed:
            return
        self._closed = True
        if self._unused is not None and self._unused.active():
            self._unused.cancel()
        running, self._running = self._running, None
        if running is not None and self._lifecycle.state is not UpstreamState.READY:
            running.cancel()
        link = self._link
        if link is not None:
            link.slot.release()
            if self._lifecycle.state is UpstreamState.READY and lost is not None and lost.is_silent:
                link.transport.hang_up()
            elif self._lifecycle.state is UpstreamState.READY:
                known = DisconnectReason.assigned(None if lost is None else lost.reason)
                link.transport.sendDisconnect(known, b"disconnected by user")
            else:
                link.transport.abort()
        self._end(Unreachable("the connection was closed", code=ReasonCode.CONNECTION_CLOSED))

    def _nobody_came(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    async def _run(self, version: bytes) -> None:
        access, dialer = self._access, self._services.dialer
        link = self._link
        if (
            link is None
            or link.transport.lost is not None
            or link.address not in access.destination.addresses
        ):
            # Gone, or an address that this login may not be tried at.
            self._link = None
            if link is not None:
                link.drop()
            link = self._link = await dialer.connect(
                access.target,
                access.destination.addresses,
                access.identity.user,
                lambda target: new_transport(access),
            )
        transport = link.transport
        self._apply_brakes()
        self._lifecycle.enter(UpstreamState.VERIFYING)
        transport.when_lost().addCallback(self._transport_lost)
        transport.start(version)
        await dialer.within(
            transport.when_secure(),
            dialer.timeout,
            lambda: Unreachable(
                f"cannot reach {access.target}: it stopped answering during the key exchange. "
                "Check sshd and the network there",
                code=ReasonCode.TARGET_SILENT,
            ),
        )
        self._lifecycle.enter(UpstreamState.AUTHENTICATING)
        connection = Connection(self._handler, refusal_text=self.text.refusal)
        login = await self._login.run(link, connection, self._silent)
        self._logged_in(link, connection, login)

    def _logged_in(self, link: Link, connection: Connection, login: Login) -> None:
        self.connection = connection
        self._lifecycle.enter(UpstreamState.READY)
        limits = self._context.settings.config.limits
        self._keepalive = Keepalive(
            connection,
            link.transport,
            self._services.clock,
            interval=limits.keepalive_interval,
            count=limits.keepalive_count_max,
            on_dead=lambda: link.transport.give_up(
                Unreachable(
                    f"{self._access.target} no longer answers keepalive requests. "
                    "Check the host and the network, then connect again",
                    code=ReasonCode.TARGET_SILENT,
                )
            ),
            is_paused=lambda: bool(self._braked),
        )
        verdict = link.check.verdict
        algorithms = link.transport.agreed_names
        weak = tuple(name.decode() for name in algorithms if name in WEAK)
        if weak:
            _log.warn(
                "the connection to {target} uses weak algorithms: {weak}",
                target=str(self._access.target),
                weak=", ".join(weak),
            )
        reached = Provenance(
            dialled=host_and_port(link.address, self._access.target.port),
            host_key=verdict.fingerprint if verdict is not None else "",
            trust=verdict.trust if verdict is not None else "",
            target_method=",".join(step.decode() for step in login.steps),
            target_key=login.signer.label if login.signer is not None else "",
        )
        self._access.record_target_login(reached)
        self._context.emit(
            events.UpstreamConnect(
                **self._access.who(),
                address=link.address,
                method=",".join(step.decode() for step in login.steps),
                key=login.signer.label if login.signer is not None else "",
                host_key=verdict.fingerprint if verdict is not None else "",
                trust=verdict.trust if verdict is not None else "",
                server=one_line(link.banner, 255),
                algorithms=tuple(name.decode() for name in algorithms),
                weak=weak,
            )
        )
        if verdict is not None and not verdict.checked:
            _log.warn("the host key of {target} is not checked", target=str(self._access.target))
            self._context.emit(
                events.HostKeyUnchecked(
                    **self._access.who(), host_key=verdict.fingerprint, reason=verdict.trust
                )
            )
        self._settle()
        waiting, self._ready = self._ready, []
        for done in waiting:
            done.callback(connection)

    def _settle(self) -> None:
        waiting, self._settled = self._settled, []
        for done in waiting:
            done.callback(None)

    def _apply_brakes(self) -> None:
        if self.transport is not None:
            for reason in self._braked:
                self.transport.brake(reason, True)

    # --- ends

    def _silent(self) -> None:
        """It has exchanged keys, and then does not even say how one may log in."""
        error = Unreachable(
            f"cannot log in at {self._access.target}: it stopped answering during the login. "
            "Check sshd and the network there",
            code=ReasonCode.TARGET_SILENT,
        )
        running, self._running = self._running, None
        self._give_up(error)
        if running is not None:
            running.cancel()

    def _failed(self, failure: Failure) -> None:
        """``_run`` did not come through."""
        self._running = None
        if self._closed or failure.check(CancelledError):
            return
        lost = self._link.transport.lost if self._link is not None else None
        # The transport knows the reason; the waiting step only knows that it failed.
        error: object = self._explain(lost) if lost is not None else failure.value
        if not isinstance(error, ConchrecError):
            _log.failure(
                "internal error in the connection to {target}",
                failure=failure,
                target=str(self._access.target),
            )
            error = UpstreamError(
                f"cannot reach {self._access.target}: internal error in the proxy. "
                "Ask your administrator to look into its log",
                code=ReasonCode.INTERNAL_ERROR,
            )
        if isinstance(error, LoginRejected):
            error = self._login.rejected(error)
        self._give_up(error)

    def _give_up(self, error: ConchrecError) -> None:
        if self._lifecycle.state is UpstreamState.LOST:
            return
        self._context.emit(refusals.event(error, self._access.who()))
        link = self._link
        if link is not None:
            link.slot.release()
            link.transport.abort()
        self._end(error)

    def _end(self, error: ConchrecError) -> None:
        if self._lifecycle.state is UpstreamState.LOST:
            return
        self.failure = error
        self._lifecycle.enter(UpstreamState.LOST)
        if self._keepalive is not None:
            self._keepalive.stop()
        self._login.inner_agent.cancel()
        self._settle()
        waiting, self._ready = self._ready, []
        for ready in waiting:
            ready.errback(Failure(error))

    def _transport_lost(self, lost: ConnectionEnd) -> None:
        if self._closed or self._lifecycle.state is UpstreamState.LOST:
            return
        was_ready = self._lifecycle.state is UpstreamState.READY
        error = self._explain(lost)
        if was_ready:
            self._end(error)
            self._on_lost(lost)
        else:
            running, self._running = self._running, None
            self._give_up(self._login.rejected(error) if isinstance(error, LoginRejected) else error)
            if running is not None:
                running.addErrback(lambda _: None)
                running.cancel()

    def _explain(self, lost: ConnectionEnd) -> ConchrecError:
        if isinstance(lost.error, UpstreamError):
            return lost.error
        target, why = self._access.target, end_text(lost)
        if self._lifecycle.state in (UpstreamState.DIALING, UpstreamState.VERIFYING):
            if isinstance(lost.error, NoCommonAlgorithm) and not algorithms_of(self._access).sha1:
                why += ". Update sshd there, or ask your administrator for `algorithms: legacy` (targets)"
            why = why or "it closed the connection during the key exchange"
            return Unreachable(
                f"cannot make a secure connection to {target}: {why}", code=ReasonCode.NO_SECURE_CONNECTION
            )
        if self._lifecycle.state is UpstreamState.AUTHENTICATING:
            return LoginRejected(
                f"{target} closed the connection during the login{': ' * bool(why)}{why}",
                code=ReasonCode.TARGET_CLOSED_LOGIN,
            )
        return Unreachable(
            f"{target} closed the connection{': ' * bool(why)}{why}", code=ReasonCode.TARGET_CLOSED
        )
