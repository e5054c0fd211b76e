"""New keys during transfers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.errors import HostKeyRejected
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import AES_GCM, MODERN
from conchrec.ssh.certificate import CERTIFICATE, CertificateKind, Ed25519Authority, issue
from conchrec.ssh.kex_table import ExchangePhase
from conchrec.ssh.kexinit import Proposal, prefer_ciphers
from conchrec.ssh.key_exchange import HOLD_AT, KEXINIT_WAIT, MAX_BLOCKED, MAX_BLOCKED_EARLY, REKEY_TIME
from conchrec.ssh.packet_reader import MAX_HELD
from conchrec.ssh.peer_limits import REKEY_BURST, REKEY_LONGEST_PAUSE
from conchrec.ssh.server_host_keys import ServerHostKey, ServerHostKeys
from conchrec.ssh.wire import string
from tests.support.pair import Ear, Pair

DATA = 94


def number(value: int, size: int = 200) -> bytes:
    return value.to_bytes(4, "big") * (size // 4)


@pytest.mark.parametrize("chunk", [0, 1, 3, 700])
@pytest.mark.parametrize(
    ("server", "client"), [(5_000, 1 << 30), (1 << 30, 5_000), (5_000, 5_000), (5_000, 7_000)]
)
def test_rekeys_without_loss_while_both_sides_talk(server: int, client: int, chunk: int) -> None:
    """Either side or both start the exchange while both send; nothing is lost, and the order is kept."""
    pair = Pair(algorithms=MODERN, chunk=chunk, server_rekey_bytes=server, client_rekey_bytes=client).log_in()
    session_id = pair.client.session_id
    count = 200
    for value in range(count):
        pair.client.sendPacket(DATA, number(value))
        pair.server.sendPacket(DATA, number(value))
        pair.rounds(20 if chunk in (1, 3) else 1)
    pair.pump()
    expected = [(DATA, number(value)) for value in range(count)]
    assert pair.server_ear.heard == expected
    assert pair.client_ear.heard == expected
    assert pair.client.rekeys == pair.server.rekeys >= 2
    assert pair.client.session_id == pair.server.session_id == session_id
    assert pair.client.kex.phase is pair.server.kex.phase is ExchangePhase.IDLE


def test_rekeys_when_only_receiving() -> None:
    """A side that sends nothing also starts an exchange at the limit."""
    pair = Pair(server_rekey_bytes=5_000).log_in()
    for _ in range(20):
        pair.client.sendPacket(DATA, bytes(1000))
        pair.pump()
    assert pair.server.rekeys >= 3


def test_rekeys_when_both_sides_begin_at_once() -> None:
    pair = Pair().secure()
    pair.client.rekey()
    pair.server.rekey()
    for end in (pair.client, pair.server):
        for value in range(3):
            end.sendPacket(DATA, number(value))
    pair.pump()
    assert pair.client.rekeys == pair.server.rekeys == 1
    assert pair.server_ear.heard == pair.client_ear.heard == [(DATA, number(value)) for value in range(3)]


def test_sends_nothing_between_kexinit_and_newkeys() -> None:
    pair = Pair().secure()
    seen: list[int] = []
    real = pair.client.dispatchMessage

    def listen(messageNum: int, payload: bytes) -> None:
        seen.append(messageNum)
        real(messageNum, payload)

    pair.client.dispatchMessage = listen  # type: ignore[method-assign]
    pair.server.rekey()
    pair.server.sendPacket(DATA, b"1")
    pair.server.sendPacket(a.EXT_INFO, bytes(4))
    pair.client.sendPacket(a.PING, string(b"asked by one that knows nothing of it"))
    pair.client.sendPacket(DATA, b"sent by one that knows nothing of it")
    pair.server.sendPacket(DATA, b"2")
    pair.server.sendPacket(a.IGNORE, string(b"may go at once"))
    pair.pump()
    assert seen == [
        a.KEXINIT, a.IGNORE, a.KEX_REPLY, a.NEWKEYS, DATA, a.EXT_INFO, DATA, a.PONG
    ]  # fmt: skip
    assert pair.server_ear.heard == [(DATA, b"sent by one that knows nothing of it")]


@pytest.mark.parametrize("chunk", [0, 1])
def test_accepts_messages_under_old_keys_until_newkeys(chunk: int) -> None:
    """A peer should not send them between its KEXINIT and its NEWKEYS; like OpenSSH we accept them."""
    pair = Pair(chunk=chunk).secure()
    pair.server.rekey()
    while pair.client.kex.phase is ExchangePhase.IDLE:
        pair.rounds(1)
    pair.client.send_now(DATA, b"after its KEXINIT")
    pair.pump()
    assert pair.server_ear.heard == [(DATA, b"after its KEXINIT")]
    assert pair.server.rekeys == pair.client.rekeys == 1


def test_rekeys_by_time() -> None:
    """After an hour, with one timer, however many exchanges there were before."""
    pair = Pair(server_rekey_bytes=5_000).log_in()
    for _ in range(50):
        pair.client.sendPacket(DATA, bytes(1000))
        pair.pump()
    assert pair.server.rekeys > 5
    assert len(pair.clock.getDelayedCalls()) == 2
    before = pair.server.rekeys
    pair.clock.advance(REKEY_TIME.total_seconds())
    pair.pump()
    assert pair.server.rekeys == pair.client.rekeys == before + 1
    pair.clock.advance(REKEY_TIME.total_seconds() - 1)
    pair.pump()
    assert pair.server.rekeys == before + 1
    pair.clock.advance(1)
    pair.pump()
    assert pair.server.rekeys == before + 2


def test_renews_no_keys_during_login() -> None:
    """OpenSSH's client rejects a KEXINIT there. The time starts again with the end of the login."""
    pair = Pair(server_rekey_bytes=5_000, client_rekey_bytes=5_000).secure()
    for _ in range(20):
        pair.client.sendPacket(DATA, bytes(1000))
        pair.pump()
    pair.clock.advance(REKEY_TIME.total_seconds())
    pair.pump()
    assert pair.server.rekeys == pair.client.rekeys == 0
    pair.log_in()
    assert pair.server.rekeys == pair.client.rekeys == 1
    pair.clock.advance(REKEY_TIME.total_seconds())
    pair.pump()
    assert pair.server.rekeys == pair.client.rekeys == 2


