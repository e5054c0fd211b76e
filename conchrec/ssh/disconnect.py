"""The end of a connection as a value, and the error for those who still wait for the connection."""

from __future__ import annotations

from dataclasses import dataclass

from conchrec.errors import ConchrecError
from conchrec.reasons import INTERNAL_ERROR, Reason, ReasonCode
from conchrec.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEnd:
    """How a connection ended.

    ``error`` is our error, if any. ``reason`` and ``description`` are from the peer's DISCONNECT.
    ``greeting`` has the lines that the peer sent instead of an identification string.
    """

    error: Exception | None = None
    reason: int | None = None
    description: bytes = b""
    greeting: tuple[bytes, ...] = ()

    @property
    def is_silent(self) -> bool:
        """Whether the peer closed the connection without DISCONNECT, and without an error on our side."""
        return self.error is None and self.reason is None

    def describe(self) -> str:
        """Return one printable line, which is a Reason.

        It is empty if the peer closed the connection without a message.
        """
        if isinstance(self.error, ConchrecError):
            return self.error.public
        if self.error is not None:
            return INTERNAL_ERROR
        text = self.description if self.reason is not None else b" ".join(self.greeting)
        shown = one_line(text).strip() or ("disconnected" if self.reason is not None else "")
        return Reason(ReasonCode.PEER_DISCONNECTED, shown) if shown else ""


class ConnectionGone(ConchrecError):
    """The connection ended before the awaited event; ``end`` is how it ended."""

    def __init__(self, end: ConnectionEnd) -> None:
        super().__init__(end.describe() or Reason(ReasonCode.CONNECTION_CLOSED, "the connection was closed"))
        self.end = end
