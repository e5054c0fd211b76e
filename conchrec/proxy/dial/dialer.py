"""The way to a target: a gate for handshakes, the TCP connection, and the banner.

sshd drops unauthenticated connections at random from ``MaxStartups`` on (10:30:100), so no more than
a few handshakes with one target are under way at a time and the others wait in line. A connection
that is dropped before it said anything of SSH is tried again with back-off.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from typing import Protocol as Shape

from twisted.internet import error as neterror
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import Busy, ConchrecError, Unreachable, UpstreamError
from conchrec.fair_queue import FairQueue
from conchrec.model import Target
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.hostkeys import AcceptedHostKey
from conchrec.ssh.transport import ClientTransport, ConnectionEnd
from conchrec.text import foreign_line

T = TypeVar("T")

#: How long a target's banner is taken for granted; an upgrade of its sshd shows after that.
BANNER_LIFE = timedelta(minutes=10)
BANNERS = 4096
#: Handshakes of one user with one target that may wait for a person, outside the gate.
WAITING_FOR_PEOPLE = 4
#: Characters of what a target says that are quoted in an error.
MAX_REASON = 255
FIRST_BACKOFF = 0.1
LAST_BACKOFF = 2.0


class Slot:
    """A place in a gate. ``release`` as often as one likes."""

    __slots__ = ("_gate", "_released", "_user", "held", "waiting")

    def __init__(self, gate: Gate, user: str) -> None:
        self._gate = gate
        self._user = user
        self._released: Callable[[], None] | None = None
        self.held = True
        self.waiting = False

    def on_release(self, callback: Callable[[], None]) -> None:
        self._released = callback

    def release(self) -> None:
        if self.held:
            self.held = False
            self._gate.left(self._user)
        if self.waiting:
            self.waiting = False
            self._gate.person_done(self._user)
        if self._released is not None:
            self._released()

    def wait_for_person(self) -> None:
        """Someone has to touch, confirm or type: make room for the next, within bounds."""
        if self.held and self._gate.may_wait(self._user):
            self.held = False
            self.waiting = True
            self._gate.left(self._user)


class Gate:
    """So many handshakes with one target at once. Users take turns, each user's own come first come,
    first served, and one user has no more than ``share`` of the places, by default three quarters: who never
    finishes a login does not keep everybody else out.
    """

    def __init__(self, places: int, *, share: int | None = None) -> None:
        self._free = places
        self._places = places
        self._share = share or max(1, places * 3 // 4)
        self._queue: FairQueue[Deferred[Slot]] = FairQueue()
        self._inside: dict[str, int] = {}
        self._people: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        return self._free == self._places and not self._queue and not self._people

    def enter(self, user: str) -> Deferred[Slot]:
        """A Deferred of one's own; cancelling it leaves the line."""
        waiting: Deferred[Slot] = Deferred(lambda waiting: self._queue.discard(user, waiting))
        self._queue.add(user, waiting)
        self._admit()
        return waiting

    def left(self, user: str) -> None:
        self._free += 1
        _less(self._inside, user)
        self._admit()

    def may_wait(self, user: str) -> bool:
        if self._people.get(user, 0) >= WAITING_FOR_PEOPLE:
            return False
        self._people[user] = self._people.get(user, 0) + 1
        return True

    def person_done(self, user: str) -> None:
        _less(self._people, user)

    def _admit(self) -> None:
        while self._free:
            # Those who have their share already are few: no more than shares fit into the places.
            first = self._queue.take(lambda user: self._inside.get(user, 0) < self._share)
            if first is None:
                return
            user, waiting = first
            self._free -= 1
            self._inside[user] = self._inside.get(user, 0) + 1
            waiting.callback(Slot(self, user))


def _less(counts: dict[str, int], user: str) -> None:
    left = counts.get(user, 0) - 1
    if left > 0:
        counts[user] = left
    else:
        counts.pop(user, None)


class HostCheck(Shape):
    """Judges the target's host key, in the middle of the key exchange, and remembers what it said."""

    @property
    def verdict(self) -> AcceptedHostKey | None:
        """Why the key was accepted; None before that."""


MakeTransport = Callable[[Target], tuple[ClientTransport, HostCheck]]


