"""Token buckets: how often something may happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.token_bucket import Rate, TokenBucket, TokenBuckets

RATE = Rate(10, 2)
STEPS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 15)), max_size=50)


def test_is_full_at_first() -> None:
    """Whatever the clock says."""
    for now in (0.0, 1e6):
        assert TokenBucket(RATE).fill(now) == 10
        assert [TokenBucket(RATE).charge(now, 4), TokenBucket(RATE).charge(now)] == [6, 9]


def test_takes_burst_and_then_what_was_earned() -> None:
    bucket = TokenBucket(RATE)
    assert [bucket.take(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert [bucket.take(100.4), bucket.take(100.5), bucket.take(100.5)] == [False, True, False]
    assert sum(bucket.take(1000.0) for _ in range(100)) == 10


def test_charges_tokens_that_are_missing() -> None:
    bucket = TokenBucket(RATE)
    assert bucket.charge(0.0, 25) == -15
    assert bucket.fill(5.0) == -5
    assert not bucket.take(5.0)
    assert bucket.take(8.0)


def test_limits_debt() -> None:
    bucket = TokenBucket(Rate(10, 2, most_debt=3))
    assert [bucket.charge(0.0, 12), bucket.charge(0.0, 12), bucket.charge(1.0)] == [-2, -3, -2]


def test_adds_tokens_up_to_burst() -> None:
    bucket = TokenBucket(RATE)
    bucket.charge(0.0, 5)
    bucket.add(3)
    assert bucket.fill(0.0) == 8
    bucket.add(30)
    assert bucket.fill(0.0) == 10


def test_applies_new_rate_to_what_is_left() -> None:
    bucket = TokenBucket(RATE)
    bucket.charge(0.0, 4)
    bucket.rate = Rate(3, 0.5)
    assert bucket.charge(0.0, 3) == 0
    assert bucket.fill(4.0) == 2


@given(STEPS)
def test_level_is_that_of_simulation_in_small_steps(steps: list[tuple[int, int]]) -> None:
    """As if half a token came every quarter of a second, and the bucket overflowed at once."""
    bucket, now, level = TokenBucket(RATE), 0.0, 10.0
    for quarters, tokens in steps:
        for _ in range(quarters):
            level = min(level + 0.5, 10.0)
        level -= tokens
        now += quarters / 4
        assert bucket.charge(now, tokens) == level


@given(STEPS)
def test_never_takes_more_than_burst_and_earned(steps: list[tuple[int, int]]) -> None:
    bucket, now, total = TokenBucket(RATE), 0.0, 0
    for quarters, attempts in steps:
        now += quarters / 4
        total += sum(bucket.take(now) for _ in range(attempts))
        assert total <= RATE.burst + now * RATE.per_second


def test_keeps_bucket_for_each_name() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(Rate(1, 1), 10)
    assert [buckets.take(name, 0.0) for name in ("joe", "ann", "joe")] == [True, True, False]
    assert [buckets.level(name, 0.5) for name in ("joe", "nobody")] == [0.5, 1]
    assert buckets.charge("joe", 0.5) == -0.5
    buckets.forget("joe")
    buckets.forget("nobody")
    assert buckets.level("joe", 0.5) == 1
    assert len(buckets) == 1


@pytest.mark.parametrize("use", ["charge", "take"])
def test_forgets_names_least_recently_charged(use: str) -> None:
    buckets: TokenBuckets[str] = TokenBuckets(Rate(1, 1), 2)
    for name in ("joe", "ann", "joe"):
        getattr(buckets, use)(name, 0.0)
    buckets.level("ann", 0.0)  # a look does not count
    getattr(buckets, use)("eve", 0.0)
    assert len(buckets) == 2
    assert buckets.level("ann", 0.0) == 1
    assert buckets.level("joe", 0.0) < 1
