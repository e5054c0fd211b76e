"""Key exchanges that wait for a computation: messages stay in order, waiting bytes are limited, and the end
of the connection cancels the computation.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import COMPATIBLE
from conchrec.ssh.kex_helper import KeyExchangeRefused
from conchrec.ssh.kex_table import ExchangePhase
from conchrec.ssh.packet_reader import MAX_HELD, MAX_HELD_EARLY
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.wire import string
from tests.support.pair import HOST_KEY, Pair
from tests.support.powers import Later

DATA = 94
GROUP = replace(COMPATIBLE, kex=(b"diffie-hellman-group14-sha256",))


class ComputationPair:
    """A pair whose computations finish when the test calls a method."""

    def __init__(self, *, chunk: int = 0) -> None:
        self.of_server, self.of_client = Later(), Later()
        self.pair = Pair(
            algorithms=GROUP, chunk=chunk, server_powers=self.of_server, client_powers=self.of_client
        )
        self.pair.pump()

    def offer(self) -> ComputationPair:
        """Finish the client's public value."""
        self.of_client.answer()
        self.pair.pump()
        return self

    def accept(self) -> ComputationPair:
        """Finish the server's reply."""
        self.of_server.answer()
        self.pair.pump()
        return self

    def complete(self) -> ComputationPair:
        """Finish the client's secret."""
        self.of_client.answer()
        self.pair.pump()
        return self

    def secure(self) -> ComputationPair:
        self.offer().accept().complete()
        self.pair.secure()
        return self


@pytest.mark.parametrize("chunk", [0, 1, 700])
def test_waits_for_each_computation(chunk: int) -> None:
    waiting = ComputationPair(chunk=chunk)
    pair = waiting.pair
    counts = []
    for step in (waiting.offer, waiting.accept, waiting.complete):
        counts.append((len(waiting.of_server.waiting), len(waiting.of_client.waiting)))
        assert not pair.client.agreed_names
        step()
    assert counts == [(0, 1), (1, 0), (0, 1)]
    pair.secure()
    assert pair.client.session_id == pair.server.session_id != b""


def test_keeps_messages_in_order_while_secret_is_computed() -> None:
    """The client continues to send before the reply to its KEXINIT."""
    waiting = ComputationPair().secure()
    pair = waiting.pair
    pair.client.rekey()
    pair.pump()
    waiting.offer()
    for value in range(5):
        pair.client.send_now(DATA, bytes((value,)))
    pair.client.send_now(a.PING, string(b"still there?"))
    pair.pump()
    assert pair.server_ear.heard == []
    assert pair.server.kex.phase is ExchangePhase.AGREED
    waiting.accept()
    assert pair.server_ear.heard == [(DATA, bytes((value,))) for value in range(5)]
    waiting.complete()
    assert pair.client.rekeys == pair.server.rekeys == 1


@pytest.mark.parametrize("begins", ["client", "server", "both"])
def test_blocks_own_messages_until_new_keys(begins: str) -> None:
    waiting = ComputationPair().secure()
    pair = waiting.pair
    for name in ("client", "server"):
        if begins in (name, "both"):
            getattr(pair, name).rekey()
    sent: list[tuple[int, bytes]] = []
    for step in (pair.pump, waiting.offer, waiting.accept, waiting.complete):
        for value in range(3):
            sent.append((DATA, bytes((len(sent), value))))
            pair.client.sendPacket(*sent[-1])
            pair.server.sendPacket(*sent[-1])
        step()
    pair.pump()
    assert pair.server_ear.heard == pair.client_ear.heard == sent
    assert pair.client.rekeys == pair.server.rekeys == 1


