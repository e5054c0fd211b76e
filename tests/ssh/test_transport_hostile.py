"""Peers that violate the protocol: nothing raises, memory is limited, and no unauthenticated data is used."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, globalLogPublisher

from conchrec.errors import RemoteViolation
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import COMPATIBLE, MODERN
from conchrec.ssh.fair_turns import READ_AT_MOST
from conchrec.ssh.kex_methods import new_kex_method
from conchrec.ssh.kexinit import MAX_NAMES, STRICT_CLIENT, STRICT_SERVER, Proposal, negotiate
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.packetcipher import MAX_CLEAR, MAX_PACKET, Clear
from conchrec.ssh.peer_limits import EARLY_BYTES, MESSAGE_COST
from conchrec.ssh.transport import ClientTransport, ConnectionEnd
from conchrec.ssh.transport_base import READ_EARLY
from conchrec.ssh.wire import names, string, uint32
from tests.support.pair import Ear, Line, Pair
from tests.support.powers import at_once, result_of

DATA = 94


def error_of(pair: Pair, side: str = "server") -> str:
    """Return the error text of the side ``end``, whose connection must be over."""
    pair.pump()
    lost = getattr(pair, side).lost
    assert lost is not None
    assert lost.error is not None
    return str(lost.describe())


# --- identification strings


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\n",
        b"hello\r\n",
        b"SSH-1.5-old\r\n",
        b"SSH-2.0",
        b"SSH-2.0-" + b"x" * 256,
        b"SSH-2.0-" + b"x" * 256 + b"\r\n",
        b"\0" * 20_000,
        b"S" * 1_000_000,
    ],
)
@pytest.mark.parametrize("chunk", [1, 100_000])
def test_server_rejects_invalid_identification_string(sent: bytes, chunk: int) -> None:
    pair = Pair()
    for at in range(0, min(len(sent), 20_000) if chunk == 1 else len(sent), chunk):
        pair.server.dataReceived(sent[at : at + chunk])
    if sent == b"SSH-2.0":
        assert not pair.server_line.closing, "this may still become a version"
        return
    assert pair.server_line.closing
    pair.cut()
    assert pair.server.lost is not None
    assert pair.server.lost.describe().endswith(("SSH identification string", "must be SSH-2.0"))
    assert len(pair.server.inbound) == 0


def test_accepts_lines_before_identification_of_server() -> None:
    """RFC 4253 section 4.2 allows them."""
    pair = Pair()
    real = bytes(pair.server_line.unsent)
    pair.server_line.unsent[:] = b"Welcome!\r\nmind the \xff step\n" + real
    pair.secure()
    assert pair.client.lost is None


@pytest.mark.parametrize(
    "sent",
    [
        b"x" * 1_000_000,
        b"line\r\n" * 51,
        (b"x" * 4000 + b"\r\n") * 3,
        b"SSH-2.0-" + b"x" * 300 + b"\r\n",
        b"SSH-1.5-old\r\n",
    ],
)
@pytest.mark.parametrize("chunk", [1, 1_000_000])
def test_client_rejects_invalid_identification_string(sent: bytes, chunk: int) -> None:
    pair = Pair()
    for at in range(0, min(len(sent), 20_000) if chunk == 1 else len(sent), chunk):
        pair.client.dataReceived(sent[at : at + chunk])
    assert pair.client_line.closing
    pair.cut()
    assert pair.client.lost is not None
    assert sum(map(len, pair.client.lost.greeting)) <= 51 * 255


def test_reports_lines_instead_of_identification() -> None:
    """sshd sends such a line when it has too many connections; the reason is reported."""
    pair = Pair()
    pair.client.dataReceived(b"Exceeded \x1b[1mMaxStartups\r\n")
    pair.cut()
    assert pair.client.lost is not None
    assert pair.client.lost.describe() == "Exceeded \\x1b[1mMaxStartups"


@pytest.mark.parametrize("version", [b"SSH-2.0-x\n", b"SSH-1.99-x\r\n", b"SSH-2.0-" + b"x" * 245 + b"\r\n"])
def test_accepts_valid_identification_strings(version: bytes) -> None:
    pair = Pair()
    pair.server.dataReceived(version)
    assert pair.server.peer_identification == version.rstrip()
    assert not pair.server_line.closing


# --- packets


def raw(pair: Pair, packet: bytes) -> Pair:
    """Send these bytes after the client's identification string."""
    pair.client_line.unsent[:] = b"SSH-2.0-x\r\n" + packet
    return pair


