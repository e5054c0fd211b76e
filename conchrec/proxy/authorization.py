"""What the policy and the rules for targets say about one access: when it begins, and while it lasts."""

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

#: The names of these steps of a login as the ``rule`` of audit events.
REQUIRE_MFA, APPROVAL = "require_mfa", "approval"


def decide_access(access: TargetAccess) -> Decision:
    """Decide whether the user may be at the target with this login now.

    The options of an Allow follow the target's own rule for recording, too.
    """
    settings, now = access.settings, access.services.now()
    destination, targets = access.destination, settings.config.targets
    # The restrictions of the outer and of the inner credential both apply.
    identity = replace(access.identity, withheld=access.withheld)
    decision = decide(
        settings.policy, identity, access.target, destination.resolved, access.login, access.origin.source,
        now, other_ports=other_ports(destination.requested, access.target, targets),
    )  # fmt: skip
    if isinstance(decision, Allow):
        rule = rule_for(targets, access.target, decision.addresses)
        if rule is not None and rule.record is Record.STRICT:
            return replace(decision, options=replace(decision.options, record=Record.STRICT))
    return decision


def may_reach(access: TargetAccess) -> Allow:
    """Return what allows the user to be at the target now with any login. Raises AccessDenied."""
    settings, now = access.settings, access.services.now()
    destination, targets = access.destination, settings.config.targets
    answer = policy.may_reach(
        settings.policy, access.identity, access.target, destination.resolved, access.origin.source, now,
        other_ports=other_ports(destination.requested, access.target, targets),
    )  # fmt: skip
    if isinstance(answer, Deny):
        raise access_denied(answer)
    return answer


def decide_again(access: TargetAccess, *, has_begun: bool) -> Allow:
    """Decide about an access that was allowed before, and store the result in it. Raises AccessDenied.

    If ``has_begun``, a step that has become required since the login denies the access.
    """
    if access.inner is not None:
        credentials, now = access.settings.credentials, access.services.now()
        access.set_inner_identity(credentials.renewed_identity(access.inner, access.origin.source, now))
    answer = decide_access(access)
    if isinstance(answer, Deny):
        raise access_denied(answer)
    access.set_allowed(answer)
    if has_begun:
        check_steps(access)
    return answer


def check_steps(access: TargetAccess) -> None:
    """Raise AccessDenied where a second factor or an approval is required that the login did not include."""
    assert access.options is not None, "decide_access was called"
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


def access_denied(answer: Deny) -> AccessDenied:
    """The error for a denial of the policy, with the rule that it cites."""
    advice = ". Ask your administrator" if answer.code is ReasonCode.USER_LOCKED else ""
    return AccessDenied(answer.reason + advice, rule=cited(answer), code=answer.code)
