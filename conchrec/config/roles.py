"""Reads ``roles``, and settings with hosts, logins and times, into the values of ``access``.

Every problem is reported with its path and line, and reading continues. It opens no other files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from conchrec.access.certificate_grant import fits_in_certificate
from conchrec.access.command_patterns import CommandPattern
from conchrec.access.login_names import check_allowed_pattern, check_pattern
from conchrec.access.options import (
    SHORTHANDS,
    SWITCHES,
    TABLE,
    Mfa,
    Record,
    RoleOptions,
    VisibleRecordings,
    switches,
)
from conchrec.access.patterns import HostPattern, IPNetwork, parse_network
from conchrec.access.role import Role
from conchrec.access.time_windows import Window, parse_moment
from conchrec.config.fields import keys
from conchrec.config.model import TargetRule
from conchrec.yaml_cursor import Section, YamlText, nearest

T = TypeVar("T")

_FIELDS = keys(Role, "name", "lines")
_DENY = "deny_"
#: The keys of a role, of its ``deny`` and of its ``options``. The fields of Role before ``options`` have own
#: keys, those with ``deny_`` are in ``deny``, and those after ``options`` are among the options.
ROLE = (
    *(name for name in _FIELDS[: _FIELDS.index("options")] if not name.startswith(_DENY)), "deny", "options",
)  # fmt: skip
DENY = tuple(name.removeprefix(_DENY) for name in _FIELDS if name.startswith(_DENY))
OPTIONS = (*(row.name for row in TABLE), *_FIELDS[_FIELDS.index("options") + 1 :])
GROUP, LABEL = "group:", "label:"
UNTIL = "until"

IsName = Callable[[str], bool]


def read_roles(top: Section, groups: Iterable[TargetRule], is_name: IsName) -> dict[str, Role]:
    """The roles by name. ``groups`` are the groups of targets that hosts may refer to."""
    roles = {}
    section = top.section("roles", None)
    for name in section:
        if not is_name(name):
            section.problem(
                name, "invalid role name: use letters, digits and . _ @ + -; it must not begin with -"
            )
        roles[name] = _role(name, section, tuple(groups))
    for name in section:
        options = section.section(name, None).section("options", None)
        for entry in options.texts("approval", or_one=True):
            if entry.text not in roles:
                entry.problem(f"unknown role {entry.text}{nearest(entry.text, tuple(roles))}")
    return roles


def _role(name: str, section: Section, groups: tuple[TargetRule, ...]) -> Role:
    role = section.section(name, ROLE)
    deny = role.section("deny", DENY)
    options = role.section("options", OPTIONS)
    direct = options.flag("direct", False)
    for key in ("hosts", "logins"):
        if not role.texts(key):
            section.warn(name, f"has no {key}: the role allows no login")
    lines = {"": section.line_of(name)}
    for prefix, part in (("", role), ("deny.", deny), ("options.", options)):
        lines |= {prefix + key: part.line_of(key) for key in part}
    value = Role(
        name=name,
        logins=_each(role, "logins", check_allowed_pattern),
        hosts=read_hosts(role, groups),
        deny_hosts=read_hosts(deny, groups, addresses=True),
        deny_logins=_each(deny, "logins", check_pattern),
        options=_options(options),
        source=read_networks(options, "source"),
        times=_each(options, "times", Window.parse) if "times" in options else None,
        expires=_moment(options.entry("expires")),
        direct=direct,
        lines=MappingProxyType(lines),
    )
    if direct and fits_in_certificate(value):
        options.warn(
            "direct",
            "with a certificate, users can log in at every host that trusts the user CA without the proxy,"
            " unrecorded",
        )
    return value


def read_grants(user: Section, roles: Mapping[str, Role]) -> dict[str, datetime | None]:
    """The roles of a user, each with the end of that grant: ``ops``, ``oncall until 2026-12-24 18:00``."""
    grants: dict[str, datetime | None] = {}
    for entry in user.texts("roles"):
        name, until, moment = entry.text.partition(f" {UNTIL} ")
        name = name.strip()
        if name not in roles:
            entry.problem(f"unknown role {name}{nearest(name, tuple(roles))}")
        elif name in grants and (until or grants[name] is not None):
            entry.problem(f"role {name} is listed twice, with different ends; keep one")
        grants[name] = _parsed(entry, moment, parse_moment) if until else None
    return grants


def read_hosts(
    section: Section, groups: tuple[TargetRule, ...] = (), *, addresses: bool = False
) -> tuple[HostPattern, ...]:
    """The patterns in ``hosts``. ``group:NAME`` and ``label:KEY=VALUE`` stand for the hosts of groups of
    targets, with ``addresses`` also for their addresses."""
    patterns: list[HostPattern] = []
    for entry in section.texts("hosts"):
        if entry.text.startswith((GROUP, LABEL)):
            patterns += _of_groups(entry, groups, addresses=addresses)
        elif (pattern := _parsed(entry, entry.text, HostPattern.parse)) is not None:
            patterns.append(replace(pattern, line=entry.line))
    return tuple(patterns)


def _of_groups(entry: YamlText, groups: tuple[TargetRule, ...], *, addresses: bool) -> list[HostPattern]:
    if entry.text.startswith(GROUP):
        name = entry.text[len(GROUP) :]
        selected = [group for group in groups if group.name == name]
        if not selected:
            entry.problem(f"unknown group of targets {name}{nearest(name, [group.name for group in groups])}")
    else:
        key, equals, value = entry.text[len(LABEL) :].partition("=")
        selected = [group for group in groups if group.labels.get(key) == value]
        if not equals:
            entry.problem(f"invalid label {entry.text!r}: write label:KEY=VALUE, like label:tier=data")
        elif not selected:
            entry.problem(f"no group in targets has the label {key}: {value}")
    line, by = entry.line, entry.text
    patterns = [pattern for group in selected for pattern in group.hosts]
    if addresses:
        patterns += [pattern for group in selected for pattern in _address_patterns(group)]
    return [replace(pattern, line=line, by=by) for pattern in patterns]


def _address_patterns(group: TargetRule) -> list[HostPattern]:
    """Patterns for the addresses of a group: a user may reach its hosts by these too."""
    return [HostPattern(text=text, port=group.port, network=parse_network(text)) for text in group.address]


def read_networks(section: Section, key: str) -> tuple[IPNetwork, ...] | None:
    """The networks of a key; None where it is missing. An empty list matches nothing."""
    return _each(section, key, parse_network) if key in section else None


def _options(section: Section) -> RoleOptions:
    default = RoleOptions()
    written = {name: section.flag(name, True) for name in (*SWITCHES, *SHORTHANDS) if name in section}
    limit = default.max_sessions
    approval = section.texts("approval", or_one=True)
    if "approval" in section and not approval:
        section.problem("approval", "is empty: list the roles that may approve, or remove the setting")
    return RoleOptions(
        switches=switches(**written),
        commands=_each(section, "commands", CommandPattern.parse) if "commands" in section else None,
        max_session_ttl=section.optional_duration("max_session_ttl"),
        client_idle_timeout=section.optional_duration("client_idle_timeout"),
        max_sessions=section.integer("max_sessions", 10) if "max_sessions" in section else limit,
        max_connections=section.integer("max_connections", 1) if "max_connections" in section else None,
        record=section.word("record", Record, default.record),
        require_mfa=section.word("require_mfa", Mfa, default.require_mfa),
        approval=frozenset(entry.text for entry in approval),
        recordings=section.word("recordings", VisibleRecordings, default.recordings),
    )


def _moment(entry: YamlText | None) -> datetime | None:
    return None if entry is None else _parsed(entry, entry.text, parse_moment)


def _each(section: Section, key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    values = (_parsed(entry, entry.text, parse) for entry in section.texts(key))
    return tuple(value for value in values if value is not None)


def _parsed(entry: YamlText, text: str, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(text)
    except ValueError as error:
        entry.problem(str(error))
        return None
