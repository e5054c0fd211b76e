"""Limits TCP connections to the proxy: in all, from one address, and those that have not logged in.

- Above ``unauthenticated`` connections without a login, new connections are dropped at random, as with sshd's
  MaxStartups. But where another address has many more of them than the address of the new connection, the
  oldest connection of that other address is dropped instead.
- An address with many connections that ended without a login gets only a few at a time, until one of them
  logs in, or until it has made none for some minutes.

A /64 network of IPv6 counts as one address.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger

from conchrec.access.rate_limit import counted_as
from conchrec.audit import events
from conchrec.config.model import Startups
from conchrec.proxy import refusals
from conchrec.proxy.context import ProxyContext
from conchrec.reasons import Reason, ReasonCode
from conchrec.token_bucket import Rate, TokenBuckets

_log = Logger()

#: Failed connections (those that ended without a login) of one address before it is limited.
MAX_FAILED = 50
#: Seconds after which one failed connection is forgotten: monitoring that connects now and then is no flood.
FORGIVEN_SECONDS = 1.0
#: The most failed connections that are counted for one address.
MOST_COUNTED = 4 * MAX_FAILED
_FAILURE_RATE = Rate(MAX_FAILED, 1 / FORGIVEN_SECONDS, most_debt=MOST_COUNTED - MAX_FAILED)
#: Connections without a login that a limited address may have at one time.
LIMITED_TO = 10
#: How many more connections without a login another address must have, before its oldest one is dropped.
MARGIN = 10
#: Seconds between two reports of refused connections in the log and in the audit.
REPORT_SECONDS = 10.0
#: The most addresses whose failed connections are remembered; the oldest are forgotten.
REMEMBERED = 10_000

TOO_MANY = Reason(
    ReasonCode.TOO_MANY_CONNECTIONS, "too many connections to the proxy (connections). Try again later"
)
TOO_MANY_OF_ADDRESS = Reason(
    ReasonCode.TOO_MANY_CONNECTIONS_OF_ADDRESS,
    "too many connections from this address (per_address). Close some, then try again",
)
TOO_MANY_FRUITLESS = Reason(
    ReasonCode.TOO_MANY_FRUITLESS_CONNECTIONS,
    "too many connections from this address ended without a login. Try again in a few minutes",
)
TOO_MANY_UNAUTHENTICATED = Reason(
    ReasonCode.TOO_MANY_UNAUTHENTICATED,
    "too many connections have not logged in yet (unauthenticated). Try again later",
)


class UnauthenticatedConnection(Protocol):
    """A connection that has not logged in."""

    def drop(self) -> None:
        """Close it."""


def is_dropped(count: int, startups: Startups, chance: float) -> bool:
    """Whether the next connection is dropped while ``count`` have not logged in.

    ``chance`` is a random number from 0 up to 1.
    """
    if count < startups.begin:
        return False
    if count >= startups.full:
        return True
    slope = (100 - startups.rate) * (count - startups.begin) / (startups.full - startups.begin)
    return chance * 100 < startups.rate + slope


class ConnectionLimits:
    """Counts the connections of this process. ``chance`` returns random numbers from 0 up to 1."""

    def __init__(self, context: ProxyContext, chance: Callable[[], float] = random.random) -> None:
        self._context = context
        self._services = context.services
        self._chance = chance
        self._count = 0
        self._by_address: dict[str, int] = {}
        #: The connections that have not logged in, by address, oldest first.
        self._unauthenticated: dict[str, OrderedDict[UnauthenticatedConnection, None]] = {}
        self._unauthenticated_count = 0
        #: By address: how many more connections may fail before it is limited.
        self._failures: TokenBuckets[str] = TokenBuckets(_FAILURE_RATE, REMEMBERED)
        #: What the next report says: how many connections of a host were refused, by reason.
        self._refused: dict[tuple[str, Reason], int] = {}
        self._is_report_due = False

    def refusal(self, host: str) -> Reason | None:
        """Why a new connection from this host is refused; None where it is accepted.

        Where it is accepted in place of the oldest connection of another address, drops that one.
        """
        limits, name = self._context.settings.config.limits, counted_as(host)
        unauthenticated = len(self._unauthenticated.get(name, ()))
        reason: Reason | None = None
        is_own_fault = False
        if self._context.registry.is_stopping:
            return refusals.PROXY_STOPPING
        if self._count >= limits.connections:
            reason = TOO_MANY
        elif self._by_address.get(name, 0) >= limits.per_address:
            reason, is_own_fault = TOO_MANY_OF_ADDRESS, True
        elif unauthenticated >= LIMITED_TO and self._is_limited(name):
            reason, is_own_fault = TOO_MANY_FRUITLESS, True
        elif is_dropped(
            self._unauthenticated_count, limits.unauthenticated, self._chance()
        ) and not self._drop_other(unauthenticated):
            reason = TOO_MANY_UNAUTHENTICATED
        if is_own_fault:
            self._count_failed(name)
        if reason is not None:
            self._report_refusal(host, reason)
        return reason

    def add(self, host: str, connection: UnauthenticatedConnection) -> None:
        """Count a new connection from this host."""
        name = counted_as(host)
        self._count += 1
        self._by_address[name] = self._by_address.get(name, 0) + 1
        self._unauthenticated.setdefault(name, OrderedDict())[connection] = None
        self._unauthenticated_count += 1

    def logged_in(self, host: str, connection: UnauthenticatedConnection) -> None:
        """Note that a connection has logged in: its address is not limited any more."""
        self._remove_unauthenticated(counted_as(host), connection)
        self._failures.forget(counted_as(host))

    def remove(self, host: str, connection: UnauthenticatedConnection) -> None:
        """Forget a connection that has ended."""
        name = counted_as(host)
        if self._remove_unauthenticated(name, connection):
            self._count_failed(name)
        self._count -= 1
        self._by_address[name] -= 1
        if not self._by_address[name]:
            del self._by_address[name]

    def _remove_unauthenticated(self, name: str, connection: UnauthenticatedConnection) -> bool:
        """Remove a connection from those without a login, and return whether it was one of them."""
        connections = self._unauthenticated.get(name)
        if connections is None or connection not in connections:
            return False
        del connections[connection]
        self._unauthenticated_count -= 1
        if not connections:
            del self._unauthenticated[name]
        return True

    def _drop_other(self, own: int) -> bool:
        """Drop the oldest connection of the address with the most, if it has many more than ``own``."""
        name = max(self._unauthenticated, key=lambda name: len(self._unauthenticated[name]), default="")
        if not name or len(self._unauthenticated[name]) <= own + MARGIN:
            return False
        oldest = next(iter(self._unauthenticated[name]))
        self._remove_unauthenticated(name, oldest)
        self._count_failed(name)
        oldest.drop()
        return True

    def _is_limited(self, name: str) -> bool:
        return self._failures.level(name, self._services.clock.seconds()) < 1

    def _count_failed(self, name: str) -> None:
        self._failures.charge(name, self._services.clock.seconds())

    # --- reports

    def _report_refusal(self, host: str, reason: Reason) -> None:
        if (host, reason) in self._refused or len(self._refused) < REMEMBERED:
            self._refused[host, reason] = self._refused.get((host, reason), 0) + 1
        if not self._is_report_due:
            self._is_report_due = True
            self._write_report()
            self._services.clock.callLater(REPORT_SECONDS, self._report_again)

    def _report_again(self) -> None:
        self._is_report_due = bool(self._refused)
        if self._is_report_due:
            self._write_report()
            self._services.clock.callLater(REPORT_SECONDS, self._report_again)

    def _write_report(self) -> None:
        refused, self._refused = self._refused, {}
        for (host, reason), count in refused.items():
            _log.warn("refused {count} connections from {host}: {why}", count=count, host=host, why=reason)
            self._context.emit(events.ConnectionRefused(addr=host, reason=reason, count=count))


class RefusedConnection(TwistedProtocol):
    """Sends the reason as a line before the identification string (RFC 4253, section 4.2), and closes."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def connectionMade(self) -> None:
        """Send the line, and close."""
        transport: Any = self.transport
        transport.write(f"conchrec: {self._reason}\r\n".encode())
        transport.loseConnection()
