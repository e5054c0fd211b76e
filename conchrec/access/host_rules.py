"""Selects the rule for a target from rules that are listed by hosts (``targets``). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from conchrec.access.patterns import HostPattern, IPAddress, NotAHost, TargetAddress, resolved_target
from conchrec.model import Target


class ForHosts(Protocol):
    """A rule for some hosts."""

    @property
    def hosts(self) -> tuple[HostPattern, ...]:
        """The hosts that the rule is for."""
        ...


_Rule = TypeVar("_Rule", bound=ForHosts)


def rule_for(rules: Sequence[_Rule], target: Target, addresses: Sequence[str]) -> _Rule | None:
    """The first rule for this target, in the order of the file: by its name, or by *all* its addresses.

    A rule may require less of its hosts, so another host that shares the name must not get it.
    """
    if not rules:
        return None
    try:
        resolved = resolved_target(target, addresses)
    except NotAHost:
        return None
    return next((rule for rule in rules if _matches(rule.hosts, resolved)), None)


def _matches(patterns: Sequence[HostPattern], target: TargetAddress) -> bool:
    if any(pattern.names(target) for pattern in patterns):
        return True

    def is_covered(ip: IPAddress) -> bool:
        return any(pattern.covers(ip, target) for pattern in patterns)

    return bool(target.addresses) and all(is_covered(ip) for _, ip in target.addresses)
