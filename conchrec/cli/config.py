"""``conchrec config check``: prints every problem of the configuration, with its setting and line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import TextIO

from conchrec.access.patterns import HostPattern
from conchrec.clock import utc_now
from conchrec.config.lint import warnings
from conchrec.config.loader import Config
from conchrec.config.model import TargetRule
from conchrec.errors import ConfigError, ConfigErrors
from conchrec.model import Target

#: Endpoints that use sockets of the future process: they cannot be tested here.
_INHERITED = ("systemd:", "haproxy:systemd", "fd:", "haproxy:fd")
#: The usual endpoint, which Twisted accepts. Twisted takes longer to import than all the rest of the check.
_PLAIN = re.compile(r"tcp:[0-9]{1,5}(:interface=[0-9A-Za-z.-]+)?")


def command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Check the endpoints with Twisted and print warnings. Raises ConfigErrors.

    Errors in the file itself were raised when ``main`` loaded it.
    """
    problems = [
        ConfigError(f"{setting}[{index}]", f"invalid endpoint {endpoint!r}: {problem}")
        for setting, endpoints in (("listen", config.listen), ("web.listen", config.web.listen))
        for index, endpoint in enumerate(endpoints)
        if (problem := _endpoint_problem(endpoint))
    ]
    if problems:
        raise ConfigErrors(str(config.file), problems)
    for warning in (*config.warnings, *_lint_warnings(config)):
        print(f"warning: {warning}", file=err)
    print(f"{config.file}: ok", file=out)
    return 0


def _lint_warnings(config: Config) -> Iterator[str]:
    def vouches(group: TargetRule) -> bool:
        if config.trusted_hosts.authorities:
            return True
        files = (*group.known_hosts, *config.trusted_hosts.known_hosts)
        names = [pattern.text for pattern in group.hosts]
        if any(set("*?/") & set(name) for name in names):
            # The hosts that a pattern matches are unknown here.
            return any(path.is_file() and path.stat().st_size for path in files)
        from conchrec.ssh.known_hosts import KnownHosts  # slow to import

        known_hosts = KnownHosts.load(files)
        return all(known_hosts.lines_for(_target(name, group)) for name in names)

    problems = warnings(config, utc_now(), vouches)
    return ConfigErrors(str(config.file), problems).lines()


def _target(name: str, group: TargetRule) -> Target:
    """The target that the proxy dials for a name: with the group's port, where the name has none."""
    parsed = HostPattern.parse(name)
    bare = name.strip("[]") if parsed.port is None else name.rpartition(":")[0].strip("[]")
    return Target(host=bare.lower().removesuffix("."), port=parsed.port or group.port or 22)


def _endpoint_problem(endpoint: str) -> str:
    """What Twisted says about an endpoint; empty where it accepts it."""
    if endpoint.startswith(_INHERITED) or _PLAIN.fullmatch(endpoint):
        return ""
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.testing import MemoryReactor

    try:
        serverFromString(MemoryReactor(), endpoint)
    except Exception as error:  # a plugin's parser may raise anything
        return str(error) or type(error).__name__
    return ""
