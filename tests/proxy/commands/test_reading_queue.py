"""The queue of steps that read recordings: users take turns, with one step of each at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from conchrec.proxy.commands.reading_queue import ReadingQueue


class Threads:
    """Threads whose work ends when the test says so."""

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


def test_runs_steps_of_users_in_turn() -> None:
    reading, threads, did = queue(threads=1)
    for number in range(5):
        reading.run("eve", lambda number=number: did.append(f"eve {number}"))  # type: ignore[misc]
    reading.run("joe", lambda: did.append("joe"))
    reading.run("ann", lambda: did.append("ann"))
    while threads.running:
        threads.end()
    assert did == ["eve 0", "joe", "ann", "eve 1", "eve 2", "eve 3", "eve 4"]


def test_runs_one_step_of_a_user_at_a_time() -> None:
    """A user whose recordings are on a disk that hangs does not block all threads."""
    reading, threads, did = queue(threads=2)
    for _ in range(3):
        reading.run("eve", lambda: did.append("eve"))
    assert len(threads.running) == 1
    reading.run("joe", lambda: did.append("joe"))
    assert len(threads.running) == 2
    threads.running.reverse()
    threads.end()
    assert did == ["joe"]


def test_skips_steps_that_are_cancelled() -> None:
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


def test_passes_exception_of_step_to_caller() -> None:
    reading, threads, _ = queue()
    failed: list[Any] = []
    reading.run("joe", lambda: 1 // 0).addErrback(lambda failure: failed.append(failure.type))
    threads.end()
    assert failed == [ZeroDivisionError]


def test_pauses_thread_after_long_step() -> None:
    clock, threads = Clock(), Threads()
    reading = ReadingQueue(clock, threads, threads=1)
    reading.run("joe", lambda: sum(range(300_000)))
    reading.run("ann", lambda: None)
    threads.end()
    assert not threads.running
    clock.advance(1.0)
    assert len(threads.running) == 1
