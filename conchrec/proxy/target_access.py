"""One user at one target: what is known of an inner connection, gathered as it becomes known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from conchrec.access.options import Record, SessionOptions
from conchrec.access.policy import Allow
from conchrec.access.role import Role
from conchrec.audit import events
from conchrec.clock import Clock
from conchrec.errors import ConchrecError
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

    def __init__(self) -> None:
        self._left = False

    def give(self) -> None:
        """The outer login has proved one."""
        self._left = True

    def take(self) -> bool:
        """Use it. Was there one left?"""
        left, self._left = self._left, False
        return left


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The outer connection that the user comes from."""

    #: The connection's id.
    cid: str
    #: The user's bare address; ``address`` is that with the port.
    source: str
    address: str
    #: The proxy's address and port that the user connected to.
    local: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the user goes."""

    target: Target
    #: What the user asked for; ``target`` may have another port, where its group says so.
    requested: Target
    #: All that the name resolved to: what the policy judges.
    resolved: tuple[str, ...] = ()
    #: Those of them that the policy allows: only these may be dialled.
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What was approved: by whom, for which sets of roles (``ApprovalRequest.needed``), and why."""

    request: str = ""
    by: str = ""
    needed: tuple[frozenset[str], ...] = ()
    reason: str = ""
    note: str = ""


NOT_APPROVED = Approval()
"""Nobody has been asked."""


class ConnectionActivity:
    """What the channels of one connection to a target have done so far, all together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: When the user's client last said anything on a channel, in seconds of the reactor's clock.
        self.last = 0.0
        #: A session asked the target for X11, or to have the agent: the target may open such channels.
        self.x11_requested = False
        self.agent_requested = False
        #: What went through the connection that no recording holds.
        self.not_kept: set[NotKept] = set()

    def touch(self) -> None:
        """The client said something."""
        self.last = self._clock.seconds()

    def request_x11(self) -> None:
        """A session asked for X11."""
        self.x11_requested = True

    def request_agent(self) -> None:
        """A session asked for the agent."""
        self.agent_requested = True

    def add_not_kept(self, kind: NotKept) -> None:
        """Something of this kind was forwarded that no recording holds."""
        self.not_kept.add(kind)


class TargetAccess:
    """One user's access to one target: who comes from where, goes where, and is allowed what.

    Everybody reads the attributes; only the methods change them. What belongs together is one frozen value,
    which is replaced whole.
    """

    def __init__(
        self,
        context: ProxyContext,
        origin: Origin,
        destination: Destination,
        *,
        identity: Identity,
        agents: UserAgents,
        proofs: OneTimeProof,
    ) -> None:
        self.context = context
        self.origin = origin
        self.destination = destination
        self.agents = agents
        #: The second factor of the outer login, if nothing has used it.
        self.proofs = proofs
        self.activity = ConnectionActivity(context.services.clock)
        #: The user, as of now.
        self.identity = identity
        #: Empty until the inner connection has named it.
        self.login = ""
        #: Who the inner login has proved to be, by which key or certificate; None without one.
        self.inner: Identity | None = None
        #: The second factor of this connection, where the roles require one for each session.
        self.second_factor = ""
        #: What the policy allowed when it was last asked; None until it has allowed anything.
        self.allowed: Allow | None = None
        #: Why the access was denied, for good; the user reads it in the session.
        self.denied: ConchrecError | None = None
        self.approval = NOT_APPROVED
        #: The request that is waited for, and the reason that the user has given.
        self.pending_request: ApprovalRequest | None = None
        self.reason = ""
        #: What is known of the target since the proxy has logged in there.
        self.reached: Provenance = NOTHING_KNOWN

    # --- what becomes known

    def set_resolved(self, addresses: tuple[str, ...]) -> None:
        """The target's name resolves to these."""
        self.destination = replace(self.destination, resolved=addresses)

    def set_permitted_addresses(self, addresses: tuple[str, ...]) -> None:
        """The policy allows to dial these."""
        self.destination = replace(self.destination, addresses=addresses)

    def set_identity(self, identity: Identity) -> None:
        """The user was judged again: this is what is left of the outer login."""
        self.identity = identity

    def set_login(self, login: str) -> None:
        """The client has named the account at the target."""
        self.login = login

    def set_inner_identity(self, inner: Identity | None) -> None:
        """The inner login has proved this, or it was judged again."""
        self.inner = inner

    def record_second_factor(self, method: str) -> None:
        """This connection has a second factor of its own."""
        self.second_factor = method

    def set_allowed(self, answer: Allow) -> None:
        """The policy was asked, and allows it with these options."""
        self.allowed = answer

    def set_denied(self, error: ConchrecError) -> None:
        """It ends, or does not begin, for this reason."""
        self.denied = error

    def set_reason(self, reason: str) -> None:
        """The user has given a reason, for those who approve."""
        self.reason = reason

    def set_pending_request(self, request: ApprovalRequest | None) -> None:
        """It waits for a decision; None: it does not wait any more."""
        self.pending_request = request

    def record_approval(self, request: ApprovalRequest) -> None:
        """Somebody has approved it."""
        self.approval = Approval(
            request=request.id,
            by=request.by,
            needed=request.needed,
            reason=request.reason,
            note=request.note,
        )

    def record_target_login(self, reached: Provenance) -> None:
        """The proxy has logged in at the target, which was reached like this."""
        self.reached = reached

    # --- what follows from it

    @property
    def settings(self) -> Settings:
        """The settings in effect now."""
        return self.context.settings

    @property
    def services(self) -> Services:
        """What the connection works with."""
        return self.context.services

    @property
    def target(self) -> Target:
        """Where the user goes."""
        return self.destination.target

    @property
    def options(self) -> SessionOptions | None:
        """The session options that the policy allows; None before it was asked."""
        return self.allowed.options if self.allowed is not None else None

    @property
    def session_options(self) -> SessionOptions:
        """The same; what no role says where the policy was not asked."""
        return self.options or SessionOptions()

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that allow this access."""
        return self.allowed.roles if self.allowed is not None else ()

    @property
    def until(self) -> datetime | None:
        """When the policy must be asked again (an aware datetime); None if time changes nothing."""
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
        return self.options is None or set(self.options.approval) <= set(self.approval.needed)

    @property
    def strict(self) -> bool:
        """What cannot be recorded, or audited, does not happen."""
        return self.options is None or self.options.record is Record.STRICT

    @property
    def provenance(self) -> Provenance:
        """How a session that begins now came to be."""
        identity, approval = self.identity, self.approval
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
        """For the recording of one of its sessions, which begins now."""
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
        """The fields that each of its events has."""
        return events.Who(
            user=self.identity.user,
            login=self.login,
            target=str(self.target),
            addr=self.origin.address,
            cid=self.origin.cid,
            sid=sid,
        )

    def emit(self, event: events.AuditEvent) -> None:
        """An event without which nothing must happen: raises WriteFailed where the role is strict."""
        if self.strict:
            self.services.audit.emit(event)
        else:
            self.context.emit(event)

    def refused_login(self, error: ConchrecError) -> events.AuthRefused:
        """The event for a rejected answer in the inner login (a code, for example)."""
        reason = Reason(error.code, error.detail or error.public)
        return events.AuthRefused(**self.who(), reason=reason, method="keyboard-interactive", stage="inner")
