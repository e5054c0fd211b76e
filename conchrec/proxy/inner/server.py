"""The inner server: what the user's client believes is the target.

It runs on a tunnel through the outer connection, shows a host certificate for exactly the name that
was asked for, and mirrors the target's version line. Its login asks for a key of the same user again;
the policy is asked when the client names the login, and the target is dialled at once, so that its
banner is shown where the user expects it. Success is held back until the target has let us in, has
refused, or needs the agent of this very connection.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.options import SessionOptions
from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Identity
from conchrec.proxy import refusals
from conchrec.proxy.authorization import decide_again
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.inner.forward_rules import DIRECT
from conchrec.proxy.inner.forwarding import Forwards
from conchrec.proxy.inner.login import InnerLogin
from conchrec.proxy.inner.session import Session
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
from conchrec.ssh.transport import ConnectionEnd, ServerTransport
from conchrec.ssh.userauth_server import UserAuthServer
from conchrec.text import one_line

_log = Logger()

#: How long a client gets to say that it has an agent, after its first channel (``ssh.md``, 5).
AGENT_SECONDS = 0.4
#: The same for a client that opens no channel at all.
IDLE_AGENT_SECONDS = 2.0
#: A connection whose target is not to be had, and that has no session left, is ended after this.
USELESS_SECONDS = 5.0
NO_MORE_SESSIONS = b"no-more-sessions@openssh.com"
KEEPALIVE = b"keepalive@openssh.com"


class TargetServer:
    """See the module. ``start`` once; then the tunnel drives it. ``over`` is called at its end."""

    def __init__(
        self,
        access: TargetAccess,
        tunnel: Tunnel,
        *,
        banner: bytes,
        link: Link | None,
        over: Callable[[], None],
    ) -> None:
        self._access = access
        self._context = access.context
        self._services = access.services
        self._tunnel = tunnel
        self._over = over
        self._limits = TimeLimits(access, self.end_with_reason)
        config, asked = self._context.settings.config, access.destination.requested
        self.upstream = Upstream(
            access,
            _TargetSide(self),
            link=link,
            on_banner=self._target_banner,
            on_lost=self._upstream_lost,
        )
        self._forwards = Forwards(access, self.upstream)
        self._login = InnerLogin(access, self._begin, say=lambda text: self._userauth.send_banner(text))
        self._userauth = UserAuthServer(
            self._login,
            connection=self._logged_in,
            clock=self._services.clock,
            login_time=config.limits.login_time,
            tries=config.limits.tries,
            host_key=lambda: self._transport.host_key_blob,
            on_refused=self._login.refused,
        )
        self._transport = ServerTransport(
            identification=mirrored(banner),
            host_keys=self._services.authority.inner_host_keys(asked.host, asked.port),
            algorithms=self._context.settings.algorithms,
            powers=self._services.diffie_hellman.powers_of_peer(lambda: f"user {access.identity.user}"),
            userauth=lambda: self._userauth,
            clock=self._services.clock,
            handshake_time=min(config.limits.handshake_time, config.limits.login_time),
            share=self._services.turns.of_user(access.identity.user),
        )
        self._login.upstream = self.upstream
        self._connection: Connection | None = None
        self._sessions: set[Session] = set()
        #: Sessions that may begin a little later.
        self._waiting = 0
        self._no_more_sessions = False
        self._first_session_relayed = False
        self._timers: dict[str, DelayedCall] = {}
        self._ended = False
        self._goodbye: DelayedCall | None = None

    def start(self) -> None:
        # After the last of its messages, which may come to their turn when the tunnel is closed already.
        self._transport.when_lost().addCallback(lambda lost: self._closed())
        self._tunnel.on_pressure = lambda on: self.upstream.brake("tunnel", on)
        self._tunnel.start(self._transport)

    @property
    def is_idle(self) -> bool:
        """It does not ask for the target (yet, or any more)."""
        return self.upstream.state in (UpstreamState.IDLE, UpstreamState.LOST)

    @property
    def session_count(self) -> int:
        return len(self._sessions) + self._waiting

    def brake(self, on: bool) -> None:
        """The outer connection's socket does not drain, or does again."""
        self.upstream.brake("outer", on)

    @property
    def until(self) -> datetime | None:
        return self._access.until

    def recheck(self, identity: Identity) -> None:
        """What is not allowed any more ends, with a line that says why; the rest goes on."""
        access, context = self._access, self._context
        access.set_identity(identity)
        if not access.login or access.denied is not None:
            return
        try:
            options = self._judge_again()
        except AccessDenied as error:
            access.set_denied(error)
            context.emit(refusals.event(error, access.who()))
            self.end_with_reason(error.public)
            return
        self._limits.apply(options)
        self._forwards.recheck()
        policy, now = context.settings.policy, self._services.now()
        for session in tuple(self._sessions):
            locked = policy.lock_on(now, lambda lock: lock.is_of_session(session.sid))  # noqa: B023
            if locked is not None:
                session.end(Reason(ReasonCode.SESSION_LOCKED, str(locked)))
            else:
                session.recheck()

    def _judge_again(self) -> SessionOptions:
        """Raises AccessDenied."""
        access = self._access
        begun = self.upstream.state is not UpstreamState.IDLE
        answer = decide_again(access, begun=begun)
        if not begun:
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
        """Say why in every session, or else in the end of the connection; nothing goes on."""
        if self._ended:
            return
        told = [session for session in tuple(self._sessions) if session.end(text)]
        if told:
            self._end()
            self._goodbye = self._services.clock.callLater(
                LAST_WORDS_SECONDS, self._disconnect, f"conchrec: {text}"
            )
        else:
            self._disconnect(f"conchrec: {text}")

    # --- the inner login

    def _begin(self) -> None:
        version = self._transport.peer_identification or b"SSH-2.0-conchrec"
        self.upstream.begin(version)

    def _target_banner(self, text: str) -> None:
        self._userauth.send_banner(text)

    def _logged_in(self, identity: Identity) -> Connection:
        self._connection = Connection(
            self, max_channels=self._context.settings.config.limits.channels, exceeded=self._channels_exceeded
        )
        return self._connection

    def _channels_exceeded(self, why: str) -> None:
        self._context.emit(
            refusals.event(
                AccessDenied(why, rule="channels", code=ReasonCode.TOO_MANY_CHANNELS), self._access.who()
            )
        )

    # --- ConnectionHandler, for what the user's client asks

    def connection_started(self, connection: Connection) -> None:
        access = self._access
        access.agents.inner.connection = connection
        self._forwards.user = connection
        self._limits.begin()
        if self._useless:
            self._end_soon()
        # ``ssh -N`` opens nothing for a long time, and the target's patience with us ends.
        self._set_timer("agent", IDLE_AGENT_SECONDS, self.upstream.inner_settled)
        self.upstream.when_ready().addCallbacks(self._target_ready, self._target_failed)

    def channel_requested(self, opening: IncomingOpen) -> None:
        kind = opening.channel.kind
        if self._ended:
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(refusals.CONNECTION_ENDING))
        elif kind == b"session":
            self._session_requested(opening)
        elif kind in DIRECT:
            self._forwards.user_opens(opening)
        else:
            name = one_line(kind, 64)
            size = len(opening.request.extra)
            self._context.emit(
                events.UnknownRequest(
                    **self._access.who(), request=f"open {name}", size=size, scope="channel"
                )
            )
            why = Reason(ReasonCode.UNKNOWN_CHANNEL_TYPE, f"channels of type {name} are not supported")
            opening.refuse(m.UNKNOWN_CHANNEL_TYPE, refusals.sentence(why))

    def _session_requested(self, opening: IncomingOpen) -> None:
        access = self._access
        limit = access.options.max_sessions if access.options is not None else None
        if self._no_more_sessions:
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(refusals.NO_MORE_SESSIONS))
            return
        if self._context.registry.is_stopping:
            opening.refuse(m.RESOURCE_SHORTAGE, refusals.sentence(refusals.PROXY_STOPPING))
            return
        if limit is not None and len(self._sessions) + self._waiting >= limit:
            text = f"too many sessions: {limit} at once are allowed in a connection (max_sessions)"
            error = AccessDenied(text, rule="max_sessions", code=ReasonCode.TOO_MANY_SESSIONS)
            self._context.emit(refusals.event(error, access.who()))
            opening.refuse(m.RESOURCE_SHORTAGE, refusals.line(error))
            return
        most, user = self._context.settings.config.limits.sessions_per_user, access.identity.user
        if self._context.registry.session_count(user) >= most:
            error = AccessDenied(
                f"too many sessions: {user} has {most} open, which is the limit; close one first",
                rule="sessions_per_user",
                code=ReasonCode.TOO_MANY_SESSIONS_OF_USER,
            )
            self._context.emit(refusals.event(error, access.who()))
            opening.refuse(m.RESOURCE_SHORTAGE, refusals.line(error))
            return
        wait = self._services.session_rate.delay(user)
        if wait is None:
            error = AccessDenied(
                f"{user} opens sessions too fast: wait some seconds and try again",
                rule="sessions a second",
                code=ReasonCode.SESSION_RATE_EXCEEDED,
            )
            self._context.emit(refusals.event(error, access.who()))
            opening.refuse(m.RESOURCE_SHORTAGE, refusals.line(error))
        elif wait:
            self._context.session_delayed(user, access.who(), wait)
            self._context.registry.add_session(user)
            self._waiting += 1
            self._services.clock.callLater(wait, self._waited, opening)
        else:
            self._begin_session(opening)

    def _waited(self, opening: IncomingOpen) -> None:
        """A session of somebody who opens very many: its turn has come."""
        self._waiting -= 1
        self._context.registry.remove_session(self._access.identity.user)
        if self._ended:
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(refusals.CONNECTION_ENDING))
        else:
            self._begin_session(opening)

    def _begin_session(self, opening: IncomingOpen) -> None:
        access, upstream = self._access, self.upstream
        session = Session(
            access,
            opening,
            inner_settled=upstream.inner_settled,
            over=self._session_over,
            relayed=self._session_relayed,
        )
        self._sessions.add(session)
        if access.denied is not None:
            session.fail(access.denied)
        elif upstream.connection is not None and upstream.state is UpstreamState.READY:
            session.go(upstream.connection)
        else:
            session.wait()
            self._set_timer("agent", AGENT_SECONDS, upstream.inner_settled)
            upstream.when_ready().addCallbacks(session.go, lambda failure: session.fail(_error(failure)))

    def global_requested(self, request: IncomingRequest) -> None:
        if self._ended:
            request.reply(False)
        elif request.name == NO_MORE_SESSIONS:
            self._no_more_sessions = True
            request.reply(True)
            self._pass_no_more_sessions()
        elif request.name == b"hostkeys-prove-00@openssh.com":
            request.reply(False)
        elif request.name == KEEPALIVE and self.upstream.state is not UpstreamState.READY:
            # We are alive; the target's turn to answer comes when it is there.
            request.reply(False)
        else:
            self._forwards.user_asks(request)

    def connection_stopped(self) -> None:
        self._end()

    # --- sessions

    def _session_over(self, session: Session) -> None:
        self._sessions.discard(session)
        if self._useless:
            self._end_soon()

    def _session_relayed(self) -> None:
        self._first_session_relayed = True
        self._pass_no_more_sessions()

    def _pass_no_more_sessions(self) -> None:
        """Passed on after the first session, for ``ssh -N`` says it before there is any."""
        connection = self.upstream.connection
        if self._no_more_sessions and self._first_session_relayed and connection is not None:
            self._first_session_relayed = False
            connection.request(NO_MORE_SESSIONS)

    # --- the target

    def _target_ready(self, connection: Connection) -> None:
        transport = self.upstream.transport
        if transport is not None and not self._tunnel.closed:
            transport.registerProducer(OuterWindow(self._tunnel), True)

    def _target_failed(self, failure: Failure) -> None:
        if not self._ended:
            self._end_soon()

    def _upstream_lost(self, lost: ConnectionEnd) -> None:
        """The target ended it: its own words go to the user, marked as such. Where it said nothing the
        connection to it was lost, and so is the user's: no channel is closed."""
        if self._ended:
            return
        if lost.reason is not None:
            self._transport.sendDisconnect(lost.reason, self.upstream.text.line(lost.description))
        else:
            error = self.upstream.failure
            text = refusals.line(error) if error is not None else f"conchrec: {lost.describe()}"
            # Libraries take BY_APPLICATION for the end of what they read: a cut transfer would look whole.
            self._disconnect(text, DisconnectReason.CONNECTION_LOST)

    @property
    def _useless(self) -> bool:
        return self._access.denied is not None or self.upstream.state is UpstreamState.LOST

    def _end_soon(self) -> None:
        self._set_timer("useless", USELESS_SECONDS, self._end_if_useless)

    def _end_if_useless(self) -> None:
        if self._useless and not self._sessions and not self._waiting:
            error = self._access.denied or self.upstream.failure
            text = "the connection to the target has ended, and no session is left"
            nothing_left = refusals.sentence(Reason(ReasonCode.NOTHING_LEFT, text))
            self._disconnect(refusals.line(error) if error is not None else nothing_left)

    # --- time

    def _set_timer(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        self._drop_timer(name)
        if not self._ended:
            self._timers[name] = self._services.clock.callLater(seconds, call)

    def _drop_timer(self, name: str) -> None:
        old = self._timers.pop(name, None)
        if old is not None and old.active():
            old.cancel()

    # --- ends

    def _disconnect(self, text: str, reason: int = DisconnectReason.BY_APPLICATION) -> None:
        self._transport.sendDisconnect(reason, text.encode("utf-8", "replace"))

    def _closed(self) -> None:
        self._end()
        if self._goodbye is not None and self._goodbye.active():
            self._goodbye.cancel()
        self._over()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._limits.stop()
        self.upstream.close(self._transport.lost)


class _TargetSide:
    """What the target asks of us, on the upstream connection."""

    def __init__(self, server: TargetServer) -> None:
        self._server = server

    def connection_started(self, connection: Connection) -> None:
        """The upstream knows."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        self._server._forwards.target_opens(opening)

    def global_requested(self, request: IncomingRequest) -> None:
        if request.name in (b"hostkeys-00@openssh.com", b"hostkeys-prove-00@openssh.com"):
            # The client would learn keys that it will never see.
            request.reply(False)
        else:
            self._server._forwards.target_asks(request)

    def connection_stopped(self) -> None:
        """The upstream hears of it by its transport."""


def mirrored(banner: bytes) -> bytes:
    """Our version line for a target's: its software version stands, its comment becomes our name.

    Clients choose by it how to work around bugs, and the order of SFTP's SYMLINK arguments.
    """
    software = banner.split(b"-", 2)[2] if banner.count(b"-") >= 2 else b"unknown"
    name = bytes(byte for byte in software.split(b" ", 1)[0] if 0x21 <= byte <= 0x7E)[:200]
    return b"SSH-2.0-" + (name or b"unknown") + b" conchrec"


def _error(failure: Failure) -> ConchrecError:
    error = failure.value
    if isinstance(error, ConchrecError):
        return error
    _log.failure("unexpected error in the connection to a target", failure=failure)
    return ConchrecError("internal error", code=ReasonCode.INTERNAL_ERROR)
