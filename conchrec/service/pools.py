"""The thread pools of the service, one for each kind of work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from conchrec.proxy.commands.reading_queue import THREADS
from conchrec.proxy.dial import resolver
from conchrec.proxy.password_login import AT_ONCE

T = TypeVar("T")


class Pools:
    """Runs work in threads. Each method uses one pool, and fires with the result in the reactor.

    Slow names and slow disks must not wait for each other. ``pool`` creates a ThreadPool, or a fake one in a
    test.
    """

    def __init__(self, reactor: Any, pool: Callable[..., ThreadPool] = ThreadPool) -> None:
        self._reactor = reactor
        self._disk = pool(0, 4, name="disk")
        self._names = pool(0, resolver.AT_ONCE, name="names")
        self._background = pool(0, 2, name="sealing")
        self._recordings = pool(0, THREADS, name="reading")
        self._passwords = pool(0, AT_ONCE, name="hashing")
        self._all = (self._disk, self._names, self._background, self._recordings, self._passwords)

    def start(self) -> None:
        """Start the threads; work that was added before runs now."""
        for pool in self._all:
            pool.start()

    def stop(self) -> None:
        """Wait for running work, and end the threads."""
        for pool in self._all:
            pool.stop()

    def on_disk(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run a disk operation that a connection waits for."""
        return deferToThreadPool(self._reactor, self._disk, work)

    def in_background(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run slow work that no connection waits for."""
        return deferToThreadPool(self._reactor, self._background, work)

    def resolve(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run a lookup of a name."""
        return deferToThreadPool(self._reactor, self._names, work)

    def read_recordings(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run a step of a command that reads recordings."""
        return deferToThreadPool(self._reactor, self._recordings, work)

    def check_password(self, work: Callable[[], T], /) -> Deferred[T]:
        """Run the verification of a password, which uses a processor for a fraction of a second."""
        return deferToThreadPool(self._reactor, self._passwords, work)
