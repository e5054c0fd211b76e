"""The life of an upstream connection, as a table."""

from __future__ import annotations

import enum

from conchrec.errors import LocalViolation


class UpstreamState(enum.Enum):
    """The life of an upstream connection."""

    IDLE = "nobody has asked for it yet"
    DIALING = "in line at the gate, or connecting"
    VERIFYING = "exchanging keys"
    AUTHENTICATING = "logging in"
    READY = "channels can be opened"
    LOST = "over, or it never came to be"


NEXT: dict[UpstreamState, frozenset[UpstreamState]] = {
    UpstreamState.IDLE: frozenset({UpstreamState.DIALING, UpstreamState.LOST}),
    UpstreamState.DIALING: frozenset({UpstreamState.VERIFYING, UpstreamState.LOST}),
    UpstreamState.VERIFYING: frozenset({UpstreamState.AUTHENTICATING, UpstreamState.LOST}),
    UpstreamState.AUTHENTICATING: frozenset({UpstreamState.READY, UpstreamState.LOST}),
    UpstreamState.READY: frozenset({UpstreamState.LOST}),
    UpstreamState.LOST: frozenset(),
}
"""Where each state may lead."""


class UpstreamLifecycle:
    """The state of one upstream connection."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = UpstreamState.IDLE

    def enter(self, state: UpstreamState) -> None:
        """Go on to ``state``. Raises LocalViolation where the table does not have it."""
        if state not in NEXT[self.state]:
            raise LocalViolation(f"an upstream connection goes from {self.state.name} to {state.name}")
        self.state = state
