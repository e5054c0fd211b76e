"""``conchrec ssh-config``: what a user puts into ~/.ssh/config and known_hosts."""

from __future__ import annotations

import argparse
import fnmatch
import re
import socket
from typing import TYPE_CHECKING, TextIO

from conchrec.ca.authority import CaKind
from conchrec.config.loader import Config
from conchrec.keys import open_authority
from conchrec.model import Target

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

_ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  these are looked for, not listened on
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DOMAIN = re.compile(r"[A-Za-z0-9*?._:-]+(,[A-Za-z0-9*?._:-]+)*")


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("ssh-config", help="what users put into ~/.ssh/config and known_hosts")
    parser.add_argument(
        "--name", type=_alias, default="proxy", help="what to call the proxy (default: proxy)"
    )
    parser.add_argument("--user", metavar="NAME", help="the user (default: the only one that there is)")
    parser.add_argument(
        "--domain", type=_domain, default="*", metavar="PATTERN",
        help="the hosts that our host CA is believed for, like '*.example.com' (default: all)",
    )  # fmt: skip
    parser.set_defaults(command=command)


def command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    authority = open_authority(config)
    for path in authority.created:
        print(f"conchrec: made {path}", file=err)
    user = args.user or (next(iter(config.users)) if len(config.users) == 1 else "")
    lines = authority.public_lines(CaKind.HOST)
    out.write(snippet(config, authorities=lines, name=args.name, user=user, domain=args.domain))
    return 0


def snippet(
    config: Config, *, authorities: str, name: str = "proxy", user: str = "", domain: str = "*"
) -> str:
    """Both, with a comment before each. ``authorities`` are the public key lines of the host CA."""
    proxy = _proxy(config)
    hosts = _hosts(domain, proxy)
    jump = domain if domain != "*" else "web1 web2"
    lines = [
        "# ~/.ssh/config",
        f"Host {name}",
        f"    HostName {proxy.host}",
        f"    Port {proxy.port}",
        f"    User {user}" if user else "    # User YOUR-NAME",
        "    ForwardAgent yes",
        "# Then: ssh -J " + name + " root@web1. Or always, for some hosts:",
        f"#Host {jump.replace(',', ' ')}",
        f"#    ProxyJump {name}",
        "",
        "# ~/.ssh/known_hosts",
        *(f"@cert-authority {hosts} {line}" for line in authorities.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def _proxy(config: Config) -> Target:
    """Where users find it: ``public_address``, or what the first TCP endpoint says."""
    if config.public is not None:
        return config.public
    for endpoint in config.listen:
        kind, _, rest = endpoint.partition(":")
        port = re.match(r"(?:port=)?([0-9]+)", rest)
        if kind == "tcp" and port is not None:
            interface = re.search(r"(?:^|:)interface=((?:\\:|[^:])*)", rest)
            host = interface[1].replace("\\:", ":") if interface else ""
            return Target(host=socket.gethostname() if host in _ANYWHERE else host, port=int(port[1]))
    return Target(host=socket.gethostname(), port=3023)


def _hosts(domain: str, proxy: Target) -> str:
    """The patterns of the line: those that were asked for, and the proxy itself."""
    covered = any(fnmatch.fnmatchcase(proxy.host, pattern) for pattern in domain.split(","))
    return domain if covered else f"{domain},{proxy.host}"


def _alias(text: str) -> str:
    if not _ALIAS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name")
    return text


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pattern of hosts, like '*.example.com'")
    return text
