"""What is open, counted for each user."""

from __future__ import annotations

from typing import cast

from conchrec.model import Identity
from conchrec.proxy.registry import DELAY_EVENT_SECONDS, DELAYED_USERS, LiveConnection, Registry


class _Connection:
    def __init__(self, user: str) -> None:
        self.identity = Identity(user=user, method="publickey")


def _connection(user: str) -> LiveConnection:
    return cast(LiveConnection, _Connection(user))


def test_keeps_connections_by_user() -> None:
    registry, joe, ann = Registry(), _connection("joe"), _connection("ann")
    registry.connection_began(joe)
    registry.connection_began(ann)
    assert set(registry.connections) == {joe, ann}
    assert registry.connections_of("joe") == (joe,)
    registry.connection_over(joe)
    registry.connection_over(joe)
    assert (registry.connections, registry.connections_of("joe")) == ((ann,), ())


def test_counts_sessions_and_commands_by_user() -> None:
    registry = Registry()
    for _ in range(2):
        registry.session_began("joe")
    registry.command_began("joe")
    registry.session_over("joe")
    assert [registry.session_count(user) for user in ("joe", "ann")] == [1, 0]
    assert [registry.command_count(user) for user in ("joe", "ann")] == [1, 0]
    registry.session_over("joe")
    registry.session_over("joe")
    registry.command_over("joe")
    assert (registry.session_count("joe"), registry.command_count("joe")) == (0, 0)


def test_delay_event_is_due_once_a_minute_for_each_user() -> None:
    registry = Registry()
    assert registry.is_delay_event_due("joe", 1.0)
    assert not registry.is_delay_event_due("joe", DELAY_EVENT_SECONDS)
    assert registry.is_delay_event_due("ann", 2.0)
    assert registry.is_delay_event_due("joe", 1.0 + DELAY_EVENT_SECONDS)


def test_forgets_delay_events_of_very_many_users() -> None:
    registry = Registry()
    for number in range(DELAYED_USERS):
        assert registry.is_delay_event_due(f"user{number}", 0.0)
    assert registry.is_delay_event_due("one more", 0.0)
    assert registry.is_delay_event_due("user0", 0.0)


def test_channels_of_a_user_share_what_waits_until_the_last_one_ends() -> None:
    registry = Registry()
    first, second = registry.user_waiting("joe").channel(), registry.user_waiting("joe").channel()
    first.add(100)
    waiting = registry.user_waiting("joe").bytes
    assert waiting > 0 and registry.user_waiting("ann").bytes == 0
    del first
    assert registry.user_waiting("joe").bytes == waiting
    del second
    assert registry.user_waiting("joe").bytes == 0


def test_nothing_begins_after_stop() -> None:
    registry = Registry()
    assert not registry.stopping
    registry.stop()
    assert registry.stopping
