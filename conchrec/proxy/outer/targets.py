"""The connections of one user to targets: they are checked, opened, slowed down, and checked again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access import policy
from conchrec.config.target_rules import given_address, located, other_ports
from conchrec.coroutines import run_coroutine
from conchrec.errors import AccessDenied, ConchrecError, Unreachable
from conchrec.model import Identity, Target
from conchrec.proxy import refusals
from conchrec.proxy.authorization import access_denied, may_reach
from conchrec.proxy.connection_counts import check_connections, check_target_channels
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.inner.server import TargetServer
from conchrec.proxy.login import approval_step
from conchrec.proxy.login.second_factor import check_proof
from conchrec.proxy.outer.user import OuterUser
from conchrec.proxy.relay.passthrough import Passthrough
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_access import Destination, TargetAccess
from conchrec.proxy.upstream.target_transport import new_transport
from conchrec.reasons import ReasonCode

_log = Logger()


class ConnectedTarget(Protocol):
    """A target that the user may reach, and that has sent its identification string."""

    def start(self, tunnel: Tunnel) -> None:
        """Begin to forward the bytes of the user's channel."""

    def tunnel_closed(self) -> None:
        """Handle the end of the user's channel."""

    def drop(self) -> None:
        """Close a connection for which no channel was opened."""


