"""The outer server: the connection that users make to the proxy.

A ``direct-tcpip`` channel (``ssh -J``), or a session channel with the subsystem
``proxy:host[:port][@cluster]``, connects to a target (``outer.targets``). A session channel with a shell or a
command is a command to the proxy itself (``outer.session``). An error in one channel does not end the others.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from twisted.internet.interfaces import IAddress

from conchrec import __version__
from conchrec.access.rate_limit import counted_as
from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.errors import ConchrecError
from conchrec.model import Identity, host_and_port
from conchrec.proxy import time_limits
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.outer.channels import OuterChannels
from conchrec.proxy.outer.connection_limits import ConnectionLimits
from conchrec.proxy.outer.login import OuterLogin
from conchrec.proxy.outer.login_validity import LoginValidity
from conchrec.proxy.outer.targets import TargetConnections
from conchrec.proxy.outer.user import OuterUser
from conchrec.reasons import ReasonCode
from conchrec.ssh.channel_stream import LEAST_PACKET
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.keepalive import Keepalive
from conchrec.ssh.packetcipher import MAX_CLEAR
from conchrec.ssh.transport import ConnectionEnd, ServerTransport
from conchrec.ssh.userauth_server import UserAuthServer

#: The time for inner connections to end, and for commands to restore the user's terminal, before the
#: DISCONNECT: OpenSSH's client drops output that it has not printed when it gets one.
LAST_WORDS_SECONDS = 2 * time_limits.LAST_WORDS_SECONDS


class UserGone(ConchrecError):
    """The user's client does not answer."""

    default_code = ReasonCode.CLIENT_SILENT


