"""The windows of the tunnels of one user."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from conchrec.proxy.tunnel_memory import MIN_WINDOW, TUNNEL_BYTES, TunnelMemory
from conchrec.ssh.channel_stream import WINDOW

TUNNELS = 1000
"""Of one user, by default (``sessions_per_user``)."""


def test_gives_first_tunnels_full_window() -> None:
    memory = TunnelMemory()
    assert [memory.reserve("joe") for _ in range(16)] == [WINDOW] * 16


def test_keeps_tunnels_of_user_within_budget() -> None:
    memory = TunnelMemory()
    windows = [memory.reserve("joe") for _ in range(TUNNELS)]
    assert min(windows) == MIN_WINDOW
    assert sum(windows) == memory.reserved("joe") <= TUNNEL_BYTES + TUNNELS * MIN_WINDOW
    assert memory.reserve("ann") == WINDOW


@given(st.lists(st.booleans(), max_size=200))
def test_reuses_windows_when_released(steps: list[bool]) -> None:
    memory = TunnelMemory()
    held: list[int] = []
    for reserves in steps:
        if reserves:
            held.append(memory.reserve("joe"))
        elif held:
            memory.release("joe", held.pop(0))
        assert memory.reserved("joe") == sum(held)
    for window in held:
        memory.release("joe", window)
    assert memory.reserved("joe") == 0
    assert memory.user_count == 0