class TargetConnections:
    """All connections to targets of one outer connection.

    ``on_passthrough_end`` is called with the reason when a connection that nothing records has ended: it
    cannot show the reason itself.
    """

    __slots__ = (
        "_congested", "_context", "_is_ending", "_live", "_on_passthrough_end", "_pending",
        "_pending_passthroughs", "_servers", "_tunnels", "_user",
    )  # fmt: skip

    def __init__(
        self, user: OuterUser, context: ProxyContext, *, on_passthrough_end: Callable[[str], None]
    ) -> None:
        self._user = user
        self._context = context
        self._on_passthrough_end = on_passthrough_end
        self._congested = False
        #: Every target that sends to the user: the servers, and what passes through.
        self._live: set[LiveTarget] = set()
        self._servers: set[TargetServer] = set()
        self._tunnels: set[Tunnel] = set()
        #: Connections that are not open yet, and how many of them will pass through.
        self._pending: set[Deferred[ConnectedTarget]] = set()
        self._pending_passthroughs = 0
        #: The outer connection is ending: no tunnel is attached any more.
        self._is_ending = False

    @property
    def count(self) -> int:
        """Channels to targets, with those whose target is not connected yet."""
        return len(self._pending) + len(self._live)

    @property
    def session_count(self) -> int:
        """Sessions at targets."""
        return sum(server.session_count for server in self._servers)

    @property
    def connection_count(self) -> int:
        """Connections to targets; one that nobody has logged in on does not count."""
        idle = sum(server.is_idle for server in self._servers)
        return len(self._live) + self._pending_passthroughs - idle

    # --- changes

    def recheck(self) -> None:
        """Decide again about every target; one that is not allowed any more ends."""
        for live in tuple(self._live):
            live.recheck(self._user.identity)

    def recheck_expired(self, now: datetime) -> None:
        """Decide again about each target that was allowed until a time that has passed at ``now``."""
        for live in tuple(self._live):
            if live.until is not None and now >= live.until:
                live.recheck(self._user.identity)

    def end_with_reason(self, reason: str) -> bool:
        """Show the reason in every session, then end it. Return whether there is a session to show it in."""
        self._is_ending = True
        for server in tuple(self._servers):
            server.end_with_reason(reason)
        for live in tuple(self._live - self._servers):
            live.end_with_reason(reason)
        return bool(self._servers)

    def close(self) -> None:
        """End everything: the user's connection is closed."""
        for pending in tuple(self._pending):
            pending.cancel()
        for tunnel in tuple(self._tunnels):
            tunnel.stream_closed()
        self._on_passthrough_end = lambda reason: None

    # --- backpressure

    def brake(self, on: bool) -> None:
        """Stop reading from the targets while the user's socket does not take more."""
        self._congested = on
        for live in tuple(self._live):
            live.brake(on)

    def add_live(self, target: LiveTarget) -> None:
        """Add a target that sends to this user, until ``remove_live``."""
        self._live.add(target)
        if self._congested:
            target.brake(True)

    def remove_live(self, target: LiveTarget) -> None:
        """Remove a target that has ended."""
        self._live.discard(target)

    def passthrough_ended(self, reason: str) -> None:
        """Pass on why a connection that nothing records has ended."""
        self._on_passthrough_end(reason)

    # --- a target

    def connect_to(self, target: Target) -> Deferred[ConnectedTarget]:
        """Check that the user may reach a target, and connect as far as its identification string.

        Fails with AccessDenied or UpstreamError, audited; is cancelled when the outer connection ends.
        """
        pending = run_coroutine(self._connect_to(target))

        def settled(result: ConnectedTarget | Failure) -> ConnectedTarget | Failure:
            self._pending.discard(pending)
            return result

        self._pending.add(pending)
        pending.addBoth(settled)
        return pending

    async def _connect_to(self, requested: Target) -> ConnectedTarget:
        context, services = self._context, self._context.services
        targets = context.settings.config.targets
        target = located(requested, targets)
        user = self._user
        destination = Destination(target=target, requested=requested)
        access = TargetAccess(context, user.origin(), destination, identity=user.identity)
        try:
            check_target_channels(access)
            ports = other_ports(requested, target, targets)
            if denial := policy.denial_without_addresses(
                context.settings.policy,
                access.identity,
                target,
                access.origin.source,
                services.now(),
                other_ports=ports,
            ):
                raise access_denied(denial)
            configured = given_address(target, targets)
            access.set_resolved(configured or await services.resolve(access.identity.user, target.host))
            self._may_reach(access)
            if not access.destination.addresses:
                raise Unreachable(
                    f"cannot reach {target}: no such host. Check the name (the proxy resolves it)",
                    code=ReasonCode.HOST_NOT_FOUND,
                )
            if context.settings.config.session_recording.records:
                # The certificate of the inner server is made here, where a slow CA delays nothing else.
                await services.signing(
                    lambda: services.authority.inner_host_keys(requested.host, requested.port)
                )
                identification, link = await services.dialer.identify(
                    target,
                    access.destination.addresses,
                    access.identity.user,
                    lambda _: new_transport(access),
                )
                recorded = _RecordedTarget(self, access, identification, link)
                # The policy may have changed since the first check.
                return self._check_again(recorded, lambda: self._may_reach(access))
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
            check_proof(answer.options.require_mfa, access.identity, self._user.proofs, "connection")
            access.record_second_factor(access.identity.second_factor)
            approval_step.check_advance_approval(access)
            passthrough = Passthrough(access)
            self._pending_passthroughs += 1
            try:
                await passthrough.connect()
            finally:
                self._pending_passthroughs -= 1
            access.set_identity(self._user.identity)
            return self._check_again(_PassthroughTarget(self, passthrough), passthrough.check_allowed)
        except ConchrecError as error:
            context.emit(refusals.failure_event(error, access.who()))
            raise

    def _may_reach(self, access: TargetAccess) -> None:
        """Check with the policy and the user as of now. Raises AccessDenied."""
        access.set_identity(self._user.identity)
        access.set_permitted_addresses(may_reach(access).addresses)

    @staticmethod
    def _check_again(target: ConnectedTarget, check: Callable[[], None]) -> ConnectedTarget:
        """Return the target if ``check`` passes; else drop it. Raises AccessDenied."""
        try:
            check()
        except AccessDenied:
            target.drop()
            raise
        return target

    def new_tunnel(self) -> Tunnel:
        """Return a tunnel for a channel of the user. It carries nothing before ``attach_tunnel``."""
        return Tunnel(self._context.services.turns)

    def attach_tunnel(self, target: ConnectedTarget, tunnel: Tunnel) -> None:
        """Begin to forward between the user's channel and a connected target."""
        if self._is_ending:
            target.drop()
            tunnel.abortConnection()
            return
        self._tunnels.add(tunnel)
        memory, user = self._context.services.tunnel_memory, self._user.identity.user
        window = memory.reserve(user)
        tunnel.set_capacity(window)

        def closed() -> None:
            self._tunnels.discard(tunnel)
            memory.release(user, window)
            target.tunnel_closed()

        tunnel.notify_closed(closed)
        try:
            target.start(tunnel)
        except Exception:
            _log.failure("internal error at the start of a tunnel")
            tunnel.abortConnection()

    def serve(self, access: TargetAccess, tunnel: Tunnel, identification: bytes, link: Link | None) -> None:
        """Start the inner server for a target whose sessions are recorded."""
        server = TargetServer(
            access,
            tunnel,
            identification=identification,
            link=link,
            on_end=lambda: self._server_over(server, tunnel),
        )
        self._servers.add(server)

        # A pause may be longer than the connection: the server has no upstream then.
        upstream = server.upstream

        def pause(on: bool) -> None:
            upstream.brake("bandwidth", on)
            tunnel.hold("bandwidth", on)

        self._meter(access, tunnel, pause)
        self.add_live(server)
        server.start()

    def meter_passthrough(self, passthrough: Passthrough, tunnel: Tunnel) -> None:
        """Apply the bandwidth limits to a connection that nothing records."""

        def pause(on: bool) -> None:
            passthrough.slow_down(on)
            tunnel.hold("bandwidth", on)

        self._meter(passthrough.access, tunnel, pause)

    def _meter(self, access: TargetAccess, tunnel: Tunnel, pause: Callable[[bool], None]) -> None:
        """Count the bytes of a tunnel, where the configuration has a bandwidth limit now."""
        bandwidth = self._context.services.bandwidth

        def rates() -> tuple[int, int]:
            limits = self._context.settings.config.limits
            return limits.bandwidth_per_user, limits.bandwidth_per_target

        if any(rates()):
            tunnel.on_bytes = bandwidth.meter(access.identity.user, access.target, rates, pause)

    def _server_over(self, server: TargetServer, tunnel: Tunnel) -> None:
        self._servers.discard(server)
        self.remove_live(server)
        self._tunnels.discard(tunnel)


