"""The interface between a relay and the side that judges, records and audits its messages."""

from __future__ import annotations

import enum
from typing import Protocol

from conchrec.errors import ConchrecError
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m

#: Why a message was dropped that the observer had seen before.
NOT_FORWARDED = Reason(
    ReasonCode.NOT_FORWARDED,
    "recorded, but not forwarded: the channel ended before it was on disk",
)


class Verdict(enum.Enum):
    """What becomes of a channel request of the near end."""

    PASS = "pass"  # noqa: S105
    ACCEPT = "accept"
    REFUSE = "refuse"


class Observer(Protocol):
    """The recorder's side of a relay. What these raise ends the channel, and the message is not forwarded."""

    def requested(self, request: m.ChannelRequest) -> Verdict | m.ChannelRequest:
        """The near end requests something, before the far end need be there. Another request goes on in its
        place."""

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        """The far end requests something."""

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        """The far end has answered a request that it was forwarded."""

    def from_near(self, message: int, body: bytes) -> None:
        """About to go to the far end; written from its fields, so that its layout holds."""

    def from_far(self, message: int, body: bytes) -> None:
        """About to go to the near end; likewise. Not called for replies."""

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        """``data`` of a message will not be forwarded."""

    def opened(self) -> None:
        """The far end granted the channel; nothing has passed yet."""

    def refused(self, code: int, text: bytes) -> None:
        """The far end refused. Where the near end was confirmed early, the observer ends it."""

    def failed(self, error: ConchrecError) -> str:
        """The channel ends because of ``error``; the result is the line for the user, or ``""``."""

    def finished(self) -> None:
        """CLOSE has gone both ways, or a connection is gone. Called once, last."""
