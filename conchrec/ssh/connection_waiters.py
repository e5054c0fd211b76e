"""Those who wait for the first key exchange, or for the end, of a connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.ssh.disconnect import ConnectionEnd, ConnectionGone

_log = Logger()


class ConnectionWaiters:
    """Calls those who wait when the first key exchange is done, and when the connection has ended."""

    __slots__ = (
        "_end", "_is_secure", "_lost", "_secure",
    )  # fmt: skip

    def __init__(self) -> None:
        self._is_secure = False
        self._end: ConnectionEnd | None = None
        self._secure: list[Deferred[None]] = []
        self._lost: list[Callable[[ConnectionEnd], object]] = []

    def when_secure(self) -> Deferred[None]:
        """Return a Deferred that fires after the first key exchange.

        It fails with the error that ended the connection, or with ConnectionGone.
        """
        done: Deferred[None] = Deferred()
        if self._end is not None:
            done.errback(_failure(self._end))
        elif self._is_secure:
            done.callback(None)
        else:
            self._secure.append(done)
        return done

    def when_lost(self) -> Deferred[ConnectionEnd]:
        """Return a Deferred that fires when the connection has ended, for any reason. It never fails."""
        done: Deferred[ConnectionEnd] = Deferred()
        self.on_lost(done.callback)
        return done

    def on_lost(self, callback: Callable[[ConnectionEnd], object]) -> None:
        """Call ``callback`` when the connection has ended, for any reason; now, if it has.

        It takes a quarter of the memory of a Deferred, which is there as long as the connection.
        """
        if self._end is not None:
            callback(self._end)
        else:
            self._lost.append(callback)

    def secure(self) -> None:
        """Fire the Deferreds that wait for the first key exchange."""
        self._is_secure = True
        waiting, self._secure = self._secure, []
        for done in waiting:
            done.callback(None)

    def end(self, end: ConnectionEnd) -> None:
        """Call those who wait for the end, and fail the Deferreds that wait for the key exchange."""
        self._end = end
        secure, self._secure = self._secure, []
        for done in secure:
            done.errback(_failure(end))
        lost, self._lost = self._lost, []
        for callback in lost:
            try:
                callback(end)
            except Exception:  # the others must hear of the end, too
                _log.failure("unexpected error while a connection ended")


def _failure(end: ConnectionEnd) -> Failure:
    return Failure(end.error if end.error is not None else ConnectionGone(end))