@pytest.mark.parametrize("length", [0, 1, 4, MAX_PACKET + 4, 0x7FFFFFFF, 0xFFFFFFFF])
def test_rejects_invalid_packet_length(length: int) -> None:
    pair = raw(Pair(), uint32(length) + bytes(100))
    assert error_of(pair) == f"invalid packet length: {length} bytes, must be from 5 to {MAX_CLEAR}"


def test_rejects_length_that_is_no_multiple_of_block() -> None:
    assert (
        error_of(raw(Pair(), uint32(13) + bytes(100)))
        == "invalid packet length: not a multiple of the block size"
    )


@pytest.mark.parametrize("padding", [0, 3, 12, 255])
def test_rejects_invalid_padding(padding: int) -> None:
    packet = uint32(12) + bytes((padding,)) + bytes(11)
    assert error_of(raw(Pair(), packet)) == "corrupt packet: invalid padding"


def test_keeps_only_received_bytes_of_incomplete_packet() -> None:
    pair = Pair()
    pair.server.dataReceived(b"SSH-2.0-x\r\n" + uint32(MAX_CLEAR // 8 * 8 - 4) + bytes(1000))
    assert not pair.server_line.closing
    assert len(pair.server.inbound) == 1000


def test_limits_packets_before_first_keys() -> None:
    expected = f"invalid packet length: {MAX_CLEAR + 1} bytes, must be from 5 to {MAX_CLEAR}"
    assert error_of(raw(Pair(), uint32(MAX_CLEAR + 1))) == expected


def test_limits_packets_before_login() -> None:
    pair = Pair(early_packet=MAX_CLEAR).secure()
    pair.client.sendPacket(DATA, bytes(MAX_CLEAR - 100))
    pair.pump()
    assert len(pair.server_ear.heard) == 1
    connection = Ear(b"ssh-connection")
    pair.server.setService(connection)
    pair.client.sendPacket(DATA, bytes(MAX_CLEAR))
    pair.pump()
    assert len(connection.heard) == 1, "who has may"
    pair = Pair(early_packet=MAX_CLEAR).secure()
    pair.client.sendPacket(DATA, bytes(MAX_CLEAR))
    pair.pump()
    assert pair.server_ear.heard == []
    assert pair.server.lost is not None
    assert "the packet is too long" in str(pair.server.lost.error)


def test_accepts_largest_packet() -> None:
    """OpenSSH's limit: 256 KiB with the padding."""
    pair = Pair(algorithms=replace(MODERN, ciphers=(b"aes128-gcm@openssh.com",))).secure()
    payload = os.urandom(MAX_PACKET - 1 - 4 - 1)
    pair.client.sendPacket(DATA, payload)
    pair.pump()
    assert pair.server_ear.heard == [(DATA, payload)]
    pair.client.sendPacket(DATA, payload + b"xxxxxxxxxxxxxxxx")
    assert error_of(pair) == f"invalid packet length: {MAX_PACKET + 16} bytes, must be from 5 to {MAX_PACKET}"


@pytest.mark.parametrize("cipher", COMPATIBLE.ciphers)
@pytest.mark.parametrize("mac", COMPATIBLE.macs)
def test_rejects_wrong_tag(cipher: bytes, mac: bytes) -> None:
    only = replace(COMPATIBLE, kex=(b"curve25519-sha256",), ciphers=(cipher,), macs=(mac,))
    pair = Pair(algorithms=only).secure()
    pair.client.sendPacket(DATA, b"hello")
    pair.client_line.unsent[-1] ^= 1
    assert error_of(pair) in (
        "corrupt packet: tag verification failed",
        "corrupt packet: MAC verification failed",
    )
    assert pair.server_ear.heard == []
    assert pair.client.lost == ConnectionEnd(
        reason=DisconnectReason.PROTOCOL_ERROR, description=error_of(pair).encode()
    )


def test_rejects_repeated_packet() -> None:
    pair = Pair().secure()
    pair.client.sendPacket(DATA, b"hello")
    pair.client_line.unsent += bytes(pair.client_line.unsent)
    assert error_of(pair) == "corrupt packet: tag verification failed"
    assert pair.server_ear.heard == [(DATA, b"hello")]


# --- the key exchange


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize(
    "number", [a.IGNORE, a.UNIMPLEMENTED, a.DEBUG, a.EXT_INFO, a.SERVICE_ACCEPT, 19, 192]
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_rejects_injected_message_in_strict_exchange(side: str, number: int, where: str) -> None:
    """CVE-2023-48795 (Terrapin): a message before NEWKEYS ends a strict exchange."""
    pair = Pair()
    line = getattr(pair, f"{side}_line")
    other = "server" if side == "client" else "client"
    version, _, kexinit = bytes(line.unsent).partition(b"\r\n")
    injected = b"\0\0\0\x0c\x06" + bytes((number,)) + bytes(10)
    line.unsent[:] = version + b"\r\n" + (injected + kexinit if where == "before" else kexinit + injected)
    assert error_of(pair, other).endswith(("strict key exchange", "before the key exchange")) or (
        (where, number) == ("before", a.SERVICE_ACCEPT)
    )
    assert getattr(pair, other).session_id == b""


def test_accepts_messages_between_when_not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_CLIENT", b"something-else")
    monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_SERVER", b"something-other")
    pair = Pair(algorithms=replace(MODERN, ciphers=(b"chacha20-poly1305@openssh.com",)))
    monkeypatch.undo()
    pair.client.send_now(a.IGNORE, string(b""))
    pair.client.send_now(19, b"")
    pair.server.send_now(a.DEBUG, b"")
    pair.secure()
    pair.client.sendPacket(DATA, b"hello")
    pair.pump()
    assert pair.server_ear.heard == [(DATA, b"hello")]


@pytest.mark.parametrize("number", [50, 80, 90, 192])
def test_rejects_service_messages_before_keys(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_CLIENT", b"something-else")
    pair = Pair()
    monkeypatch.undo()
    pair.client.send_now(number, string(b""))
    assert error_of(pair) == f"message {number} before the key exchange"


def test_rejects_newkeys_before_exchange() -> None:
    pair = Pair()
    pair.client.send_now(a.NEWKEYS, b"")
    assert error_of(pair) == "unexpected NEWKEYS"


def test_rejects_newkeys_with_payload() -> None:
    pair = Pair().secure()
    real = pair.client.send_now

    def send(number: int, payload: bytes) -> None:
        real(number, b"x" if number == a.NEWKEYS else payload)

    pair.client.send_now = send  # type: ignore[method-assign]
    pair.client.rekey()
    assert error_of(pair) == "unexpected NEWKEYS"


def kexinit(lists: list[bytes], *, follows: bool = False) -> bytes:
    return bytes(16) + b"".join(lists) + bytes((follows,)) + uint32(0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(16),
        kexinit([names(())] * 9),
        kexinit([names(())] * 10) + b"x",
        kexinit([names(())] * 10),
        kexinit([names([b"x"] * (MAX_NAMES + 1))] + [names(())] * 9),
        kexinit([names(())] * 9 + [b"\xff\xff\xff\xff"]),
    ],
)
def test_rejects_malformed_kexinit(payload: bytes) -> None:
    pair = Pair()
    pair.client_line.unsent.clear()
    pair.client_line.write(b"SSH-2.0-x\r\n" + type(pair.client.outbound)().packet(a.KEXINIT, payload))
    assert error_of(pair)


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("junk", [b"", string(b""), string(bytes(32)), string(b"x" * 32), string(b"x") * 3])
@pytest.mark.parametrize("kex", COMPATIBLE.kex)
def test_rejects_invalid_public_values(side: str, junk: bytes, kex: bytes) -> None:
    pair = Pair(algorithms=replace(COMPATIBLE, kex=(kex,)))
    real = getattr(pair, side).send_now

    def send(number: int, payload: bytes) -> None:
        real(number, junk if number in (a.KEX_FIRST, a.KEX_REPLY) else payload)

    getattr(pair, side).send_now = send
    pair.pump()
    if junk == string(b"x" * 32) and kex.startswith(b"curve25519") and side == "client":
        # A valid value: the client then finds that the signature does not cover its own value.
        assert error_of(pair, "client") == "host key signature verification failed"
        return
    assert pair.server.lost is not None
    assert pair.client.lost is not None
    assert pair.client.lost.describe() != "internal error"
    assert pair.server.lost.describe() != "internal error"


class Guesser(ClientTransport):
    """A client that sends its public value directly after KEXINIT (RFC 4253 section 7)."""

    right = True

    def send_now(self, number: int, payload: bytes) -> None:
        kex = self.kex
        if number == a.KEXINIT and not kex.is_secure:
            payload = payload[:-5] + b"\1" + payload[-4:]
            assert kex.proposal is not None
            kex.proposal = replace(kex.proposal, payload=bytes((a.KEXINIT,)) + payload)
            super().send_now(number, payload)
            self._run = new_kex_method(MODERN.kex[0], at_once)
            self._value = result_of(self._run.offer())
            super().send_now(a.KEX_FIRST, string(self._value))
        elif number == a.KEX_FIRST and not kex.is_secure and self.right:
            assert kex.run is not None
            kex.run.method, kex.run.offered = self._run, self._value  # it was sent already
        else:
            super().send_now(number, payload)


class WrongGuesser(Guesser):
    right = False


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("client", [Guesser, WrongGuesser])
def test_ignores_wrong_guess_and_uses_right_one(client: type[Guesser], chunk: int) -> None:
    """The session continues in both cases."""
    server = MODERN if client.right else replace(MODERN, kex=MODERN.kex[::-1])
    pair = Pair(algorithms=MODERN, server_algorithms=server, client_type=client, chunk=chunk).secure()
    assert pair.client.session_id == pair.server.session_id
    pair.server.rekey()
    pair.pump()
    assert pair.client.rekeys == 1


def test_never_negotiates_markers() -> None:
    """Both sides list kex-strict and ext-info, which are not methods."""
    markers = (STRICT_CLIENT, STRICT_SERVER, b"ext-info-c")
    ours = Proposal.make(replace(MODERN, kex=MODERN.kex[:1]), (b"ssh-ed25519",), markers)
    theirs = Proposal.make(replace(MODERN, kex=MODERN.kex[1:]), (b"ssh-ed25519",), markers)
    for is_client in (True, False):
        with pytest.raises(RemoteViolation, match="no common key exchange algorithm"):
            negotiate(ours, theirs, is_client=is_client)


@pytest.mark.parametrize("name", [b"x. Your key is revoked: run evil", b"a\x1b[2J", b"a" * 65, b"\xc3\xa9"])
def test_shows_only_names_of_algorithms_in_error(name: bytes) -> None:
    ours = Proposal.make(replace(MODERN, ciphers=(b"aes128-ctr",)), (b"ssh-ed25519",), ())
    theirs = Proposal.make(replace(MODERN, ciphers=(b"aes192-ctr", name)), (b"ssh-ed25519",), ())
    with pytest.raises(RemoteViolation, match=r"the other side offers only aes192-ctr$"):
        negotiate(ours, theirs, is_client=True)


def test_parses_created_proposals() -> None:
    ours = Proposal.make(COMPATIBLE, (b"ssh-ed25519",), (STRICT_SERVER,))
    assert Proposal.read(ours.payload[1:]) == ours


# --- random input


class Watch:
    """Errors that were logged. A peer must not be able to cause one."""

    def __init__(self) -> None:
        self.errors: list[object] = []

    def __call__(self, event: dict[str, object]) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.errors.append(event)

    def __enter__(self) -> Watch:
        globalLogPublisher.addObserver(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)  # type: ignore[arg-type]


def quiet(pair: Pair) -> None:
    pair.pump(rounds=100_000)
    pair.cut()
    for end in (pair.client, pair.server):
        assert end.lost is not None
        assert end.lost.describe() != "internal error"
    assert pair.clock.getDelayedCalls() == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.integers(0, 3))
def test_never_raises_for_random_bytes_after_identification(
    noise: bytes, to_server: bool, chunk: int
) -> None:
    pair = Pair(chunk=chunk)
    line = pair.client_line if to_server else pair.server_line
    line.unsent[:] = b"SSH-2.0-x\r\n" + noise
    with Watch() as watch:
        quiet(pair)
    assert watch.errors == []


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 255), st.binary(max_size=200), st.booleans(), st.sampled_from(["plain", "secure", "rekey"])
)
def test_never_raises_for_any_message(number: int, payload: bytes, to_server: bool, when: str) -> None:
    pair = Pair(algorithms=MODERN)
    sender, receiver = (pair.client, pair.server) if to_server else (pair.server, pair.client)
    if when != "plain":
        pair.secure()
    if when == "rekey":
        receiver.rekey()
    sender.send_now(number, payload)
    with Watch() as watch:
        quiet(pair)
    assert watch.errors == []


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans(), st.integers(1, 6))
def test_never_raises_for_corrupted_traffic(chance: random.Random, to_server: bool, rounds: int) -> None:
    """Bits are flipped; pieces are removed, repeated or swapped, at any stage."""
    pair = Pair(algorithms=MODERN)
    line = pair.client_line if to_server else pair.server_line
    pair.rounds(rounds)
    bytes_ = line.unsent
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randint(0, len(bytes_)), chance.randint(1, 40)
        what = chance.choice(("flip", "cut", "twice", "noise"))
        if what == "flip" and at < len(bytes_):
            bytes_[at] ^= 1 << chance.randint(0, 7)
        elif what == "cut":
            del bytes_[at : at + size]
        elif what == "twice":
            bytes_[at:at] = bytes_[at : at + size]
        else:
            bytes_[at:at] = chance.randbytes(size)
    with Watch() as watch:
        quiet(pair)
    assert watch.errors == []


