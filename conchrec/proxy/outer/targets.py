"""The ways of one user's connection to targets: found, judged, entered, slowed down, and judged again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access import policy
from conchrec.config.target_rules import given_address, located, other_ports
from conchrec.errors import AccessDenied, ConchrecError, Unreachable
from conchrec.model import Identity, Target
from conchrec.proxy import refusals
from conchrec.proxy.agents import AgentSource, UserAgents
from conchrec.proxy.authorization import access_denied, check_connections, check_target_channels, may_reach
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.inner.server import TargetServer
from conchrec.proxy.login import approval_step
from conchrec.proxy.login.second_factor import check as check_second_factor
from conchrec.proxy.relay.passthrough import Passthrough
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_access import Destination, OneTimeProof, Origin, TargetAccess
from conchrec.proxy.upstream.target_transport import new_transport
from conchrec.reasons import ReasonCode

_log = Logger()


class TargetUser(Protocol):
    """Whose they are; the identity is the one of now."""

    agent: AgentSource
    cid: str
    source: str
    address: str
    proofs: OneTimeProof

    @property
    def local(self) -> str:
        """The address and port of the proxy that they connected to."""

    @property
    def identity(self) -> Identity: ...

    def passthrough_ended(self, text: str) -> None:
        """For that reason. Where it was the last way of the user, that ends, too: else nobody reads why."""


class EnterableTarget(Protocol):
    """A target that was found and may be entered, or dropped."""

    def enter(self, tunnel: Tunnel) -> None:
        """Let the user's bytes go there."""

    def left(self) -> None:
        """The tunnel that was entered is over."""

    def drop(self) -> None:
        """Nobody enters it."""


