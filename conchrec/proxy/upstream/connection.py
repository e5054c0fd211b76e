"""The connection to a target: dial, check the host key, log in, then carry channels.

Each inner connection has one. It begins as soon as the inner connection has named the login and the policy
has allowed it, while the inner login goes on, so that the target's banner arrives in time. Where only the
agent of the inner connection can log in, it waits for that agent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.coroutines import run_coroutine
from conchrec.errors import (
    ConchrecError,
    LoginRejected,
    Unreachable,
    UpstreamError,
    without_traceback,
)
from conchrec.proxy import refusals
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.lifecycle import UpstreamLifecycle, UpstreamState
from conchrec.proxy.upstream.login import TargetLogin
from conchrec.proxy.upstream.login_report import report_login
from conchrec.proxy.upstream.prompts import Questions
from conchrec.proxy.upstream.target_link import TargetLink
from conchrec.proxy.upstream.target_text import TargetText, end_text
from conchrec.proxy.upstream.target_transport import algorithms_of, new_transport
from conchrec.reasons import ReasonCode
from conchrec.ssh.connection import Connection, ConnectionHandler
from conchrec.ssh.keepalive import Keepalive
from conchrec.ssh.kexinit import NoCommonAlgorithm
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.transport import ClientTransport, ConnectionEnd

_log = Logger()


class Upstream:
    """The connection to one target for one user.

    ``on_banner`` gets the target's banner; ``on_lost`` is called when a connection that was READY ends.
    """

    __slots__ = (
        "_access", "_closed", "_handler", "_keepalive", "_lifecycle", "_link", "_login", "_on_lost",
        "_running", "text",
    )  # fmt: skip

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
        self._handler = handler
        self._on_lost = on_lost
        self._lifecycle = UpstreamLifecycle()
        self._link = TargetLink(access.services.clock, link)
        #: All text of the target for the user goes through this.
        self.text = TargetText(str(access.target))
        self._login = TargetLogin(
            access, self._lifecycle, self.text, on_banner=on_banner, settled=self._lifecycle.fire_settled
        )
        self._running: Deferred[None] | None = None
        self._closed = False
        self._keepalive: Keepalive | None = None

    # --- state

    def is_at(self, addresses: Sequence[str]) -> bool:
        """Whether it is at one of these addresses; while it dials, whether it can only get to these."""
        link = self._link.link
        dialled = self._access.destination.addresses if link is None else (link.address,)
        return set(dialled) <= set(addresses)

    @property
    def state(self) -> UpstreamState:
        """How far the connection has come."""
        return self._lifecycle.state

    @property
    def connection(self) -> Connection | None:
        """The connection that carries channels; None before it is READY."""
        return self._lifecycle.connection

    @property
    def failure(self) -> ConchrecError | None:
        """Why it ended or failed; None before that."""
        return self._lifecycle.failure

    @property
    def questions(self) -> Questions:
        """The questions of the target for the user."""
        return self._login.questions

    @property
    def transport(self) -> ClientTransport | None:
        """The SSH transport to the target; None before there is one."""
        return self._link.transport

    @property
    def is_settled(self) -> bool:
        """Whether the inner login may continue.

        It may when this is READY or LOST, or waits for the inner connection's agent or for the user.
        """
        return self._login.is_waiting or self._lifecycle.is_over

    def when_settled(self) -> Deferred[None]:
        """Fires when ``is_settled`` becomes true."""
        if not self.is_settled:
            return self._lifecycle.when_settled()
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def when_ready(self) -> Deferred[Connection]:
        """Fires with the connection, or fails with a ConchrecError."""
        return self._lifecycle.when_ready()

    def inner_settled(self) -> None:
        """Note that it is known whether the inner connection has an agent."""
        self._login.inner_agent.settle()

    def brake(self, reason: str, on: bool) -> None:
        """Read nothing from the target while there is a reason not to."""
        self._link.brake(reason, on)

    # --- beginning and end

    def begin(self, version: bytes) -> None:
        """Start to connect, with the identification string ``version``: that of the user's client."""
        self._lifecycle.enter(UpstreamState.DIALING)
        self._link.use()
        self._running = run_coroutine(self._run(version))
        self._running.addErrback(self._failed)

    def close(self, lost: ConnectionEnd | None = None) -> None:
        """Close the connection.

        ``lost`` is how the user's connection has ended, if that came first: the target gets the same reason,
        or no DISCONNECT where the user's client sent none.
        """
        if self._closed:
            return
        self._closed = True
        self._link.use()
        running, self._running = self._running, None
        if running is not None and self._lifecycle.state is not UpstreamState.READY:
            running.cancel()
        link = self._link.link
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

    async def _run(self, version: bytes) -> None:
        """Dial, exchange keys and log in. Raises ConchrecError."""
        access, dialer = self._access, self._access.services.dialer
        link = self._link.usable(access.destination.addresses)
        if link is None:
            link = await dialer.connect(
                access.target,
                access.destination.addresses,
                access.identity.user,
                lambda target: new_transport(access),
            )
            self._link.set(link)
        transport = link.transport
        self._link.apply_brakes()
        self._lifecycle.enter(UpstreamState.VERIFYING)
        transport.on_lost(self._transport_lost)
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
        login = await self._login.run(link, connection, self._login_unanswered)
        self._lifecycle.enter_ready(connection)
        self._keepalive = self._new_keepalive(link, connection)
        report_login(access, link, login)
        self._lifecycle.fire_ready()

    def _new_keepalive(self, link: Link, connection: Connection) -> Keepalive:
        access = self._access
        limits = access.settings.config.limits
        return Keepalive(
            connection,
            link.transport,
            access.services.clock,
            interval=limits.keepalive_interval,
            count=limits.keepalive_count_max,
            on_dead=lambda: link.transport.give_up(
                Unreachable(
                    f"{access.target} no longer answers keepalive requests. "
                    "Check the host and the network, then connect again",
                    code=ReasonCode.TARGET_SILENT,
                )
            ),
            is_paused=lambda: self._link.is_paused,
        )

    # --- failures

    def _login_unanswered(self) -> None:
        """Fail: the target has exchanged keys, and does not answer the first message of the login."""
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
        """Handle an exception of ``_run``."""
        self._running = None
        if self._closed or failure.check(CancelledError):
            return
        lost = self._link.transport.lost if self._link.transport is not None else None
        # The transport knows the reason; the step that waited only knows that it failed.
        error: object = self._end_error(lost) if lost is not None else failure.value
        if not isinstance(error, ConchrecError):
            _log.failure(
                "internal error in the connection to {target}",
                failure=failure,
                target=str(self._access.target),
            )
            error = UpstreamError(
                f"cannot reach {self._access.target}: internal error in the proxy. "
                "Ask your administrator to check the log of the proxy",
                code=ReasonCode.INTERNAL_ERROR,
            )
        if isinstance(error, LoginRejected):
            error = self._login.rejected(error)
        self._give_up(error)

    def _give_up(self, error: ConchrecError) -> None:
        """Audit the failure, and close the link."""
        if self._lifecycle.state is UpstreamState.LOST:
            return
        self._access.context.emit(refusals.failure_event(error, self._access.who()))
        link = self._link.link
        if link is not None:
            link.slot.release()
            link.transport.abort()
        self._end(error)

    def _end(self, error: ConchrecError) -> None:
        """Enter LOST, and fail all that waits."""
        if self._lifecycle.state is UpstreamState.LOST:
            return
        self._lifecycle.failure = without_traceback(error)
        self._lifecycle.enter(UpstreamState.LOST)
        keepalive, self._keepalive = self._keepalive, None
        if keepalive is not None:
            keepalive.stop()
        self._login.inner_agent.cancel()
        self._lifecycle.fire_lost()

    def _transport_lost(self, lost: ConnectionEnd) -> None:
        if self._closed or self._lifecycle.state is UpstreamState.LOST:
            return
        was_ready = self._lifecycle.state is UpstreamState.READY
        error = self._end_error(lost)
        if was_ready:
            self._end(error)
            self._on_lost(lost)
        else:
            running, self._running = self._running, None
            self._give_up(self._login.rejected(error) if isinstance(error, LoginRejected) else error)
            if running is not None:
                running.addErrback(lambda _: None)
                running.cancel()

    def _end_error(self, lost: ConnectionEnd) -> ConchrecError:
        """The error for the end of the transport in the present state."""
        if isinstance(lost.error, UpstreamError):
            return lost.error
        target, reason = self._access.target, end_text(lost)
        if self._lifecycle.state in (UpstreamState.DIALING, UpstreamState.VERIFYING):
            if isinstance(lost.error, NoCommonAlgorithm):
                reason += ", which the proxy does not accept. Update sshd there"
                if not algorithms_of(self._access).sha1:
                    reason += ", or ask your administrator to set `algorithms: legacy` for it (targets)"
            reason = reason or "it closed the connection during the key exchange"
            return Unreachable(
                f"cannot make a secure connection to {target}: {reason}",
                code=ReasonCode.NO_SECURE_CONNECTION,
            )
        if self._lifecycle.state is UpstreamState.AUTHENTICATING:
            return LoginRejected(
                f"{target} closed the connection during the login{': ' * bool(reason)}{reason}",
                code=ReasonCode.TARGET_CLOSED_LOGIN,
            )
        return Unreachable(
            f"{target} closed the connection{': ' * bool(reason)}{reason}", code=ReasonCode.TARGET_CLOSED
        )
