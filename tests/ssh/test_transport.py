"""The life of our two transports, joined in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.errors import HostKeyRejected
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import COMPATIBLE, LEGACY, MODERN, USER_SIGNATURES
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.packetcipher import is_aead
from conchrec.ssh.peer_limits import MAX_UNREAD
from conchrec.ssh.transport import MAX_SERVICE_REQUESTS, ConnectionEnd, ConnectionGone
from conchrec.ssh.transport_base import LAST_WORDS
from conchrec.ssh.wire import string, uint32
from tests.support.pair import CLIENT_VERSION, HOST_KEY, SERVER_VERSION, Ear, Line, Pair

SUITES = [
    (cipher, mac)
    for cipher in COMPATIBLE.ciphers
    for mac in (COMPATIBLE.macs[:1] if is_aead(cipher) else LEGACY.macs)
]
FAST = b"curve25519-sha256"
DATA = 94


def failure_of(deferred: Deferred[None]) -> BaseException:
    seen: list[Failure] = []
    deferred.addErrback(seen.append)
    assert len(seen) == 1, "it has not failed"
    error = seen[0].value
    assert error is not None
    return error


def lost_of(deferred: Deferred[ConnectionEnd]) -> ConnectionEnd:
    seen: list[ConnectionEnd] = []
    deferred.addCallback(seen.append)
    assert len(seen) == 1, "it is not lost"
    return seen[0]


def talks(pair: Pair) -> None:
    """Send messages of several sizes in both directions, and check their order."""
    sizes = (0, 1, 2, 7, 8, 9, 15, 16, 17, 100, 3000)
    for size in sizes:
        pair.client.sendPacket(DATA, bytes([size % 251]) * size)
        pair.server.sendPacket(DATA, bytes([size % 241]) * size)
    pair.pump()
    assert pair.server_ear.heard == [(DATA, bytes([size % 251]) * size) for size in sizes]
    assert pair.client_ear.heard == [(DATA, bytes([size % 241]) * size) for size in sizes]
    assert pair.server.lost is pair.client.lost is None


@pytest.mark.parametrize("chunk", [0, 1, 3])
@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_talks_under_each_cipher(cipher: bytes, mac: bytes, chunk: int) -> None:
    only = replace(LEGACY, kex=(FAST,), ciphers=(cipher,), macs=(mac,))
    talks(Pair(algorithms=only, chunk=chunk).secure())


@pytest.mark.parametrize("chunk", [0, 1, 3])
@pytest.mark.parametrize("kex", LEGACY.kex)
def test_talks_with_each_key_exchange(kex: bytes, chunk: int) -> None:
    pair = Pair(algorithms=replace(LEGACY, kex=(kex,)), chunk=chunk).secure()
    talks(pair)
    assert pair.client.session_id == pair.server.session_id != b""
    assert pair.client.host_key_blob == HOST_KEY.get(b"ssh-ed25519").blob()
    assert pair.client.host_key_signature == pair.server.host_key_signature != b""


def test_negotiates_cipher_by_order_of_client() -> None:
    """No MAC is negotiated for an AEAD cipher."""
    ours = replace(MODERN, ciphers=(b"aes256-ctr", b"aes128-gcm@openssh.com"), macs=())
    server = replace(MODERN, ciphers=(b"aes128-gcm@openssh.com",), macs=())
    talks(Pair(algorithms=ours, server_algorithms=server).secure())


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        (replace(COMPATIBLE, kex=(b"ecdh-sha2-nistp256",)), "key exchange"),
        (replace(COMPATIBLE, ciphers=(b"aes192-ctr",)), "cipher"),
        (replace(COMPATIBLE, ciphers=(b"aes128-ctr",), macs=(b"hmac-sha2-512",)), "MAC"),
    ],
)
def test_reports_missing_common_algorithm(theirs: object, what: str) -> None:
    server = replace(MODERN, ciphers=(b"aes128-ctr",), macs=MODERN.macs[:1])
    pair = Pair(algorithms=theirs, server_algorithms=server)  # type: ignore[arg-type]
    secure = pair.client.when_secure()
    pair.pump()
    lost = lost_of(pair.server.when_lost())
    assert lost.describe().startswith(f"no common {what} algorithm: the other side offers ")
    assert isinstance(failure_of(secure), Exception)
    assert pair.client.lost is not None


# --- Deferreds and callbacks


def test_fires_all_deferreds_and_callbacks() -> None:
    pair = Pair(connect=False)
    early = [pair.client.when_secure(), pair.client.when_secure()]
    versions: list[bytes] = []
    pair.client.on_identification(versions.append)
    fired: list[str] = []
    for done in early:
        done.addCallback(lambda _: fired.append("secure"))
    pair.connect()
    pair.pump()
    pair.client.when_secure().addCallback(lambda _: fired.append("late"))
    pair.client.on_identification(versions.append)
    assert fired == ["secure", "secure", "late"]
    assert versions == [SERVER_VERSION, SERVER_VERSION]
    assert (pair.server.peer_identification, pair.client.peer_identification) == (
        CLIENT_VERSION,
        SERVER_VERSION,
    )
    ends: list[ConnectionEnd] = []
    pair.client.when_lost().addCallback(ends.append)
    pair.client.when_lost().addCallback(ends.append)
    pair.cut()
    pair.client.when_lost().addCallback(ends.append)
    assert ends == [ConnectionEnd()] * 3
    assert ends[0].describe() == ""
    gone = failure_of(pair.client.when_secure())
    assert isinstance(gone, ConnectionGone)
    assert (gone.end, gone.public) == (ends[0], "the connection was closed")


def test_fails_when_secure_if_connection_ends_first() -> None:
    pair = Pair()
    secure = [pair.client.when_secure(), pair.client.when_secure()]
    pair.rounds(1)
    pair.cut()
    assert all(isinstance(failure_of(done), ConnectionGone) for done in secure)


def test_stops_service_when_connection_ends() -> None:
    """The service is stopped once; its error affects nothing else."""
    pair = Pair().secure()
    lost = pair.server.when_lost()

    class Sore(Ear):
        def serviceStopped(self) -> None:
            super().serviceStopped()
            raise ValueError("on purpose")

    sore = Sore(b"ssh-connection")
    pair.server.setService(sore)
    assert pair.server_ear.stopped == 1
    pair.cut()
    pair.cut()
    assert (sore.started, sore.stopped, pair.server_ear.stopped) == (1, 1, 1)
    assert lost_of(lost) == ConnectionEnd()


def test_ends_only_this_connection_when_callback_raises() -> None:
    pair = Pair(connect=False)

    def raises(version: bytes) -> None:
        raise ValueError("on purpose")

    pair.client.on_identification(raises)
    pair.connect()
    pair.pump()
    lost = lost_of(pair.client.when_lost())
    assert isinstance(lost.error, ValueError)
    assert lost.describe() == "internal error"


def test_ends_only_this_connection_when_service_raises() -> None:
    pair = Pair().secure()

    def raises(number: int, payload: bytes) -> None:
        raise ValueError("on purpose")

    pair.server_ear.on_packet = raises
    pair.client.sendPacket(DATA, b"x")
    pair.pump()
    assert isinstance(lost_of(pair.server.when_lost()).error, ValueError)
    assert lost_of(pair.client.when_lost()) == ConnectionEnd(
        reason=DisconnectReason.BY_APPLICATION, description=b"internal error"
    )


# --- start


def test_sends_nothing_before_start() -> None:
    pair = Pair(client_version=None)
    pair.pump()
    assert pair.client.peer_identification == SERVER_VERSION
    assert pair.server.peer_identification is None
    pair.client.start(CLIENT_VERSION)
    pair.client.start(b"SSH-2.0-again")
    talks(pair.secure())
    assert pair.server.peer_identification == CLIENT_VERSION


def test_accepts_start_before_connection() -> None:
    pair = Pair(client_version=None, connect=False)
    pair.client.start(CLIENT_VERSION)
    pair.connect()
    talks(pair.secure())


@pytest.mark.parametrize("chunk", [0, 1])
def test_accepts_start_on_identification(chunk: int) -> None:
    pair = Pair(client_version=None, connect=False, chunk=chunk)
    pair.client.on_identification(lambda version: pair.client.start(b"SSH-2.0-like " + version[8:]))
    pair.connect()
    talks(pair.secure())
    assert pair.server.peer_identification == b"SSH-2.0-like server of the tests"


def test_ignores_start_after_end() -> None:
    pair = Pair(client_version=None)
    pair.cut()
    pair.client.start(CLIENT_VERSION)
    assert not pair.client_line.unsent


def test_limits_bytes_before_start() -> None:
    pair = Pair(client_version=None)
    pair.client.dataReceived(b"SSH-2.0-x\r\n" + bytes(64 * 1024))
    assert not pair.client_line.closing
    pair.client.dataReceived(b"\0")
    assert pair.client_line.closing
    assert not pair.client_line.unsent, "nothing is sent before our version"
    pair.cut()
    assert lost_of(pair.client.when_lost()).describe() == "too much was sent before our identification string"


# --- host keys


def test_disconnects_when_host_key_is_rejected() -> None:
    def refuse(blob: bytes) -> None:
        raise HostKeyRejected("not this one")

    pair = Pair(verify_host_key=refuse)
    secure = pair.client.when_secure()
    pair.pump()
    lost = lost_of(pair.client.when_lost())
    assert isinstance(lost.error, HostKeyRejected)
    assert failure_of(secure) is lost.error
    assert lost.describe() == "not this one"
    end = lost_of(pair.server.when_lost())
    assert (end.reason, end.description) == (DisconnectReason.HOST_KEY_NOT_VERIFIABLE, b"not this one")
    assert pair.client.host_key_blob == b"", "a key that was refused is nobody's"


def test_verifies_host_key_once() -> None:
    seen: list[bytes] = []
    Pair(verify_host_key=seen.append).secure()
    assert seen == [HOST_KEY.get(b"ssh-ed25519").blob()]


class Forger:
    """A host key that signs other data."""

    algorithms = (b"ssh-ed25519",)

    def get(self, algorithm: bytes) -> Forger:
        return self

    def blob(self) -> bytes:
        return HOST_KEY.get(b"ssh-ed25519").blob()

    def sign(self, data: bytes, signatureType: bytes) -> bytes:
        return HOST_KEY.get(b"ssh-ed25519").sign(data + b"!")


def test_rejects_forged_signature() -> None:
    pair = Pair(host_keys=Forger())
    pair.pump()
    assert lost_of(pair.client.when_lost()).describe() == "host key signature verification failed"
    assert lost_of(pair.server.when_lost()).reason == DisconnectReason.KEY_EXCHANGE_FAILED
    assert pair.client.session_id == b""


# --- services


def test_refuses_unknown_service() -> None:
    pair = Pair()
    pair.pump()
    pair.client.request_service(Ear(b"ssh-connection"))
    pair.pump()
    end = lost_of(pair.client.when_lost())
    assert end.reason == DisconnectReason.SERVICE_NOT_AVAILABLE
    assert end.describe() == "the service ssh-connection is not available"


def test_refuses_service_request_after_login() -> None:
    """Otherwise the authentication would start again."""
    pair = Pair().secure()
    pair.server.setService(Ear(b"ssh-connection"))
    pair.client.request_service(Ear())
    pair.pump()
    assert lost_of(pair.client.when_lost()).reason == DisconnectReason.SERVICE_NOT_AVAILABLE
    assert pair.server_ear.started == 1


def test_answers_repeated_service_requests_up_to_limit() -> None:
    """paramiko repeats the request, and sshd answers it: the login continues."""
    pair = Pair().secure()
    for _ in range(MAX_SERVICE_REQUESTS - 1):
        pair.client.request_service(Ear())
        pair.pump()
    assert pair.server_ear.started == 1
    assert pair.client.lost is None
    pair.client.request_service(Ear())
    pair.pump()
    assert lost_of(pair.client.when_lost()).reason == DisconnectReason.SERVICE_NOT_AVAILABLE


def test_rejects_service_request_before_key_exchange() -> None:
    pair = Pair()
    pair.client.send_now(a.SERVICE_REQUEST, string(b"ssh-userauth"))
    pair.pump()
    assert pair.server_ear.started == 0
    assert isinstance(lost_of(pair.server.when_lost()).error, Exception)


def test_client_rejects_service_request() -> None:
    pair = Pair().secure()
    pair.server.send_now(a.SERVICE_REQUEST, string(b"ssh-userauth"))
    pair.pump()
    assert lost_of(pair.client.when_lost()).describe() == "service request to a client"


@pytest.mark.parametrize("accepted", [string(b"ssh-connection"), string(b"ssh-userauth")[:-1]])
def test_rejects_accept_for_another_service(accepted: bytes) -> None:
    pair = Pair()
    pair.pump()
    pair.client.request_service(pair.client_ear)
    pair.client_line.unsent.clear()  # the test answers for the server
    pair.server.send_now(a.SERVICE_ACCEPT, accepted)
    pair.pump()
    assert pair.client.lost is not None
    assert pair.client_ear.started == 0


def test_rejects_accept_without_request() -> None:
    pair = Pair().secure()
    pair.server.send_now(a.SERVICE_ACCEPT, string(b"ssh-userauth"))
    pair.pump()
    assert lost_of(pair.client.when_lost()).describe() == "SERVICE_ACCEPT without a service request"


def test_accepts_service_accept_without_name() -> None:
    """Some old servers omit the name."""
    pair = Pair()
    pair.pump()
    pair.client.request_service(pair.client_ear)
    pair.client_line.unsent.clear()  # the test answers for the server
    pair.server.send_now(a.SERVICE_ACCEPT, b"")
    pair.pump()
    assert pair.client_ear.started == 1


# --- small messages


def test_sends_ext_info_under_new_keys() -> None:
    """EXT_INFO is the first message under the new keys, so it arrives before SERVICE_ACCEPT."""
    pair = Pair()
    pair.pump()
    extensions = pair.client.peer_extensions
    assert extensions[b"server-sig-algs"].split(b",") == list(USER_SIGNATURES)
    assert {b"ssh-ed25519", b"rsa-sha2-256", b"sk-ssh-ed25519@openssh.com"} <= set(USER_SIGNATURES)
    assert b"ssh-rsa" not in USER_SIGNATURES
    assert extensions[b"publickey-hostbound@openssh.com"] == b"0"
    assert extensions[b"ping@openssh.com"] == b"0"


def test_sends_no_ext_info_to_client_without_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.ssh.key_exchange.EXT_INFO_CLIENT", b"something-else")
    pair = Pair()
    monkeypatch.undo()
    talks(pair.secure())
    assert pair.client.peer_extensions == {}


@pytest.mark.parametrize("payload", [uint32(65), uint32(1), uint32(0) + b"x", b""])
def test_rejects_malformed_ext_info(payload: bytes) -> None:
    pair = Pair().secure()
    pair.server.send_now(a.EXT_INFO, payload)
    pair.pump()
    assert pair.client.lost is not None


def test_answers_ping() -> None:
    pair = Pair().secure()
    pair.client.sendPacket(a.PING, string(b"are you there?"))
    pair.client.sendPacket(DATA, b"")
    pair.server_ear.on_packet = lambda number, payload: pair.server.sendPacket(DATA, b"after")
    pair.pump()
    assert pair.client_ear.heard == [(a.PONG, string(b"are you there?")), (DATA, b"after")]
    pair.client.sendPacket(a.PING, string(b"")[:-1])
    pair.pump()
    assert pair.server.lost is not None


@pytest.mark.parametrize("number", [8, 19, 22, 29])
def test_answers_unknown_message_with_unimplemented(number: int) -> None:
    """The answer has the number of the unknown message (RFC 4253 section 11.4); Conch's has the next one."""
    pair = Pair().secure()
    answers: list[tuple[int, bytes]] = []
    real = pair.client.dispatchMessage

    def listen(messageNum: int, payload: bytes) -> None:
        answers.append((messageNum, payload))
        real(messageNum, payload)

    pair.client.dispatchMessage = listen  # type: ignore[method-assign]
    for _ in range(3):
        pair.client.send_now(a.IGNORE, string(b""))
    sequence = pair.client.outbound.sequence
    pair.client.send_now(number, b"what?")
    pair.client.send_now(a.DEBUG, b"\0" + string(b"") * 2)
    pair.pump()
    assert answers == [(a.UNIMPLEMENTED, uint32(sequence))]
    assert pair.server.lost is None


