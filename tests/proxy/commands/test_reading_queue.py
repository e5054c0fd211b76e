"""Steps of reading recordings: users in turn, one step of each at a time, none for a viewer who has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from conchrec.proxy.commands.reading_queue import ReadingQueue


class Threads:
    """Work that is in a thread, until the test lets it end."""

    def __init__(self) -> None:
        self.running: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, work: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.running.append((done, work))
        return done

    def end(self) -> None:
        done, work = self.running.pop(0)
        done.callback(work())


def queue(threads: int = 2) -> tuple[ReadingQueue, Threads, list[str]]:
    pool = Threads()
    return ReadingQueue(Clock(), pool, threads=threads), pool, []


def test_a_user_with_many_viewers_has_one_turn_as_others_do() -> None:
    reading, threads, did = queue(threads=1)
    for number in range(5):
        reading.run("eve", lambda number=number: did.append(f"eve {number}"))  # type: ignore[misc]
    reading.run("joe", lambda: did.append("joe"))
    reading.run("ann", lambda: did.append("ann"))
    while threads.running:
        threads.end()
    assert did == ["eve 0", "joe", "ann", "eve 1", "eve 2", "eve 3", "eve 4"]


def test_a_user_has_one_step_under_way() -> None:
    """Whose recordings are on a disk that does not answer keeps no thread from others."""
    reading, threads, did = queue(threads=2)
    for _ in range(3):
        reading.run("eve", lambda: did.append("eve"))
    assert len(threads.running) == 1
    reading.run("joe", lambda: did.append("joe"))
    assert len(threads.running) == 2
    threads.running.reverse()
    threads.end()
    assert did == ["joe"]


def test_a_step_that_is_cancelled_is_not_done() -> None:
    reading, threads, did = queue(threads=1)
    first = reading.run("eve", lambda: did.append("first"))
    steps = [reading.run("eve", lambda: did.append("later")) for _ in range(3)]
    caught: list[Any] = []
    for step in (first, *steps):
        step.addErrback(lambda failure: caught.append(failure.type))
        step.cancel()
    threads.end()
    assert not threads.running
    assert did == ["first"]
    assert caught == [CancelledError] * 4
    reading.run("eve", lambda: did.append("again"))
    threads.end()
    assert did == ["first", "again"]


def test_what_a_step_raises_is_its_callers() -> None:
    reading, threads, _ = queue()
    failed: list[Any] = []
    reading.run("joe", lambda: 1 // 0).addErrback(lambda failure: failed.append(failure.type))
    threads.end()
    assert failed == [ZeroDivisionError]


def test_a_thread_rests_as_long_as_its_step_took() -> None:
    clock, threads = Clock(), Threads()
    reading = ReadingQueue(clock, threads, threads=1)
    reading.run("joe", lambda: sum(range(300_000)))
    reading.run("ann", lambda: None)
    threads.end()
    assert not threads.running
    clock.advance(1.0)
    assert len(threads.running) == 1
