"""Deferreds for those who wait for the first key exchange, or for the end, of a connection."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.ssh.disconnect import ConnectionEnd, ConnectionGone


class ConnectionWaiters:
    """Fires Deferreds when the first key exchange is done, and when the connection has ended."""

    __slots__ = (
        "_end", "_is_secure", "_lost", "_secure",
    )  # fmt: skip

    def __init__(self) -> None:
        self._is_secure = False
        self._end: ConnectionEnd | None = None
        self._secure: list[Deferred[None]] = []
        self._lost: list[Deferred[ConnectionEnd]] = []

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
        if self._end is not None:
            done.callback(self._end)
        else:
            self._lost.append(done)
        return done

    def secure(self) -> None:
        """Fire the Deferreds that wait for the first key exchange."""
        self._is_secure = True
        waiting, self._secure = self._secure, []
        for done in waiting:
            done.callback(None)

    def end(self, end: ConnectionEnd) -> None:
        """Fire the Deferreds that wait for the end, and fail those that wait for the key exchange."""
        self._end = end
        secure, self._secure = self._secure, []
        for done in secure:
            done.errback(_failure(end))
        lost, self._lost = self._lost, []
        for over in lost:
            over.callback(end)


def _failure(end: ConnectionEnd) -> Failure:
    return Failure(end.error if end.error is not None else ConnectionGone(end))
