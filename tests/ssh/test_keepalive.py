"""Keepalive requests to active, silent and paused peers."""

from __future__ import annotations

from datetime import timedelta

from twisted.internet.task import Clock

from conchrec.ssh.connection import Connection
from conchrec.ssh.keepalive import KEEPALIVE, Keepalive


class Peer(Connection):
    """Counts requests, and answers them if ``there``."""

    def __init__(self) -> None:
        self.packets_read = 0
        self.there = True
        self.requests = 0

    def request(self, name: bytes, extra: bytes = b"", on_reply: object = None) -> None:
        assert (name, extra) == (KEEPALIVE, b"")
        assert callable(on_reply)
        self.requests += 1
        if self.there:
            self.packets_read += 1
            on_reply(False, b"")


class Watch:
    def __init__(self, count: int = 3) -> None:
        self.clock, self.peer = Clock(), Peer()
        self.dead = 0
        self.deaf = False
        self.keepalive = Keepalive(
            self.peer,
            self.peer,
            self.clock,
            interval=timedelta(seconds=10),
            count=count,
            on_dead=self._died,
            is_paused=lambda: self.deaf,
        )

    def _died(self) -> None:
        self.dead += 1

    def intervals(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(10)


def test_sends_nothing_while_peer_is_active() -> None:
    watch = Watch()
    for _ in range(20):
        watch.peer.packets_read += 1
        watch.intervals(1)
    assert (watch.peer.requests, watch.dead) == (0, 0)


def test_keeps_silent_peer_that_answers() -> None:
    watch = Watch()
    watch.intervals(20)
    # The reply counts as activity in the next interval.
    assert (watch.peer.requests, watch.dead) == (10, 0)


def test_gives_up_peer_that_does_not_answer() -> None:
    watch = Watch()
    watch.peer.there = False
    watch.intervals(3)
    assert (watch.peer.requests, watch.dead) == (1, 0)
    watch.intervals(1)
    assert watch.dead == 1
    watch.intervals(5)
    assert watch.dead == 1
    assert watch.clock.getDelayedCalls() == []


def test_counts_any_packet_as_answer() -> None:
    watch = Watch()
    watch.peer.there = False
    for _ in range(5):
        watch.intervals(3)
        watch.peer.packets_read += 1
        watch.intervals(1)
    assert (watch.peer.requests, watch.dead) == (1, 0)


def test_keeps_peer_while_reading_is_paused() -> None:
    watch = Watch()
    watch.peer.there = False
    watch.deaf = True
    watch.intervals(50)
    assert (watch.peer.requests, watch.dead) == (0, 0)
    watch.deaf = False
    watch.intervals(4)
    assert watch.dead == 1


def test_never_gives_up_with_count_of_zero() -> None:
    watch = Watch(count=0)
    watch.peer.there = False
    watch.intervals(100)
    assert (watch.peer.requests, watch.dead) == (1, 0)


def test_sends_nothing_after_stop() -> None:
    watch = Watch()
    watch.peer.there = False
    watch.keepalive.stop()
    watch.keepalive.stop()
    assert watch.clock.getDelayedCalls() == []