class TargetConnections:
    """See the module."""

    def __init__(self, user: TargetUser, context: ProxyContext) -> None:
        self._user = user
        self._context = context
        self._congested = False
        #: What is slowed down while the user's socket does not drain.
        self._braked: set[Braked] = set()
        self._servers: set[TargetServer] = set()
        self._tunnels: set[Tunnel] = set()
        #: Targets that are looked for, and connections that are made for bytes to pass through.
        self._looking: set[Deferred[EnterableTarget]] = set()
        self._connecting = 0
        #: Nothing is entered any more.
        self._leaving = False

    @property
    def count(self) -> int:
        return len(self._looking) + len(self._braked)

    @property
    def session_count(self) -> int:
        return sum(server.session_count for server in self._servers)

    @property
    def connection_count(self) -> int:
        """To targets."""
        return len(self._braked) + self._connecting - sum(server.is_idle for server in self._servers)

    # --- what changes

    def recheck(self) -> None:
        """What is not allowed any more ends."""
        for one in tuple(self._braked):
            one.recheck(self._user.identity)

    def recheck_expired(self, now: datetime) -> None:
        """What was allowed until now is judged again."""
        for one in tuple(self._braked):
            if one.until is not None and now >= one.until:
                one.recheck(self._user.identity)

    def end_with_reason(self, text: str) -> bool:
        """Say why in every session, then end it. Is there anybody who hears it there?"""
        self._leaving = True
        for server in tuple(self._servers):
            server.end_with_reason(text)
        for one in tuple(self._braked - self._servers):
            one.end_with_reason(text)
        return bool(self._servers)

    def cut(self) -> None:
        """The user is gone."""
        for way in tuple(self._looking):
            way.cancel()
        for tunnel in tuple(self._tunnels):
            tunnel.stream_closed()

    # --- pressure

    def brake(self, on: bool) -> None:
        """The user's socket does not drain, or does again: so do the targets wait, or go on."""
        self._congested = on
        for one in tuple(self._braked):
            one.brake(on)

    def obeys(self, one: Braked) -> None:
        """``one`` sends to this user; it is slowed down with the others until ``over``."""
        self._braked.add(one)
        if self._congested:
            one.brake(True)

    def over(self, one: Braked) -> None:
        self._braked.discard(one)

    def passthrough_ended(self, text: str) -> None:
        self._user.passthrough_ended(text)

    # --- a target

    def approach(self, target: Target) -> Deferred[EnterableTarget]:
        """The way to a target as far as its banner. Fails with AccessDenied or UpstreamError, audited; is
        cancelled when the connection is over."""
        way = Deferred.fromCoroutine(self._approach(target))

        def over(result: EnterableTarget | Failure) -> EnterableTarget | Failure:
            self._looking.discard(way)
            return result

        self._looking.add(way)
        way.addBoth(over)
        return way

    async def _approach(self, target: Target) -> EnterableTarget:
        context, services = self._context, self._context.services
        targets = context.settings.config.targets
        asked, target = target, located(target, targets)
        user = self._user
        access = TargetAccess(
            context,
            Origin(cid=user.cid, source=user.source, address=user.address, local=user.local),
            Destination(target=target, requested=asked),
            identity=user.identity,
            agents=UserAgents(outer=user.agent),
            proofs=user.proofs,
        )
        try:
            check_target_channels(access)
            ports = other_ports(asked, target, targets)
            if never := policy.hopeless(
                context.settings.policy,
                access.identity,
                target,
                access.origin.source,
                services.now(),
                other_ports=ports,
            ):
                raise access_denied(never)
            given = given_address(target, targets)
            access.set_resolved(given or await services.resolve(access.identity.user, target.host))
            self._may_reach(access)
            if not access.destination.addresses:
                raise Unreachable(
                    f"cannot reach {target}: no such host. Check the name (the proxy resolves it)",
                    code=ReasonCode.HOST_NOT_FOUND,
                )
            if context.settings.config.session_recording.records:
                # Here, where it may take long: the inner server finds it made.
                await services.signing(lambda: services.authority.inner_host_keys(asked.host, asked.port))
                banner, link = await services.dialer.look(
                    target,
                    access.destination.addresses,
                    access.identity.user,
                    lambda _: new_transport(access),
                )
                found = _Recorded(self, access, banner, link)
                # All that takes time is time in which the policy may change.
                return self._still_allowed(found, lambda: self._may_reach(access))
            if access.identity.force_command:
                raise AccessDenied(
                    "your certificate has a force-command, and this proxy cannot enforce it while "
                    "session_recording is off or node. Use another certificate or key",
                    rule="force-command",
                    code=ReasonCode.FORCE_COMMAND_UNRECORDED,
                )
            answer = may_reach(access)
            access.set_allowed(answer)
            check_connections(access)
            check_second_factor(answer.options.require_mfa, access.identity, self._user.proofs, "connection")
            access.record_second_factor(access.identity.second_factor)
            approval_step.check(access)
            passthrough = Passthrough(access)
            self._connecting += 1
            try:
                await passthrough.connect()
            finally:
                self._connecting -= 1
            access.set_identity(self._user.identity)
            return self._still_allowed(_Unrecorded(self, passthrough), passthrough.judge)
        except ConchrecError as error:
            context.emit(refusals.event(error, access.who()))
            raise

    def _may_reach(self, access: TargetAccess) -> None:
        """As the policy and the user are now. Raises AccessDenied."""
        access.set_identity(self._user.identity)
        access.set_permitted_addresses(may_reach(access).addresses)

    @staticmethod
    def _still_allowed(place: EnterableTarget, judge: Callable[[], None]) -> EnterableTarget:
        """Raises AccessDenied, and drops it."""
        try:
            judge()
        except AccessDenied:
            place.drop()
            raise
        return place

    def enter(self, place: EnterableTarget, tunnel: Tunnel) -> None:
        """Let the user's bytes go there."""
        if self._leaving:
            place.drop()
            tunnel.abortConnection()
            return
        self._tunnels.add(tunnel)
        memory, user = self._context.services.tunnel_memory, self._user.identity.user
        room = memory.reserve(user)
        tunnel.set_capacity(room)

        def closed() -> None:
            self._tunnels.discard(tunnel)
            memory.release(user, room)
            place.left()

        tunnel.notify_closed(closed)
        try:
            place.enter(tunnel)
        except Exception:
            _log.failure("internal error at the start of a tunnel")
            tunnel.abortConnection()

    def serve(self, access: TargetAccess, tunnel: Tunnel, banner: bytes, link: Link | None) -> None:
        server = TargetServer(
            access, tunnel, banner=banner, link=link, over=lambda: self._server_over(server, tunnel)
        )
        self._servers.add(server)

        def pause(on: bool) -> None:
            server.upstream.brake("bandwidth", on)
            tunnel.hold("bandwidth", on)

        self._meter(access, tunnel, pause)
        self.obeys(server)
        server.start()

    def meter_passthrough(self, passthrough: Passthrough, tunnel: Tunnel) -> None:
        def pause(on: bool) -> None:
            passthrough.slow_down(on)
            tunnel.hold("bandwidth", on)

        self._meter(passthrough.access, tunnel, pause)

    def _meter(self, access: TargetAccess, tunnel: Tunnel, pause: Callable[[bool], None]) -> None:
        """Count its bytes, where there is a limit now."""
        bandwidth = self._context.services.bandwidth

        def rates() -> tuple[int, int]:
            limits = self._context.settings.config.limits
            return limits.bandwidth_per_user, limits.bandwidth_per_target

        if any(rates()):
            tunnel.on_bytes = bandwidth.meter(access.identity.user, access.target, rates, pause)

    def _server_over(self, server: TargetServer, tunnel: Tunnel) -> None:
        self._servers.discard(server)
        self.over(server)
        self._tunnels.discard(tunnel)


class Braked(Protocol):
    """Something that sends to the user."""

    def brake(self, on: bool) -> None: ...

    def end_with_reason(self, text: str) -> None: ...

    @property
    def until(self) -> datetime | None:
        """When it has to be judged again; None: not by itself."""

    def recheck(self, identity: Identity) -> None:
        """What is not allowed any more ends; ``identity`` is the user as of now."""


class _Recorded:
    def __init__(
        self, ways: TargetConnections, access: TargetAccess, banner: bytes, link: Link | None
    ) -> None:
        self._ways = ways
        self._access = access
        self._banner = banner
        self._link = link

    def enter(self, tunnel: Tunnel) -> None:
        self._ways.serve(self._access, tunnel, self._banner, self._link)

    def left(self) -> None:
        """The inner server learns it from its transport."""

    def drop(self) -> None:
        if self._link is not None:
            self._link.drop()


class _Unrecorded:
    def __init__(self, ways: TargetConnections, passthrough: Passthrough) -> None:
        self._ways = ways
        self._passthrough = passthrough

    def enter(self, tunnel: Tunnel) -> None:
        ways, passthrough = self._ways, self._passthrough
        ways.meter_passthrough(passthrough, tunnel)
        ways.obeys(passthrough)
        passthrough.enter(tunnel, lambda: ways.over(passthrough), ways.passthrough_ended)

    def left(self) -> None:
        self._ways.over(self._passthrough)
        self._passthrough.drop()

    def drop(self) -> None:
        self._passthrough.drop()