# --- time


def seconds_for(count: int) -> float:
    """Return the time to read ``count`` tiny packets from one delivery: the best of several runs."""
    best = 1e9
    for _ in range(3):
        pair = Pair(algorithms=replace(MODERN, ciphers=(b"aes128-gcm@openssh.com",))).log_in()
        pair.server_ear = ear = Ear()
        pair.server.setService(ear)
        for _ in range(count):
            pair.client.sendPacket(DATA, b"")
        data = bytes(pair.client_line.unsent)
        begin = time.perf_counter()
        pair.server.dataReceived(data)
        best = min(best, time.perf_counter() - begin)
        assert len(ear.heard) == count
    return best


def test_handles_many_tiny_packets_in_linear_time() -> None:
    """Conch copies the rest of its buffer for each packet."""
    assert seconds_for(40_000) < 10 * seconds_for(10_000)


# --- limits before the login


def messages() -> dict[str, tuple[int, bytes]]:
    return {
        "ignore": (a.IGNORE, string(b"")),
        "debug": (a.DEBUG, b"\0" + string(b"") + string(b"")),
        "unimplemented": (a.UNIMPLEMENTED, uint32(0)),
        "ping": (a.PING, string(b"")),
        "unknown": (40 + 5, b""),
        "userauth": (94, b""),
        "large": (a.IGNORE, string(bytes(30_000))),
    }


