"""How a connection ended, as everybody who asks is told."""

from __future__ import annotations

from dataclasses import dataclass

from conchrec.errors import ConchrecError
from conchrec.reasons import INTERNAL_ERROR, Reason, ReasonCode
from conchrec.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEnd:
    """How a connection ended.

    ``error`` is what went wrong here; ``reason`` and ``description`` what the peer said in DISCONNECT;
    ``greeting`` the lines that it sent in place of a version.
    """

    error: Exception | None = None
    reason: int | None = None
    description: bytes = b""
    greeting: tuple[bytes, ...] = ()

    @property
    def is_silent(self) -> bool:
        """The peer went without a DISCONNECT, and nothing was wrong here."""
        return self.error is None and self.reason is None

    def describe(self) -> str:
        """One printable line; empty where the peer just went, else a Reason."""
        if isinstance(self.error, ConchrecError):
            return self.error.public
        if self.error is not None:
            return INTERNAL_ERROR
        text = self.description if self.reason is not None else b" ".join(self.greeting)
        shown = one_line(text).strip() or ("disconnected" if self.reason is not None else "")
        return Reason(ReasonCode.PEER_DISCONNECTED, shown) if shown else ""


class ConnectionGone(ConchrecError):
    """The connection ended before what was waited for; ``lost`` says how."""

    def __init__(self, lost: ConnectionEnd) -> None:
        super().__init__(lost.describe() or Reason(ReasonCode.CONNECTION_CLOSED, "the connection was closed"))
        self.lost = lost
