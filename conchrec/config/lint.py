"""What is probably a mistake in who may go where, for ``conchrec config check``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import permutations

from conchrec.access.certificate_contents import can_be_said
from conchrec.access.login_names import covers as covers_login
from conchrec.access.login_names import folded, is_wildcard
from conchrec.access.options import Mfa
from conchrec.access.patterns import HostPattern
from conchrec.access.role import Role
from conchrec.config.model import Config, ConfiguredUser, TargetRule
from conchrec.errors import ConfigError
from conchrec.ssh.certificate import fingerprint, is_hardware

#: What is not in a pattern of commands, but in a regular expression.
_LIKE_AN_EXPRESSION = re.compile(r"^\^|\$$|\([^()]*\|")
_WIDE = {"*": ".*", "?": "[^*]"}


def warnings(config: Config, now: datetime, vouches: Callable[[TargetRule], bool]) -> list[ConfigError]:
    """In the order of the file. ``vouches``: does anything but our host CA vouch for this group's keys?"""
    found = [
        *_roles(config.roles, config.users, now),
        *_unrecorded(config),
        *_users(config.users, config.roles, now),
        *_groups(config, vouches),
    ]
    return sorted(found, key=lambda one: (one.line or 0, one.path))


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
            yield warn("nobody has this role")
        if any(_is_any(pattern) for pattern in role.hosts) and any(set(one) == {"*"} for one in role.logins):
            yield warn("every login at every host: is that meant?", "hosts")
        yield from _swallowed(role, warn)
        if role.expires is not None and role.expires <= now:
            yield warn("has ended: the role counts for nobody", "options.expires")
        if role.times == ():
            yield warn("is empty: the role never counts", "options.times")
        if role.source == ():
            yield warn("is empty: nobody can come from there", "options.source")
        if role.options.commands == ():
            yield warn("is empty: no command can be run", "options.commands")
        for command in role.options.commands or ():
            if _LIKE_AN_EXPRESSION.search(command.text):
                yield warn(
                    f"{command.text!r} is no regular expression: of wildcards there are * and ?",
                    "options.commands",
                )
        for login in role.logins:
            if "@" in login and not is_wildcard(login):
                yield warn(f"{login!r}: a login is a name, and hosts are named in hosts", "logins")
        wide = next((login for login in role.logins if is_wildcard(login)), None)
        if wide is not None and role.deny_logins:
            yield warn(
                f"{wide!r} allows every name but those: another name of the same account (toor for root) is "
                "not denied; list the logins instead", "deny.logins",
            )  # fmt: skip
        if role.options.commands is not None and not role.options.opens("exec"):
            yield warn("exec: no, so none of these commands can be run", "options.commands")
        if role.direct and not can_be_said(role):
            yield warn(
                "names no logins: a certificate can not say what else this role says (commands, approval, "
                "a second factor for each session, a switch that is shut)", "options.direct",
            )  # fmt: skip
        for user in holders:
            approvers = role.options.approval
            if approvers and not _can_approve([approvers], user, users, roles, now):
                yield warn(f"nobody else can approve what {user.name} asks for", "options.approval")


def _unrecorded(config: Config) -> Iterator[ConfigError]:
    """Where nothing is recorded, nobody can be asked, and no login is seen."""
    if config.session_recording.records:
        return
    for role in config.roles.values():
        if role.deny_logins:
            text = "session_recording is off or node: the proxy does not see as whom a user logs in"
            line = role.line("deny.logins") or None
            yield ConfigError(f"roles.{role.name}.deny.logins", text, line)
        if role.options.approval:
            text = "session_recording is off or node: only a request in advance (ssh proxy request) will do"
            line = role.line("options.approval") or None
            yield ConfigError(f"roles.{role.name}.options.approval", text, line)


def _can_approve(
    needed: Sequence[frozenset[str]],
    user: ConfiguredUser,
    users: Mapping[str, ConfiguredUser],
    roles: Mapping[str, Role],
    now: datetime,
) -> bool:
    """Is there somebody else who has a role of each?"""
    others = (_lasting(other, roles, now) for other in users.values() if other.name != user.name)
    return any(all(some & held for some in needed) for held in others)


def _lasting(user: ConfiguredUser, roles: Mapping[str, Role], now: datetime) -> set[str]:
    """Their roles that have not ended."""
    return {name for name in user.roles if not _has_ended(roles[name], user, now)}


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
    return (login for login in role.logins if any(covers_login(deny, login) for deny in by.deny_logins))


def covers(wide: HostPattern, narrow: HostPattern) -> bool:
    """Is every place of ``narrow`` certainly one of ``wide``?"""
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
    # What a * of the narrow one stands for only a * of the wide one certainly covers.
    parts = (_WIDE.get(letter, re.escape(letter)) for letter in _name_of(wide))
    return re.fullmatch("".join(parts), _name_of(narrow)) is not None


def _name_of(pattern: HostPattern) -> str:
    """Without the port."""
    return pattern.text.strip().partition(":")[0].lower().removesuffix(".")


def _is_any(pattern: HostPattern) -> bool:
    """Any name, or any address of a kind."""
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
            yield ConfigError(path, f"is spelled almost like {other}: a lock of one is a lock of both", line)
        for key in user.keys:
            if (owner := owners.setdefault(key.blob, user.name)) != user.name:
                text = f"the key {fingerprint(key.blob)} is one of {owner}, too: nobody can tell them apart"
                yield ConfigError(path, text, line)
        for role, end in user.ends.items():
            if end <= now:
                yield ConfigError(f"{path}.roles", f"the grant of {role} has ended", line)
        lasting = [name for name in user.roles if not _has_ended(roles[name], user, now)]
        for name, other in permutations(lasting, 2):
            denied = [str(pattern) for pattern, _ in _denied_hosts(roles[name], roles[other])]
            denied += _denied_logins(roles[name], roles[other])
            if denied:
                text = f"role {name} allows {', '.join(denied)}, and role {other} denies it: the deny wins"
                yield ConfigError(f"{path}.roles", text, line)
        needed = [some for name in lasting if (some := roles[name].options.approval)]
        alone = all(_can_approve([some], user, users, roles, now) for some in needed)
        if len(set(needed)) > 1 and alone and not _can_approve(needed, user, users, roles, now):
            said = " and ".join(" or ".join(sorted(some)) for some in dict.fromkeys(needed))
            text = f"where several of the roles count, one person has to be {said}, and nobody else is"
            yield ConfigError(f"{path}.roles", text, line)
        requiring = [name for name in user.roles if roles[name].options.require_mfa is not Mfa.NO]
        if requiring and not has_second_factor(user):
            text = f"role {requiring[0]} requires a second factor, and there is neither totp nor an sk- key"
            yield ConfigError(path, text, line)


def has_second_factor(user: ConfiguredUser) -> bool:
    """As far as the configuration knows."""
    return bool(user.totp) or any(is_hardware(key.blob) for key in user.keys)


def _has_ended(role: Role, user: ConfiguredUser, now: datetime) -> bool:
    return any(end is not None and end <= now for end in (role.expires, user.ends.get(role.name)))


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
