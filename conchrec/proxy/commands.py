"""What a user can ask the proxy itself, with nothing but ``ssh``: text in, text out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from conchrec import __version__
from conchrec.access import policy
from conchrec.access.checkers import fingerprint
from conchrec.model import Identity
from conchrec.proxy.refusal import one_line
from conchrec.proxy.site import Site


class Unknown(Exception):
    """Not a command, or not used like that; one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, and from where."""

    site: Site
    identity: Identity
    source: str
    address: str


def answer(asking: Asking, line: str) -> str:
    """The text that answers ``line``; ends in a newline. Raises Unknown."""
    try:
        words = shlex.split(line)
    except ValueError:
        raise Unknown("the quotes in this command do not match") from None
    if not words:
        return who(asking)
    command = COMMANDS.get(words[0])
    if command is None:
        raise Unknown(f"unknown command {one_line(words[0], 40)!r}; there are: {', '.join(COMMANDS)}")
    if len(words) > 1:
        raise Unknown(f"the command {words[0]} takes no arguments")
    return command(asking)


def who(asking: Asking) -> str:
    """Who I am, where I may go, and how."""
    identity = asking.identity
    lines = [f"You are {identity.user}, from {asking.address}."]
    key = fingerprint(identity.key) if identity.key else ""
    if identity.by_certificate:
        lines.append(f"You came with a user certificate for the key {key}.")
    elif key:
        lines.append(f"You came with the key {key}.")
    if identity.expires is not None:
        lines.append(f"That is good until {identity.expires:%Y-%m-%d %H:%M} UTC.")
    lines += ["", *_reach(asking), "", *_how(asking), "", "More: help"]
    return "\n".join(lines) + "\n"


def hosts(asking: Asking) -> str:
    """Where I may go."""
    return "\n".join(_reach(asking)) + "\n"


def status(asking: Asking) -> str:
    """The proxy, and what I have open on it."""
    site, user = asking.site, asking.identity.user
    mine = [live for live in site.live if live.identity.user == user]
    up = timedelta(seconds=int((site.now() - site.started).total_seconds()))
    return "\n".join(
        [
            f"conchrec {__version__}, cluster {site.config.cluster_name}, up {up}",
            f"session_recording: {site.config.session_recording.value}",
            f"your connections: {len(mine)}; your sessions: {sum(live.session_count for live in mine)}",
        ]
    ) + "\n"


def help_(asking: Asking) -> str:
    """The commands, and the ways to a target."""
    table = [f"  {name:<8} {(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()]
    return "\n".join(["Commands (ssh -p PORT you@proxy COMMAND):", *table, "", *_how(asking)]) + "\n"


COMMANDS: dict[str, Callable[[Asking], str]] = {"hosts": hosts, "status": status, "help": help_}


def _reach(asking: Asking) -> list[str]:
    found = policy.reachable(asking.site.config.policy, asking.identity, asking.source)
    if not found:
        return ["No role of yours leads to any host."]
    lines = ["You may log in:"]
    for reach in found:
        place = "" if reach.from_here else "  (but not from where you are now)"
        lines.append(f"  role {reach.role}: as {_some(reach.logins)} on {_some(reach.hosts)}{place}")
        if reach.denied_hosts:
            lines.append(f"    never on {_some(reach.denied_hosts)}")
        if reach.denied_logins:
            lines.append(f"    never as {_some(reach.denied_logins)}")
    return lines


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(one_line(name, 80) for name in names) or "nobody"


def _how(asking: Asking) -> list[str]:
    public = asking.site.config.public
    user = asking.identity.user
    proxy = f"{user}@{public}" if public is not None else f"{user}@PROXY"
    recorded = asking.site.config.session_recording.records
    return [
        "How to go there:",
        f"  ssh -A -J {proxy} LOGIN@HOST",
        f"  scp -A -o ProxyJump={proxy} FILE LOGIN@HOST:",
        "Sessions are recorded." if recorded else "This proxy passes sessions through and records none.",
    ]