def test_ignores_rekey_time_during_exchange() -> None:
    pair = Pair().log_in()
    pair.server.rekey()
    pair.clock.advance(REKEY_TIME.total_seconds())
    pair.pump()
    assert pair.server.rekeys == pair.client.rekeys == 1
    pair.client.rekey()
    pair.client.loseConnection()
    pair.clock.advance(1)
    pair.pump()
    assert pair.clock.getDelayedCalls() == []


# --- exchanges that a peer starts


@pytest.mark.parametrize("side", ["client", "server"])
def test_pauses_peer_that_begins_many_exchanges(side: str) -> None:
    """Its messages wait in order. We send under the old keys until the exchange starts."""
    pair = Pair().log_in()
    peer, end = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    ear, peer_ear = (
        (pair.server_ear, pair.client_ear) if side == "client" else (pair.client_ear, pair.server_ear)
    )
    for _ in range(REKEY_BURST):
        peer.rekey()
        pair.pump()
    assert end.rekeys == REKEY_BURST
    for _ in range(3):
        peer.rekey()
        peer.send_now(DATA, b"behind its KEXINIT")
        pair.pump()
        end.sendPacket(DATA, b"from the other side")
        pair.pump()
        assert end.kex.phase is ExchangePhase.PAUSED
        assert (ear.heard, peer_ear.heard.pop()) == ([], (DATA, b"from the other side"))
        pair.clock.advance(REKEY_LONGEST_PAUSE)
        pair.pump()
        assert ear.heard.pop() == (DATA, b"behind its KEXINIT")
    assert end.rekeys == peer.rekeys == REKEY_BURST + 3
    assert end.lost is None


