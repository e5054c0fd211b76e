"""Who may connect at all: so many connections in all and by address, and those that have not logged in apart.

From some number of the latter on new ones are dropped by chance, more and more of them until all are (sshd's
``MaxStartups``). Before a newcomer is dropped, somebody else may have to go: where one address has many more
than the newcomer's, its oldest does. An address whose connections never come to a login may have few at a
time, until one does, or until it has been quiet for a while. Of IPv6 a /64 counts as one address.
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

_log = Logger()

#: Connections of one address, one after another, that came to no login before it is taken for what it is.
FRUITLESS = 50
#: After so many seconds one of them is forgotten. Monitoring that knocks now and then is no flood.
FORGIVEN_SECONDS = 1.0
#: More than these do not count.
MOST_COUNTED = 4 * FRUITLESS
#: … and how many without a login it may have at one time then.
FEW = 10
#: By how many more an address has to have than the newcomer's, before its oldest goes.
MORE = 10
#: Refusals are told together, at most so often.
TELL_SECONDS = 10.0
#: Addresses that are remembered; of those that do not connect any more the oldest are forgotten.
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
        """Hang up."""


def is_dropped(count: int, startups: Startups, chance: float) -> bool:
    """Is the next one dropped, while there are ``count``? ``chance`` is from 0 up to 1."""
    if count < startups.begin:
        return False
    if count >= startups.full:
        return True
    slope = (100 - startups.rate) * (count - startups.begin) / (startups.full - startups.begin)
    return chance * 100 < startups.rate + slope


class ConnectionLimits:
    """See the module. ``chance`` gives numbers from 0 up to 1."""

    def __init__(self, context: ProxyContext, chance: Callable[[], float] = random.random) -> None:
        self._context = context
        self._services = context.services
        self._chance = chance
        self._all = 0
        self._of: dict[str, int] = {}
        #: Those that have not logged in, by address, oldest first.
        self._guests: dict[str, OrderedDict[UnauthenticatedConnection, None]] = {}
        self._guest_count = 0
        #: By address: when the last one of those that came to nothing will be forgotten.
        self._fruitless: OrderedDict[str, float] = OrderedDict()
        self._refused: dict[tuple[str, Reason], int] = {}
        self._telling = False

    def refusal(self, host: str) -> Reason | None:
        """Why nobody may come from there now; None where somebody may. May send somebody else away."""
        limits, name = self._context.settings.config.limits, counted_as(host)
        guests = len(self._guests.get(name, ()))
        why: Reason | None = None
        is_theirs = False
        if self._context.registry.is_stopping:
            return refusals.PROXY_STOPPING
        if self._all >= limits.connections:
            why = TOO_MANY
        elif self._of.get(name, 0) >= limits.per_address:
            why, is_theirs = TOO_MANY_OF_ADDRESS, True
        elif guests >= FEW and self._is_fruitless(name):
            why, is_theirs = TOO_MANY_FRUITLESS, True
        elif is_dropped(self._guest_count, limits.unauthenticated, self._chance()) and not self._room(guests):
            why = TOO_MANY_UNAUTHENTICATED
        if is_theirs:
            self._came_to_nothing(name)
        if why is not None:
            self._tell(host, why)
        return why

    def enter(self, host: str, guest: UnauthenticatedConnection) -> None:
        name = counted_as(host)
        self._all += 1
        self._of[name] = self._of.get(name, 0) + 1
        self._guests.setdefault(name, OrderedDict())[guest] = None
        self._guest_count += 1

    def logged_in(self, host: str, guest: UnauthenticatedConnection) -> None:
        self._no_guest(counted_as(host), guest)
        self._fruitless.pop(counted_as(host), None)

    def left(self, host: str, guest: UnauthenticatedConnection) -> None:
        name = counted_as(host)
        if self._no_guest(name, guest):
            self._came_to_nothing(name)
        self._all -= 1
        self._of[name] -= 1
        if not self._of[name]:
            del self._of[name]

    def _no_guest(self, name: str, guest: UnauthenticatedConnection) -> bool:
        """Was it one?"""
        guests = self._guests.get(name)
        if guests is None or guest not in guests:
            return False
        del guests[guest]
        self._guest_count -= 1
        if not guests:
            del self._guests[name]
        return True

    def _room(self, own: int) -> bool:
        """Make some, where an address has many more than the ``own`` of the newcomer's."""
        name = max(self._guests, key=lambda name: len(self._guests[name]), default="")
        if not name or len(self._guests[name]) <= own + MORE:
            return False
        guest = next(iter(self._guests[name]))
        self._no_guest(name, guest)
        self._came_to_nothing(name)
        guest.drop()
        return True

    def _is_fruitless(self, name: str) -> bool:
        due = self._fruitless.get(name, 0.0) - self._services.clock.seconds()
        return due > (FRUITLESS - 1) * FORGIVEN_SECONDS

    def _came_to_nothing(self, name: str) -> None:
        now = self._services.clock.seconds()
        due = max(self._fruitless.pop(name, 0.0), now) + FORGIVEN_SECONDS
        self._fruitless[name] = min(due, now + MOST_COUNTED * FORGIVEN_SECONDS)
        if len(self._fruitless) > REMEMBERED:
            self._fruitless.popitem(last=False)

    # --- telling

    def _tell(self, host: str, why: Reason) -> None:
        if (host, why) in self._refused or len(self._refused) < REMEMBERED:
            self._refused[host, why] = self._refused.get((host, why), 0) + 1
        if not self._telling:
            self._telling = True
            self._told()
            self._services.clock.callLater(TELL_SECONDS, self._told_again)

    def _told_again(self) -> None:
        self._telling = bool(self._refused)
        if self._telling:
            self._told()
            self._services.clock.callLater(TELL_SECONDS, self._told_again)

    def _told(self) -> None:
        refused, self._refused = self._refused, {}
        for (host, why), count in refused.items():
            _log.warn("refused {count} connections from {host}: {why}", count=count, host=host, why=why)
            self._context.emit(events.ConnectionRefused(addr=host, reason=why, count=count))


class RefusedConnection(TwistedProtocol):
    """Says why, in a line before the version (RFC 4253 section 4.2), and hangs up."""

    def __init__(self, why: str) -> None:
        self._why = why

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(f"conchrec: {self._why}\r\n".encode())
        transport.loseConnection()
