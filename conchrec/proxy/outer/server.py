"""The outer server: where users come in, and how they say where they want to go.

``direct-tcpip`` (``ssh -J``) and, on a session channel, the subsystem ``proxy:host[:port][@cluster]``
lead to a target; a session channel without one talks to the proxy itself (``outer_session``). What goes
wrong in one channel stays in it.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import NoReturn

from twisted.conch.ssh.factory import SSHFactory
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from conchrec import __version__
from conchrec.access.credentials import Locked, fingerprint
from conchrec.access.options import Mfa
from conchrec.access.rate_limit import counted_as
from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Identity
from conchrec.provenance import host_and_port
from conchrec.proxy import refusals, time_limits
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.login.second_factor import (
    CODE,
    NONE_THERE,
    TOUCH,
    check_unchanged,
    is_touched,
    required,
)
from conchrec.proxy.outer.connection_limits import ConnectionLimits, RefusedConnection
from conchrec.proxy.outer.session import OuterSession, as_error
from conchrec.proxy.outer.targets import TargetConnections
from conchrec.proxy.password_login import PasswordLogin
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_access import OneTimeProof
from conchrec.proxy.target_names import named_target
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

#: How often at least it is looked whether a certificate has expired, in seconds.
EXPIRY_LOOK = 60.0
#: Seconds that a terminal has to get back what was on it, and inner connections to end, before that of the
#: user ends: what ssh has not printed yet when it is told to go is lost.
LAST_WORDS_SECONDS = 2 * time_limits.LAST_WORDS_SECONDS


class JumpFactory(SSHFactory):
    """One ServerTransport for each TCP connection, within the limits."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._door = ConnectionLimits(context)

    def startFactory(self) -> None:
        """Conch's own looks for keys and moduli; ours are in the authority."""

    def stopFactory(self) -> None:
        """Live connections are the service's to end."""

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:  # type: ignore[override]
        host = str(getattr(addr, "host", "")) or "unknown"
        if why := self._door.refusal(host):
            return RefusedConnection(why)
        return OuterConnection(self._context, addr, self._door).transport


class UserGone(ConchrecError):
    """Nobody answers at the other end of a user's connection."""

    default_code = ReasonCode.CLIENT_SILENT


