"""Those who wait for a connection: until it is secure, or until it is over."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.ssh.disconnect import ConnectionEnd, ConnectionGone


class ConnectionWaiters:
    """Deferreds that fire when the first key exchange is done, and when the connection is over."""

    def __init__(self) -> None:
        self._is_secure = False
        self._end: ConnectionEnd | None = None
        self._secure: list[Deferred[None]] = []
        self._lost: list[Deferred[ConnectionEnd]] = []

    def when_secure(self) -> Deferred[None]:
        """Fires when the first key exchange is done; fails with what ended it, or ConnectionGone."""
        done: Deferred[None] = Deferred()
        if self._end is not None:
            done.errback(_failure(self._end))
        elif self._is_secure:
            done.callback(None)
        else:
            self._secure.append(done)
        return done

    def when_lost(self) -> Deferred[ConnectionEnd]:
        """Fires when the connection is over, however that came about; never fails."""
        done: Deferred[ConnectionEnd] = Deferred()
        if self._end is not None:
            done.callback(self._end)
        else:
            self._lost.append(done)
        return done

    def secure(self) -> None:
        """The first key exchange is done."""
        self._is_secure = True
        waiting, self._secure = self._secure, []
        for done in waiting:
            done.callback(None)

    def end(self, end: ConnectionEnd) -> None:
        """The connection is over."""
        self._end = end
        secure, self._secure = self._secure, []
        for done in secure:
            done.errback(_failure(end))
        lost, self._lost = self._lost, []
        for over in lost:
            over.callback(end)


def _failure(end: ConnectionEnd) -> Failure:
    return Failure(end.error if end.error is not None else ConnectionGone(end))
