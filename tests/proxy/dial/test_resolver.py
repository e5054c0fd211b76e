"""Lookups of names: users take turns, and a thread that works keeps its slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from conchrec.proxy.dial.resolver import AT_ONCE, AT_ONCE_OF_USER, Lookups

T = TypeVar("T")


class Threads:
    """The running lookups, oldest first, each with its host."""

    def __init__(self) -> None:
        self.working: list[tuple[str, Deferred[Any]]] = []
        self._hosts: list[str] = []

    def looked_up(self, host: str) -> tuple[str, ...]:
        self._hosts.append(host)
        return ()

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        work()
        done: Deferred[T] = Deferred()
        self.working.append((self._hosts.pop(), done))
        return done

    def answer(self, host: str, *addresses: str) -> None:
        lookup = next(pair for pair in self.working if pair[0] == host)
        self.working.remove(lookup)
        lookup[1].callback(addresses)

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.working]


def test_limits_lookups_of_one_user() -> None:
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    for number in range(10 * AT_ONCE):
        lookups("eve", f"slow{number}")
    assert threads.hosts == [f"slow{number}" for number in range(AT_ONCE_OF_USER)]
    addresses: list[tuple[str, ...]] = []
    lookups("ann", "web1").addCallback(addresses.append)
    threads.answer("web1", "10.0.0.1", "10.0.0.2")
    assert addresses == [("10.0.0.1", "10.0.0.2")]
    threads.answer("slow1")
    assert threads.hosts == ["slow0", "slow2", "slow3", f"slow{AT_ONCE_OF_USER}"]


def test_serves_users_in_turn_when_all_threads_are_busy() -> None:
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


def test_cancelled_lookup_keeps_its_thread_busy() -> None:
    """A lookup in the queue leaves it; a thread that works is not free before it is done."""
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    waiting = [lookups("eve", f"slow{number}") for number in range(AT_ONCE_OF_USER + 2)]
    gone: list[object] = []
    for lookup in (waiting[0], waiting[AT_ONCE_OF_USER]):
        lookup.addErrback(lambda failure: gone.append(failure.check(CancelledError)))
        lookup.cancel()
    assert gone == [CancelledError] * 2
    assert threads.hosts == [f"slow{number}" for number in range(AT_ONCE_OF_USER)]
    threads.answer("slow0")
    assert threads.hosts[-1] == f"slow{AT_ONCE_OF_USER + 1}"


def test_releases_slot_when_lookup_fails() -> None:
    threads = Threads()
    lookups = Lookups(threads.looked_up, threads)
    failed: list[object] = []
    for _ in range(AT_ONCE_OF_USER + 1):
        lookups("eve", "odd").addErrback(lambda failure: failed.append(failure.check(RuntimeError)))
    threads.working.pop()[1].errback(RuntimeError("no thread"))
    assert failed == [RuntimeError]
    assert len(threads.working) == AT_ONCE_OF_USER
