"""The gate for handshakes: bounded, fair, and nobody's place is lost; banners that are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from conchrec.errors import Busy, Unreachable
from conchrec.model import Target
from conchrec.proxy.dial.dialer import WAITING_FOR_PEOPLE, Dialer, Gate, HandshakeDropped, Link, Slot

WEB1 = Target(host="web1")


def enter(gate: Gate, user: str = "joe") -> list[Slot]:
    """The slot, in a list that is empty until it is given."""
    given: list[Slot] = []
    gate.enter(user).addCallback(given.append)
    return given


def test_no_more_than_there_are_places() -> None:
    gate = Gate(4)
    users = [enter(gate, f"user{number}") for number in range(6)]
    assert [len(slots) for slots in users] == [1, 1, 1, 1, 0, 0]
    users[2][0].release()
    users[2][0].release()  # once is enough
    assert [len(slots) for slots in users] == [1, 1, 1, 1, 1, 0]
    for slots in users:
        for slot in slots:
            slot.release()
    users[5][0].release()
    assert gate.idle


def test_one_user_leaves_room_for_others() -> None:
    gate = Gate(8)
    mine = [enter(gate) for _ in range(20)]
    assert sum(map(len, mine)) == 6
    theirs = enter(gate, "ann")
    assert len(theirs) == 1
    mine[0][0].release()
    assert sum(map(len, mine)) == 7


def test_users_take_turns() -> None:
    gate = Gate(1)
    first = enter(gate)
    waiting = [enter(gate) for _ in range(3)]
    ann = enter(gate, "ann")
    first[0].release()
    assert (len(waiting[0]), len(ann)) == (1, 0)
    waiting[0][0].release()
    assert (len(waiting[1]), len(ann)) == (0, 1)


def test_who_leaves_the_line_is_not_served() -> None:
    gate = Gate(1)
    first = enter(gate)
    failed: list[Any] = []
    waiting = gate.enter("joe")
    waiting.addErrback(failed.append)
    waiting.cancel()
    assert failed[0].check(CancelledError)
    first[0].release()
    assert gate.idle


def test_a_person_makes_room_and_is_counted() -> None:
    gate = Gate(1)
    waiting: list[list[Slot]] = []
    for _ in range(WAITING_FOR_PEOPLE):
        slots = enter(gate)
        slots[0].wait_for_person()
        waiting.append(slots)
    last = enter(gate)
    last[0].wait_for_person()  # too many of one user wait already: it keeps its place
    assert enter(gate, "ann") == []
    waiting[0][0].release()
    last[0].wait_for_person()
    assert not gate.idle
    for slots in (*waiting, last):
        slots[0].release()


class Looking(Dialer):
    """A dialer whose connections are made by the test."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(
            Any,  # type: ignore[arg-type]
            clock,
            handshakes=8,
            timeout=timedelta(seconds=30),
        )
        self.asked: list[Deferred[Link]] = []

    async def connect(self, target: Target, addresses: Sequence[str], user: str, make: Any) -> Link:
        made: Deferred[Link] = Deferred()
        self.asked.append(made)
        return await made


def look(dialer: Looking) -> list[Any]:
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.look(WEB1, ("192.0.2.1",), "joe", Any)).addBoth(heard.append)  # type: ignore[arg-type]
    return heard


def test_all_who_look_at_once_share_one_failure() -> None:
    dialer = Looking(Clock())
    heard = [look(dialer) for _ in range(3)]
    assert len(dialer.asked) == 1
    dialer.asked[0].errback(Unreachable("web1:22 can not be reached"))
    assert [type(one[0].value) for one in heard] == [Unreachable] * 3
    assert len(dialer.asked) == 1


def test_where_one_gives_up_the_next_one_looks() -> None:
    dialer = Looking(Clock())
    heard: list[Any] = []
    first = Deferred.fromCoroutine(dialer.look(WEB1, ("192.0.2.1",), "joe", Any))  # type: ignore[arg-type]
    first.addErrback(heard.append)
    second = look(dialer)
    first.cancel()
    assert heard[0].check(CancelledError)
    assert second == []
    assert len(dialer.asked) == 2


class Dropping(Dialer):
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


def test_the_last_word_is_why_and_not_that_the_time_is_up() -> None:
    clock = Clock()
    dialer = Dropping(clock)
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.connect(WEB1, ("192.0.2.1",), "joe", Any)).addBoth(heard.append)  # type: ignore[arg-type]
    for _ in range(12):
        clock.advance(1)  # timers come late, as on a machine that has too much to do
    assert heard[0].check(Busy)
    assert "PerSourcePenaltyExemptList" in heard[0].value.public
    assert 2 <= dialer.tries <= 6
    assert clock.getDelayedCalls() == []


def test_waiting_has_an_end() -> None:
    clock = Clock()
    dialer = Looking(clock)
    never: Deferred[None] = Deferred()
    heard: list[Any] = []
    Deferred.fromCoroutine(dialer.within(never, 5, lambda: Busy("too late"))).addBoth(heard.append)
    clock.advance(4.9)
    assert heard == []
    clock.advance(0.2)
    assert heard[0].check(Busy)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("result", ["fires", "fails"])
def test_what_comes_in_time_leaves_no_timer(result: str) -> None:
    clock = Clock()
    dialer = Looking(clock)
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
