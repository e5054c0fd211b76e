"""Two of our transports, joined in memory and through the key exchange: one is the peer that misbehaves, for
it has the good keys, and the other is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.conch.ssh.service import SSHService

from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.transport import ClientTransport, ServerTransport
from conchrec.ssh.transport_base import SSHTransport
from fuzz.limits import Broken
from fuzz.sequence import pack, unpack
from tests.support.pair import Ear, Pair

#: The fastest that there is; what others do differently is not what is looked for here.
FAST = replace(MODERN, kex=(b"curve25519-sha256",), ciphers=(b"aes128-gcm@openssh.com",))
#: Deliveries after an input: what has not come to rest then would go on for ever.
ROUNDS = 1000
#: What a peer may make us say that it does not take.
UNSENT = 4 << 20
#: How many bytes of an input are delivered at a time (0: all), where it is shorter than ``SHORT``.
SIZES = (0, 0, 0, 1, 0, 0, 0, 17)
SHORT = 256


def message(number: int, payload: bytes = b"") -> bytes:
    """Return a message with its number."""
    return bytes((number,)) + payload


class Linked:
    """A session: inputs are messages, each ``byte number, payload``, which the peer seals and sends.

    ``service`` makes what the end that is looked at runs, once the peer has asked for it. ``on_open`` is
    called when it does.
    """

    def __init__(
        self,
        *,
        to_server: bool,
        service: Callable[[], SSHService],
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        pair = self._pair = Pair(algorithms=FAST)
        self._to_server = to_server
        self.server: ServerTransport = pair.server
        self.client: ClientTransport = pair.client
        ends: tuple[SSHTransport, SSHTransport] = (
            (self.client, self.server) if to_server else (self.server, self.client)
        )
        self._peer, self._looked_at = ends
        self._inputs = 0
        pair.pump()
        looked_at = service()
        quiet = _Quiet(looked_at.name)
        if to_server:
            pair.server.setService(looked_at)
            pair.client.setService(quiet)
        else:
            pair.server.setService(quiet)
            pair.client.setService(looked_at)
        on_open()
        self._settle()

    def feed(self, data: bytes) -> bool:
        """Give one input; return whether the session goes on."""
        self._inputs += 1
        for each in unpack(data):
            if each and not self._peer.is_over:
                self._peer.send_now(each[0], each[1:])
        line = self._pair.client_line if self._to_server else self._pair.server_line
        step = SIZES[len(data) % len(SIZES)]
        while step and line.unsent and len(data) < SHORT:
            piece = bytes(line.unsent[:step])
            del line.unsent[:step]
            self._looked_at.dataReceived(piece)
        self._settle()
        if len(self._pair.clock.getDelayedCalls()) > 64:
            raise Broken("calls are scheduled and scheduled")
        return not (self._peer.is_over or self._looked_at.is_over)

    def _settle(self) -> None:
        self._pair.pump(ROUNDS)
        for line in (self._pair.client_line, self._pair.server_line):
            if len(line.unsent) > UNSENT:
                raise Broken(f"{len(line.unsent)} bytes have not been said")

    def end(self) -> None:
        """End the session, and check what must hold at its end."""
        self._pair.clock.advance(600)
        self._pair.pump(ROUNDS)
        self._pair.cut()
        lost = self._looked_at.lost
        if lost is None or lost.describe() == "internal error":
            raise Broken("internal error") from (lost.error if lost is not None else None)
        if calls := self._pair.clock.getDelayedCalls():
            raise Broken(f"calls are left: {calls}")


class _Quiet(Ear):
    """The peer's service: hears, and keeps nothing."""

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Nothing comes of it."""


def packed(*sequences: Sequence[bytes]) -> list[bytes]:
    """Return each sequence as one input."""
    return [pack(sequence) for sequence in sequences]
