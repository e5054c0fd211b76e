"""Requests for a shell, a command or a subsystem: parsed once, and followed to the target's answer.

A request comes from the user, is judged, may wait for the target's channel, is forwarded and is answered.
``relay.admission`` lets one at a time come that far; what the target takes meanwhile is decided there, by
``StartPhase``. This module knows what was requested; ``NEXT`` is the table of its states.

Pure: no transport, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from conchrec.recording.format.kept_text import COMMAND_MOST, keep
from conchrec.ssh import messages as m
from conchrec.ssh.wire import string
from conchrec.text import decode_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """``kind`` is the request's name, ``argument`` the command line or the subsystem's name, and
    ``forced_upon`` what the user requested where a certificate says what runs; else it is empty."""

    kind: str
    argument: bytes = b""
    forced_upon: str = ""

    @classmethod
    def parse(cls, request: m.ChannelRequest) -> StartRequest:
        """Parse shell, exec or subsystem (RFC 4254, 6.5). Raises Truncated or Malformed."""
        argument = b"" if request.name == b"shell" else m.parse_string(request.extra)
        return cls(kind=request.name.decode("ascii"), argument=argument)

    @property
    def text(self) -> str:
        """The argument, whole, with bytes that are not UTF-8 as ``\\xNN``."""
        return decode_text(self.argument)

    def force(self, command: str) -> StartRequest:
        """What runs in its place, as the user's certificate says (PROTOCOL.certkeys, "Critical options")."""
        requested = f"{self.kind} {keep(self.argument, COMMAND_MOST).text}".rstrip()
        return StartRequest(kind="exec", argument=command.encode(), forced_upon=requested)

    def message(self, *, want_reply: bool) -> m.ChannelRequest:
        """As it is forwarded."""
        extra = b"" if self.kind == "shell" else string(self.argument)
        return m.ChannelRequest(name=self.kind.encode("ascii"), want_reply=want_reply, extra=extra)


class StartState(Enum):
    """How far the start of a session has come."""

    NOT_REQUESTED = "not requested"
    REQUESTED = "requested"
    """It waits for the target's channel, or the roles do not allow it."""
    FORWARDED = "forwarded and not answered"
    ACCEPTED = "accepted"
    REFUSED = "refused by the target"


class StartStep(Enum):
    """What happens to a start request."""

    REQUEST = "request"
    FORWARD = "forward"
    ACCEPT = "accept"
    REFUSE = "refuse"


NEXT: dict[tuple[StartState, StartStep], StartState] = {
    (StartState.NOT_REQUESTED, StartStep.REQUEST): StartState.REQUESTED,
    (StartState.REQUESTED, StartStep.FORWARD): StartState.FORWARDED,
    (StartState.FORWARDED, StartStep.ACCEPT): StartState.ACCEPTED,
    (StartState.FORWARDED, StartStep.REFUSE): StartState.REFUSED,
    (StartState.REFUSED, StartStep.REQUEST): StartState.REQUESTED,
}
"""Where each step leads. What is not here raises RuntimeError: the admission has a bug."""


class StartTracker:
    """The start requests of one session channel."""

    __slots__ = ("_pending", "last", "state")

    def __init__(self) -> None:
        self.state = StartState.NOT_REQUESTED
        self._pending: StartRequest | None = None
        #: The last one that was forwarded, whatever the target has answered.
        self.last: StartRequest | None = None

    @property
    def is_requested(self) -> bool:
        """The user has requested a start, whatever became of it."""
        return self.state is not StartState.NOT_REQUESTED

    @property
    def is_forwarded(self) -> bool:
        """The target was given a start request, whatever it has answered."""
        return self.last is not None

    @property
    def current(self) -> StartRequest | None:
        """What runs, or was forwarded and is not answered."""
        return self.last if self.state in (StartState.FORWARDED, StartState.ACCEPTED) else None

    def request(self, start: StartRequest) -> None:
        """The user requests ``start``."""
        self._enter(StartStep.REQUEST)
        self._pending = start

    @property
    def pending(self) -> StartRequest:
        """The request that is not forwarded yet. Raises RuntimeError if there is none."""
        if self._pending is None:
            raise RuntimeError("no start request is to be forwarded")
        return self._pending

    def forward(self) -> StartRequest:
        """The pending request is forwarded now; returns it."""
        start = self.pending
        self._enter(StartStep.FORWARD)
        self.last, self._pending = start, None
        return start

    def answer(self, success: bool) -> None:
        """The target has answered it."""
        self._enter(StartStep.ACCEPT if success else StartStep.REFUSE)

    def _enter(self, step: StartStep) -> None:
        after = NEXT.get((self.state, step))
        if after is None:
            raise RuntimeError(f"start request: {step.value} in state: {self.state.value}")
        self.state = after