def test_limits_bytes_of_peer_during_pause() -> None:
    pair = Pair().log_in()
    for _ in range(REKEY_BURST + 1):
        pair.client.rekey()
        pair.pump()
    for _ in range(3 * MAX_HELD // 1000):
        pair.client.send_now(DATA, bytes(1000))
        pair.pump()
    assert pair.server_line.paused
    assert len(pair.server.inbound) < MAX_HELD + 2000
    pair.clock.advance(1)
    pair.pump()
    assert len(pair.server_ear.heard) == 3 * MAX_HELD // 1000
    assert not pair.server_line.paused


def test_joins_own_exchange_during_pause() -> None:
    pair = Pair().log_in()
    for _ in range(REKEY_BURST + 1):
        pair.client.rekey()
        pair.pump()
    pair.server.rekey()
    pair.pump()
    pair.clock.advance(1)
    pair.pump()
    assert pair.server.rekeys == pair.client.rekeys == REKEY_BURST + 1
    assert pair.server.lost is None


def test_ends_during_pause() -> None:
    pair = Pair().log_in()
    for _ in range(REKEY_BURST + 1):
        pair.client.rekey()
        pair.pump()
    pair.cut()
    assert pair.clock.getDelayedCalls() == []


def test_does_not_charge_own_exchanges() -> None:
    pair = Pair().log_in()
    for _ in range(3 * REKEY_BURST):
        pair.server.rekey()
        pair.pump()
        # The client is also ours and charges the server.
        pair.clock.advance(REKEY_LONGEST_PAUSE)
        pair.pump()
    pair.client.rekey()
    pair.pump()
    assert pair.server.rekeys == 3 * REKEY_BURST + 1


# --- ciphers that the server prefers

CHACHA = b"chacha20-poly1305@openssh.com"
PREFERENCE = replace(MODERN, preferred_ciphers=AES_GCM)


def ciphers(pair: Pair) -> tuple[tuple[bytes, ...], ...]:
    return tuple(
        tuple(name for name in end.agreed_names if name in MODERN.ciphers)
        for end in (pair.client, pair.server)
    )


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ((CHACHA, b"aes128-ctr", *AES_GCM), AES_GCM[0]),
        (AES_GCM[::-1], AES_GCM[1]),
        ((CHACHA, b"aes256-ctr"), CHACHA),
        ((b"aes256-ctr", CHACHA), b"aes256-ctr"),
    ],
)
def test_prefers_cipher_of_server_that_client_supports(offered: tuple[bytes, ...], agreed: bytes) -> None:
    """The client's order decides among the ciphers that the server offers. Later exchanges keep it."""
    pair = Pair(
        algorithms=replace(MODERN, ciphers=offered), server_algorithms=PREFERENCE, client_rekey_bytes=20_000
    ).log_in()
    assert ciphers(pair) == ((agreed,), (agreed,))
    for value in range(100):
        pair.client.sendPacket(DATA, number(value, 1000))
        pair.pump()
    assert pair.server.rekeys > 2
    pair.server.rekey()
    pair.pump()
    assert ciphers(pair) == ((agreed,), (agreed,))


def test_prefers_cipher_only_if_client_supports_it_in_both_directions() -> None:
    theirs = Proposal.make(replace(MODERN, ciphers=(CHACHA, *AES_GCM)), (), ())
    for directions in ((AES_GCM, (CHACHA,)), ((CHACHA,), AES_GCM)):
        assert prefer_ciphers(PREFERENCE, replace(theirs, ciphers=directions)) == PREFERENCE
    assert prefer_ciphers(PREFERENCE, theirs) == replace(PREFERENCE, ciphers=AES_GCM)


