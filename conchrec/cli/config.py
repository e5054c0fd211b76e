"""``conchrec config check``: every problem of the configuration, with its path and line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor

from conchrec.access.patterns import HostPattern
from conchrec.cli.rights import Rights
from conchrec.clock import utc_now
from conchrec.config.lint import warnings
from conchrec.config.loader import Config, ConfigErrors
from conchrec.config.model import TargetRule
from conchrec.errors import ConfigError
from conchrec.model import Target
from conchrec.ssh.known_hosts import KnownHosts

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

# What these say is about the process that will be started: it cannot be tried out here.
_OF_THE_PROCESS = ("systemd:", "haproxy:systemd", "fd:", "haproxy:fd")


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("config", help="look at the configuration")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    check = commands.add_parser("check", help="print every problem; exit 0 or 78")
    check.set_defaults(command=command, rights=Rights.INVOKER)


def command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """``main`` has read it: what is left is what the reactor would say, and what is worth knowing."""
    problems = [
        ConfigError(f"{setting}[{index}]", f"{endpoint!r} is no server endpoint: {problem}")
        for setting, endpoints in (("listen", config.listen), ("web.listen", config.web.listen))
        for index, endpoint in enumerate(endpoints)
        if (problem := _problem(endpoint))
    ]
    if problems:
        raise ConfigErrors(str(config.file), problems)
    for warning in (*config.warnings, *_lint(config)):
        print(f"warning: {warning}", file=err)
    print(f"{config.file}: ok", file=out)
    return 0


def _lint(config: Config) -> Iterator[str]:
    def vouches(group: TargetRule) -> bool:
        if config.trusted_hosts.authorities:
            return True
        files = (*group.known_hosts, *config.trusted_hosts.known_hosts)
        names = [pattern.text for pattern in group.hosts]
        if any(set("*?/") & set(name) for name in names):
            # Which hosts these are only the targets know.
            return any(path.is_file() and path.stat().st_size for path in files)
        known = KnownHosts.load(files)
        return all(known.lines_for(_target(name, group)) for name in names)

    found = warnings(config, utc_now(), vouches)
    return ConfigErrors(str(config.file), found).lines()


def _target(name: str, group: TargetRule) -> Target:
    """As the proxy goes there: with the group's port, where the name has none."""
    parsed = HostPattern.parse(name)
    bare = name.strip("[]") if parsed.port is None else name.rpartition(":")[0].strip("[]")
    return Target(host=bare.lower().removesuffix("."), port=parsed.port or group.port or 22)


def _problem(endpoint: str) -> str:
    if endpoint.startswith(_OF_THE_PROCESS):
        return ""
    try:
        serverFromString(MemoryReactor(), endpoint)
    except Exception as error:  # whatever a plugin's parser makes of it
        return str(error) or type(error).__name__
    return ""
