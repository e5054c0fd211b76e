"""Decides who may log in where. Pure. What no role allows is denied.

How several roles of one user add up:

- A *deny* of any role wins over everything, whatever the ``source`` and ``times`` of that role are. So does a
  lock.
- A login at a target is allowed by the roles that allow its host, the login, the user's address and the time.
  The options of these roles are combined as the table in ``access.options`` says.
- ``recordings`` does not belong to a login: of all roles of a user the widest counts.
- A role whose grant has ended does not count.

A role *allows* a host (``hosts``) by its requested name, with all its addresses, or else by its addresses. If
only some addresses are allowed, only those may be dialled (``Allow.addresses``), and a role that does not
allow all of them opens no option: what is open at one of its hosts is not open at another that shares the
name.

A role *denies* a host (``deny.hosts``) by its requested name, or by any one of its addresses. A deny by name
does not match other names of the same host; deny its address too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial

from conchrec.access.certificate_permits import SWITCHES_OF
from conchrec.access.locks import Lock
from conchrec.access.login_names import LONGEST_LOGIN, USER, allows, denies, is_usable
from conchrec.access.options import (
    Mfa,
    Record,
    RoleOptions,
    SessionOptions,
    VisibleRecordings,
    combine,
)
from conchrec.access.patterns import (
    HostPattern,
    NotAHost,
    TargetAddress,
    address_of,
    is_within,
    resolved_target,
    seen_through,
)
from conchrec.access.role import Role
from conchrec.access.time_windows import is_open
from conchrec.model import Identity, Target
from conchrec.reasons import ReasonCode
from conchrec.text import escape

_SHOWN_LOGINS = 8
#: Makes foreign text safe for a terminal, and limits its length.
_shown = partial(escape, limit=2 * LONGEST_LOGIN)
#: When this many decisions are remembered, all are forgotten.
_REMEMBERED_MOST = 256
#: The name of the role that stands for a user's certificate: names of real roles have no space.
CERTIFICATE = "the certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All roles by name, the ends of grants by user and role, and the locks."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    ends: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()
    #: Decisions that allow, with the time of each: one login asks for the same decision several times.
    remembered: dict[tuple[object, ...], tuple[datetime, Allow]] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    def roles_of(self, identity: Identity, now: datetime) -> tuple[Role, ...]:
        """The roles of the identity that exist and have not ended."""
        return tuple(
            role for role in self._granted(identity) if not _is_over(self.end_of(identity, role), now)
        )

    def ended_roles_of(self, identity: Identity, now: datetime) -> tuple[tuple[Role, datetime], ...]:
        """The roles of the identity that have ended, with the time of their end."""
        granted = [(role, self.end_of(identity, role)) for role in self._granted(identity)]
        return tuple((role, end) for role, end in granted if end is not None and _is_over(end, now))

    def end_of(self, identity: Identity, role: Role) -> datetime | None:
        """When this user's grant of the role ends; None: never."""
        ends = (role.expires, self.ends.get((identity.user, role.name)))
        return min((end for end in ends if end is not None), default=None)

    def lock_on(self, now: datetime, matches: Callable[[Lock], bool]) -> Lock | None:
        """The first lock that holds and matches; None without one."""
        return next((lock for lock in self.locks if lock.holds(now) and matches(lock)), None)

    def changes(self, identity: Identity, now: datetime) -> datetime | None:
        """The first moment at which time alone may change a decision for this identity; None: never."""
        moments = [identity.expires]
        for role in self._granted(identity):
            moments.append(self.end_of(identity, role))
            moments += [window.changes(now) for window in role.times or ()]
        return min((moment for moment in moments if moment is not None and moment > now), default=None)

    def _granted(self, identity: Identity) -> tuple[Role, ...]:
        names = dict.fromkeys(identity.roles)
        return tuple(self.roles[name] for name in names if name in self.roles)


