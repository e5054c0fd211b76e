"""Modular powers and key pairs for the transports of tests: made in this process, at once or when the test
says so."""

from __future__ import annotations

import functools
from collections import deque
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from conchrec.ssh.kems import SNTRUP761, KemKeyPair
from conchrec.ssh.kex_methods import new_kex_method
from conchrec.ssh.kex_worker import key_pair, powers

T = TypeVar("T")


def at_once(modulus: int, exponent: int, bases: tuple[int, ...]) -> Deferred[tuple[int, ...]]:
    """ModularPowers that have fired already."""
    return succeed(powers(modulus, exponent, bases))


class KeyPairsAtOnce:
    """Key pairs of sntrup761 (SntrupKeyPairs), as long as ``available``."""

    def __init__(self) -> None:
        self.available = True
        self.count = 0

    def are_available(self) -> bool:
        """Return whether a client may offer sntrup761."""
        return self.available

    def take(self) -> Deferred[KemKeyPair]:
        """Make a key pair."""
        self.count += 1
        return succeed(SNTRUP761.key_pair(*key_pair()))


class SameKeyPair(KeyPairsAtOnce):
    """The same key pair each time: to make one takes 20 ms. For fuzzers, which make many connections."""

    def take(self) -> Deferred[KemKeyPair]:
        """Return the key pair."""
        return succeed(SNTRUP761.key_pair(*_only_key_pair()))


@functools.cache
def _only_key_pair() -> tuple[bytes, bytes]:
    return key_pair()


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
        self._run = new_kex_method(name, at_once, KeyPairsAtOnce())

    def offer(self) -> bytes:
        """Return the first value."""
        return result_of(self._run.offer())

    def accept(self, theirs: bytes) -> tuple[bytes, bytes]:
        """Return the second value, and the shared secret."""
        return result_of(self._run.accept(theirs))

    def complete(self, theirs: bytes) -> bytes:
        """Return the shared secret."""
        return result_of(self._run.complete(theirs))
