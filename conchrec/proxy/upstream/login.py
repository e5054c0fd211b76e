"""The login at a target: which keys are offered, in which order, and which questions the user gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred

from conchrec.access.host_rules import rule_for
from conchrec.audit import events
from conchrec.ca.authority import CaKind
from conchrec.clock import DelayedCall
from conchrec.config.model import AgentProbe, UpstreamAuth
from conchrec.coroutines import run_coroutine
from conchrec.errors import ConchrecError, LoginRejected, without_traceback
from conchrec.proxy.agents import ANSWER_SECONDS, AgentSource
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.candidate_keys import Offers, agent_signers
from conchrec.proxy.upstream.lifecycle import UpstreamLifecycle, UpstreamState
from conchrec.proxy.upstream.prompts import Questions
from conchrec.proxy.upstream.target_text import TargetText
from conchrec.proxy.upstream.target_transport import algorithms_of
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.agent import AgentClient, AgentError
from conchrec.ssh.connection import Connection
from conchrec.ssh.signers import Signer
from conchrec.ssh.transport import ClientTransport
from conchrec.ssh.userauth import Challenge
from conchrec.ssh.userauth_client import Login, UserAuthClient
from conchrec.text import decode_text

#: A signature that takes longer waits for a person; then the place in the gate is released to other logins.
PERSON_SECONDS = 0.5
#: The longest that a login may take with a person in it; sshd's own LoginGraceTime is 2 minutes by default.
LOGIN_SECONDS = 600.0
#: In the last message of a server that rejected more keys than it allows (OpenSSH's words, in lower case).
_TOO_MANY_TRIES = "too many authentication failures"


def auth_methods(access: TargetAccess) -> tuple[UpstreamAuth, ...]:
    """How the proxy may log in at the target: by its rule (``targets``), else by ``upstream_auth``."""
    config = access.settings.config
    rule = rule_for(config.targets, access.target, access.destination.addresses)
    return (rule.upstream_auth if rule is not None else None) or config.upstream_auth


class InnerAgentWait:
    """Waits until the inner connection has announced an agent, or had the time to do so."""

    __slots__ = ("_is_settled", "_waiting", "is_waiting")

    def __init__(self) -> None:
        self._is_settled = False
        self._waiting: list[Deferred[None]] = []
        #: The login at the target waits for it.
        self.is_waiting = False

    @property
    def is_settled(self) -> bool:
        """Whether it is known if the user has an agent."""
        return self._is_settled

    def settle(self) -> None:
        """End the wait: it is known now."""
        self._is_settled = True
        self.is_waiting = False
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def begin(self) -> Deferred[None]:
        """Wait: fires with ``settle``. Only while it is not known."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self.is_waiting = True
        return done

    def cancel(self) -> None:
        """Cancel the wait: the connection has ended."""
        self.is_waiting = False
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.cancel()


