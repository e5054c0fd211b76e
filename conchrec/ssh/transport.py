"""The transport protocol, both sides (RFC 4253, RFC 8308, OpenSSH's PROTOCOL), on Conch's transports.

Conch keeps the life of a connection and of its services. What it lacks is here: packets that are cut
from a stream in linear time and sealed with modern ciphers, strict key exchange, rekeying that we begin
ourselves, host certificates, extension info that lists the keys of *users*, and an end that everybody
who asks hears of, with the reason. Whatever goes wrong ends this connection alone; nothing raises out of
``dataReceived``.
"""

from __future__ import annotations

import enum
import os
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.transport import SSHClientTransport, SSHServerTransport
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError, ProtocolViolation, RemoteViolation
from conchrec.ssh import packetcipher
from conchrec.ssh.algorithms import USER_SIGNATURES, Algorithms
from conchrec.ssh.certificate import verify_signature
from conchrec.ssh.kex import KeyExchange, derive, exchange, hash_of
from conchrec.ssh.wire import Reader, names, string, uint32
from conchrec.timing import Clock, DelayedCall

_log = Logger()

DISCONNECT = 1
IGNORE = 2
UNIMPLEMENTED = 3
DEBUG = 4
SERVICE_REQUEST = 5
SERVICE_ACCEPT = 6
EXT_INFO = 7
KEXINIT = 20
NEWKEYS = 21
KEX_FIRST = 30
KEX_REPLY = 31
#: The first number that belongs to the services above.
FIRST_SERVICE = 50
#: PROTOCOL 1.10.
PING = 192
PONG = 193

PROTOCOL_ERROR = 2
KEY_EXCHANGE_FAILED = 3
SERVICE_NOT_AVAILABLE = 7
VERSION_NOT_SUPPORTED = 8
HOST_KEY_NOT_VERIFIABLE = 9
BY_APPLICATION = 11

#: RFC 4253 section 4.2: 255 with CR and LF; and what a server may say before it.
MAX_VERSION = 255
MAX_GREETING = 8 * 1024
MAX_GREETING_LINES = 50
#: What may wait for ``start``: a server's KEXINIT, and a guessed packet.
MAX_EARLY = 64 * 1024
#: Messages that a peer may send in the middle of our key exchange.
MAX_BLOCKED = 64 * 1024 * 1024
MAX_NAMES = 1024
MAX_EXTENSIONS = 64

STRICT_CLIENT = b"kex-strict-c-v00@openssh.com"
STRICT_SERVER = b"kex-strict-s-v00@openssh.com"
EXT_INFO_CLIENT = b"ext-info-c"
_MARKERS = (STRICT_CLIENT, STRICT_SERVER, EXT_INFO_CLIENT, b"ext-info-s")

#: When new keys are asked for: OpenSSH's own default of volume, and RFC 4253's advice of an hour.
REKEY_BYTES = 1 << 30
REKEY_TIME = timedelta(hours=1)
#: A peer that does not take our DISCONNECT is dropped.
LAST_WORDS = 5.0
USERAUTH = b"ssh-userauth"


class HostKey(Protocol):
    """A host key, or a certificate with its key, as a server shows it."""

    def blob(self) -> bytes: ...

    def sign(self, data: bytes, signatureType: bytes) -> bytes: ...


class HostKeys(Protocol):
    """All that a server can show, in order of preference."""

    @property
    def algorithms(self) -> tuple[bytes, ...]: ...

    def get(self, algorithm: bytes) -> HostKey: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """How a connection ended.

    ``error`` is what went wrong here; ``reason`` and ``description`` what the peer said in DISCONNECT;
    ``greeting`` the lines that it sent in place of a version.
    """

    error: Exception | None = None
    reason: int | None = None
    description: bytes = b""
    greeting: tuple[bytes, ...] = ()

    def describe(self) -> str:
        """One printable line; empty where the peer just went."""
        if isinstance(self.error, ConchrecError):
            return self.error.public
        if self.error is not None:
            return "internal error"
        text = self.description if self.reason is not None else b" ".join(self.greeting)
        return _printable(text) or ("disconnected" if self.reason is not None else "")