def test_answers_message_without_service() -> None:
    pair = Pair()
    pair.pump()
    pair.client.send_now(80, b"")
    pair.pump()
    assert pair.server.lost is None


# --- the end of a connection


def test_reports_reason_and_text_of_disconnect() -> None:
    pair = Pair().secure()
    pair.server.sendDisconnect(11, b"good\x1b[31m \xc3\xbcbye\r\n\xff")
    pair.server.sendDisconnect(2, b"twice")
    pair.server.sendPacket(DATA, b"late")
    pair.pump()
    lost = lost_of(pair.client.when_lost())
    assert (lost.error, lost.reason) == (None, 11)
    assert lost.describe() == "good\\x1b[31m übye  \\xff"
    assert pair.client_ear.heard == []
    assert lost_of(pair.server.when_lost()) == ConnectionEnd()


def test_cuts_long_disconnect_text() -> None:
    pair = Pair().secure()
    pair.server.sendDisconnect(11, b"x" * 200_000)
    pair.pump()
    assert len(lost_of(pair.client.when_lost()).description) == 1024


def test_accepts_disconnect_without_language() -> None:
    """Some peers omit the last field."""
    pair = Pair().secure()
    pair.server.send_now(a.DISCONNECT, uint32(11) + string(b"bye"))
    pair.server.abort()
    pair.client.dataReceived(bytes(pair.server_line.unsent))
    assert pair.server_line.aborted


