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
from conchrec.proxy.refusals import one_line
from conchrec.proxy.target_access import Visit
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.ssh.userauth_server import Ask

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often an empty reason is asked for again.
TRIES = 3


def step(visit: Visit) -> _WaitForApproval | None:
    """None where nobody has to approve, or somebody has in advance."""
    if visit.options is None or visit.is_approved:
        return None
    needed = visit.options.approval
    found = _taken(visit, visit.login, needed)
    if found is not None:
        visit.use(found)
        return None
    return _WaitForApproval(visit, needed)


def _taken(visit: Visit, login: str | None, needed: tuple[frozenset[str], ...]) -> ApprovalRequest | None:
    """What was approved in advance, if whoever did is still somebody."""
    settings, services = visit.context.settings, visit.context.services

    def stands(by: str) -> bool:
        locked = settings.policy.lock_on(services.now(), lambda lock: lock.is_of_user(by))
        return by in settings.config.users and locked is None and by not in services.authority.revoked().users

    return services.approvals.take(visit.identity.user, login, visit.target, needed, stands)


def changed(visit: Visit) -> None:
    """The policy may be another one: where somebody else has to approve, those are asked."""
    request = visit.waiting
    if request is not None and visit.options is not None and request.needed != visit.options.approval:
        visit.context.services.approvals.end(request, ApprovalState.CHANGED)


class _Changed(AccessDenied):
    """What is waited for is not what is needed any more."""

    default_code = ReasonCode.APPROVAL_CHANGED


class _WaitForApproval:
    """A Step of the inner login."""

    def __init__(self, visit: Visit, needed: tuple[frozenset[str], ...]) -> None:
        self._visit = visit
        self._needed = needed
        self._place = f"{visit.login}@{visit.asked}"

    @property
    def why(self) -> str:
        return (
            f"{self._place} needs somebody's approval. You are asked for a reason; or ask before, with: "
            f"{command_line(self._visit.context, self._visit.identity.user)} request {self._place} REASON"
        )

    async def pass_(self, ask: Ask, say: Callable[[str], None]) -> None:
        visit = self._visit
        visit.reason = visit.reason or await self._reason(ask)
        request = request_approval(visit.context, visit.who(), visit.target, visit.reason, self._needed)
        how = f"{command_line(visit.context, 'THEM')} approve {request.id}"
        say(f"conchrec: waiting for approval of {request.id}, by {request.approvers}: {how}")
        visit.waiting = request
        try:
            await decision(visit.context, visit.who(), request, at_once=True)
        except _Changed:
            return  # and it is looked anew what is needed
        finally:
            visit.waiting = None
        visit.use(request)
        say(f"conchrec: {request.by} approved it" + (f": {request.note}" if request.note else ""))

    async def _reason(self, ask: Ask) -> str:
        prompt = Prompt(text=f"Reason for {self._place}: ", echo=True)
        for _ in range(TRIES):
            (said,) = await ask(Challenge(prompts=(prompt,)))
            if reason := one_line(said, LONGEST).strip():
                return reason
        raise AccessDenied(
            "without a reason nobody is asked for approval",
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
    """Returns when it is approved, to be used ``at_once`` or later. Raises AccessDenied; whoever waits no
    longer takes it back."""
    request.waited_for = at_once
    waiting: Deferred[None] = Deferred()
    request.decided.chainDeferred(waiting)
    try:
        await waiting
    except CancelledError:
        context.services.approvals.end(request)
        context.emit(
            events.AccessWithdraw(
                **who, request=request.id, reason=Reason(ReasonCode.APPROVAL_WITHDRAWN, "withdrawn")
            )
        )
        raise
    if request.state is ApprovalState.DENIED:
        said = f": {request.note}" if request.note else ""
        raise AccessDenied(f"{request.by} denied it{said}", rule=RULE, code=ReasonCode.APPROVAL_DENIED)
    if request.state is ApprovalState.CHANGED:
        context.emit(
            events.AccessWithdraw(
                **who,
                request=request.id,
                reason=Reason(ReasonCode.APPROVAL_CHANGED, "somebody else has to approve"),
            )
        )
        raise _Changed("somebody else has to approve", rule=RULE)
    if request.state is not ApprovalState.APPROVED:
        context.emit(
            events.AccessWithdraw(
                **who,
                request=request.id,
                reason=Reason(ReasonCode.APPROVAL_TIMEOUT, "nobody decided in time"),
            )
        )
        raise AccessDenied(
            f"nobody approved {request.id} in time", rule=RULE, code=ReasonCode.APPROVAL_TIMEOUT
        )


def check(visit: Visit) -> None:
    """Where nobody can be asked (nothing is recorded): AccessDenied without an approval in advance."""
    if visit.options is None or visit.is_approved:
        return
    found = _taken(visit, None, visit.options.approval)
    if found is None:
        how = f"{command_line(visit.context, visit.identity.user)} request LOGIN@{visit.asked} REASON"
        raise AccessDenied(
            f"{visit.asked} needs somebody's approval: {how}", rule=RULE, code=ReasonCode.APPROVAL_REQUIRED
        )
    visit.use(found)


def command_line(context: ProxyContext, user: str) -> str:
    public = context.settings.config.public
    return f"ssh {user}@PROXY" if public is None else f"ssh -p {public.port} {user}@{public.host}"
