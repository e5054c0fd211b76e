"""Pressure: whatever feeds a connection is paused while the connection can't pass on what it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


class Producer(Protocol):
    """IPushProducer."""

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...


@implementer(IPushProducer)
class WriteBackpressure:
    """Between a socket and whoever writes to its transport.

    Shut while the socket does not drain (``full``), and while the transport itself holds messages back
    (``hold``); the one producer hears of changes alone.
    """

    def __init__(self) -> None:
        self._producer: Producer | None = None
        self._is_held = False
        self.full = False
        #: Called when the socket takes more again.
        self.on_drained: Callable[[], None] = lambda: None

    @property
    def is_paused(self) -> bool:
        return self.full or self._is_held

    def attach(self, producer: Producer | None) -> None:
        """The producer from now on, or none."""
        self._producer = producer
        if producer is not None and self.is_paused:
            producer.pauseProducing()

    def hold(self, on: bool) -> None:
        """The transport can't send for a while, or can again."""
        was_paused, self._is_held = self.is_paused, on
        self._notify_producer(was_paused)

    def pauseProducing(self) -> None:
        """The socket's word."""
        was_paused, self.full = self.is_paused, True
        self._notify_producer(was_paused)

    def resumeProducing(self) -> None:
        was_paused, self.full = self.is_paused, False
        self._notify_producer(was_paused)
        self.on_drained()

    def stopProducing(self) -> None:
        """The connection's end is heard of elsewhere."""

    def _notify_producer(self, was_paused: bool) -> None:
        if self._producer is None or was_paused == self.is_paused:
            return
        if self.is_paused:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()
