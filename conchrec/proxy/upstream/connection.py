"""One Conch client connection to a target: dial, verify, authenticate, then carry channels.

There is one for each inner connection. It is begun as soon as the inner connection has named the
login and the policy has allowed it, in parallel with the inner login, so that the target's banner
arrives in time. Where only the agent of the inner connection could help, it waits for that.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.policy import rule_for
from conchrec.audit import events
from conchrec.ca.authority import CaKind
from conchrec.clock import DelayedCall
from conchrec.config.model import AgentProbe, UpstreamAuth
from conchrec.errors import (
    ConchrecError,
    LocalViolation,
    LoginRejected,
    Unreachable,
    UpstreamError,
)
from conchrec.model import Target
from conchrec.provenance import Provenance, host_and_port
from conchrec.proxy import refusals
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.dial.dialer import HostCheck, Link
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.candidate_keys import Offers, agent_signers
from conchrec.proxy.upstream.prompts import Questions
from conchrec.proxy.upstream.target_text import TargetText
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.agent import AgentClient, AgentError
from conchrec.ssh.algorithms import LEGACY, MODERN, UPSTREAM, WEAK, Algorithms
from conchrec.ssh.connection import Connection, ConnectionHandler
from conchrec.ssh.hostkeys import HostTrust, HostVerdict
from conchrec.ssh.keepalive import Keepalive
from conchrec.ssh.kexinit import NothingInCommon
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.signers import Signer
from conchrec.ssh.transport import ClientTransport, ConnectionEnd
from conchrec.ssh.userauth import Challenge
from conchrec.ssh.userauth_client import Login, UserAuthClient

_log = Logger()

#: A signature that takes longer waits for a person, who should not keep others from logging in.
PERSON_SECONDS = 0.5
#: To open an agent and to list its keys takes no person, or one who is there.
AGENT_SECONDS = 60.0
#: A connection that was made for its banner, and that nobody logs in on, goes away after this.
UNUSED_SECONDS = 10.0
#: The longest that a login may take with a person in it; sshd's own LoginGraceTime is 2 minutes.
LOGIN_SECONDS = 600.0


class UpstreamState(enum.Enum):
    """The life of an upstream connection."""

    IDLE = "nobody has asked for it yet"
    DIALING = "in line at the gate, or connecting"
    VERIFYING = "exchanging keys"
    AUTHENTICATING = "logging in"
    READY = "channels can be opened"
    LOST = "over, or it never came to be"


NEXT: dict[UpstreamState, frozenset[UpstreamState]] = {
    UpstreamState.IDLE: frozenset({UpstreamState.DIALING, UpstreamState.LOST}),
    UpstreamState.DIALING: frozenset({UpstreamState.VERIFYING, UpstreamState.LOST}),
    UpstreamState.VERIFYING: frozenset({UpstreamState.AUTHENTICATING, UpstreamState.LOST}),
    UpstreamState.AUTHENTICATING: frozenset({UpstreamState.READY, UpstreamState.LOST}),
    UpstreamState.READY: frozenset({UpstreamState.LOST}),
    UpstreamState.LOST: frozenset(),
}


class HostKeyCheck:
    """A ``HostCheck``: what the trust in one target says of the key that it shows."""

    def __init__(self, trust: HostTrust, target: Target, now: Callable[[], object]) -> None:
        self._trust = trust
        self._target = target
        self._now = now
        self.verdict: HostVerdict | None = None

    def __call__(self, blob: bytes) -> None:
        self.verdict = self._trust.verify(self._target, blob, self._now())  # type: ignore[arg-type]


class Upstream:
    """See the module. ``on_banner`` gets the target's banner; ``on_lost`` the end of what was ready."""

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
        self._on_banner = on_banner
        self._on_lost = on_lost
        self._state = UpstreamState.IDLE
        self._offers = Offers(access.identity)
        self.questions = Questions(self._question_asked)
        #: Whatever the target says to the user goes through this.
        self.text = TargetText(str(access.target))
        self._running: Deferred[None] | None = None
        self._settled: list[Deferred[None]] = []
        self._ready: list[Deferred[Connection]] = []
        self._inner_settled: list[Deferred[None]] = []
        self._inner_is_settled = False
        self._waits_for_inner = False
        self._braked: set[str] = set()
        self._agents: list[AgentClient] = []
        self._last_own = False
        self._first_answer: DelayedCall | None = None
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
        return self._state

    @property
    def transport(self) -> ClientTransport | None:
        return self._link.transport if self._link is not None else None

    @property
    def settled(self) -> bool:
        """Ready, failed, or waiting for the inner connection's agent or for a person: the inner login may
        go on."""
        waits = self._waits_for_inner or self.questions.open is not None
        return waits or self._state in (UpstreamState.READY, UpstreamState.LOST)

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
        if self.connection is not None and self._state is UpstreamState.READY:
            done.callback(self.connection)
        elif self._state is UpstreamState.LOST:
            done.errback(
                Failure(
                    self.failure
                    or Unreachable("the connection to the target is gone", code=ReasonCode.TARGET_GONE)
                )
            )
        else:
            self._ready.append(done)
        return done

    def inner_settled(self) -> None:
        """It is known now whether the inner connection has an agent."""
        self._inner_is_settled = True
        self._waits_for_inner = False
        waiting, self._inner_settled = self._inner_settled, []
        for done in waiting:
            done.callback(None)

    def brake(self, reason: str, on: bool) -> None:
        """Read nothing from the target while there is any reason not to."""
        (self._braked.add if on else self._braked.discard)(reason)
        if self.transport is not None:
            self.transport.brake(reason, on)

    # --- life

    def begin(self, version: bytes) -> None:
        """Dial, as the client whose version line is ``version``."""
        self._enter(UpstreamState.DIALING)
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
        if running is not None and self._state is not UpstreamState.READY:
            running.cancel()
        link = self._link
        if link is not None:
            link.slot.release()
            if self._state is UpstreamState.READY and lost is not None and lost.is_silent:
                link.transport.hang_up()
            elif self._state is UpstreamState.READY:
                known = DisconnectReason.assigned(None if lost is None else lost.reason)
                link.transport.sendDisconnect(known, b"disconnected by user")
            else:
                link.transport.abort()
        self._end(Unreachable("the connection was closed", code=ReasonCode.CONNECTION_CLOSED))

    def _nobody_came(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def _enter(self, state: UpstreamState) -> None:
        if state not in NEXT[self._state]:
            raise LocalViolation(f"an upstream connection goes from {self._state.name} to {state.name}")
        self._state = state

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
        self._enter(UpstreamState.VERIFYING)
        transport.when_lost().addCallback(self._transport_lost)
        transport.start(version)
        await dialer.within(
            transport.when_secure(),
            dialer.timeout,
            lambda: Unreachable(
                f"{access.target} accepts connections and then says nothing", code=ReasonCode.TARGET_SILENT
            ),
        )
        self._enter(UpstreamState.AUTHENTICATING)
        connection = Connection(self._handler, refusal_text=self.text.refusal)
        userauth = UserAuthClient(
            access.login.encode(),
            self._next_signer,
            connection,
            on_banner=self._banner,
            peer_extensions=lambda: transport.peer_extensions,
            host_key=lambda: transport.host_key_blob,
            on_signing=self._signing,
            prompter=self._ask if UpstreamAuth.PROMPT in self._ways() else None,
            sha1=_algorithms(access).sha1,
            target=str(access.target),
        )
        self._candidates = self._signers()
        self._first_answer = self._services.clock.callLater(dialer.timeout, self._silent)
        transport.request_service(userauth)
        try:
            login = await dialer.within(
                userauth.done,
                LOGIN_SECONDS,
                lambda: LoginRejected(
                    f"{access.target} took too long to log in", code=ReasonCode.TARGET_LOGIN_TIMEOUT
                ),
            )
        finally:
            self._heard()
            for agent in self._agents:
                agent.close()
            link.slot.release()
        self._logged_in(link, connection, login)

    def _logged_in(self, link: Link, connection: Connection, login: Login) -> None:
        self.connection = connection
        self._enter(UpstreamState.READY)
        limits = self._context.settings.config.limits
        self._keepalive = Keepalive(
            connection,
            link.transport,
            self._services.clock,
            interval=limits.keepalive_interval,
            count=limits.keepalive_count_max,
            dead=lambda: link.transport.give_up(
                Unreachable(f"{self._access.target} does not answer any more", code=ReasonCode.TARGET_SILENT)
            ),
            deaf=lambda: bool(self._braked),
        )
        verdict = link.check.verdict
        algorithms = link.transport.agreed_names
        weak = tuple(name.decode() for name in algorithms if name in WEAK)
        if weak:
            _log.warn(
                "{target} is reached with {weak}", target=str(self._access.target), weak=", ".join(weak)
            )
        reached = Provenance(
            dialled=host_and_port(link.address, self._access.target.port),
            host_key=verdict.fingerprint if verdict is not None else "",
            trust=verdict.trust if verdict is not None else "",
            target_method=",".join(step.decode() for step in login.steps),
            target_key=login.signer.label if login.signer is not None else "",
        )
        self._access.log_in_at_target(reached)
        self._context.emit(
            events.UpstreamConnect(
                **self._access.who(),
                address=link.address,
                method=",".join(step.decode() for step in login.steps),
                key=login.signer.label if login.signer is not None else "",
                host_key=verdict.fingerprint if verdict is not None else "",
                trust=verdict.trust if verdict is not None else "",
                server=refusals.one_line(link.banner.decode("utf-8", "replace"), 255),
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

    def _failed(self, failure: Failure) -> None:
        """``_run`` did not come through."""
        self._running = None
        if self._closed or failure.check(CancelledError):
            return
        lost = self._link.transport.lost if self._link is not None else None
        # The transport knows better why than whoever waited for it.
        error: object = self._explain(lost) if lost is not None else failure.value
        if not isinstance(error, ConchrecError):
            _log.failure("while connecting to {target}", failure=failure, target=str(self._access.target))
            error = UpstreamError(
                f"{self._access.target} can not be reached: internal error", code=ReasonCode.INTERNAL_ERROR
            )
        if isinstance(error, LoginRejected):
            error = self._login_rejected(error)
        self._give_up(error)

    def _give_up(self, error: ConchrecError) -> None:
        if self._state is UpstreamState.LOST:
            return
        self._context.emit(refusals.event(error, self._access.who()))
        link = self._link
        if link is not None:
            link.slot.release()
            link.transport.abort()
        self._end(error)

    def _end(self, error: ConchrecError) -> None:
        if self._state is UpstreamState.LOST:
            return
        self.failure = error
        self._enter(UpstreamState.LOST)
        if self._keepalive is not None:
            self._keepalive.stop()
        self._waits_for_inner = False
        inner, self._inner_settled = self._inner_settled, []
        for done in inner:
            done.cancel()
        self._settle()
        waiting, self._ready = self._ready, []
        for ready in waiting:
            ready.errback(Failure(error))

    def _transport_lost(self, lost: ConnectionEnd) -> None:
        if self._closed or self._state is UpstreamState.LOST:
            return
        was_ready = self._state is UpstreamState.READY
        error = self._explain(lost)
        if was_ready:
            self._end(error)
            self._on_lost(lost)
        else:
            running, self._running = self._running, None
            self._give_up(self._login_rejected(error) if isinstance(error, LoginRejected) else error)
            if running is not None:
                running.addErrback(lambda _: None)
                running.cancel()

    def _explain(self, lost: ConnectionEnd) -> ConchrecError:
        if isinstance(lost.error, UpstreamError):
            return lost.error
        target, why = self._access.target, lost.describe()
        if self._state in (UpstreamState.DIALING, UpstreamState.VERIFYING):
            if isinstance(lost.error, NothingInCommon) and not _algorithms(self._access).sha1:
                why += "; update it, or ask for `algorithms: legacy` in a rule of targets"
            return Unreachable(f"{target}: no secure connection: {why}", code=ReasonCode.NO_SECURE_CONNECTION)
        if self._state is UpstreamState.AUTHENTICATING:
            return LoginRejected(
                f"{target} closed the connection during the login{': ' * bool(why)}{why}",
                code=ReasonCode.TARGET_CLOSED_LOGIN,
            )
        return Unreachable(
            f"{target} closed the connection{': ' * bool(why)}{why}", code=ReasonCode.TARGET_CLOSED
        )

    # --- logging in

    def _banner(self, text: bytes) -> None:
        self._on_banner(self.text.banner(text.decode("utf-8", "replace")))

    def _ask(self, challenge: Challenge) -> Deferred[tuple[str, ...]]:
        """Questions of the target for the user. There is no question of the proxy after them: the target is
        not dialled before every step of the inner login is passed (``inner_login``)."""
        return self.questions.ask(self.text.challenge(challenge))

    def _signing(self, signer: Signer) -> None:
        self._may_wait_for_person()

    def _may_wait_for_person(self) -> None:
        """What takes longer from here on waits for somebody, and leaves the gate to others."""
        if self._link is not None:
            self._services.clock.callLater(PERSON_SECONDS, self._perhaps_a_person, self._link)

    def _question_asked(self) -> None:
        """Somebody has to type: the gate is for others, and the inner login goes on."""
        if self._link is not None:
            self._link.slot.wait_for_person()
        self._settle()

    def _perhaps_a_person(self, link: Link) -> None:
        if self._state is UpstreamState.AUTHENTICATING:
            link.slot.wait_for_person()

    def _next_signer(self, methods: frozenset[bytes]) -> Deferred[Signer | None]:
        return Deferred.fromCoroutine(self._next(methods))

    def _heard(self) -> None:
        if self._first_answer is not None and self._first_answer.active():
            self._first_answer.cancel()

    def _silent(self) -> None:
        """It has exchanged keys, and then does not even say how one may log in."""
        error = Unreachable(
            f"{self._access.target} accepts connections and then says nothing", code=ReasonCode.TARGET_SILENT
        )
        running, self._running = self._running, None
        self._give_up(error)
        if running is not None:
            running.cancel()

    async def _next(self, methods: frozenset[bytes]) -> Signer | None:
        self._heard()
        if self._last_own:
            # It is asked again after our own certificate: the target does not trust our CA.
            self._last_own = False
            self._services.refusals.note(self._access.target, self._access.login)
        if b"publickey" not in methods:
            return None
        try:
            return await self._candidates.__anext__()
        except StopAsyncIteration:
            return None

    def _ways(self) -> tuple[UpstreamAuth, ...]:
        access, config = self._access, self._context.settings.config
        rule = rule_for(config.targets, access.target, access.destination.addresses)
        return (rule.upstream_auth if rule is not None else None) or config.upstream_auth

    async def _signers(self) -> AsyncIterator[Signer]:
        """Every key that may log in, in the order of ``upstream_auth``."""
        access, order, probe = self._access, self._ways(), self._context.settings.config.agent_probe
        asked: list[AgentSource] = []
        for way in order:
            if way is UpstreamAuth.AGENT:
                if access.agents.outer.announced or probe is AgentProbe.ALWAYS:
                    asked.append(access.agents.outer)
                    async for signer in self._from_agent(access.agents.outer):
                        yield signer
                # Its client says so after the inner login, and that is where people are asked.
                if UpstreamAuth.PROMPT not in order:
                    await self._wait_for_inner()
                if access.agents.inner.announced or probe is AgentProbe.ALWAYS:
                    asked.append(access.agents.inner)
                    async for signer in self._from_agent(access.agents.inner):
                        yield signer
            elif way is UpstreamAuth.CERTIFICATE:
                own = await self._own_certificate()
                if own is not None:
                    self._last_own = True
                    yield own
        if UpstreamAuth.AGENT in order and probe is AgentProbe.LAST:
            inner = () if UpstreamAuth.PROMPT in order else (access.agents.inner,)
            for source in (access.agents.outer, *inner):
                if source not in asked and not source.refused:
                    async for signer in self._from_agent(source):
                        yield signer

    async def _wait_for_inner(self) -> None:
        """Until the inner connection has said, or had the time to say, that it has an agent."""
        if self._inner_is_settled:
            return
        done: Deferred[None] = Deferred()
        self._inner_settled.append(done)
        self._waits_for_inner = True
        self._may_wait_for_person()
        self._settle()
        await done

    async def _from_agent(self, source: AgentSource) -> AsyncIterator[Signer]:
        transport = self.transport
        if transport is None or self._offers.spent:
            return
        self._may_wait_for_person()
        within = self._services.dialer.within
        try:
            client = await within(source.open(), AGENT_SECONDS, _agent_is_silent)
            self._agents.append(client)
            bound = client.bind_session(
                host_key=transport.host_key_blob,
                session_id=transport.session_id,
                signature=transport.host_key_signature,
                forwarding=False,
            )
            await within(bound, AGENT_SECONDS, _agent_is_silent)
            identities = await within(client.identities(), AGENT_SECONDS, _agent_is_silent)
        except AgentError as error:
            self._offers.agent_failed(source.path, error.public)
            return
        self._context.emit(events.Agent(**self._access.who(), action="opened", path=source.path))
        signers = agent_signers(
            self._offers,
            client,
            identities,
            login=self._access.login,
            authorities=self._services.authority.trusted(CaKind.USER),
        )
        for signer in signers:
            if self._offers.spent:
                return
            self._offers.count += 1
            yield signer

    async def _own_certificate(self) -> Signer | None:
        access, services = self._access, self._services
        if services.refusals.knows(access.target, access.login):
            self._offers.own = "it refused the user CA a moment ago"
            return None
        try:
            signer, certificate = await services.signing(
                lambda: services.authority.one_connection(
                    access.login, access.identity.user, access.origin.cid, withheld=access.withheld
                )
            )
        except ConchrecError as error:
            self._offers.own = error.public
            return None
        self._offers.own = "offered"
        self._context.emit(
            events.CertCreate(
                **access.who(),
                type="user",
                key_id=certificate.key_id,
                serial=certificate.serial,
                principals=certificate.principals,
                valid_until=certificate.valid_until_text,
                purpose="one connection",
            )
        )
        return signer

    def _login_rejected(self, error: ConchrecError) -> LoginRejected:
        """The sentence that helps most, in place of the list of what was tried."""
        target = self._access.target
        if self.questions.any:
            text = Reason(
                ReasonCode.ANSWERS_REJECTED,
                f"{target} did not let {self._access.login} in by the answers to its questions",
            )
        else:
            text = self._offers.advice(target, self._access.login, self._ways())
        return LoginRejected(text, f"{error.public} {error.detail}".strip(), code=text.code)


def _agent_is_silent() -> AgentError:
    return AgentError("the agent does not answer", code=ReasonCode.AGENT_TIMEOUT)


def new_transport(access: TargetAccess) -> tuple[ClientTransport, HostCheck]:
    """A transport that will greet the target once it is told how."""
    services = access.services
    trust = services.trust(access.target, access.destination.addresses)
    check = HostKeyCheck(trust, access.target, services.now)
    algorithms = _algorithms(access)
    transport = ClientTransport(
        algorithms=algorithms,
        powers=services.diffie_hellman.of_peer(lambda: f"target {access.target}"),
        verify_host_key=check,
        host_key_algorithms=trust.algorithms_for(access.target, sha1=algorithms.sha1),
        version=None,
        clock=services.clock,
        share=services.turns.of_user(access.identity.user),
    )
    return transport, check


def _algorithms(access: TargetAccess) -> Algorithms:
    rule = rule_for(access.settings.config.targets, access.target, access.destination.addresses)
    name = rule.algorithms.value if rule is not None and rule.algorithms is not None else ""
    return {"legacy": LEGACY, "modern": MODERN}.get(name, UPSTREAM)
