"""The approval that a role requires (``approval``): a step of the inner login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred

from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Target
from conchrec.proxy.approvals import MAX_TEXT, ApprovalRequest, ApprovalState
from conchrec.proxy.authorization import APPROVAL as RULE
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often the user is asked for a reason that is not empty.
TRIES = 3


def take_step(access: TargetAccess) -> _WaitForApproval | None:
    """Return the step that waits for an approval; None where none is required, or one was given in advance.

    An approval in advance is recorded and used up.
    """
    if access.options is None or access.is_approved:
        return None
    needed = access.options.approval
    request = _use_advance_approval(access, access.login, needed)
    if request is not None:
        access.approval_progress.record(request)
        return None
    return _WaitForApproval(access, needed)


def _use_advance_approval(
    access: TargetAccess, login: str | None, needed: tuple[frozenset[str], ...]
) -> ApprovalRequest | None:
    """Use up an approval in advance, if its approver is still a user, and neither locked nor revoked."""
    settings, services = access.settings, access.services

    def is_valid_approver(user: str) -> bool:
        lock = settings.policy.lock_on(services.now(), lambda lock: lock.is_of_user(user))
        is_revoked = user in services.authority.revoked().users
        return user in settings.config.users and lock is None and not is_revoked

    return services.approvals.take(access.identity.user, login, access.target, needed, is_valid_approver)


def policy_changed(access: TargetAccess) -> None:
    """End the pending request if the policy now requires other approvers; the login makes a new one."""
    request = access.approval_progress.pending_request
    if request is not None and access.options is not None and request.needed != access.options.approval:
        access.services.approvals.end(request, ApprovalState.CHANGED)


class _Changed(AccessDenied):
    """The pending request is not the one that the policy requires now."""

    default_code = ReasonCode.APPROVAL_CHANGED


class _WaitForApproval:
    """A Step of the inner login: request an approval, and wait for the decision."""

    def __init__(self, access: TargetAccess, needed: tuple[frozenset[str], ...]) -> None:
        self._access = access
        self._needed = needed
        self._destination = f"{access.login}@{access.destination.requested}"

    @property
    def why(self) -> str:
        return (
            f"{self._destination} requires an approval. Enter the reason for your access. To ask in advance: "
            f"{command_line(self._access.context, self._access.identity.user)} "
            f"request {self._destination} REASON"
        )

    async def pass_(self, ask: Ask, say: Callable[[str], None]) -> None:
        access, progress = self._access, self._access.approval_progress
        if not progress.reason:
            progress.reason = await self._reason(ask)
        request = request_approval(access.context, access.who(), access.target, progress.reason, self._needed)
        how = f"{command_line(access.context, 'APPROVER')} approve {request.id}"
        say(f"conchrec: request {request.id} is pending. Role {request.approvers} can approve it: {how}")
        progress.pending_request = request
        try:
            await wait_for_decision(access.context, access.who(), request, at_once=True)
        except _Changed:
            return  # the inner login decides again which approval is required
        finally:
            progress.pending_request = None
        progress.record(request)
        note = f": {request.note}" if request.note else ""
        say(f"conchrec: {request.by} approved request {request.id}{note}")

    async def _reason(self, ask: Ask) -> str:
        prompt = Prompt(text=f"Reason for {self._destination}: ", echo=True)
        for _ in range(TRIES):
            (answer,) = await ask(Challenge(prompts=(prompt,)))
            if reason := one_line(answer, MAX_TEXT).strip():
                return reason
        raise AccessDenied(
            "no approval was requested: you gave no reason. Connect again and enter one",
            rule=RULE,
            code=ReasonCode.APPROVAL_REASON_MISSING,
        )


def request_approval(
    context: ProxyContext, who: events.Who, target: Target, reason: str, needed: tuple[frozenset[str], ...]
) -> ApprovalRequest:
    """Make and audit a request. Raises AccessDenied, and WriteFailed where it cannot be audited."""
    services = context.services
    request = services.approvals.add(
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


async def wait_for_decision(
    context: ProxyContext, who: events.Who, request: ApprovalRequest, *, at_once: bool
) -> None:
    """Wait until a request is approved, to be used ``at_once`` or later. Raises AccessDenied.

    If the wait is cancelled, the request is withdrawn.
    """
    request.waited_for = at_once
    waiting: Deferred[None] = Deferred()
    request.decided.chainDeferred(waiting)
    try:
        await waiting
    except CancelledError:
        context.services.approvals.end(request)
        context.emit(
            events.AccessWithdraw(
                **who,
                request=request.id,
                reason=Reason(ReasonCode.APPROVAL_WITHDRAWN, "the wait ended before a decision"),
            )
        )
        raise
    if request.state is ApprovalState.DENIED:
        note = f": {request.note}" if request.note else ""
        raise AccessDenied(
            f"{request.by} denied request {request.id}{note}", rule=RULE, code=ReasonCode.APPROVAL_DENIED
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


def check_advance_approval(access: TargetAccess) -> None:
    """Raise AccessDenied where an approval is required and none was given in advance.

    For connections without an inner login (nothing is recorded), where nobody can be asked for a reason.
    """
    if access.options is None or access.is_approved:
        return
    request = _use_advance_approval(access, None, access.options.approval)
    if request is None:
        requested = access.destination.requested
        how = f"{command_line(access.context, access.identity.user)} request LOGIN@{requested} REASON"
        raise AccessDenied(
            f"{requested} requires an approval. Request it first: {how}",
            rule=RULE,
            code=ReasonCode.APPROVAL_REQUIRED,
        )
    access.approval_progress.record(request)


def command_line(context: ProxyContext, user: str) -> str:
    """The first words of a command to the proxy: ``ssh -p 3023 joe@proxy.example.com``."""
    public = context.settings.config.public
    return f"ssh {user}@PROXY" if public is None else f"ssh -p {public.port} {user}@{public.host}"
