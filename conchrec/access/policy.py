"""Who may log in where: pure, and deny by absence.

How several roles of one user add up. A *deny* of any of them wins over everything, whatever that
role's ``source`` and ``times`` are; so does a lock. A login at a target is allowed by the roles that allow
its host, the login, the place that the user comes from, and the time. What it may do there, those roles say
together, as the table in ``access.options`` has it. ``recordings`` is of no login: of all the roles of a user
the widest counts. A role whose grant has ended is none.

*Allow* matches the name that was asked for, or the address; *deny* either. A name that was allowed
is allowed wherever it leads. Where only some of its addresses are allowed, only those may be dialled
(``Allow.addresses``), and a role that does not allow all of those opens nothing: what is open at one
of its hosts is not open at another that shares the name.

A deny by name does not know the host's other names; deny its address, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial

from conchrec.access.certificate_permits import SWITCHES_OF, permit_of
from conchrec.access.locks import Lock
from conchrec.access.login_names import LONGEST_LOGIN, USER, allows, denies, is_usable
from conchrec.access.options import (
    SHORTHANDS,
    SWITCHES,
    Mfa,
    Record,
    RoleOptions,
    Sees,
    SessionOptions,
    combine,
)
from conchrec.access.patterns import (
    HostPattern,
    NotAHost,
    TargetAddress,
    address_of,
    is_within,
    place_of,
    seen_through,
)
from conchrec.access.role import Role
from conchrec.access.time_windows import is_open
from conchrec.model import Identity, Target
from conchrec.reasons import ReasonCode
from conchrec.text import escape

_SHOWN_LOGINS = 8
#: As text from outside may appear on a terminal, and no longer than makes sense.
_shown = partial(escape, limit=2 * LONGEST_LOGIN)
#: In place of a role that shuts something: no role has a name with a space in it.
CERTIFICATE = "the certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All roles, by name; when grants of them end, by user and role; and what is locked."""

    roles: Mapping[str, Role] = field(default_factory=dict)
    ends: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()

    def roles_of(self, identity: Identity, now: datetime) -> tuple[Role, ...]:
        """A role that does not exist (any more), or whose time is over, is none."""
        return tuple(
            role for role in self._granted(identity) if not _is_over(self.end_of(identity, role), now)
        )

    def ended_roles_of(self, identity: Identity, now: datetime) -> tuple[tuple[Role, datetime], ...]:
        """Those that were granted and whose time is over, with that time."""
        granted = [(role, self.end_of(identity, role)) for role in self._granted(identity)]
        return tuple((role, end) for role, end in granted if end is not None and _is_over(end, now))

    def end_of(self, identity: Identity, role: Role) -> datetime | None:
        """When this user's grant of the role ends; None: never."""
        ends = (role.expires, self.ends.get((identity.user, role.name)))
        return min((end for end in ends if end is not None), default=None)

    def lock_on(self, now: datetime, is_meant: Callable[[Lock], bool]) -> Lock | None:
        """The first that holds, of those that are meant."""
        return next((lock for lock in self.locks if lock.holds(now) and is_meant(lock)), None)

    def changes(self, identity: Identity, now: datetime) -> datetime | None:
        """The first moment at which time alone may change an answer that this identity had; None: never."""
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
    """Yes. ``rule`` says which roles allow it, ``line`` where the first of them does; only ``addresses`` may
    be dialled, in that order. ``until`` is the first moment at which the answer may be another one.

    ``addresses`` is empty where none was given: then it is the name alone that is allowed.
    """

    rule: str
    options: SessionOptions
    addresses: tuple[str, ...]
    line: int = 0
    until: datetime | None = None
    roles: tuple[Role, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """No. ``reason`` is one line for the user; ``rule`` is what said it, in that ``line``."""

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
    """May this identity log in at the target as anybody at all?

    ``addresses`` is what getaddrinfo says of the target's host; ``source`` the user's own address;
    ``other_ports`` are ports by which the target is known besides its own: denies of these hold, too.
    The options of an Allow are those of the host's roles together: for a login, ask ``decide``.
    """
    return _judge(policy, identity, target, addresses, None, source, now, other_ports)


def hopeless(
    policy: Policy,
    identity: Identity,
    target: Target,
    source: str,
    now: datetime,
    *,
    other_ports: Sequence[int] = (),
) -> Deny | None:
    """The no that ``may_reach`` says whatever the target's host resolves to; None where that matters."""
    answer = may_reach(policy, identity, target, (), source, now, other_ports=other_ports)
    if isinstance(answer, Allow):
        return None
    roles = active(policy, identity, source, now)
    by_address = (pattern for role in roles for pattern in role.hosts if pattern.network is not None)
    return None if any(pattern.port in (None, target.port) for pattern in by_address) else answer


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
    """May this identity log in at the target as ``login``, and what may the sessions do?"""
    return _judge(policy, identity, target, addresses, login, source, now, other_ports)


def _judge(
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
        place = place_of(target, addresses)
    except NotAHost as error:
        return Deny(
            reason=f"{user} may not reach {host} ({error})", rule=str(error), code=ReasonCode.INVALID_TARGET
        )
    known_as = (place, *(replace(place, port=port) for port in other_ports))

    def unreachable(code: ReasonCode, rule: str, line: int = 0) -> Deny:
        return Deny(reason=f"{user} may not reach {host} ({rule})", rule=rule, line=line, code=code)

    if lock := policy.lock_on(now, lambda lock: any(map(lock.is_of_place, known_as))):
        return Deny(
            reason=f"{user} may not reach {host} ({_shown(str(lock))})",
            rule="lock",
            code=ReasonCode.TARGET_LOCKED,
        )
    roles = policy.roles_of(identity, now)
    for role in roles:
        for pattern in role.deny_hosts:
            if any(_denies(pattern, one) for one in known_as):
                return unreachable(ReasonCode.HOST_DENIED, f"role {role.name} denies it", pattern.line)
    reaches = [reach for role in roles if (reach := _reached(role, place)) is not None]
    if not reaches:
        for role, end in policy.ended_roles_of(identity, now):
            if _reached(role, place) is not None:
                when = f"{end.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
                line = role.line("options.expires") if end == role.expires else 0
                return unreachable(ReasonCode.ROLE_ENDED, f"role {role.name} of {user} ended at {when}", line)
        if not roles:
            return unreachable(ReasonCode.NO_ROLE, f"{user} has no role")
        return unreachable(ReasonCode.HOST_NOT_ALLOWED, f"no role of {user} allows it")
    here = [reach for reach in reaches if comes_from(reach.role, source)]
    if not here:
        line = reaches[0].role.line("options.source")
        rule = f"{_roles(reaches)} not from {_shown(source) or 'there'}"
        return unreachable(ReasonCode.SOURCE_NOT_ALLOWED, rule, line)
    elsewhen, here = here, [reach for reach in here if is_open(reach.role.times, now)]
    if not here:
        line = elsewhen[0].role.line("options.times")
        return unreachable(ReasonCode.TIME_NOT_ALLOWED, f"{_roles(elsewhen)} not at this time", line)
    denied = tuple(pattern for role in roles for pattern in role.deny_logins)
    if login is None:
        allowing = [reach for reach in here if any(_usable_logins(reach.role, denied))]
        if not allowing:
            rule = _allowed_logins(here, identity.user)
            return unreachable(ReasonCode.LOGIN_NOT_ALLOWED, rule, here[0].role.line("logins"))
        return _allow(allowing, "any login of its own", place, policy.changes(identity, now), identity)

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
        reach for reach in here if any(allows(pattern, login, identity.user) for pattern in reach.role.logins)
    ]
    if not allowing:
        rule = _allowed_logins(here, identity.user)
        return refused(ReasonCode.LOGIN_NOT_ALLOWED, rule, here[0].role.line("logins"))
    allowed = _allow(allowing, login, place, policy.changes(identity, now), identity)
    if allowed.options.require_mfa is not Mfa.NO and not identity.second_factor:
        demanding = next(reach.role for reach in allowing if reach.role.options.require_mfa is not Mfa.NO)
        return refused(
            ReasonCode.SECOND_FACTOR_REQUIRED,
            f"role {demanding.name} requires a second factor",
            demanding.line("options.require_mfa"),
        )
    return allowed


@dataclass(frozen=True, slots=True)
class _Reach:
    """A role that allows the host, the addresses (as the resolver wrote them) that it allows, and the line
    that says so."""

    role: Role
    addresses: frozenset[str]
    line: int


def _denies(pattern: HostPattern, place: TargetAddress) -> bool:
    return pattern.names(place) or any(
        pattern.covers(ip, place) for _, given in place.addresses for ip in seen_through(given)
    )


def _reached(role: Role, place: TargetAddress) -> _Reach | None:
    """None where it does not allow the place."""
    for pattern in role.hosts:
        if pattern.names(place):
            return _Reach(role, frozenset(text for text, _ in place.addresses), pattern.line)
    covering = [
        (text, pattern) for text, ip in place.addresses for pattern in role.hosts if pattern.covers(ip, place)
    ]
    if not covering:
        return None
    return _Reach(role, frozenset(text for text, _ in covering), covering[0][1].line)


def comes_from(role: Role, source: str) -> bool:
    """May this role be used from the address ``source``?"""
    if role.source is None:
        return True
    address = address_of(source)
    return address is not None and any(is_within(address, network) for network in role.source)


def _usable_logins(role: Role, denied: Sequence[str]) -> Iterator[str]:
    return (pattern for pattern in role.logins if pattern not in denied and "*" not in denied)


def _allow(
    allowing: Sequence[_Reach], login: str, place: TargetAddress, until: datetime | None, identity: Identity
) -> Allow:
    limits = _certificate_limits(identity)
    dialled = tuple(text for text, _ in place.addresses if any(text in reach.addresses for reach in allowing))
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
    """What the user's certificate does not permit, as a role that says no to it and nothing else."""
    shut = {switch: False for permit in identity.withheld for switch in SWITCHES_OF[permit]}
    if not shut:
        return ()
    options = RoleOptions(switches=shut, max_sessions=None, record=Record.BEST_EFFORT)
    return (Role(name=CERTIFICATE, options=options),)


@dataclass(frozen=True, slots=True)
class Shut:
    """Why an option is shut: by which ``setting``, as it is written, and for the audit the ``rule``;
    ``permit`` is the extension that the user's certificate would need, where that shuts it."""

    setting: str
    rule: str
    permit: str = ""

    @property
    def why(self) -> str:
        """For the user."""
        if self.permit:
            return f"your certificate has no {self.permit}"
        return self.setting if self.setting == "commands" else f"{self.setting}: no"


def shut_by(roles: Sequence[Role], option: str) -> Shut:
    """Which of the roles that allow a login together shuts this option of it, a switch or ``commands``."""
    written = (option, *(short for short, names in SHORTHANDS.items() if option in names))

    def said(role: Role) -> str:
        """The setting with which this role alone shuts it; empty where it does not."""
        if role.options.switches.get(option) is False:
            return next((name for name in written if f"options.{name}" in role.lines), option)
        names = role.options.commands is not None
        # What would be open by default is not, beside commands that are named.
        shuts = option == "commands" or (SWITCHES[option] and not role.options.opens(option))
        return "commands" if names and shuts else ""

    found = [(role, setting) for role in roles if (setting := said(role))]
    # Who says no is meant before who names commands.
    for role, setting in sorted(found, key=lambda one: one[1] == "commands"):
        if role.name == CERTIFICATE:
            permit = permit_of(option)
            return Shut(setting, f"certificate: no {permit}", permit)
        line = role.line(f"options.{setting}")
        return Shut(setting, f"role {role.name}: {setting}" + (f" (line {line})" if line else ""))
    names = ", ".join(role.name for role in roles if role.name != CERTIFICATE)
    return Shut(option, f"{option}: no role that counts opens it ({names})")


def sees(policy: Policy, identity: Identity, source: str, now: datetime) -> Sees:
    """Whose recordings this identity may look at from the address ``source``; without a role nobody's."""
    roles = active(policy, identity, source, now)
    return max((role.options.recordings for role in roles), key=list(Sees).index, default=Sees.NONE)


def active(policy: Policy, identity: Identity, source: str, now: datetime) -> tuple[Role, ...]:
    """The roles that this identity may use from the address ``source`` now; who is locked has none."""
    if policy.lock_on(now, lambda lock: lock.is_of_user(identity.user)):
        return ()
    roles = policy.roles_of(identity, now)
    return tuple(role for role in roles if comes_from(role, source) and is_open(role.times, now))


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
    at_this_time: bool


def reachable(policy: Policy, identity: Identity, source: str, now: datetime) -> tuple[Reach, ...]:
    """What the user's own roles say, for the command ``hosts``; roles that lead nowhere are left out."""
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