class LoginKeys:
    """The keys to log in with, in the order of ``upstream_auth``: of the user's agents, and our certificate.

    ``wait_for_inner`` waits for the inner connection's agent; ``may_wait_for_person`` is called before a step
    that may wait for the user.
    """

    def __init__(
        self,
        access: TargetAccess,
        transport: ClientTransport,
        offers: Offers,
        *,
        wait_for_inner: Callable[[], Deferred[None] | None],
        may_wait_for_person: Callable[[], None],
    ) -> None:
        self._access = access
        self._services = access.services
        self._transport = transport
        self._offers = offers
        self._wait_for_inner = wait_for_inner
        self._may_wait_for_person = may_wait_for_person
        self._agents: list[AgentClient] = []
        #: The last key was our own certificate.
        self._last_own = False
        self._signers = self._in_order()

    async def next(self, methods: frozenset[bytes]) -> Signer | None:
        """Return the next key to offer to a target that accepts ``methods``; None if none is left."""
        if self._last_own:
            # This call means that the target rejected our certificate.
            self._last_own = False
            self._services.certificate_rejections.add(self._access.target, self._access.login)
        if b"publickey" not in methods:
            return None
        try:
            return await self._signers.__anext__()
        except StopAsyncIteration:
            return None

    def close(self) -> None:
        """Close the agents: the login is over."""
        for agent in self._agents:
            agent.close()
        # It refers to this object.
        del self._signers

    async def _in_order(self) -> AsyncIterator[Signer]:
        access, order = self._access, auth_methods(self._access)
        probe = access.settings.config.agent_probe
        tried: list[AgentSource] = []
        for method in order:
            if method is UpstreamAuth.AGENT:
                if access.agents.outer.announced or probe is AgentProbe.ALWAYS:
                    tried.append(access.agents.outer)
                    async for signer in self._from_agent(access.agents.outer):
                        yield signer
                # A client announces its agent after the inner login; with ``prompt`` the login at the target
                # must be over by then, because its questions are asked in the inner login.
                if UpstreamAuth.PROMPT not in order and (waiting := self._wait_for_inner()) is not None:
                    await waiting
                if access.agents.inner.announced or probe is AgentProbe.ALWAYS:
                    tried.append(access.agents.inner)
                    async for signer in self._from_agent(access.agents.inner):
                        yield signer
            elif method is UpstreamAuth.CERTIFICATE:
                own = await self._own_certificate()
                if own is not None:
                    self._last_own = True
                    yield own
        if UpstreamAuth.AGENT in order and probe is AgentProbe.LAST:
            inner = () if UpstreamAuth.PROMPT in order else (access.agents.inner,)
            for source in (access.agents.outer, *inner):
                if source not in tried and not source.refused:
                    async for signer in self._from_agent(source):
                        yield signer

    async def _from_agent(self, source: AgentSource) -> AsyncIterator[Signer]:
        if self._offers.is_exhausted:
            return
        self._may_wait_for_person()
        within = self._services.dialer.within
        try:
            client = await within(source.open(), ANSWER_SECONDS, _agent_is_silent)
            self._agents.append(client)
            bound = client.bind_session(self._transport.session_binding, forwarding=False)
            await within(bound, ANSWER_SECONDS, _agent_is_silent)
            identities = await within(client.identities(), ANSWER_SECONDS, _agent_is_silent)
        except AgentError as error:
            without_traceback(error)
            self._offers.agent_failed(source.path, error.public)
            if source.announced and error.code is ReasonCode.AGENT_TIMEOUT:
                self._offers.has_silent_agent = True
            return
        self._access.context.emit(events.Agent(**self._access.who(), action="opened", path=source.path))
        signers = agent_signers(
            self._offers,
            client,
            identities,
            login=self._access.login,
            authorities=self._services.authority.trusted(CaKind.USER),
        )
        for signer in signers:
            if self._offers.is_exhausted:
                return
            self._offers.count += 1
            yield signer

    async def _own_certificate(self) -> Signer | None:
        access, services = self._access, self._services
        if services.certificate_rejections.contains(access.target, access.login):
            self._offers.own = "the target rejected one a few minutes ago"
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
        access.context.emit(
            events.CertCreate(
                **access.who(),
                type="user",
                key_id=certificate.key_id,
                serial=str(certificate.serial),
                principals=certificate.principals,
                valid_until=certificate.valid_until_text,
                purpose="one connection",
            )
        )
        return signer


