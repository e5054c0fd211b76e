"""Forwards of one inner connection: ports, sockets, X11 and the agent, if the role allows them.

Includes the channels that the user opens, those that the target opens because the user requested it before,
and the global requests of both sides. All of them are audited, with byte counts.
"""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.errors import ConchrecError
from conchrec.proxy import refusals
from conchrec.proxy.inner.agent_forwarding import ForwardedAgent
from conchrec.proxy.inner.dropped_messages import dropped_event
from conchrec.proxy.inner.forward_rules import DIRECT, FORWARDED, NOT_ALLOWED, ForwardRules
from conchrec.proxy.inner.forwarded_channels import ForwardedChannel, PortForward, X11Channel
from conchrec.proxy.inner.global_requests import GlobalRequests
from conchrec.proxy.inner.unknown_messages import shown_text, unknown_channel
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.wire import Malformed, Truncated
from conchrec.text import one_line

_log = Logger()


class Forwards:
    """All forwards of one inner connection."""

    __slots__ = (
        "_access", "_context", "_live", "_requests", "_rules", "_upstream", "user",
    )  # fmt: skip

    def __init__(self, access: TargetAccess, upstream: Upstream) -> None:
        self._access = access
        self._context = access.context
        self._upstream = upstream
        self._rules = ForwardRules(access)
        self._requests = GlobalRequests(access, upstream, self._rules)
        self._live: set[ForwardedChannel | ForwardedAgent] = set()
        #: The inner connection; None before the login.
        self.user: Connection | None = None

    def recheck(self) -> None:
        """End the forwards that are no longer allowed."""
        options = self._rules.options
        for channel in tuple(self._live):
            if not all(getattr(options, option) for option in channel.options):
                channel.end(refusals.NO_LONGER_ALLOWED)
        self._requests.recheck()

    # --- global requests

    def request_from_user(self, request: IncomingRequest) -> None:
        """Handle a global request of the user that the inner server does not answer itself."""
        self._requests.request_from_user(request)

    def request_from_target(self, request: IncomingRequest) -> None:
        """Handle a global request of the target."""
        self._requests.request_from_target(request, self.user)

    # --- channels that the user opens

    def open_from_user(self, opening: IncomingOpen) -> None:
        """Handle ``direct-tcpip`` or ``direct-streamlocal@openssh.com``."""
        kind = DIRECT[opening.channel.kind]
        if (ends := self._parse_ends(opening, "user")) is None:
            return
        destination, origin = ends
        if self._access.denied is not None:
            opening.refuse(*refusals.open_failure(self._access.denied))
            return
        if not self._rules.allows(kind):
            self._refuse(opening, kind, destination)
            return
        self._upstream.inner_settled()
        forward = PortForward(
            self._access, opening, kind, destination, origin, user_is_near=True, live=self._live
        )
        self._upstream.when_ready().addCallbacks(
            lambda connection: forward.relay.open_far(connection),
            lambda failure: _fail(opening, failure),
        )

    def _refuse(self, opening: IncomingOpen, kind: str, destination: str) -> None:
        self._context.emit(
            events.Port(
                **self._access.who(),
                kind=kind,
                action="refused",
                destination=destination,
                reason=NOT_ALLOWED,
                rule=self._rules.find_closed_option(kind).rule,
            )
        )
        user, host = self._access.identity.user, self._access.target.host
        why = self._rules.find_closed_option(kind).why
        text = f"{user} may not forward ports on {host} ({why})"
        reason = Reason(ReasonCode.FORWARD_NOT_ALLOWED, text)
        opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(reason))

    # --- channels that the target opens

    def open_from_target(self, opening: IncomingOpen) -> None:
        """Handle a channel for a port, a socket, X11 or the agent; refused if the user did not request it."""
        kind, user, access = opening.channel.kind, self.user, self._access
        options = self._rules.options
        if user is None or user.stopped:
            opening.refuse(m.CONNECT_FAILED, Reason(ReasonCode.USER_GONE, "the user has disconnected"))
        elif kind in FORWARDED and self._requests.granted_count > 0 and self._rules.allows(FORWARDED[kind]):
            if (ends := self._parse_ends(opening, "target")) is not None:
                forward = PortForward(
                    access, opening, FORWARDED[kind], *ends, user_is_near=False, live=self._live
                )
                forward.relay.open_far(user)
        elif kind == b"x11" and access.activity.x11_requested and options.x11_forwarding:
            if (ends := self._parse_ends(opening, "target")) is not None:
                X11Channel(access, opening, ends[1], self._live).relay.open_far(user)
        elif kind in m.AGENT_CHANNELS and access.activity.agent_requested and options.forward_agent:
            transport = self._upstream.transport
            binding = transport.session_binding if transport is not None else None
            agent = ForwardedAgent(access, opening, binding, on_end=self._live.discard)
            self._live.add(agent)
            agent.begin()
        else:
            self._context.emit(unknown_channel(access.who(), kind, 0, sender="target"))
            why = Reason(ReasonCode.CHANNEL_NOT_REQUESTED, "the user did not request this channel")
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(why))

    def _parse_ends(self, opening: IncomingOpen, sender: str) -> tuple[str, str] | None:
        """Return destination and origin as text for the audit. If malformed, refuse the channel."""
        request = opening.request
        try:
            values, _ = message_layouts.parse(message_layouts.CHANNEL_OPENS[request.kind], request.extra)
        except (Truncated, Malformed) as error:
            text = f"malformed request to open a channel of type {one_line(request.kind, 64)}: {error.public}"
            reason = Reason(error.code, text)
            event = dropped_event(self._access.who(), m.CHANNEL_OPEN, request.extra, reason, sender)
            self._context.emit(event)
            opening.refuse(m.CONNECT_FAILED, refusals.reason_line(reason))
            return None
        texts = [value if isinstance(value, int) else shown_text(value) for value in values]
        if request.kind in (b"direct-tcpip", b"forwarded-tcpip"):
            return f"{texts[0]}:{texts[1]}", f"{texts[2]}:{texts[3]}"
        if request.kind == b"x11":
            return "", f"{texts[0]}:{texts[1]}"
        return str(texts[0]), ""


def _fail(opening: IncomingOpen, failure: Failure) -> None:
    """Refuse a channel, because the connection to the target failed."""
    error = failure.value
    if not isinstance(error, ConchrecError):
        _log.failure("unexpected error: cannot open a forward", failure=failure)
        error = ConchrecError("internal error", code=ReasonCode.INTERNAL_ERROR)
    if not opening.channel.connection.stopped and not opening.answered:
        opening.refuse(*refusals.open_failure(error))
