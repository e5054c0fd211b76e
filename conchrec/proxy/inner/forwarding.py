"""What is not a session: ports, sockets, X11 and the agent onward, where the role allows them.

Channels that the user opens towards the target, channels that the target opens because the user asked
for it before, and the global requests of both. Everything is audited, with byte counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.options import SessionOptions
from conchrec.access.policy import Shut, shut_by
from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError, RemoteViolation, WriteFailed
from conchrec.proxy import refusals
from conchrec.proxy.inner.agent_forwarding import OnwardAgent
from conchrec.proxy.inner.nested_ssh import Banner
from conchrec.proxy.relay.intake import UNKNOWN_MOST
from conchrec.proxy.relay.observer import Verdict
from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.format.coverage import NotKept
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.wire import Malformed, Reader, Truncated
from conchrec.text import one_line

_log = Logger()

DIRECT = {b"direct-tcpip": "direct", b"direct-streamlocal@openssh.com": "streamlocal-direct"}
FORWARDED = {
    b"forwarded-tcpip": "forwarded",
    b"forwarded-streamlocal@openssh.com": "streamlocal-forwarded",
}
LISTEN = {b"tcpip-forward": "remote", b"streamlocal-forward@openssh.com": "streamlocal-remote"}
CANCEL = {
    b"cancel-tcpip-forward": "remote",
    b"cancel-streamlocal-forward@openssh.com": "streamlocal-remote",
}
#: Which option allows each kind.
SWITCH = {
    "direct": "local_forwarding",
    "streamlocal-direct": "streamlocal_forwarding",
    "remote": "remote_forwarding",
    "forwarded": "remote_forwarding",
    "streamlocal-remote": "streamlocal_forwarding",
    "streamlocal-forwarded": "streamlocal_forwarding",
}
#: Global requests of a user that wait for the target.
MAX_WAITING = 64
#: Kinds of dropped messages that the audit names of one channel.
DROPPED_KINDS = 32
NOT_ALLOWED = Reason(ReasonCode.FORWARD_NOT_ALLOWED, "the role does not allow it")


class Forwards:
    """All forwards of one inner connection."""

    def __init__(self, access: TargetAccess, upstream: Upstream) -> None:
        self._access = access
        self._context = access.context
        self._upstream = upstream
        self._listening = 0
        self._waiting = 0
        self._live: set[_Counted | OnwardAgent] = set()
        #: What the target listens on for the user: the requests that would end it.
        self._listens: dict[bytes, bytes] = {}
        self.user: Connection | None = None

    @property
    def _options(self) -> SessionOptions:
        return self._access.options or SessionOptions()

    def rejudge(self) -> None:
        """What is not allowed any more ends."""
        options = self._options
        for one in tuple(self._live):
            if not all(getattr(options, switch) for switch in one.switches):
                one.end(refusals.NO_LONGER_ALLOWED)
        connection = self._upstream.connection
        for extra, name in tuple(self._listens.items()):
            if not self._may(LISTEN[name]):
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
                        rule=self._shut_by(LISTEN[name]).rule,
                    )
                )

    def _shut_by(self, kind: str) -> Shut:
        return shut_by(self._access.roles, SWITCH[kind])

    def _may(self, kind: str) -> bool:
        return bool(getattr(self._options, SWITCH[kind]))

    # --- channels that the user opens

    def user_opens(self, opening: IncomingOpen) -> None:
        """``direct-tcpip`` or ``direct-streamlocal@openssh.com``."""
        kind = DIRECT[opening.channel.kind]
        if (ends := self._ends(opening, "user")) is None:
            return
        destination, origin = ends
        if self._access.denied is not None:
            opening.refuse(*refusals.open_failure(self._access.denied))
            return
        if not self._may(kind):
            self._refused(opening, kind, destination)
            return
        self._upstream.inner_settled()
        forward = _Forward(
            self._access, opening, kind, destination, origin, user_is_near=True, live=self._live
        )
        self._upstream.when_ready().addCallbacks(
            lambda connection: forward.relay.dial(connection),
            lambda failure: _refuse(opening, failure),
        )

    def _refused(self, opening: IncomingOpen, kind: str, destination: str) -> None:
        self._context.emit(
            events.Port(
                **self._access.who(),
                kind=kind,
                action="refused",
                destination=destination,
                reason=NOT_ALLOWED,
                rule=self._shut_by(kind).rule,
            )
        )
        user, host, why = self._access.identity.user, self._access.target.host, self._shut_by(kind).why
        text = f"{user} may not forward ports on {host} ({why})"
        reason = Reason(ReasonCode.FORWARD_NOT_ALLOWED, text)
        opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(reason))

    # --- channels that the target opens

    def target_opens(self, opening: IncomingOpen) -> None:
        kind, user, access = opening.channel.kind, self.user, self._access
        if user is None or user.stopped:
            opening.refuse(m.CONNECT_FAILED, Reason(ReasonCode.USER_GONE, "the user is gone"))
        elif kind in FORWARDED and self._listening > 0 and self._may(FORWARDED[kind]):
            if (ends := self._ends(opening, "target")) is not None:
                forward = _Forward(
                    access, opening, FORWARDED[kind], *ends, user_is_near=False, live=self._live
                )
                forward.relay.dial(user)
        elif kind == b"x11" and access.activity.x11_requested and self._options.x11_forwarding:
            if (ends := self._ends(opening, "target")) is not None:
                _X11(access, opening, ends[1], self._live).relay.dial(user)
        elif kind in m.AGENT_CHANNELS and access.activity.agent_requested and self._options.forward_agent:
            agent = OnwardAgent(access, opening, self._upstream, over=self._live.discard)
            self._live.add(agent)
            agent.begin()
        else:
            name = one_line(kind, 64)
            self._context.emit(
                events.UnknownRequest(
                    **access.who(), request=f"open {name}", size=0, scope="channel", sender="target"
                )
            )
            why = Reason(ReasonCode.CHANNEL_NOT_REQUESTED, "nobody asked for this channel")
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.sentence(why))

    def _ends(self, opening: IncomingOpen, sender: str) -> tuple[str, str] | None:
        """Destination and origin, as text for the audit. Refuses the channel where they are malformed."""
        request = opening.request
        try:
            values, _ = message_layouts.parse(message_layouts.CHANNEL_OPENS[request.kind], request.extra)
        except (Truncated, Malformed) as error:
            text = f"malformed open of {one_line(request.kind, 64)}: {error.public}"
            reason = Reason(error.code, text)
            self._context.emit(dropped_event(self._access, m.CHANNEL_OPEN, request.extra, reason, sender))
            opening.refuse(m.CONNECT_FAILED, refusals.sentence(reason))
            return None
        texts = [one if isinstance(one, int) else _shown(one) for one in values]
        if request.kind in (b"direct-tcpip", b"forwarded-tcpip"):
            return f"{texts[0]}:{texts[1]}", f"{texts[2]}:{texts[3]}"
        if request.kind == b"x11":
            return "", f"{texts[0]}:{texts[1]}"
        return str(texts[0]), ""

    # --- global requests

    def user_asks(self, request: IncomingRequest) -> None:
        """All but those that the inner connection answers by itself."""
        name = request.name
        if not self._rewrite(request, "user"):
            return
        if name in LISTEN or name in CANCEL:
            if self._access.denied is not None or not self._may(LISTEN.get(name) or CANCEL[name]):
                rule = "" if self._access.denied else self._shut_by(LISTEN.get(name) or CANCEL[name]).rule
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
            if not self._options.unknown_requests:
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
        if isinstance(result, Failure) or (kind is not None and not self._may(kind)):
            request.reply(False)
        else:
            self._pass(request, result, self._listened)

    def target_asks(self, request: IncomingRequest) -> None:
        if self.user is None or self.user.stopped:
            request.reply(False)
            return
        if not self._rewrite(request, "target"):
            return
        if request.name != b"keepalive@openssh.com":
            self._unknown(request, "target")
            if not self._options.unknown_requests:
                request.reply(False)
                return
        self._pass(request, self.user, lambda asked, success, extra: None)

    def _rewrite(self, request: IncomingRequest, sender: str) -> bool:
        """Write a known request again from its fields. False where it was answered, because it is malformed
        or an unknown one that is too long."""
        layout = message_layouts.GLOBAL_REQUESTS.get(request.name)
        name = _shown(request.name)
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
            why = reason or Reason(ReasonCode.SURPLUS_BYTES, f"surplus bytes of request {name}")
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
        name = _shown(request.name)
        if dropped:
            why = Reason(ReasonCode.SURPLUS_BYTES, f"surplus bytes of the reply to {name}")
            self._context.emit(dropped_event(self._access, m.REQUEST_SUCCESS, dropped, why, sender))
        if kept and request.name not in message_layouts.GLOBAL_REQUESTS:
            self._unknown_bytes(f"reply to {name}", kept, sender)
        return kept

    def _pass(
        self,
        request: IncomingRequest,
        there: Connection,
        done: Callable[[IncomingRequest, bool, bytes], None],
    ) -> None:
        if not request.want_reply:
            there.request(request.name, request.extra)
            if request.name in LISTEN:
                # Granted or not; where the target chose the port nobody knows what would end it.
                self._listens[request.extra] = request.name
            done(request, True, b"")
            return

        sender = "user" if there is self.user else "target"

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
                self._listening += 1
            refused = Reason(ReasonCode.FORWARD_REFUSED, "the target does not allow it")
            action, reason = ("listen", "") if success else ("refused", refused)
            self._context.emit(self._listen(request, action, reason, reply=extra))
        elif request.name in CANCEL:
            self._listens.pop(request.extra, None)
            # Connections that were accepted before may still arrive, so the count is not lowered.
            unknown = Reason(ReasonCode.FORWARD_UNKNOWN, "the target knows no such forward")
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
        self._unknown_bytes(_shown(request.name), request.extra, sender)

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


class _Counted:
    """An Observer that counts, and reports at the end."""

    not_kept = NotKept.FORWARDS

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        *,
        user_is_near: bool,
        live: set[_Counted | OnwardAgent],
    ) -> None:
        self._access = access
        self._live = live
        live.add(self)
        self._context = access.context
        self._services = access.services
        self._user_is_near = user_is_near
        self._near = 0
        self._far = 0
        self._open = False
        #: What was said to be dropped: once for each reason.
        self._dropped: set[tuple[int, str, bool]] = set()
        self._began = self._services.clock.seconds()
        self._reason = ""
        waiting = access.context.registry.user_waiting(access.identity.user)
        self.relay = Relay(opening, self, waiting.channel())

    @property
    def sent(self) -> int:
        """To the target's side."""
        return self._near if self._user_is_near else self._far

    @property
    def received(self) -> int:
        return self._far if self._user_is_near else self._near

    def requested(self, request: m.ChannelRequest) -> Verdict:
        return self._judge(request, "user" if self._user_is_near else "target")

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        return self._judge(request, "target" if self._user_is_near else "user")

    def _judge(self, request: m.ChannelRequest, sender: str) -> Verdict:
        if request.name in message_layouts.FORWARD_REQUESTS:
            return Verdict.PASS
        self._context.emit(
            events.UnknownRequest(
                **self._access.who(),
                request=_shown(request.name),
                size=len(request.extra),
                sha256=hashlib.sha256(request.extra).hexdigest(),
                sender=sender,
            )
        )
        allowed = (self._access.options or SessionOptions()).unknown_requests
        return Verdict.PASS if allowed else Verdict.REFUSE

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        """Nothing on a forward depends on it."""

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        if (message, reason, from_near) not in self._dropped and len(self._dropped) < DROPPED_KINDS:
            self._dropped.add((message, reason, from_near))
            sender = "user" if from_near is self._user_is_near else "target"
            self._context.emit(dropped_event(self._access, message, data, reason, sender))

    def from_near(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA:
            self._near += len(body) - 4
            if self._user_is_near:
                self._access.activity.touch()

    def from_far(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA:
            self._far += len(body) - 4
            if not self._user_is_near:
                self._access.activity.touch()

    def opened(self) -> None:
        self._access.emit(self.event("open"))
        self._access.activity.pass_unrecorded(self.not_kept)
        self._open = True

    def refused(self, code: int, text: bytes) -> None:
        shown = one_line(text)
        self._reason = Reason(ReasonCode.CHANNEL_REFUSED, f"{shown} (reason code {code})")
        self._context.emit(self.event("refused"))

    def failed(self, error: ConchrecError) -> str:
        self._reason = error.public
        return refusals.line(error)

    @property
    def switches(self) -> tuple[str, ...]:
        """The options that allow it."""
        raise LookupError  # every kind has its own

    def end(self, reason: str) -> None:
        self._reason = reason
        self.relay.abort(f"conchrec: {reason}")

    def finished(self) -> None:
        self._live.discard(self)
        if self._open:
            self._context.emit(self.event("close"))

    def event(self, action: str) -> events.AuditEvent:
        raise LookupError(action)  # every kind has one of its own


class _Forward(_Counted):
    """A port or a socket. SSH inside of it is seen, and ended where the role says so."""

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        kind: str,
        destination: str,
        origin: str,
        *,
        user_is_near: bool,
        live: set[_Counted | OnwardAgent],
    ) -> None:
        self._kind = kind
        self._destination = destination
        self._origin = origin
        self._banners: tuple[Banner, Banner] | None = (Banner(), Banner())
        self._is_ssh = False
        super().__init__(access, opening, user_is_near=user_is_near, live=live)

    @property
    def switches(self) -> tuple[str, ...]:
        return (SWITCH[self._kind], "nested_ssh") if self._is_ssh else (SWITCH[self._kind],)

    def from_near(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA and self._banners is not None:
            self._look(self._banners[0], body)
        super().from_near(message, body)

    def from_far(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA and self._banners is not None:
            self._look(self._banners[1], body)
        super().from_far(message, body)

    def _look(self, banner: Banner, body: bytes) -> None:
        """Raises AccessDenied, and the piece that tells goes no further."""
        if not banner.feed(body[4:]):
            return
        self._banners, self._is_ssh = None, True
        access = self._access
        self._access.emit(self.event("nested_ssh"))
        if not (access.options or SessionOptions()).nested_ssh:
            denied = AccessDenied(
                f"{access.identity.user} may not use ssh inside of a forward (nested_ssh: no)",
                rule=shut_by(access.roles, "nested_ssh").rule,
                code=ReasonCode.NESTED_SSH_NOT_ALLOWED,
            )
            self._context.emit(refusals.event(denied, access.who()))
            raise denied

    def event(self, action: str) -> events.AuditEvent:
        over = action == "close"
        return events.Port(
            **self._access.who(),
            kind=self._kind,
            action=action,
            destination=self._destination,
            origin=self._origin,
            sent=self.sent if over else None,
            received=self.received if over else None,
            duration=round(self._services.clock.seconds() - self._began, 3) if over else None,
            reason=self._reason,
        )


class _X11(_Counted):
    not_kept = NotKept.X11

    switches = ("x11_forwarding",)

    def __init__(
        self, access: TargetAccess, opening: IncomingOpen, origin: str, live: set[_Counted | OnwardAgent]
    ) -> None:
        self._origin = origin
        super().__init__(access, opening, user_is_near=False, live=live)

    def event(self, action: str) -> events.AuditEvent:
        over = action == "close"
        return events.X11Forward(
            **self._access.who(),
            action=action,
            origin=self._origin,
            sent=self.sent if over else None,
            received=self.received if over else None,
            reason=self._reason,
        )


def _refuse(opening: IncomingOpen, failure: Failure) -> None:
    error = failure.value
    if not isinstance(error, ConchrecError):
        _log.failure("while a forward opens", failure=failure)
        error = ConchrecError("internal error", code=ReasonCode.INTERNAL_ERROR)
    if not opening.channel.connection.stopped and not opening.answered:
        opening.refuse(*refusals.open_failure(error))


def _shown(data: bytes) -> str:
    return one_line(data, 255)


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
            return _shown(name)
        return f"{_shown(name)}:{r.uint32()}"
    except RemoteViolation:
        return ""


def dropped_event(
    access: TargetAccess, message: int, data: bytes, reason: str, sender: str
) -> events.MessageDropped:
    """``data`` of a message of the ``sender`` (user or target) was not relayed."""
    return events.MessageDropped(
        **access.who(),
        message=m.NAMES[message],
        reason=one_line(reason),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        sender=sender,
    )
