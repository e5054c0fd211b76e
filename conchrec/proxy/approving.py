"""Somebody else has to approve (``approval``): the question in the inner login, and the proxy's commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred

from conchrec import audit
from conchrec.access.policy import Deny, active, decide, hopeless
from conchrec.access.target_rules import given_address, located, other_ports
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Target
from conchrec.proxy.approvals import LONGEST, Request, State
from conchrec.proxy.asking import Asking, Refused, Unknown
from conchrec.proxy.judging import APPROVAL as RULE
from conchrec.proxy.judging import denied
from conchrec.proxy.places import named_target
from conchrec.proxy.refusal import one_line
from conchrec.proxy.site import Site
from conchrec.proxy.visit import Visit
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.ssh.userauth_server import Ask

if TYPE_CHECKING:
    from collections.abc import Callable

#: How often an empty reason is asked for again.
TRIES = 3
#: Seconds between two looks of ``requests --wait``.
POLL_SECONDS = 1.0
_PLACE = re.compile(
    r"(?P<login>[^@]+)@(?:\[(?P<v6>[^\[\]@]+)\]|(?P<host>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?"
)


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


def _taken(visit: Visit, login: str | None, needed: tuple[frozenset[str], ...]) -> Request | None:
    """What was approved in advance, if whoever did is still somebody."""
    site = visit.site

    def stands(by: str) -> bool:
        locked = site.policy.lock_on(site.now(), lambda lock: lock.is_of_user(by))
        return by in site.config.users and locked is None and by not in site.authority.revoked().users

    return site.approvals.take(visit.identity.user, login, visit.target, needed, stands)


def changed(visit: Visit) -> None:
    """The policy may be another one: where somebody else has to approve, those are asked."""
    request = visit.waiting
    if request is not None and visit.options is not None and request.needed != visit.options.approval:
        visit.site.approvals.end(request, State.CHANGED)


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
            f"{_command(self._visit.site, self._visit.identity.user)} request {self._place} REASON"
        )

    async def pass_(self, ask: Ask, say: Callable[[str], None]) -> None:
        visit = self._visit
        visit.reason = visit.reason or await self._reason(ask)
        request = _ask_for(visit.site, visit.who(), visit.target, visit.reason, self._needed)
        how = f"{_command(visit.site, 'THEM')} approve {request.id}"
        say(f"conchrec: waiting for approval of {request.id}, by {request.approvers}: {how}")
        visit.waiting = request
        try:
            await decision(visit.site, visit.who(), request, at_once=True)
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


def _ask_for(
    site: Site, who: audit.Who, target: Target, reason: str, needed: tuple[frozenset[str], ...]
) -> Request:
    """Raises AccessDenied, and WriteFailed where it can't be audited."""
    request = site.approvals.ask(
        user=who["user"], login=who["login"], target=target, reason=reason, needed=needed, now=site.now(),
        wait=site.config.limits.approval_time,
    )  # fmt: skip
    try:
        site.audit.emit(
            audit.AccessRequest(**who, request=request.id, reason=reason, approvers=request.approvers)
        )
    except ConchrecError:
        site.approvals.end(request)
        raise
    return request


