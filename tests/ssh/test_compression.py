"""Compression after the login: negotiation, new streams with new keys, and limits."""

from __future__ import annotations

import os
import zlib
from dataclasses import replace

import pytest

from conchrec.errors import RemoteViolation
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.compression import DELAYED, NONE, Deflate, Inflate
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.packetcipher import MAX_PACKET, Clear
from tests.support.pair import Pair

WANTED = replace(MODERN, compressions=(DELAYED, NONE))
DATA = 94
TEXT = b"the same words, again and again. " * 100


def pair_of(chunk: int = 0, rekey_bytes: int = 1 << 30) -> Pair:
    return Pair(
        algorithms=WANTED, server_algorithms=MODERN, chunk=chunk, server_rekey_bytes=rekey_bytes
    ).secure()


def log_in(pair: Pair) -> None:
    pair.server.sendPacket(a.USERAUTH_SUCCESS, b"")
    pair.pump()
    assert pair.client_ear.heard.pop() == (a.USERAUTH_SUCCESS, b"")


def use_clear_packets(pair: Pair) -> None:
    """From now on the client's packets are compressed after the login, and not encrypted."""
    pair.client.outbound.renew(Clear(), reset=False, compress=True)
    pair.server.inbound.expect(Clear(), reset=False, compress=True)
    pair.server.inbound.renew()


def cost(pair: Pair, payload: bytes = TEXT) -> tuple[int, int]:
    """Return the bytes on the wire for one message in each direction."""
    pair.client.sendPacket(DATA, payload)
    pair.server.sendPacket(DATA, payload)
    sizes = len(pair.client_line.unsent), len(pair.server_line.unsent)
    pair.pump()
    assert pair.server_ear.heard.pop() == pair.client_ear.heard.pop() == (DATA, payload)
    return sizes


@pytest.mark.parametrize("chunk", [0, 1, 3])
def test_starts_after_login(chunk: int) -> None:
    pair = pair_of(chunk)
    assert min(cost(pair)) > len(TEXT)
    log_in(pair)
    assert max(cost(pair)) < len(TEXT) // 10
    assert max(cost(pair)) < 100  # the stream remembers earlier data
    assert min(cost(pair, os.urandom(3000))) > 3000


def test_stays_off_when_not_negotiated() -> None:
    pair = Pair(algorithms=MODERN).secure()
    log_in(pair)
    assert min(cost(pair)) > len(TEXT)


@pytest.mark.parametrize("chunk", [0, 3])
def test_starts_new_stream_with_new_keys(chunk: int) -> None:
    pair = pair_of(chunk, rekey_bytes=4_000)
    log_in(pair)
    for number in range(60):
        payload = os.urandom(100) + TEXT + bytes((number,))
        pair.client.sendPacket(DATA, payload)
        pair.server.sendPacket(DATA, payload)
        pair.rounds(40 if chunk else 1)
    pair.pump()
    assert pair.client.rekeys == pair.server.rekeys >= 2
    assert [number for number, _ in pair.server_ear.heard] == [DATA] * 60
    assert pair.server_ear.heard == pair.client_ear.heard
    cost(pair)
    assert max(cost(pair)) < 100


@pytest.mark.parametrize("begins", ["client", "server", "both"])
def test_starts_when_login_ends_during_key_exchange(begins: str) -> None:
    pair = pair_of()
    if begins != "server":
        pair.client.rekey()
    if begins != "client":
        pair.server.rekey()
    pair.rounds(1)
    log_in(pair)
    assert pair.client.rekeys == pair.server.rekeys == 1
    cost(pair)
    assert max(cost(pair)) < 100


def test_compresses_one_direction() -> None:
    pair = Pair(algorithms=MODERN).secure()
    use_clear_packets(pair)
    log_in(pair)
    up, down = cost(pair)
    assert up < len(TEXT) // 10
    assert down > len(TEXT)


def test_rejects_payload_that_decompresses_beyond_limit() -> None:
    deflate, inflate = Deflate(), Inflate()
    assert inflate(deflate(bytes(MAX_PACKET - 1))) == bytes(MAX_PACKET - 1)
    with pytest.raises(RemoteViolation, match="decompressed packet is too long"):
        inflate(deflate(bytes(MAX_PACKET)))
    with pytest.raises(RemoteViolation, match="decompressed packet is too long"):
        Inflate()(zlib.compress(bytes(1 << 26)))


def test_rejects_malformed_stream() -> None:
    with pytest.raises(RemoteViolation, match="decompression failed"):
        Inflate()(b"no zlib at all")
    with pytest.raises(RemoteViolation, match="corrupt packet: the compressed stream has ended"):
        Inflate()(zlib.compress(b"ends here"))
    assert Inflate()(b"") == b""


def test_disconnects_peer_that_sends_decompression_bomb() -> None:
    pair = pair_of()
    log_in(pair)
    pair.client.sendPacket(DATA, bytes(1 << 26))
    pair.pump()
    assert "decompressed packet is too long" in str(pair.server.lost and pair.server.lost.error)
    assert pair.server_ear.heard == []


def test_rejects_empty_packet_inside_compression() -> None:
    pair = Pair(algorithms=MODERN).secure()
    use_clear_packets(pair)
    log_in(pair)
    pair.client_line.write(Clear().seal(pair.client.outbound.sequence, Deflate()(b"")))
    pair.pump()
    assert "the packet is empty" in str(pair.server.lost and pair.server.lost.error)


def test_counts_decompressed_bytes_in_turn_budget() -> None:
    """Packets of 300 bytes contain 200 kB: one slice decompresses two of them, later turns the others."""
    pair = pair_of()
    log_in(pair)
    pair.server.charge_to(TurnScheduler(pair.clock).of_user("joe"))
    for _ in range(50):
        pair.client.sendPacket(DATA, bytes(200_000))
    assert len(pair.client_line.unsent) < 50 * 400
    pair.pump()
    assert len(pair.server_ear.heard) == 2
    while len(pair.server_ear.heard) < 50:
        pair.clock.advance(0)
    assert pair.server.lost is None