def _is_over(end: datetime | None, now: datetime) -> bool:
    return end is not None and now >= end


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """The login is allowed. ``rule`` names the roles that allow it, ``line`` is that of the first of them.

    Only ``addresses`` may be dialled, in that order; the tuple is empty where none were given. ``until`` is
    the first moment at which the decision may change.
    """

    rule: str
    options: SessionOptions
    addresses: tuple[str, ...]
    line: int = 0
    until: datetime | None = None
    roles: tuple[Role, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The login is denied. ``reason`` is one line for the user; ``rule`` and ``line`` are for the audit."""

    reason: str
    rule: str
    code: ReasonCode
    line: int = 0


Decision = Allow | Deny


def cited(decision: Decision) -> str:
    """The rule, with its line where it has one."""
    return f"{decision.rule} (line {decision.line})" if decision.line else decision.rule


def may_reach(
    policy: Policy,
    identity: Identity,
    target: Target,
    addresses: Sequence[str],
    source: str,
    now: datetime,
    *,
    other_ports: Sequence[int] = (),
) -> Decision:
    """Whether this identity may log in at the target with any login.

    ``addresses`` is what getaddrinfo returned for the target's host, ``source`` the user's own address, and
    ``other_ports`` are further ports by which users can name the target: denies of these hold too. The
    options of an Allow are those of all roles that allow the host; ``decide`` has those of a login.
    """
    return _decide(policy, identity, target, addresses, None, source, now, other_ports)


def denial_without_addresses(
    policy: Policy,
    identity: Identity,
    target: Target,
    source: str,
    now: datetime,
    *,
    other_ports: Sequence[int] = (),
) -> Deny | None:
    """The Deny of ``may_reach`` that holds for any addresses of the target; None if it depends on them.

    With a Deny the name of the target need not be looked up.
    """
    decision = may_reach(policy, identity, target, (), source, now, other_ports=other_ports)
    if isinstance(decision, Allow):
        return None
    roles = active(policy, identity, source, now)
    by_address = (pattern for role in roles for pattern in role.hosts if pattern.network is not None)
    return None if any(pattern.port in (None, target.port) for pattern in by_address) else decision


def decide(
    policy: Policy,
    identity: Identity,
    target: Target,
    addresses: Sequence[str],
    login: str,
    source: str,
    now: datetime,
    *,
    other_ports: Sequence[int] = (),
) -> Decision:
    """Whether this identity may log in at the target as ``login``, and with which options."""
    return _decide(policy, identity, target, addresses, login, source, now, other_ports)


def _decide(
    policy: Policy,
    identity: Identity,
    target: Target,
    addresses: Sequence[str],
    login: str | None,
    source: str,
    now: datetime,
    other_ports: Sequence[int],
) -> Decision:
    """Return the decision. A remembered one is used until the time that could change it."""
    # Identities are compared without what their certificates withhold.
    question = (identity, identity.withheld, target, tuple(addresses), login, source, tuple(other_ports))
    if (known := policy.remembered.get(question)) is not None:
        since, allow = known
        if since <= now and (allow.until is None or now < allow.until):
            return allow
    decision = _compute_decision(policy, identity, target, addresses, login, source, now, other_ports)
    if isinstance(decision, Allow):
        if len(policy.remembered) >= _REMEMBERED_MOST:
            policy.remembered.clear()
        policy.remembered[question] = now, decision
    return decision


def _compute_decision(
    policy: Policy,
    identity: Identity,
    target: Target,
    addresses: Sequence[str],
    login: str | None,
    source: str,
    now: datetime,
    other_ports: Sequence[int],
) -> Decision:
    user = _shown(identity.user)
    host = _shown(target.host if target.port == 22 else str(target))
    if _is_over(identity.expires, now):
        return Deny(
            reason=f"the login of {user} has expired; log in again",
            rule="expired",
            code=ReasonCode.LOGIN_EXPIRED,
        )
    if lock := policy.lock_on(now, lambda lock: lock.is_of_user(identity.user)):
        return Deny(reason=_shown(str(lock)), rule="lock", code=ReasonCode.USER_LOCKED)
    try:
        resolved = resolved_target(target, addresses)
    except NotAHost as error:
        return Deny(
            reason=f"{user} may not reach {host} ({error})", rule=str(error), code=ReasonCode.INVALID_TARGET
        )
    all_names = (resolved, *(replace(resolved, port=port) for port in other_ports))

    def unreachable(code: ReasonCode, rule: str, line: int = 0) -> Deny:
        return Deny(reason=f"{user} may not reach {host} ({rule})", rule=rule, line=line, code=code)

    if lock := policy.lock_on(now, lambda lock: any(map(lock.is_of_target, all_names))):
        return Deny(
            reason=f"{user} may not reach {host} ({_shown(str(lock))})",
            rule="lock",
            code=ReasonCode.TARGET_LOCKED,
        )
    roles = policy.roles_of(identity, now)
    for role in roles:
        for pattern in role.deny_hosts:
            if any(_denies(pattern, name) for name in all_names):
                return unreachable(ReasonCode.HOST_DENIED, f"role {role.name} denies it", pattern.line)
    reaches = [reach for role in roles if (reach := _allowed_addresses(role, resolved)) is not None]
    if not reaches:
        for role, end in policy.ended_roles_of(identity, now):
            if _allowed_addresses(role, resolved) is not None:
                when = f"{end.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
                line = role.line("options.expires") if end == role.expires else 0
                return unreachable(ReasonCode.ROLE_ENDED, f"role {role.name} of {user} ended at {when}", line)
        if not roles:
            return unreachable(ReasonCode.NO_ROLE, f"{user} has no role")
        return unreachable(ReasonCode.HOST_NOT_ALLOWED, f"no role of {user} allows it")
    from_source = [reach for reach in reaches if comes_from(reach.role, source)]
    if not from_source:
        line = reaches[0].role.line("options.source")
        if shown := _shown(source):
            rule = f"{_roles(reaches)} cannot be used from {shown}"
        else:
            rule = (
                f"{_roles(reaches)} needs an allowed source address, and the user's address is not known"
            )
        return unreachable(ReasonCode.SOURCE_NOT_ALLOWED, rule, line)
    usable = [reach for reach in from_source if is_open(reach.role.times, now)]
    if not usable:
        line = from_source[0].role.line("options.times")
        rule = f"{_roles(from_source)} cannot be used at this time"
        return unreachable(ReasonCode.TIME_NOT_ALLOWED, rule, line)
    denied = tuple(pattern for role in roles for pattern in role.deny_logins)
    if login is None:
        allowing = [reach for reach in usable if any(_usable_logins(reach.role, denied))]
        if not allowing:
            rule = _allowed_logins(usable, identity.user)
            return unreachable(ReasonCode.LOGIN_NOT_ALLOWED, rule, usable[0].role.line("logins"))
        return _allow(allowing, "some logins", resolved, policy.changes(identity, now), identity)

    def refused(code: ReasonCode, rule: str, line: int = 0) -> Deny:
        reason = f"{user} may not log in as {_shown(login)} on {host} ({rule})"
        return Deny(reason=reason, rule=rule, line=line, code=code)

    if not is_usable(login):
        rule = "invalid login: must be one printable word without / and :"
        return refused(ReasonCode.INVALID_LOGIN, rule)
    if lock := policy.lock_on(now, lambda lock: lock.is_of_login(login, identity.user)):
        return replace(refused(ReasonCode.LOGIN_LOCKED, _shown(str(lock))), rule="lock")
    for role in roles:
        if any(denies(pattern, login, identity.user) for pattern in role.deny_logins):
            line = role.line("deny.logins")
            return refused(ReasonCode.LOGIN_DENIED, f"role {role.name} denies it", line)
    allowing = [
        reach
        for reach in usable
        if any(allows(pattern, login, identity.user) for pattern in reach.role.logins)
    ]
    if not allowing:
        rule = _allowed_logins(usable, identity.user)
        return refused(ReasonCode.LOGIN_NOT_ALLOWED, rule, usable[0].role.line("logins"))
    allowed = _allow(allowing, login, resolved, policy.changes(identity, now), identity)
    if allowed.options.require_mfa is not Mfa.NO and not identity.second_factor:
        role = next(reach.role for reach in allowing if reach.role.options.require_mfa is not Mfa.NO)
        return refused(
            ReasonCode.SECOND_FACTOR_REQUIRED,
            f"role {role.name} requires a second factor",
            role.line("options.require_mfa"),
        )
    return allowed


@dataclass(frozen=True, slots=True)
class _AllowedHost:
    """A role that allows the host, with the addresses that it allows (as the resolver wrote them)."""

    role: Role
    addresses: frozenset[str]
    line: int


def _denies(pattern: HostPattern, target: TargetAddress) -> bool:
    return pattern.names(target) or any(
        pattern.covers(ip, target) for _, address in target.addresses for ip in seen_through(address)
    )


def _allowed_addresses(role: Role, target: TargetAddress) -> _AllowedHost | None:
    """What the role allows of the target; None where it does not allow it."""
    for pattern in role.hosts:
        if pattern.names(target):
            return _AllowedHost(role, frozenset(text for text, _ in target.addresses), pattern.line)
    covering = [
        (text, pattern)
        for text, ip in target.addresses
        for pattern in role.hosts
        if pattern.covers(ip, target)
    ]
    if not covering:
        return None
    return _AllowedHost(role, frozenset(text for text, _ in covering), covering[0][1].line)


def comes_from(role: Role, source: str) -> bool:
    """Whether the role may be used from the address ``source``."""
    if role.source is None:
        return True
    address = address_of(source)
    return address is not None and any(is_within(address, network) for network in role.source)


def _usable_logins(role: Role, denied: Sequence[str]) -> Iterator[str]:
    return (pattern for pattern in role.logins if pattern not in denied and "*" not in denied)


def _allow(
    allowing: Sequence[_AllowedHost],
    login: str,
    target: TargetAddress,
    until: datetime | None,
    identity: Identity,
) -> Allow:
    limits = _certificate_limits(identity)
    dialled = tuple(
        text for text, _ in target.addresses if any(text in reach.addresses for reach in allowing)
    )
    return Allow(
        rule=f"{_roles(allowing)} {'allow' if len(allowing) > 1 else 'allows'} {login}",
        addresses=dialled,
        options=combine(
            limiting=[*(reach.role.options for reach in allowing), *(role.options for role in limits)],
            opening=[reach.role.options for reach in allowing if reach.addresses.issuperset(dialled)],
        ),
        line=allowing[0].line,
        until=until,
        roles=(*(reach.role for reach in allowing), *limits),
    )


def _certificate_limits(identity: Identity) -> tuple[Role, ...]:
    """A role that says no to everything that the user's certificate does not permit; none without one."""
    closed = {switch: False for permit in identity.withheld for switch in SWITCHES_OF[permit]}
    if not closed:
        return ()
    options = RoleOptions(switches=closed, max_sessions=None, record=Record.BEST_EFFORT)
    return (Role(name=CERTIFICATE, options=options),)


def visible_recordings(policy: Policy, identity: Identity, source: str, now: datetime) -> VisibleRecordings:
    """Whose recordings this identity may see from the address ``source``; NONE without a role."""
    roles = active(policy, identity, source, now)
    return max(
        (role.options.recordings for role in roles),
        key=list(VisibleRecordings).index,
        default=VisibleRecordings.NONE,
    )


def active(policy: Policy, identity: Identity, source: str, now: datetime) -> tuple[Role, ...]:
    """The roles that this identity may use from the address ``source`` now; none where the user is locked."""
    if policy.lock_on(now, lambda lock: lock.is_of_user(identity.user)):
        return ()
    roles = policy.roles_of(identity, now)
    return tuple(role for role in roles if comes_from(role, source) and is_open(role.times, now))


def _roles(reaches: Sequence[_AllowedHost]) -> str:
    names = ", ".join(reach.role.name for reach in reaches)
    return f"{'roles' if len(reaches) > 1 else 'role'} {names}"


def _allowed_logins(reaches: Sequence[_AllowedHost], user: str) -> str:
    texts = []
    for reach in reaches:
        logins = [_shown(login.replace(USER, user)) for login in reach.role.logins]
        if len(logins) > _SHOWN_LOGINS:
            logins[_SHOWN_LOGINS:] = ["…"]
        texts.append(f"role {reach.role.name} allows" + (f": {', '.join(logins)}" if logins else " no login"))
    return "; ".join(texts)


# -- the command ``hosts``


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The hosts and logins of one role, as in the configuration, with the user's name for ``{user}``."""

    role: str
    hosts: tuple[str, ...]
    logins: tuple[str, ...]
    denied_hosts: tuple[str, ...]
    denied_logins: tuple[str, ...]
    from_here: bool
    at_this_time: bool


def reachable(policy: Policy, identity: Identity, source: str, now: datetime) -> tuple[Reach, ...]:
    """The roles of the user, for the command ``hosts``, without those that allow and deny nothing."""
    return tuple(
        Reach(
            role=role.name,
            hosts=tuple(map(str, role.hosts)),
            logins=tuple(login.replace(USER, identity.user) for login in role.logins),
            denied_hosts=tuple(map(str, role.deny_hosts)),
            denied_logins=tuple(login.replace(USER, identity.user) for login in role.deny_logins),
            from_here=comes_from(role, source),
            at_this_time=is_open(role.times, now),
        )
        for role in policy.roles_of(identity, now)
        if (role.hosts and role.logins) or role.deny_hosts or role.deny_logins
    )
