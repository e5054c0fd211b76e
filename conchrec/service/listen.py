"""Listens on the endpoints of ``listen``: a service for each description of a Twisted server endpoint."""

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

#: The length of the queue of new connections. If a burst fills Twisted's 50 places, other clients wait for
#: seconds until their system tries again.
BACKLOG = 1024
#: The most connections that are accepted in one turn of the reactor.
ACCEPTS = 4


def listener(description: str, factory: Any, balancers: Sequence[IPNetwork], reactor: Any) -> Any:
    """A service that listens on an endpoint; with ``haproxy:`` only for connections of these balancers.

    Raises ConfigError for an invalid description, and OSError from the operating system.
    """
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
    except Exception as error:  # parsers and OpenSSL may raise anything
        problem = f"invalid endpoint {description!r}: {error or type(error).__name__}"
        raise ConfigError("listen", problem) from error


@implementer(IStreamServerEndpoint)
class _Steady:
    """An endpoint that accepts a few connections in each turn of the reactor.

    Twisted accepts up to a hundred, more under load, and all other connections wait meanwhile.
    """

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        port: Deferred[Any] = self._endpoint.listen(protocolFactory)
        return port.addCallback(steady)


def steady(port: Any) -> Any:
    """The same port, which accepts ACCEPTS connections in a turn from now on."""
    if hasattr(port, "numberAccepts"):
        fixed = property(lambda self: ACCEPTS, lambda self, number: None)
        port.__class__ = type("SteadyPort", (type(port),), {"numberAccepts": fixed})
    return port


def arguments_of(description: str) -> tuple[str, list[str]]:
    """The kind and the arguments of an endpoint, with their backslashes."""
    kind, *arguments = re.split(r"(?<!\\):", description)
    return kind, arguments


def with_backlog(description: str) -> str:
    """The description with our backlog, unless it has one: its third argument, or one by name."""
    kind, arguments = arguments_of(description)
    positional = [argument for argument in arguments if "=" not in argument]
    has_one = len(positional) > 2 or any(argument.startswith("backlog=") for argument in arguments)
    return description if has_one or kind not in ("tcp", "tcp6") else f"{description}:backlog={BACKLOG}"