def test_offers_all_ciphers_to_client_that_waits_for_kexinit() -> None:
    """The server waits for a short time, and offers the same again in later exchanges."""
    pair = Pair(algorithms=replace(MODERN, ciphers=(CHACHA, *AES_GCM)), server_algorithms=PREFERENCE)
    held, pair.client_line.unsent = pair.client_line.unsent, bytearray()
    identification, end, kexinit = held.partition(b"\r\n")
    pair.client_line.unsent += identification + end
    pair.pump()
    phases = [pair.server.kex.phase]
    pair.clock.advance(KEXINIT_WAIT.total_seconds())
    phases.append(pair.server.kex.phase)
    assert phases == [ExchangePhase.INITIAL, ExchangePhase.PROPOSED]
    pair.client_line.unsent += kexinit
    pair.secure()
    assert ciphers(pair) == ((CHACHA,), (CHACHA,))
    pair.client.rekey()
    pair.pump()
    assert (ciphers(pair), pair.server.rekeys) == (((CHACHA,), (CHACHA,)), 1)


def test_sends_kexinit_at_once_without_preferred_ciphers() -> None:
    assert Pair().server.kex.phase is ExchangePhase.PROPOSED


# --- blocked messages


class Source:
    def __init__(self) -> None:
        self.events: list[str] = []

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")


def test_pauses_producer_during_exchange() -> None:
    pair = Pair().secure()
    pair.server.setService(Ear(b"ssh-connection"))
    source = Source()
    pair.server.registerProducer(source, True)
    pair.server.rekey()
    count = HOLD_AT // 100_000 + 2
    for _ in range(count):
        pair.server.sendPacket(DATA, bytes(100_000))
    assert source.events == ["pause"]
    pair.server_line.producer.pauseProducing()
    pair.pump()
    assert len(pair.client_ear.heard) == count
    assert source.events == ["pause"], "its socket is still full"
    pair.server_line.producer.resumeProducing()
    assert source.events == ["pause", "resume"]