def test_handles_no_message_after_disconnect() -> None:
    """Messages after DISCONNECT are not read."""
    pair = Pair().secure()
    pair.client.send_now(a.DISCONNECT, uint32(11) + string(b"bye") + string(b""))
    pair.client.send_now(DATA, b"late")
    pair.pump()
    assert pair.server_ear.heard == []
    assert lost_of(pair.server.when_lost()).reason == 11


def test_drops_peer_that_does_not_read_disconnect() -> None:
    pair = Pair().secure()
    pair.server_line.stuck = True
    pair.server.loseConnection()
    pair.pump()
    pair.clock.advance(LAST_WORDS - 0.1)
    assert pair.server_line.closing
    assert not pair.server_line.aborted
    assert pair.server_line.producer is None, "a paused producer would keep the socket from closing"
    pair.clock.advance(0.2)
    assert pair.server_line.aborted
    pair.cut()
    assert pair.clock.getDelayedCalls() == []


def test_ignores_disconnect_before_connection() -> None:
    pair = Pair(connect=False)
    pair.server.sendDisconnect(2, b"nobody hears it")
    pair.server.abort()
    assert pair.server.lost is None


@pytest.mark.parametrize("when", ["version", "exchange", "secure", "service", "leaving"])
def test_leaves_no_timer_after_end(when: str) -> None:
    pair = Pair()
    if when == "exchange":
        pair.rounds(1)
    elif when == "secure":
        pair.pump()
    elif when in ("service", "leaving"):
        pair.log_in()
    if when == "leaving":
        pair.server.loseConnection()
    assert pair.clock.getDelayedCalls()
    pair.cut()
    assert pair.clock.getDelayedCalls() == []
    pair.server.loseConnection()
    pair.client.dataReceived(b"late")
    pair.client.sendPacket(DATA, b"late")
    assert pair.clock.getDelayedCalls() == []