class LiveTarget(Protocol):
    """A target that sends to the user."""

    def brake(self, on: bool) -> None:
        """Stop reading from the target, or go on."""

    def end_with_reason(self, reason: str) -> None:
        """Show the reason where that is possible, then end."""

    @property
    def until(self) -> datetime | None:
        """When the policy must decide again; None if time changes nothing."""

    def recheck(self, identity: Identity) -> None:
        """Decide again, and end what is not allowed any more; ``identity`` is the user as of now."""


class _RecordedTarget:
    """A ConnectedTarget with an inner server, which records the sessions."""

    __slots__ = (
        "_access", "_connections", "_identification", "_link",
    )  # fmt: skip

    def __init__(
        self, connections: TargetConnections, access: TargetAccess, identification: bytes, link: Link | None
    ) -> None:
        self._connections = connections
        self._access = access
        self._identification = identification
        self._link = link

    def start(self, tunnel: Tunnel) -> None:
        self._connections.serve(self._access, tunnel, self._identification, self._link)

    def tunnel_closed(self) -> None:
        """Do nothing: the inner server's transport reports it."""

    def drop(self) -> None:
        if self._link is not None:
            self._link.drop()


class _PassthroughTarget:
    """A ConnectedTarget whose bytes pass through unread (``session_recording: off`` or ``node``)."""

    def __init__(self, connections: TargetConnections, passthrough: Passthrough) -> None:
        self._connections = connections
        self._passthrough = passthrough

    def start(self, tunnel: Tunnel) -> None:
        connections, passthrough = self._connections, self._passthrough
        connections.meter_passthrough(passthrough, tunnel)
        connections.add_live(passthrough)
        passthrough.start(tunnel, lambda: connections.remove_live(passthrough), connections.passthrough_ended)

    def tunnel_closed(self) -> None:
        self._connections.remove_live(self._passthrough)
        self._passthrough.drop()

    def drop(self) -> None:
        self._passthrough.drop()
