"""Commands about the user's own access: overview (no command), ``login``, ``sign``, ``hosts``, ``status``."""

from __future__ import annotations

from datetime import datetime, timedelta

from conchrec import __version__
from conchrec.access import policy
from conchrec.access.credentials import fingerprint
from conchrec.access.options import VisibleRecordings
from conchrec.model import Identity
from conchrec.proxy.commands import certificate as commands_certificate
from conchrec.proxy.commands import recordings
from conchrec.proxy.commands.command_request import CommandRequest
from conchrec.ssh.agent import AgentError
from conchrec.ssh.certificate import Certificate, decode
from conchrec.ssh.certificate_text import listing
from conchrec.text import one_line


async def overview(request: CommandRequest) -> str:
    """Show who I am, what my roles allow, and how to connect."""
    lines = [*_identity(request), "", *_reach(request), "", *connection_help(request), *_recorded(request)]
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
    return "\n".join([*lines, "", *connection_help(request)]) + "\n"


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
    visible = recordings.viewable_recordings(request)
    if visible is VisibleRecordings.NONE:
        return []
    which = "your" if visible is VisibleRecordings.OWN else "all"
    return [f"You may view {which} recordings: recordings, play ID, text ID, follow ID."]


def _some(names: tuple[str, ...]) -> str:
    """The names as a list in a sentence."""
    return ", ".join(one_line(name, 80) for name in names) or "none"


def connection_help(request: CommandRequest) -> list[str]:
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
