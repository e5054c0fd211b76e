"""Where a target is, and by which ports it is known, as the groups of ``targets`` say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conchrec.access.host_rules import rule_for
from conchrec.config.model import TargetRule
from conchrec.model import Target

#: Where a user goes who names no port.
USUAL_PORT = 22


def located(target: Target, rules: Sequence[TargetRule]) -> Target:
    """Where the target is, as its group says: another port, where the user asked for 22."""
    rule = rule_for(rules, target, ())
    if rule is None or rule.port is None or target.port != USUAL_PORT:
        return target
    return replace(target, port=rule.port)


def given_address(target: Target, rules: Sequence[TargetRule]) -> tuple[str, ...]:
    """What its group says in the place of a resolver; empty where it says nothing."""
    rule = rule_for(rules, target, ())
    return rule.address if rule is not None else ()


def other_ports(asked: Target, target: Target, rules: Sequence[TargetRule]) -> tuple[int, ...]:
    """The ports by which a located target is known besides its own, for denies and locks.

    The one that was asked for, and 22 where its group says that its own one is meant then.
    """
    rule = rule_for(rules, target, ())
    usual = {USUAL_PORT} if rule is not None and rule.port == target.port else set()
    return tuple(({asked.port} | usual) - {target.port})
