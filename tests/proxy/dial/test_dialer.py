"""Connections to targets: shared first connections, new tries, and limits of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from conchrec.errors import Busy, Unreachable
from conchrec.model import Target
from conchrec.proxy.dial.dialer import Dialer, HostCheck, Link, MakeTransport
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.transport import ClientTransport
from tests.support.powers import at_once

WEB1 = Target(host="web1")


class Unchecked:
    """A HostCheck of a target that never shows its key."""

    verdict = None


def new_transport(target: Target) -> tuple[ClientTransport, HostCheck]:
    transport = ClientTransport(
        algorithms=MODERN,
        powers=at_once,
        verify_host_key=lambda blob: None,
        host_key_algorithms=(b"ssh-ed25519",),
        identification=None,
        clock=Clock(),
    )
    return transport, Unchecked()


class ManualDialer(Dialer):
    """A dialer whose connections are made by the test."""

    def __init__(self, clock: Clock) -> None:
        reactor: Any = MemoryReactor()
        super().__init__(reactor, clock, handshakes=8, timeout=timedelta(seconds=30))
        self.requests: list[Deferred[Link]] = []

    async def connect(self, target: Target, addresses: Sequence[str], user: str, make: MakeTransport) -> Link:
        made: Deferred[Link] = Deferred()
        self.requests.append(made)
        return await made


def identify(dialer: ManualDialer) -> list[Any]:
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.identify(WEB1, ("192.0.2.1",), "joe", new_transport)).addBoth(heard.append)
    return heard


def test_shares_failure_between_simultaneous_calls() -> None:
    dialer = ManualDialer(Clock())
    results = [identify(dialer) for _ in range(3)]
    assert len(dialer.requests) == 1
    dialer.requests[0].errback(Unreachable("cannot reach web1:22"))
    assert [type(result[0].value) for result in results] == [Unreachable] * 3
    assert len(dialer.requests) == 1


def test_connects_again_when_first_caller_cancels() -> None:
    dialer = ManualDialer(Clock())
    heard: list[Any] = []
    first = Deferred.fromCoroutine(dialer.identify(WEB1, ("192.0.2.1",), "joe", new_transport))
    first.addErrback(heard.append)
    second = identify(dialer)
    first.cancel()
    assert heard[0].check(CancelledError)
    assert second == []
    assert len(dialer.requests) == 2


class PenaltyReactor(MemoryReactorClock):
    """A reactor whose TCP connections lead to an sshd that closes each with a penalty."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tried_at: list[float] = []

    def connectTCP(self, host: str, port: int, factory: Any, *arguments: Any, **named: Any) -> Any:
        self.tried_at.append(self.seconds())
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"Not allowed at this time\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        connector: Any = super().connectTCP(host, port, factory, *arguments, **named)  # type: ignore[no-untyped-call]
        return connector


def test_reports_reason_instead_of_timeout_when_target_drops() -> None:
    reactor = PenaltyReactor()
    tcp: Any = reactor
    dialer = Dialer(tcp, reactor, handshakes=8, timeout=timedelta(seconds=3))
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.connect(WEB1, ("192.0.2.1",), "joe", new_transport)).addBoth(heard.append)
    for _ in range(12):
        reactor.advance(1)  # timers come late, as on a machine that has too much to do
    assert heard[0].check(Busy)
    assert "PerSourcePenaltyExemptList" in heard[0].value.public
    assert 2 <= len(reactor.tried_at) <= 6
    assert reactor.tried_at[-1] < 3
    assert reactor.getDelayedCalls() == []


def test_cancels_wait_after_timeout() -> None:
    clock = Clock()
    dialer = ManualDialer(clock)
    never: Deferred[None] = Deferred()
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.within(never, 5, lambda: Busy("too late"))).addBoth(heard.append)
    clock.advance(4.9)
    assert heard == []
    clock.advance(0.2)
    assert heard[0].check(Busy)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("result", ["fires", "fails"])
def test_stops_timer_when_result_is_in_time(result: str) -> None:
    clock = Clock()
    dialer = ManualDialer(clock)
    soon: Deferred[int] = Deferred()
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.within(soon, 5, lambda: Busy("too late"))).addBoth(heard.append)
    if result == "fires":
        soon.callback(7)
        assert heard == [7]
    else:
        soon.errback(Unreachable("gone"))
        assert heard[0].check(Unreachable)
    assert clock.getDelayedCalls() == []
