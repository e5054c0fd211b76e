"""Is the peer still there? ``keepalive@openssh.com``, as ssh and sshd ask it (ServerAlive…, ClientAlive…)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from conchrec.clock import Clock, DelayedCall
from conchrec.ssh.connection import Connection

KEEPALIVE = b"keepalive@openssh.com"


class Heard(Protocol):
    """A transport, as far as it is listened to."""

    @property
    def packets_read(self) -> int:
        """Another number than before, where anything was read since."""


class Keepalive:
    """Asks a peer that has said nothing for a time whether it is there; any answer will do.

    ``dead`` is called once, when ``count`` questions have brought nothing; with a count of 0 never.
    ``deaf`` says that we do not read just now, so that silence means nothing.
    """

    def __init__(
        self,
        connection: Connection,
        transport: Heard,
        clock: Clock,
        *,
        interval: timedelta,
        count: int,
        dead: Callable[[], object],
        deaf: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._clock = clock
        self._interval = interval.total_seconds()
        self._count = count
        self._dead = dead
        self._deaf = deaf
        self._heard = transport.packets_read
        self._unanswered = 0
        self._asking = False
        self._timer: DelayedCall | None = clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        heard = self._transport.packets_read
        silent, self._heard = heard == self._heard and not self._deaf(), heard
        self._unanswered = self._unanswered + 1 if silent else 0
        if self._count and self._unanswered > self._count:
            self._timer = None
            self._dead()
            return
        self._timer = self._clock.callLater(self._interval, self._look)
        # One open question is enough; the bytes of more would only pile up.
        if silent and not self._asking:
            self._asking = True
            self._connection.request(KEEPALIVE, on_reply=self._answered)

    def _answered(self, success: bool, payload: bytes) -> None:
        self._asking = False
