"""Channels that are forwarded beside the sessions: counted, audited, and not recorded."""

from __future__ import annotations

import hashlib

from conchrec.access.policy import shut_by
from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.proxy import refusals
from conchrec.proxy.inner.agent_forwarding import OnwardAgent
from conchrec.proxy.inner.forward_rules import SWITCH, dropped_event, shown
from conchrec.proxy.inner.nested_ssh import SshDetector
from conchrec.proxy.relay.observer import Verdict
from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.format.coverage import NotKept
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import IncomingOpen
from conchrec.text import one_line

#: Kinds of dropped messages that the audit names of one channel.
DROPPED_KINDS = 32


class ForwardedChannel:
    """An Observer that counts, and reports at the end.

    It stands in ``live`` until it is over.
    """

    not_kept = NotKept.FORWARDS

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        *,
        user_is_near: bool,
        live: set[ForwardedChannel | OnwardAgent],
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
        waiting = access.context.registry.user_held_bytes(access.identity.user)
        self.relay = Relay(opening, self, waiting.channel())

    @property
    def sent(self) -> int:
        """To the target's side."""
        return self._near if self._user_is_near else self._far

    @property
    def received(self) -> int:
        """To the user's side."""
        return self._far if self._user_is_near else self._near

    def requested(self, request: m.ChannelRequest) -> Verdict:
        """Judge a request of the near end."""
        return self._judge(request, "user" if self._user_is_near else "target")

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        """Judge a request of the far end."""
        return self._judge(request, "target" if self._user_is_near else "user")

    def _judge(self, request: m.ChannelRequest, sender: str) -> Verdict:
        if request.name in message_layouts.FORWARD_REQUESTS:
            return Verdict.PASS
        self._context.emit(
            events.UnknownRequest(
                **self._access.who(),
                request=shown(request.name),
                size=len(request.extra),
                sha256=hashlib.sha256(request.extra).hexdigest(),
                sender=sender,
            )
        )
        allowed = self._access.session_options.unknown_requests
        return Verdict.PASS if allowed else Verdict.REFUSE

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        """Nothing on a forward depends on it."""

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        """``data`` of a message is not forwarded."""
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
        """The far end granted the channel."""
        self._access.emit(self.event("open"))
        self._access.activity.add_not_kept(self.not_kept)
        self._open = True

    def refused(self, code: int, text: bytes) -> None:
        """The far end refused the channel."""
        shown = one_line(text)
        self._reason = Reason(ReasonCode.CHANNEL_REFUSED, f"{shown} (reason code {code})")
        self._context.emit(self.event("refused"))

    def failed(self, error: ConchrecError) -> str:
        """The channel ends because of ``error``; returns the line for the user."""
        self._reason = error.public
        return refusals.line(error)

    @property
    def switches(self) -> tuple[str, ...]:
        """The options that allow it."""
        raise LookupError  # every kind has its own

    def end(self, reason: str) -> None:
        """It is not allowed any more."""
        self._reason = reason
        self.relay.abort(f"conchrec: {reason}")

    def finished(self) -> None:
        """It is over."""
        self._live.discard(self)
        if self._open:
            self._context.emit(self.event("close"))

    def event(self, action: str) -> events.AuditEvent:
        raise LookupError(action)  # every kind has one of its own


class PortForward(ForwardedChannel):
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
        live: set[ForwardedChannel | OnwardAgent],
    ) -> None:
        self._kind = kind
        self._destination = destination
        self._origin = origin
        self._detectors: tuple[SshDetector, SshDetector] | None = (SshDetector(), SshDetector())
        self._is_ssh = False
        super().__init__(access, opening, user_is_near=user_is_near, live=live)

    @property
    def switches(self) -> tuple[str, ...]:
        return (SWITCH[self._kind], "nested_ssh") if self._is_ssh else (SWITCH[self._kind],)

    def from_near(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA and self._detectors is not None:
            self._detect_ssh(self._detectors[0], body)
        super().from_near(message, body)

    def from_far(self, message: int, body: bytes) -> None:
        if message == m.CHANNEL_DATA and self._detectors is not None:
            self._detect_ssh(self._detectors[1], body)
        super().from_far(message, body)

    def _detect_ssh(self, detector: SshDetector, body: bytes) -> None:
        """Detect SSH. Raises AccessDenied where it is not allowed; this data is then not forwarded."""
        if not detector.feed(body[4:]):
            return
        self._detectors, self._is_ssh = None, True
        access = self._access
        self._access.emit(self.event("nested_ssh"))
        if not access.session_options.nested_ssh:
            denied = AccessDenied(
                f"{access.identity.user} may not use ssh inside a forwarded port (nested_ssh: no)",
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


class X11Channel(ForwardedChannel):
    """One window of a program at the target."""

    not_kept = NotKept.X11

    switches = ("x11_forwarding",)

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        origin: str,
        live: set[ForwardedChannel | OnwardAgent],
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
