"""How fast one user may open sessions."""

from __future__ import annotations

from twisted.internet.task import Clock

from conchrec.proxy.session_rate import (
    DELAY_EVENT_SECONDS,
    DELAYED_USERS,
    LONGEST_WAIT,
    REMEMBERED,
    SESSION_BURST,
    SESSIONS_PER_SECOND,
    SessionRate,
)


def test_does_not_delay_burst_of_sessions() -> None:
    """Ansible with 200 hosts, and ControlMaster."""
    rate = SessionRate(Clock())
    assert [rate.delay("joe") for _ in range(SESSION_BURST)] == [0.0] * SESSION_BURST


def test_delays_sessions_after_burst() -> None:
    clock = Clock()
    rate = SessionRate(clock)
    for _ in range(SESSION_BURST):
        rate.delay("joe")
    delays = [rate.delay("joe") or 0.0 for _ in range(5)]
    assert [round(delay * SESSIONS_PER_SECOND) for delay in delays] == [1, 2, 3, 4, 5]
    assert rate.delay("ann") == 0.0
    clock.advance(6 / SESSIONS_PER_SECOND)
    assert rate.delay("joe") == 0.0


def test_does_not_count_sessions_that_are_refused() -> None:
    clock = Clock()
    rate = SessionRate(clock)
    while rate.delay("joe") is not None:
        pass
    for _ in range(1000):
        assert rate.delay("joe") is None
    clock.advance(1.0)
    delay = rate.delay("joe")
    assert delay is not None and delay <= LONGEST_WAIT


def test_forgets_users_beyond_limit() -> None:
    rate = SessionRate(Clock())
    for user in ("joe", "ann"):
        for _ in range(SESSION_BURST):
            rate.delay(user)
    for number in range(REMEMBERED - 1):
        rate.delay(str(number))
    delay = rate.delay("ann")
    assert delay is not None and delay > 0, "one of the last users"
    assert rate.delay("joe") == 0.0, "forgotten"


def test_event_is_due_once_a_minute_for_each_user() -> None:
    clock = Clock()
    rate = SessionRate(clock)
    assert rate.is_event_due("joe")
    clock.advance(DELAY_EVENT_SECONDS - 1)
    assert not rate.is_event_due("joe")
    assert rate.is_event_due("ann")
    clock.advance(1)
    assert rate.is_event_due("joe")


def test_forgets_events_of_very_many_users() -> None:
    rate = SessionRate(Clock())
    for number in range(DELAYED_USERS):
        assert rate.is_event_due(f"user{number}")
    assert rate.is_event_due("one more")
    assert rate.is_event_due("user0")
