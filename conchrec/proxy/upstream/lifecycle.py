"""The states of a connection to a target, as a table, and those who wait for a state."""

from __future__ import annotations

import enum

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError, LocalViolation, Unreachable
from conchrec.reasons import ReasonCode
from conchrec.ssh.connection import Connection


class UpstreamState(enum.Enum):
    """How far a connection to a target has come."""

    IDLE = "not started"
    DIALING = "in line at the gate, or connecting"
    VERIFYING = "exchanging keys"
    AUTHENTICATING = "logging in"
    READY = "channels can be opened"
    LOST = "ended, or failed"


NEXT: dict[UpstreamState, frozenset[UpstreamState]] = {
    UpstreamState.IDLE: frozenset({UpstreamState.DIALING, UpstreamState.LOST}),
    UpstreamState.DIALING: frozenset({UpstreamState.VERIFYING, UpstreamState.LOST}),
    UpstreamState.VERIFYING: frozenset({UpstreamState.AUTHENTICATING, UpstreamState.LOST}),
    UpstreamState.AUTHENTICATING: frozenset({UpstreamState.READY, UpstreamState.LOST}),
    UpstreamState.READY: frozenset({UpstreamState.LOST}),
    UpstreamState.LOST: frozenset(),
}
"""The states that may follow each state."""


class UpstreamLifecycle:
    """The state of one connection to a target, its result, and the Deferreds that wait for it."""

    __slots__ = ("_until_ready", "_until_settled", "connection", "failure", "state")

    def __init__(self) -> None:
        self.state = UpstreamState.IDLE
        #: The connection that carries channels, from READY on.
        self.connection: Connection | None = None
        #: Why it ended or failed, once it is LOST.
        self.failure: ConchrecError | None = None
        self._until_settled: list[Deferred[None]] = []
        self._until_ready: list[Deferred[Connection]] = []

    def enter(self, state: UpstreamState) -> None:
        """Change to ``state``. Raises LocalViolation where the table does not allow it."""
        if state not in NEXT[self.state]:
            raise LocalViolation(f"an upstream connection goes from {self.state.name} to {state.name}")
        self.state = state

    def enter_ready(self, connection: Connection) -> None:
        """Store the connection that carries channels from now on. ``fire_ready`` tells those who wait."""
        self.connection = connection
        self.enter(UpstreamState.READY)

    def fire_ready(self) -> None:
        """Fire all Deferreds of ``when_ready`` with the connection."""
        assert self.connection is not None, "it is READY"
        self.fire_settled()
        waiting, self._until_ready = self._until_ready, []
        for done in waiting:
            done.callback(self.connection)

    def fire_settled(self) -> None:
        """Fire all Deferreds of ``when_settled``: the inner login may continue."""
        waiting, self._until_settled = self._until_settled, []
        for done in waiting:
            done.callback(None)

    def fire_lost(self) -> None:
        """Fail all Deferreds of ``when_ready`` with ``failure``."""
        assert self.failure is not None, "it is LOST"
        self.fire_settled()
        waiting, self._until_ready = self._until_ready, []
        for done in waiting:
            done.errback(Failure(self.failure))

    @property
    def is_over(self) -> bool:
        """Whether it is READY or LOST: no step of the login is left."""
        return self.state in (UpstreamState.READY, UpstreamState.LOST)

    def when_settled(self) -> Deferred[None]:
        """Fires with the next ``fire_settled``."""
        done: Deferred[None] = Deferred()
        self._until_settled.append(done)
        return done

    def when_ready(self) -> Deferred[Connection]:
        """Fires with the connection when it is READY. Fails with a ConchrecError when it is LOST."""
        done: Deferred[Connection] = Deferred()
        if self.connection is not None and self.state is UpstreamState.READY:
            done.callback(self.connection)
        elif self.state is UpstreamState.LOST:
            gone = Unreachable("the connection to the target is closed", code=ReasonCode.TARGET_GONE)
            done.errback(Failure(self.failure or gone))
        else:
            self._until_ready.append(done)
        return done
