"""The part of the transport protocol that servers and clients share.

RFC 4253, RFC 8308, OpenSSH's PROTOCOL: the life of a connection, bytes in both directions, and the messages
below 50. Any error ends only this connection; ``dataReceived`` never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import ConchrecError, RemoteViolation, without_traceback
from conchrec.reasons import INTERNAL_ERROR, ReasonCode
from conchrec.ssh import numbers as a
from conchrec.ssh.agent_messages import SessionBinding
from conchrec.ssh.backpressure import Producer, WriteBackpressure
from conchrec.ssh.connection_waiters import ConnectionWaiters
from conchrec.ssh.disconnect import ConnectionEnd
from conchrec.ssh.fair_turns import READ_AT_MOST, Share
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.identification import Identifications, UnsupportedVersion
from conchrec.ssh.key_exchange import MAX_BLOCKED, MAX_BLOCKED_EARLY, KeyExchange
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.packet_reader import PacketReader
from conchrec.ssh.peer_limits import MAX_BEHIND, MAX_UNREAD, SendBacklog
from conchrec.ssh.socket_writer import Writer, open_writer
from conchrec.ssh.timers import Timers
from conchrec.ssh.userauth import CONNECTION
from conchrec.ssh.wire import Reader, string, uint32

_log = Logger()

#: The maximum number of bytes that wait for ``start``: a server's KEXINIT and a guessed packet.
MAX_EARLY = 64 * 1024
MAX_EXTENSIONS = 64
#: The maximum length of the peer's text in DISCONNECT that is kept, in bytes.
MAX_DESCRIPTION = 1024
#: The maximum number of bytes to read at once before the login: about one packet.
READ_EARLY = 32 * 1024
#: A peer that does not read our DISCONNECT is dropped after this many seconds.
LAST_WORDS = 5.0


class SSHTransport(Protocol):
    """One side of the transport protocol. ``ServerTransport`` and ``ClientTransport`` are its two forms.

    It has the methods that Conch's services need from a transport, under Conch's names (``sessionID``,
    ``sendPacket``, ``setService``, …), and inherits nothing from Conch's transports.
    """

    transport: Any
    kex: KeyExchange

    def __init__(self, *, identification: bytes | None, clock: Clock, share: Share | None) -> None:
        self._identifications = Identifications(identification)
        self._clock = clock
        self._timers = Timers(clock)
        #: The packets of both directions. ``kex`` gives them their keys.
        self.inbound = InboundPackets()
        self.outbound = OutboundPackets()
        self._reader = PacketReader(self, self.inbound, clock, share)
        self._backpressure = WriteBackpressure()
        #: None before the connection is made.
        self._writer: Writer | None = None
        self._write: Callable[[bytes], object] = lambda data: None
        self._is_logged_in = False
        self.service: SSHService | None = None
        self._is_connected = False
        self._is_closing = False
        self._backlog = SendBacklog()
        self._backpressure.on_drained = self._resume_reading
        self._waiters = ConnectionWaiters()
        #: How the connection will have ended, as far as that is known.
        self._end = ConnectionEnd()
        self.lost: ConnectionEnd | None = None
        self.peer_extensions: dict[bytes, bytes] = {}

    # --- for services and owners

    @property
    def sessionID(self) -> bytes | None:
        """The session identifier (RFC 4253 section 7.2). Conch uses this name."""
        return self.kex.session_id

    @property
    def session_id(self) -> bytes:
        """The session identifier; empty before the first key exchange is done."""
        return self.kex.session_id or b""

    def isEncrypted(self, direction: str = "out") -> bool:
        """Return whether keys are in use. Conch's password login calls it."""
        return self.kex.is_secure

    @property
    def session_binding(self) -> SessionBinding:
        """The values that bind an agent's signatures to this connection; empty before the key exchange."""
        return self.kex.binding or SessionBinding(host_key=b"", session_id=b"", signature=b"")

    @property
    def host_key_blob(self) -> bytes:
        """The server's host key or certificate in the first key exchange; empty before it."""
        return self.session_binding.host_key

    @property
    def host_key_signature(self) -> bytes:
        """The host key's signature over the first key exchange; empty before it."""
        return self.session_binding.signature

    @property
    def agreed_names(self) -> tuple[bytes, ...]:
        """The names of the current algorithms, for people."""
        return self.kex.agreed_names

    @property
    def identifications(self) -> tuple[bytes, bytes]:
        """The identification strings of the client and of the server, without CR and LF."""
        return self._identifications.in_order(is_client=self.kex.is_client)

    @property
    def peer_identification(self) -> bytes | None:
        """The peer's identification string, without CR and LF; None until it was read."""
        return self._identifications.peer

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended or is ending."""
        return self._is_closing or self.lost is not None

    @property
    def packets_read(self) -> int:
        """A number that changes when a packet was read."""
        return self.inbound.sequence

    def give_up(self, error: ConchrecError) -> None:
        """Drop the connection to a peer that no longer answers; ``error`` becomes ``ConnectionEnd.error``."""
        if not self.is_over:
            self._end = replace(self._end, error=without_traceback(error))
            self.abort()

    def on_identification(self, callback: Callable[[bytes], None]) -> None:
        """Call ``callback`` with the peer's identification string, now or when it arrives."""
        self._identifications.on_peer(callback)

    def when_secure(self) -> Deferred[None]:
        """Return a Deferred that fires after the first key exchange (``ConnectionWaiters``)."""
        return self._waiters.when_secure()

    def when_lost(self) -> Deferred[ConnectionEnd]:
        """Return a Deferred that fires when the connection has ended, for any reason. It never fails."""
        return self._waiters.when_lost()

    def on_lost(self, callback: Callable[[ConnectionEnd], object]) -> None:
        """Call ``callback`` when the connection has ended, for any reason; now, if it has."""
        self._waiters.on_lost(callback)

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Set the producer, which is paused while messages wait for the socket or for new keys."""
        self._backpressure.attach(producer)

    def unregisterProducer(self) -> None:
        """Remove the producer."""
        self._backpressure.attach(None)

    def getPeer(self) -> Any:
        """Return the peer's address. Conch uses this name."""
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """Return our address. Conch uses this name."""
        return self.transport.getHost()

    # --- life

    def connectionMade(self) -> None:
        """Start the connection. Called by Twisted."""
        self._is_connected = True
        for switch in ("setTcpNoDelay", "setTcpKeepAlive"):
            turn = getattr(self.transport, switch, None)
            if turn is not None:
                turn(True)
        self._writer = writer = open_writer(self.transport, self._backpressure, self.share)
        self._write = writer.write
        writer.set_read_size(READ_EARLY)
        self._reader.connect(self.transport)
        if self._identifications.ours is not None:
            self._send_identification()

    def _finish_login(self) -> None:
        """Handle USERAUTH_SUCCESS, directly after it was sent or received."""
        if not self._is_logged_in:
            self._is_logged_in = True
            self.outbound.log_in()
            self.inbound.log_in()
            self._reader.log_in()
            self.kex.log_in()
            assert self._writer is not None
            self._writer.set_read_size(READ_AT_MOST)

    def _send_identification(self) -> None:
        """Send our identification string and start the first key exchange."""
        assert self._identifications.ours is not None
        self._write(self._identifications.ours + b"\r\n")
        self.kex.begin_first()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Handle the end of the TCP connection. Called by Twisted."""
        if self._writer is not None:
            self._writer.close()
        # First handle what the peer sent before it closed the connection.
        if self._reader.end():
            self.input_ended()

    def input_ended(self) -> None:
        """End the connection, after all received messages were handled."""
        if self.lost is not None:
            return
        greeting = () if self.peer_identification is not None else tuple(self.inbound.greeting)
        self.lost = lost = replace(self._end, greeting=greeting)
        self._timers.stop()
        self.kex.stop()
        self.inbound.clear()
        self._backpressure.attach(None)
        service, self.service = self.service, None
        if service is not None:
            self._guard(service.serviceStopped)
        self._waiters.end(lost)
        # Later, because the parts may be at work now.
        self._clock.callLater(0, self._release)

    def _release(self) -> None:
        """Let the parts forget this object: they would keep each other until a full garbage collection."""
        self.kex.release()
        self._reader.release()
        self._backpressure.on_drained = lambda: None

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Send DISCONNECT (RFC 4253 section 11.1) and close the connection. Has an effect once."""
        if self.is_over or not self._is_connected:
            return
        if self._identifications.ours is not None:
            self.send_now(a.DISCONNECT, uint32(reason) + string(desc) + string(b""))
        self._leave()

    def hang_up(self) -> None:
        """Close the connection without a message, as if it was lost, after sent data was delivered."""
        if not self.is_over and self._is_connected:
            self._leave()

    def _leave(self) -> None:
        """Close the connection when all data was sent, or after LAST_WORDS seconds."""
        self._timers.start("last words", LAST_WORDS, self.abort)
        self._is_closing = True
        self.kex.stop()
        assert self._writer is not None
        self._writer.finish()
        # A producer would keep the socket from closing.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def loseConnection(self) -> None:
        """Disconnect as a user who ends the connection. Twisted uses this name."""
        self.sendDisconnect(DisconnectReason.BY_APPLICATION, b"disconnected by user")

    def abort(self) -> None:
        """Drop the connection and all data that was not sent."""
        self._is_closing = True
        if self._writer is not None:
            self._writer.close()
        if self.transport is not None and self.lost is None:
            self.transport.abortConnection()

    def fail(self, error: Exception, reason: int = DisconnectReason.PROTOCOL_ERROR) -> None:
        """End the connection because of an error. The peer gets its public text."""
        if self.is_over:
            return
        self._end = replace(self._end, error=without_traceback(error))
        text = error.public if isinstance(error, ConchrecError) else INTERNAL_ERROR
        self.sendDisconnect(reason, text.encode("utf-8", "replace"))

    def _guard(self, call: Callable[..., object], *arguments: object) -> None:
        """Call ``call``; an exception is logged and not raised."""
        try:
            call(*arguments)
        except Exception:
            _log.failure("unexpected error while a connection ended")

    # --- bytes in

    def dataReceived(self, data: bytes) -> None:
        """Handle bytes from the peer, in pieces of any size. Never raises."""
        if self.is_over:
            return
        self._reader.receive(data)
        if self._is_logged_in and self._writer is not None:
            self._writer.adapt_read_size()

    @property
    def share(self) -> Share | None:
        """The share that is charged for the work of this connection."""
        return self._reader.share

    def charge_to(self, share: Share) -> None:
        """Charge ``share`` for the peer's messages from now on."""
        self._reader.share = share

    def brake(self, reason: str, on: bool) -> None:
        """Do not read from the socket while there is a reason not to. Received bytes are still handled."""
        self._reader.brake(reason, on)

    def hold(self, reason: str, on: bool) -> None:
        """Do not handle packets of the peer while there is a reason not to."""
        self._reader.hold(reason, on)

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Run one step of the protocol. An error ends this connection and is not raised."""
        try:
            step(*arguments)
        except RemoteViolation as error:
            self.fail(error)
        except Exception as error:
            _log.failure("unexpected error while a connection was read")
            self.fail(error, DisconnectReason.BY_APPLICATION)

    def hold_producers(self, on: bool) -> None:
        """Pause or resume the producers that write to this transport."""
        self._backpressure.hold(on)

    def rekey(self) -> None:
        """Start a key exchange, unless one is in progress."""
        self.kex.begin()

    @property
    def rekeys(self) -> int:
        """The number of key exchanges after the first."""
        return self.kex.rekeys

    def read_identification(self) -> bool:
        """Read the peer's identification string, if needed. Return whether packets may be handled."""
        if self.peer_identification is None and not self._read_identification():
            return False
        if self._identifications.ours is None and len(self.inbound) > MAX_EARLY:
            raise RemoteViolation(
                "too much was sent before our identification string", code=ReasonCode.TOO_MANY_MESSAGES
            )
        return self._identifications.ours is not None

    def messages_handled(self) -> None:
        """All messages of this slice were handled: start a key exchange if it is due."""
        self.kex.begin_if_due()

    def _read_identification(self) -> bool:
        """Read the identification string. Return whether it was read and is valid."""
        try:
            is_read = self._identifications.read_peer(self.inbound, of_client=not self.kex.is_client)
        except UnsupportedVersion as error:
            self.fail(error, DisconnectReason.PROTOCOL_VERSION_NOT_SUPPORTED)
            return False
        return is_read and not self.is_over

    # --- bytes out

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send one message. During a key exchange it waits for the new keys."""
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
        """Send one message now, also during a key exchange."""
        if self._backpressure.full:
            self._backlog.add(number, len(payload))
            if self._backlog.answers > MAX_UNREAD:
                self.hold("unread answers", True)
            if self._backlog.total > MAX_BEHIND:
                text = "the other side does not read what we send"
                self.give_up(RemoteViolation(text, code=ReasonCode.TOO_MANY_MESSAGES))
                return
        else:
            self._backlog.total = 0
        self._write(self.outbound.packet(number, payload))
        if number == a.USERAUTH_SUCCESS:
            self._finish_login()

    def _resume_reading(self) -> None:
        """Handle the peer's messages again, because the socket has drained."""
        self._backlog.answers = 0
        self.hold("unread answers", False)

    def setService(self, service: SSHService) -> None:
        """Stop the current service and start another."""
        before, self.service = self.service, service
        if before is not None:
            before.serviceStopped()
        service.transport = self  # type: ignore[assignment]  # Conch declares its own concrete class
        service.serviceStarted()

    def sendUnimplemented(self) -> None:
        """Answer the current message with UNIMPLEMENTED (RFC 4253 section 11.4)."""
        self.sendPacket(a.UNIMPLEMENTED, uint32(self.inbound.handling))

    # --- messages

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        """Handle one message of the peer. Raises RemoteViolation."""
        if not self.kex.is_secure:
            if self.inbound.sequence == 0:
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
        """``uint32 reason, string description, string language``; some peers leave the language out."""
        r = Reader(payload)
        reason, description = r.uint32(), r.string()[:MAX_DESCRIPTION]
        self._end = replace(self._end, reason=reason, description=description)
        self._leave()

    def _ignore(self, payload: bytes) -> None:
        """Ignore IGNORE, DEBUG and UNIMPLEMENTED."""

    def _handle_ext_info(self, payload: bytes) -> None:
        """``uint32 count``, then ``string name, string value`` repeated (RFC 8308 section 2.3)"""
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
        """``string service`` (a server accepts this message)"""
        raise RemoteViolation("service request to a client")

    def _handle_service_accept(self, payload: bytes) -> None:
        """``string service`` (a client accepts this message)"""
        raise RemoteViolation("SERVICE_ACCEPT to a server")

    def keys_exchanged(self) -> None:
        """Handle the end of the first key exchange."""
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
