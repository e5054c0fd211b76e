"""What one user may have: memory of tunnels, and new sessions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from conchrec.proxy.user_limits import (
    LEAST_ROOM,
    LONGEST_WAIT,
    REMEMBERED,
    SESSION_BURST,
    SESSIONS_PER_SECOND,
    USER_BYTES,
    SessionRate,
    TunnelMemory,
)
from conchrec.ssh.channel_stream import WINDOW

WAYS = 1000
"""Of one user, by default (``sessions_per_user``)."""


def test_few_tunnels_have_a_full_window() -> None:
    rooms = TunnelMemory()
    assert [rooms.take("joe") for _ in range(16)] == [WINDOW] * 16


def test_all_tunnels_of_a_user_fit_into_the_budget() -> None:
    rooms = TunnelMemory()
    sizes = [rooms.take("joe") for _ in range(WAYS)]
    assert min(sizes) == LEAST_ROOM
    assert sum(sizes) == rooms.taken("joe") <= USER_BYTES + WAYS * LEAST_ROOM
    assert rooms.take("ann") == WINDOW


@given(st.lists(st.booleans(), max_size=200))
def test_what_is_given_back_is_there_again(steps: list[bool]) -> None:
    rooms = TunnelMemory()
    held: list[int] = []
    for takes in steps:
        if takes:
            held.append(rooms.take("joe"))
        elif held:
            rooms.give_back("joe", held.pop(0))
        assert rooms.taken("joe") == sum(held)
    for room in held:
        rooms.give_back("joe", room)
    assert rooms.taken("joe") == 0
    assert not rooms._taken


def test_a_burst_of_sessions_does_not_wait() -> None:
    """Ansible with 200 hosts, and ControlMaster."""
    rate = SessionRate(Clock())
    assert [rate.wait("joe") for _ in range(SESSION_BURST)] == [0.0] * SESSION_BURST


def test_then_they_begin_one_after_the_other() -> None:
    clock = Clock()
    rate = SessionRate(clock)
    for _ in range(SESSION_BURST):
        rate.wait("joe")
    waits = [rate.wait("joe") or 0.0 for _ in range(5)]
    assert [round(wait * SESSIONS_PER_SECOND) for wait in waits] == [1, 2, 3, 4, 5]
    assert rate.wait("ann") == 0.0
    clock.advance(6 / SESSIONS_PER_SECOND)
    assert rate.wait("joe") == 0.0


def test_what_would_wait_too_long_is_refused_and_not_counted() -> None:
    clock = Clock()
    rate = SessionRate(clock)
    while rate.wait("joe") is not None:
        pass
    for _ in range(1000):
        assert rate.wait("joe") is None
    clock.advance(1.0)
    wait = rate.wait("joe")
    assert wait is not None and wait <= LONGEST_WAIT


def test_users_are_forgotten() -> None:
    rate = SessionRate(Clock())
    for number in range(REMEMBERED + 100):
        rate.wait(str(number))
    assert len(rate._paid_at) == REMEMBERED
