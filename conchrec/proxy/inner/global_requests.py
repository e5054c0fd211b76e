"""Global requests of the user and of the target: remote forwards, and unknown requests.

Remote forwards that the target granted are remembered, with the data of the request that cancels them.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.errors import RemoteViolation, WriteFailed
from conchrec.proxy import refusals
from conchrec.proxy.inner.dropped_messages import dropped_event
from conchrec.proxy.inner.forward_rules import CANCEL, LISTEN, NOT_ALLOWED, ForwardRules
from conchrec.proxy.inner.unknown_messages import shown_text, unknown_request
from conchrec.proxy.relay.message_parser import UNKNOWN_MOST
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingRequest
from conchrec.ssh.wire import Malformed, Reader, Truncated

#: Global requests of a user that wait for the target.
MAX_WAITING = 64


class GlobalRequests:
    """The global requests of one inner connection."""

    __slots__ = (
        "_access", "_context", "_forwards", "_pending_count", "_rules", "_upstream", "granted_count",
    )  # fmt: skip

    def __init__(self, access: TargetAccess, upstream: Upstream, rules: ForwardRules) -> None:
        self._access = access
        self._context = access.context
        self._upstream = upstream
        self._rules = rules
        #: How many remote forwards the target has granted. It does not decrease: connections that the target
        #: accepted before a forward was cancelled may still arrive.
        self.granted_count = 0
        #: How many requests of the user wait for the target.
        self._pending_count = 0
        #: The remote forwards that the target granted: the data that cancels each, and the request's name.
        self._forwards: dict[bytes, bytes] = {}

    def recheck(self) -> None:
        """Cancel the remote forwards that are no longer allowed."""
        connection = self._upstream.connection
        for extra, name in tuple(self._forwards.items()):
            if not self._rules.allows(LISTEN[name]):
                del self._forwards[extra]
                if connection is not None and not connection.stopped:
                    connection.request(b"cancel-" + name, extra)
                self._context.emit(
                    events.Port(
                        **self._access.who(),
                        kind=LISTEN[name],
                        action="cancel",
                        destination=_destination(name, extra),
                        reason=refusals.NO_LONGER_ALLOWED,
                        rule=self._rules.find_closed_option(LISTEN[name]).rule,
                    )
                )

    def request_from_user(self, request: IncomingRequest) -> None:
        """Handle a request of the user that the inner server does not answer itself."""
        name = request.name
        if not self._rewrite(request, "user"):
            return
        if name in LISTEN or name in CANCEL:
            kind = LISTEN.get(name) or CANCEL[name]
            if self._access.denied is not None or not self._rules.allows(kind):
                rule = "" if self._access.denied else self._rules.find_closed_option(kind).rule
                self._context.emit(self._port_event(request, "refused", NOT_ALLOWED, rule))
                request.reply(False)
                return
            self._upstream.inner_settled()
            try:
                self._access.emit(self._port_event(request, "request", ""))
            except WriteFailed as error:
                self._context.emit(refusals.failure_event(error, self._access.who()))
                request.reply(False)
                return
        elif name not in message_layouts.GLOBAL_REQUESTS:
            self._audit_unknown(request, "user")
            if not self._rules.options.unknown_requests:
                request.reply(False)
                return
        if self._access.denied is not None or self._pending_count >= MAX_WAITING:
            request.reply(False)
            return
        self._pending_count += 1
        self._upstream.when_ready().addBoth(self._forward_to_target, request)

    def _forward_to_target(self, result: Connection | Failure, request: IncomingRequest) -> None:
        self._pending_count -= 1
        # The roles may have changed while the request waited.
        kind = LISTEN.get(request.name)
        if isinstance(result, Failure) or (kind is not None and not self._rules.allows(kind)):
            request.reply(False)
        else:
            self._forward(request, result, self._audit_reply, sender="target")

    def request_from_target(self, request: IncomingRequest, user: Connection | None) -> None:
        """Forward a request of the target to ``user``; refused if the user has disconnected."""
        if user is None or user.stopped:
            request.reply(False)
            return
        if not self._rewrite(request, "target"):
            return
        if request.name != b"keepalive@openssh.com":
            self._audit_unknown(request, "target")
            if not self._rules.options.unknown_requests:
                request.reply(False)
                return
        self._forward(request, user, lambda request, success, extra: None, sender="user")

    def _rewrite(self, request: IncomingRequest, sender: str) -> bool:
        """Write a known request again from its fields.

        Returns False if the request was refused, because it is malformed, or unknown and too long.
        """
        layout = message_layouts.GLOBAL_REQUESTS.get(request.name)
        name = shown_text(request.name)
        reason: Reason | None = None
        if layout is None:
            dropped = request.extra if len(request.extra) > UNKNOWN_MOST else b""
            if dropped:
                text = f"unknown request {name} is longer than {UNKNOWN_MOST} bytes"
                reason = Reason(ReasonCode.UNKNOWN_REQUEST_TOO_LONG, text)
        else:
            try:
                request.extra, dropped = message_layouts.rewrite(layout, request.extra)
            except (Truncated, Malformed) as error:
                dropped = request.extra
                reason = Reason(error.code, f"malformed request {name}: {error.public}")
        if dropped or reason is not None:
            why = reason or Reason(ReasonCode.SURPLUS_BYTES, f"bytes after the last field of request {name}")
            self._context.emit(dropped_event(self._access.who(), m.GLOBAL_REQUEST, dropped, why, sender))
        if reason is not None:
            request.reply(False)
        return reason is None

    def _rewrite_reply(self, request: IncomingRequest, success: bool, extra: bytes, sender: str) -> bytes:
        """Return the part of a reply's data that is forwarded.

        That is the port, if the target chose it (RFC 4254, 7.1); of a reply to an unknown request the first
        4 KiB; else nothing.
        """
        chooses_port = request.name == b"tcpip-forward" and request.extra.endswith(bytes(4))
        if request.name not in message_layouts.GLOBAL_REQUESTS:
            most = UNKNOWN_MOST
        else:
            most = 4 if success and chooses_port else 0
        kept, dropped = (extra[:most], extra[most:]) if success else (b"", extra)
        if dropped:
            name = shown_text(request.name)
            why = Reason(ReasonCode.SURPLUS_BYTES, f"unexpected bytes in the reply to {name}")
            self._context.emit(dropped_event(self._access.who(), m.REQUEST_SUCCESS, dropped, why, sender))
        if kept and request.name not in message_layouts.GLOBAL_REQUESTS:
            self._context.emit(
                unknown_request(
                    self._access.who(), request.name, kept, sender=sender, scope="global", what="reply to "
                )
            )
        return kept

    def _forward(
        self,
        request: IncomingRequest,
        receiver: Connection,
        done: Callable[[IncomingRequest, bool, bytes], None],
        *,
        sender: str,
    ) -> None:
        """Forward a request to the ``receiver``; ``sender`` is the side from which the reply comes.

        ``done`` gets the request, the success and the data of the reply.
        """
        if not request.want_reply:
            receiver.request(request.name, request.extra)
            if request.name in LISTEN:
                # Without a reply it is unknown whether the target listens, and on which port if it chose one.
                self._forwards[request.extra] = request.name
            done(request, True, b"")
            return

        def on_reply(success: bool, extra: bytes) -> None:
            extra = self._rewrite_reply(request, success, extra, sender)
            if success and request.name in LISTEN:
                self._forwards[_cancel_data(request, extra)] = request.name
            done(request, success, extra)
            request.reply(success, extra)

        receiver.request(request.name, request.extra, on_reply)

    def _audit_reply(self, request: IncomingRequest, success: bool, extra: bytes) -> None:
        """Audit the target's reply to a request of the user."""
        if request.name in LISTEN:
            if success:
                self.granted_count += 1
            refused = Reason(ReasonCode.FORWARD_REFUSED, "the target refused the forward")
            action, reason = ("listen", "") if success else ("refused", refused)
            self._context.emit(self._port_event(request, action, reason, reply=extra))
        elif request.name in CANCEL:
            self._forwards.pop(request.extra, None)
            unknown = Reason(ReasonCode.FORWARD_UNKNOWN, "the target has no such forward")
            self._context.emit(self._port_event(request, "cancel", "" if success else unknown))

    def _port_event(
        self, request: IncomingRequest, action: str, reason: str, rule: str = "", reply: bytes = b""
    ) -> events.Port:
        kind = LISTEN.get(request.name) or CANCEL[request.name]
        return events.Port(
            **self._access.who(),
            kind=kind,
            action=action,
            destination=_destination(request.name, _cancel_data(request, reply)),
            reason=reason,
            rule=rule,
        )

    def _audit_unknown(self, request: IncomingRequest, sender: str) -> None:
        who = self._access.who()
        event = unknown_request(who, request.name, request.extra, sender=sender, scope="global")
        self._context.emit(event)


def _cancel_data(request: IncomingRequest, reply: bytes) -> bytes:
    """Return the data of the request that cancels a remote forward which the target granted.

    If port 0 was requested, it has the port that the target chose (RFC 4254, 7.1).
    """
    if request.name == b"tcpip-forward" and len(reply) == 4 and request.extra.endswith(bytes(4)):
        return request.extra[:-4] + reply
    return request.extra


def _destination(request: bytes, extra: bytes) -> str:
    """Return what a request for a remote forward names, as text for the audit.

    The data is ``string address, uint32 port`` or ``string path`` (RFC 4254, 7.1; PROTOCOL, 2.4).
    """
    try:
        reader = Reader(extra)
        name = reader.string()
        if b"streamlocal" in request:
            return shown_text(name)
        return f"{shown_text(name)}:{reader.uint32()}"
    except RemoteViolation:
        return ""
