"""What the certificate says that somebody who has logged in may have of the user CA: pure.

A target that trusts the user CA believes every word of a certificate and knows no roles, so a certificate is
never worth more than the roles behind it. The rules, for a user of several roles:

- The roles that *count* are those that allow the place that the user comes from, and the time. Without one
  there is no certificate; nor without a second factor, where one of them requires it.
- *Principals*: the user's name. Logins at targets only from roles with ``direct: yes``, or from every role
  that counts where sessions are not recorded anyway (``node``, ``off``): whoever holds one can log in there
  past the proxy. ``{user}`` is the user; a pattern is no login; what any role of the user denies is left out,
  and so are the logins of a role that says what no certificate can: commands, an approval or a second factor
  for each session, a switch that is shut (``shell: no``). A login that another role of the user allows with
  any of these, at whatever hosts, is left out as well: a certificate would be the way around that role.
  A login that is locked is none.
- Without such a login the certificate is for the proxy alone: the critical option ``proxy-only@conchrec``,
  which sshd does not know and therefore refuses, keeps it from being good for an account that happens to
  have the user's name.
- *Extensions*: each only where every role that gives a principal grants it (every one
  that counts, where it is for the proxy alone), for a certificate cannot say at which login it is good; and
  where no role of the user for one of its principals says no to it, for a certificate would be the way around
  that role.
- *Until*: the strictest ``max_session_ttl`` of the roles that count, 12 hours where none says any; never
  later than what the user came with (a certificate does not renew itself), nor than the grant or the time of
  a role whose logins it names.
- *Source*: the addresses that every role that counts allows; and where the key or certificate that the user
  came with is not good from everywhere, the user's address alone.

It cannot say at which hosts it is good: a login of a ``direct`` role is one at every target with our CA.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from conchrec.access.certificate_permits import SWITCHES_OF
from conchrec.access.locks import LockKind
from conchrec.access.login_names import USER, denies
from conchrec.access.options import SWITCHES, Mfa
from conchrec.access.patterns import IPNetwork, address_of, is_within
from conchrec.access.policy import Policy, active
from conchrec.access.role import Role
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import MAX_PRINCIPALS
from conchrec.ssh.wire import string

#: A certificate with this critical option is for the proxy, and for nobody else.
PROXY_ONLY = "proxy-only@conchrec"
#: How long a certificate is good where nothing else is said.
USUAL_TTL = timedelta(hours=12)

#: What is no login: a pattern, and what no certificate can have as a principal.
_NOT_IN_LOGINS = frozenset("*?,")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a certificate may say. ``until`` is aware; ``logins`` are those at targets, past the proxy."""

    principals: tuple[str, ...]
    logins: tuple[str, ...]
    until: datetime
    extensions: Mapping[str, bytes]
    critical_options: Mapping[str, bytes]


def grant(
    policy: Policy,
    identity: Identity,
    *,
    source: str,
    now: datetime,
    recorded: bool,
    ttl: timedelta | None = None,
) -> Grant:
    """The most that this user may have from the address ``source``, for ``ttl`` where that is given.

    ``recorded``: sessions through the proxy are. Raises AccessDenied.
    """
    user = identity.user
    if identity.expires is not None and now >= identity.expires:
        raise AccessDenied(
            f"the login of {user} has expired; log in again", rule="expired", code=ReasonCode.LOGIN_EXPIRED
        )
    if lock := policy.lock_on(now, lambda lock: lock.is_of_user(user)):
        raise AccessDenied(f"no certificate: {lock}", rule="lock", code=ReasonCode.USER_LOCKED)
    roles = policy.roles_of(identity, now)
    counting = active(policy, identity, source, now)
    if not counting:
        why = f"no role of {user} is for {source or 'there'}, now" if roles else f"{user} has no role"
        raise AccessDenied(
            f"no certificate: {why}",
            rule=why,
            code=ReasonCode.NO_ROLE_APPLIES if roles else ReasonCode.NO_ROLE,
        )
    if not identity.second_factor and any(role.options.require_mfa is not Mfa.NO for role in counting):
        raise AccessDenied(
            "no certificate: a second factor is required",
            rule="require_mfa",
            code=ReasonCode.SECOND_FACTOR_REQUIRED,
        )
    denied = [pattern for role in roles for pattern in role.deny_logins]
    denied += [lock.name for lock in policy.locks if lock.kind is LockKind.LOGIN and lock.holds(now)]
    denied += [pattern for role in roles if not can_be_said(role) for pattern in role.logins]
    naming = {
        role.name: logins
        for role in counting
        if (role.direct or not recorded) and can_be_said(role) and (logins := _logins(role, user, denied))
    }
    logins = tuple(dict.fromkeys(login for found in naming.values() for login in found))
    own = () if logins and _is_one_of(user, user, denied) else (user,)
    principals = tuple(dict.fromkeys((*own, *logins)))
    if len(principals) > MAX_PRINCIPALS:
        raise AccessDenied(
            f"no certificate: {user} has more than {MAX_PRINCIPALS - 1} logins",
            code=ReasonCode.TOO_MANY_LOGINS,
        )
    ends = [end for role in counting if role.name in naming if (end := _end(policy, identity, role, now))]
    return Grant(
        principals=principals,
        logins=logins,
        until=min((_until(identity, counting, now, ttl), *ends)),
        extensions=_extensions(
            # Those whose logins are denied, too: a deny must not make a certificate worth more.
            [one for one in counting if (one.direct or not recorded) and _logins(one, user, ())] or counting,
            [role for role in roles if any(_is_one_of(name, user, role.logins) for name in principals)],
        ),
        critical_options=_critical_options(
            counting, for_targets=bool(logins), here=_network(source) if identity.pinned else None
        ),
    )