@pytest.mark.parametrize("kind", messages())
@pytest.mark.parametrize("side", ["server", "client"])
def test_limits_messages_before_login(kind: str, side: str) -> None:
    """Including messages that need no reply. An unknown message ends the connection earlier."""
    pair = Pair().secure()
    peer = pair.client if side == "server" else pair.server
    end = pair.server if side == "server" else pair.client
    sent = 0
    while end.lost is None:
        peer.send_now(*messages()[kind])
        sent += 1
        pair.pump()
        assert sent <= EARLY_BYTES // MESSAGE_COST + 1
    if kind != "unknown":
        assert end.lost.describe() == "too many messages before the login"
    assert sent * len(messages()[kind][1]) <= EARLY_BYTES + 30_000


def test_limits_messages_before_first_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without strict key exchange, IGNORE is allowed there (RFC 4253 section 11.2)."""
    monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_CLIENT", b"something-else")
    monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_SERVER", b"something-other")
    pair = Pair()
    packet = Clear().seal(0, bytes((a.IGNORE,)), string(b""))
    pair.server.dataReceived(b"SSH-2.0-flood\r\n")
    for _ in range(EARLY_BYTES // MESSAGE_COST):
        pair.server.dataReceived(packet)
    assert not pair.server_line.closing
    pair.server.dataReceived(packet)
    assert pair.server_line.closing


def test_does_not_limit_messages_after_login() -> None:
    pair = Pair().log_in()
    for _ in range(2 * EARLY_BYTES // MESSAGE_COST):
        pair.client.send_now(a.IGNORE, string(b""))
    pair.pump()
    assert pair.server.lost is None


def test_allows_twenty_large_certificates_before_login() -> None:
    """Each is offered and refused; the last one signs. The client is not disconnected."""
    pair = Pair().secure()
    for _ in range(20):
        pair.client.sendPacket(50, bytes(34_000))
        pair.client.sendPacket(50, bytes(34_000))
        pair.server.sendPacket(51, bytes(100))
    pair.pump()
    assert len(pair.server_ear.heard) == 40
    assert pair.server.lost is None


def test_reads_small_pieces_before_login() -> None:
    """This limits the memory of a connection before its login."""

    class Socket(Line):
        bufferSize = 64 * 1024

    pair = Pair(connect=False)
    pair.server_line = Socket()
    pair.connect()
    assert pair.server_line.bufferSize == READ_EARLY
    pair.log_in()
    assert pair.server_line.bufferSize == READ_AT_MOST