class OuterConnection:
    """One user's connection: its login, its channels, its ways to targets. A ``LiveConnection``, once the
    user has logged in."""

    def __init__(
        self,
        context: ProxyContext,
        addr: IAddress | None,
        door: ConnectionLimits,
    ) -> None:
        self._context = context
        self._services = context.services
        self._door = door
        self._addr = addr
        self.source = str(getattr(addr, "host", "")) or "unknown"
        port = getattr(addr, "port", 0)
        self.address = f"[{self.source}]:{port}" if ":" in self.source else f"{self.source}:{port}"
        self.cid = secrets.token_hex(8)
        self._began = self._services.clock.seconds()
        self._identity: Identity | None = None
        #: Who has proved a key, where a code has to follow.
        self._first: Identity | None = None
        self._said: set[str] = set()
        self.proofs = OneTimeProof()
        self._connection: Connection | None = None
        self._no_more_sessions = False
        #: Nothing begins any more.
        self._leaving = False
        self._goodbye: DelayedCall | None = None
        self._keepalive: Keepalive | None = None
        self._expiry: DelayedCall | None = None
        self.agent = AgentSource("outer")
        self.ways = TargetConnections(self, context)
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
            version=b"SSH-2.0-conchrec_" + __version__.encode(),
            host_keys=self._services.authority.outer_host_keys(self._services.outer_names),
            algorithms=context.settings.algorithms,
            powers=self._services.diffie_hellman.of_peer(self._counted_as),
            userauth=lambda: self._userauth,
            clock=self._services.clock,
            handshake_time=min(config.limits.handshake_time, config.limits.login_time),
            early_packet=MAX_CLEAR,
            share=self._services.turns.of_address(counted_as(self.source)),
        )
        door.enter(self.source, self)
        self.transport.when_lost().addCallback(self._lost)

    def _counted_as(self) -> str:
        """Whose key exchanges these are: those of an address, and of a user who has logged in."""
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
        """Others need the room; or it can't be judged."""
        self.transport.abort()

    @property
    def identity(self) -> Identity:
        assert self._identity is not None, "asked only after the login"
        return self._identity

    @property
    def session_count(self) -> int:
        return self.ways.session_count

    @property
    def connection_count(self) -> int:
        return self.ways.connection_count

    @property
    def target_channel_count(self) -> int:
        return self.ways.count

    # --- Authenticator

    def methods(self, user: str) -> tuple[bytes, ...]:
        if self._first is not None:
            return (KEYBOARD_INTERACTIVE,)
        passwords = self._context.settings.passwords
        offered = passwords is not None and passwords.has_passwords
        return (PUBLICKEY, KEYBOARD_INTERACTIVE) if offered else (PUBLICKEY,)

    def none(self, user: str) -> Deferred[Identity]:
        return fail(
            AccessDenied("Permission denied", "a public key is required", code=ReasonCode.KEY_REQUIRED)
        )

    def offered(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        credentials, now = self._context.settings.credentials, self._services.now()
        return credentials.acceptable(user, algorithm, blob, self.source, now)

    def proved(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        context, now = self._context, self._services.now()
        try:
            identity = context.settings.credentials.identity(user, algorithm, blob, self.source, now)
            if is_touched(context, identity):
                identity = replace(identity, second_factor=TOUCH)
            elif required(context, identity, self.source) is not Mfa.NO:
                self._wants_code(identity)
            return succeed(self._proved(identity))
        except Locked as locked:
            self._say_once(Reason(locked.code, locked.detail))
            return fail()
        except (AccessDenied, PartialSuccess):
            return fail()

    def _wants_code(self, identity: Identity) -> NoReturn:
        """What was proved is good, and the first of two steps; PartialSuccess where there can be a second."""
        passwords = self._context.settings.passwords
        if passwords is None or not passwords.has_code(identity.user):
            self._say_once(NONE_THERE)
            raise AccessDenied(
                "Permission denied",
                "a second factor is required, and the user has none",
                code=ReasonCode.SECOND_FACTOR_UNAVAILABLE,
            )
        self._first = identity
        raise PartialSuccess((KEYBOARD_INTERACTIVE,))

    def _say_once(self, text: Reason) -> None:
        """Why it is not enough, to somebody who has proved something; another key does not change it."""
        if text not in self._said:
            self._said.add(text)
            self._userauth.send_banner(f"conchrec: {text}")

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        passwords = self._context.settings.passwords
        if passwords is None:
            # It was offered before the configuration was read again.
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
            self._say_once(Reason(locked.code, locked.detail))
            raise
        identity = replace(identity, second_factor=passwords.second_factor(user))
        if not identity.second_factor and required(self._context, identity, self.source) is not Mfa.NO:
            self._wants_code(identity)
        return self._proved(identity)

    async def _second_step(self, first: Identity, passwords: PasswordLogin, ask: Ask) -> Identity:
        """A code after a key. All that binds the first step binds the login."""
        await passwords.ask_code(first.user, self.source, ask)
        check_unchanged(self._context, passwords, first.user)
        try:
            identity = self._context.settings.credentials.still(first, self.source, self._services.now())
        except AccessDenied as error:
            self._say_once(error.public)
            raise
        return self._proved(replace(identity, second_factor=CODE))

    def _proved(self, identity: Identity) -> Identity:
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
                client=one_line(self.transport.peer_version or b"", 255),
                second_factor=identity.second_factor,
            )
        )
        return identity

    def _refused(self, user: str, method: str, reason: str) -> None:
        self._context.emit(
            events.AuthRefused(user=user, addr=self.address, cid=self.cid, reason=reason, method=method)
        )

    def _logged_in(self, identity: Identity) -> Connection:
        self._door.logged_in(self.source, self)
        self.transport.charge_to(self._services.turns.of_user(identity.user))
        self._connection = Connection(
            self,
            max_channels=self._context.settings.config.limits.channels,
            exceeded=self._channels_exceeded,
            least_packet=LEAST_PACKET,
        )
        return self._connection

    def _channels_exceeded(self, why: str) -> None:
        user = self._identity.user if self._identity is not None else ""
        self._context.emit(
            events.SessionRejected(user=user, addr=self.address, cid=self.cid, reason=why, rule="channels")
        )

    # --- ConnectionHandler

    def connection_started(self, connection: Connection) -> None:
        self.agent.connection = connection
        limits = self._context.settings.config.limits
        self._keepalive = Keepalive(
            connection,
            self.transport,
            self._services.clock,
            interval=limits.keepalive_interval,
            count=limits.keepalive_count_max,
            dead=lambda: self.transport.give_up(UserGone("the client no longer answers keepalive requests")),
        )
        self._context.registry.add_connection(self)
        self._watch_expiry()
        self.transport.registerProducer(_Brakes(self.ways), True)

    def channel_requested(self, opening: IncomingOpen) -> None:
        kind = opening.channel.kind
        if self._leaving:
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(refusals.CONNECTION_ENDING))
        elif kind == b"direct-tcpip":
            self._direct(opening)
        elif kind == b"session":
            if self._no_more_sessions:
                opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(refusals.NO_MORE_SESSIONS))
            else:
                OuterSession(self, self._context, opening)
        else:
            shown = one_line(kind, 40)
            why = Reason(
                ReasonCode.OUTER_CHANNEL_TYPE,
                f"the proxy itself opens no channel of type {shown}. Connect to a target through it (ssh -J)",
            )
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(why))

    def global_requested(self, request: IncomingRequest) -> None:
        if request.name == b"no-more-sessions@openssh.com":
            self._no_more_sessions = True
            request.reply(True)
        else:
            # Also the answer to keepalive@openssh.com: any answer says that we live.
            request.reply(False)

    def connection_stopped(self) -> None:
        self._context.registry.remove_connection(self)
        if self._keepalive is not None:
            self._keepalive.stop()
        for timer in (self._expiry, self._goodbye):
            if timer is not None and timer.active():
                timer.cancel()

    def _lost(self, lost: ConnectionEnd) -> None:
        self._door.left(self.source, self)
        self._context.registry.remove_connection(self)
        self.ways.cut()
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
        """No session outlives what its user came in with."""
        expires = self.identity.expires
        if expires is None:
            return
        left = (expires - self._services.now()).total_seconds()
        if left <= 0:
            what = "certificate" if self.identity.by_certificate else "key"
            self.end_with_reason(
                Reason(ReasonCode.LOGIN_EXPIRED, f"your {what} has expired. Connect again with a valid one")
            )
        else:
            # Timers follow another clock than certificates do: look now and then.
            self._expiry = self._services.clock.callLater(min(left, EXPIRY_LOOK), self._watch_expiry)

    def recheck(self) -> None:
        context, now = self._context, self._services.now()
        if self._leaving:
            return
        try:
            self._identity = context.settings.credentials.still(self.identity, self.source, now)
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
            # What is under way, and takes a moment, has to come to nothing.
            self._identity = replace(self.identity, roles=())
            self.end_with_reason(error.public)
            return
        self.ways.recheck()
        for session in tuple(self.sessions):
            session.recheck()

    def recheck_expired(self, now: datetime) -> None:
        expires = self.identity.expires
        if self._leaving:
            return
        if expires is not None and now >= expires:
            self._watch_expiry()
            return
        self.ways.recheck_expired(now)
        for session in tuple(self.sessions):
            if session.until is not None and now >= session.until:
                session.recheck()

    def end_with_reason(self, reason: str) -> None:
        if self._leaving:
            return
        self._leaving = True
        told = self.ways.end_with_reason(reason)
        looking = [session for session in tuple(self.sessions) if session.leave()]
        goodbye = partial(self.transport.sendDisconnect, 11, f"conchrec: {reason}".encode())
        if told or looking:
            self._goodbye = self._services.clock.callLater(LAST_WORDS_SECONDS, goodbye)
        else:
            goodbye()

    def passthrough_ended(self, text: str) -> None:
        if not self.ways.count and not self.sessions:
            self.end_with_reason(text)

    # --- targets

    def _direct(self, opening: IncomingOpen) -> None:
        """``ssh -J``: the channel is confirmed when the target has shown its banner."""
        asked = m.Forwarded.parse(opening.request.extra)
        Deferred.fromCoroutine(self._open_direct(opening, asked)).addErrback(self._not_opened, opening)

    async def _open_direct(self, opening: IncomingOpen, asked: m.Forwarded) -> None:
        place = await self.ways.approach(named_target(asked.host, str(asked.port)))
        if self._is_over:
            place.drop()
            return
        tunnel = Tunnel(self._services.clock, peer=self._addr, host=self._addr)
        # It gets its window when it is entered.
        tunnel.attach(Stream.accept(opening, tunnel, window=0))
        self.ways.enter(place, tunnel)

    def _not_opened(self, failure: Failure, opening: IncomingOpen) -> None:
        if not failure.check(CancelledError) and not self._is_over and not opening.answered:
            opening.refuse(*refusals.open_failure(as_error(failure)))

    @property
    def _is_over(self) -> bool:
        return self._connection is None or self._connection.stopped


class _Brakes:
    """The user's socket's view of us (IPushProducer)."""

    def __init__(self, ways: TargetConnections) -> None:
        self._ways = ways

    def pauseProducing(self) -> None:
        self._ways.brake(True)

    def resumeProducing(self) -> None:
        self._ways.brake(False)

    def stopProducing(self) -> None:
        """The connection's end is heard of elsewhere."""