def can_be_said(role: Role) -> bool:
    """Can a certificate say all that this role says of what its users may do?"""
    options = role.options
    every_time = options.approval or options.require_mfa is Mfa.SESSION
    said = {switch for switches in SWITCHES_OF.values() for switch in switches}
    unsaid = (switch for switch, is_open in SWITCHES.items() if is_open and switch not in said)
    return not every_time and options.commands is None and all(map(options.opens, unsaid))


def _end(policy: Policy, identity: Identity, role: Role, now: datetime) -> datetime | None:
    """When this role is over, for now: its grant ends, or its time."""
    ends = [policy.end_of(identity, role), *(window.changes(now) for window in role.times or ())]
    return min((end for end in ends if end is not None), default=None)


def _logins(role: Role, user: str, denied: Sequence[str]) -> tuple[str, ...]:
    """Those of the role that can be principals."""
    return tuple(
        login
        for pattern in role.logins
        if not _NOT_IN_LOGINS & set(pattern)
        and not _is_one_of(login := pattern.replace(USER, user), user, denied)
    )


def _is_one_of(login: str, user: str, denied: Iterable[str]) -> bool:
    return any(denies(pattern, login, user) for pattern in denied)


def _until(identity: Identity, roles: Iterable[Role], now: datetime, ttl: timedelta | None) -> datetime:
    limits = [limit for role in roles if (limit := role.options.max_session_ttl) is not None]
    until = now + min(ttl or USUAL_TTL, *(limits or [USUAL_TTL]))
    return until if identity.expires is None else min(until, identity.expires)


def _extensions(roles: Sequence[Role], same_logins: Sequence[Role]) -> dict[str, bytes]:
    """PROTOCOL.certkeys, "Extensions": names alone. What one of ``same_logins`` says no to, is none."""

    def is_open(switch: str) -> bool:
        return all(role.options.opens(switch) for role in roles) and not any(
            role.options.switches.get(switch) is False for role in same_logins
        )

    return {name: b"" for name, switches in SWITCHES_OF.items() if switches and all(map(is_open, switches))}


def _critical_options(
    roles: Iterable[Role], *, for_targets: bool, here: IPNetwork | None
) -> dict[str, bytes]:
    """PROTOCOL.certkeys, "Critical options": ``source-address`` is a string within the value."""
    options = {} if for_targets else {PROXY_ONLY: b""}
    sources: tuple[IPNetwork, ...] | None = None if here is None else (here,)
    for role in roles:
        if role.source is not None:
            sources = role.source if sources is None else _common(sources, role.source)
    if sources is not None:
        options["source-address"] = string(",".join(map(str, sources)).encode())
    return options


def _network(source: str) -> IPNetwork:
    """Of this address alone."""
    address = address_of(source)
    if address is None:
        raise AccessDenied(
            "no certificate: what you came with is for other places",
            code=ReasonCode.CREDENTIAL_BOUND_ELSEWHERE,
        )
    return ipaddress.ip_network(address)


def _common(some: Sequence[IPNetwork], others: Sequence[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The networks that are in both: of two that overlap, one is within the other."""
    within = [one for one in some if any(_is_inside(one, other) for other in others)]
    around = [other for other in others if any(_is_inside(other, one) for one in some)]
    return tuple(dict.fromkeys((*within, *around)))


def _is_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.prefixlen >= outer.prefixlen and is_within(inner.network_address, outer)
