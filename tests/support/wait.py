"""Waiting for facts, with an end. Nothing in here waits for time to pass."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")
reactor = cast(PosixReactorBase, _reactor)

LONG = 60.0
"""Seconds that anything may take on a slow machine with other work to do."""


class TookTooLong(AssertionError):
    """What a test waited for did not happen."""


async def fact(look: Callable[[], T | None], what: str | Callable[[], str], within: float = LONG) -> T:
    """Wait until ``look`` returns something true, and return that; TookTooLong names ``what`` otherwise."""
    end = reactor.seconds() + within
    while True:
        value = look()
        if value:
            return value
        if reactor.seconds() > end:
            raise TookTooLong(what if isinstance(what, str) else what())
        await deferLater(cast(IReactorTime, reactor), 0.02)


async def becomes(
    ask: Callable[[], Coroutine[Deferred[Any], Any, object]], wanted: object, what: str, within: float = LONG
) -> None:
    """Wait until that is what somebody says who has to be asked again each time."""
    end = reactor.seconds() + within
    while (value := await ask()) != wanted:
        if reactor.seconds() > end:
            raise TookTooLong(f"{what}: {value}")
        await deferLater(cast(IReactorTime, reactor), 0.1)


async def in_time(deferred: Deferred[T], what: Callable[[], str], within: float = LONG) -> T:
    """The result of ``deferred``; it is cancelled where it takes too long, and TookTooLong says ``what``."""
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        deferred.cancel()

    timer = reactor.callLater(within, give_up)
    try:
        return await deferred
    except Exception as error:
        if late:
            raise TookTooLong(what()) from error
        raise
    finally:
        try:
            timer.cancel()
        except (AlreadyCalled, AlreadyCancelled):
            pass


async def together(coroutines: Iterable[Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """Run all at once and wait for all; the results in order, or the first failure."""
    results = await DeferredList([ensureDeferred(coroutine) for coroutine in coroutines], consumeErrors=True)
    for well, result in results:
        if not well:
            cast(Failure, result).raiseException()
    return [result for _, result in results]


def in_thread(function: Callable[[], T]) -> Deferred[T]:
    """Run blocking code (another SSH stack, say) while the reactor goes on. It begins at once."""
    return ensureDeferred(_in_thread(function))


async def _in_thread(function: Callable[[], T]) -> T:
    pool = ThreadPool(1, 1, name="test")
    pool.start()
    try:
        return await deferToThreadPool(cast(IReactorFromThreads, reactor), pool, function)
    finally:
        pool.stop()


def block(awaitable: Coroutine[Deferred[Any], Any, T]) -> T:
    """For fixtures that are plain functions: run to the end in the reactor."""
    result: T = pytest_twisted.blockon(ensureDeferred(awaitable))
    return result
