"""Lookups of names: users in turns, and a thread that still works keeps its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred

from conchrec.proxy.dial.resolver import AT_ONCE, AT_ONCE_OF_USER, Lookups

T = TypeVar("T")


class Threads:
    """Those that work, oldest first, each with the host that it looks for."""

    def __init__(self) -> None:
        self.working: list[tuple[str, Deferred[tuple[str, ...]]]] = []
        self._asked: list[str] = []

    def looked_up(self, host: str) -> tuple[str, ...]:
        self._asked.append(host)
        return ()

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        work()
        done: Deferred[tuple[str, ...]] = Deferred()
        self.working.append((self._asked.pop(), done))
        return cast(Deferred[T], done)

    def answer(self, host: str, *addresses: str) -> None:
        found = next(pair for pair in self.working if pair[0] == host)
        self.working.remove(found)
        found[1].callback(addresses)

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.working]


def test_nobody_has_all_threads() -> None:
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    for number in range(10 * AT_ONCE):
        lookups("eve", f"slow{number}")
    assert threads.hosts == [f"slow{number}" for number in range(AT_ONCE_OF_USER)]
    found: list[tuple[str, ...]] = []
    lookups("ann", "web1").addCallback(found.append)
    threads.answer("web1", "10.0.0.1", "10.0.0.2")
    assert found == [("10.0.0.1", "10.0.0.2")]
    threads.answer("slow1")
    assert threads.hosts == ["slow0", "slow2", "slow3", f"slow{AT_ONCE_OF_USER}"]


def test_users_take_turns_where_all_threads_work() -> None:
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    for number in range(AT_ONCE // AT_ONCE_OF_USER):
        for each in range(AT_ONCE_OF_USER + 3):
            lookups(f"eve{number}", f"{number}-{each}")
    assert len(threads.hosts) == AT_ONCE
    lookups("ann", "web1")
    for number in range(AT_ONCE // AT_ONCE_OF_USER):
        threads.answer(f"{number}-0")
    assert "web1" not in threads.hosts, "they came first"
    threads.answer("0-1")
    assert "web1" in threads.hosts


def test_who_does_not_wait_any_more() -> None:
    """Leaves the line; but a thread that is at it is not free before it is done."""
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    waiting = [lookups("eve", f"slow{number}") for number in range(AT_ONCE_OF_USER + 2)]
    gone: list[object] = []
    for one in (waiting[0], waiting[AT_ONCE_OF_USER]):
        one.addErrback(lambda failure: gone.append(failure.check(CancelledError)))
        one.cancel()
    assert gone == [CancelledError] * 2
    assert threads.hosts == [f"slow{number}" for number in range(AT_ONCE_OF_USER)]
    threads.answer("slow0")
    assert threads.hosts[-1] == f"slow{AT_ONCE_OF_USER + 1}"


def test_a_lookup_that_fails_gives_its_place_back() -> None:
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    failed: list[object] = []
    for _ in range(AT_ONCE_OF_USER + 1):
        lookups("eve", "odd").addErrback(lambda failure: failed.append(failure.check(RuntimeError)))
    threads.working.pop()[1].errback(RuntimeError("no thread"))
    assert failed == [RuntimeError]
    assert len(threads.working) == AT_ONCE_OF_USER
