"""``conchrec ssh-config``: prints the lines for a user's ~/.ssh/config and known_hosts."""

from __future__ import annotations

import argparse
import fnmatch
import re
import socket
from typing import TextIO

from conchrec.ca.authority import CaKind
from conchrec.config.loader import Config
from conchrec.keys import open_authority
from conchrec.model import Target

_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  these are recognized, not listened on


def command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Print the lines. Missing keys of the authorities are created."""
    authority = open_authority(config)
    for path in authority.created:
        print(f"conchrec: created {path}", file=err)
    user = args.user or (next(iter(config.users)) if len(config.users) == 1 else "")
    lines = authority.public_lines(CaKind.HOST)
    out.write(snippet(config, authorities=lines, name=args.name, user=user, domain=args.domain))
    return 0


def snippet(
    config: Config, *, authorities: str, name: str = "proxy", user: str = "", domain: str = "*"
) -> str:
    """The lines of both files, each part after a comment.

    ``authorities`` are the public key lines of the host CA.
    """
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
        f"# Log in with: ssh -J {name} root@web1. To use the proxy for some hosts always:",
        f"#Host {jump.replace(',', ' ')}",
        f"#    ProxyJump {name}",
        "",
        "# ~/.ssh/known_hosts",
        *(f"@cert-authority {hosts} {line}" for line in authorities.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def _proxy(config: Config) -> Target:
    """The address of the proxy: ``public_address``, or that of the first TCP endpoint."""
    if config.public is not None:
        return config.public
    for endpoint in config.listen:
        kind, _, rest = endpoint.partition(":")
        port = re.match(r"(?:port=)?([0-9]+)", rest)
        if kind == "tcp" and port is not None:
            interface = re.search(r"(?:^|:)interface=((?:\\:|[^:])*)", rest)
            host = interface[1].replace("\\:", ":") if interface else ""
            return Target(host=socket.gethostname() if host in _ANY_ADDRESS else host, port=int(port[1]))
    return Target(host=socket.gethostname(), port=3023)


def _hosts(domain: str, proxy: Target) -> str:
    """The patterns of the known_hosts line: those of ``domain``, and the proxy itself."""
    is_covered = any(fnmatch.fnmatchcase(proxy.host, pattern) for pattern in domain.split(","))
    return domain if is_covered else f"{domain},{proxy.host}"
