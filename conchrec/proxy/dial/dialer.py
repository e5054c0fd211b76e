"""Connects to targets: through the gate, over TCP, as far as the target's identification string.

Only a few handshakes with one target are in progress at a time (``handshake_gate``). A connection that the
target drops before its identification string is tried again after a pause: sshd does that at ``MaxStartups``.
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
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import Busy, ConchrecError, Unreachable, UpstreamError, without_traceback
from conchrec.model import Target
from conchrec.proxy.dial.handshake_gate import Gate, Slot
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.host_key_check import AcceptedHostKey
from conchrec.ssh.transport import ClientTransport, ConnectionEnd
from conchrec.text import foreign_quote

T = TypeVar("T")

#: How long a target's identification string is remembered; an upgrade of its sshd shows after that.
REMEMBERED_TIME = timedelta(minutes=10)
#: The most targets whose identification strings are remembered.
REMEMBERED = 4096
#: Characters of what a target says that are quoted in an error.
MAX_REASON = 255
#: The first and the longest pause before a new try, in seconds.
FIRST_BACKOFF = 0.1
LAST_BACKOFF = 2.0


class HostCheck(Shape):
    """Checks the target's host key during the key exchange, and remembers the verdict."""

    @property
    def verdict(self) -> AcceptedHostKey | None:
        """Why the key was accepted; None before that."""


MakeTransport = Callable[[Target], tuple[ClientTransport, HostCheck]]