class TargetLogin:
    """One login at a target.

    ``on_banner`` gets the target's banner; ``settled`` is called when the login waits for the inner
    connection's agent, or for the user.
    """

    __slots__ = (
        "_access", "_first_answer", "_lifecycle", "_link", "_offers", "_on_banner", "_settled",
        "_text", "inner_agent", "questions",
    )  # fmt: skip

    def __init__(
        self,
        access: TargetAccess,
        lifecycle: UpstreamLifecycle,
        text: TargetText,
        *,
        on_banner: Callable[[str], None],
        settled: Callable[[], None],
    ) -> None:
        self._access = access
        self._lifecycle = lifecycle
        self._text = text
        self._on_banner = on_banner
        self._settled = settled
        self._offers = Offers(access.identity)
        self.questions = Questions()
        self.inner_agent = InnerAgentWait()
        self._link: Link | None = None
        self._first_answer: DelayedCall | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for the inner connection's agent, or for the user."""
        return self.inner_agent.is_waiting or self.questions.open is not None

    async def run(self, link: Link, connection: Connection, silent: Callable[[], None]) -> Login:
        """Log in, and begin ``connection``. Raises ConchrecError.

        ``silent`` is called if the target does not answer the first message.
        """
        access, services, transport = self._access, self._access.services, link.transport
        dialer = services.dialer
        self._link = link
        keys = LoginKeys(
            access,
            transport,
            self._offers,
            wait_for_inner=self._wait_for_inner,
            may_wait_for_person=self._may_wait_for_person,
        )

        async def next_signer(methods: frozenset[bytes]) -> Signer | None:
            self._answered()
            return await keys.next(methods)

        userauth = UserAuthClient(
            access.login.encode(),
            lambda methods: run_coroutine(next_signer(methods)),
            connection,
            on_banner=self._banner,
            peer_extensions=lambda: transport.peer_extensions,
            host_key=lambda: transport.host_key_blob,
            on_signing=lambda signer: self._may_wait_for_person(),
            prompter=self._ask if UpstreamAuth.PROMPT in auth_methods(access) else None,
            sha1=algorithms_of(access).sha1,
            target=str(access.target),
        )
        self._first_answer = services.clock.callLater(dialer.timeout, silent)
        transport.request_service(userauth)
        try:
            return await dialer.within(
                userauth.done,
                LOGIN_SECONDS,
                lambda: LoginRejected(
                    f"the login at {access.target} took longer than {LOGIN_SECONDS / 60:g} minutes",
                    code=ReasonCode.TARGET_LOGIN_TIMEOUT,
                ),
            )
        finally:
            self._answered()
            keys.close()
            link.slot.release()

    def rejected(self, error: ConchrecError) -> LoginRejected:
        """What to do about a failed login, in place of the list of what was tried.

        Where the target ended the login itself, its reason stays, and the advice follows it.
        """
        target = self._access.target
        if self.questions.any:
            text = Reason(
                ReasonCode.ANSWERS_REJECTED,
                f"{target} rejected the answers for {self._access.login}. "
                "Connect again, and check the password or code",
            )
        else:
            text = self._offers.advice(target, self._access.login, auth_methods(self._access))
        if error.code is ReasonCode.TARGET_CLOSED_LOGIN and _TOO_MANY_TRIES in error.public.casefold():
            text = Reason(text.code, f"{error.public}. {self._offers.fewer_tries(target)}")
        elif error.code in (ReasonCode.TARGET_CLOSED_LOGIN, ReasonCode.TARGET_LOGIN_TIMEOUT):
            text = Reason(text.code, f"{error.public}. Possible cause: {text}")
        return LoginRejected(text, f"{error.public} {error.detail}".strip(), code=text.code)

    def _banner(self, text: bytes) -> None:
        self._on_banner(self._text.banner(decode_text(text)))

    def _ask(self, challenge: Challenge) -> Deferred[tuple[str, ...]]:
        """Ask the user a question of the target, and let the inner login continue.

        Others may use the place in the gate while the person answers. No question of the proxy follows it:
        the target is not dialled before every step of the inner login has passed (``inner.login``).
        """
        answers = self.questions.ask(self._text.challenge(challenge))
        if self._link is not None:
            self._link.slot.wait_for_person()
        self._settled()
        return answers

    def _may_wait_for_person(self) -> None:
        """Release the place in the gate to other logins if this step takes long."""
        if self._link is not None:
            self._access.services.clock.callLater(PERSON_SECONDS, self._release_gate, self._link)

    def _release_gate(self, link: Link) -> None:
        if self._lifecycle.state is UpstreamState.AUTHENTICATING:
            link.slot.wait_for_person()

    def _wait_for_inner(self) -> Deferred[None] | None:
        if self.inner_agent.is_settled:
            return None
        done = self.inner_agent.begin()
        self._may_wait_for_person()
        self._settled()
        return done

    def _answered(self) -> None:
        """Stop the timer: the target has answered the first message."""
        timer, self._first_answer = self._first_answer, None
        if timer is not None and timer.active():
            timer.cancel()


def _agent_is_silent() -> AgentError:
    return AgentError("the agent does not answer", code=ReasonCode.AGENT_TIMEOUT)
