"""The gate for handshakes: it is bounded and fair, and no slot is lost."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError

from conchrec.proxy.dial.handshake_gate import WAITING_FOR_PEOPLE, Gate, Slot


def enter(gate: Gate, user: str = "joe") -> list[Slot]:
    """The slot, in a list that is empty until it is given."""
    given: list[Slot] = []
    gate.enter(user).addCallback(given.append)
    return given


def test_admits_up_to_capacity() -> None:
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
    assert gate.is_idle


def test_leaves_slots_for_other_users() -> None:
    gate = Gate(8)
    mine = [enter(gate) for _ in range(20)]
    assert sum(map(len, mine)) == 6
    theirs = enter(gate, "ann")
    assert len(theirs) == 1
    mine[0][0].release()
    assert sum(map(len, mine)) == 7


def test_admits_users_in_turn() -> None:
    gate = Gate(1)
    first = enter(gate)
    waiting = [enter(gate) for _ in range(3)]
    ann = enter(gate, "ann")
    first[0].release()
    assert (len(waiting[0]), len(ann)) == (1, 0)
    waiting[0][0].release()
    assert (len(waiting[1]), len(ann)) == (0, 1)


def test_skips_request_that_is_cancelled() -> None:
    gate = Gate(1)
    first = enter(gate)
    failed: list[Any] = []
    waiting = gate.enter("joe")
    waiting.addErrback(failed.append)
    waiting.cancel()
    assert failed[0].check(CancelledError)
    first[0].release()
    assert gate.is_idle


def test_releases_slot_while_person_is_asked() -> None:
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
    assert not gate.is_idle
    for slots in (*waiting, last):
        slots[0].release()
