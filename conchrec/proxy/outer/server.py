"""The outer server: the connection that users make to the proxy, its login and its channels.

A ``direct-tcpip`` channel (``ssh -J``), or a session channel with the subsystem
``proxy:host[:port][@cluster]``, connects to a target (``outer.targets``). A session channel with a shell or a
command is a command to the proxy itself (``outer.session``). An error in one channel does not end the others.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from conchrec import __version__
from conchrec.access.credentials import Locked, fingerprint
from conchrec.access.options import Mfa
from conchrec.access.rate_limit import counted_as
from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Identity, host_and_port
from conchrec.proxy import refusals, time_limits
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.login.second_factor import (
    CODE,
    NO_SECOND_FACTOR,
    TOUCH,
    check_unchanged,
    is_touched,
    required_mfa,
)
from conchrec.proxy.outer.connection_limits import ConnectionLimits
from conchrec.proxy.outer.session import OuterSession, as_error
from conchrec.proxy.outer.targets import TargetConnections
from conchrec.proxy.password_login import PasswordLogin
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_access import OneTimeProof
from conchrec.proxy.target_names import parse_target
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.authenticator import Ask, PartialSuccess
from conchrec.ssh.channel_stream import LEAST_PACKET, Stream
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.keepalive import Keepalive
from conchrec.ssh.packetcipher import MAX_CLEAR
from conchrec.ssh.transport import ConnectionEnd, ServerTransport
from conchrec.ssh.userauth import KEYBOARD_INTERACTIVE, PUBLICKEY
from conchrec.ssh.userauth_server import UserAuthServer
from conchrec.text import one_line

#: The longest time between two checks whether the user's certificate has expired, in seconds.
EXPIRY_CHECK_SECONDS = 60.0
#: The time for inner connections to end, and for commands to restore the user's terminal, before the
#: DISCONNECT: OpenSSH's client drops output that it has not printed when it gets one.
LAST_WORDS_SECONDS = 2 * time_limits.LAST_WORDS_SECONDS


class UserGone(ConchrecError):
    """The user's client does not answer."""

    default_code = ReasonCode.CLIENT_SILENT


