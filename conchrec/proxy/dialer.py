"""The way to a target: a gate for handshakes, the TCP connection, and the banner.

sshd drops unauthenticated connections at random from ``MaxStartups`` on (10:30:100), so no more than
a few handshakes with one target are under way at a time and the others wait in line. A connection
that is dropped before it said anything of SSH is tried again with back-off.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from twisted.internet import error as neterror
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.logger import Logger

from conchrec.errors import Busy, Unreachable, UpstreamError
from conchrec.model import Target
from conchrec.ssh.transport import ClientTransport, Lost

_log = Logger()

#: How long a target's banner is taken for granted; an upgrade of its sshd shows after that.
BANNER_LIFE = timedelta(minutes=10)
BANNERS = 4096
#: A connection that was made for its banner and that nobody logged in on goes away after this.
UNUSED_LINK = timedelta(seconds=10)
#: Handshakes of one user with one target that may wait for a person, outside the gate.
WAITING_FOR_PEOPLE = 4
FIRST_BACKOFF = 0.1
LAST_BACKOFF = 2.0


class Slot:
    """A place in a gate. ``release`` as often as one likes."""

    __slots__ = ("_gate", "_user", "held", "waiting")

    def __init__(self, gate: Gate, user: str) -> None:
        self._gate = gate
        self._user = user
        self.held = True
        self.waiting = False

    def release(self) -> None:
        if self.held:
            self.held = False
            self._gate.left()
        if self.waiting:
            self.waiting = False
            self._gate.person_done(self._user)

    def wait_for_person(self) -> None:
        """Someone has to touch, confirm or type: make room for the next, within bounds."""
        if self.held and self._gate.may_wait(self._user):
            self.held = False
            self.waiting = True
            self._gate.left()


class Gate:
    """So many handshakes with one target at once; first come, first served."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: deque[tuple[Deferred[Slot], str]] = deque()
        self._people: dict[str, int] = {}
        self._places = places

    @property
    def idle(self) -> bool:
        return self._free == self._places and not self._line and not self._people

    def enter(self, user: str) -> Deferred[Slot]:
        """A Deferred of one's own; cancelling it leaves the line."""
        waiting: Deferred[Slot] = Deferred(self._left_line)
        self._line.append((waiting, user))
        self._admit()
        return waiting

    def _left_line(self, waiting: Deferred[Slot]) -> None:
        self._line = deque(entry for entry in self._line if entry[0] is not waiting)

    def left(self) -> None:
        self._free += 1
        self._admit()

    def may_wait(self, user: str) -> bool:
        if self._people.get(user, 0) >= WAITING_FOR_PEOPLE:
            return False
        self._people[user] = self._people.get(user, 0) + 1
        return True

    def person_done(self, user: str) -> None:
        count = self._people.get(user, 0) - 1
        if count > 0:
            self._people[user] = count
        else:
            self._people.pop(user, None)

    def _admit(self) -> None:
        while self._free and self._line:
            waiting, user = self._line.popleft()
            self._free -= 1
            waiting.callback(Slot(self, user))


@dataclass(slots=True, kw_only=True)
class Link:
    """A connection to a target whose banner has been read, and its place in the gate."""

    transport: ClientTransport
    slot: Slot
    banner: bytes
    address: str


class Dropped(Exception):
    """The target closed before the key exchange was through; perhaps it has too much to do."""


