"""The thread pools of the service: work is kept apart by what it waits for."""

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
    """Each method runs work in a thread of one pool, and fires with its result in the reactor.

    Names may take long to resolve, and disks to write: neither waits for the other. ``pool`` makes a
    ThreadPool, or what stands for one in a test.
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
        """Start them; what was handed in before runs now."""
        for pool in self._all:
            pool.start()

    def stop(self) -> None:
        """Wait for what runs, and end the threads."""
        for pool in self._all:
            pool.stop()

    def on_disk(self, work: Callable[[], T], /) -> Deferred[T]:
        """A write that somebody waits for."""
        return deferToThreadPool(self._reactor, self._disk, work)

    def in_background(self, work: Callable[[], T], /) -> Deferred[T]:
        """What may take long, and nobody waits for."""
        return deferToThreadPool(self._reactor, self._background, work)

    def resolve(self, work: Callable[[], T], /) -> Deferred[T]:
        """A question to the resolver."""
        return deferToThreadPool(self._reactor, self._names, work)

    def read_recordings(self, work: Callable[[], T], /) -> Deferred[T]:
        """A step of a command that reads recordings."""
        return deferToThreadPool(self._reactor, self._recordings, work)

    def check_password(self, work: Callable[[], T], /) -> Deferred[T]:
        """Argon2, or the like: it takes a processor for a moment."""
        return deferToThreadPool(self._reactor, self._passwords, work)
