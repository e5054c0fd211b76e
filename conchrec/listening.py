"""Where users come in: a service for each endpoint of ``listen`` (Twisted's server endpoint descriptions)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.application import strports

from conchrec import haproxy
from conchrec.access.patterns import IPNetwork
from conchrec.errors import ConfigError

#: How many may wait to be taken in. With Twisted's 50 a crowd keeps everybody else waiting for seconds, since
#: whom the queue has no room for is heard when his system tries again.
BACKLOG = 1024


def listener(description: str, factory: Any, balancers: Sequence[IPNetwork], reactor: Any) -> Any:
    """A service that listens there; behind ``haproxy:`` for these balancers alone. ConfigError, or OSError
    where the system won't have it."""
    kind, _, rest = description.partition(":")
    if kind == "haproxy":
        return haproxy.service(reactor, with_backlog(rest), factory, balancers)
    try:
        return strports.service(with_backlog(description), factory, reactor)
    except OSError:
        raise
    except Exception as error:  # whatever a parser, or OpenSSL, makes of it
        problem = f"{description!r} is no server endpoint: {error or type(error).__name__}"
        raise ConfigError("listen", problem) from error


def arguments_of(description: str) -> tuple[str, list[str]]:
    """The kind and the arguments of an endpoint, still with their backslashes."""
    kind, *arguments = re.split(r"(?<!\\):", description)
    return kind, arguments


def with_backlog(description: str) -> str:
    """With our number of those who may wait, unless it has one: third, or by name."""
    kind, arguments = arguments_of(description)
    positional = [argument for argument in arguments if "=" not in argument]
    has_one = len(positional) > 2 or any(argument.startswith("backlog=") for argument in arguments)
    return description if has_one or kind not in ("tcp", "tcp6") else f"{description}:backlog={BACKLOG}"
