"""The interface of a relay to the object that decides about its messages, records and audits them."""

from __future__ import annotations

import enum
from typing import Protocol

from conchrec.errors import ConchrecError
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m

#: Why a message was dropped that the observer has recorded.
NOT_FORWARDED = Reason(
    ReasonCode.NOT_FORWARDED,
    "recorded, but not forwarded: the channel ended before it was on disk",
)


class Verdict(enum.Enum):
    """What is done with a channel request."""

    PASS = "pass"  # noqa: S105
    """Forward it."""
    ACCEPT = "accept"
    """Answer it with SUCCESS, and do not forward it."""
    REFUSE = "refuse"
    """Answer it with FAILURE, and do not forward it."""


class Observer(Protocol):
    """Decides about the messages of one channel, and records and audits them.

    An error that one of these methods raises ends the channel, and the message is not forwarded.
    """

    def requested(self, request: m.ChannelRequest) -> Verdict | m.ChannelRequest:
        """Decide about a request of the near end; the far end need not be open yet.

        The result may be another request, which is forwarded instead.
        """

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        """Decide about a request of the far end."""

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        """Take note that the far end has answered a request that was forwarded."""

    def from_near(self, message: int, body: bytes) -> None:
        """Record a message before it is sent to the far end. It was written from its fields."""

    def from_far(self, message: int, body: bytes) -> None:
        """Record a message before it is sent to the near end, as above. Not called for replies."""

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        """Take note that ``data`` of a message is not forwarded."""

    def opened(self) -> None:
        """Take note that the far end granted the channel. No message was forwarded yet."""

    def refused(self, code: int, text: bytes) -> None:
        """Take note that the far end refused, and end a near end that was confirmed early."""

    def failed(self, error: ConchrecError) -> str:
        """Take note that ``error`` ends the channel; returns the line for the user, or ``""``."""

    def finished(self) -> None:
        """Clean up: CLOSE was sent both ways, or a connection was lost. Called once, as the last method."""
