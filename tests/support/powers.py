"""Modular powers for the transports of tests: computed in this process, at once or when the test says so."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from conchrec.ssh.dh_worker import powers
from conchrec.ssh.kex_methods import new_kex_method

T = TypeVar("T")


def at_once(modulus: int, exponent: int, bases: tuple[int, ...]) -> Deferred[tuple[int, ...]]:
    """ModularPowers that have fired already."""
    return succeed(powers(modulus, exponent, bases))


class Later:
    """ModularPowers that wait for ``answer`` or ``fail``; first come, first served."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Deferred[tuple[int, ...]], tuple[int, int, tuple[int, ...]]]] = deque()
        self.cancelled = 0

    def __call__(self, modulus: int, exponent: int, bases: tuple[int, ...]) -> Deferred[tuple[int, ...]]:
        """Queue a request."""

        def cancel(answer: Deferred[tuple[int, ...]]) -> None:
            self.waiting.remove((answer, request))
            self.cancelled += 1

        request = (modulus, exponent, bases)
        answer: Deferred[tuple[int, ...]] = Deferred(cancel)
        self.waiting.append((answer, request))
        return answer

    def answer(self) -> None:
        """Compute the request that came first."""
        answer, request = self.waiting.popleft()
        answer.callback(powers(*request))

    def fail(self, error: Exception) -> None:
        """The request that came first fails."""
        self.waiting.popleft()[0].errback(Failure(error))


def result_of(done: Deferred[T]) -> T:
    """The result of a Deferred that has fired; raises its failure."""
    results: list[T] = []
    failures: list[Failure] = []
    done.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    assert results, "it has not fired"
    return results[0]


class Run:
    """A key exchange whose results are there at once."""

    def __init__(self, name: bytes) -> None:
        self._run = new_kex_method(name, at_once)

    def offer(self) -> bytes:
        """Return the first value."""
        return result_of(self._run.offer())

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        """Return the second value, and the shared secret."""
        return result_of(self._run.accept(theirs))

    def complete(self, theirs: bytes) -> bytes:
        """Return the shared secret."""
        return result_of(self._run.complete(theirs))