@dataclass(slots=True, kw_only=True)
class Link:
    """A connection to a target that has sent its identification string, and its slot in the gate."""

    transport: ClientTransport
    check: HostCheck
    slot: Slot
    identification: bytes
    address: str

    def drop(self) -> None:
        """Close it: it is not used."""
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
        #: By target: when its identification string was read, and the string.
        self._remembered: OrderedDict[Target, tuple[float, bytes]] = OrderedDict()
        #: By target whose identification string is being read: the calls that wait for it.
        self._waiting: dict[Target, list[Deferred[None]]] = {}

    def set_limits(self, *, handshakes: int, timeout: timedelta) -> None:
        """Use these limits from now on; at a target with handshakes in progress, once these have ended."""
        self._handshakes = handshakes
        self._timeout = timeout.total_seconds()
        self._gates = {target: gate for target, gate in self._gates.items() if not gate.is_idle}

    @property
    def timeout(self) -> float:
        """Seconds from the first try to the key exchange, all tries together."""
        return self._timeout

    # --- identification strings

    def remembered_identification(self, target: Target) -> bytes | None:
        """The identification string that the target has sent lately; None if it is not known."""
        entry = self._remembered.get(target)
        if entry is None or self._clock.seconds() - entry[0] > REMEMBERED_TIME.total_seconds():
            return None
        return entry[1]

    def _remember(self, target: Target, identification: bytes) -> None:
        self._remembered[target] = (self._clock.seconds(), identification)
        self._remembered.move_to_end(target)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    async def identify(
        self, target: Target, addresses: Sequence[str], user: str, make: MakeTransport
    ) -> tuple[bytes, Link | None]:
        """Return the target's identification string, and the link that it was read on, if one was needed.

        Simultaneous calls for one target share one connection. Raises UpstreamError.
        """
        while True:
            identification = self.remembered_identification(target)
            if identification is not None:
                return identification, None
            waiting = self._waiting.get(target)
            if waiting is None:
                break
            turn: Deferred[None] = Deferred()
            waiting.append(turn)
            await turn
        self._waiting[target] = []
        problem: UpstreamError | None = None
        try:
            link = await self.connect(target, addresses, user, make)
        except UpstreamError as error:
            problem = error
            raise
        finally:
            # All who waited share the result; but if this call was cancelled, the next one connects.
            for turn in self._waiting.pop(target):
                if not turn.called and problem is None:
                    turn.callback(None)
                elif not turn.called:
                    turn.errback(Failure(problem))
        return link.identification, link

    # --- connections

    async def connect(self, target: Target, addresses: Sequence[str], user: str, make: MakeTransport) -> Link:
        """Connect, as far as the identification string of the target. Raises Unreachable or Busy."""
        gate = self._gates.setdefault(target, Gate(self._handshakes))
        # The time in the queue has a limit of its own: the queue moves only as fast as the target logs in.
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
        if gate.is_idle and self._gates.get(target) is gate:
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
                    problem = Busy(_dropped_text(target, without_traceback(dropped).why))
                except UpstreamError as error:
                    if not isinstance(problem, Busy):
                        problem = error
            if not isinstance(problem, Busy):
                raise problem
            await self.pause(min(backoff, deadline - self._clock.seconds()))
            if self._clock.seconds() >= deadline:
                # The reason says more than that the time is over.
                raise problem
            backoff = min(backoff * 2, LAST_BACKOFF)

    async def _connect_one(
        self, target: Target, address: str, slot: Slot, deadline: float, make: MakeTransport
    ) -> Link:
        remaining = deadline - self._clock.seconds()
        if remaining <= 0:
            raise Unreachable(
                f"cannot reach {target}: no connection in {self._timeout:g} s (connect_timeout). "
                "Is the host up?",
                code=ReasonCode.CONNECT_TIMEOUT,
            )
        transport, check = make(target)
        try:
            await self._connect_tcp(transport, address, target.port, remaining)
        except BaseException as error:
            # It will not be connected: this releases its parts.
            transport.connectionLost()
            if isinstance(error, neterror.ConnectError):
                raise _unreachable(target, address, error) from error
            raise
        link = Link(transport=transport, check=check, slot=slot, identification=b"", address=address)
        try:
            link.identification = await self.within(
                identification_of(transport),
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
        self._remember(target, link.identification)
        return link

    async def splice(self, target: Target, addresses: Sequence[str], protocol: Protocol) -> str:
        """Connect ``protocol`` over TCP, for bytes that pass through unread, and return the address.

        Raises Unreachable.
        """
        problem = Unreachable(f"cannot reach {target}: it has no address", code=ReasonCode.HOST_NOT_FOUND)
        for address in addresses:
            try:
                await self._connect_tcp(protocol, address, target.port, self._timeout)
            except neterror.ConnectError as error:
                problem = _unreachable(target, address, error)
            else:
                return address
        raise problem

    def _connect_tcp(self, protocol: Protocol, address: str, port: int, seconds: float) -> Deferred[None]:
        """Connect ``protocol`` by TCP. Fails with a ConnectError of Twisted."""
        factory = _OneConnection(protocol, self._clock)
        connect: Any = self._reactor.connectTCP
        connect(address, port, factory, timeout=seconds)
        return factory.done

    # --- time

    def pause(self, seconds: float) -> Deferred[None]:
        """Wait about this long: half to one and a half times, so that many clients do not retry together."""
        call = self._clock.callLater(
            max(seconds, 0) * (0.5 + random.random()),  # noqa: S311
            lambda: done.callback(None),
        )
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        return done

    async def within(self, waiting: Deferred[T], seconds: float, late: Callable[[], ConchrecError]) -> T:
        """Return the result of ``waiting``; after ``seconds`` cancel it and raise ``late()``."""
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


class _OneConnection(ClientFactory[Protocol]):
    """Makes one connection, without Twisted's log lines. ``done`` fires when ``protocol`` is connected.

    Twisted's endpoints do the same, but their objects, the socket and the protocol refer to each other, also
    after the end of the connection.
    """

    noisy = False

    def __init__(self, protocol: Protocol, clock: Clock) -> None:
        self._protocol: Protocol | None = protocol
        self._clock = clock
        self._connector: Any = None
        self._is_cancelled = False
        self.done: Deferred[None] = Deferred(lambda _: self._cancel())

    def startedConnecting(self, connector: Any) -> None:
        self._connector = connector

    def buildProtocol(self, addr: object) -> Protocol | None:
        protocol, self._protocol = self._protocol, None
        # Twisted connects the protocol directly after this call.
        self._clock.callLater(0, self._connected)
        return protocol

    def _connected(self) -> None:
        self._connector = None
        if not self._is_cancelled:
            self.done.callback(None)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._connector = None
        if not self._is_cancelled:
            self.done.errback(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        # The connector and the socket refer to each other.
        connector.transport = None

    def _cancel(self) -> None:
        connector, self._connector = self._connector, None
        self._is_cancelled = True
        if connector is not None:
            connector.disconnect()


def identification_of(transport: ClientTransport) -> Deferred[bytes]:
    """Fires with the peer's identification string. Fails with HandshakeDropped if it closes before that."""
    done: Deferred[bytes] = Deferred()

    def lost(lost: ConnectionEnd) -> None:
        if not done.called:
            done.errback(Failure(HandshakeDropped(lost.describe())))

    def received(identification: bytes) -> None:
        if not done.called:
            done.callback(identification)

    transport.on_identification(received)
    transport.on_lost(lost)
    return done


def _dropped_text(target: Target, why: str) -> str:
    """Why no SSH connection could be made, and what to do about it."""
    code = why.code if isinstance(why, Reason) else None
    if code is ReasonCode.NOT_SSH:
        return f"cannot reach {target}: what answers there is not an SSH 2.0 server. Check the port"
    text = f"cannot reach {target}: it closes new connections before the login"
    if why:
        text += f" ({foreign_quote(why, MAX_REASON) if code is ReasonCode.PEER_DISCONNECTED else why})"
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
