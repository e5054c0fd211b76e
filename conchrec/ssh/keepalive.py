"""Keepalive requests (``keepalive@openssh.com``), like OpenSSH's ServerAliveInterval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from conchrec.clock import Clock, DelayedCall
from conchrec.ssh.connection import Connection

KEEPALIVE = b"keepalive@openssh.com"


class ReadCounter(Protocol):
    """The part of a transport that a Keepalive needs."""

    @property
    def packets_read(self) -> int:
        """A number that changes when a packet was read."""


class Keepalive:
    """Sends a keepalive request to a peer that was silent for ``interval``. Any packet counts as an answer.

    ``on_dead`` is called once, after ``count`` silent intervals with an open request; with a count of 0
    never. ``is_paused`` returns whether we have stopped reading, so that silence means nothing.
    """

    __slots__ = (
        "_awaits_reply", "_clock", "_connection", "_count", "_interval", "_is_paused", "_on_dead",
        "_packets_read", "_silent_intervals", "_timer", "_transport",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        transport: ReadCounter,
        clock: Clock,
        *,
        interval: timedelta,
        count: int,
        on_dead: Callable[[], object],
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._clock = clock
        self._interval = interval.total_seconds()
        self._count = count
        self._on_dead = on_dead
        self._is_paused = is_paused
        self._packets_read = transport.packets_read
        self._silent_intervals = 0
        self._awaits_reply = False
        self._timer: DelayedCall | None = clock.callLater(self._interval, self._check)

    def stop(self) -> None:
        """Stop the timer."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _check(self) -> None:
        """Check at the end of an interval whether anything was read."""
        packets_read = self._transport.packets_read
        silent, self._packets_read = (
            packets_read == self._packets_read and not self._is_paused(),
            packets_read,
        )
        self._silent_intervals = self._silent_intervals + 1 if silent else 0
        if self._count and self._silent_intervals > self._count:
            self._timer = None
            self._on_dead()
            return
        self._timer = self._clock.callLater(self._interval, self._check)
        # One open request is enough; more would only fill the buffers.
        if silent and not self._awaits_reply:
            self._awaits_reply = True
            self._connection.request(KEEPALIVE, on_reply=self._handle_reply)

    def _handle_reply(self, success: bool, payload: bytes) -> None:
        """Note that no request is open."""
        self._awaits_reply = False
