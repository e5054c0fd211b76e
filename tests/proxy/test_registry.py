"""What is open, counted for each user."""

from __future__ import annotations

from datetime import datetime

from conchrec.model import Identity
from conchrec.proxy.registry import Registry


class _Connection:
    """A LiveConnection without channels."""

    session_count = connection_count = target_channel_count = 0

    def __init__(self, user: str) -> None:
        self.identity = Identity(user=user, method="publickey")

    def end_with_reason(self, reason: str) -> None:
        raise AssertionError("this test does not expect the call")

    def drop(self) -> None:
        raise AssertionError("this test does not expect the call")

    def recheck(self) -> None:
        raise AssertionError("this test does not expect the call")

    def recheck_expired(self, now: datetime) -> None:
        raise AssertionError("this test does not expect the call")


def test_keeps_connections_by_user() -> None:
    registry, joe, ann = Registry(), _Connection("joe"), _Connection("ann")
    registry.add_connection(joe)
    registry.add_connection(ann)
    assert set(registry.connections) == {joe, ann}
    assert registry.connections_of("joe") == (joe,)
    registry.remove_connection(joe)
    registry.remove_connection(joe)
    assert (registry.connections, registry.connections_of("joe")) == ((ann,), ())


def test_counts_sessions_and_commands_by_user() -> None:
    registry = Registry()
    for _ in range(2):
        registry.add_session("joe")
    registry.add_command("joe")
    registry.remove_session("joe")
    assert [registry.session_count(user) for user in ("joe", "ann")] == [1, 0]
    assert [registry.command_count(user) for user in ("joe", "ann")] == [1, 0]
    registry.remove_session("joe")
    registry.remove_session("joe")
    registry.remove_command("joe")
    assert (registry.session_count("joe"), registry.command_count("joe")) == (0, 0)


def test_shares_waiting_bytes_between_channels_of_user() -> None:
    registry = Registry()
    first, second = registry.user_held_bytes("joe").channel(), registry.user_held_bytes("joe").channel()
    first.add(100)
    waiting = registry.user_held_bytes("joe").bytes
    assert waiting > 0 and registry.user_held_bytes("ann").bytes == 0
    del first
    assert registry.user_held_bytes("joe").bytes == waiting
    del second
    assert registry.user_held_bytes("joe").bytes == 0


def test_is_stopping_after_stop() -> None:
    registry = Registry()
    assert not registry.is_stopping
    registry.stop()
    assert registry.is_stopping