def test_disconnects_when_key_exchange_takes_too_long() -> None:
    pair = Pair()
    pair.rounds(1)
    pair.clock.advance(29)
    assert not pair.server_line.closing
    pair.clock.advance(1)
    assert pair.server_line.closing
    pair.cut()
    assert lost_of(pair.server.when_lost()).describe() == "the key exchange was not completed in time"


def test_disconnects_when_login_does_not_start() -> None:
    pair = Pair()
    pair.clock.advance(20)
    pair.pump()
    pair.clock.advance(29)
    assert not pair.server_line.closing
    pair.clock.advance(1)
    pair.pump()
    assert lost_of(pair.client.when_lost()).describe() == "the login was not started in time"


def test_stops_handshake_timer_when_service_starts() -> None:
    pair = Pair().secure()
    pair.clock.advance(3000)
    pair.pump()
    assert pair.server.lost is None


# --- backpressure


class Source:
    def __init__(self) -> None:
        self.events: list[str] = []

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")


def test_pauses_producer_when_socket_is_full() -> None:
    pair = Pair().secure()
    source = Source()
    pair.server.registerProducer(source, True)
    pair.server_line.producer.pauseProducing()
    pair.server_line.producer.resumeProducing()
    pair.server_line.producer.pauseProducing()
    pair.server.unregisterProducer()
    pair.server_line.producer.resumeProducing()
    assert source.events == ["pause", "resume", "pause"]


