"""What is probably a mistake in who may go where, for ``conchrec config check``. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import permutations

from conchrec.access.grants import can_be_said
from conchrec.access.options import Mfa
from conchrec.access.patterns import HostPattern
from conchrec.access.policy import Role
from conchrec.errors import ConfigError
from conchrec.settings import Config, TargetRule, User
from conchrec.ssh.certificate import key_type_of, plain_type


def warnings(config: Config, now: datetime, vouches: Callable[[TargetRule], bool]) -> list[ConfigError]:
    """In the order of the file. ``vouches``: does anything but our host CA vouch for this group's keys?"""
    found = [
        *_roles(config.roles, config.users, now),
        *_users(config.users, config.roles, now),
        *_groups(config, vouches),
    ]
    return sorted(found, key=lambda one: (one.line or 0, one.path))


# -- roles


def _roles(roles: Mapping[str, Role], users: Mapping[str, User], now: datetime) -> Iterator[ConfigError]:
    for role in roles.values():
        path = f"roles.{role.name}"

        def warn(text: str, setting: str = "", role: Role = role, path: str = path) -> ConfigError:
            return ConfigError(f"{path}.{setting}" if setting else path, text, role.line(setting) or None)

        holders = [user for user in users.values() if role.name in user.roles]
        if not holders and not any(role.name in other.options.approval for other in roles.values()):
            yield warn("nobody has this role")
        if any(_is_any(pattern) for pattern in role.hosts) and "*" in role.logins:
            yield warn("every login at every host: is that meant?", "hosts")
        yield from _swallowed(role, warn)
        if role.expires is not None and role.expires <= now:
            yield warn("has ended: the role counts for nobody", "options.expires")
        if role.times == ():
            yield warn("is empty: the role never counts", "options.times")
        if role.source == ():
            yield warn("is empty: nobody can come from there", "options.source")
        if role.options.commands is not None and not role.options.opens("exec"):
            yield warn("exec: no, so none of these commands can be run", "options.commands")
        if role.direct and not can_be_said(role):
            yield warn(
                "names no logins: a certificate can not say what else this role says (commands, approval, "
                "a second factor for each session, a switch that is shut)", "options.direct",
            )  # fmt: skip
        for user in holders:
            approvers = role.options.approval
            if approvers and not any(
                other.name != user.name and approvers & set(other.roles) for other in users.values()
            ):
                yield warn(f"nobody else can approve what {user.name} asks for", "options.approval")


def _swallowed(role: Role, warn: Callable[[str, str], ConfigError]) -> Iterator[ConfigError]:
    """Allows that a deny of the same role takes back, as far as that is certain."""
    for pattern, deny in _denied_hosts(role, role):
        one = warn(f"{str(pattern)!r} is allowed and denied ({str(deny)!r}): the deny wins", "hosts")
        yield ConfigError(one.path, one.problem, pattern.line or one.line)
    for login in _denied_logins(role, role):
        yield warn(f"{login!r} is allowed and denied: the deny wins", "logins")


def _denied_hosts(role: Role, by: Role) -> Iterator[tuple[HostPattern, HostPattern]]:
    for pattern in role.hosts:
        if deny := next((deny for deny in by.deny_hosts if covers(deny, pattern)), None):
            yield pattern, deny


def _denied_logins(role: Role, by: Role) -> Iterator[str]:
    return (login for login in role.logins if any(_covers_login(deny, login) for deny in by.deny_logins))


def covers(wide: HostPattern, narrow: HostPattern) -> bool:
    """Is every place of ``narrow`` certainly one of ``wide``?"""
    if wide.port not in (None, narrow.port):
        return False
    if _is_any(wide):
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
    if wide.name.pattern == narrow.name.pattern:
        return True
    name = narrow.text.rpartition(":")[0] if narrow.port is not None else narrow.text
    return not set("*?") & set(name) and wide.name.match(name.lower().removesuffix(".")) is not None


def _covers_login(wide: str, narrow: str) -> bool:
    if wide in ("*", narrow):
        return True
    return not set("*?{") & set(narrow) and fnmatch.fnmatchcase(narrow, wide)


def _is_any(pattern: HostPattern) -> bool:
    return pattern.network is None and pattern.name is None


# -- users


def _users(users: Mapping[str, User], roles: Mapping[str, Role], now: datetime) -> Iterator[ConfigError]:
    for user in users.values():
        path = f"users.{user.name}"
        for role, end in user.ends.items():
            if end <= now:
                yield ConfigError(f"{path}.roles", f"the grant of {role} has ended", None)
        lasting = [name for name in user.roles if not _has_ended(roles[name], user, now)]
        for name, other in permutations(lasting, 2):
            denied = [str(pattern) for pattern, _ in _denied_hosts(roles[name], roles[other])]
            denied += _denied_logins(roles[name], roles[other])
            if denied:
                text = f"role {name} allows {', '.join(denied)}, and role {other} denies it: the deny wins"
                yield ConfigError(f"{path}.roles", text, None)
        requiring = [name for name in user.roles if roles[name].options.require_mfa is not Mfa.NO]
        if requiring and not user.totp and not any(_is_hardware(key.blob) for key in user.keys):
            text = f"role {requiring[0]} requires a second factor, and there is neither totp nor an sk- key"
            yield ConfigError(path, text, None)


def _has_ended(role: Role, user: User, now: datetime) -> bool:
    return any(end is not None and end <= now for end in (role.expires, user.ends.get(role.name)))


def _is_hardware(blob: bytes) -> bool:
    return plain_type(key_type_of(blob)).startswith(b"sk-")


# -- groups of targets


def _groups(config: Config, vouches: Callable[[TargetRule], bool]) -> Iterator[ConfigError]:
    for number, group in enumerate(config.targets):
        path, line = f"targets.{group.name}", _line(group.hosts)
        checks = config.proxy_checks_host_keys if group.check_host_keys is None else group.check_host_keys
        if checks and not vouches(group):
            text = "nothing vouches for its host keys but certificates of the host CA (conchrec ca sign-host)"
            yield ConfigError(path, text, line)
        before = [pattern for other in config.targets[:number] for pattern in other.hosts]
        if group.hosts and all(any(covers(wide, narrow) for wide in before) for narrow in group.hosts):
            yield ConfigError(path, "is hidden by the groups before it: the first that matches counts", line)


def _line(patterns: Sequence[HostPattern]) -> int | None:
    return patterns[0].line or None if patterns else None
