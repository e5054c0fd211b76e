"""Who may log in where: pure, and deny by absence.

How several roles of one user add up. A *deny* of any of them wins over everything, whatever that
role's ``source`` is. A login at a target is allowed by the roles that allow its host, the login and
the place that the user comes from. Of those the strictest limit holds (``max_session_ttl``,
``client_idle_timeout``, ``max_sessions``, ``nested_ssh: no``, ``record: strict``), and what any one of
them opens (forwarding, ``file_copy``) is open. ``recordings`` is of no login: of all the roles of a user
the widest counts.

*Allow* matches the name that was asked for, or the address; *deny* either. A name that was allowed
is allowed wherever it leads. Where only some of its addresses are allowed, only those may be dialled
(``Allow.addresses``), and a role that does not allow all of those opens nothing: what is open at one
of its hosts is not open at another that shares the name.

A deny by name does not know the host's other names; deny its address, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol, TypeVar

from conchrec.access.patterns import (
    USER,
    HostPattern,
    IPAddress,
    IPNetwork,
    NotAHost,
    Place,
    address_of,
    is_within,
    matches_login,
    place_of,
    seen_through,
)
from conchrec.model import Identity, Target

_SHOWN_LOGINS = 8
_LONGEST_LOGIN = 256


class Record(Enum):
    """What follows where a session can not be recorded."""

    STRICT = "strict"
    """It does not start, or it ends."""
    BEST_EFFORT = "best_effort"
    """It goes on, with an audit event."""


class Sees(Enum):
    """Whose recordings somebody may look at, over ssh."""

    NONE = "none"
    OWN = "own"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a session may do. None is no limit.

    ``max_sessions`` counts the session channels of one connection to a target at one time.
    ``file_copy: no`` refuses the subsystem ``sftp``, and commands that run scp or sftp-server at the target,
    as far as they can be recognised; who has a shell can copy all the same (``cat``, ``rsync``, a script).
    ``nested_ssh: no`` ends a forward that begins as SSH does: what is done in there is not recorded.
    """

    max_session_ttl: timedelta | None = None
    client_idle_timeout: timedelta | None = None
    max_sessions: int | None = 10
    forward_agent: bool = False
    port_forwarding: bool = False
    x11_forwarding: bool = False
    file_copy: bool = True
    nested_ssh: bool = True
    record: Record = Record.STRICT
    recordings: Sees = Sees.OWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role. What is empty allows nobody; only ``source`` may be None: from anywhere.

    ``direct``: certificates of its users name its logins (``access.grants``).
    """

    name: str
    logins: tuple[str, ...] = ()
    hosts: tuple[HostPattern, ...] = ()
    deny_hosts: tuple[HostPattern, ...] = ()
    deny_logins: tuple[str, ...] = ()
    options: Options = Options()
    source: tuple[IPNetwork, ...] | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All roles, by name."""

    roles: Mapping[str, Role] = field(default_factory=dict)

    def roles_of(self, identity: Identity) -> tuple[Role, ...]:
        """A role that does not exist (any more) is none."""
        names = dict.fromkeys(identity.roles)
        return tuple(self.roles[name] for name in names if name in self.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Yes. ``rule`` says which roles allow it; only ``addresses`` may be dialled, in that order.

    ``addresses`` is empty where none was given: then it is the name alone that is allowed.
    """

    rule: str
    options: Options
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """No. ``reason`` is one line for the user; ``rule`` is what said it."""

    reason: str
    rule: str


Decision = Allow | Deny


def may_reach(
    policy: Policy, identity: Identity, target: Target, addresses: Sequence[str], source: str, now: datetime
) -> Decision:
    """May this identity log in at the target as anybody at all?

    ``addresses`` is what getaddrinfo says of the target's host; ``source`` the user's own address.
    The options of an Allow are those of the host's roles together: for a login, ask ``decide``.
    """
    return _judge(policy, identity, target, addresses, None, source, now)


def decide(
    policy: Policy,
    identity: Identity,
    target: Target,
    addresses: Sequence[str],
    login: str,
    source: str,
    now: datetime,
) -> Decision:
    """May this identity log in at the target as ``login``, and what may the sessions do?"""
    return _judge(policy, identity, target, addresses, login, source, now)


def _judge(
    policy: Policy,
    identity: Identity,
    target: Target,
    addresses: Sequence[str],
    login: str | None,
    source: str,
    now: datetime,
) -> Decision:
    user = _shown(identity.user)
    host = _shown(target.host if target.port == 22 else str(target))
    if identity.expires is not None and now >= identity.expires:
        return Deny(reason=f"the login of {user} has expired; log in again", rule="expired")
    try:
        place = place_of(target, addresses)
    except NotAHost as error:
        return Deny(reason=f"{user} may not reach {host} ({error})", rule=str(error))

    def unreachable(rule: str) -> Deny:
        return Deny(reason=f"{user} may not reach {host} ({rule})", rule=rule)

    roles = policy.roles_of(identity)
    for role in roles:
        if any(_denies(pattern, place) for pattern in role.deny_hosts):
            return unreachable(f"role {role.name} denies it")
    reaches = [
        _Reach(role, permitted) for role in roles if (permitted := _permitted(role, place)) is not None
    ]
    if not reaches:
        return unreachable(f"no role of {user} allows it" if roles else f"{user} has no role")
    here = [reach for reach in reaches if comes_from(reach.role, source)]
    if not here:
        return unreachable(f"{_roles(reaches)} not from {_shown(source) or 'there'}")
    denied = tuple(pattern for role in roles for pattern in role.deny_logins)
    if login is None:
        allowing = [reach for reach in here if any(_usable_logins(reach.role, denied))]
        if not allowing:
            return unreachable(_allowed_logins(here, identity.user))
        return _allow(allowing, "any login of its own", place)

    def refused(rule: str) -> Deny:
        return Deny(reason=f"{user} may not log in as {_shown(login)} on {host} ({rule})", rule=rule)

    if not login or len(login) > _LONGEST_LOGIN or not login.isprintable():
        return refused("that is not a login")
    for role in roles:
        if any(matches_login(pattern, login, identity.user) for pattern in role.deny_logins):
            return refused(f"role {role.name} denies it")
    allowing = [
        reach
        for reach in here
        if any(matches_login(pattern, login, identity.user) for pattern in reach.role.logins)
    ]
    if not allowing:
        return refused(_allowed_logins(here, identity.user))
    return _allow(allowing, login, place)


@dataclass(frozen=True, slots=True)
class _Reach:
    """A role that allows the host, and the addresses (as the resolver wrote them) that it allows."""

    role: Role
    addresses: frozenset[str]


def _denies(pattern: HostPattern, place: Place) -> bool:
    return pattern.names(place) or any(
        pattern.covers(ip, place) for _, given in place.addresses for ip in seen_through(given)
    )


def _permitted(role: Role, place: Place) -> frozenset[str] | None:
    """Which addresses of the place this role allows; None where it does not allow the place."""
    if any(pattern.names(place) for pattern in role.hosts):
        return frozenset(text for text, _ in place.addresses)
    covered = frozenset(
        text for text, ip in place.addresses if any(pattern.covers(ip, place) for pattern in role.hosts)
    )
    return covered or None


def comes_from(role: Role, source: str) -> bool:
    """May this role be used from the address ``source``?"""
    if role.source is None:
        return True
    address = address_of(source)
    return address is not None and any(is_within(address, network) for network in role.source)


def _usable_logins(role: Role, denied: Sequence[str]) -> Iterator[str]:
    return (pattern for pattern in role.logins if pattern not in denied and "*" not in denied)


def _allow(allowing: Sequence[_Reach], login: str, place: Place) -> Allow:
    dialled = tuple(text for text, _ in place.addresses if any(text in reach.addresses for reach in allowing))
    opening = [reach.role.options for reach in allowing if reach.addresses.issuperset(dialled)]
    limiting = [reach.role.options for reach in allowing]
    strict = any(options.record is Record.STRICT for options in limiting)
    return Allow(
        rule=f"{_roles(allowing)} {'allow' if len(allowing) > 1 else 'allows'} {login}",
        addresses=dialled,
        options=Options(
            max_session_ttl=_least(options.max_session_ttl for options in limiting),
            client_idle_timeout=_least(options.client_idle_timeout for options in limiting),
            max_sessions=_least(options.max_sessions for options in limiting),
            forward_agent=any(options.forward_agent for options in opening),
            port_forwarding=any(options.port_forwarding for options in opening),
            x11_forwarding=any(options.x11_forwarding for options in opening),
            file_copy=any(options.file_copy for options in opening),
            nested_ssh=all(options.nested_ssh for options in limiting),
            record=Record.STRICT if strict else Record.BEST_EFFORT,
        ),
    )


def sees(policy: Policy, identity: Identity, source: str) -> Sees:
    """Whose recordings this identity may look at from the address ``source``; without a role nobody's."""
    roles = (role for role in policy.roles_of(identity) if comes_from(role, source))
    return max((role.options.recordings for role in roles), key=list(Sees).index, default=Sees.NONE)


_Limit = TypeVar("_Limit", int, timedelta)


def _least(limits: Iterator[_Limit | None]) -> _Limit | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _roles(reaches: Sequence[_Reach]) -> str:
    names = ", ".join(reach.role.name for reach in reaches)
    return f"{'roles' if len(reaches) > 1 else 'role'} {names}"


def _allowed_logins(reaches: Sequence[_Reach], user: str) -> str:
    said = []
    for reach in reaches:
        logins = [_shown(login.replace(USER, user)) for login in reach.role.logins]
        if len(logins) > _SHOWN_LOGINS:
            logins[_SHOWN_LOGINS:] = ["…"]
        said.append(f"role {reach.role.name} allows" + (f": {', '.join(logins)}" if logins else " no login"))
    return "; ".join(said)


def _shown(text: str) -> str:
    """As text from outside may appear on a terminal, and no longer than makes sense."""
    text = text if len(text) <= 2 * _LONGEST_LOGIN else text[: 2 * _LONGEST_LOGIN] + "…"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


# -- what a user is told of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where one role leads, as it was written, ``{user}`` filled in."""

    role: str
    hosts: tuple[str, ...]
    logins: tuple[str, ...]
    denied_hosts: tuple[str, ...]
    denied_logins: tuple[str, ...]
    from_here: bool


def reachable(policy: Policy, identity: Identity, source: str) -> tuple[Reach, ...]:
    """What the user's own roles say, for the command ``hosts``; roles that lead nowhere are left out."""
    return tuple(
        Reach(
            role=role.name,
            hosts=tuple(pattern.text for pattern in role.hosts),
            logins=tuple(login.replace(USER, identity.user) for login in role.logins),
            denied_hosts=tuple(pattern.text for pattern in role.deny_hosts),
            denied_logins=tuple(login.replace(USER, identity.user) for login in role.deny_logins),
            from_here=comes_from(role, source),
        )
        for role in policy.roles_of(identity)
        if (role.hosts and role.logins) or role.deny_hosts or role.deny_logins
    )


# -- rules for groups of targets


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


def _is_for(patterns: Sequence[HostPattern], place: Place) -> bool:
    if any(pattern.names(place) for pattern in patterns):
        return True

    def covered(ip: IPAddress) -> bool:
        return any(pattern.covers(ip, place) for pattern in patterns)

    return bool(place.addresses) and all(covered(ip) for _, ip in place.addresses)
