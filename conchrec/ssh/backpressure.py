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
        self._held = False
        self.full = False
        #: Called when the socket takes more again.
        self.on_drained: Callable[[], None] = lambda: None

    @property
    def shut(self) -> bool:
        return self.full or self._held

    def attach(self, producer: Producer | None) -> None:
        """The producer from now on, or none."""
        self._producer = producer
        if producer is not None and self.shut:
            producer.pauseProducing()

    def hold(self, held: bool) -> None:
        """The transport can't send for a while, or can again."""
        before, self._held = self.shut, held
        self._tell(before)

    def pauseProducing(self) -> None:
        """The socket's word."""
        before, self.full = self.shut, True
        self._tell(before)

    def resumeProducing(self) -> None:
        before, self.full = self.shut, False
        self._tell(before)
        self.on_drained()

    def stopProducing(self) -> None:
        """The connection's end is heard of elsewhere."""

    def _tell(self, before: bool) -> None:
        if self._producer is None or before == self.shut:
            return
        if self.shut:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()
