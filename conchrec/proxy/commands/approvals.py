"""``request``, ``requests``, ``approve`` and ``deny``: approvals, as commands of the proxy."""

from __future__ import annotations

import re

from conchrec.access.policy import Deny, active, decide, hopeless
from conchrec.audit import events
from conchrec.config.target_rules import given_address, located, other_ports
from conchrec.proxy.approvals import MAX_TEXT, ApprovalRequest, ApprovalState
from conchrec.proxy.authorization import access_denied
from conchrec.proxy.commands.request import CommandRefused, CommandRequest, UsageError
from conchrec.proxy.login.approval_step import decision, request_approval
from conchrec.proxy.target_names import named_target
from conchrec.text import one_line

#: Seconds between two looks of ``requests --wait``.
POLL_SECONDS = 1.0
_PLACE = re.compile(
    r"(?P<login>[^@]+)@(?:\[(?P<v6>[^\[\]@]+)\]|(?P<host>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?"
)


async def request(asking: CommandRequest) -> str:
    """Ask for approval before you connect: request [--no-wait] LOGIN@HOST[:PORT] REASON"""
    words = list(asking.words)
    waits = "--no-wait" not in words[:1]
    words = words if waits else words[1:]
    found = _PLACE.fullmatch(words[0]) if words else None
    reason = one_line(" ".join(words[1:]), MAX_TEXT).strip()
    if found is None or not reason:
        raise UsageError(
            "request: LOGIN@HOST[:PORT] and a reason are required, for example: request root@web1 disk full"
        )
    services = asking.services
    host = (found["v6"] or found["host"]).encode()
    named = named_target(host, found["port"] or "22")
    targets = asking.settings.config.targets
    target = located(named, targets)
    ports = other_ports(named, target, targets)
    user = asking.identity.user
    if never := hopeless(
        asking.settings.policy, asking.identity, target, asking.source, services.now(), other_ports=ports
    ):
        raise access_denied(never)
    addresses = given_address(target, targets) or await services.resolve(user, target.host)
    answer = decide(
        asking.settings.policy, asking.identity, target, addresses, found["login"], asking.source,
        services.now(), other_ports=ports,
    )  # fmt: skip
    if isinstance(answer, Deny):
        raise access_denied(answer)
    if not answer.options.approval:
        return f"{found['login']}@{target} requires no approval. Connect with ssh.\n"
    who = events.Who(
        user=asking.identity.user, login=found["login"], target=str(target), addr=asking.address,
        cid=asking.cid, sid="",
    )  # fmt: skip
    asked = request_approval(asking.context, who, target, reason, answer.options.approval)
    told = f"Request {asked.id} is pending. It can be approved by role {asked.approvers}.\n"
    if not waits:
        return told
    await asking.console.write(told)
    await decision(asking.context, who, asked, at_once=False)
    return (
        f"{asked.by} approved request {asked.id}. "
        f"Open one connection to {found['login']}@{target} within an hour.\n"
    )


async def requests(asking: CommandRequest) -> str:
    """List pending requests, mine and those that I may approve: requests [--wait]"""
    if asking.words not in ((), ("--wait",)):
        raise UsageError("requests: the only argument is --wait")
    shown: set[str] = set()
    while True:
        new = [one for one in asking.services.approvals if one.id not in shown and _is_seen(asking, one)]
        shown |= {one.id for one in new}
        text = "".join(one_line(_line(asking, one)) + "\n" for one in new)
        if not asking.words:
            return text
        await asking.console.write(text)
        await asking.console.wait(POLL_SECONDS)


async def approve(asking: CommandRequest) -> str:
    """Approve a request: approve ID [NOTE]"""
    found, note = _meant(asking, "approve")
    if found.state is not ApprovalState.PENDING:
        raise CommandRefused(f"request {found.id} was already approved by {found.by}")
    asking.services.audit.emit(events.AccessApprove(**_of(asking, found), by=asking.identity.user, note=note))
    asking.services.approvals.approve(found, asking.identity.user, note)
    return f"Approved {found.id}: {found.user} may connect to {found.login}@{found.target}.\n"


async def deny(asking: CommandRequest) -> str:
    """Deny a request: deny ID [REASON]"""
    found, note = _meant(asking, "deny")
    asking.services.approvals.deny(found, asking.identity.user, note)
    asking.context.emit(events.AccessDeny(**_of(asking, found), by=asking.identity.user, note=note))
    return f"Denied {found.id}: {found.user} may not connect to {found.login}@{found.target}.\n"


def _meant(asking: CommandRequest, name: str) -> tuple[ApprovalRequest, str]:
    """One that this user may decide on. What they may not see is not there."""
    if not asking.words:
        raise UsageError(f"{name}: the ID of a request is required. To list the requests: requests")
    found = asking.services.approvals.get(asking.words[0])
    if found is None or not _is_seen(asking, found):
        raise CommandRefused(
            f"no pending request {one_line(asking.words[0], 20)}. To list the requests: requests"
        )
    if not found.may_be_decided_by(asking.identity.user, _roles(asking)):
        raise CommandRefused("you cannot decide on your own request. Another user must do it")
    return found, one_line(" ".join(asking.words[1:]), MAX_TEXT).strip()


def _is_seen(asking: CommandRequest, one: ApprovalRequest) -> bool:
    user = asking.identity.user
    return one.user == user or one.may_be_decided_by(user, _roles(asking))


def _roles(asking: CommandRequest) -> frozenset[str]:
    roles = active(asking.settings.policy, asking.identity, asking.source, asking.services.now())
    return frozenset(role.name for role in roles)


def _line(asking: CommandRequest, one: ApprovalRequest) -> str:
    own = f" (yours; can be approved by role {one.approvers})" if one.user == asking.identity.user else ""
    return f"{one.id}  {one.since:%H:%M:%S} UTC  {one.user} → {one.login}@{one.target}  {one.reason}{own}"


class _About(events.Who):
    request: str


def _of(asking: CommandRequest, one: ApprovalRequest) -> _About:
    """The requester's, and where the one is who decides."""
    return _About(
        user=one.user, login=one.login, target=str(one.target), addr=asking.address, cid=asking.cid, sid="",
        request=one.id,
    )  # fmt: skip
