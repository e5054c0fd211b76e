"""The identification strings of both sides of a connection (RFC 4253 section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.framing import MAX_IDENTIFICATION, InboundPackets
from conchrec.text import one_line


class UnsupportedVersion(RemoteViolation):
    """The peer's identification string is invalid, or names another protocol version than 2.0."""

    default_code = ReasonCode.NOT_SSH


class Identifications:
    """Our identification string and the peer's, without CR and LF; each is None until it is known."""

    __slots__ = (
        "_callbacks", "ours", "peer",
    )  # fmt: skip

    def __init__(self, ours: bytes | None) -> None:
        self.ours = ours
        self.peer: bytes | None = None
        self._callbacks: list[Callable[[bytes], None]] = []

    def on_peer(self, callback: Callable[[bytes], None]) -> None:
        """Call ``callback`` with the peer's string, now or when it arrives."""
        if self.peer is not None:
            callback(self.peer)
        else:
            self._callbacks.append(callback)

    def read_peer(self, inbound: InboundPackets, *, of_client: bool) -> bool:
        """Read the peer's string. Return whether it was read.

        Raises UnsupportedVersion, or another RemoteViolation for data that is not SSH.
        """
        line = inbound.identification(of_client=of_client)
        if line is None:
            return False
        if len(line) > MAX_IDENTIFICATION or not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            raise UnsupportedVersion(
                f"unsupported protocol version {one_line(line, 40)}: must be SSH-2.0", code=ReasonCode.NOT_SSH
            )
        self.peer = line
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(line)
        return True

    def in_order(self, *, is_client: bool) -> tuple[bytes, bytes]:
        """Return the strings of the client and of the server, as the exchange hash needs them."""
        ours, peer = self.ours or b"", self.peer or b""
        return (ours, peer) if is_client else (peer, ours)