def test_pauses_new_producer_when_socket_is_full() -> None:
    pair = Pair().secure()
    pair.server_line.producer.pauseProducing()
    source = Source()
    pair.server.registerProducer(source, True)
    pair.server_line.producer.resumeProducing()
    assert source.events == ["pause", "resume"]


def test_holds_peer_that_does_not_read_answers() -> None:
    """A client sends pings or unknown messages without end, and its socket accepts nothing."""
    pair = Pair().secure()
    server = pair.server_line.producer
    pair.server_line.stuck = True
    server.pauseProducing()
    before = pair.server.packets_read
    for _ in range(3000):
        pair.client.sendPacket(a.PING, string(bytes(1000)))
    pair.pump()
    handled = pair.server.packets_read - before
    assert len(pair.server_line.unsent) < MAX_UNREAD + 3000
    assert pair.server_line.paused, "the client is not read any more"
    assert not pair.server_line.closing
    while pair.client_line.unsent or handled < 3000:
        pair.server_line.unsent.clear()
        server.resumeProducing()
        server.pauseProducing()
        pair.pump()
        assert pair.server.packets_read - before > handled, "it does not go on"
        handled = pair.server.packets_read - before
    assert handled == 3000


def test_holds_peer_that_does_not_read_replies_of_service() -> None:
    pair = Pair().secure()
    pair.server_ear.on_packet = lambda number, payload: pair.server.sendPacket(100, bytes(8))
    pair.server_line.producer.pauseProducing()
    for _ in range(50_000):
        pair.client.sendPacket(98, bytes(8))
    pair.pump()
    assert len(pair.server_line.unsent) < 2 * MAX_UNREAD
    assert len(pair.server_ear.heard) < 2 * MAX_UNREAD // 64