class ConnectionGone(ConchrecError):
    """The connection ended before what was waited for; ``lost`` says how."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.describe() or "the connection was closed")
        self.lost = lost


class _Phase(enum.Enum):
    """Where a key exchange is."""

    IDLE = "none runs"
    ASKED = "our KEXINIT is out"
    RUNNING = "both KEXINITs have gone"
    SENT_KEYS = "our NEWKEYS is out"


class _Modern:
    """What both sides share. Mixed in before one of Conch's transports, whose methods it replaces."""

    # What Conch's class has and this one uses.
    transport: Any
    service: SSHService | None
    isClient: bool

    def _set_up(self, *, version: bytes | None, algorithms: Algorithms, clock: Clock | None) -> None:
        self._algorithms = algorithms
        self._clock = clock
        self._our_version = version
        self._buffer = bytearray()
        self._greeting: list[bytes] = []
        self._greeting_size = 0
        self._phase = _Phase.IDLE
        self._first_exchange = True
        self._strict = False
        self._peer_takes_ext_info = False
        self._sealer: packetcipher.Sealer = packetcipher.Clear()
        self._opener: packetcipher.Opener = packetcipher.Clear()
        self._next_opener: packetcipher.Opener | None = None
        self._head: bytes | None = None
        self._rest = 0
        self._out_sequence = 0
        self._in_sequence = 0
        self._handling = 0
        self._since_rekey = 0
        self._last_rekey = clock.seconds() if clock is not None else 0.0
        self._blocked: deque[tuple[int, bytes]] = deque()
        self._blocked_bytes = 0
        self._our_kexinit = b""
        self._peer_kexinit = b""
        self._kex_name = b""
        self._host_key_algorithm = b""
        self._exchange: KeyExchange | None = None
        self._offered = b""
        self._suites: tuple[packetcipher.Suite, packetcipher.Suite] | None = None
        self._ignore_guess = False
        self._closing = False
        self._made = False
        self._on_version: list[Callable[[bytes], None]] = []
        self._secure: list[Deferred[None]] = []
        self._lost_waiters: list[Deferred[Lost]] = []
        self._error: Exception | None = None
        self._peer_reason: int | None = None
        self._peer_description = b""
        self._timers: list[DelayedCall] = []
        self.lost: Lost | None = None
        self.sessionID: bytes | None = None
        self.peer_version: bytes | None = None
        self.peer_extensions: dict[bytes, bytes] = {}
        self.host_key_blob = b""
        self.host_key_signature = b""
        self.rekeys = 0

    # --- what others ask

    @property
    def session_id(self) -> bytes:
        return self.sessionID or b""

    def on_version(self, callback: Callable[[bytes], None]) -> None:
        """``callback`` gets the peer's version line, now or when it comes."""
        if self.peer_version is not None:
            callback(self.peer_version)
        else:
            self._on_version.append(callback)

    def when_secure(self) -> Deferred[None]:
        """Fires when the first key exchange is done; fails with what ended it, or ConnectionGone."""
        done: Deferred[None] = Deferred()
        if self.lost is not None:
            done.errback(Failure(self._gone(self.lost)))
        elif not self._first_exchange:
            done.callback(None)
        else:
            self._secure.append(done)
        return done

    def when_lost(self) -> Deferred[Lost]:
        """Fires when the connection is over, however that came about; never fails."""
        done: Deferred[Lost] = Deferred()
        if self.lost is not None:
            done.callback(self.lost)
        else:
            self._lost_waiters.append(done)
        return done

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Whatever feeds this connection is paused while its socket does not drain."""
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    # --- life

    def connectionMade(self) -> None:
        self._made = True
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        set_keep_alive = getattr(self.transport, "setTcpKeepAlive", None)
        if set_keep_alive is not None:
            set_keep_alive(True)
        if self._our_version is not None:
            self._greet()

    def _greet(self) -> None:
        assert self._our_version is not None
        self.transport.write(self._our_version + b"\r\n")
        self._begin_exchange()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.lost is not None:
            return
        self.lost = lost = Lost(
            error=self._error,
            reason=self._peer_reason,
            description=self._peer_description,
            greeting=() if self.peer_version is not None else tuple(self._greeting),
        )
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._blocked.clear()
        self._buffer.clear()
        service, self.service = self.service, None
        if service is not None:
            self._guard(service.serviceStopped)
        secure, self._secure = self._secure, []
        for done in secure:
            done.errback(Failure(self._gone(lost)))
        waiting, self._lost_waiters = self._lost_waiters, []
        for over in waiting:
            over.callback(lost)

    @staticmethod
    def _gone(lost: Lost) -> Exception:
        return lost.error if lost.error is not None else ConnectionGone(lost)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Tell the peer why (RFC 4253 section 11.1), then end; once."""
        if self._closing or not self._made or self.lost is not None:
            return
        if self._our_version is not None:
            self._send(DISCONNECT, uint32(reason) + string(desc) + string(b""))
        self._leave()

    def _leave(self) -> None:
        """Close when what was sent has gone, or when that takes too long."""
        self._closing = True
        # A paused producer would keep the socket from closing.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if self._clock is not None and self.lost is None:
            self._timers.append(self._clock.callLater(LAST_WORDS, self.abort))

    def loseConnection(self) -> None:
        self.sendDisconnect(BY_APPLICATION, b"disconnected by user")

    def abort(self) -> None:
        """Drop the connection, unsent bytes and all."""
        self._closing = True
        if self.transport is not None and self.lost is None:
            self.transport.abortConnection()

    def _fail(self, error: Exception, reason: int = PROTOCOL_ERROR) -> None:
        """Something is wrong: remember what, say so, and end."""
        if self._closing:
            return
        self._error = error
        text = error.public if isinstance(error, ConchrecError) else "internal error"
        self.sendDisconnect(reason, text.encode("utf-8", "replace"))

    def _guard(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            _log.failure("while a connection ends")

    # --- bytes in

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the peer, cut anywhere. Never raises."""
        if self._closing:
            return
        self._buffer += data
        try:
            if self.peer_version is None and not self._read_version():
                return
            if self._our_version is None:
                if len(self._buffer) > MAX_EARLY:
                    raise RemoteViolation("too much was sent ahead of our version")
                return
            self._read_packets()
        except ProtocolViolation as error:
            self._fail(error)
        except Exception as error:
            _log.failure("while a connection is read")
            self._fail(error, BY_APPLICATION)

    def _read_version(self) -> bool:
        """Lines up to the one that begins with ``SSH-`` (RFC 4253 section 4.2)."""
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", 0, MAX_GREETING + 1)
            if end < 0:
                limit = MAX_GREETING if self.isClient else MAX_VERSION
                if len(buffer) > limit or (not self.isClient and not _could_be_version(buffer)):
                    raise RemoteViolation("this is not SSH")
                return False
            line = bytes(buffer[:end]).rstrip(b"\r")
            del buffer[: end + 1]
            if line.startswith(b"SSH-"):
                break
            self._greeting_size += len(line) + 1
            self._greeting.append(line[:MAX_VERSION])
            if (
                not self.isClient
                or self._greeting_size > MAX_GREETING
                or len(self._greeting) > MAX_GREETING_LINES
            ):
                raise RemoteViolation("this is not SSH")
        if len(line) > MAX_VERSION or not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            wrong = RemoteViolation(f"the version {_printable(line[:40])} is not SSH 2")
            self._fail(wrong, VERSION_NOT_SUPPORTED)
            return False
        self.peer_version = line
        callbacks, self._on_version = self._on_version, []
        for callback in callbacks:
            callback(line)
        return not self._closing

    def _read_packets(self) -> None:
        """Cut the buffer into packets. What is handled goes from its front once, at the end."""
        buffer, at = self._buffer, 0
        try:
            while not self._closing:
                opener = self._opener
                if self._head is None:
                    if len(buffer) - at < opener.head:
                        return
                    head = bytes(buffer[at : at + opener.head])
                    at += opener.head
                    self._head, self._rest = head, opener.rest(self._in_sequence, head)
                if len(buffer) - at < self._rest:
                    return
                head, self._head = self._head, None
                rest = bytes(memoryview(buffer)[at : at + self._rest])
                at += self._rest
                payload = opener.open(self._in_sequence, head, rest)
                self._since_rekey += len(rest)
                self._handling = self._in_sequence
                self._in_sequence = (self._in_sequence + 1) & 0xFFFFFFFF
                if self._in_sequence == 0 and self._first_exchange:
                    raise RemoteViolation("too many packets before the key exchange")
                if not payload:
                    raise RemoteViolation("an empty packet")
                self.dispatchMessage(payload[0], payload[1:])
        finally:
            del buffer[:at]

    # --- bytes out

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Seal and send one message; during a key exchange it waits for the new keys."""
        if self._closing or self.lost is not None:
            return
        if self._must_wait(messageType):
            self._blocked.append((messageType, payload))
            self._blocked_bytes += len(payload)
            if self._blocked_bytes > MAX_BLOCKED:
                self._fail(RemoteViolation("the key exchange takes too long"))
            return
        self._send(messageType, payload)
        if self._phase is _Phase.IDLE and self._since_rekey > REKEY_BYTES:
            self._begin_exchange()

    def _must_wait(self, number: int) -> bool:
        if self._phase is _Phase.IDLE or _is_transport_message(number):
            return False
        # Under the new keys everything may go, but for the very first of them, which the peer confirms.
        return self._phase is not _Phase.SENT_KEYS or self._first_exchange

    def _send(self, number: int, payload: bytes) -> None:
        packet = self._sealer.seal(self._out_sequence, bytes((number,)) + payload)
        self._out_sequence = (self._out_sequence + 1) & 0xFFFFFFFF
        self._since_rekey += len(packet)
        self.transport.write(packet)

    def setService(self, service: SSHService) -> None:
        """Stop the service that runs, and start this one."""
        before, self.service = self.service, service
        if before is not None:
            before.serviceStopped()
        service.transport = self  # type: ignore[assignment]  # a mixin does not know whose it is
        service.serviceStarted()

    def sendUnimplemented(self) -> None:
        """The message that is being handled is unknown (RFC 4253 section 11.4)."""
        self.sendPacket(UNIMPLEMENTED, uint32(self._handling))

    # --- messages

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        if self._first_exchange and self._strict and not (
            KEXINIT <= messageNum <= 49 or messageNum == DISCONNECT
        ):
            raise RemoteViolation(f"message {messageNum} in the middle of a strict key exchange")
        if messageNum >= FIRST_SERVICE:
            if messageNum == PING and not self._first_exchange:
                r = Reader(payload)
                echo = r.string()
                r.end()
                self.sendPacket(PONG, string(echo))
            elif self._first_exchange:
                raise RemoteViolation(f"message {messageNum} before the key exchange")
            elif self.service is not None:
                self.service.packetReceived(messageNum, payload)
            else:
                self.sendUnimplemented()
            return
        if messageNum >= KEX_FIRST:
            self._exchange_message(messageNum, payload)
        elif messageNum in self._HANDLERS:
            self._HANDLERS[messageNum](self, payload)
        else:
            self.sendUnimplemented()

    def _disconnected(self, payload: bytes) -> None:
        r = Reader(payload)
        self._peer_reason, self._peer_description = r.uint32(), r.string()
        self._leave()

    def _ignored(self, payload: bytes) -> None:
        """IGNORE, DEBUG and UNIMPLEMENTED are for nobody here."""

    def _extensions(self, payload: bytes) -> None:
        """``uint32 count``, then ``string name, string value`` (RFC 8308 section 2.3)."""
        if self._first_exchange:
            raise RemoteViolation("extension info before the key exchange")
        r = Reader(payload)
        count = r.uint32()
        if count > MAX_EXTENSIONS:
            raise RemoteViolation("too many extensions")
        self.peer_extensions = {r.string(): r.string() for _ in range(count)}
        r.end()

    def _service_requested(self, payload: bytes) -> None:
        raise RemoteViolation("a service request to a client")

    def _service_accepted(self, payload: bytes) -> None:
        raise RemoteViolation("a service accept to a server")

    # --- key exchange

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        raise LookupError  # both sides have their own

    def _begin_exchange(self) -> None:
        """Send KEXINIT (RFC 4253 section 7.1)."""
        ours = self._algorithms
        markers: tuple[bytes, ...] = ()
        if self._first_exchange:
            markers = (EXT_INFO_CLIENT, STRICT_CLIENT) if self.isClient else (STRICT_SERVER,)
        self._our_kexinit = b"".join(
            (
                bytes((KEXINIT,)),
                os.urandom(16),
                names((*ours.kex, *markers)),
                names(self._host_key_algorithms()),
                names(ours.ciphers) * 2,
                names(ours.macs) * 2,
                names((b"none",)) * 2,
                names(()) * 2,
                b"\0",
                uint32(0),
            )
        )
        self._phase = _Phase.ASKED
        self._send(KEXINIT, self._our_kexinit[1:])

    def _kexinit(self, payload: bytes) -> None:
        """The peer's KEXINIT: settle on everything."""
        if self._phase in (_Phase.RUNNING, _Phase.SENT_KEYS):
            raise RemoteViolation("a key exchange inside a key exchange")
        r = Reader(payload)
        r.take(16)
        kex, host_keys, ciphers_out, ciphers_in, macs_out, macs_in, zip_out, zip_in, _, _ = (
            r.names() for _ in range(10)
        )
        follows = r.boolean()
        r.uint32()
        r.end()
        if len(kex) + len(host_keys) + len(ciphers_out) + len(macs_out) > MAX_NAMES:
            raise RemoteViolation("too many algorithms")
        if self._phase is _Phase.IDLE:
            self._begin_exchange()
        if not self.isClient:
            ciphers_out, ciphers_in = ciphers_in, ciphers_out
            macs_out, macs_in = macs_in, macs_out
            zip_out, zip_in = zip_in, zip_out
        self._peer_kexinit = bytes((KEXINIT,)) + payload
        if self._first_exchange:
            self._strict = (STRICT_SERVER if self.isClient else STRICT_CLIENT) in kex
            self._peer_takes_ext_info = EXT_INFO_CLIENT in kex
            if self._strict and self._handling != 0:
                raise RemoteViolation("KEXINIT is not the first packet of a strict key exchange")
        ours = self._algorithms
        pick = self._pick
        self._kex_name = pick("key exchange", ours.kex, tuple(one for one in kex if one not in _MARKERS))
        self._host_key_algorithm = pick("host key", self._host_key_algorithms(), host_keys)
        cipher_out = pick("cipher", ours.ciphers, ciphers_out)
        cipher_in = pick("cipher", ours.ciphers, ciphers_in)
        mac_out = b"" if packetcipher.is_aead(cipher_out) else pick("MAC", ours.macs, macs_out)
        mac_in = b"" if packetcipher.is_aead(cipher_in) else pick("MAC", ours.macs, macs_in)
        for offered in (zip_out, zip_in):
            pick("compression", (b"none",), offered)
        self._suites = packetcipher.suite(cipher_out, mac_out), packetcipher.suite(cipher_in, mac_in)
        self._phase = _Phase.RUNNING
        # A guess that was wrong is followed by its useless packet (RFC 4253 section 7).
        self._ignore_guess = follows and (
            kex[:1] != ours.kex[:1] or host_keys[:1] != self._host_key_algorithms()[:1]
        )
        self._exchange = exchange(self._kex_name)
        if self.isClient:
            self._offered = self._exchange.offer()
            self._send(KEX_FIRST, string(self._offered))

    def _pick(self, what: str, ours: tuple[bytes, ...], theirs: tuple[bytes, ...]) -> bytes:
        """The first of the client's that the server has, too (RFC 4253 section 7.1)."""
        client, server = (ours, theirs) if self.isClient else (theirs, ours)
        for name in client:
            if name in server:
                return name
        shown = _printable(b",".join(theirs)[:400])
        raise RemoteViolation(f"no common {what} algorithm: the other side has {shown}")

    def _exchange_message(self, number: int, payload: bytes) -> None:
        if self._phase is not _Phase.RUNNING or self._exchange is None:
            raise RemoteViolation("a key exchange message without a key exchange")
        if self._ignore_guess:
            self._ignore_guess = False
            return
        if number != (KEX_REPLY if self.isClient else KEX_FIRST):
            raise RemoteViolation("an unknown key exchange message")
        self._exchanged(self._exchange, Reader(payload))

    def _exchanged(self, run: KeyExchange, r: Reader) -> None:
        raise LookupError  # both sides have their own

    def _exchange_hash(self, host_key: bytes, client: bytes, server: bytes, secret: bytes) -> bytes:
        """H (RFC 4253 section 8): what is signed, and the first time the session's id."""
        ours = (self._our_version or b"", self._our_kexinit)
        theirs = (self.peer_version or b"", self._peer_kexinit)
        (client_version, client_init), (server_version, server_init) = (
            (ours, theirs) if self.isClient else (theirs, ours)
        )
        hashed = (client_version, server_version, client_init, server_init, host_key, client, server)
        digest: bytes = hash_of(self._kex_name)(b"".join(map(string, hashed)) + secret).digest()
        return digest

    def _take_keys(self, secret: bytes, exchange_hash: bytes) -> None:
        """Our NEWKEYS goes out, and everything after it is under the new keys."""
        if self.sessionID is None:
            self.sessionID = exchange_hash
        assert self._suites is not None
        out, into = self._suites
        letters_out, letters_in = (b"ACE", b"BDF") if self.isClient else (b"BDF", b"ACE")
        hash_ = hash_of(self._kex_name)

        def made(suite: packetcipher.Suite, letters: bytes) -> Any:
            iv, key, mac = (
                derive(hash_, secret, exchange_hash, self.session_id, bytes((letter,)), size)
                for letter, size in zip(letters, (suite.iv, suite.key, suite.mac), strict=True)
            )
            return suite.make(key, iv, mac)

        self._send(NEWKEYS, b"")
        self._sealer, self._next_opener = made(out, letters_out), made(into, letters_in)
        if self._strict:
            self._out_sequence = 0
        self._exchange = None
        self._phase = _Phase.SENT_KEYS
        if self._first_exchange and not self.isClient and self._peer_takes_ext_info:
            self._send(EXT_INFO, ext_info())
        # Ours may go now; what the peer still sends under the old keys is read until its NEWKEYS.
        if not self._first_exchange:
            self._unblock()

    def _newkeys(self, payload: bytes) -> None:
        if self._phase is not _Phase.SENT_KEYS or self._next_opener is None or payload:
            raise RemoteViolation("NEWKEYS out of place")
        self._opener, self._next_opener = self._next_opener, None
        if self._strict:
            self._in_sequence = 0
        self._phase = _Phase.IDLE
        self._since_rekey = 0
        if self._clock is not None:
            self._timers = [timer for timer in self._timers if timer.active()]
            self._timers.append(self._clock.callLater(REKEY_TIME.total_seconds(), self._rekey_by_time))
        if not self._first_exchange:
            self.rekeys += 1
            self._unblock()
            return
        self._first_exchange = False
        self._unblock()
        self._is_secure()
        secure, self._secure = self._secure, []
        for done in secure:
            done.callback(None)

    def _is_secure(self) -> None:
        """The first key exchange is done."""

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, deque()
        self._blocked_bytes = 0
        for message in blocked:
            self._send(*message)

    def _rekey_by_time(self) -> None:
        if self._phase is _Phase.IDLE and not self._closing and self.lost is None:
            self._begin_exchange()

    _HANDLERS: Mapping[int, Callable[[Any, bytes], None]] = {
        DISCONNECT: _disconnected,
        IGNORE: _ignored,
        UNIMPLEMENTED: _ignored,
        DEBUG: _ignored,
        SERVICE_REQUEST: lambda self, payload: self._service_requested(payload),
        SERVICE_ACCEPT: lambda self, payload: self._service_accepted(payload),
        EXT_INFO: _extensions,
        KEXINIT: _kexinit,
        NEWKEYS: _newkeys,
    }


class ServerTransport(_Modern, SSHServerTransport):
    """The server's side: over TCP, or over any ITransport.

    ``version`` is our whole version line without CR and LF; ``userauth`` makes the one service that is
    to be had; who is not through the key exchange within ``handshake_time`` is disconnected.
    """

    def __init__(
        self,
        *,
        version: bytes,
        host_keys: HostKeys,
        algorithms: Algorithms,
        userauth: Callable[[], SSHService],
        clock: Clock | None = None,
        handshake_time: timedelta = timedelta(minutes=2),
    ) -> None:
        self._set_up(version=version, algorithms=algorithms, clock=clock)
        self._host_keys = host_keys
        self._userauth: Callable[[], SSHService] | None = userauth
        self._handshake_time = handshake_time
        self._handshake: DelayedCall | None = None

    def connectionMade(self) -> None:
        if self._clock is not None:
            self._handshake = self._clock.callLater(self._handshake_time.total_seconds(), self._too_slow)
            self._timers.append(self._handshake)
        super().connectionMade()

    def _too_slow(self) -> None:
        self._fail(RemoteViolation("no key exchange in time"), BY_APPLICATION)

    def _is_secure(self) -> None:
        # From here to the login the authentication has its own limit, which begins with its service.
        if self._handshake is not None and self._handshake.active():
            self._handshake.reset(self._handshake_time.total_seconds())

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        return self._host_keys.algorithms

    def _exchanged(self, run: KeyExchange, r: Reader) -> None:
        client = r.string()
        r.end()
        server, secret = run.accept(client)
        key = self._host_keys.get(self._host_key_algorithm)
        blob = key.blob()
        exchange_hash = self._exchange_hash(blob, client, server, secret)
        signature = key.sign(exchange_hash, signatureType=self._host_key_algorithm)
        if self._first_exchange:
            self.host_key_blob, self.host_key_signature = blob, signature
        self._send(KEX_REPLY, string(blob) + string(server) + string(signature))
        self._take_keys(secret, exchange_hash)

    def _service_requested(self, payload: bytes) -> None:
        """``ssh-userauth``, once; whatever comes after the login is none of the client's business."""
        r = Reader(payload)
        name = r.string()
        r.end()
        if self._first_exchange:
            raise RemoteViolation("a service request before the key exchange")
        if name != USERAUTH or self._userauth is None:
            shown = _printable(name[:64])
            self._fail(RemoteViolation(f"the service {shown} is not to be had"), SERVICE_NOT_AVAILABLE)
            return
        userauth, self._userauth = self._userauth, None
        if self._handshake is not None and self._handshake.active():
            self._handshake.cancel()
        self.sendPacket(SERVICE_ACCEPT, string(name))
        self.setService(userauth())


class ClientTransport(_Modern, SSHClientTransport):
    """The client's side.

    ``verify_host_key`` judges the blob that the server shows, at once, and raises what is then
    ``Lost.error``. With ``version=None`` nothing is sent before ``start``, while the server's version is
    read and told to ``on_version``.
    """

    def __init__(
        self,
        *,
        algorithms: Algorithms,
        verify_host_key: Callable[[bytes], None],
        host_key_algorithms: tuple[bytes, ...],
        version: bytes | None,
        clock: Clock | None = None,
    ) -> None:
        self._set_up(version=version, algorithms=algorithms, clock=clock)
        self._verify_host_key = verify_host_key
        self._offered_host_keys = host_key_algorithms
        self._asked_for: SSHService | None = None

    def start(self, version: bytes) -> None:
        """Introduce ourselves with this version line, and go on."""
        if self._our_version is not None or self._closing or self.lost is not None:
            return
        self._our_version = version
        if self._made:
            self._greet()
            self.dataReceived(b"")

    def request_service(self, service: SSHService) -> None:
        """Ask for ``service.name``; it starts when the server accepts it."""
        self._asked_for = service
        self.sendPacket(SERVICE_REQUEST, string(service.name))

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        return self._offered_host_keys

    def _exchanged(self, run: KeyExchange, r: Reader) -> None:
        blob, server, signature = r.string(), r.string(), r.string()
        r.end()
        if self._first_exchange:
            try:
                self._verify_host_key(blob)
            except ConchrecError as error:
                self._fail(error, HOST_KEY_NOT_VERIFIABLE)
                return
        elif blob != self.host_key_blob:
            raise RemoteViolation("the host key changed in the middle of a connection")
        secret = run.complete(server)
        exchange_hash = self._exchange_hash(blob, self._offered, server, secret)
        if not verify_signature(self._host_key_algorithm, blob, exchange_hash, signature):
            self._fail(RemoteViolation("the signature of the host key is not good"), KEY_EXCHANGE_FAILED)
            return
        if self._first_exchange:
            self.host_key_blob, self.host_key_signature = blob, signature
        self._take_keys(secret, exchange_hash)

    def _service_accepted(self, payload: bytes) -> None:
        service, self._asked_for = self._asked_for, None
        if service is None or (payload and Reader(payload).string() != service.name):
            raise RemoteViolation("a service that was not asked for")
        self.setService(service)


def ext_info() -> bytes:
    """What our servers tell a client of themselves (RFC 8308; PROTOCOL 1.9 and 1.10)."""
    told = {
        b"server-sig-algs": b",".join(USER_SIGNATURES),
        b"publickey-hostbound@openssh.com": b"0",
        b"ping@openssh.com": b"0",
    }
    return uint32(len(told)) + b"".join(string(name) + string(value) for name, value in told.items())


def _is_transport_message(number: int) -> bool:
    """May it go during a key exchange (RFC 4253 section 7.1)?"""
    return 1 <= number <= 49 and number not in (SERVICE_REQUEST, SERVICE_ACCEPT, EXT_INFO)


def _could_be_version(buffer: bytearray) -> bool:
    return b"SSH-".startswith(bytes(buffer[:4])) or buffer.startswith(b"SSH-")


def _printable(text: bytes) -> str:
    """Words of the other side, safe for a terminal and a log."""
    shown = text[:1024].decode("utf-8", "replace")
    return "".join(
        letter if not unicodedata.category(letter).startswith(("C", "Z")) else " " for letter in shown
    ).strip()