class OuterConnection:
    """One user's connection. A ``LiveConnection`` after the login, and the ``ConnectionHandler`` then."""

    __slots__ = (
        "_began", "_channels", "_context", "_disconnect_timer", "_is_ending", "_keepalive", "_limits",
        "_user", "_userauth", "_validity", "transport",
    )  # fmt: skip

    def __init__(
        self,
        context: ProxyContext,
        addr: IAddress | None,
        limits: ConnectionLimits,
    ) -> None:
        services, config = context.services, context.settings.config
        self._context = context
        self._limits = limits
        self._began = services.clock.seconds()
        self._user = user = OuterUser(addr)
        #: The login; None before and after it.
        self._userauth: UserAuthServer | None = None
        self.transport = ServerTransport(
            identification=b"SSH-2.0-conchrec_" + __version__.encode(),
            host_keys=services.authority.outer_host_keys(services.outer_names),
            algorithms=context.settings.algorithms,
            powers=services.kex_helper.powers_of_peer(partial(_helper_peer, user)),
            userauth=self._new_login,
            clock=services.clock,
            handshake_time=min(config.limits.handshake_time, config.limits.login_time),
            rekey_bytes=config.limits.rekey_bytes,
            rekey_time=config.limits.rekey_time,
            early_packet=MAX_CLEAR,
            share=services.turns.of_address(counted_as(user.source)),
        )
        self._channels = OuterChannels(user, context, end=self.end_with_reason)
        self._validity = LoginValidity(context, user, end=self.end_with_reason)
        self._keepalive: Keepalive | None = None
        self._is_ending = False
        self._disconnect_timer: DelayedCall | None = None
        limits.add(user.source, self)
        self.transport.on_lost(self._lost)

    # --- LiveConnection

    @property
    def identity(self) -> Identity:
        """The user, as of the last check. Only after the login."""
        return self._user.identity

    @property
    def session_count(self) -> int:
        """Sessions at targets."""
        return self._channels.targets.session_count

    @property
    def connection_count(self) -> int:
        """Connections to targets."""
        return self._channels.targets.connection_count

    @property
    def target_channel_count(self) -> int:
        """Channels to targets."""
        return self._channels.targets.count

    def recheck(self) -> None:
        """Check the login and all that is open again, after a change of the policy, locks or users."""
        if not self._is_ending and self._validity.check_user():
            self._channels.recheck()

    def recheck_expired(self, now: datetime) -> None:
        """Check again all that was allowed until a time that has passed at ``now``."""
        if self._is_ending:
            return
        if self._validity.is_expired(now):
            self._validity.check_expiry()
        else:
            self._channels.recheck_expired(now)

    def end_with_reason(self, reason: str) -> None:
        """Show the reason in every session, then end the connection."""
        if self._is_ending:
            return
        self._is_ending = True
        disconnect = partial(self.transport.sendDisconnect, 11, f"conchrec: {reason}".encode())
        if self._channels.end_with_reason(reason):
            clock = self._context.services.clock
            self._disconnect_timer = clock.callLater(LAST_WORDS_SECONDS, disconnect)
        else:
            disconnect()

    def drop(self) -> None:
        """Close the connection without a message."""
        self.transport.abort()

    # --- the login, and the end

    def _new_login(self) -> UserAuthServer:
        config = self._context.settings.config
        login = OuterLogin(self._context, self._user, say=self._show_banner, transport=self.transport)
        self._userauth = userauth = UserAuthServer(
            login,
            connection=self._logged_in,
            clock=self._context.services.clock,
            login_time=config.limits.login_time,
            tries=config.limits.tries,
            banner=config.notice,
            host_key=lambda: self.transport.host_key_blob,
            on_refused=login.refused,
        )
        return userauth

    def _show_banner(self, text: str) -> None:
        if self._userauth is not None:
            self._userauth.send_banner(text)

    def _logged_in(self, identity: Identity) -> Connection:
        self._limits.logged_in(self._user.source, self)
        self._user.local = _local_address(self.transport)
        self.transport.charge_to(self._context.services.turns.of_user(identity.user))
        return Connection(
            self,
            max_channels=self._context.settings.config.limits.channels,
            exceeded=self._channels_exceeded,
            least_packet=LEAST_PACKET,
        )

    def _channels_exceeded(self, reason: str) -> None:
        self._context.emit(events.SessionRejected(**self._user.who(), reason=reason, rule="channels"))

    def _lost(self, lost: ConnectionEnd) -> None:
        self._is_ending = True
        self._limits.remove(self._user.source, self)
        self._context.registry.remove_connection(self)
        self._channels.targets.close()
        if self._user.has_logged_in:
            duration = round(self._context.services.clock.seconds() - self._began, 3)
            self._context.emit(
                events.ClientDisconnect(**self._user.who(), reason=lost.describe(), duration=duration)
            )
        # Later, because the parts may be at work now.
        self._context.services.clock.callLater(0, self._release)

    def _release(self) -> None:
        """Drop the parts that refer to this object: they would keep it until a full garbage collection."""
        self._userauth = self._keepalive = self._disconnect_timer = None
        del self._channels, self._validity

    # --- ConnectionHandler

    def connection_started(self, connection: Connection) -> None:
        """Begin to watch the connection: keepalives, the end of the certificate, the socket's pressure."""
        self._userauth = None
        self._user.agent.connection = connection
        limits = self._context.settings.config.limits
        self._keepalive = Keepalive(
            connection,
            self.transport,
            self._context.services.clock,
            interval=limits.keepalive_interval,
            count=limits.keepalive_count_max,
            on_dead=lambda: self.transport.give_up(
                UserGone("the client no longer answers keepalive requests")
            ),
        )
        self._context.registry.add_connection(self)
        self._validity.check_expiry()
        self.transport.registerProducer(_Pressure(self._channels.targets), True)

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Open a channel, or refuse it."""
        self._channels.open(opening)

    def global_requested(self, request: IncomingRequest) -> None:
        """Accept no-more-sessions, and reject every other request, keepalives among them."""
        if request.name == b"no-more-sessions@openssh.com":
            self._channels.refuse_sessions()
            request.reply(True)
        else:
            # For keepalive@openssh.com too: a client takes any reply as a sign of life.
            request.reply(False)

    def connection_stopped(self) -> None:
        """Stop the timers: the connection is closed."""
        self._context.registry.remove_connection(self)
        if self._keepalive is not None:
            self._keepalive.stop()
        self._validity.stop()
        if self._disconnect_timer is not None and self._disconnect_timer.active():
            self._disconnect_timer.cancel()


def _helper_peer(user: OuterUser) -> str:
    """Return the peer for the queue of the helper: the address, after the login the user."""
    if user.has_logged_in:
        return f"user {user.identity.user}"
    return f"address {counted_as(user.source)}"


def _local_address(transport: ServerTransport) -> str:
    """The proxy's address and port that the user connected to; empty where it has none."""
    wire = transport.transport
    host = wire.getHost() if wire is not None else None
    name, port = getattr(host, "host", ""), getattr(host, "port", 0)
    return host_and_port(str(name), int(port)) if name else ""


class _Pressure:
    """Pauses the targets while the user's socket does not take more (IPushProducer)."""

    def __init__(self, targets: TargetConnections) -> None:
        self._targets = targets

    def pauseProducing(self) -> None:
        self._targets.brake(True)

    def resumeProducing(self) -> None:
        self._targets.brake(False)

    def stopProducing(self) -> None:
        """Do nothing: the transport reports the end of the connection."""
