"""The limits for messages before the login and for key exchanges after it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from conchrec.ssh.peer_limits import (
    EARLY_BYTES,
    EARLY_BYTES_EACH_SECOND,
    MESSAGE_COST,
    REKEY_BURST,
    REKEY_BYTES_EACH,
    REKEY_LONGEST_PAUSE,
    REKEY_PAUSE,
    REKEY_SECONDS_EACH,
    EarlyAllowance,
    RekeyAllowance,
)


def test_pauses_longer_for_each_exchange_after_burst() -> None:
    allowance = RekeyAllowance()
    pauses = [allowance.charge(1e6, 0) for _ in range(REKEY_BURST + 100)]
    assert pauses[:REKEY_BURST] == [0.0] * REKEY_BURST
    assert pauses[REKEY_BURST : REKEY_BURST + 3] == [REKEY_PAUSE, 2 * REKEY_PAUSE, 3 * REKEY_PAUSE]
    assert pauses[-1] == max(pauses) == REKEY_LONGEST_PAUSE


@given(st.lists(st.sampled_from(["bytes", "seconds"]), min_size=1, max_size=200))
def test_never_pauses_peer_that_earns_each_exchange(paid: list[str]) -> None:
    """By volume or by time, without end."""
    allowance, seconds, carried = RekeyAllowance(), 1e6, 0
    for how in paid:
        seconds += REKEY_SECONDS_EACH if how == "seconds" else 0
        carried += REKEY_BYTES_EACH if how == "bytes" else 0
        assert allowance.charge(seconds, carried) == 0.0


def test_restores_burst_after_rest() -> None:
    allowance = RekeyAllowance()
    for _ in range(REKEY_BURST):
        assert allowance.charge(0.0, 0) == 0.0
    later = 1000 * REKEY_SECONDS_EACH
    assert sum(allowance.charge(later, 0) == 0.0 for _ in range(100)) == REKEY_BURST


def test_allows_rekey_every_256_kilobytes() -> None:
    """OpenSSH's regress/rekey.sh moves some megabytes; a hundred megabytes are slow but complete."""
    allowance = RekeyAllowance()
    pauses = [allowance.charge(0.0, number * 256 * 1024) for number in range(400)]
    assert sum(pauses[:32]) == 0
    assert all(pause <= REKEY_LONGEST_PAUSE for pause in pauses)


def test_counts_messages_and_bytes_before_login() -> None:
    small, large = EarlyAllowance(), EarlyAllowance()
    assert [small.charge(5.0, 1) for _ in range(EARLY_BYTES // MESSAGE_COST + 1)][-2:] == [True, False]
    assert [large.charge(5.0, 1 << 20) for _ in range(5)] == [True] * 4 + [False]


def test_allows_keepalives_before_login_without_end() -> None:
    """PuTTY sends IGNORE as a keepalive, also while its user waits for an approval."""
    allowance = EarlyAllowance()
    assert all(allowance.charge(float(second), 5) for second in range(100_000))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 35_000)), max_size=50))
def test_never_allows_more_than_budget_and_refill(steps: list[tuple[int, int]]) -> None:
    allowance, seconds, used = EarlyAllowance(), 0.0, 0
    for pause, size in steps:
        seconds += pause
        used += max(size, MESSAGE_COST)
        if allowance.charge(seconds, size):
            assert used <= EARLY_BYTES + seconds * EARLY_BYTES_EACH_SECOND
