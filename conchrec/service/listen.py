"""Where users come in: a service for each endpoint of ``listen`` (Twisted's server endpoint descriptions)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.application import strports
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from conchrec.access.patterns import IPNetwork
from conchrec.errors import ConfigError
from conchrec.service import proxy_protocol

#: How many may wait to be taken in. With Twisted's 50 a crowd keeps everybody else waiting for seconds, since
#: whom the queue has no room for is heard when his system tries again.
BACKLOG = 1024
#: How many are taken in at once.
ACCEPTS = 4


def listener(description: str, factory: Any, balancers: Sequence[IPNetwork], reactor: Any) -> Any:
    """A service that listens there; behind ``haproxy:`` for these balancers alone. ConfigError, or OSError
    where the system won't have it."""
    kind, _, rest = description.partition(":")
    try:
        if kind == "haproxy":
            service = proxy_protocol.service(reactor, with_backlog(rest), factory, balancers)
        else:
            service = strports.service(with_backlog(description), factory, reactor)
        service.endpoint = _Steady(service.endpoint)
        return service
    except (OSError, ConfigError):
        raise
    except Exception as error:  # whatever a parser, or OpenSSL, makes of it
        problem = f"{description!r} is no server endpoint: {error or type(error).__name__}"
        raise ConfigError("listen", problem) from error


@implementer(IStreamServerEndpoint)
class _Steady:
    """An endpoint that takes a few connections in each turn of the reactor. Twisted takes a hundred, and the
    more the more come, which keeps everybody else waiting."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        listening: Deferred[Any] = self._endpoint.listen(protocolFactory)
        return listening.addCallback(steady)


def steady(port: Any) -> Any:
    """The same port, which takes ACCEPTS connections at once from now on."""
    if hasattr(port, "numberAccepts"):
        fixed = property(lambda self: ACCEPTS, lambda self, number: None)
        port.__class__ = type("SteadyPort", (type(port),), {"numberAccepts": fixed})
    return port


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
