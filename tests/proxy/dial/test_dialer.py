"""Connections to targets: shared first connections, new tries, and limits of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from conchrec.errors import Busy, Unreachable
from conchrec.model import Target
from conchrec.proxy.dial.dialer import Dialer, HandshakeDropped, Link
from conchrec.proxy.dial.handshake_gate import Slot

WEB1 = Target(host="web1")


class ManualDialer(Dialer):
    """A dialer whose connections are made by the test."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(
            Any,  # type: ignore[arg-type]
            clock,
            handshakes=8,
            timeout=timedelta(seconds=30),
        )
        self.requests: list[Deferred[Link]] = []

    async def connect(self, target: Target, addresses: Sequence[str], user: str, make: Any) -> Link:
        made: Deferred[Link] = Deferred()
        self.requests.append(made)
        return await made


def identify(dialer: ManualDialer) -> list[Any]:
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.identify(WEB1, ("192.0.2.1",), "joe", Any)).addBoth(heard.append)  # type: ignore[arg-type]
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
    first = Deferred.fromCoroutine(dialer.identify(WEB1, ("192.0.2.1",), "joe", Any))  # type: ignore[arg-type]
    first.addErrback(heard.append)
    second = identify(dialer)
    first.cancel()
    assert heard[0].check(CancelledError)
    assert second == []
    assert len(dialer.requests) == 2


class RefusedDialer(Dialer):
    """A dialer whose target drops every connection, or does after the first few."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(
            Any,  # type: ignore[arg-type]
            clock,
            handshakes=8,
            timeout=timedelta(seconds=3),
        )
        self.tries = 0

    async def _connect_one(
        self, target: Target, address: str, slot: Slot, deadline: float, make: Any
    ) -> Link:
        assert deadline > self._clock.seconds()
        self.tries += 1
        raise HandshakeDropped("Not allowed at this time")


def test_reports_reason_instead_of_timeout_when_target_drops() -> None:
    clock = Clock()
    dialer = RefusedDialer(clock)
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.connect(WEB1, ("192.0.2.1",), "joe", Any)).addBoth(heard.append)  # type: ignore[arg-type]
    for _ in range(12):
        clock.advance(1)  # timers come late, as on a machine that has too much to do
    assert heard[0].check(Busy)
    assert "PerSourcePenaltyExemptList" in heard[0].value.public
    assert 2 <= dialer.tries <= 6
    assert clock.getDelayedCalls() == []


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
