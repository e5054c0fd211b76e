"""Limits of bytes per second."""

from __future__ import annotations

from twisted.internet.task import Clock

from conchrec.model import Target
from conchrec.proxy.dial.bandwidth import BURST, REMEMBERED, Bandwidth

WEB1 = Target(host="web1")


class Meter:
    def __init__(self, bandwidth: Bandwidth, user: str, per_user: int, per_target: int = 0) -> None:
        self.paused = False
        self.passed = bandwidth.meter(user, WEB1, lambda: (per_user, per_target), self._pause)

    def _pause(self, on: bool) -> None:
        assert on is not self.paused
        self.paused = on


def through(clock: Clock, *meters: Meter, seconds: int) -> int:
    """How many bytes pass when each connection sends whenever it may."""
    total = 0
    for _ in range(seconds * 100):
        for meter in meters:
            if not meter.paused:
                meter.passed(2000)
                total += 2000
        clock.advance(0.01)
    return total


def test_limits_all_connections_of_user_together() -> None:
    for count in (1, 3):
        clock = Clock()
        bandwidth = Bandwidth(clock)
        meters = [Meter(bandwidth, "joe", 50_000) for _ in range(count)]
        passed = through(clock, *meters, seconds=20)
        assert 0.9 < passed / (50_000 * 20) < 1.1
        assert clock.seconds() > 19


def test_limits_users_together_only_at_one_target() -> None:
    clock = Clock()
    apart = Bandwidth(clock)
    passed = through(clock, Meter(apart, "joe", 50_000), Meter(apart, "ann", 50_000), seconds=20)
    assert 0.9 < passed / (100_000 * 20) < 1.1
    together = Bandwidth(clock)
    passed = through(clock, Meter(together, "joe", 0, 50_000), Meter(together, "ann", 0, 50_000), seconds=20)
    assert 0.9 < passed / (50_000 * 20) < 1.1


def test_keystroke_does_not_wait_for_transfer() -> None:
    clock = Clock()
    bandwidth = Bandwidth(clock)
    bulk, keys = Meter(bandwidth, "joe", 1_000_000), Meter(bandwidth, "joe", 1_000_000)
    waited = 0
    for _ in range(1000):
        if not bulk.paused:
            bulk.passed(32_768)
        if keys.paused:
            waited += 1
        else:
            keys.passed(40)
        clock.advance(0.005)
        assert waited < 30
        if not keys.paused:
            waited = 0


def test_allows_burst_after_pause() -> None:
    clock = Clock()
    clock.advance(100)
    meter = Meter(Bandwidth(clock), "joe", 1000)
    meter.passed(int(1000 * BURST) - 1)
    assert not meter.paused
    meter.passed(1000)
    assert meter.paused
    clock.advance(1.1)
    assert not meter.paused


def test_forgets_idle_users() -> None:
    clock = Clock()
    bandwidth = Bandwidth(clock)
    for number in range(3 * REMEMBERED):
        Meter(bandwidth, str(number), 1000).passed(1)
        clock.advance(0.01)
    assert bandwidth.remembered <= REMEMBERED


def test_delays_no_connection_for_bytes_of_others() -> None:
    """One user with many busy connections, and one who types, at the same target."""
    clock = Clock()
    bandwidth = Bandwidth(clock)
    rate = 100_000
    greedy = [Meter(bandwidth, "joe", 0, rate) for _ in range(20)]
    keys = Meter(bandwidth, "ann", 0, rate)
    total, longest, since = 0, 0.0, 0.0
    for _ in range(6000):
        for meter in greedy:
            if not meter.paused:
                meter.passed(32_768)
                total += 32_768
        if not keys.paused:
            longest, since = max(longest, clock.seconds() - since), clock.seconds()
            keys.passed(100)
            total += 100
        clock.advance(0.01)
    assert longest < 0.1
    assert 0.8 < total / (rate * 60) < 1.25


def test_shares_limit_between_connections() -> None:
    clock = Clock()
    bandwidth = Bandwidth(clock)
    joes = [Meter(bandwidth, "joe", 0, 100_000) for _ in range(3)]
    ann = Meter(bandwidth, "ann", 0, 100_000)
    passed = dict.fromkeys((*joes, ann), 0)
    for _ in range(6000):
        for meter in passed:
            if not meter.paused:
                meter.passed(8192)
                passed[meter] += 8192
        clock.advance(0.01)
    assert 0.9 < passed[ann] / (25_000 * 60) < 1.1
    assert 0.9 < sum(passed.values()) / (100_000 * 60) < 1.1


def test_counts_bytes_that_pass_during_pause() -> None:
    clock = Clock()
    bandwidth = Bandwidth(clock)
    meters = [Meter(bandwidth, "joe", 100_000) for _ in range(4)]
    total = 0
    for _ in range(6000):
        for meter in meters:
            if not meter.paused:
                for _ in range(8):  # a window's worth
                    meter.passed(8192)
                    total += 8192
        clock.advance(0.01)
    assert 0.9 < total / (100_000 * 60) < 1.25
