"""The inner SSH server: the user's client takes it for the target.

It runs on a tunnel through the outer connection, presents a host certificate for exactly the requested name,
and copies the target's identification string. Its login requires a key of the same user again. When the
client names the login, the policy decides and the target is dialled at once, so that its banner is shown
where the user expects it. The success of the login is sent when the target has accepted or refused our login,
or needs the agent of this connection.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from twisted.python.failure import Failure

from conchrec.access.options import SessionOptions
from conchrec.clock import DelayedCall
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy import refusals
from conchrec.proxy.authorization import decide_again
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.inner.forward_rules import DIRECT
from conchrec.proxy.inner.forwarding import Forwards
from conchrec.proxy.inner.login import InnerLogin
from conchrec.proxy.inner.open_sessions import OpenSessions
from conchrec.proxy.inner.session_limits import NO_MORE_SESSIONS
from conchrec.proxy.inner.unknown_messages import unknown_channel
from conchrec.proxy.login import approval_step
from conchrec.proxy.relay.tunnel import OuterWindow, Tunnel
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.time_limits import LAST_WORDS_SECONDS, TimeLimits
from conchrec.proxy.upstream.connection import Upstream
from conchrec.proxy.upstream.lifecycle import UpstreamState
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.timers import Timers
from conchrec.ssh.transport import ConnectionEnd, ServerTransport
from conchrec.ssh.userauth_server import UserAuthServer
from conchrec.text import one_line

#: How long to wait, after the first channel of a client, for its request to forward an agent.
AGENT_SECONDS = 0.4
#: The same for a client that opens no channel.
IDLE_AGENT_SECONDS = 2.0
#: When a connection without a target and without a session is ended.
USELESS_SECONDS = 5.0
KEEPALIVE = b"keepalive@openssh.com"
#: Global requests about host keys (PROTOCOL, 2.5): the client would learn keys that it never sees.
HOST_KEY_REQUESTS = (b"hostkeys-00@openssh.com", b"hostkeys-prove-00@openssh.com")


class TargetServer:
    """The inner connection of one user to one target. ``start`` it once; ``on_end`` is called at its end."""

    __slots__ = (
        "_access", "_context", "_disconnect_timer", "_forwards", "_has_ended", "_limits", "_on_end",
        "_sessions", "_timers", "_transport", "_tunnel", "_userauth", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        access: TargetAccess,
        tunnel: Tunnel,
        *,
        identification: bytes,
        link: Link | None,
        on_end: Callable[[], None],
    ) -> None:
        self._access = access
        self._context = access.context
        self._tunnel = tunnel
        self._on_end = on_end
        self._limits = TimeLimits(access, self.end_with_reason)
        services, requested = access.services, access.destination.requested
        config = self._context.settings.config
        self.upstream = Upstream(
            access,
            _TargetHandler(lambda: self._forwards),
            link=link,
            on_banner=self._show_banner,
            on_lost=self._upstream_lost,
        )
        self._forwards = Forwards(access, self.upstream)
        self._transport = ServerTransport(
            identification=mirrored_identification(identification),
            host_keys=services.authority.inner_host_keys(requested.host, requested.port),
            algorithms=self._context.settings.algorithms,
            powers=services.kex_helper.powers_of_peer(lambda: f"user {access.identity.user}"),
            userauth=self._new_login,
            clock=services.clock,
            handshake_time=min(config.limits.handshake_time, config.limits.login_time),
            rekey_bytes=config.limits.rekey_bytes,
            rekey_time=config.limits.rekey_time,
            share=services.turns.of_user(access.identity.user),
        )
        #: The inner login; None before and after it.
        self._userauth: UserAuthServer | None = None
        self._sessions = OpenSessions(
            access,
            self.upstream,
            wait_for_agent=lambda: self._timers.start("agent", AGENT_SECONDS, self.upstream.inner_settled),
            on_session_end=self._end_soon_if_useless,
            is_over=lambda: self._has_ended,
        )
        self._timers = Timers(services.clock)
        self._has_ended = False
        #: Disconnects after the sessions had time to show why they end.
        self._disconnect_timer: DelayedCall | None = None

    def start(self) -> None:
        """Start the SSH server on the tunnel."""
        # Called after the last message was handled, which may be later than the end of the tunnel.
        self._transport.on_lost(self._closed)
        self._tunnel.on_pressure = lambda on: self.upstream.brake("tunnel", on)
        self._tunnel.start(self._transport)

    @property
    def is_idle(self) -> bool:
        """Whether it has no connection to the target, and is not about to have one."""
        return self.upstream.state in (UpstreamState.IDLE, UpstreamState.LOST)

    @property
    def session_count(self) -> int:
        """The number of open and of delayed sessions."""
        return self._sessions.count

    def brake(self, on: bool) -> None:
        """Read nothing from the target while the outer connection's socket does not drain."""
        self.upstream.brake("outer", on)

    @property
    def until(self) -> datetime | None:
        """When the access has to be checked again; None if its rules do not depend on the time."""
        return self._access.until

    def recheck(self, identity: Identity) -> None:
        """End sessions and forwards that are no longer allowed, each with a line that says why."""
        access, context = self._access, self._context
        access.set_identity(identity)
        if self._has_ended or not access.login or access.denied is not None:
            return
        try:
            options = self._ask_policy_again()
        except AccessDenied as error:
            access.set_denied(error)
            context.emit(refusals.failure_event(error, access.who()))
            self.end_with_reason(error.public)
            return
        self._limits.apply(options)
        self._forwards.recheck()
        self._sessions.recheck()

    def _ask_policy_again(self) -> SessionOptions:
        """Ask the policy again. Raises AccessDenied."""
        access = self._access
        has_begun = self.upstream.state is not UpstreamState.IDLE
        answer = decide_again(access, has_begun=has_begun)
        if not has_begun:
            access.set_permitted_addresses(answer.addresses)
            approval_step.policy_changed(access)
        elif not self.upstream.is_at(answer.addresses):
            user = access.identity.user
            rule = f"no role of {user} allows this address any longer"
            raise AccessDenied(
                f"{user} may not reach {access.target.host} ({rule})",
                rule=rule,
                code=ReasonCode.ADDRESS_NOT_ALLOWED,
            )
        return answer.options

    def end_with_reason(self, text: str) -> None:
        """End the connection, and show ``text`` in each session, or without one in the disconnect message."""
        if self._has_ended:
            return
        reason = f"conchrec: {text}"
        if self._sessions.end_with_reason(text):
            self._end()
            clock = self._access.services.clock
            self._disconnect_timer = clock.callLater(LAST_WORDS_SECONDS, self._disconnect, reason)
        else:
            self._disconnect(reason)

    # --- the inner login

    def _new_login(self) -> UserAuthServer:
        access, limits = self._access, self._context.settings.config.limits
        login = InnerLogin(
            access,
            self.upstream,
            self._begin,
            say=self._show_banner,
            algorithms=lambda: self._transport.agreed_names,
        )
        self._userauth = userauth = UserAuthServer(
            login,
            connection=self._logged_in,
            clock=access.services.clock,
            login_time=limits.login_time,
            tries=limits.tries,
            host_key=lambda: self._transport.host_key_blob,
            on_refused=login.refused,
        )
        return userauth

    def _begin(self) -> None:
        version = self._transport.peer_identification or b"SSH-2.0-conchrec"
        self.upstream.begin(version)

    def _show_banner(self, text: str) -> None:
        if self._userauth is not None:
            self._userauth.send_banner(text)

    def _logged_in(self, identity: Identity) -> Connection:
        return Connection(
            self, max_channels=self._context.settings.config.limits.channels, exceeded=self._channels_exceeded
        )

    def _channels_exceeded(self, why: str) -> None:
        self._context.emit(
            refusals.failure_event(
                AccessDenied(why, rule="channels", code=ReasonCode.TOO_MANY_CHANNELS), self._access.who()
            )
        )

    # --- ConnectionHandler of the user's client

    def connection_started(self, connection: Connection) -> None:
        """Start the limits and the timers of a connection after its login."""
        self._userauth = None
        access = self._access
        access.agents.inner.connection = connection
        self._forwards.user = connection
        self._limits.begin()
        self._end_soon_if_useless()
        # ``ssh -N`` may open no channel for a long time, but the target limits the time for our login.
        self._timers.start("agent", IDLE_AGENT_SECONDS, self.upstream.inner_settled)
        self.upstream.when_ready().addCallbacks(self._target_ready, self._target_failed)

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Handle a channel that the user's client opens."""
        kind = opening.channel.kind
        if self._has_ended:
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(refusals.CONNECTION_ENDING))
        elif kind == b"session":
            self._sessions.admit(opening)
        elif kind in DIRECT:
            self._forwards.open_from_user(opening)
        else:
            size = len(opening.request.extra)
            self._context.emit(unknown_channel(self._access.who(), kind, size, sender="user"))
            text = f"channels of type {one_line(kind, 64)} are not supported"
            reason = Reason(ReasonCode.UNKNOWN_CHANNEL_TYPE, text)
            opening.refuse(m.UNKNOWN_CHANNEL_TYPE, refusals.reason_line(reason))

    def global_requested(self, request: IncomingRequest) -> None:
        """Handle a global request of the user's client."""
        if self._has_ended:
            request.reply(False)
        elif request.name == NO_MORE_SESSIONS:
            request.reply(True)
            self._sessions.refuse_more()
        elif request.name == b"hostkeys-prove-00@openssh.com":
            request.reply(False)
        elif request.name == KEEPALIVE and self.upstream.state is not UpstreamState.READY:
            # The proxy answers itself as long as the target is not connected.
            request.reply(False)
        else:
            self._forwards.request_from_user(request)

    def connection_stopped(self) -> None:
        """End the connection to the target, because the user's client has disconnected."""
        self._end()

    # --- the target

    def _target_ready(self, connection: Connection) -> None:
        transport = self.upstream.transport
        if transport is not None and not self._tunnel.closed:
            transport.registerProducer(OuterWindow(self._tunnel), True)

    def _target_failed(self, failure: Failure) -> None:
        if not self._has_ended:
            self._end_soon()

    def _upstream_lost(self, lost: ConnectionEnd) -> None:
        """Disconnect the user, because the connection to the target has ended.

        If the target sent a reason, the user reads it, marked as the target's words. If it sent none, the
        connection was lost, and the user's connection ends in the same way: no channel is closed.
        """
        if self._has_ended:
            return
        if lost.reason is not None:
            self._transport.sendDisconnect(lost.reason, self.upstream.text.line(lost.description))
        else:
            error = self.upstream.failure
            text = refusals.error_line(error) if error is not None else f"conchrec: {lost.describe()}"
            # Libraries take BY_APPLICATION for the end of the data: a cut transfer would look complete.
            self._disconnect(text, DisconnectReason.CONNECTION_LOST)

    @property
    def _is_useless(self) -> bool:
        return self._access.denied is not None or self.upstream.state is UpstreamState.LOST

    def _end_soon_if_useless(self) -> None:
        # A session whose channel the target has not granted may end later than this connection.
        if not self._has_ended and self._is_useless:
            self._end_soon()

    def _end_soon(self) -> None:
        self._timers.start("useless", USELESS_SECONDS, self._end_if_useless)

    def _end_if_useless(self) -> None:
        if self._is_useless and not self.session_count:
            error = self._access.denied or self.upstream.failure
            text = "the connection to the target has ended, and no session is left"
            nothing_left = refusals.reason_line(Reason(ReasonCode.NOTHING_LEFT, text))
            self._disconnect(refusals.error_line(error) if error is not None else nothing_left)

    # --- ends

    def _disconnect(self, text: str, reason: int = DisconnectReason.BY_APPLICATION) -> None:
        self._transport.sendDisconnect(reason, text.encode("utf-8", "replace"))

    def _closed(self, lost: ConnectionEnd) -> None:
        self._end()
        if self._disconnect_timer is not None and self._disconnect_timer.active():
            self._disconnect_timer.cancel()
        self._on_end()
        # Later, because the parts may be at work now.
        self._access.services.clock.callLater(0, self._release)

    def _release(self) -> None:
        """Drop the parts that refer to this object: they would keep it until a full garbage collection."""
        self._userauth = self._disconnect_timer = None
        del self.upstream, self._forwards, self._sessions, self._limits, self._on_end

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._timers.stop()
        self._limits.stop()
        self.upstream.close(self._transport.lost)


