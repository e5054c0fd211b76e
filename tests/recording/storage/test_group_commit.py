from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from conchrec.errors import RecordingError, WriteFailed
from conchrec.recording.storage.group_commit import GroupSync
from tests.recording.recording_bench import result

T = TypeVar("T")


class Threads:
    """Threads that finish when the test wants it; ``log`` has the order of events."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._running: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self.log.append("go")
        self._running.append(lambda: done.callback(work()))
        assert len(self._running) == 1, "two trips at a time"
        return done

    def finish(self) -> None:
        self._running.pop()()


class Disk:
    def __init__(self, threads: Threads, name: str, error: Exception | None = None) -> None:
        self._threads = threads
        self._name = name
        self._error = error

    def sync(self) -> None:
        if self._error is not None:
            raise self._error
        self._threads.log.append(self._name)


def test_syncs_requests_of_one_turn_together() -> None:
    clock, threads = Clock(), Threads()
    group = GroupSync(clock, threads)
    a, b = Disk(threads, "a"), Disk(threads, "b")
    waiters = [group.sync(a), group.sync(b), group.sync(a)]
    assert threads.log == []
    clock.advance(0)
    assert threads.log == ["go"]
    assert not any(waiter.called for waiter in waiters)
    threads.finish()
    assert threads.log == ["go", "a", "b"]
    for waiter in waiters:
        result(waiter)


def test_shares_next_sync_among_requests_during_a_sync() -> None:
    clock, threads = Clock(), Threads()
    group = GroupSync(clock, threads)
    a, b = Disk(threads, "a"), Disk(threads, "b")
    first = group.sync(a)
    clock.advance(0)
    later = [group.sync(a), group.sync(b)]
    clock.advance(1)
    threads.finish()
    result(first)
    assert not any(waiter.called for waiter in later), "the trip had begun before they asked"
    clock.advance(0)
    threads.finish()
    assert threads.log == ["go", "a", "go", "a", "b"]
    for waiter in later:
        result(waiter)


def test_syncs_again_after_a_rest() -> None:
    clock, threads = Clock(), Threads()
    group = GroupSync(clock, threads)
    for _ in range(3):
        waiter = group.sync(Disk(threads, "a"))
        clock.advance(0)
        threads.finish()
        result(waiter)


def test_syncs_for_requests_made_in_a_callback() -> None:
    clock, threads = Clock(), Threads()
    group = GroupSync(clock, threads)
    a = Disk(threads, "a")
    again: list[Deferred[None]] = []
    group.sync(a).addCallback(lambda _: again.append(group.sync(a)))
    clock.advance(0)
    threads.finish()
    clock.advance(0)
    threads.finish()
    result(again[0])


def test_syncs_others_when_one_fails() -> None:
    clock, threads = Clock(), Threads()
    group = GroupSync(clock, threads)
    bad = group.sync(Disk(threads, "bad", WriteFailed("no")))
    worse = group.sync(Disk(threads, "worse", ZeroDivisionError()))
    good = group.sync(Disk(threads, "good"))
    clock.advance(0)
    threads.finish()
    result(good)
    for waiter in (bad, worse):
        with pytest.raises(RecordingError):
            result(waiter)
