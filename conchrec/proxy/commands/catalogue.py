"""The list of commands that users give to the proxy with ``ssh``, and those about the user's own access."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred

from conchrec import __version__
from conchrec.access import policy
from conchrec.access.credentials import fingerprint
from conchrec.access.options import Sees
from conchrec.model import Identity
from conchrec.proxy.commands import approvals, recordings
from conchrec.proxy.commands import certificate as commands_certificate
from conchrec.proxy.commands.request import CommandRequest, UsageError
from conchrec.ssh.agent import AgentError
from conchrec.ssh.certificate import Certificate, decode
from conchrec.ssh.certificate_text import listing
from conchrec.text import one_line, quote
from conchrec.yaml_cursor import parse_duration

#: The longest command line, in characters.
MAX_LINE = 4096

#: Returns the output, which ends in a newline; empty if it is on the console already. Raises ConchrecError.
#: The first line of its docstring is what ``help`` prints.
Command = Callable[[CommandRequest], Coroutine[Deferred[Any], Any, str]]


async def run_command(request: CommandRequest, line: str) -> str:
    """Run the command in ``line``, and return its output. Raises UsageError, and ConchrecError."""
    if len(line) > MAX_LINE:
        raise UsageError(f"command too long: {len(line)} characters, at most {MAX_LINE}")
    try:
        words = shlex.split(line)
    except ValueError:
        raise UsageError(
            "invalid command: a quote is not closed, or the command ends with a backslash"
        ) from None
    if not words:
        return await overview(request)
    name, *arguments = words
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"unknown command {quote(name, 40)}. Commands: {', '.join(COMMANDS)}")
    if arguments and command in WITH_TTL:
        request = replace(request, ttl=_parse_ttl(name, arguments))
    elif command in WITH_WORDS:
        request = replace(request, words=tuple(arguments))
    elif arguments:
        raise UsageError(f"{name}: takes no arguments")
    return await command(request)


def _parse_ttl(name: str, arguments: list[str]) -> timedelta:
    """Parse ``--ttl 8h`` or ``--ttl=8h``. Raises UsageError."""
    option, _, text = arguments[0].partition("=")
    others = arguments[1:]
    if "=" not in arguments[0] and others:
        text, *others = others
    if option != "--ttl" or others:
        raise UsageError(f"{name}: the only argument is --ttl DURATION, for example --ttl 8h")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None


async def overview(request: CommandRequest) -> str:
    """Show who I am, what my roles allow, and how to connect."""
    lines = [*_identity(request), "", *_reach(request), "", *_how(request), *_recorded(request)]
    lines += ["", "All commands: help"]
    return "\n".join(lines) + "\n"


async def login(request: CommandRequest) -> str:
    """Put a new key and its certificate into your agent: ssh -A … login [--ttl 8h]"""
    certificate, granted = await commands_certificate.add_to_agent(request)
    use = "Use it to log in to this proxy; targets do not accept it."
    if granted.logins:
        logins = _some(granted.logins)
        use = f"Targets that trust the user CA accept it without the proxy too, unrecorded, as {logins}."
    name, until = commands_certificate.comment(request.identity.user), _until(request, certificate.expires)
    lines = [
        f"Your agent now holds a certificate, valid until {until}.",
        f"ssh-add -L shows it as {name}. {use}",
    ]
    return "\n".join([*lines, "", *_how(request)]) + "\n"


async def sign(request: CommandRequest) -> str:
    """Issue a certificate for your public key: ssh … sign [--ttl 8h] < key.pub > key-cert.pub"""
    return await commands_certificate.sign_key(request)


async def hosts(request: CommandRequest) -> str:
    """List the hosts and logins that my roles allow."""
    return "\n".join(_reach(request)) + "\n"


async def status(request: CommandRequest) -> str:
    """Show my certificate, my roles, my open sessions, and the proxy's version."""
    user = request.identity.user
    connections = request.context.registry.connections_of(user)
    sessions = sum(live.session_count for live in connections)
    up = timedelta(seconds=int((request.services.now() - request.services.started).total_seconds()))
    lines = [
        f"conchrec {__version__}, cluster {request.settings.config.cluster_name}, up {up}",
        f"session_recording: {request.settings.config.session_recording.value}",
        f"your connections: {len(connections)}; your sessions: {sessions}",
        "",
        *_identity(request),
    ]
    own = request.identity.certificate
    if own is not None:
        lines += _listing(decode(own))
    for certificate in await _in_agent(request):
        if certificate.blob != own:
            lines.append(f"In your agent, valid until {_until(request, certificate.expires)}:")
            lines += _listing(certificate)
    return "\n".join([*lines, "", *_reach(request)]) + "\n"


