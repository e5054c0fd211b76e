"""Warnings about probable mistakes in users, roles and targets, for ``conchrec config check``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import permutations

from conchrec.access.certificate_grant import fits_in_certificate
from conchrec.access.login_names import covers as covers_login
from conchrec.access.login_names import folded, is_wildcard
from conchrec.access.options import Mfa
from conchrec.access.patterns import HostPattern
from conchrec.access.role import Role
from conchrec.config.model import Config, ConfiguredUser, TargetRule
from conchrec.errors import ConfigError
from conchrec.ssh.certificate import fingerprint, is_hardware

#: Parts of regular expressions that patterns of commands do not have.
_LIKE_AN_EXPRESSION = re.compile(r"^\^|\$$|\([^()]*\|")
_WIDE = {"*": ".*", "?": "[^*]"}


def warnings(config: Config, now: datetime, vouches: Callable[[TargetRule], bool]) -> list[ConfigError]:
    """All warnings, in the order of the file.

    ``vouches`` returns whether known_hosts files or other CAs have keys for the hosts of a group.
    """
    problems = [
        *_roles(config.roles, config.users, now),
        *_unrecorded(config),
        *_users(config.users, config.roles, now),
        *_groups(config, vouches),
    ]
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.path))


# -- roles


def _roles(
    roles: Mapping[str, Role], users: Mapping[str, ConfiguredUser], now: datetime
) -> Iterator[ConfigError]:
    for role in roles.values():
        path = f"roles.{role.name}"

        def warn(text: str, setting: str = "", role: Role = role, path: str = path) -> ConfigError:
            return ConfigError(f"{path}.{setting}" if setting else path, text, role.line(setting) or None)

        holders = [user for user in users.values() if role.name in user.roles]
        if not holders and not any(role.name in other.options.approval for other in roles.values()):
            yield warn("no user has this role")
        if any(map(_is_any, role.hosts)) and any(set(login) == {"*"} for login in role.logins):
            yield warn("the role allows every login at every host; check that this is intended", "hosts")
        yield from _denied_allows(role, warn)
        if role.expires is not None and role.expires <= now:
            yield warn("is in the past: the role has no effect", "options.expires")
        if role.times == ():
            yield warn("is empty: the role never applies", "options.times")
        if role.source == ():
            yield warn("is empty: the role never applies", "options.source")
        if role.options.commands == ():
            yield warn("is empty: the role allows no command", "options.commands")
        for command in role.options.commands or ():
            if _LIKE_AN_EXPRESSION.search(command.text):
                yield warn(
                    f"{command.text!r} looks like a regular expression; the only wildcards are * and ?",
                    "options.commands",
                )
        for login in role.logins:
            if "@" in login and not is_wildcard(login):
                yield warn(f"{login!r} contains @; list hosts in hosts, and only accounts here", "logins")
        wildcard = next((login for login in role.logins if is_wildcard(login)), None)
        if wildcard is not None and role.deny_logins:
            yield warn(
                f"{wildcard!r} allows all other names, also another name of a denied account (toor for root);"
                " list the allowed logins instead", "deny.logins",
            )  # fmt: skip
        if role.options.commands is not None and not role.options.opens("exec"):
            yield warn("has no effect: exec is no", "options.commands")
        if role.direct and not fits_in_certificate(role):
            yield warn(
                "has no effect: this role has restrictions that a certificate cannot enforce (commands, "
                "approval, a second factor for each session, or an option set to no). Remove direct, or "
                "these restrictions", "options.direct",
            )  # fmt: skip
        for user in holders:
            approvers = role.options.approval
            if approvers and not _can_approve([approvers], user, users, roles, now):
                yield warn(f"no other user can approve the requests of {user.name}", "options.approval")


def _unrecorded(config: Config) -> Iterator[ConfigError]:
    """Settings that do not work where sessions pass through: the proxy sees no login and asks nobody."""
    if config.session_recording.records:
        return
    for role in config.roles.values():
        if role.deny_logins:
            text = "has no effect: with session_recording off or node the proxy does not see the login"
            line = role.line("deny.logins") or None
            yield ConfigError(f"roles.{role.name}.deny.logins", text, line)
        if role.options.approval:
            text = (
                "with session_recording off or node, users have to request the approval in advance:"
                " ssh proxy request"
            )
            line = role.line("options.approval") or None
            yield ConfigError(f"roles.{role.name}.options.approval", text, line)


def _can_approve(
    needed: Sequence[frozenset[str]],
    user: ConfiguredUser,
    users: Mapping[str, ConfiguredUser],
    roles: Mapping[str, Role],
    now: datetime,
) -> bool:
    """Whether another user has a role of each set."""
    others = (_current_roles(other, roles, now) for other in users.values() if other.name != user.name)
    return any(all(some & held for some in needed) for held in others)


def _current_roles(user: ConfiguredUser, roles: Mapping[str, Role], now: datetime) -> set[str]:
    """The roles of a user that have not ended."""
    return {name for name in user.roles if not _has_ended(roles[name], user, now)}


_DENIED = "it is denied, because deny has priority"


def _denied_allows(role: Role, warn: Callable[[str, str], ConfigError]) -> Iterator[ConfigError]:
    """Allowed hosts and logins that the same role certainly denies."""
    for pattern, deny in _denied_hosts(role, role):
        problem = warn(
            f"{str(pattern)!r} is allowed and denied ({str(deny)!r}): {_DENIED}. Remove one of them", "hosts"
        )
        yield ConfigError(problem.path, problem.problem, pattern.line or problem.line)
    for login in _denied_logins(role, role):
        yield warn(f"{login!r} is allowed and denied: {_DENIED}. Remove one of them", "logins")


def _denied_hosts(role: Role, by: Role) -> Iterator[tuple[HostPattern, HostPattern]]:
    for pattern in role.hosts:
        if deny := next((deny for deny in by.deny_hosts if covers(deny, pattern)), None):
            yield pattern, deny


def _denied_logins(role: Role, by: Role) -> Iterator[str]:
    return (login for login in role.logins if any(covers_login(deny, login) for deny in by.deny_logins))


def covers(wide: HostPattern, narrow: HostPattern) -> bool:
    """Whether ``wide`` certainly matches every host that ``narrow`` matches."""
    if wide.port not in (None, narrow.port):
        return False
    if wide.network is None and _is_any(wide):
        return True
    if wide.network is not None:
        return (
            narrow.network is not None
            and wide.network.version == narrow.network.version
            and narrow.network.network_address in wide.network
            and narrow.network.prefixlen >= wide.network.prefixlen
        )
    if narrow.name is None or wide.name is None:
        return False
    # Only a * of the wide pattern certainly covers everything that a * of the narrow one stands for.
    parts = (_WIDE.get(letter, re.escape(letter)) for letter in _name_of(wide))
    return re.fullmatch("".join(parts), _name_of(narrow)) is not None


def _name_of(pattern: HostPattern) -> str:
    """The name pattern, without the port."""
    return pattern.text.strip().partition(":")[0].lower().removesuffix(".")


def _is_any(pattern: HostPattern) -> bool:
    """Whether the pattern matches every name, or every IPv4 or IPv6 address."""
    if pattern.network is not None:
        return pattern.network.prefixlen == 0
    return pattern.name is None or set(_name_of(pattern)) == {"*"}


# -- users


def _users(
    users: Mapping[str, ConfiguredUser], roles: Mapping[str, Role], now: datetime
) -> Iterator[ConfigError]:
    owners: dict[bytes, str] = {}
    names: dict[str, str] = {}
    for user in users.values():
        path, line = f"users.{user.name}", user.line or None
        if (other := names.setdefault(folded(user.name), user.name)) != user.name:
            text = (
                f"differs from {other} only in case or accents: locking one also locks the other; rename one"
            )
            yield ConfigError(path, text, line)
        for key in user.keys:
            if (owner := owners.setdefault(key.blob, user.name)) != user.name:
                text = (
                    f"the key {fingerprint(key.blob)} also belongs to {owner}: either can log in as the other"
                )
                yield ConfigError(path, text, line)
        for role, end in user.ends.items():
            if end <= now:
                yield ConfigError(f"{path}.roles", f"the grant of role {role} has ended; remove it", line)
        lasting = [name for name in user.roles if not _has_ended(roles[name], user, now)]
        for name, other in permutations(lasting, 2):
            denied = [str(pattern) for pattern, _ in _denied_hosts(roles[name], roles[other])]
            denied += _denied_logins(roles[name], roles[other])
            if denied:
                text = f"role {name} allows {', '.join(denied)}, and role {other} denies it: {_DENIED}"
                yield ConfigError(f"{path}.roles", text, line)
        needed = [approvers for name in lasting if (approvers := roles[name].options.approval)]
        each = all(_can_approve([approvers], user, users, roles, now) for approvers in needed)
        if len(set(needed)) > 1 and each and not _can_approve(needed, user, users, roles, now):
            required = " and ".join(" or ".join(sorted(approvers)) for approvers in dict.fromkeys(needed))
            text = f"if several roles apply, an approver needs {required}, and no other user has these roles"
            yield ConfigError(f"{path}.roles", text, line)
        requiring = [name for name in user.roles if roles[name].options.require_mfa is not Mfa.NO]
        if requiring and not has_second_factor(user):
            text = (
                f"role {requiring[0]} requires a second factor, but the user has neither totp nor a hardware"
                f" key (sk-…); create one with: conchrec passwd --totp-only {user.name}"
            )
            yield ConfigError(path, text, line)


def has_second_factor(user: ConfiguredUser) -> bool:
    """Whether the configuration has a TOTP secret or a hardware key of the user."""
    return bool(user.totp) or any(is_hardware(key.blob) for key in user.keys)


def _has_ended(role: Role, user: ConfiguredUser, now: datetime) -> bool:
    return any(end is not None and end <= now for end in (role.expires, user.ends.get(role.name)))


# -- groups of targets


def _groups(config: Config, vouches: Callable[[TargetRule], bool]) -> Iterator[ConfigError]:
    for number, group in enumerate(config.targets):
        path, line = f"targets.{group.name}", _line(group.hosts)
        checks = config.proxy_checks_host_keys if group.check_host_keys is None else group.check_host_keys
        if checks and not vouches(group):
            text = (
                "no known_hosts file has keys of these hosts, so each needs a host certificate:"
                " conchrec ca sign-host"
            )
            yield ConfigError(path, text, line)
        before = [pattern for other in config.targets[:number] for pattern in other.hosts]
        if group.hosts and all(any(covers(wide, narrow) for wide in before) for narrow in group.hosts):
            text = "has no effect: groups before it match all its hosts, and the first match counts"
            yield ConfigError(path, text, line)


def _line(patterns: Sequence[HostPattern]) -> int | None:
    return patterns[0].line or None if patterns else None
