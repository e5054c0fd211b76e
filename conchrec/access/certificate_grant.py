"""The contents of the certificates that the user CA signs for logged-in users (``login``, ``sign``). Pure.

A target that trusts the user CA believes everything in a certificate and knows no roles, so a certificate
must never allow more than the roles of its user. The rules for a user with several roles:

- The *active* roles are those that allow the user's address and the time. Without one there is no
  certificate; nor without a second factor, if one of them requires it.
- *Principals*: the user's name. Logins at targets only from roles with ``direct: yes``, or from every active
  role if sessions are not recorded anyway (``node``, ``off``): with such a certificate the user can log in
  there without the proxy. ``{user}`` is the user's name; a pattern cannot be a principal. Left out are:
  logins that any role of the user denies; locked logins; the logins of a role with a restriction that no
  certificate can carry (commands, an approval or a second factor for each session, a closed switch such as
  ``shell: no``); and logins that another role of the user allows with such a restriction, at any hosts,
  because the certificate would bypass that role.
- A certificate without such a login is for the proxy only: its critical option ``proxy-only@conchrec``, which
  sshd does not know and therefore rejects, makes it useless for an account at a target that has the user's
  name.
- *Extensions*: only those that every role which gives a principal grants (every active role, if the
  certificate is for the proxy only), because a certificate cannot limit an extension to one login; and only
  those to which no role of the user for one of its principals says no, because the certificate would bypass
  that role.
- *Until*: the strictest ``max_session_ttl`` of the active roles, 12 hours if none has one; never later than
  the credential of the user expires (a certificate cannot renew itself), nor than the grant or the time
  window of a role whose logins it names.
- *Source*: the addresses that every active role allows; and if the user's credential is limited to some
  addresses, only the user's own address.

A certificate cannot name hosts: a login of a ``direct`` role is valid at every target that trusts our CA.
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

#: A certificate with this critical option is valid at the proxy only.
PROXY_ONLY = "proxy-only@conchrec"
#: The validity of a certificate where no role has another one.
USUAL_TTL = timedelta(hours=12)

#: A login with these is a pattern, or cannot be a principal.
_NOT_IN_LOGINS = frozenset("*?,")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The contents of a certificate. ``until`` is aware; ``logins`` are the principals that are logins at
    targets, without the proxy."""

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
    """The most that a certificate of this user may contain, for a login from the address ``source``.

    ``ttl`` is the requested validity. ``recorded`` says whether sessions through the proxy are recorded.
    Raises AccessDenied.
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
        reason = (
            f"no role of {user} can be used from {source or 'this address'} at this time"
            if roles
            else f"{user} has no role"
        )
        raise AccessDenied(
            f"no certificate: {reason}",
            rule=reason,
            code=ReasonCode.NO_ROLE_APPLIES if roles else ReasonCode.NO_ROLE,
        )
    if not identity.second_factor and any(role.options.require_mfa is not Mfa.NO for role in counting):
        raise AccessDenied(
            "no certificate: a second factor is required; log in with one",
            rule="require_mfa",
            code=ReasonCode.SECOND_FACTOR_REQUIRED,
        )
    denied = [pattern for role in roles for pattern in role.deny_logins]
    denied += [lock.name for lock in policy.locks if lock.kind is LockKind.LOGIN and lock.holds(now)]
    denied += [pattern for role in roles if not fits_in_certificate(role) for pattern in role.logins]
    naming = {
        role.name: logins
        for role in counting
        if (role.direct or not recorded)
        and fits_in_certificate(role)
        and (logins := _logins(role, user, denied))
    }
    logins = tuple(dict.fromkeys(login for names in naming.values() for login in names))
    own = () if logins and _is_one_of(user, user, denied) else (user,)
    principals = tuple(dict.fromkeys((*own, *logins)))
    if len(principals) > MAX_PRINCIPALS:
        raise AccessDenied(
            f"no certificate: {user} has more than {MAX_PRINCIPALS - 1} logins; ask your administrator to"
            " reduce them",
            code=ReasonCode.TOO_MANY_LOGINS,
        )
    ends = [end for role in counting if role.name in naming if (end := _end(policy, identity, role, now))]
    return Grant(
        principals=principals,
        logins=logins,
        until=min((_until(identity, counting, now, ttl), *ends)),
        extensions=_extensions(
            # Also roles whose logins are denied: a deny must not add an extension.
            [role for role in counting if (role.direct or not recorded) and _logins(role, user, ())]
            or counting,
            [role for role in roles if any(_is_one_of(name, user, role.logins) for name in principals)],
        ),
        critical_options=_critical_options(
            counting, for_targets=bool(logins), here=_network(source) if identity.pinned else None
        ),
    )


def fits_in_certificate(role: Role) -> bool:
    """Whether a certificate can carry all restrictions of this role."""
    options = role.options
    for_each_session = options.approval or options.require_mfa is Mfa.SESSION
    in_extensions = {switch for switches in SWITCHES_OF.values() for switch in switches}
    others = (switch for switch, is_open in SWITCHES.items() if is_open and switch not in in_extensions)
    return not for_each_session and options.commands is None and all(map(options.opens, others))


def _end(policy: Policy, identity: Identity, role: Role, now: datetime) -> datetime | None:
    """When the role stops to apply: its grant or its time window ends; None: never."""
    ends = [policy.end_of(identity, role), *(window.changes(now) for window in role.times or ())]
    return min((end for end in ends if end is not None), default=None)


def _logins(role: Role, user: str, denied: Sequence[str]) -> tuple[str, ...]:
    """The logins of the role that can be principals."""
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
    """The extensions that all roles grant and none of ``same_logins`` says no to (PROTOCOL.certkeys,
    "Extensions": names without values)."""

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
    """The network that has only this address. Raises AccessDenied where it is unknown."""
    address = address_of(source)
    if address is None:
        raise AccessDenied(
            "no certificate: your key or certificate is limited to some addresses, and yours is unknown",
            code=ReasonCode.CREDENTIAL_BOUND_ELSEWHERE,
        )
    return ipaddress.ip_network(address)


def _common(some: Sequence[IPNetwork], others: Sequence[IPNetwork]) -> tuple[IPNetwork, ...]:
    """The intersection of both: of two networks that overlap, one is inside the other."""
    inside_others = [network for network in some if any(_is_inside(network, other) for other in others)]
    inside_some = [other for other in others if any(_is_inside(other, network) for network in some)]
    return tuple(dict.fromkeys((*inside_others, *inside_some)))


def _is_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.prefixlen >= outer.prefixlen and is_within(inner.network_address, outer)