def test_handles_messages_while_channel_data_is_unread() -> None:
    """The window limits channel data, and the peer's messages may be needed to drain the socket."""
    pair = Pair().secure()
    pair.server_line.producer.pauseProducing()
    for _ in range(10):
        pair.server.sendPacket(94, bytes(30_000))
    pair.client.sendPacket(93, bytes(8))
    pair.pump()
    assert [number for number, _ in pair.server_ear.heard] == [93]


def test_drops_peer_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows limit channel data; all other messages that a peer causes are limited too."""
    monkeypatch.setattr("conchrec.ssh.transport_base.MAX_BEHIND", 100_000)
    pair = Pair().secure()
    for _ in range(20):
        pair.server.sendPacket(DATA, bytes(20_000))
    assert not pair.server_line.aborted, "nobody has said that the socket is full"
    pair.server_line.producer.pauseProducing()
    for _ in range(4):
        pair.server.sendPacket(DATA, bytes(20_000))
    pair.server_line.producer.resumeProducing()
    pair.server.sendPacket(DATA, bytes(20_000))
    pair.server_line.producer.pauseProducing()
    for _ in range(4):
        pair.server.sendPacket(DATA, bytes(20_000))
    assert not pair.server_line.aborted
    pair.server.sendPacket(DATA, bytes(20_000))
    assert pair.server_line.aborted
    pair.cut()
    assert lost_of(pair.server.when_lost()).describe() == "the other side does not read what we send"


def test_keeps_peer_that_reads_answers() -> None:
    pair = Pair().log_in()
    for _ in range(30):
        pair.client.sendPacket(a.PING, string(bytes(200_000)))
        pair.pump()
    assert len(pair.client_ear.heard) == 30


def test_sets_socket_options() -> None:
    turned: list[tuple[str, bool]] = []

    class Socket(Line):
        def setTcpNoDelay(self, enabled: bool) -> None:
            turned.append(("no delay", enabled))

        def setTcpKeepAlive(self, enabled: bool) -> None:
            turned.append(("keep alive", enabled))

    pair = Pair(connect=False)
    pair.server_line = Socket()
    pair.connect()
    assert turned == [("no delay", True), ("keep alive", True)]
    assert (pair.server.getPeer(), pair.server.getHost()) == ("peer", "host")


def test_does_not_enter_reader_twice() -> None:
    """A message causes another delivery: the order is kept."""
    pair = Pair().secure()
    order: list[bytes] = []
    later = bytearray()

    def again(number: int, payload: bytes) -> None:
        order.append(b"begin " + payload)
        if later:
            piece = bytes(later)
            later.clear()
            pair.server.dataReceived(piece)
        order.append(b"end " + payload)

    pair.server_ear.on_packet = again
    pair.client.sendPacket(DATA, b"1")
    first = bytes(pair.client_line.unsent)
    pair.client_line.unsent.clear()
    pair.client.sendPacket(DATA, b"2")
    later += pair.client_line.unsent
    pair.client_line.unsent.clear()
    pair.server.dataReceived(first)
    assert order == [b"begin 1", b"end 1", b"begin 2", b"end 2"]


def test_calls_all_who_wait_for_end_if_one_fails() -> None:
    pair = Pair().secure()
    ends: list[ConnectionEnd] = []

    def fail(end: ConnectionEnd) -> None:
        raise ValueError("a bug")

    pair.server.on_lost(fail)
    pair.server.on_lost(ends.append)
    pair.cut()
    pair.server.on_lost(ends.append)
    assert ends == [pair.server.lost, pair.server.lost]
