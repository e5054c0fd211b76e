"""The commands ``request``, ``requests``, ``approve`` and ``deny``."""

from __future__ import annotations

import re

from conchrec.access.policy import Deny, active, decide, denial_without_addresses
from conchrec.audit import events
from conchrec.config.target_rules import given_address, located, other_ports
from conchrec.proxy.approvals import MAX_TEXT, ApprovalRequest, ApprovalState
from conchrec.proxy.authorization import access_denied
from conchrec.proxy.commands.command_request import CommandRefused, CommandRequest, UsageError
from conchrec.proxy.login.approval_step import request_approval, wait_for_decision
from conchrec.proxy.target_names import parse_target
from conchrec.text import one_line, quote

#: Seconds between two checks of ``requests --wait``.
POLL_SECONDS = 1.0
_DESTINATION = re.compile(
    r"(?P<login>[^@]+)@(?:\[(?P<v6>[^\[\]@]+)\]|(?P<host>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?"
)


async def request_access(request: CommandRequest) -> str:
    """Ask for approval before you connect: request [--no-wait] LOGIN@HOST[:PORT] REASON"""
    words = list(request.words)
    waits = "--no-wait" not in words[:1]
    words = words if waits else words[1:]
    match = _DESTINATION.fullmatch(words[0]) if words else None
    reason = one_line(" ".join(words[1:]), MAX_TEXT).strip()
    if match is None or not reason:
        raise UsageError(
            "request: LOGIN@HOST[:PORT] and a reason are required, for example: request root@web1 disk full"
        )
    services, login = request.services, match["login"]
    requested = parse_target((match["v6"] or match["host"]).encode(), match["port"] or "22")
    targets = request.settings.config.targets
    target = located(requested, targets)
    ports = other_ports(requested, target, targets)
    user = request.identity.user
    if denial := denial_without_addresses(
        request.settings.policy, request.identity, target, request.source, services.now(), other_ports=ports
    ):
        raise access_denied(denial)
    addresses = given_address(target, targets) or await services.resolve(user, target.host)
    answer = decide(
        request.settings.policy, request.identity, target, addresses, login, request.source,
        services.now(), other_ports=ports,
    )  # fmt: skip
    if isinstance(answer, Deny):
        raise access_denied(answer)
    if not answer.options.approval:
        return f"{login}@{target} requires no approval. Connect with ssh.\n"
    who = events.Who(
        user=user, login=login, target=str(target), addr=request.address, cid=request.cid, sid=""
    )
    approval = request_approval(request.context, who, target, reason, answer.options.approval)
    notice = f"Request {approval.id} is pending. It can be approved by role {approval.approvers}.\n"
    if not waits:
        return notice
    await request.console.write(notice)
    await wait_for_decision(request.context, who, approval, at_once=False)
    return (
        f"{approval.by} approved request {approval.id}. "
        f"Open one connection to {login}@{target} within an hour.\n"
    )


async def list_requests(request: CommandRequest) -> str:
    """List pending requests, mine and those that I may approve: requests [--wait]"""
    if request.words not in ((), ("--wait",)):
        raise UsageError("requests: the only argument is --wait")
    shown: set[str] = set()
    while True:
        new = [
            approval
            for approval in request.services.approvals
            if approval.id not in shown and _is_visible(request, approval)
        ]
        shown |= {approval.id for approval in new}
        text = "".join(one_line(_line(request, approval)) + "\n" for approval in new)
        if not request.words:
            return text
        await request.console.write(text)
        await request.console.wait(POLL_SECONDS)


async def approve(request: CommandRequest) -> str:
    """Approve a request: approve ID [NOTE]"""
    approval, note = _approval_to_decide(request, "approve")
    if approval.state is not ApprovalState.PENDING:
        raise CommandRefused(f"request {approval.id} was already approved by {approval.by}")
    user = request.identity.user
    request.services.audit.emit(events.AccessApprove(**_fields(request, approval), by=user, note=note))
    request.services.approvals.approve(approval, user, note)
    return f"Approved {approval.id}: {approval.user} may connect to {approval.login}@{approval.target}.\n"


async def deny(request: CommandRequest) -> str:
    """Deny a request: deny ID [REASON]"""
    approval, note = _approval_to_decide(request, "deny")
    user = request.identity.user
    request.services.approvals.deny(approval, user, note)
    request.context.emit(events.AccessDeny(**_fields(request, approval), by=user, note=note))
    return f"Denied {approval.id}: {approval.user} may not connect to {approval.login}@{approval.target}.\n"


def _approval_to_decide(request: CommandRequest, name: str) -> tuple[ApprovalRequest, str]:
    """The request that the words name, and the note. One that the user may not see does not exist."""
    if not request.words:
        raise UsageError(f"{name}: the ID of a request is required. To list the requests: requests")
    approval = request.services.approvals.get(request.words[0])
    if approval is None or not _is_visible(request, approval):
        shown = quote(request.words[0], 20)
        raise CommandRefused(f"no pending request {shown}. To list the requests: requests")
    if not approval.may_be_decided_by(request.identity.user, _roles(request)):
        raise CommandRefused("you cannot decide on your own request. Another user must do it")
    return approval, one_line(" ".join(request.words[1:]), MAX_TEXT).strip()


def _is_visible(request: CommandRequest, approval: ApprovalRequest) -> bool:
    user = request.identity.user
    return approval.user == user or approval.may_be_decided_by(user, _roles(request))


def _roles(request: CommandRequest) -> frozenset[str]:
    roles = active(request.settings.policy, request.identity, request.source, request.services.now())
    return frozenset(role.name for role in roles)


def _line(request: CommandRequest, approval: ApprovalRequest) -> str:
    """One line of the list."""
    is_own = approval.user == request.identity.user
    own = f" (yours; can be approved by role {approval.approvers})" if is_own else ""
    return (
        f"{approval.id}  {approval.since:%H:%M:%S} UTC  {approval.user} → "
        f"{approval.login}@{approval.target}  {approval.reason}{own}"
    )


class _ApprovalFields(events.Who):
    request: str


def _fields(request: CommandRequest, approval: ApprovalRequest) -> _ApprovalFields:
    """The audit fields of a decision: the user who asked, and the address of the one who decides."""
    return _ApprovalFields(
        user=approval.user, login=approval.login, target=str(approval.target), addr=request.address,
        cid=request.cid, sid="", request=approval.id,
    )  # fmt: skip