class _TargetHandler:
    """The ConnectionHandler of the connection to the target: the requests of the target."""

    __slots__ = (
        "_forwards",
    )  # fmt: skip

    def __init__(self, forwards: Callable[[], Forwards]) -> None:
        """``forwards`` is a function, because the forwards need the connection that this object handles."""
        self._forwards = forwards

    def connection_started(self, connection: Connection) -> None:
        """Do nothing: Upstream has the connection."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Handle a channel that the target opens."""
        self._forwards().open_from_target(opening)

    def global_requested(self, request: IncomingRequest) -> None:
        """Handle a global request of the target."""
        if request.name in HOST_KEY_REQUESTS:
            request.reply(False)
        else:
            self._forwards().request_from_target(request)

    def connection_stopped(self) -> None:
        """Do nothing: Upstream is notified by its transport."""


def mirrored_identification(identification: bytes) -> bytes:
    """Return our identification string for a target's: its software version, with our name as the comment.

    Clients choose their workarounds for bugs by it, and the order of SFTP's SYMLINK arguments.
    """
    software = identification.split(b"-", 2)[2] if identification.count(b"-") >= 2 else b"unknown"
    name = bytes(byte for byte in software.split(b" ", 1)[0] if 0x21 <= byte <= 0x7E)[:200]
    return b"SSH-2.0-" + (name or b"unknown") + b" conchrec"
