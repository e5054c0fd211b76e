"""Global requests of the user and of the target: remote forwards, and unknown requests.

What the target listens on for the user is remembered, with the request that ends it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.errors import RemoteViolation, WriteFailed
from conchrec.proxy import refusals
from conchrec.proxy.inner.forward_rules import (
    CANCEL,
    LISTEN,
    NOT_ALLOWED,
    ForwardRules,
    dropped_event,
    shown,
)
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

    def __init__(self, access: TargetAccess, upstream: Upstream, rules: ForwardRules) -> None:
        self._access = access
        self._context = access.context
        self._upstream = upstream
        self._rules = rules
        #: How often the target has agreed to listen.
        self.listening = 0
        self._waiting = 0
        #: What the target listens on for the user: the requests that would end it.
        self._listens: dict[bytes, bytes] = {}

    def recheck(self) -> None:
        """Cancel what is not allowed any more."""
        connection = self._upstream.connection
        for extra, name in tuple(self._listens.items()):
            if not self._rules.may(LISTEN[name]):
                del self._listens[extra]
                if connection is not None and not connection.stopped:
                    connection.request(b"cancel-" + name, extra)
                self._context.emit(
                    events.Port(
                        **self._access.who(),
                        kind=LISTEN[name],
                        action="cancel",
                        destination=_place_of(name, extra),
                        reason=refusals.NO_LONGER_ALLOWED,
                        rule=self._rules.shut_by(LISTEN[name]).rule,
                    )
                )

    def user_asks(self, request: IncomingRequest) -> None:
        """All but those that the inner connection answers by itself."""
        name = request.name
        if not self._rewrite(request, "user"):
            return
        if name in LISTEN or name in CANCEL:
            kind = LISTEN.get(name) or CANCEL[name]
            if self._access.denied is not None or not self._rules.may(kind):
                rule = "" if self._access.denied else self._rules.shut_by(kind).rule
                self._context.emit(self._listen(request, "refused", NOT_ALLOWED, rule))
                request.reply(False)
                return
            self._upstream.inner_settled()
            try:
                self._access.emit(self._listen(request, "request", ""))
            except WriteFailed as error:
                self._context.emit(refusals.event(error, self._access.who()))
                request.reply(False)
                return
        elif name not in message_layouts.GLOBAL_REQUESTS:
            self._unknown(request, "user")
            if not self._rules.options.unknown_requests:
                request.reply(False)
                return
        if self._access.denied is not None or self._waiting >= MAX_WAITING:
            request.reply(False)
            return
        self._waiting += 1
        self._upstream.when_ready().addBoth(self._asked_when_ready, request)

    def _asked_when_ready(self, result: Connection | Failure, request: IncomingRequest) -> None:
        self._waiting -= 1
        # The roles may be others by now.
        kind = LISTEN.get(request.name)
        if isinstance(result, Failure) or (kind is not None and not self._rules.may(kind)):
            request.reply(False)
        else:
            self._pass(request, result, self._listened, sender="target")

    def target_asks(self, request: IncomingRequest, user: Connection | None) -> None:
        """Passed to ``user``, if there still is one."""
        if user is None or user.stopped:
            request.reply(False)
            return
        if not self._rewrite(request, "target"):
            return
        if request.name != b"keepalive@openssh.com":
            self._unknown(request, "target")
            if not self._rules.options.unknown_requests:
                request.reply(False)
                return
        self._pass(request, user, lambda asked, success, extra: None, sender="user")

    def _rewrite(self, request: IncomingRequest, sender: str) -> bool:
        """Write a known request again from its fields. False where it was answered, because it is malformed
        or an unknown one that is too long."""
        layout = message_layouts.GLOBAL_REQUESTS.get(request.name)
        name = shown(request.name)
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
            self._context.emit(dropped_event(self._access, m.GLOBAL_REQUEST, dropped, why, sender))
        if reason is not None:
            request.reply(False)
        return reason is None

    def _rewrite_reply(self, request: IncomingRequest, success: bool, extra: bytes, sender: str) -> bytes:
        """The reply's body as the request defines it: the port where the target chose it (RFC 4254, 7.1); of
        an unknown request what fits; else nothing."""
        chooses_port = request.name == b"tcpip-forward" and request.extra.endswith(bytes(4))
        if request.name not in message_layouts.GLOBAL_REQUESTS:
            most = UNKNOWN_MOST
        else:
            most = 4 if success and chooses_port else 0
        kept, dropped = (extra[:most], extra[most:]) if success else (b"", extra)
        name = shown(request.name)
        if dropped:
            why = Reason(ReasonCode.SURPLUS_BYTES, f"unexpected bytes in the reply to {name}")
            self._context.emit(dropped_event(self._access, m.REQUEST_SUCCESS, dropped, why, sender))
        if kept and request.name not in message_layouts.GLOBAL_REQUESTS:
            self._unknown_bytes(f"reply to {name}", kept, sender)
        return kept

    def _pass(
        self,
        request: IncomingRequest,
        there: Connection,
        done: Callable[[IncomingRequest, bool, bytes], None],
        *,
        sender: str,
    ) -> None:
        """Forward a request to the other side, whose reply comes from ``sender``."""
        if not request.want_reply:
            there.request(request.name, request.extra)
            if request.name in LISTEN:
                # Without a reply it is unknown whether the target listens, and on which port if it chose one.
                self._listens[request.extra] = request.name
            done(request, True, b"")
            return

        def replied(success: bool, extra: bytes) -> None:
            extra = self._rewrite_reply(request, success, extra, sender)
            if success and request.name in LISTEN:
                self._listens[_cancelled_by(request, extra)] = request.name
            done(request, success, extra)
            request.reply(success, extra)

        there.request(request.name, request.extra, replied)

    def _listened(self, request: IncomingRequest, success: bool, extra: bytes) -> None:
        if request.name in LISTEN:
            if success:
                self.listening += 1
            refused = Reason(ReasonCode.FORWARD_REFUSED, "the target refused the forward")
            action, reason = ("listen", "") if success else ("refused", refused)
            self._context.emit(self._listen(request, action, reason, reply=extra))
        elif request.name in CANCEL:
            self._listens.pop(request.extra, None)
            # Connections that were accepted before may still arrive, so the count is not lowered.
            unknown = Reason(ReasonCode.FORWARD_UNKNOWN, "the target has no such forward")
            self._context.emit(self._listen(request, "cancel", "" if success else unknown))

    def _listen(
        self, request: IncomingRequest, action: str, reason: str, rule: str = "", reply: bytes = b""
    ) -> events.Port:
        kind = LISTEN.get(request.name) or CANCEL[request.name]
        return events.Port(
            **self._access.who(),
            kind=kind,
            action=action,
            destination=_place_of(request.name, _cancelled_by(request, reply)),
            reason=reason,
            rule=rule,
        )

    def _unknown(self, request: IncomingRequest, sender: str) -> None:
        self._unknown_bytes(shown(request.name), request.extra, sender)

    def _unknown_bytes(self, what: str, data: bytes, sender: str) -> None:
        self._context.emit(
            events.UnknownRequest(
                **self._access.who(),
                request=what,
                size=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                scope="global",
                sender=sender,
            )
        )


def _cancelled_by(request: IncomingRequest, reply: bytes) -> bytes:
    """What cancels a forward that the target has granted: where it was asked for port 0, with the port that
    it chose (RFC 4254 section 7.1)."""
    if request.name == b"tcpip-forward" and len(reply) == 4 and request.extra.endswith(bytes(4)):
        return request.extra[:-4] + reply
    return request.extra


def _place_of(request: bytes, extra: bytes) -> str:
    """``string address, uint32 port`` or ``string path`` (RFC 4254 section 7.1, PROTOCOL 2.4)."""
    try:
        r = Reader(extra)
        name = r.string()
        if b"streamlocal" in request:
            return shown(name)
        return f"{shown(name)}:{r.uint32()}"
    except RemoteViolation:
        return ""
