"""Forwarded channels that are not sessions: their bytes are counted and audited, and not recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod

from conchrec.access.closed_options import find_closed_option
from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.proxy import refusals
from conchrec.proxy.inner.agent_forwarding import ForwardedAgent
from conchrec.proxy.inner.dropped_messages import DroppedMessages
from conchrec.proxy.inner.forward_rules import OPTION
from conchrec.proxy.inner.nested_ssh import SshDetector
from conchrec.proxy.inner.unknown_messages import unknown_request
from conchrec.proxy.relay.observer import Verdict
from conchrec.proxy.relay.relay import Relay
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.recording.format.coverage import NotKept
from conchrec.ssh import message_layouts
from conchrec.ssh import messages as m
from conchrec.ssh.connection import IncomingOpen
from conchrec.text import one_line


class ForwardedChannel(ABC):
    """The Observer of a channel whose bytes are only counted; it is in ``live`` until its end."""

    not_kept = NotKept.FORWARDS

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        *,
        user_is_near: bool,
        live: set[ForwardedChannel | ForwardedAgent],
    ) -> None:
        self._access = access
        self._live = live
        live.add(self)
        self._context = access.context
        self._services = access.services
        self._user_is_near = user_is_near
        #: Bytes that were forwarded from the near and from the far end.
        self._near_bytes = 0
        self._far_bytes = 0
        self._is_open = False
        self._dropped = DroppedMessages()
        self._began = self._services.clock.seconds()
        self._reason = ""
        held_bytes = access.context.registry.user_held_bytes(access.identity.user)
        self.relay = Relay(opening, self, held_bytes.channel())

    @property
    @abstractmethod
    def options(self) -> tuple[str, ...]:
        """The options of a role that allow this channel."""

    @abstractmethod
    def event(self, action: str) -> events.AuditEvent:
        """Return the audit event about an ``action``: open, close, refused or nested_ssh."""

    @property
    def sent(self) -> int:
        """The number of bytes that were forwarded to the target."""
        return self._near_bytes if self._user_is_near else self._far_bytes

    @property
    def received(self) -> int:
        """The number of bytes that were forwarded to the user."""
        return self._far_bytes if self._user_is_near else self._near_bytes

    def end(self, reason: str) -> None:
        """End the channel, because it is no longer allowed."""
        self._reason = reason
        self.relay.abort(f"conchrec: {reason}")

    # --- Observer

    def requested(self, request: m.ChannelRequest) -> Verdict:
        """Decide about a request of the near end."""
        return self._decide(request, self._sender(from_near=True))

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        """Decide about a request of the far end."""
        return self._decide(request, self._sender(from_near=False))

    def _decide(self, request: m.ChannelRequest, sender: str) -> Verdict:
        if request.name in message_layouts.FORWARD_REQUESTS:
            return Verdict.PASS
        self._context.emit(unknown_request(self._access.who(), request.name, request.extra, sender=sender))
        allowed = self._access.session_options.unknown_requests
        return Verdict.PASS if allowed else Verdict.REFUSE

    def _sender(self, *, from_near: bool) -> str:
        return "user" if from_near is self._user_is_near else "target"

    def answered(self, request: m.ChannelRequest, success: bool) -> None:  # noqa: B027
        """Do nothing: no request on a forward changes what is recorded."""

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        """Audit the first dropped message of its kind; the others are audited together at the end."""
        kind = self._dropped.add(message, data, reason, self._sender(from_near=from_near))
        if kind.count == 1:
            self._context.emit(kind.event(self._access.who()))

    def from_near(self, message: int, body: bytes) -> None:
        """Count the data of the near end."""
        if message == m.CHANNEL_DATA:
            self._near_bytes += len(body) - 4
            if self._user_is_near:
                self._access.activity.touch()

    def from_far(self, message: int, body: bytes) -> None:
        """Count the data of the far end."""
        if message == m.CHANNEL_DATA:
            self._far_bytes += len(body) - 4
            if not self._user_is_near:
                self._access.activity.touch()

    def opened(self) -> None:
        """Audit that the far end granted the channel."""
        self._access.emit(self.event("open"))
        self._access.activity.add_not_kept(self.not_kept)
        self._is_open = True

    def refused(self, code: int, text: bytes) -> None:
        """Audit that the far end refused the channel."""
        shown = one_line(text)
        self._reason = Reason(ReasonCode.CHANNEL_REFUSED, f"{shown} (reason code {code})")
        self._context.emit(self.event("refused"))

    def failed(self, error: ConchrecError) -> str:
        """Note the error that ends the channel; returns the line for the user."""
        self._reason = error.public
        return refusals.error_line(error)

    def finished(self) -> None:
        """Audit the end of the channel."""
        self._live.discard(self)
        for kind in self._dropped.repeated():
            self._context.emit(kind.event(self._access.who()))
        if self._is_open:
            self._context.emit(self.event("close"))
        # Later, because it may be at work now. It refers to this object.
        self._services.clock.callLater(0, self.relay.release)


class PortForward(ForwardedChannel):
    """A forwarded port or socket. An SSH connection in it is detected, and ended if the role forbids it."""

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        kind: str,
        destination: str,
        origin: str,
        *,
        user_is_near: bool,
        live: set[ForwardedChannel | ForwardedAgent],
    ) -> None:
        self._kind = kind
        self._destination = destination
        self._origin = origin
        self._detectors: tuple[SshDetector, SshDetector] | None = (SshDetector(), SshDetector())
        self._is_ssh = False
        super().__init__(access, opening, user_is_near=user_is_near, live=live)

    @property
    def options(self) -> tuple[str, ...]:
        """The option for this kind of forward, and the one for SSH in it if SSH was detected."""
        return (OPTION[self._kind], "nested_ssh") if self._is_ssh else (OPTION[self._kind],)

    def from_near(self, message: int, body: bytes) -> None:
        """Look for SSH in the data of the near end, and count it."""
        if message == m.CHANNEL_DATA and self._detectors is not None:
            self._detect_ssh(self._detectors[0], body)
        super().from_near(message, body)

    def from_far(self, message: int, body: bytes) -> None:
        """Look for SSH in the data of the far end, and count it."""
        if message == m.CHANNEL_DATA and self._detectors is not None:
            self._detect_ssh(self._detectors[1], body)
        super().from_far(message, body)

    def _detect_ssh(self, detector: SshDetector, body: bytes) -> None:
        """Detect SSH. Raises AccessDenied if it is not allowed; this data is then not forwarded."""
        if not detector.feed(body[4:]):
            return
        self._detectors, self._is_ssh = None, True
        access = self._access
        self._access.emit(self.event("nested_ssh"))
        if not access.session_options.nested_ssh:
            denied = AccessDenied(
                f"{access.identity.user} may not use ssh inside a forwarded port (nested_ssh: no)",
                rule=find_closed_option(access.roles, "nested_ssh").rule,
                code=ReasonCode.NESTED_SSH_NOT_ALLOWED,
            )
            self._context.emit(refusals.failure_event(denied, access.who()))
            raise denied

    def event(self, action: str) -> events.AuditEvent:
        """Return the event ``port``."""
        is_end = action == "close"
        return events.Port(
            **self._access.who(),
            kind=self._kind,
            action=action,
            destination=self._destination,
            origin=self._origin,
            sent=self.sent if is_end else None,
            received=self.received if is_end else None,
            duration=round(self._services.clock.seconds() - self._began, 3) if is_end else None,
            reason=self._reason,
        )


class X11Channel(ForwardedChannel):
    """A channel of one X11 program at the target."""

    not_kept = NotKept.X11

    def __init__(
        self,
        access: TargetAccess,
        opening: IncomingOpen,
        origin: str,
        live: set[ForwardedChannel | ForwardedAgent],
    ) -> None:
        self._origin = origin
        super().__init__(access, opening, user_is_near=False, live=live)

    @property
    def options(self) -> tuple[str, ...]:
        """The option for X11."""
        return ("x11_forwarding",)

    def event(self, action: str) -> events.AuditEvent:
        """Return the event ``x11-forward``."""
        is_end = action == "close"
        return events.X11Forward(
            **self._access.who(),
            action=action,
            origin=self._origin,
            sent=self.sent if is_end else None,
            received=self.received if is_end else None,
            reason=self._reason,
        )