def test_disconnects_peer_that_never_finishes_exchange() -> None:
    pair = Pair().secure()
    pair.server.setService(Ear(b"ssh-connection"))
    pair.server.rekey()
    block = bytes(1 << 20)
    for _ in range(MAX_BLOCKED // len(block) - 1):
        pair.server.sendPacket(DATA, block)
    assert not pair.server_line.closing
    for _ in range(3):
        pair.server.sendPacket(DATA, block)
    assert pair.server_line.closing
    pair.cut()
    assert pair.server.lost is not None
    assert pair.server.lost.describe() == "the key exchange takes too long: too many messages wait for it"
    assert not pair.server.kex.blocked


def test_counts_overhead_of_small_blocked_messages() -> None:
    """Before the login a peer causes many small replies that wait: each costs more than its bytes."""
    pair = Pair()
    pair.pump()
    pair.server.rekey()
    for _ in range(MAX_BLOCKED_EARLY // 100):
        pair.client.sendPacket(a.PING, string(b""))
    pair.client_line, quiet = type(pair.client_line)(), pair.client_line
    pair.server.dataReceived(bytes(quiet.unsent))
    assert pair.server_line.closing
    assert len(pair.server.kex.blocked) <= MAX_BLOCKED_EARLY // 100


def test_ends_during_exchange() -> None:
    pair = Pair().secure()
    pair.server.rekey()
    pair.server.sendPacket(DATA, b"never to be sent")
    lost = pair.server.when_lost()
    pair.cut()
    assert lost.called
    assert not pair.server.kex.blocked
    assert pair.clock.getDelayedCalls() == []


# --- host keys


def certified(key: ed25519.Ed25519PrivateKey, serial: int) -> ServerHostKeys:
    authority = Ed25519Authority(ed25519.Ed25519PrivateKey.generate())
    certificate = issue(
        authority=authority,
        public_key=ServerHostKey(key).blob(),
        kind=CertificateKind.HOST,
        serial=serial,
        key_id="renewed",
        principals=["target"],
        valid_after=0,
        valid_before=2**63,
    )
    return ServerHostKeys(key, certificate.blob)


CERTIFIED = (b"ssh-ed25519" + CERTIFICATE,)


def test_verifies_renewed_certificate() -> None:
    """The certificate is verified again; the session binding stays that of the first exchange."""
    key = ed25519.Ed25519PrivateKey.generate()
    seen: list[bytes] = []
    pair = Pair(
        host_keys=certified(key, 1), host_key_algorithms=CERTIFIED, verify_host_key=seen.append
    ).secure()
    first = pair.client.host_key_blob
    signature = pair.client.host_key_signature
    pair.server.rekey()
    pair.pump()
    assert len(seen) == 1, "the same again is not asked about"
    pair.server.kex.host_keys = certified(key, 2)
    pair.server.rekey()
    pair.pump()
    assert pair.client.rekeys == 2
    assert len(seen) == 2
    assert pair.client.host_key_blob == seen[0] == first != seen[1]
    assert pair.client.host_key_signature == signature


def test_rejects_invalid_renewed_certificate() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    seen: list[bytes] = []

    def once(blob: bytes) -> None:
        if seen:
            raise HostKeyRejected("it has expired")
        seen.append(blob)

    pair = Pair(host_keys=certified(key, 1), host_key_algorithms=CERTIFIED, verify_host_key=once).secure()
    pair.server.kex.host_keys = certified(key, 2)
    pair.client.rekey()
    pair.pump()
    assert pair.client.lost is not None
    assert isinstance(pair.client.lost.error, HostKeyRejected)


def test_rejects_another_host_key() -> None:
    pair = Pair().secure()
    pair.server.kex.host_keys = ServerHostKeys(ed25519.Ed25519PrivateKey.generate(), None)
    pair.client.rekey()
    pair.pump()
    assert pair.client.lost is not None
    assert pair.client.lost.describe() == "the host key changed during the connection"


# --- strict key exchange


@pytest.mark.parametrize("strict", [True, False])
def test_resets_sequence_numbers_only_when_strict(strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With strict key exchange they restart after each NEWKEYS."""
    if not strict:
        monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_CLIENT", b"something-else")
        monkeypatch.setattr("conchrec.ssh.key_exchange.STRICT_SERVER", b"something-other")
    pair = Pair(algorithms=replace(MODERN, ciphers=(b"chacha20-poly1305@openssh.com",)))
    monkeypatch.undo()
    pair.secure()
    assert pair.server.kex.strict is strict
    pair.client.rekey()
    pair.pump()
    assert pair.client.rekeys == 1
    assert (pair.client.outbound.sequence == 0) is strict
    assert pair.client.outbound.sequence == pair.server.inbound.sequence
    assert pair.server.outbound.sequence == pair.client.inbound.sequence


def test_wraps_sequence_numbers() -> None:
    for cipher in (b"chacha20-poly1305@openssh.com", b"aes128-ctr", b"aes128-gcm@openssh.com"):
        pair = Pair(algorithms=replace(MODERN, ciphers=(cipher,))).secure()
        for end in (pair.client, pair.server):
            end.outbound.sequence = end.inbound.sequence = 0xFFFFFFFE
        for value in range(5):
            pair.client.sendPacket(DATA, number(value))
            pair.server.sendPacket(DATA, number(value))
        pair.pump()
        assert pair.server_ear.heard == pair.client_ear.heard == [(DATA, number(i)) for i in range(5)]
        assert pair.client.outbound.sequence == 3


def test_rejects_kexinit_during_exchange() -> None:
    pair = Pair().secure()
    pair.client.rekey()
    assert pair.client.kex.proposal is not None
    pair.client.send_now(a.KEXINIT, pair.client.kex.proposal.payload[1:])
    pair.pump()
    assert pair.server.lost is not None
    assert pair.server.lost.describe() == "KEXINIT during a key exchange"


@pytest.mark.parametrize("message", [a.NEWKEYS, a.KEX_FIRST, a.KEX_REPLY, 49])
def test_rejects_exchange_messages_outside_exchange(message: int) -> None:
    pair = Pair().secure()
    pair.client.send_now(message, b"")
    pair.pump()
    assert pair.server.lost is not None
    assert pair.server.lost.error is not None
