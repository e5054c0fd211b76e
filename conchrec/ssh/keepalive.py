"""Is the peer still there? ``keepalive@openssh.com``, as ssh and sshd ask it (ServerAlive…, ClientAlive…)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from conchrec.clock import Clock, DelayedCall
from conchrec.ssh.connection import Connection

KEEPALIVE = b"keepalive@openssh.com"


class ReadCounter(Protocol):
    """A transport, as far as it is listened to."""

    @property
    def packets_read(self) -> int:
        """Another number than before, where anything was read since."""


class Keepalive:
    """Asks a peer that has said nothing for a time whether it is there; any answer will do.

    ``on_dead`` is called once, when ``count`` questions have brought nothing; with a count of 0 never.
    ``is_paused`` says that we do not read just now, so that silence means nothing.
    """

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
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _check(self) -> None:
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
        # One open question is enough; the bytes of more would only pile up.
        if silent and not self._awaits_reply:
            self._awaits_reply = True
            self._connection.request(KEEPALIVE, on_reply=self._handle_reply)

    def _handle_reply(self, success: bool, payload: bytes) -> None:
        self._awaits_reply = False