@dataclass(slots=True, kw_only=True)
class Link:
    """A connection to a target whose banner has been read, and its place in the gate."""

    transport: ClientTransport
    check: HostCheck
    slot: Slot
    banner: bytes
    address: str

    def drop(self) -> None:
        """Nobody wants it."""
        self.slot.release()
        self.transport.abort()


class HandshakeDropped(Exception):
    """The target closed the connection before its identification string: it may be overloaded.

    ``why`` is how the connection ended (``ConnectionEnd.describe``); empty where the target sent nothing.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Dialer:
    """Connections to targets. One for each process."""

    def __init__(self, reactor: IReactorTCP, clock: Clock, *, handshakes: int, timeout: timedelta) -> None:
        self._reactor = reactor
        self._clock = clock
        self._handshakes = handshakes
        self._timeout = timeout.total_seconds()
        self._gates: dict[Target, Gate] = {}
        self._banners: OrderedDict[Target, tuple[float, bytes]] = OrderedDict()
        self._looks: dict[Target, list[Deferred[None]]] = {}

    def limit(self, *, handshakes: int, timeout: timedelta) -> None:
        """Other limits from now on; at a target where somebody waits, as soon as nobody does."""
        self._handshakes = handshakes
        self._timeout = timeout.total_seconds()
        self._gates = {target: gate for target, gate in self._gates.items() if not gate.idle}

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

    async def look(
        self, target: Target, addresses: Sequence[str], user: str, make: MakeTransport
    ) -> tuple[bytes, Link | None]:
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
        problem: UpstreamError | None = None
        try:
            link = await self.connect(target, addresses, user, make)
        except UpstreamError as error:
            problem = error
            raise
        finally:
            # What one has found out holds for all who waited; only where it gave up, the next one looks.
            for turn in self._looks.pop(target):
                if not turn.called and problem is None:
                    turn.callback(None)
                elif not turn.called:
                    turn.errback(Failure(problem))
        return link.banner, link

    # --- connections

    async def connect(self, target: Target, addresses: Sequence[str], user: str, make: MakeTransport) -> Link:
        """Through the gate, TCP, the target's banner. Raises Unreachable or Busy."""
        gate = self._gates.setdefault(target, Gate(self._handshakes))
        # The time in line counts for itself: the line moves only as fast as the target lets people in.
        entering = gate.enter(user)
        try:
            slot = await self.within(
                entering,
                self._timeout,
                lambda: Busy(
                    f"cannot reach {target}: too many logins there are in progress. Try again later"
                ),
            )
        finally:
            self._forget_idle(target, gate)
        slot.on_release(lambda: self._forget_idle(target, gate))
        try:
            return await self._connect_any(target, addresses, slot, make)
        except BaseException:
            slot.release()
            raise

    def _forget_idle(self, target: Target, gate: Gate) -> None:
        if gate.idle and self._gates.get(target) is gate:
            del self._gates[target]

    async def _connect_any(
        self, target: Target, addresses: Sequence[str], slot: Slot, make: MakeTransport
    ) -> Link:
        deadline = self._clock.seconds() + self._timeout
        backoff = FIRST_BACKOFF
        while True:
            problem: UpstreamError = Unreachable(
                f"cannot reach {target}: it has no address", code=ReasonCode.HOST_NOT_FOUND
            )
            for address in addresses:
                try:
                    return await self._connect_one(target, address, slot, deadline, make)
                except HandshakeDropped as dropped:
                    problem = Busy(_dropped_text(target, dropped.why))
                except UpstreamError as error:
                    if not isinstance(problem, Busy):
                        problem = error
            if not isinstance(problem, Busy):
                raise problem
            await self.pause(min(backoff, deadline - self._clock.seconds()))
            if self._clock.seconds() >= deadline:
                # Not that the time is up, but why.
                raise problem
            backoff = min(backoff * 2, LAST_BACKOFF)

    async def _connect_one(
        self, target: Target, address: str, slot: Slot, deadline: float, make: MakeTransport
    ) -> Link:
        left = deadline - self._clock.seconds()
        if left <= 0:
            raise Unreachable(
                f"cannot reach {target}: no connection in {self._timeout:g} s (connect_timeout). "
                "Is the host up?",
                code=ReasonCode.CONNECT_TIMEOUT,
            )
        family = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint = family(self._reactor, address, target.port, timeout=left)
        transport, check = make(target)
        try:
            await endpoint.connect(_once(transport))
        except neterror.ConnectError as error:
            raise _unreachable(target, address, error) from error
        link = Link(transport=transport, check=check, slot=slot, banner=b"", address=address)
        try:
            link.banner = await self.within(
                banner_of(transport),
                deadline - self._clock.seconds(),
                lambda: Unreachable(
                    f"cannot reach {target}: it accepts the connection and sends nothing. "
                    "Does an SSH server listen there?",
                    code=ReasonCode.TARGET_SILENT,
                ),
            )
        except BaseException:
            transport.abort()
            raise
        self._remember(target, link.banner)
        return link

    async def splice(self, target: Target, addresses: Sequence[str], protocol: Protocol) -> str:
        """A plain TCP connection, for bytes that pass through unread; the address. Raises Unreachable."""
        problem = Unreachable(f"cannot reach {target}: it has no address", code=ReasonCode.HOST_NOT_FOUND)
        for address in addresses:
            family = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            endpoint = family(self._reactor, address, target.port, timeout=self._timeout)
            try:
                await endpoint.connect(_once(protocol))
            except neterror.ConnectError as error:
                problem = _unreachable(target, address, error)
            else:
                return address
        raise problem

    # --- time

    def pause(self, seconds: float) -> Deferred[None]:
        """Back-off, with a little chance in it so that a crowd does not come back as one."""
        call = self._clock.callLater(
            max(seconds, 0) * (0.5 + random.random()),  # noqa: S311
            lambda: done.callback(None),
        )
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        return done

    async def within(self, waiting: Deferred[T], seconds: float, late: Callable[[], ConchrecError]) -> T:
        """What ``waiting`` fires with; after ``seconds`` it is cancelled and ``late()`` is raised."""
        is_late = False

        def too_late() -> None:
            nonlocal is_late
            is_late = True
            waiting.cancel()

        call = self._clock.callLater(max(seconds, 0), too_late)
        try:
            return await waiting
        except CancelledError:
            if is_late:
                raise late() from None
            raise
        finally:
            if call.active():
                call.cancel()


