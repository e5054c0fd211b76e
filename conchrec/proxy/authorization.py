"""What the policy and the groups of targets say of one visit: when it begins, and again while it lasts."""

from __future__ import annotations

from dataclasses import replace

from conchrec.access import policy
from conchrec.access.options import Mfa, Record
from conchrec.access.policy import Allow, Decision, Deny, cited, decide, rule_for
from conchrec.config.target_rules import other_ports
from conchrec.errors import AccessDenied
from conchrec.proxy.target_access import Visit
from conchrec.reasons import ReasonCode

#: As which the audit knows the steps of a login.
REQUIRE_MFA, APPROVAL = "require_mfa", "approval"


def judge(visit: Visit) -> Decision:
    """May the visit's user be at its target, as its login, now? With the target's own rule for recording."""
    settings, now = visit.context.settings, visit.context.services.now()
    # What binds one of the two logins must not be lost in the other.
    identity = replace(visit.identity, withheld=visit.withheld)
    decision = decide(
        settings.policy, identity, visit.target, visit.resolved, visit.login, visit.source, now,
        other_ports=other_ports(visit.asked, visit.target, settings.config.targets),
    )  # fmt: skip
    if isinstance(decision, Allow):
        rule = rule_for(settings.config.targets, visit.target, decision.addresses)
        if rule is not None and rule.record is Record.STRICT:
            return replace(decision, options=replace(decision.options, record=Record.STRICT))
    return decision


def may_reach(visit: Visit) -> Allow:
    """May the visit's user be at its target as anybody at all, now? Raises AccessDenied."""
    settings, now = visit.context.settings, visit.context.services.now()
    answer = policy.may_reach(
        settings.policy, visit.identity, visit.target, visit.resolved, visit.source, now,
        other_ports=other_ports(visit.asked, visit.target, settings.config.targets),
    )  # fmt: skip
    if isinstance(answer, Deny):
        raise denied(answer)
    return answer


def judge_again(visit: Visit, *, begun: bool) -> Allow:
    """The same of one that lasts. Raises AccessDenied; also where it has ``begun`` and now could not."""
    context = visit.context
    if visit.inner is not None:
        visit.inner = context.settings.credentials.still(visit.inner, visit.source, context.services.now())
    answer = judge(visit)
    if isinstance(answer, Deny):
        raise denied(answer)
    visit.judged(answer)
    if begun:
        check_steps(visit)
    return answer


def check_steps(visit: Visit) -> None:
    """AccessDenied where a second factor, or an approval, is required and was not when it began."""
    assert visit.options is not None, "it was judged"
    if visit.options.require_mfa is Mfa.SESSION and not visit.second_factor:
        raise AccessDenied(
            "a second factor is required for each session now: connect anew",
            rule=REQUIRE_MFA,
            code=ReasonCode.SECOND_FACTOR_REQUIRED,
        )
    if not visit.is_approved:
        raise AccessDenied(
            "somebody has to approve it now: connect anew", rule=APPROVAL, code=ReasonCode.APPROVAL_REQUIRED
        )


def denied(answer: Deny) -> AccessDenied:
    return AccessDenied(answer.reason, rule=cited(answer), code=answer.code)


def check_ways(visit: Visit) -> None:
    """AccessDenied where so many ways of this user are open already that nobody could use them all."""
    context, user = visit.context, visit.identity.user
    most = context.settings.config.limits.sessions_per_user
    if sum(live.way_count for live in context.registry.connections_of(user)) >= most:
        raise AccessDenied(
            f"{user} has {most} ways to targets open, which is the limit",
            rule="sessions_per_user",
            code=ReasonCode.TOO_MANY_TARGETS,
        )


def check_connections(visit: Visit) -> None:
    """AccessDenied where the user has as many connections to targets as are allowed (``max_connections``)."""
    limit = visit.options.max_connections if visit.options is not None else None
    user = visit.identity.user
    if limit is None:
        return
    if sum(live.connection_count for live in visit.context.registry.connections_of(user)) >= limit:
        raise AccessDenied(
            f"{user} has {limit} connections to targets, which is the limit (max_connections)",
            rule="max_connections",
            code=ReasonCode.TOO_MANY_TARGET_CONNECTIONS,
        )
