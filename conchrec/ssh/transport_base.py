"""What both sides of the transport protocol share: the life of a connection, bytes in and out, and the
messages below 50 (RFC 4253, RFC 8308, OpenSSH's PROTOCOL).

Whatever goes wrong ends this connection alone; nothing raises out of ``dataReceived``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import ConchrecError, ProtocolViolation, RemoteViolation
from conchrec.reasons import INTERNAL_ERROR, ReasonCode
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.backpressure import Producer
from conchrec.ssh.disconnect import ConnectionEnd, ConnectionGone, printable
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.framing import MAX_VERSION
from conchrec.ssh.kex_methods import ModularPowers
from conchrec.ssh.key_exchange import Keying
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.peer_limits import EarlyAllowance
from conchrec.ssh.wire import Reader, string, uint32

_log = Logger()

#: What may wait for ``start``: a server's KEXINIT, and a guessed packet.
MAX_EARLY = 64 * 1024
MAX_EXTENSIONS = 64
#: Of what the peer says in DISCONNECT, so much is kept.
MAX_DESCRIPTION = 1024
#: Bytes of answers, and of all else but the data of channels, that wait while the socket does not drain,
#: before nothing of the peer is handled until it does: each message of it may need an answer.
MAX_UNREAD = 64 * 1024
#: The same for all that is sent, data included: the producers of it were told to pause long before.
MAX_BEHIND = 16 * 1024 * 1024
#: Bytes of a peer that are kept while nothing of it is handled, or not all of it in this turn, before its
#: socket is not read any more.
MAX_HELD = 64 * 1024
#: The same before its login.
MAX_HELD_EARLY = 16 * 1024
#: In one go from a socket. Twisted's own 64 KiB are two packets, and each turn of the reactor costs.
READ_AT_MOST = 256 * 1024
#: The same from a peer that has not logged in: about what one packet may have then.
READ_EARLY = 32 * 1024
#: In one go to a socket: all that one turn has read, for Twisted's own 128 KiB take four turns.
SEND_AT_MOST = 2 * READ_AT_MOST
#: A peer that does not take our DISCONNECT is dropped, after seconds.
LAST_WORDS = 5.0


class SSHTransport(Keying):
    """Mixed in before one of Conch's transports, whose methods it replaces."""

    # What Conch's class has and this one uses.
    transport: Any

    def _set_up(
        self,
        *,
        version: bytes | None,
        algorithms: Algorithms,
        powers: ModularPowers,
        clock: Clock,
        rekey_bytes: int,
        rekey_time: timedelta,
        share: Share | None,
    ) -> None:
        self._set_up_keying(
            algorithms=algorithms,
            powers=powers,
            clock=clock,
            rekey_bytes=rekey_bytes,
            rekey_time=rekey_time,
        )
        self._our_version = version
        self._made = False
        self._closing = False
        self._reading = False
        self._share = share
        #: Messages are left for a later turn of the reactor.
        self._behind_turn = False
        #: The peer is gone, and what it has sent is still being handled.
        self._gone_after_reading = False
        self._early = EarlyAllowance()
        self._holds: set[str] = set()
        self._brakes: set[str] = set()
        self._socket_paused = False
        self._unread = 0
        self._behind = 0
        self._valve.on_drained = self._drained
        self._on_version: list[Callable[[bytes], None]] = []
        self._secure: list[Deferred[None]] = []
        self._lost_waiters: list[Deferred[ConnectionEnd]] = []
        self._error: Exception | None = None
        self._peer_reason: int | None = None
        self._peer_description = b""
        self.lost: ConnectionEnd | None = None
        self.sessionID: bytes | None = None
        self.peer_version: bytes | None = None
        self.peer_extensions: dict[bytes, bytes] = {}
        self.host_key_blob = b""
        self.host_key_signature = b""

    # --- what others ask

    @property
    def session_id(self) -> bytes:
        return self.sessionID or b""

    @property
    def _over(self) -> bool:
        return self._closing or self.lost is not None

    @property
    def packets_read(self) -> int:
        """Another number than before, where anything was read since."""
        return self._incoming.sequence

    def give_up(self, error: ConchrecError) -> None:
        """Drop the connection with a peer that is gone; ``error`` is what ``ConnectionEnd`` says."""
        if not self._over:
            self._error = error
            self.abort()

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

    def when_lost(self) -> Deferred[ConnectionEnd]:
        """Fires when the connection is over, however that came about; never fails."""
        done: Deferred[ConnectionEnd] = Deferred()
        if self.lost is not None:
            done.callback(self.lost)
        else:
            self._lost_waiters.append(done)
        return done

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Whatever feeds this connection is paused while its socket does not drain, and while much waits
        for new keys."""
        self._valve.attach(producer)

    def unregisterProducer(self) -> None:
        self._valve.attach(None)

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    # --- life

    def connectionMade(self) -> None:
        self._made = True
        for switch in ("setTcpNoDelay", "setTcpKeepAlive"):
            turn = getattr(self.transport, switch, None)
            if turn is not None:
                turn(True)
        self._size_reads()
        if hasattr(self.transport, "SEND_LIMIT"):
            self.transport.SEND_LIMIT = SEND_AT_MOST
        self.transport.registerProducer(self._valve, True)
        self._pace_socket()
        if self._our_version is not None:
            self._greet()

    def _size_reads(self) -> None:
        if hasattr(self.transport, "bufferSize"):
            self.transport.bufferSize = READ_AT_MOST if self._logged_in else READ_EARLY

    def _login_done(self) -> None:
        super()._login_done()
        self._size_reads()

    def _greet(self) -> None:
        assert self._our_version is not None
        self.transport.write(self._our_version + b"\r\n")
        self._begin_exchange()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._behind_turn and not self._over and not self._holds:
            # What the peer sent before it left is handled first.
            self._gone_after_reading = True
        else:
            self._is_lost()

    def _is_lost(self) -> None:
        self._gone_after_reading = False
        if self.lost is not None:
            return
        self.lost = lost = ConnectionEnd(
            error=self._error,
            reason=self._peer_reason,
            description=self._peer_description,
            greeting=() if self.peer_version is not None else tuple(self._incoming.greeting),
        )
        for name in tuple(self._timers):
            self._not_later(name)
        self._stop_computing()
        self._blocked.clear()
        self._incoming.clear()
        self._valve.attach(None)
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
    def _gone(lost: ConnectionEnd) -> Exception:
        return lost.error if lost.error is not None else ConnectionGone(lost)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Tell the peer why (RFC 4253 section 11.1), then end; once."""
        if self._over or not self._made:
            return
        if self._our_version is not None:
            self._send(a.DISCONNECT, uint32(reason) + string(desc) + string(b""))
        self._leave()

    def hang_up(self) -> None:
        """End without a message, as a peer whose connection was lost. What was sent goes out first."""
        if not self._over and self._made:
            self._leave()

    def _leave(self) -> None:
        """Close when what was sent has gone, or when that takes too long."""
        self._later("last words", LAST_WORDS, self.abort)
        self._closing = True
        self._stop_computing()
        # A paused producer would keep the socket from closing.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def loseConnection(self) -> None:
        self.sendDisconnect(DisconnectReason.BY_APPLICATION, b"disconnected by user")

    def abort(self) -> None:
        """Drop the connection, unsent bytes and all."""
        self._closing = True
        if self.transport is not None and self.lost is None:
            self.transport.abortConnection()

    def _fail(self, error: Exception, reason: int = DisconnectReason.PROTOCOL_ERROR) -> None:
        """Something is wrong: remember what, say so, and end."""
        if self._over:
            return
        self._error = error
        text = error.public if isinstance(error, ConchrecError) else INTERNAL_ERROR
        self.sendDisconnect(reason, text.encode("utf-8", "replace"))

    def _guard(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            _log.failure("while a connection ends")

    # --- bytes in

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the peer, cut anywhere. Never raises."""
        if self._over:
            return
        self._incoming.feed(data)
        if self._reading:
            return  # called by what a message has set going: its reader goes on with this, in order
        if self._share is None:
            self.read_slice(lambda: False)
        elif not self._behind_turn:
            self._behind_turn = self._share.read(self)
        self._pace_socket()

    @property
    def share(self) -> Share | None:
        """Who pays for the handling of messages (turns.Reader)."""
        return self._share

    def charge_to(self, share: Share) -> None:
        """From now on whatever the peer sends is handled at the cost of ``share``."""
        self._share = share

    def read_slice(self, spent: Callable[[], bool]) -> bool:
        """Handle messages until ``spent`` returns true after one (turns.Reader). True if some are left."""
        if self._reading:
            return False
        self._reading = True
        try:
            self._attempt(self._read, spent)
        finally:
            self._reading = False
        left = self._behind_turn and not self._over and not self._holds
        self._behind_turn = left
        self._pace_socket()
        if self._gone_after_reading and not left:
            self._is_lost()
        return left

    def _attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Run one step of the protocol. An error ends this connection and is not raised."""
        try:
            step(*arguments)
        except ProtocolViolation as error:
            self._fail(error)
        except Exception as error:
            _log.failure("while a connection is read")
            self._fail(error, DisconnectReason.BY_APPLICATION)

    def brake(self, reason: str, on: bool) -> None:
        """Take nothing from the socket while there is any reason not to. Bytes already taken are handled."""
        (self._brakes.add if on else self._brakes.discard)(reason)
        self._pace_socket()

    def _hold(self, reason: str, on: bool) -> None:
        """Handle no packet of the peer while there is any reason not to. Bytes wait in the buffer, up to
        MAX_HELD, so that the end of the connection is noticed; then the socket is not read."""
        before = bool(self._holds)
        (self._holds.add if on else self._holds.discard)(reason)
        if before and not self._holds:
            self.dataReceived(b"")

    def _pace_socket(self) -> None:
        """Stop or resume reading from the socket, where that changes."""
        waits = bool(self._holds) or self._behind_turn
        most = MAX_HELD if self._logged_in else MAX_HELD_EARLY
        paused = bool(self._brakes) or (waits and len(self._incoming) > most)
        if paused == self._socket_paused or self.transport is None or self._over:
            return
        self._socket_paused = paused
        if paused:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()

    def _read(self, spent: Callable[[], bool]) -> None:
        self._behind_turn = False
        if self.peer_version is None and not self._read_version():
            return
        if self._our_version is None:
            if len(self._incoming) > MAX_EARLY:
                raise RemoteViolation(
                    "too much was sent ahead of our version", code=ReasonCode.TOO_MANY_MESSAGES
                )
            return
        incoming = self._incoming
        handled = 0
        while not self._over and not self._holds:
            payload = incoming.packet()
            if payload is None:
                break
            handled += len(payload)
            if not self._logged_in and not self._early.charge(self._clock.seconds(), len(payload)):
                raise RemoteViolation("too many messages before the login", code=ReasonCode.TOO_MANY_MESSAGES)
            if incoming.sequence == 0 and self._first_exchange:
                raise RemoteViolation(
                    "too many packets before the key exchange", code=ReasonCode.TOO_MANY_MESSAGES
                )
            self.dispatchMessage(payload[0], payload[1:])
            # Compressed bytes may be eight hundred times as many inside: those count, too.
            if spent() or (handled > READ_AT_MOST and self._share is not None):
                self._behind_turn = len(incoming) > 0
                break
        if not self._over:
            self._rekey_where_due()

    def _read_version(self) -> bool:
        line = self._incoming.version(of_client=not self.isClient)
        if line is None:
            return False
        if len(line) > MAX_VERSION or not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            wrong = RemoteViolation(
                f"the version {printable(line[:40])} is not SSH 2", code=ReasonCode.NOT_SSH
            )
            self._fail(wrong, DisconnectReason.PROTOCOL_VERSION_NOT_SUPPORTED)
            return False
        self.peer_version = line
        callbacks, self._on_version = self._on_version, []
        for callback in callbacks:
            callback(line)
        return not self._over

    # --- bytes out

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Seal and send one message; during a key exchange it waits for the new keys."""
        if self._over:
            return
        if self._must_wait(messageType):
            self._block(messageType, payload)
            return
        self._send(messageType, payload)
        self._rekey_where_due()

    def _send(self, number: int, payload: bytes) -> None:
        if self._valve.full:
            self._behind += len(payload) + 64
            if number not in a.CHANNEL_DATA_MESSAGES:
                # Windows bound what channels may carry; what else a peer makes us say, it has to read.
                self._unread += len(payload) + 64
                if self._unread > MAX_UNREAD:
                    self._hold("unread answers", True)
            if self._behind > MAX_BEHIND:
                self._error = RemoteViolation("what we send is not read", code=ReasonCode.TOO_MANY_MESSAGES)
                self.abort()
                return
        else:
            self._behind = 0
        self.transport.write(self._outgoing.packet(number, payload))
        if number == a.USERAUTH_SUCCESS:
            self._login_done()

    def _drained(self) -> None:
        """The socket takes more again."""
        self._unread = 0
        self._hold("unread answers", False)

    def setService(self, service: SSHService) -> None:
        """Stop the service that runs, and start this one."""
        before, self.service = self.service, service
        if before is not None:
            before.serviceStopped()
        service.transport = self  # type: ignore[assignment]  # a mixin does not know whose it is
        service.serviceStarted()

    def sendUnimplemented(self) -> None:
        """The message that is being handled is unknown (RFC 4253 section 11.4)."""
        self.sendPacket(a.UNIMPLEMENTED, uint32(self._incoming.handling))

    # --- messages

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        if self._first_exchange:
            exchanges = a.KEXINIT <= messageNum <= a.LAST_TRANSPORT
            if self._strict and not exchanges and messageNum != a.DISCONNECT:
                raise RemoteViolation(f"message {messageNum} in the middle of a strict key exchange")
            if messageNum >= a.FIRST_SERVICE:
                raise RemoteViolation(f"message {messageNum} before the key exchange")
        if messageNum == a.PING:
            r = Reader(payload)
            echo = r.string()
            r.end()
            self.sendPacket(a.PONG, string(echo))
        elif messageNum >= a.FIRST_SERVICE:
            if messageNum == a.USERAUTH_SUCCESS and self.isClient:
                self._login_done()
            if self.service is not None:
                self.service.packetReceived(messageNum, payload)
            else:
                self.sendUnimplemented()
        elif messageNum >= a.KEX_FIRST:
            self._exchange_message(messageNum, payload)
        elif messageNum in self._HANDLERS:
            self._HANDLERS[messageNum](self, payload)
        else:
            self.sendUnimplemented()

    def _disconnected(self, payload: bytes) -> None:
        """``uint32 reason, string description, string language``; some leave the language out."""
        r = Reader(payload)
        self._peer_reason, self._peer_description = r.uint32(), r.string()[:MAX_DESCRIPTION]
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
            raise RemoteViolation("too many extensions", code=ReasonCode.TOO_MANY_MESSAGES)
        self.peer_extensions = {r.string(): r.string() for _ in range(count)}
        r.end()

    def _service_requested(self, payload: bytes) -> None:
        raise RemoteViolation("a service request to a client")

    def _service_accepted(self, payload: bytes) -> None:
        raise RemoteViolation("a service accept to a server")

    def _is_secure(self) -> None:
        secure, self._secure = self._secure, []
        for done in secure:
            done.callback(None)

    _HANDLERS: Mapping[int, Callable[[Any, bytes], None]] = {
        a.DISCONNECT: _disconnected,
        a.IGNORE: _ignored,
        a.UNIMPLEMENTED: _ignored,
        a.DEBUG: _ignored,
        a.SERVICE_REQUEST: lambda self, payload: self._service_requested(payload),
        a.SERVICE_ACCEPT: lambda self, payload: self._service_accepted(payload),
        a.EXT_INFO: _extensions,
        a.KEXINIT: Keying._kexinit,
        a.NEWKEYS: Keying._newkeys,
    }
