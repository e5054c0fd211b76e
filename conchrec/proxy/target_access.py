"""One user at one target: the facts that the steps of an inner connection establish and share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from conchrec.access.options import Record, SessionOptions
from conchrec.access.policy import Allow
from conchrec.access.role import Role
from conchrec.audit import events
from conchrec.clock import Clock
from conchrec.errors import ConchrecError, without_traceback
from conchrec.model import Identity, SessionInfo, Target
from conchrec.provenance import NOTHING_KNOWN, Provenance
from conchrec.proxy.agents import UserAgents
from conchrec.proxy.approvals import ApprovalRequest
from conchrec.proxy.context import ProxyContext, Services, Settings
from conchrec.reasons import Reason
from conchrec.recording.format.coverage import NotKept
from conchrec.ssh.certificate import decode, fingerprint


class OneTimeProof:
    """A second factor that the outer login has proved, and that may be used once."""

    __slots__ = (
        "_is_left",
    )  # fmt: skip

    def __init__(self) -> None:
        self._is_left = False

    def give(self) -> None:
        """Store one: the outer login has proved it."""
        self._is_left = True

    def take(self) -> bool:
        """Use it up, and return whether there was one."""
        was_left, self._is_left = self._is_left, False
        return was_left


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The outer connection that the user comes from, and what it offers."""

    #: The connection's id.
    cid: str
    #: The user's address without a port.
    source: str
    #: The same with the port.
    address: str
    #: The proxy's address and port that the user connected to.
    local: str = ""
    agents: UserAgents
    #: The second factor of the outer login, if nothing has used it.
    proofs: OneTimeProof


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The target that the user wants to reach, and its addresses."""

    target: Target
    #: What the user requested; ``target`` may have another port, where its rule (``targets``) says so.
    requested: Target
    #: All addresses of the name: the policy decides about these.
    resolved: tuple[str, ...] = ()
    #: The addresses that the policy allows: only these may be dialled.
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who approved which request, for which sets of roles (``ApprovalRequest.needed``), and why."""

    request: str = ""
    by: str = ""
    needed: tuple[frozenset[str], ...] = ()
    reason: str = ""
    note: str = ""


NOT_APPROVED = Approval()
"""There is no approval."""


class ConnectionActivity:
    """What all channels of one connection to a target have done so far."""

    __slots__ = (
        "_clock", "agent_requested", "last", "not_kept", "x11_requested",
    )  # fmt: skip

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: When the user's client last sent a message on a channel, in seconds of the reactor's clock.
        self.last = 0.0
        #: A session requested X11, or agent forwarding: the target may open such channels.
        self.x11_requested = False
        self.agent_requested = False
        #: The kinds of data that went through the connection and are in no recording.
        self.not_kept: set[NotKept] = set()

    def touch(self) -> None:
        """Note that the client sent a message now."""
        self.last = self._clock.seconds()

    def request_x11(self) -> None:
        """Note that a session requested X11."""
        self.x11_requested = True

    def request_agent(self) -> None:
        """Note that a session requested agent forwarding."""
        self.agent_requested = True

    def add_not_kept(self, kind: NotKept) -> None:
        """Note that data of this kind was forwarded and is in no recording."""
        self.not_kept.add(kind)


@dataclass(slots=True, kw_only=True)
class InnerCredentials:
    """What the inner login has established so far."""

    #: The account at the target; empty until the client has named it.
    login: str = ""
    #: The user, as the key or certificate of the inner login proves; None without one.
    identity: Identity | None = None
    #: The second factor of this connection, where the roles require one for each session.
    second_factor: str = ""


@dataclass(slots=True, kw_only=True)
class ApprovalProgress:
    """How far the approval of one access has come. ``login.approval_step`` writes it."""

    approval: Approval = NOT_APPROVED
    #: The reason that the user has given, for those who approve.
    reason: str = ""
    #: The request whose decision the login waits for.
    pending_request: ApprovalRequest | None = None

    def record(self, request: ApprovalRequest) -> None:
        """Store the approval that this request has got."""
        self.approval = Approval(
            request=request.id,
            by=request.by,
            needed=request.needed,
            reason=request.reason,
            note=request.note,
        )


