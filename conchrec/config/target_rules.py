"""The address and the ports of a target, as the groups of ``targets`` define them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conchrec.access.host_rules import rule_for
from conchrec.config.model import TargetRule
from conchrec.model import Target

#: The port of a target for which the user names none.
USUAL_PORT = 22


def located(target: Target, rules: Sequence[TargetRule]) -> Target:
    """The target with the port of its group, where the user requested port 22."""
    rule = rule_for(rules, target, ())
    if rule is None or rule.port is None or target.port != USUAL_PORT:
        return target
    return replace(target, port=rule.port)


def given_address(target: Target, rules: Sequence[TargetRule]) -> tuple[str, ...]:
    """The addresses of its group, which replace those of the resolver; empty where it has none."""
    rule = rule_for(rules, target, ())
    return rule.address if rule is not None else ()


def other_ports(requested: Target, target: Target, rules: Sequence[TargetRule]) -> tuple[int, ...]:
    """The other ports by which users can name a located target; denies and locks of these hold too.

    They are the requested port, and 22 where the group replaces it by the target's port.
    """
    rule = rule_for(rules, target, ())
    usual = {USUAL_PORT} if rule is not None and rule.port == target.port else set()
    return tuple(({requested.port} | usual) - {target.port})