@pytest.mark.parametrize("most", [MAX_HELD_EARLY, MAX_HELD])
@pytest.mark.parametrize("side", ["server", "client"])
def test_limits_flood_during_computation(side: str, most: int) -> None:
    """The socket is paused, nothing is lost, and the connection continues."""
    waiting = ComputationPair().secure()
    pair = waiting.pair
    if most == MAX_HELD:
        pair.log_in()
    pair.client.rekey()
    pair.pump()
    waiting.offer()
    if side == "client":
        waiting.accept()
    line, end, peer = (
        (pair.server_line, pair.server, pair.client)
        if side == "server"
        else (pair.client_line, pair.client, pair.server)
    )
    count = 3 * most // 1000
    for _ in range(count):
        peer.send_now(DATA, bytes(1000))
        pair.pump()
    assert line.paused
    assert most < len(end.inbound) < most + 2000
    if side == "server":
        waiting.accept()
    waiting.complete()
    assert not line.paused
    assert len(getattr(pair, f"{side}_ear").heard) == count
    assert pair.client.rekeys == pair.server.rekeys == 1


def test_keeps_socket_paused_by_brake_after_computation() -> None:
    waiting = ComputationPair().secure()
    pair = waiting.pair
    pair.client.rekey()
    pair.pump()
    waiting.offer()
    pair.server.brake("test", True)
    assert pair.server_line.paused
    waiting.accept()
    assert pair.server_line.paused
    pair.server.brake("test", False)
    assert not pair.server_line.paused
    waiting.complete()
    assert pair.server.rekeys == 1


@pytest.mark.parametrize("side", ["server", "client"])
def test_cancels_computation_when_connection_ends(side: str) -> None:
    waiting = ComputationPair()
    if side == "server":
        waiting.offer()
    waiting.pair.cut()
    later = waiting.of_server if side == "server" else waiting.of_client
    assert (later.cancelled, len(later.waiting)) == (1, 0)
    assert getattr(waiting.pair, side).lost.error is None
    assert waiting.pair.clock.getDelayedCalls() == []


def test_limits_handshake_time_during_computation() -> None:
    waiting = ComputationPair().offer()
    waiting.pair.clock.advance(30)
    assert waiting.of_server.cancelled == 1
    assert waiting.pair.server_line.closing
    waiting.pair.pump()
    server, client = waiting.pair.server.lost, waiting.pair.client.lost
    assert server is not None and server.describe() == "the key exchange was not completed in time"
    assert client is not None and client.describe() == "the key exchange was not completed in time"


@pytest.mark.parametrize("side", ["server", "client"])
def test_sends_refusal_of_computation_to_peer(side: str) -> None:
    waiting = ComputationPair()
    if side == "server":
        waiting.offer()
    later = waiting.of_server if side == "server" else waiting.of_client
    later.fail(KeyExchangeRefused("too many key exchanges are waiting; try again later"))
    waiting.pair.pump()
    for lost in (waiting.pair.server.lost, waiting.pair.client.lost):
        assert lost is not None
        assert lost.describe() == "too many key exchanges are waiting; try again later"


def test_ends_only_this_connection_when_computation_raises() -> None:
    waiting = ComputationPair().offer()
    waiting.of_server.fail(ZeroDivisionError("a bug"))
    waiting.pair.pump()
    assert waiting.pair.server.lost is not None
    assert waiting.pair.server.lost.describe() == "internal error"


class OtherSigner:
    """The host key of the pair, with signatures by another key."""

    algorithms = (b"ssh-ed25519",)
    _other = ServerHostKeys(ed25519.Ed25519PrivateKey.generate(), None)

    def get(self, algorithm: bytes) -> OtherSigner:
        return self

    def blob(self) -> bytes:
        return HOST_KEY.get(b"ssh-ed25519").blob()

    def sign(self, data: bytes, signatureType: bytes) -> bytes:
        return self._other.get(b"ssh-ed25519").sign(data)


def test_rejects_reply_signed_by_another_key_after_computation() -> None:
    waiting = ComputationPair().offer()
    waiting.pair.server.kex.host_keys = OtherSigner()
    waiting.accept().complete()
    assert waiting.pair.client.lost is not None
    assert waiting.pair.client.lost.describe() == "host key signature verification failed"
