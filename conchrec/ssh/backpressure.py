"""Backpressure: the producer of a connection's data is paused while the connection cannot send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


class Producer(Protocol):
    """The part of Twisted's IPushProducer that is used here."""

    def pauseProducing(self) -> None:
        """Stop producing data until ``resumeProducing``."""

    def resumeProducing(self) -> None:
        """Continue producing data."""


@implementer(IPushProducer)
class WriteBackpressure:
    """Pauses the one producer that writes to a transport.

    The producer is paused while the socket does not drain (``full``) and while the transport holds messages
    back (``hold``). It is only called when its state changes.
    """

    def __init__(self) -> None:
        self._producer: Producer | None = None
        self._is_held = False
        self.full = False
        #: Called when the socket has drained.
        self.on_drained: Callable[[], None] = lambda: None

    @property
    def is_paused(self) -> bool:
        """Whether the producer is paused."""
        return self.full or self._is_held

    def attach(self, producer: Producer | None) -> None:
        """Set the producer, or remove it with None."""
        self._producer = producer
        if producer is not None and self.is_paused:
            producer.pauseProducing()

    def hold(self, on: bool) -> None:
        """Pause or resume the producer because of the transport, for example during a key exchange."""
        was_paused, self._is_held = self.is_paused, on
        self._notify_producer(was_paused)

    def pauseProducing(self) -> None:
        """Handle a full socket. Called by the socket."""
        was_paused, self.full = self.is_paused, True
        self._notify_producer(was_paused)

    def resumeProducing(self) -> None:
        """Handle a socket that has drained. Called by the socket."""
        was_paused, self.full = self.is_paused, False
        self._notify_producer(was_paused)
        self.on_drained()

    def stopProducing(self) -> None:
        """Do nothing: the transport handles the end of the connection."""

    def _notify_producer(self, was_paused: bool) -> None:
        """Pause or resume the producer if the state has changed since ``was_paused``."""
        if self._producer is None or was_paused == self.is_paused:
            return
        if self.is_paused:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()
