"""``decide`` once more, slowly: from what was written, by loops over everything, without conchrec's code."""

from __future__ import annotations

import fnmatch
import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SHUT = ("local_forwarding", "remote_forwarding", "streamlocal_forwarding", "x11_forwarding", "forward_agent")
OPEN = ("shell", "pty", "exec", "subsystem", "sftp", "scp", "unknown_requests", "nested_ssh")
WITHOUT_COMMANDS = ("shell", "subsystem", "sftp")
STRICTNESS = ("no", "login", "session")


@dataclass
class Written:
    """One role, as somebody would write it. ``hours``: from, to, every day, in UTC."""

    name: str
    logins: list[str]
    hosts: list[str]
    deny_hosts: list[str]
    deny_logins: list[str]
    source: list[str] | None
    hours: list[tuple[int, int]] | None
    ends: datetime | None
    switches: dict[str, bool]
    commands: list[str] | None
    max_sessions: int | None
    mfa: str
    approval: list[str]
    strict: bool


@dataclass
class Locked:
    kind: str
    name: str
    until: datetime | None


@dataclass
class World:
    """All facts of one decision."""

    roles: list[Written]
    grants: dict[str, datetime | None]
    locks: list[Locked]
    user: str
    factor: str
    host: str
    port: int
    addresses: list[str]
    login: str
    source: str
    now: datetime


@dataclass
class Answer:
    allowed: bool
    addresses: list[str] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)


def decide(world: World) -> Answer:
    no = Answer(False)
    for lock in world.locks:
        if lock.until is None or world.now < lock.until:
            if lock.kind == "user" and lock.name == world.user:
                return no
            if lock.kind == "target" and matches_name_or_address(lock.name, world):
                return no
            if lock.kind == "login" and login_matches(lock.name, world):
                return no
    held = []
    for role in world.roles:
        if role.name not in world.grants:
            continue
        end = world.grants[role.name]
        if end is not None and end <= world.now:
            continue
        if role.ends is not None and role.ends <= world.now:
            continue
        held.append(role)
    for role in held:
        for pattern in role.deny_hosts:
            if matches_name_or_address(pattern, world):
                return no
        for pattern in role.deny_logins:
            if login_matches(pattern, world):
                return no
    allowing: list[tuple[Written, list[str]]] = []
    for role in held:
        addresses = reached(role, world)
        if addresses is None or not is_here(role, world) or not is_now(role, world):
            continue
        if any(login_matches(pattern, world) for pattern in role.logins):
            allowing.append((role, addresses))
    if not allowing:
        return no
    dialled = [
        address for address in world.addresses if any(address in addresses for _, addresses in allowing)
    ]
    opening = [role for role, addresses in allowing if all(address in addresses for address in dialled)]
    options = together([role for role, _ in allowing], opening)
    if options["require_mfa"] != "no" and not world.factor:
        return no
    return Answer(True, dialled, options)


def together(limiting: list[Written], opening: list[Written]) -> dict[str, object]:
    options: dict[str, object] = {}
    for switch in (*SHUT, *OPEN):
        is_open = False
        for role in opening:
            if switch in role.switches:
                is_open |= role.switches[switch]
            elif switch in OPEN:
                is_open |= not (role.commands is not None and switch in WITHOUT_COMMANDS)
        for role in limiting:
            if role.switches.get(switch) is False:
                is_open = False
        options[switch] = is_open
    running = [role for role in opening if role.switches.get("exec", True)]
    if any(role.commands is None for role in running):
        options["commands"] = None
    else:
        named: list[str] = []
        for role in running:
            for command in role.commands or []:
                if command not in named:
                    named.append(command)
        options["commands"] = sorted(named)
    limits = [role.max_sessions for role in limiting if role.max_sessions is not None]
    options["max_sessions"] = min(limits) if limits else None
    options["require_mfa"] = STRICTNESS[max(STRICTNESS.index(role.mfa) for role in limiting)]
    options["strict"] = any(role.strict for role in limiting)
    options["approval"] = sorted({tuple(sorted(role.approval)) for role in limiting if role.approval})
    return options


def is_here(role: Written, world: World) -> bool:
    if role.source is None:
        return True
    return any(ipaddress.ip_address(world.source) in ipaddress.ip_network(network) for network in role.source)


def is_now(role: Written, world: World) -> bool:
    if role.hours is None:
        return True
    midnight = world.now.replace(hour=0, minute=0, second=0, microsecond=0)
    for begin, end in role.hours:
        for day in (midnight - timedelta(days=1), midnight):
            hours = end - begin if end > begin else end - begin + 24
            since = day + timedelta(hours=begin)
            if since <= world.now < since + timedelta(hours=hours):
                return True
    return False


def login_matches(pattern: str, world: World) -> bool:
    if pattern == "{user}":
        return world.login == world.user
    return fnmatch.fnmatchcase(world.login, pattern)


def split(pattern: str) -> tuple[str, int | None]:
    host, colon, port = pattern.partition(":")
    return (host, int(port)) if colon else (pattern, None)


def by_name(pattern: str, world: World) -> bool:
    host, port = split(pattern)
    if port not in (None, world.port):
        return False
    return host == "*" or (not host[0].isdigit() and fnmatch.fnmatchcase(world.host, host))


def by_address(pattern: str, address: str, world: World) -> bool:
    host, port = split(pattern)
    if port not in (None, world.port) or not host[0].isdigit():
        return False
    return ipaddress.ip_address(address) in ipaddress.ip_network(host)


def matches_name_or_address(pattern: str, world: World) -> bool:
    return by_name(pattern, world) or any(by_address(pattern, address, world) for address in world.addresses)


def reached(role: Written, world: World) -> list[str] | None:
    """The addresses that the role allows; None where it does not allow the host."""
    if any(by_name(pattern, world) for pattern in role.hosts):
        return list(world.addresses)
    covered = [
        address
        for address in world.addresses
        if any(by_address(pattern, address, world) for pattern in role.hosts)
    ]
    return covered or None
