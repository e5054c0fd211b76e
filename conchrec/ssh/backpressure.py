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


def change_reasons(reasons: tuple[str, ...], reason: str, on: bool) -> tuple[str, ...]:
    """Return ``reasons`` with or without ``reason``.

    A tuple, because an empty one takes no memory, and most connections have no reason to pause.
    """
    if on == (reason in reasons):
        return reasons
    return (*reasons, reason) if on else tuple(other for other in reasons if other != reason)


class Backpressure:
    """Pauses one producer while there is a reason to. The producer is called only when that changes."""

    __slots__ = ("_producer", "_reasons")

    def __init__(self) -> None:
        self._producer: Producer | None = None
        self._reasons: tuple[str, ...] = ()

    @property
    def is_paused(self) -> bool:
        """Whether there is a reason to pause."""
        return bool(self._reasons)

    def attach(self, producer: Producer | None) -> None:
        """Set the producer, or remove it with None."""
        self._producer = producer
        if producer is not None and self._reasons:
            producer.pauseProducing()

    def set(self, reason: str, on: bool) -> bool:
        """Add or remove a reason. Return whether the producer was paused or resumed."""
        was_paused = bool(self._reasons)
        self._reasons = change_reasons(self._reasons, reason, on)
        is_paused = bool(self._reasons)
        if is_paused == was_paused:
            return False
        if self._producer is not None:
            if is_paused:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()
        return True


@implementer(IPushProducer)
class WriteBackpressure:
    """Pauses the one producer that writes to a transport.

    The producer is paused while the socket does not drain (``full``) and while the transport holds messages
    back (``hold``).
    """

    __slots__ = (
        "_pressure", "full", "on_drained",
    )  # fmt: skip

    def __init__(self) -> None:
        self._pressure = Backpressure()
        self.full = False
        #: Called when the socket has drained.
        self.on_drained: Callable[[], None] = lambda: None

    def attach(self, producer: Producer | None) -> None:
        """Set the producer, or remove it with None."""
        self._pressure.attach(producer)

    def hold(self, on: bool) -> None:
        """Pause or resume the producer because of the transport, for example during a key exchange."""
        self._pressure.set("transport", on)

    def pauseProducing(self) -> None:
        """Handle a full socket. Called by the socket."""
        self.full = True
        self._pressure.set("socket", True)

    def resumeProducing(self) -> None:
        """Handle a socket that has drained. Called by the socket."""
        self.full = False
        self._pressure.set("socket", False)
        self.on_drained()

    def stopProducing(self) -> None:
        """Do nothing: the transport handles the end of the connection."""
