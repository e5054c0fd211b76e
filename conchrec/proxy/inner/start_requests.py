"""Requests for a shell, a command or a subsystem, from the user's request to the target's answer.

A request is parsed, checked, may wait for the target's channel, is forwarded, and is answered.
``relay.admission`` admits one of them at a time, and decides what the target accepts meanwhile
(``StartPhase``). This module keeps what was requested; ``NEXT`` is the table of its states.

Pure: no transport, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from conchrec.errors import LocalViolation
from conchrec.recording.format.kept_text import COMMAND_MOST, KeptText, keep
from conchrec.ssh import messages as m
from conchrec.ssh.wire import string
from conchrec.text import decode_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """A request for a shell, a command or a subsystem.

    ``kind`` is the request's name, ``argument`` the command line or the subsystem's name. ``forced_upon`` is
    the user's own request if the user's certificate forces another command; else it is empty.
    """

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
        """The complete argument, with bytes that are not UTF-8 as ``\\xNN``."""
        return decode_text(self.argument)

    @property
    def kept(self) -> KeptText:
        """The argument as the recording and the audit keep it."""
        return keep(self.argument, COMMAND_MOST)

    def force(self, command: str) -> StartRequest:
        """Return the request for the command that the user's certificate forces (``force-command``)."""
        requested = f"{self.kind} {self.kept.text}".rstrip()
        return StartRequest(kind="exec", argument=command.encode(), forced_upon=requested)

    def message(self, *, want_reply: bool) -> m.ChannelRequest:
        """Return the request as the message that is forwarded."""
        extra = b"" if self.kind == "shell" else string(self.argument)
        return m.ChannelRequest(name=self.kind.encode("ascii"), want_reply=want_reply, extra=extra)


class StartState(Enum):
    """The state of the start of a session."""

    NOT_REQUESTED = "not requested"
    REQUESTED = "requested"
    """The request waits for the target's channel, or the roles do not allow it."""
    FORWARDED = "forwarded and not answered"
    ACCEPTED = "accepted"
    REFUSED = "refused by the target"


class StartStep(Enum):
    """The events of a start request."""

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
"""The next state for each state and step. Any other step is a bug of the admission: LocalViolation."""


class StartTracker:
    """The start requests of one session channel."""

    __slots__ = ("_pending", "last", "state")

    def __init__(self) -> None:
        self.state = StartState.NOT_REQUESTED
        self._pending: StartRequest | None = None
        #: The last request that was forwarded, regardless of the target's answer.
        self.last: StartRequest | None = None

    @property
    def is_requested(self) -> bool:
        """Whether the user has requested a start, regardless of the answer."""
        return self.state is not StartState.NOT_REQUESTED

    @property
    def is_forwarded(self) -> bool:
        """Whether a start request was forwarded, regardless of the answer."""
        return self.last is not None

    @property
    def current(self) -> StartRequest | None:
        """The request that was accepted, or was forwarded and is not answered yet; None without one."""
        return self.last if self.state in (StartState.FORWARDED, StartState.ACCEPTED) else None

    def request(self, start: StartRequest) -> None:
        """Note that the user requests ``start``."""
        self._enter(StartStep.REQUEST)
        self._pending = start

    @property
    def pending(self) -> StartRequest:
        """The request that is not forwarded yet. Raises LocalViolation without one."""
        if self._pending is None:
            raise LocalViolation("no start request waits to be forwarded")
        return self._pending

    def forward(self) -> StartRequest:
        """Note that the pending request is forwarded; returns it."""
        start = self.pending
        self._enter(StartStep.FORWARD)
        self.last, self._pending = start, None
        return start

    def answer(self, success: bool) -> None:
        """Note the target's answer to the forwarded request."""
        self._enter(StartStep.ACCEPT if success else StartStep.REFUSE)

    def _enter(self, step: StartStep) -> None:
        after = NEXT.get((self.state, step))
        if after is None:
            detail = f"unexpected {step.value} of a start request in state: {self.state.value}"
            raise LocalViolation(detail)
        self.state = after
