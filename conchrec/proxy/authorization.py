"""What the policy and the groups of targets say of one access: when it begins, and again while it lasts."""

from __future__ import annotations

from dataclasses import replace

from conchrec.access import policy
from conchrec.access.host_rules import rule_for
from conchrec.access.options import Mfa, Record
from conchrec.access.policy import Allow, Decision, Deny, cited, decide
from conchrec.config.target_rules import other_ports
from conchrec.errors import AccessDenied
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import ReasonCode

#: As which the audit knows the steps of a login.
REQUIRE_MFA, APPROVAL = "require_mfa", "approval"


def judge(access: TargetAccess) -> Decision:
    """May the user be at the target, as the login, now? With the target's own rule for recording."""
    settings, now = access.settings, access.services.now()
    destination, targets = access.destination, settings.config.targets
    # What binds one of the two logins must not be lost in the other.
    identity = replace(access.identity, withheld=access.withheld)
    decision = decide(
        settings.policy, identity, access.target, destination.resolved, access.login, access.origin.source,
        now, other_ports=other_ports(destination.asked, access.target, targets),
    )  # fmt: skip
    if isinstance(decision, Allow):
        rule = rule_for(targets, access.target, decision.addresses)
        if rule is not None and rule.record is Record.STRICT:
            return replace(decision, options=replace(decision.options, record=Record.STRICT))
    return decision


def may_reach(access: TargetAccess) -> Allow:
    """May the user be at the target as anybody at all, now? Raises AccessDenied."""
    settings, now = access.settings, access.services.now()
    destination, targets = access.destination, settings.config.targets
    answer = policy.may_reach(
        settings.policy, access.identity, access.target, destination.resolved, access.origin.source, now,
        other_ports=other_ports(destination.asked, access.target, targets),
    )  # fmt: skip
    if isinstance(answer, Deny):
        raise denied(answer)
    return answer


def judge_again(access: TargetAccess, *, begun: bool) -> Allow:
    """The same of one that lasts. Raises AccessDenied; also where it has ``begun`` and now could not."""
    if access.inner is not None:
        credentials, now = access.settings.credentials, access.services.now()
        access.set_inner_identity(credentials.still(access.inner, access.origin.source, now))
    answer = judge(access)
    if isinstance(answer, Deny):
        raise denied(answer)
    access.set_allowed(answer)
    if begun:
        check_steps(access)
    return answer


def check_steps(access: TargetAccess) -> None:
    """AccessDenied where a second factor, or an approval, is required and was not when it began."""
    assert access.options is not None, "it was judged"
    if access.options.require_mfa is Mfa.SESSION and not access.second_factor:
        raise AccessDenied(
            "each session now requires a second factor (require_mfa). Connect again",
            rule=REQUIRE_MFA,
            code=ReasonCode.SECOND_FACTOR_REQUIRED,
        )
    if not access.is_approved:
        raise AccessDenied(
            "this access now requires an approval. Connect again to request it",
            rule=APPROVAL,
            code=ReasonCode.APPROVAL_REQUIRED,
        )


def denied(answer: Deny) -> AccessDenied:
    return AccessDenied(answer.reason, rule=cited(answer), code=answer.code)


def check_ways(access: TargetAccess) -> None:
    """AccessDenied where so many ways of this user are open already that nobody could use them all."""
    context, user = access.context, access.identity.user
    most = context.settings.config.limits.sessions_per_user
    if sum(live.target_channel_count for live in context.registry.connections_of(user)) >= most:
        raise AccessDenied(
            f"too many channels to targets: {user} has {most}, the limit (sessions_per_user). "
            "Close one, then try again",
            rule="sessions_per_user",
            code=ReasonCode.TOO_MANY_TARGETS,
        )


def check_connections(access: TargetAccess) -> None:
    """AccessDenied where the user has as many connections to targets as are allowed (``max_connections``)."""
    limit = access.options.max_connections if access.options is not None else None
    user = access.identity.user
    if limit is None:
        return
    if sum(live.connection_count for live in access.context.registry.connections_of(user)) >= limit:
        raise AccessDenied(
            f"too many connections to targets: {user} has {limit}, the limit (max_connections). "
            "Close one, then try again",
            rule="max_connections",
            code=ReasonCode.TOO_MANY_TARGET_CONNECTIONS,
        )