class Dialer:
    """Connections to targets. One for each process."""

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        *,
        handshakes: int,
        timeout: timedelta,
        make_transport: Callable[[Target], ClientTransport],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._handshakes = handshakes
        self._timeout = timeout.total_seconds()
        self._make_transport = make_transport
        self._gates: dict[Target, Gate] = {}
        self._banners: OrderedDict[Target, tuple[float, bytes]] = OrderedDict()
        self._looks: dict[Target, list[Deferred[None]]] = {}

    @property
    def timeout(self) -> float:
        """Seconds from the first try to the key exchange, all tries together."""
        return self._timeout

    # --- banners

    def remembered_banner(self, target: Target) -> bytes | None:
        entry = self._banners.get(target)
        if entry is None or self._clock.seconds() - entry[0] > BANNER_LIFE.total_seconds():
            return None
        return entry[1]

    def _remember(self, target: Target, banner: bytes) -> None:
        self._banners[target] = (self._clock.seconds(), banner)
        self._banners.move_to_end(target)
        while len(self._banners) > BANNERS:
            self._banners.popitem(last=False)

    async def look(self, target: Target, addresses: Sequence[str], user: str) -> tuple[bytes, Link | None]:
        """The target's banner, and the connection that it was read on, where one had to be made.

        Simultaneous first looks at one target share one connection. Raises UpstreamError.
        """
        while True:
            banner = self.remembered_banner(target)
            if banner is not None:
                return banner, None
            waiting = self._looks.get(target)
            if waiting is None:
                break
            turn: Deferred[None] = Deferred()
            waiting.append(turn)
            await turn
        self._looks[target] = []
        try:
            link = await self.connect(target, addresses, user)
        finally:
            for turn in self._looks.pop(target):
                if not turn.called:
                    turn.callback(None)
        return link.banner, link

    # --- connections

    async def connect(
        self, target: Target, addresses: Sequence[str], user: str, deadline: float | None = None
    ) -> Link:
        """Through the gate, TCP, the target's banner. Raises Unreachable or Busy."""
        if deadline is None:
            deadline = self._clock.seconds() + self._timeout
        gate = self._gates.setdefault(target, Gate(self._handshakes))
        entering = gate.enter(user)
        try:
            slot = await self._within(
                entering, deadline, lambda: Busy(f"{target} has too many logins waiting; try again")
            )
        finally:
            if gate.idle:
                self._gates.pop(target, None)
        try:
            return await self._connect_any(target, addresses, slot, deadline)
        except BaseException:
            slot.release()
            raise

    async def _connect_any(
        self, target: Target, addresses: Sequence[str], slot: Slot, deadline: float
    ) -> Link:
        backoff = FIRST_BACKOFF
        while True:
            problem: UpstreamError | None = None
            for address in addresses:
                try:
                    return await self._connect_one(target, address, slot, deadline)
                except Dropped as dropped:
                    problem = Busy(
                        f"{target} closes new connections before they can log in"
                        f" ({str(dropped) or 'no reason given'}); raise MaxStartups in its sshd_config"
                        + (" or list this proxy in PerSourcePenaltyExemptList" if "allowed" in str(dropped) else "")
                    )
                except UpstreamError as error:
                    problem = problem or error
            assert problem is not None
            if not isinstance(problem, Busy) or self._clock.seconds() + backoff >= deadline:
                raise problem
            await self.pause(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF)

    async def _connect_one(self, target: Target, address: str, slot: Slot, deadline: float) -> Link:
        left = max(0.05, deadline - self._clock.seconds())
        endpoint_class = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint = endpoint_class(self._reactor, address, target.port, timeout=left)
        transport = self._make_transport(target)
        try:
            await connectProtocol(endpoint, transport)
        except neterror.ConnectError as error:
            raise Unreachable(f"{target} can not be reached: {_reason(error)}") from error
        except CancelledError:
            raise Unreachable(f"{target} can not be reached: the connection was given up") from None
        try:
            banner = await self._within(
                self.banner_of(transport),
                deadline,
                lambda: Unreachable(f"{target} accepts connections and says nothing (is it an SSH server?)"),
            )
        except BaseException:
            transport.abort()
            raise
        self._remember(target, banner)
        return Link(transport=transport, slot=slot, banner=banner, address=address)

    def banner_of(self, transport: ClientTransport) -> Deferred[bytes]:
        """Fires with the peer's version line, or fails with Dropped when it goes before it says one."""
        done: Deferred[bytes] = Deferred()

        def lost(lost: Lost) -> None:
            if not done.called:
                done.errback(Dropped(lost.describe()))

        def version(banner: bytes) -> None:
            if not done.called:
                done.callback(banner)

        transport.on_version(version)
        transport.when_lost().addCallback(lost)
        return done

    def pause(self, seconds: float) -> Deferred[None]:
        """Back-off, with a little chance in it so that a crowd does not come back as one."""
        done: Deferred[None] = Deferred()
        call = self._clock.callLater(seconds * (0.5 + random.random()), lambda: done.callback(None))  # noqa: S311
        done_with_cancel: Deferred[None] = Deferred(lambda _: call.cancel())
        done.chainDeferred(done_with_cancel)
        return done_with_cancel

    async def _within[T](self, waiting: Deferred[T], deadline: float, late: Callable[[], UpstreamError]) -> T:
        raise NotImplementedError
