"""The approval that a role requires (``approval``), as a step of the inner login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred

from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Target
from conchrec.proxy.approvals import LONGEST, ApprovalRequest, ApprovalState
from conchrec.proxy.authorization import APPROVAL as RULE
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often an empty reason is asked for again.
TRIES = 3


def step(access: TargetAccess) -> _WaitForApproval | None:
    """None where nobody has to approve, or somebody has in advance."""
    if access.options is None or access.is_approved:
        return None
    needed = access.options.approval
    found = _taken(access, access.login, needed)
    if found is not None:
        access.record_approval(found)
        return None
    return _WaitForApproval(access, needed)


def _taken(
    access: TargetAccess, login: str | None, needed: tuple[frozenset[str], ...]
) -> ApprovalRequest | None:
    """An approval given in advance, if who gave it is still a user, and neither locked nor revoked."""
    settings, services = access.settings, access.services

    def stands(by: str) -> bool:
        locked = settings.policy.lock_on(services.now(), lambda lock: lock.is_of_user(by))
        return by in settings.config.users and locked is None and by not in services.authority.revoked().users

    return services.approvals.take(access.identity.user, login, access.target, needed, stands)


def changed(access: TargetAccess) -> None:
    """The policy may be another one: where somebody else has to approve, those are asked."""
    request = access.pending_request
    if request is not None and access.options is not None and request.needed != access.options.approval:
        access.services.approvals.end(request, ApprovalState.CHANGED)


class _Changed(AccessDenied):
    """What is waited for is not what is needed any more."""

    default_code = ReasonCode.APPROVAL_CHANGED


class _WaitForApproval:
    """A Step of the inner login."""

    def __init__(self, access: TargetAccess, needed: tuple[frozenset[str], ...]) -> None:
        self._access = access
        self._needed = needed
        self._place = f"{access.login}@{access.destination.requested}"

    @property
    def why(self) -> str:
        return (
            f"{self._place} requires an approval. Enter the reason for your access. To ask in advance: "
            f"{command_line(self._access.context, self._access.identity.user)} request {self._place} REASON"
        )

    async def pass_(self, ask: Ask, say: Callable[[str], None]) -> None:
        access = self._access
        if not access.reason:
            access.set_reason(await self._reason(ask))
        request = request_approval(access.context, access.who(), access.target, access.reason, self._needed)
        how = f"{command_line(access.context, 'APPROVER')} approve {request.id}"
        say(f"conchrec: request {request.id} is pending. Role {request.approvers} can approve it: {how}")
        access.set_pending_request(request)
        try:
            await decision(access.context, access.who(), request, at_once=True)
        except _Changed:
            return  # the inner login decides again which approval is required
        finally:
            access.set_pending_request(None)
        access.record_approval(request)
        note = f": {request.note}" if request.note else ""
        say(f"conchrec: {request.by} approved request {request.id}{note}")

    async def _reason(self, ask: Ask) -> str:
        prompt = Prompt(text=f"Reason for {self._place}: ", echo=True)
        for _ in range(TRIES):
            (said,) = await ask(Challenge(prompts=(prompt,)))
            if reason := one_line(said, LONGEST).strip():
                return reason
        raise AccessDenied(
            "no approval was requested: you gave no reason. Connect again and enter one",
            rule=RULE,
            code=ReasonCode.APPROVAL_REASON_MISSING,
        )


def request_approval(
    context: ProxyContext, who: events.Who, target: Target, reason: str, needed: tuple[frozenset[str], ...]
) -> ApprovalRequest:
    """Raises AccessDenied, and WriteFailed where it can't be audited."""
    services = context.services
    request = services.approvals.ask(
        user=who["user"], login=who["login"], target=target, reason=reason, needed=needed,
        now=services.now(), wait=context.settings.config.limits.approval_time,
    )  # fmt: skip
    try:
        services.audit.emit(
            events.AccessRequest(**who, request=request.id, reason=reason, approvers=request.approvers)
        )
    except ConchrecError:
        services.approvals.end(request)
        raise
    return request


async def decision(
    context: ProxyContext, who: events.Who, request: ApprovalRequest, *, at_once: bool
) -> None:
    """Returns when it is approved, to be used ``at_once`` or later. Raises AccessDenied. Cancelling the
    wait withdraws the request."""
    request.waited_for = at_once
    waiting: Deferred[None] = Deferred()
    request.decided.chainDeferred(waiting)
    try:
        await waiting
    except CancelledError:
        context.services.approvals.end(request)
        context.emit(
            events.AccessWithdraw(
                **who, request=request.id, reason=Reason(ReasonCode.APPROVAL_WITHDRAWN, "the user left")
            )
        )
        raise
    if request.state is ApprovalState.DENIED:
        said = f": {request.note}" if request.note else ""
        raise AccessDenied(
            f"{request.by} denied request {request.id}{said}", rule=RULE, code=ReasonCode.APPROVAL_DENIED
        )
    if request.state is ApprovalState.CHANGED:
        context.emit(
            events.AccessWithdraw(
                **who,
                request=request.id,
                reason=Reason(ReasonCode.APPROVAL_CHANGED, "another role must approve now"),
            )
        )
        raise _Changed("another role must approve now. Make a new request", rule=RULE)
    if request.state is not ApprovalState.APPROVED:
        context.emit(
            events.AccessWithdraw(
                **who,
                request=request.id,
                reason=Reason(ReasonCode.APPROVAL_TIMEOUT, "not decided in time"),
            )
        )
        raise AccessDenied(
            f"request {request.id} was not approved in time. Connect again to make a new request",
            rule=RULE,
            code=ReasonCode.APPROVAL_TIMEOUT,
        )


def check(access: TargetAccess) -> None:
    """Where nobody can be asked (nothing is recorded): AccessDenied without an approval in advance."""
    if access.options is None or access.is_approved:
        return
    found = _taken(access, None, access.options.approval)
    if found is None:
        asked = access.destination.requested
        how = f"{command_line(access.context, access.identity.user)} request LOGIN@{asked} REASON"
        raise AccessDenied(
            f"{asked} requires an approval. Request it first: {how}",
            rule=RULE,
            code=ReasonCode.APPROVAL_REQUIRED,
        )
    access.record_approval(found)


def command_line(context: ProxyContext, user: str) -> str:
    public = context.settings.config.public
    return f"ssh {user}@PROXY" if public is None else f"ssh -p {public.port} {user}@{public.host}"