class OuterConnection:
    """One user's connection: its login and its channels. A ``LiveConnection`` after the login."""

    def __init__(
        self,
        context: ProxyContext,
        addr: IAddress | None,
        limits: ConnectionLimits,
    ) -> None:
        self._context = context
        self._services = context.services
        self._limits = limits
        self._addr = addr
        self.source = str(getattr(addr, "host", "")) or "unknown"
        port = getattr(addr, "port", 0)
        self.address = f"[{self.source}]:{port}" if ":" in self.source else f"{self.source}:{port}"
        self.cid = secrets.token_hex(8)
        self._began = self._services.clock.seconds()
        self._identity: Identity | None = None
        #: The user who has proved a key, where a code must follow.
        self._first: Identity | None = None
        #: The reasons that the user has read already.
        self._shown: set[str] = set()
        self.proofs = OneTimeProof()
        self._connection: Connection | None = None
        self._no_more_sessions = False
        #: The connection is ending: nothing new begins.
        self._is_ending = False
        self._disconnect_timer: DelayedCall | None = None
        self._keepalive: Keepalive | None = None
        self._expiry: DelayedCall | None = None
        self.agent = AgentSource("outer")
        self.targets = TargetConnections(self, context)
        self.sessions: set[OuterSession] = set()
        config = context.settings.config
        self._userauth = UserAuthServer(
            self,
            connection=self._logged_in,
            clock=self._services.clock,
            login_time=config.limits.login_time,
            tries=config.limits.tries,
            banner=config.notice,
            host_key=lambda: self.transport.host_key_blob,
            on_refused=self._refused,
        )
        self.transport = ServerTransport(
            identification=b"SSH-2.0-conchrec_" + __version__.encode(),
            host_keys=self._services.authority.outer_host_keys(self._services.outer_names),
            algorithms=context.settings.algorithms,
            powers=self._services.diffie_hellman.powers_of_peer(self._helper_share),
            userauth=lambda: self._userauth,
            clock=self._services.clock,
            handshake_time=min(config.limits.handshake_time, config.limits.login_time),
            rekey_bytes=config.limits.rekey_bytes,
            rekey_time=config.limits.rekey_time,
            early_packet=MAX_CLEAR,
            share=self._services.turns.of_address(counted_as(self.source)),
        )
        limits.add(self.source, self)
        self.transport.when_lost().addCallback(self._lost)

    def _helper_share(self) -> str:
        """Whose share of the Diffie-Hellman helper this connection uses: its address's, then its user's."""
        if self._connection is not None:
            return f"user {self.identity.user}"
        return f"address {counted_as(self.source)}"

    @property
    def local(self) -> str:
        """The proxy's address and port that the user connected to; empty where it has none."""
        wire = self.transport.transport
        host = wire.getHost() if wire is not None else None
        name, port = getattr(host, "host", ""), getattr(host, "port", 0)
        return host_and_port(str(name), int(port)) if name else ""

    def drop(self) -> None:
        """Close the connection without a message."""
        self.transport.abort()

    @property
    def identity(self) -> Identity:
        """The user, as of the last check. Only after the login."""
        assert self._identity is not None, "used only after the login"
        return self._identity

    @property
    def session_count(self) -> int:
        """Sessions at targets."""
        return self.targets.session_count

    @property
    def connection_count(self) -> int:
        """Connections to targets."""
        return self.targets.connection_count

    @property
    def target_channel_count(self) -> int:
        """Channels to targets."""
        return self.targets.count

    # --- Authenticator

    def methods(self, user: str) -> tuple[bytes, ...]:
        """The methods that may continue the login: a code alone after a key that requires one."""
        if self._first is not None:
            return (KEYBOARD_INTERACTIVE,)
        passwords = self._context.settings.passwords
        offered = passwords is not None and passwords.has_passwords
        return (PUBLICKEY, KEYBOARD_INTERACTIVE) if offered else (PUBLICKEY,)

    def none(self, user: str) -> Deferred[Identity]:
        """Reject the method *none*."""
        return fail(
            AccessDenied("Permission denied", "a public key is required", code=ReasonCode.KEY_REQUIRED)
        )

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Whether a signature by this key would be accepted."""
        credentials, now = self._context.settings.credentials, self._services.now()
        return credentials.acceptable(user, algorithm, blob, self.source, now)

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """Accept a login whose key has signed; PartialSuccess where a code must follow."""
        context, now = self._context, self._services.now()
        try:
            identity = context.settings.credentials.identity(user, algorithm, blob, self.source, now)
            if is_touched(context, identity):
                identity = replace(identity, second_factor=TOUCH)
            elif required_mfa(context, identity, self.source) is not Mfa.NO:
                self._require_code(identity)
            return succeed(self._accept(identity))
        except Locked as locked:
            self._show_once(Reason(locked.code, locked.detail))
            return fail()
        except (AccessDenied, PartialSuccess):
            return fail()

    def _require_code(self, identity: Identity) -> NoReturn:
        """End the first of two steps. Raises PartialSuccess, or AccessDenied where the user has no codes."""
        passwords = self._context.settings.passwords
        if passwords is None or not passwords.has_code(identity.user):
            self._show_once(NO_SECOND_FACTOR)
            raise AccessDenied(
                "Permission denied",
                "a second factor is required, and the user has none",
                code=ReasonCode.SECOND_FACTOR_UNAVAILABLE,
            )
        self._first = identity
        raise PartialSuccess((KEYBOARD_INTERACTIVE,))

    def _show_once(self, reason: Reason) -> None:
        """Show as a banner why the login fails although its key or password is right.

        Only to a user who has proved one; once, because each further key of the user would repeat it.
        """
        if reason not in self._shown:
            self._shown.add(reason)
            self._userauth.send_banner(f"conchrec: {reason}")

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Log in by a password, or by a code after a key."""
        passwords = self._context.settings.passwords
        if passwords is None:
            # A reload has removed the last password since the method was offered.
            return fail(
                AccessDenied(
                    "Permission denied",
                    "the configuration changed: no user has a password or a code now",
                    code=ReasonCode.PASSWORDS_DISABLED,
                )
            )
        if self._first is not None:
            return Deferred.fromCoroutine(self._second_step(self._first, passwords, ask))
        return Deferred.fromCoroutine(self._by_password(user, passwords, ask))

    async def _by_password(self, user: str, passwords: PasswordLogin, ask: Ask) -> Identity:
        try:
            identity = await passwords.log_in(user, self.source, ask)
            check_unchanged(self._context, passwords, user)
        except Locked as locked:
            self._show_once(Reason(locked.code, locked.detail))
            raise
        identity = replace(identity, second_factor=passwords.second_factor(user))
        if not identity.second_factor and required_mfa(self._context, identity, self.source) is not Mfa.NO:
            self._require_code(identity)
        return self._accept(identity)

    async def _second_step(self, first: Identity, passwords: PasswordLogin, ask: Ask) -> Identity:
        """Log in by a code after a key. The restrictions of the key apply to the login."""
        await passwords.ask_code(first.user, self.source, ask)
        check_unchanged(self._context, passwords, first.user)
        try:
            identity = self._context.settings.credentials.renewed_identity(
                first, self.source, self._services.now()
            )
        except AccessDenied as error:
            self._show_once(error.public)
            raise
        return self._accept(replace(identity, second_factor=CODE))

    def _accept(self, identity: Identity) -> Identity:
        """Store and audit the user of a login that has succeeded."""
        self._identity = identity
        if identity.second_factor:
            self.proofs.give()
        self._context.emit(
            events.UserLogin(
                user=identity.user,
                addr=self.address,
                cid=self.cid,
                method=identity.method,
                key=fingerprint(identity.key) if identity.key else "",
                certificate=fingerprint(identity.certificate) if identity.certificate else "",
                roles=identity.roles,
                client=one_line(self.transport.peer_identification or b"", 255),
                second_factor=identity.second_factor,
                algorithms=tuple(name.decode() for name in self.transport.agreed_names),
            )
        )
        return identity

    def _refused(self, user: str, method: str, reason: str) -> None:
        self._context.emit(
            events.AuthRefused(user=user, addr=self.address, cid=self.cid, reason=reason, method=method)
        )

    def _logged_in(self, identity: Identity) -> Connection:
        self._limits.logged_in(self.source, self)
        self.transport.charge_to(self._services.turns.of_user(identity.user))
        self._connection = Connection(
            self,
            max_channels=self._context.settings.config.limits.channels,
            exceeded=self._channels_exceeded,
            least_packet=LEAST_PACKET,
        )
        return self._connection

    def _channels_exceeded(self, reason: str) -> None:
        user = self._identity.user if self._identity is not None else ""
        self._context.emit(
            events.SessionRejected(user=user, addr=self.address, cid=self.cid, reason=reason, rule="channels")
        )

    # --- ConnectionHandler

    def connection_started(self, connection: Connection) -> None:
        """Begin to watch the connection: keepalives, the end of the certificate, the socket's pressure."""
        self.agent.connection = connection
        limits = self._context.settings.config.limits
        self._keepalive = Keepalive(
            connection,
            self.transport,
            self._services.clock,
            interval=limits.keepalive_interval,
            count=limits.keepalive_count_max,
            on_dead=lambda: self.transport.give_up(
                UserGone("the client no longer answers keepalive requests")
            ),
        )
        self._context.registry.add_connection(self)
        self._watch_expiry()
        self.transport.registerProducer(_Pressure(self.targets), True)

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Open a channel to a target, or a session with the proxy; refuse every other type."""
        kind = opening.channel.kind
        if self._is_ending:
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(refusals.CONNECTION_ENDING))
        elif kind == b"direct-tcpip":
            self._direct(opening)
        elif kind == b"session":
            if self._no_more_sessions:
                opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(refusals.NO_MORE_SESSIONS))
            else:
                OuterSession(self, self._context, opening)
        else:
            shown = one_line(kind, 40)
            reason = Reason(
                ReasonCode.OUTER_CHANNEL_TYPE,
                f"the proxy itself opens no channel of type {shown}. Connect to a target through it (ssh -J)",
            )
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(reason))

    def global_requested(self, request: IncomingRequest) -> None:
        """Accept no-more-sessions, and reject every other request, keepalives among them."""
        if request.name == b"no-more-sessions@openssh.com":
            self._no_more_sessions = True
            request.reply(True)
        else:
            # For keepalive@openssh.com too: a client takes any reply as a sign of life.
            request.reply(False)

    def connection_stopped(self) -> None:
        """Stop the timers: the connection is closed."""
        self._context.registry.remove_connection(self)
        if self._keepalive is not None:
            self._keepalive.stop()
        for timer in (self._expiry, self._disconnect_timer):
            if timer is not None and timer.active():
                timer.cancel()

    def _lost(self, lost: ConnectionEnd) -> None:
        self._limits.remove(self.source, self)
        self._context.registry.remove_connection(self)
        self.targets.close()
        if self._identity is not None:
            self._context.emit(
                events.ClientDisconnect(
                    user=self._identity.user,
                    addr=self.address,
                    cid=self.cid,
                    reason=lost.describe(),
                    duration=round(self._services.clock.seconds() - self._began, 3),
                )
            )

    def _watch_expiry(self) -> None:
        """End the connection when the credential of its login expires."""
        expires = self.identity.expires
        if expires is None:
            return
        remaining = (expires - self._services.now()).total_seconds()
        if remaining <= 0:
            what = "certificate" if self.identity.by_certificate else "key"
            self.end_with_reason(
                Reason(ReasonCode.LOGIN_EXPIRED, f"your {what} has expired. Connect again with a valid one")
            )
        else:
            # A timer runs by the monotonic clock, a certificate ends by the system's: check in between.
            delay = min(remaining, EXPIRY_CHECK_SECONDS)
            self._expiry = self._services.clock.callLater(delay, self._watch_expiry)

    def recheck(self) -> None:
        """Check the login and all that is open again, after a change of the policy, locks or users."""
        context, now = self._context, self._services.now()
        if self._is_ending:
            return
        try:
            self._identity = context.settings.credentials.renewed_identity(self.identity, self.source, now)
        except AccessDenied as error:
            context.emit(
                events.SessionRejected(
                    user=self.identity.user,
                    addr=self.address,
                    cid=self.cid,
                    reason=error.public,
                    rule="login",
                )
            )
            # Whatever is in progress, and asks the policy later, is denied.
            self._identity = replace(self.identity, roles=())
            self.end_with_reason(error.public)
            return
        self.targets.recheck()
        for session in tuple(self.sessions):
            session.recheck()

    def recheck_expired(self, now: datetime) -> None:
        """Check again all that was allowed until a time that has passed at ``now``."""
        expires = self.identity.expires
        if self._is_ending:
            return
        if expires is not None and now >= expires:
            self._watch_expiry()
            return
        self.targets.recheck_expired(now)
        for session in tuple(self.sessions):
            if session.until is not None and now >= session.until:
                session.recheck()

    def end_with_reason(self, reason: str) -> None:
        """Show the reason in every session, then end the connection."""
        if self._is_ending:
            return
        self._is_ending = True
        has_sessions = self.targets.end_with_reason(reason)
        commands = [session for session in tuple(self.sessions) if session.cancel()]
        disconnect = partial(self.transport.sendDisconnect, 11, f"conchrec: {reason}".encode())
        if has_sessions or commands:
            self._disconnect_timer = self._services.clock.callLater(LAST_WORDS_SECONDS, disconnect)
        else:
            disconnect()

    def passthrough_ended(self, reason: str) -> None:
        """End the connection if nothing else is open: its DISCONNECT is all that can show the reason."""
        if not self.targets.count and not self.sessions:
            self.end_with_reason(reason)

    # --- targets

    def _direct(self, opening: IncomingOpen) -> None:
        """Open a channel of ``ssh -J``: confirmed when the target has sent its identification string."""
        forward = m.Forwarded.parse(opening.request.extra)
        Deferred.fromCoroutine(self._open_direct(opening, forward)).addErrback(self._not_opened, opening)

    async def _open_direct(self, opening: IncomingOpen, forward: m.Forwarded) -> None:
        target = await self.targets.connect_to(parse_target(forward.host, str(forward.port)))
        if self._is_over:
            target.drop()
            return
        tunnel = Tunnel(self._services.turns, peer=self._addr, host=self._addr)
        # ``attach_tunnel`` gives it its window.
        tunnel.attach(Stream.accept(opening, tunnel, window=0))
        self.targets.attach_tunnel(target, tunnel)

    def _not_opened(self, failure: Failure, opening: IncomingOpen) -> None:
        if not failure.check(CancelledError) and not self._is_over and not opening.answered:
            opening.refuse(*refusals.open_failure(as_error(failure)))

    @property
    def _is_over(self) -> bool:
        return self._connection is None or self._connection.stopped


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
