"""The rule for a target, of those that the configuration lists by hosts (``targets``). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from conchrec.access.patterns import HostPattern, IPAddress, NotAHost, TargetAddress, place_of
from conchrec.model import Target


class ForHosts(Protocol):
    """Anything that is said of some hosts."""

    @property
    def hosts(self) -> tuple[HostPattern, ...]: ...


_Rule = TypeVar("_Rule", bound=ForHosts)


def rule_for(rules: Sequence[_Rule], target: Target, addresses: Sequence[str]) -> _Rule | None:
    """The first rule for this target, in the order of the file: by its name, or by *all* its addresses
    (a rule may lower what is asked of a host, so one that shares the name must not profit)."""
    try:
        place = place_of(target, addresses)
    except NotAHost:
        return None
    return next((rule for rule in rules if _is_for(rule.hosts, place)), None)


def _is_for(patterns: Sequence[HostPattern], place: TargetAddress) -> bool:
    if any(pattern.names(place) for pattern in patterns):
        return True

    def covered(ip: IPAddress) -> bool:
        return any(pattern.covers(ip, place) for pattern in patterns)

    return bool(place.addresses) and all(covered(ip) for _, ip in place.addresses)
