"""What both sides of the transport protocol share: the life of a connection, bytes in and out, and the
messages below 50 (RFC 4253, RFC 8308, OpenSSH's PROTOCOL).

Whatever goes wrong ends this connection alone; nothing raises out of ``dataReceived``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import ConchrecError, ProtocolViolation, RemoteViolation
from conchrec.reasons import INTERNAL_ERROR, ReasonCode
from conchrec.ssh import numbers as a
from conchrec.ssh.agent_messages import SessionBinding
from conchrec.ssh.backpressure import Producer, WriteBackpressure
from conchrec.ssh.connection_waiters import ConnectionWaiters
from conchrec.ssh.disconnect import ConnectionEnd
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.framing import MAX_IDENTIFICATION, InboundPackets, OutboundPackets
from conchrec.ssh.key_exchange import MAX_BLOCKED, MAX_BLOCKED_EARLY, KeyExchange
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.packet_reader import READ_AT_MOST, PacketReader
from conchrec.ssh.timers import Timers
from conchrec.ssh.wire import Reader, string, uint32
from conchrec.text import one_line

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
#: In one go from the socket of a peer that has not logged in: about what one packet may have then.
READ_EARLY = 32 * 1024
#: In one go to a socket: all that one turn has read, for Twisted's own 128 KiB take four turns.
SEND_AT_MOST = 2 * READ_AT_MOST
#: A peer that does not take our DISCONNECT is dropped, after seconds.
LAST_WORDS = 5.0


CONNECTION = b"ssh-connection"


class SSHTransport(Protocol):
    """One side of the transport protocol; ``ServerTransport`` and ``ClientTransport`` say how they differ.

    It has what Conch's services need of a transport, under Conch's names (``sessionID``, ``sendPacket``,
    ``setService``, …), and inherits nothing of Conch's own transports.
    """

    transport: Any
    kex: KeyExchange

    def __init__(self, *, identification: bytes | None, clock: Clock, share: Share | None) -> None:
        self._our_identification = identification
        self._clock = clock
        self._timers = Timers(clock)
        self._incoming = InboundPackets()
        self._outgoing = OutboundPackets()
        self._reader = PacketReader(self, self._incoming, clock, share)
        self._backpressure = WriteBackpressure()
        self._is_logged_in = False
        self.service: SSHService | None = None
        self._is_connected = False
        self._is_closing = False
        self._unsent_answers = 0
        self._unsent_bytes = 0
        self._backpressure.on_drained = self._resume_reading
        self._on_identification: list[Callable[[bytes], None]] = []
        self._waiters = ConnectionWaiters()
        self._error: Exception | None = None
        self._peer_reason: int | None = None
        self._peer_description = b""
        self.lost: ConnectionEnd | None = None
        self.peer_identification: bytes | None = None
        self.peer_extensions: dict[bytes, bytes] = {}

    # --- what others ask

    @property
    def sessionID(self) -> bytes | None:
        """The hash of the first key exchange (RFC 4253 section 7.2), under Conch's name."""
        return self.kex.session_id

    @property
    def session_id(self) -> bytes:
        """The hash of the first key exchange; empty before it."""
        return self.kex.session_id or b""

    def isEncrypted(self, direction: str = "out") -> bool:
        """Are there keys? Conch's login by password asks."""
        return self.kex.is_secure

    @property
    def host_key_blob(self) -> bytes:
        """The host key or certificate of the first key exchange; empty before it."""
        return self.kex.host_key_blob

    @property
    def host_key_signature(self) -> bytes:
        """The signature over the first key exchange; empty before it."""
        return self.kex.host_key_signature

    @property
    def session_binding(self) -> SessionBinding:
        """What binds an agent's signatures to this connection; empty before the first key exchange."""
        return SessionBinding(
            host_key=self.host_key_blob, session_id=self.session_id, signature=self.host_key_signature
        )

    @property
    def agreed_names(self) -> tuple[bytes, ...]:
        """The algorithms of the newest keys, for people."""
        return self.kex.agreed_names

    @property
    def identifications(self) -> tuple[bytes, bytes]:
        """The identification strings of the client and of the server, without CR and LF."""
        ours, theirs = self._our_identification or b"", self.peer_identification or b""
        return (ours, theirs) if self.kex.is_client else (theirs, ours)

    @property
    def is_over(self) -> bool:
        """The connection ends, or has ended."""
        return self._is_closing or self.lost is not None

    @property
    def packets_read(self) -> int:
        """Another number than before, where anything was read since."""
        return self._incoming.sequence

    def give_up(self, error: ConchrecError) -> None:
        """Drop the connection with a peer that is gone; ``error`` is what ``ConnectionEnd`` says."""
        if not self.is_over:
            self._error = error
            self.abort()

    def on_identification(self, callback: Callable[[bytes], None]) -> None:
        """``callback`` gets the peer's version line, now or when it comes."""
        if self.peer_identification is not None:
            callback(self.peer_identification)
        else:
            self._on_identification.append(callback)

    def when_secure(self) -> Deferred[None]:
        """Fires when the first key exchange is done; fails with what ended it, or ConnectionGone."""
        return self._waiters.when_secure()

    def when_lost(self) -> Deferred[ConnectionEnd]:
        """Fires when the connection is over, however that came about; never fails."""
        return self._waiters.when_lost()

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Whatever feeds this connection is paused while its socket does not drain, and while much waits
        for new keys."""
        self._backpressure.attach(producer)

    def unregisterProducer(self) -> None:
        self._backpressure.attach(None)

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    # --- life

    def connectionMade(self) -> None:
        self._is_connected = True
        for switch in ("setTcpNoDelay", "setTcpKeepAlive"):
            turn = getattr(self.transport, switch, None)
            if turn is not None:
                turn(True)
        self._set_read_size()
        if hasattr(self.transport, "SEND_LIMIT"):
            self.transport.SEND_LIMIT = SEND_AT_MOST
        self.transport.registerProducer(self._backpressure, True)
        self._reader.connect(self.transport)
        if self._our_identification is not None:
            self._send_identification()

    def _set_read_size(self) -> None:
        if hasattr(self.transport, "bufferSize"):
            self.transport.bufferSize = READ_AT_MOST if self._is_logged_in else READ_EARLY

    def _finish_login(self) -> None:
        """USERAUTH_SUCCESS was sent, or read, and nothing after it."""
        if not self._is_logged_in:
            self._is_logged_in = True
            self._outgoing.log_in()
            self._incoming.log_in()
            self._reader.log_in()
            self._set_read_size()

    def _send_identification(self) -> None:
        assert self._our_identification is not None
        self.transport.write(self._our_identification + b"\r\n")
        self.kex.begin()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # What the peer sent before it left is handled first.
        if self._reader.end():
            self.input_ended()

    def input_ended(self) -> None:
        """The connection is over, and all that came was handled."""
        if self.lost is not None:
            return
        self.lost = lost = ConnectionEnd(
            error=self._error,
            reason=self._peer_reason,
            description=self._peer_description,
            greeting=() if self.peer_identification is not None else tuple(self._incoming.greeting),
        )
        self._timers.stop()
        self.kex.stop()
        self._incoming.clear()
        self._backpressure.attach(None)
        service, self.service = self.service, None
        if service is not None:
            self._guard(service.serviceStopped)
        self._waiters.end(lost)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Tell the peer why (RFC 4253 section 11.1), then end; once."""
        if self.is_over or not self._is_connected:
            return
        if self._our_identification is not None:
            self.send_now(a.DISCONNECT, uint32(reason) + string(desc) + string(b""))
        self._leave()

    def hang_up(self) -> None:
        """End without a message, as a peer whose connection was lost. What was sent goes out first."""
        if not self.is_over and self._is_connected:
            self._leave()

    def _leave(self) -> None:
        """Close when what was sent has gone, or when that takes too long."""
        self._timers.start("last words", LAST_WORDS, self.abort)
        self._is_closing = True
        self.kex.stop()
        # A paused producer would keep the socket from closing.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def loseConnection(self) -> None:
        self.sendDisconnect(DisconnectReason.BY_APPLICATION, b"disconnected by user")

    def abort(self) -> None:
        """Drop the connection, unsent bytes and all."""
        self._is_closing = True
        if self.transport is not None and self.lost is None:
            self.transport.abortConnection()

    def fail(self, error: Exception, reason: int = DisconnectReason.PROTOCOL_ERROR) -> None:
        """Something is wrong: remember what, say so, and end."""
        if self.is_over:
            return
        self._error = error
        text = error.public if isinstance(error, ConchrecError) else INTERNAL_ERROR
        self.sendDisconnect(reason, text.encode("utf-8", "replace"))

    def _guard(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            _log.failure("internal error while a connection ended")

    # --- bytes in

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the peer, cut anywhere. Never raises."""
        if self.is_over:
            return
        self._reader.receive(data)

    def charge_to(self, share: Share) -> None:
        """From now on whatever the peer sends is handled at the cost of ``share``."""
        self._reader.share = share

    def brake(self, reason: str, on: bool) -> None:
        """Take nothing from the socket while there is any reason not to. Bytes already taken are handled."""
        self._reader.brake(reason, on)

    def hold(self, reason: str, on: bool) -> None:
        """Handle no packet of the peer while there is any reason not to."""
        self._reader.hold(reason, on)

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Run one step of the protocol. An error ends this connection and is not raised."""
        try:
            step(*arguments)
        except ProtocolViolation as error:
            self.fail(error)
        except Exception as error:
            _log.failure("internal error while a connection was read")
            self.fail(error, DisconnectReason.BY_APPLICATION)

    def hold_producers(self, on: bool) -> None:
        """Pause those who feed this connection, or let them go on."""
        self._backpressure.hold(on)

    def rekey(self) -> None:
        """Begin a key exchange, unless one runs."""
        self.kex.begin()

    @property
    def rekeys(self) -> int:
        """Key exchanges after the first."""
        return self.kex.rekeys

    def read_identification(self) -> bool:
        """Read the peer's identification string, where it is still to come. May packets be handled?"""
        if self.peer_identification is None and not self._read_identification():
            return False
        if self._our_identification is None and len(self._incoming) > MAX_EARLY:
            raise RemoteViolation(
                "too much was sent before our identification string", code=ReasonCode.TOO_MANY_MESSAGES
            )
        return self._our_identification is not None

    def messages_handled(self) -> None:
        """All messages that came are handled, or as many as this turn allows."""
        self.kex.begin_if_due()

    def _read_identification(self) -> bool:
        line = self._incoming.identification(of_client=not self.kex.is_client)
        if line is None:
            return False
        if len(line) > MAX_IDENTIFICATION or not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            wrong = RemoteViolation(
                f"unsupported protocol version {one_line(line, 40)}: must be SSH-2.0", code=ReasonCode.NOT_SSH
            )
            self.fail(wrong, DisconnectReason.PROTOCOL_VERSION_NOT_SUPPORTED)
            return False
        self.peer_identification = line
        callbacks, self._on_identification = self._on_identification, []
        for callback in callbacks:
            callback(line)
        return not self.is_over

    # --- bytes out

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Seal and send one message; during a key exchange it waits for the new keys."""
        if self._is_closing or self.lost is not None:
            return
        kex = self.kex
        if not kex.is_open and kex.must_wait(messageType):
            has_login = self.service is not None and self.service.name == CONNECTION
            kex.block(messageType, payload, MAX_BLOCKED if has_login else MAX_BLOCKED_EARLY)
            return
        self.send_now(messageType, payload)
        kex.begin_if_due()

    def send_now(self, number: int, payload: bytes) -> None:
        """Seal and send one message, whatever waits."""
        if self._backpressure.full:
            self._unsent_bytes += len(payload) + 64
            if number not in a.CHANNEL_DATA_MESSAGES:
                # Windows bound what channels may carry; what else a peer makes us say, it has to read.
                self._unsent_answers += len(payload) + 64
                if self._unsent_answers > MAX_UNREAD:
                    self.hold("unread answers", True)
            if self._unsent_bytes > MAX_BEHIND:
                self._error = RemoteViolation(
                    "the other side does not read what we send", code=ReasonCode.TOO_MANY_MESSAGES
                )
                self.abort()
                return
        else:
            self._unsent_bytes = 0
        self.transport.write(self._outgoing.packet(number, payload))
        if number == a.USERAUTH_SUCCESS:
            self._finish_login()

    def _resume_reading(self) -> None:
        """The socket takes more again."""
        self._unsent_answers = 0
        self.hold("unread answers", False)

    def setService(self, service: SSHService) -> None:
        """Stop the service that runs, and start this one."""
        before, self.service = self.service, service
        if before is not None:
            before.serviceStopped()
        service.transport = self  # type: ignore[assignment]  # Conch declares its own concrete class
        service.serviceStarted()

    def sendUnimplemented(self) -> None:
        """The message that is being handled is unknown (RFC 4253 section 11.4)."""
        self.sendPacket(a.UNIMPLEMENTED, uint32(self._incoming.handling))

    # --- messages

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        """Handle one message of the peer."""
        if not self.kex.is_secure:
            if self._incoming.sequence == 0:
                raise RemoteViolation(
                    "too many packets before the key exchange", code=ReasonCode.TOO_MANY_MESSAGES
                )
            exchanges = a.KEXINIT <= messageNum <= a.LAST_TRANSPORT
            if self.kex.strict and not exchanges and messageNum != a.DISCONNECT:
                raise RemoteViolation(f"message {messageNum} during a strict key exchange")
            if messageNum >= a.FIRST_SERVICE:
                raise RemoteViolation(f"message {messageNum} before the key exchange")
        if messageNum == a.PING:
            r = Reader(payload)
            echo = r.string()
            r.end()
            self.sendPacket(a.PONG, string(echo))
        elif messageNum >= a.FIRST_SERVICE:
            if messageNum == a.USERAUTH_SUCCESS and self.kex.is_client:
                self._finish_login()
            if self.service is not None:
                self.service.packetReceived(messageNum, payload)
            else:
                self.sendUnimplemented()
        elif messageNum >= a.KEX_FIRST:
            self.kex.method_received(messageNum, payload)
        elif messageNum in self._HANDLERS:
            self._HANDLERS[messageNum](self, payload)
        else:
            self.sendUnimplemented()

    def _handle_disconnect(self, payload: bytes) -> None:
        """``uint32 reason, string description, string language``; some leave the language out."""
        r = Reader(payload)
        self._peer_reason, self._peer_description = r.uint32(), r.string()[:MAX_DESCRIPTION]
        self._leave()

    def _ignore(self, payload: bytes) -> None:
        """IGNORE, DEBUG and UNIMPLEMENTED are for nobody here."""

    def _handle_ext_info(self, payload: bytes) -> None:
        """``uint32 count``, then ``string name, string value`` (RFC 8308 section 2.3)."""
        if not self.kex.is_secure:
            raise RemoteViolation("EXT_INFO before the key exchange")
        r = Reader(payload)
        count = r.uint32()
        if count > MAX_EXTENSIONS:
            raise RemoteViolation(
                f"too many extensions in EXT_INFO: the limit is {MAX_EXTENSIONS}",
                code=ReasonCode.TOO_MANY_MESSAGES,
            )
        self.peer_extensions = {r.string(): r.string() for _ in range(count)}
        r.end()

    def _handle_service_request(self, payload: bytes) -> None:
        raise RemoteViolation("service request to a client")

    def _handle_service_accept(self, payload: bytes) -> None:
        raise RemoteViolation("SERVICE_ACCEPT to a server")

    def keys_exchanged(self) -> None:
        """The first key exchange is done."""
        self._waiters.secure()

    _HANDLERS: Mapping[int, Callable[[Any, bytes], None]] = {
        a.DISCONNECT: _handle_disconnect,
        a.IGNORE: _ignore,
        a.UNIMPLEMENTED: _ignore,
        a.DEBUG: _ignore,
        a.SERVICE_REQUEST: lambda self, payload: self._handle_service_request(payload),
        a.SERVICE_ACCEPT: lambda self, payload: self._handle_service_accept(payload),
        a.EXT_INFO: _handle_ext_info,
        a.KEXINIT: lambda self, payload: self.kex.kexinit_received(payload),
        a.NEWKEYS: lambda self, payload: self.kex.newkeys_received(payload),
    }