class _Once(Factory):
    """One protocol for one connection; says nothing about it in the log."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._protocol


def _once(protocol: Protocol) -> Any:
    """As zope's untyped interface has it."""
    return _Once(protocol)


def banner_of(transport: ClientTransport) -> Deferred[bytes]:
    """Fires with the peer's version line, or fails with Dropped when it goes before it says one."""
    done: Deferred[bytes] = Deferred()

    def lost(lost: ConnectionEnd) -> None:
        if not done.called:
            done.errback(Failure(HandshakeDropped(lost.describe())))

    def version(banner: bytes) -> None:
        if not done.called:
            done.callback(banner)

    transport.on_identification(version)
    transport.when_lost().addCallback(lost)
    return done


def _dropped_text(target: Target, why: str) -> str:
    """Why no SSH connection could be made, and what to do about it."""
    code = why.code if isinstance(why, Reason) else None
    if code is ReasonCode.NOT_SSH:
        return f"cannot reach {target}: what answers there is not an SSH server. Check the port"
    text = f"cannot reach {target}: it closes new connections before the login"
    if why:
        text += (
            f' ("{foreign_line(why, MAX_REASON)}")' if code is ReasonCode.PEER_DISCONNECTED else f" ({why})"
        )
    if "not allowed at this time" in why.lower():
        return f"{text}. Add this proxy to PerSourcePenaltyExemptList in its sshd_config"
    return f"{text}. Raise MaxStartups in its sshd_config"


def _unreachable(target: Target, address: str, error: neterror.ConnectError) -> Unreachable:
    return Unreachable(f"cannot reach {target}: {_reason(error)}", f"{address}: {error}")


def _reason(error: neterror.ConnectError) -> str:
    """Why TCP could not connect, with what to check; Twisted's own sentences are for programmers."""
    if isinstance(error, neterror.ConnectionRefusedError):
        return "connection refused. Is sshd running there?"
    if isinstance(error, (neterror.TCPTimedOutError, neterror.TimeoutError)):
        return "no answer. Is the host up, and does its firewall allow the proxy?"
    if isinstance(error, neterror.NoRouteError):
        return "no route to the host. Check its address and the network of the proxy"
    return str(error.osError or error).rstrip(".") if hasattr(error, "osError") else str(error).rstrip(".")