class TargetAccess:
    """One user's access to one target: the facts, in the order in which they become known.

    The inner server, its login, the policy checks and the connection to the target share it. Each fact is
    stored by one method; everything else is computed from the facts.
    """

    __slots__ = (
        "activity", "allowed", "approval_progress", "context", "denied", "destination", "identity",
        "inner_credentials", "origin", "reached",
    )  # fmt: skip

    def __init__(
        self, context: ProxyContext, origin: Origin, destination: Destination, *, identity: Identity
    ) -> None:
        self.context = context
        self.origin = origin
        self.destination = destination
        self.activity = ConnectionActivity(context.services.clock)
        #: The user, as of the last check.
        self.identity = identity
        self.inner_credentials = InnerCredentials()
        self.approval_progress = ApprovalProgress()
        #: What the policy allowed in the last decision; None before the first one.
        self.allowed: Allow | None = None
        #: Why the access was denied for good; the user reads it in the session.
        self.denied: ConchrecError | None = None
        #: How the target was reached, since the proxy has logged in there.
        self.reached: Provenance = NOTHING_KNOWN

    # --- facts

    def set_resolved(self, addresses: tuple[str, ...]) -> None:
        """Store the addresses of the target's name."""
        self.destination = replace(self.destination, resolved=addresses)

    def set_permitted_addresses(self, addresses: tuple[str, ...]) -> None:
        """Store the addresses that the policy allows to dial."""
        self.destination = replace(self.destination, addresses=addresses)

    def set_identity(self, identity: Identity) -> None:
        """Store the user, as of a new check of the outer login."""
        self.identity = identity

    def set_login(self, login: str) -> None:
        """Store the account at the target that the client has named."""
        self.inner_credentials.login = login

    def set_inner_identity(self, identity: Identity | None) -> None:
        """Store whom the inner login has proved, or a new check of it."""
        self.inner_credentials.identity = identity

    def record_second_factor(self, method: str) -> None:
        """Store that this connection has a second factor of its own."""
        self.inner_credentials.second_factor = method

    def set_allowed(self, answer: Allow) -> None:
        """Store what the policy allows, with which options."""
        self.allowed = answer

    def set_denied(self, error: ConchrecError) -> None:
        """Store why the access ends, or does not begin."""
        self.denied = without_traceback(error)

    def record_target_login(self, reached: Provenance) -> None:
        """Store how the proxy has reached the target and logged in there."""
        self.reached = reached

    # --- what follows from the facts

    @property
    def settings(self) -> Settings:
        """The settings in effect now."""
        return self.context.settings

    @property
    def services(self) -> Services:
        """The services of this process."""
        return self.context.services

    @property
    def target(self) -> Target:
        """The target that the user wants to reach."""
        return self.destination.target

    @property
    def agents(self) -> UserAgents:
        """The user's agents."""
        return self.origin.agents

    @property
    def login(self) -> str:
        """The account at the target; empty until the client has named it."""
        return self.inner_credentials.login

    @property
    def inner(self) -> Identity | None:
        """The user, as the key or certificate of the inner login proves; None without one."""
        return self.inner_credentials.identity

    @property
    def second_factor(self) -> str:
        """The second factor of this connection; empty where it has none of its own."""
        return self.inner_credentials.second_factor

    @property
    def options(self) -> SessionOptions | None:
        """The session options that the policy allows; None before its first decision."""
        return self.allowed.options if self.allowed is not None else None

    @property
    def session_options(self) -> SessionOptions:
        """The session options that the policy allows; the defaults before its first decision."""
        return self.options or SessionOptions()

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that allow this access."""
        return self.allowed.roles if self.allowed is not None else ()

    @property
    def until(self) -> datetime | None:
        """When the policy must decide again (an aware datetime); None if time changes nothing."""
        if self.allowed is None:
            return None
        ends = (self.allowed.until, self.inner.expires if self.inner is not None else None)
        return min((end for end in ends if end is not None), default=None)

    @property
    def withheld(self) -> frozenset[str]:
        """The permits that the certificate of the outer login, or of the inner one, withholds."""
        return self.identity.withheld | (self.inner.withheld if self.inner is not None else frozenset())

    @property
    def is_approved(self) -> bool:
        """Whether everyone whose approval is required has approved."""
        return self.options is None or set(self.options.approval) <= set(
            self.approval_progress.approval.needed
        )

    @property
    def is_strict(self) -> bool:
        """Whether nothing may happen that cannot be recorded and audited."""
        return self.options is None or self.options.record is Record.STRICT

    @property
    def provenance(self) -> Provenance:
        """How the user and the proxy have logged in, for the recording of a session that begins now."""
        identity, approval = self.identity, self.approval_progress.approval
        certificate = decode(identity.certificate) if identity.certificate is not None else None
        return replace(
            self.reached,
            proxy_address=self.origin.local,
            method=identity.method,
            key=fingerprint(identity.key) if identity.key else "",
            certificate=f"{certificate.key_id} serial {certificate.serial}" if certificate else "",
            second_factor=self.second_factor or identity.second_factor,
            request=approval.request,
            approved_by=approval.by,
            approval_reason=approval.reason,
            approval_note=approval.note,
        )

    def session_info(self, sid: str) -> SessionInfo:
        """The facts for the recording of a session that begins now."""
        return SessionInfo(
            sid=sid,
            cid=self.origin.cid,
            user=self.identity.user,
            login=self.login,
            target=self.target,
            address=self.origin.address,
            started=self.services.now(),
            roles=self.identity.roles,
            provenance=self.provenance,
        )

    # --- the audit

    def who(self, sid: str = "") -> events.Who:
        """The fields that each audit event of this access has."""
        return events.Who(
            user=self.identity.user,
            login=self.login,
            target=str(self.target),
            addr=self.origin.address,
            cid=self.origin.cid,
            sid=sid,
        )

    def emit(self, event: events.AuditEvent) -> None:
        """Audit an event. Raises WriteFailed where it cannot be written and the role is strict.

        The caller does what the event says only after this returns.
        """
        if self.is_strict:
            self.services.audit.emit(event)
        else:
            self.context.emit(event)

    def refused_login(self, error: ConchrecError) -> events.AuthRefused:
        """The event for a rejected answer in the inner login (a code, for example)."""
        reason = Reason(error.code, error.detail or error.public)
        return events.AuthRefused(**self.who(), reason=reason, method="keyboard-interactive", stage="inner")