async def decision(site: Site, who: audit.Who, request: Request, *, at_once: bool) -> None:
    """Returns when it is approved, to be used ``at_once`` or later. Raises AccessDenied; whoever waits no
    longer takes it back."""
    request.waited_for = at_once
    waiting: Deferred[None] = Deferred()
    request.decided.chainDeferred(waiting)
    try:
        await waiting
    except CancelledError:
        site.approvals.end(request)
        site.emit(
            audit.AccessWithdraw(
                **who, request=request.id, reason=Reason(ReasonCode.APPROVAL_WITHDRAWN, "withdrawn")
            )
        )
        raise
    if request.state is State.DENIED:
        said = f": {request.note}" if request.note else ""
        raise AccessDenied(f"{request.by} denied it{said}", rule=RULE, code=ReasonCode.APPROVAL_DENIED)
    if request.state is State.CHANGED:
        site.emit(
            audit.AccessWithdraw(
                **who,
                request=request.id,
                reason=Reason(ReasonCode.APPROVAL_CHANGED, "somebody else has to approve"),
            )
        )
        raise _Changed("somebody else has to approve", rule=RULE)
    if request.state is not State.APPROVED:
        site.emit(
            audit.AccessWithdraw(
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
        how = f"{_command(visit.site, visit.identity.user)} request LOGIN@{visit.asked} REASON"
        raise AccessDenied(
            f"{visit.asked} needs somebody's approval: {how}", rule=RULE, code=ReasonCode.APPROVAL_REQUIRED
        )
    visit.use(found)


# -- commands


async def request(asking: Asking) -> str:
    """Ask for approval before you go: request [--no-wait] LOGIN@HOST[:PORT] REASON"""
    words = list(asking.words)
    waits = "--no-wait" not in words[:1]
    words = words if waits else words[1:]
    found = _PLACE.fullmatch(words[0]) if words else None
    reason = one_line(" ".join(words[1:]), LONGEST).strip()
    if found is None or not reason:
        raise Unknown("request: LOGIN@HOST[:PORT] and a reason are wanted, like: request root@web1 disk full")
    site = asking.site
    host = (found["v6"] or found["host"]).encode()
    named = named_target(host, found["port"] or "22")
    target = located(named, site.config.targets)
    ports = other_ports(named, target, site.config.targets)
    user = asking.identity.user
    if never := hopeless(site.policy, asking.identity, target, asking.source, site.now(), other_ports=ports):
        raise denied(never)
    addresses = given_address(target, site.config.targets) or await site.resolve(user, target.host)
    answer = decide(
        site.policy, asking.identity, target, addresses, found["login"], asking.source, site.now(),
        other_ports=ports,
    )  # fmt: skip
    if isinstance(answer, Deny):
        raise denied(answer)
    if not answer.options.approval:
        return f"{found['login']}@{target} needs nobody's approval.\n"
    who = audit.Who(
        user=asking.identity.user, login=found["login"], target=str(target), addr=asking.address,
        cid=asking.cid, sid="",
    )  # fmt: skip
    asked = _ask_for(site, who, target, reason, answer.options.approval)
    told = f"{asked.id} waits for approval, by {asked.approvers}.\n"
    if not waits:
        return told
    await asking.console.write(told)
    await decision(site, who, asked, at_once=False)
    return f"{asked.by} approved it: for one connection to {found['login']}@{target} within an hour.\n"


async def requests(asking: Asking) -> str:
    """What waits for approval, mine and what I may approve: requests [--wait]"""
    if asking.words not in ((), ("--wait",)):
        raise Unknown("requests: takes --wait and nothing else")
    shown: set[str] = set()
    while True:
        new = [one for one in asking.site.approvals if one.id not in shown and _is_seen(asking, one)]
        shown |= {one.id for one in new}
        text = "".join(one_line(_line(asking, one)) + "\n" for one in new)
        if not asking.words:
            return text
        await asking.console.write(text)
        await asking.console.wait(POLL_SECONDS)


async def approve(asking: Asking) -> str:
    """Let somebody go where they asked to go: approve ID [NOTE]"""
    found, note = _meant(asking, "approve")
    if found.state is not State.PENDING:
        raise Refused(f"{found.id} has been approved already, by {found.by}")
    asking.site.audit.emit(audit.AccessApprove(**_of(asking, found), by=asking.identity.user, note=note))
    asking.site.approvals.approve(found, asking.identity.user, note)
    return f"{found.id}: {found.user} may go to {found.login}@{found.target}.\n"


async def deny(asking: Asking) -> str:
    """… or not: deny ID [REASON]"""
    found, note = _meant(asking, "deny")
    asking.site.approvals.deny(found, asking.identity.user, note)
    asking.site.emit(audit.AccessDeny(**_of(asking, found), by=asking.identity.user, note=note))
    return f"{found.id}: {found.user} may not go to {found.login}@{found.target}.\n"


def _meant(asking: Asking, name: str) -> tuple[Request, str]:
    """One that this user may decide on. What they may not see is not there."""
    if not asking.words:
        raise Unknown(f"{name}: an ID is wanted (see: requests)")
    found = asking.site.approvals.get(asking.words[0])
    if found is None or not _is_seen(asking, found):
        raise Refused(f"no request {one_line(asking.words[0], 20)} waits for approval")
    if not found.may_be_decided_by(asking.identity.user, _roles(asking)):
        raise Refused("nobody decides on their own request")
    return found, one_line(" ".join(asking.words[1:]), LONGEST).strip()


def _is_seen(asking: Asking, one: Request) -> bool:
    user = asking.identity.user
    return one.user == user or one.may_be_decided_by(user, _roles(asking))


def _roles(asking: Asking) -> frozenset[str]:
    site = asking.site
    roles = active(site.policy, asking.identity, asking.source, site.now())
    return frozenset(role.name for role in roles)


def _line(asking: Asking, one: Request) -> str:
    own = f" (yours: waits for {one.approvers})" if one.user == asking.identity.user else ""
    return f"{one.id}  {one.since:%H:%M:%S} UTC  {one.user} → {one.login}@{one.target}  {one.reason}{own}"


class _About(audit.Who):
    request: str


def _of(asking: Asking, one: Request) -> _About:
    """The requester's, and where the one is who decides."""
    return _About(
        user=one.user, login=one.login, target=str(one.target), addr=asking.address, cid=asking.cid, sid="",
        request=one.id,
    )  # fmt: skip


def _command(site: Site, user: str) -> str:
    public = site.config.public
    return f"ssh {user}@PROXY" if public is None else f"ssh -p {public.port} {user}@{public.host}"
