"""One user at one target: what is known of an inner connection, gathered as it becomes known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from conchrec.access.options import Record, SessionOptions
from conchrec.access.policy import Allow, Role
from conchrec.audit import events
from conchrec.errors import ConchrecError
from conchrec.model import Identity, SessionInfo, Target
from conchrec.provenance import NOTHING_KNOWN, Provenance
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.approvals import ApprovalRequest
from conchrec.proxy.context import ProxyContext
from conchrec.reasons import Reason
from conchrec.recording.format.coverage import NotKept
from conchrec.ssh.certificate import decode, fingerprint


class OneTimeProof:
    """What the login of the outer connection has proved besides: good for one thing."""

    def __init__(self) -> None:
        self._left = False

    def give(self) -> None:
        self._left = True

    def take(self) -> bool:
        """Was there one left?"""
        left, self._left = self._left, False
        return left


@dataclass(slots=True, kw_only=True)
class Visit:
    """``source`` is the user's bare address, ``address`` that with the port, ``cid`` the connection.

    ``login`` is empty until the inner connection has named it; ``denied`` is the policy's no, which
    the user reads in the session; ``options`` are those of the rules that allow it.
    """

    context: ProxyContext
    identity: Identity
    cid: str
    source: str
    address: str
    #: The proxy's address and port that the user connected to.
    local: str = ""
    target: Target
    addresses: tuple[str, ...]
    #: All that the name resolved to: what the policy judges. Only ``addresses`` may be dialled.
    resolved: tuple[str, ...] = ()
    #: What the user asked for; ``target`` may have another port, where its group says so.
    asked: Target
    outer_agent: AgentSource
    inner_agent: AgentSource = field(default_factory=lambda: AgentSource("inner"))
    login: str = ""
    options: SessionOptions | None = None
    #: Those that allow it, together.
    roles: tuple[Role, ...] = ()
    #: When the answer of the policy may be another one, aware; None: never by itself.
    until: datetime | None = None
    #: The second factor of the outer login, if nothing has used it.
    proofs: OneTimeProof = field(default_factory=OneTimeProof)
    #: The one that this visit has, where its roles require one for each session.
    second_factor: str = ""
    #: What was approved, by whom, and as whom they had to be somebody, where that is needed.
    request: str = ""
    approved_by: str = ""
    approved_for: tuple[frozenset[str], ...] = ()
    approval_reason: str = ""
    approval_note: str = ""
    #: What is known of the target since the proxy has logged in there.
    reached: Provenance = NOTHING_KNOWN
    #: The request that is waited for, and the reason that was given for it.
    waiting: ApprovalRequest | None = None
    reason: str = ""
    #: Who the inner login has proved to be, by which key or certificate; None without one.
    inner: Identity | None = None
    denied: ConchrecError | None = None
    #: When the user's client last said anything on a channel, in seconds of the reactor's clock.
    last_activity: float = 0.0
    #: A session of this connection asked the target for X11, or to have the agent: it may use them.
    x11_requested: bool = False
    onward_agent: bool = False
    #: What went through this connection that no recording holds.
    beside: set[NotKept] = field(default_factory=set)

    @property
    def withheld(self) -> frozenset[str]:
        """What neither the certificate of the outer login permits nor that of the inner one."""
        return self.identity.withheld | (self.inner.withheld if self.inner is not None else frozenset())

    @property
    def is_approved(self) -> bool:
        """By everybody who has to."""
        return self.options is None or set(self.options.approval) <= set(self.approved_for)

    def judged(self, answer: Allow) -> None:
        """What the policy says of it now."""
        self.options, self.roles = answer.options, answer.roles
        ends = (answer.until, self.inner.expires if self.inner is not None else None)
        self.until = min((end for end in ends if end is not None), default=None)

    def use(self, request: ApprovalRequest) -> None:
        """Somebody has approved it."""
        self.request, self.approved_by, self.approved_for = request.id, request.by, request.needed
        self.approval_reason, self.approval_note = request.reason, request.note

    @property
    def strict(self) -> bool:
        """What cannot be recorded, or audited, does not happen."""
        return self.options is None or self.options.record is Record.STRICT

    def emit(self, event: events.AuditEvent) -> None:
        """An event without which nothing must happen: raises WriteFailed where the role is strict."""
        if self.strict:
            self.context.services.audit.emit(event)
        else:
            self.context.emit(event)

    def refused_login(self, error: ConchrecError) -> events.AuthRefused:
        """A code, or the like, that was not right in the inner login."""
        reason = Reason(error.code, error.detail or error.public)
        return events.AuthRefused(**self.who(), reason=reason, method="keyboard-interactive", stage="inner")

    @property
    def provenance(self) -> Provenance:
        """How a session that begins now came to be."""
        identity = self.identity
        certificate = decode(identity.certificate) if identity.certificate is not None else None
        return replace(
            self.reached,
            proxy_address=self.local,
            method=identity.method,
            key=fingerprint(identity.key) if identity.key else "",
            certificate=f"{certificate.key_id} serial {certificate.serial}" if certificate else "",
            second_factor=self.second_factor or identity.second_factor,
            request=self.request,
            approved_by=self.approved_by,
            approval_reason=self.approval_reason,
            approval_note=self.approval_note,
        )

    def session_info(self, sid: str) -> SessionInfo:
        """For the recording of one of its sessions, which begins now."""
        return SessionInfo(
            sid=sid,
            cid=self.cid,
            user=self.identity.user,
            login=self.login,
            target=self.target,
            address=self.address,
            started=self.context.services.now(),
            roles=self.identity.roles,
            provenance=self.provenance,
        )

    def who(self, sid: str = "") -> events.Who:
        return events.Who(
            user=self.identity.user,
            login=self.login,
            target=str(self.target),
            addr=self.address,
            cid=self.cid,
            sid=sid,
        )
