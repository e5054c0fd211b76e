"""Which connections are accepted, refused and dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from conchrec.audit import events
from conchrec.config.model import Limits, Startups
from conchrec.proxy.outer.connection_limits import (
    FORGIVEN_SECONDS,
    LIMITED_TO,
    MAX_FAILED,
    MOST_COUNTED,
    REPORT_SECONDS,
    TOO_MANY,
    TOO_MANY_FRUITLESS,
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_UNAUTHENTICATED,
    ConnectionLimits,
    is_dropped,
)
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_config, memory_context, memory_settings


class Unauthenticated:
    def __init__(self, stage: Stage, host: str) -> None:
        self._stage = stage
        self._host = host
        self.dropped = False
        stage.limits.add(host, self)

    def drop(self) -> None:
        self.dropped = True

    def logs_in(self) -> Unauthenticated:
        self._stage.limits.logged_in(self._host, self)
        return self

    def leaves(self) -> None:
        self._stage.limits.remove(self._host, self)


class Stage:
    def __init__(self, **limits: object) -> None:
        self.clock = Clock()
        self.log = AuditMemory()
        made = Limits(**limits)  # type: ignore[arg-type]
        config = replace(memory_config(), limits=made)
        context = memory_context(clock=self.clock, audit=self.log, settings=memory_settings(config=config))
        self.limits = ConnectionLimits(context, lambda: self.chance)
        self.chance = 0.999

    def comes(self, host: str) -> Unauthenticated | str:
        return self.limits.refusal(host) or Unauthenticated(self, host)

    def guest(self, host: str) -> Unauthenticated:
        guest = self.comes(host)
        assert isinstance(guest, Unauthenticated), guest
        return guest


@pytest.mark.parametrize(
    ("count", "chance", "expected"),
    [(9, 0.0, False), (10, 0.0, True), (10, 0.29, True), (10, 0.31, False), (35, 0.64, True),
     (35, 0.66, False), (59, 0.98, True), (60, 0.999, True), (600, 0.999, True)],
)  # fmt: skip
def test_drops_at_random_as_sshd_does(count: int, chance: float, expected: bool) -> None:
    assert is_dropped(count, Startups(begin=10, rate=30, full=60), chance) is expected


def test_limits_connections_in_all_and_of_one_address() -> None:
    stage = Stage(connections=5, per_address=2)
    first = stage.guest("192.0.2.1").logs_in()
    stage.guest("192.0.2.1")
    assert stage.comes("192.0.2.1") == TOO_MANY_OF_ADDRESS
    first.leaves()
    stage.guest("192.0.2.1")
    for number in range(2, 5):
        stage.guest(f"192.0.2.{number}")
    assert stage.comes("192.0.2.9") == TOO_MANY


def test_counts_ipv6_network_as_one_address() -> None:
    stage = Stage(per_address=2)
    stage.guest("2001:db8::1")
    stage.guest("2001:db8::2")
    assert stage.comes("2001:db8::3") == TOO_MANY_OF_ADDRESS
    stage.guest("2001:db8:0:1::1")


def test_accepts_200_connections_of_one_address() -> None:
    """With the default limits, also when all are dropped at random: an Ansible controller."""
    stage = Stage()
    stage.chance = 0.0
    guests = [stage.guest("192.0.2.1") for _ in range(200)]
    for guest in guests:
        guest.logs_in()
    for guest in guests:
        guest.leaves()
    assert [stage.guest("192.0.2.1") for _ in range(200)]


def test_drops_oldest_connection_of_address_with_most() -> None:
    stage = Stage(unauthenticated=Startups(begin=20, rate=30, full=20))
    many = [stage.guest("192.0.2.1") for _ in range(20)]
    joe = stage.guest("192.0.2.2").logs_in()
    assert many[0].dropped and not many[1].dropped
    many[0].leaves()
    stage.guest("192.0.2.3")
    assert stage.comes("192.0.2.1") == TOO_MANY_UNAUTHENTICATED
    joe.leaves()


def test_drops_new_connection_when_no_address_has_more() -> None:
    stage = Stage(unauthenticated=Startups(begin=5, rate=50, full=10))
    for number in range(5):
        stage.guest(f"192.0.2.{number}")
    stage.chance = 0.4
    assert stage.comes("192.0.2.9") == TOO_MANY_UNAUTHENTICATED
    stage.chance = 0.6
    stage.guest("192.0.2.9")


def test_limits_address_that_never_logs_in() -> None:
    stage = Stage()
    for _ in range(MAX_FAILED):
        stage.guest("192.0.2.1").leaves()
    some = [stage.guest("192.0.2.1") for _ in range(LIMITED_TO)]
    assert stage.comes("192.0.2.1") == TOO_MANY_FRUITLESS
    stage.guest("192.0.2.2")
    some[0].logs_in()
    assert [stage.guest("192.0.2.1") for _ in range(LIMITED_TO)]


def test_does_not_limit_occasional_failed_connections() -> None:
    stage = Stage()
    for _ in range(3 * MAX_FAILED):
        stage.guest("192.0.2.1").leaves()
        stage.clock.advance(FORGIVEN_SECONDS)
    assert [stage.guest("192.0.2.1") for _ in range(200)]


def test_forgets_failed_connections() -> None:
    stage = Stage()
    for _ in range(10 * MAX_FAILED):
        stage.guest("192.0.2.1").leaves()
    some = [stage.guest("192.0.2.1") for _ in range(LIMITED_TO)]
    assert isinstance(stage.comes("192.0.2.1"), str)
    stage.clock.advance((MOST_COUNTED - MAX_FAILED + 2) * FORGIVEN_SECONDS)
    assert isinstance(stage.comes("192.0.2.1"), Unauthenticated)
    assert some


def test_does_not_count_refusals_caused_by_others() -> None:
    """A refusal that others caused is not a failed connection."""
    stage = Stage()
    stage.chance = 0.0
    crowd = [stage.guest(f"2001:db8:{number:x}::1") for number in range(300)]
    for _ in range(60):
        assert stage.comes("192.0.2.1") == TOO_MANY_UNAUTHENTICATED
    for guest in crowd:
        guest.leaves()
    for _ in range(200):
        stage.guest("192.0.2.1")


def test_reports_refusals_together() -> None:
    stage = Stage(per_address=1)
    stage.guest("192.0.2.1")
    for _ in range(5):
        stage.comes("192.0.2.1")
    reports = [event for event in stage.log.events if isinstance(event, events.ConnectionRefused)]
    assert [(event.addr, event.count) for event in reports] == [("192.0.2.1", 1)]
    stage.clock.advance(REPORT_SECONDS)
    reports = [event for event in stage.log.events if isinstance(event, events.ConnectionRefused)]
    assert [event.count for event in reports] == [1, 4]
    stage.clock.advance(REPORT_SECONDS)
    assert not stage.clock.getDelayedCalls()