async def help_(request: CommandRequest) -> str:
    """Show the commands, and how to connect to a target."""
    table = [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(["Commands (ssh -p PORT you@proxy COMMAND):", *table, "", *_how(request)]) + "\n"


COMMANDS: dict[str, Command] = {
    "login": login,
    "sign": sign,
    "status": status,
    "hosts": hosts,
    "recordings": recordings.recordings,
    "play": recordings.play,
    "text": recordings.text,
    "follow": recordings.follow,
    "request": approvals.request_access,
    "requests": approvals.list_requests,
    "approve": approvals.approve,
    "deny": approvals.deny,
    "help": help_,
}
WITH_TTL: tuple[Command, ...] = (login, sign)
WITH_WORDS: tuple[Command, ...] = (
    recordings.recordings,
    recordings.play,
    recordings.text,
    recordings.follow,
    approvals.request_access,
    approvals.list_requests,
    approvals.approve,
    approvals.deny,
)


def _identity(request: CommandRequest) -> list[str]:
    """The lines about the user's login."""
    identity: Identity = request.identity
    roles = ", ".join(identity.roles) or "none"
    lines = [f"You are {identity.user}, from {request.address}; roles: {roles}."]
    key = fingerprint(identity.key) if identity.key else ""
    if identity.by_certificate:
        lines.append(f"You logged in with a user certificate for the key {key}.")
    elif key:
        lines.append(f"You logged in with the key {key}.")
    if identity.second_factor:
        proved = "a code" if identity.second_factor == "totp" else "a touch of your hardware key"
        lines.append(f"Your second factor was {proved}.")
    if identity.expires is not None:
        lines.append(f"Your login is valid until {_until(request, identity.expires)}.")
    return lines


async def _in_agent(request: CommandRequest) -> tuple[Certificate, ...]:
    """Our certificates in the user's agent; none where the agent does not answer."""
    try:
        return await commands_certificate.certificates_in_agent(request)
    except AgentError:
        return ()


def _listing(certificate: Certificate) -> list[str]:
    return [one_line(line) for line in listing(certificate)]


def _until(request: CommandRequest, end: datetime | None) -> str:
    """``2026-11-24 08:00:00 UTC (7h 59m left)``; a certificate that was made by hand may have no end."""
    if end is None:
        return "it is revoked"
    seconds = max(0, int((end - request.services.now()).total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if seconds < 60:
        left = f"{seconds}s"
    elif seconds < 86400:
        left = f"{hours}h {minutes}m" if hours else f"{minutes}m"
    else:
        left = f"{days}d {hours}h"
    return f"{end:%Y-%m-%d %H:%M:%S} UTC ({left} left)"


def _reach(request: CommandRequest) -> list[str]:
    """The lines about what each role allows."""
    reaches = policy.reachable(
        request.settings.policy, request.identity, request.source, request.services.now()
    )
    if not reaches:
        return ["None of your roles allows any host. Ask your administrator."]
    lines = ["You may log in:"]
    for reach in reaches:
        limits = "" if reach.from_here else "  (not from your present address)"
        limits += "" if reach.at_this_time else "  (not at this time)"
        lines.append(f"  role {reach.role}: as {_some(reach.logins)} on {_some(reach.hosts)}{limits}")
        if reach.denied_hosts:
            lines.append(f"    never on {_some(reach.denied_hosts)}")
        if reach.denied_logins:
            lines.append(f"    never as {_some(reach.denied_logins)}")
    return lines


def _recorded(request: CommandRequest) -> list[str]:
    """The line about the recordings that the user may view."""
    sees = recordings.viewable_recordings(request)
    if sees is Sees.NONE:
        return []
    which = "your" if sees is Sees.OWN else "all"
    return [f"You may view {which} recordings: recordings, play ID, text ID, follow ID."]


def _some(names: tuple[str, ...]) -> str:
    """The names as a list in a sentence."""
    return ", ".join(one_line(name, 80) for name in names) or "none"


def _how(request: CommandRequest) -> list[str]:
    """The lines about how to connect to a target."""
    public = request.settings.config.public
    user = request.identity.user
    proxy = f"{user}@{public}" if public is not None else f"{user}@PROXY"
    recorded = request.settings.config.session_recording.records
    return [
        "How to connect:",
        f"  ssh -A -J {proxy} LOGIN@HOST",
        f"  scp -A -o ProxyJump={proxy} FILE LOGIN@HOST:",
        "Sessions are recorded." if recorded else "Sessions are not recorded.",
    ]
