"""The connection protocol as a relay needs it: messages 80 to 100 (RFC 4254 sections 4 and 5).

Twisted's own ``SSHConnection`` confirms a channel before anybody has been asked, answers a request
before the far side has, and refills windows when bytes arrive rather than when they have gone
somewhere. Here a channel open and a global request are handed over as objects that are answered when
their owner has the answer, windows belong to the owner of each channel, and payloads stay opaque.

What goes wrong is told apart: a message for a channel that is gone is dropped (its CLOSE and ours may
have crossed), a malformed one ends this connection with PROTOCOL_ERROR, and nothing ever
raises into the transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.conch.ssh.service import SSHService
from twisted.logger import Logger

from conchrec.errors import ProtocolViolation, RemoteViolation
from conchrec.reasons import INTERNAL_ERROR, Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.wire import Reader, uint32

_log = Logger()


#: More channels at once than any client opens; sshd's MaxSessions is 10, forwards come on top.
MAX_CHANNELS = 1024


class ConnectionTransport(Protocol):
    """The part of an SSH transport that a connection needs."""

    def sendPacket(self, messageType: int, payload: bytes) -> None: ...

    def sendDisconnect(self, reason: int, desc: bytes) -> None: ...


class ChannelReceiver(Protocol):
    """Who gets what the peer sends on a channel."""

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        """The peer confirmed the channel that we opened."""

    def refused(self, code: int, text: bytes) -> None:
        """The peer would not open the channel that we asked for; nothing follows."""

    def received(self, message: int, body: bytes) -> None:
        """One of 93 to 100, in order; ``body`` is what follows the channel number."""

    def lost(self) -> None:
        """The connection is gone, and the channel with it; nothing follows."""


class Channel:
    """Our end of one channel of one connection.

    ``number`` is ours, ``peer_number`` the one that goes into what we send, ``None`` until the
    channel is open. The channel is forgotten when CLOSE has gone both ways.
    """

    __slots__ = (
        "_peer",
        "connection",
        "got_close",
        "kind",
        "number",
        "peer_number",
        "receiver",
        "sent_close",
    )

    def __init__(self, connection: Connection, number: int, kind: bytes) -> None:
        self.connection = connection
        self.number = number
        self.kind = kind
        self.peer_number: int | None = None
        self._peer = b""
        self.receiver: ChannelReceiver | None = None
        self.sent_close = False
        self.got_close = False

    def bind_peer(self, number: int) -> None:
        self.peer_number = number
        self._peer = uint32(number)

    def send(self, message: int, body: bytes = b"") -> None:
        """Send one of 93 to 100. After our CLOSE nothing may follow, so nothing does."""
        if self.sent_close or self.peer_number is None:
            return
        transport = self.connection.transport
        if transport is None:
            return
        if message == m.CHANNEL_CLOSE:
            self.sent_close = True
        transport.sendPacket(message, self._peer + body)
        if self.sent_close and self.got_close:
            self.connection.forget(self)


class IncomingOpen:
    """A channel that the peer asks for; answered once, whenever its owner knows.

    Until then the peer may not send on it. ``request.window`` and ``request.max_packet`` are the
    peer's offer to receive.
    """

    __slots__ = ("_answered", "channel", "request")

    def __init__(self, channel: Channel, request: m.ChannelOpen) -> None:
        self.channel = channel
        self.request = request
        self._answered = False

    def confirm(self, receiver: ChannelReceiver, window: int, max_packet: int, extra: bytes = b"") -> None:
        """Open it: the peer may send ``window`` bytes in packets of ``max_packet``."""
        transport = self._answer()
        self.channel.receiver = receiver
        if transport is not None:
            transport.sendPacket(
                m.CHANNEL_OPEN_CONFIRMATION,
                uint32(self.request.sender)
                + uint32(self.channel.number)
                + uint32(window)
                + uint32(max_packet)
                + extra,
            )

    def refuse(self, code: int, text: str) -> None:
        """Say no, with one of RFC 4254's reason codes and one line that a user may read."""
        transport = self._answer()
        self.channel.connection.forget(self.channel)
        if transport is not None:
            transport.sendPacket(m.CHANNEL_OPEN_FAILURE, m.open_failure(self.request.sender, code, text))

    @property
    def answered(self) -> bool:
        return self._answered

    def _answer(self) -> ConnectionTransport | None:
        if self._answered:
            raise RuntimeError("a channel open is answered once")
        self._answered = True
        return self.channel.connection.transport


class IncomingRequest:
    """A global request of the peer. Replies leave in the order of the requests (RFC 4254 section 4)."""

    __slots__ = ("_connection", "extra", "name", "reply_message", "want_reply")

    def __init__(self, connection: Connection, request: m.GlobalRequest) -> None:
        self._connection = connection
        self.name = request.name
        self.extra = request.extra
        self.want_reply = request.want_reply
        self.reply_message: tuple[int, bytes] | None = None

    def reply(self, success: bool, extra: bytes = b"") -> None:
        """Answer it; where no reply is wanted this does nothing. The first answer counts."""
        if self.reply_message is None:
            self.reply_message = (m.REQUEST_SUCCESS, extra) if success else (m.REQUEST_FAILURE, b"")
            self._connection.flush_replies()


class ConnectionHandler(Protocol):
    """Who decides what a peer may open and ask for."""

    def connection_started(self, connection: Connection) -> None: ...

    def channel_requested(self, opening: IncomingOpen) -> None: ...

    def global_requested(self, request: IncomingRequest) -> None: ...

    def connection_stopped(self) -> None: ...


ReplyCallback = Callable[[bool, bytes], None]


class Connection(SSHService):
    """The service ``ssh-connection`` over one transport, either side."""

    name = b"ssh-connection"
    transport: ConnectionTransport | None  # type: ignore[assignment]  # Conch declares its own concrete class

    def __init__(
        self,
        handler: ConnectionHandler,
        *,
        max_channels: int = MAX_CHANNELS,
        exceeded: Callable[[str], None] | None = None,
        refusal_text: Callable[[bytes], bytes] = lambda text: text,
        least_packet: int = 1,
    ) -> None:
        """``exceeded`` hears why a channel was refused that was one too many: once, however many were.
        ``refusal_text`` makes the peer's words in CHANNEL_OPEN_FAILURE fit to be shown to somebody. A channel
        whose peer takes less than ``least_packet`` bytes in a packet is refused."""
        self.transport = None
        self._exceeded = exceeded
        self._refusal_text = refusal_text
        self._handler = handler
        self._max_channels = max_channels
        self._least_packet = least_packet
        self._channels: dict[int, Channel] = {}
        self._next_number = 0
        self._incoming_requests: deque[IncomingRequest] = deque()
        self._outgoing_replies: deque[ReplyCallback] = deque()
        self._stopped = False
        #: DISCONNECT was sent: what the peer has sent before it read that is not handled.
        self._disconnecting = False

    # --- life

    def serviceStarted(self) -> None:
        self._guard(lambda: self._handler.connection_started(self))

    def serviceStopped(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        channels, self._channels = self._channels, {}
        replies, self._outgoing_replies = self._outgoing_replies, deque()
        self._incoming_requests.clear()
        for channel in channels.values():
            if channel.receiver is not None:
                self._guard(channel.receiver.lost)
        for callback in replies:
            self._guard(lambda callback=callback: callback(False, b""))  # type: ignore[misc]
        self._guard(self._handler.connection_stopped)
        self.transport = None

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def channel_count(self) -> int:
        return len(self._channels)

    def disconnect(self, text: str, reason: int = DisconnectReason.BY_APPLICATION) -> None:
        """End the whole connection, telling the peer why. No message of the peer is handled any more."""
        self._disconnecting = True
        if self.transport is not None:
            self.transport.sendDisconnect(reason, text.encode("utf-8", "replace"))

    # --- what we ask for

    def open(
        self, kind: bytes, receiver: ChannelReceiver, *, window: int, max_packet: int, extra: bytes = b""
    ) -> Channel:
        """Ask the peer for a channel; ``receiver`` hears ``opened`` or ``refused``, or ``lost``."""
        channel = self._new_channel(kind)
        channel.receiver = receiver
        if self.transport is None:
            self.forget(channel)
            receiver.lost()
            return channel
        self.transport.sendPacket(
            m.CHANNEL_OPEN,
            m.ChannelOpen(
                kind=kind, sender=channel.number, window=window, max_packet=max_packet, extra=extra
            ).encode(),
        )
        return channel

    def request(self, name: bytes, extra: bytes = b"", on_reply: ReplyCallback | None = None) -> None:
        """A global request; with ``on_reply`` a reply is wanted, and it is called exactly once."""
        if self.transport is None:
            if on_reply is not None:
                on_reply(False, b"")
            return
        if on_reply is not None:
            self._outgoing_replies.append(on_reply)
        self.transport.sendPacket(
            m.GLOBAL_REQUEST,
            m.GlobalRequest(name=name, want_reply=on_reply is not None, extra=extra).encode(),
        )

    # --- what the peer sends

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Called by the transport for every message above 49. Never raises."""
        if self._stopped or self._disconnecting:
            return
        try:
            self._dispatch(messageNum, packet)
        except ProtocolViolation as error:
            _log.info("protocol violation of the peer: {text}", text=str(error))
            self.disconnect(error.public, DisconnectReason.PROTOCOL_ERROR)
        except Exception:
            _log.failure("internal error while message {number} was handled", number=messageNum)
            self.disconnect(INTERNAL_ERROR, DisconnectReason.BY_APPLICATION)

    def _dispatch(self, number: int, payload: bytes) -> None:
        if m.CHANNEL_OPEN_CONFIRMATION <= number <= m.CHANNEL_FAILURE:
            if len(payload) < 4:
                raise RemoteViolation("the message is truncated", code=ReasonCode.MALFORMED_MESSAGE)
            channel = self._channels.get(int.from_bytes(payload[:4], "big"))
            if channel is None:
                return
            if number == m.CHANNEL_OPEN_CONFIRMATION:
                self._handle_confirmation(channel, payload)
            elif number == m.CHANNEL_OPEN_FAILURE:
                self._handle_open_failure(channel, payload)
            elif channel.peer_number is None or channel.receiver is None:
                raise RemoteViolation(f"message {number} on a channel that is not open")
            else:
                if channel.got_close:
                    return
                receiver = channel.receiver
                if number == m.CHANNEL_CLOSE:
                    channel.got_close = True
                receiver.received(number, payload[4:])
                if channel.sent_close and channel.got_close:
                    self.forget(channel)
        elif number == m.CHANNEL_OPEN:
            self._handle_open(m.ChannelOpen.parse(payload))
        elif number == m.GLOBAL_REQUEST:
            incoming = IncomingRequest(self, m.GlobalRequest.parse(payload))
            if incoming.want_reply:
                if len(self._incoming_requests) >= self._max_channels:
                    raise RemoteViolation(
                        "too many global requests wait for a reply", code=ReasonCode.TOO_MANY_MESSAGES
                    )
                self._incoming_requests.append(incoming)
            self._handler.global_requested(incoming)
        elif number in (m.REQUEST_SUCCESS, m.REQUEST_FAILURE):
            # An unsolicited reply answers nothing; dropping it costs nothing.
            if self._outgoing_replies:
                self._outgoing_replies.popleft()(number == m.REQUEST_SUCCESS, payload)
        else:
            send_unimplemented = getattr(self.transport, "sendUnimplemented", None)
            if send_unimplemented is not None:
                send_unimplemented()

    def _handle_open(self, request: m.ChannelOpen) -> None:
        transport = self.transport
        assert transport is not None
        if len(self._channels) >= self._max_channels:
            text = f"too many channels in one connection: the limit is {self._max_channels}"
            reason = Reason(ReasonCode.TOO_MANY_CHANNELS, text)
            transport.sendPacket(
                m.CHANNEL_OPEN_FAILURE,
                m.open_failure(request.sender, m.RESOURCE_SHORTAGE, f"conchrec: {reason}"),
            )
            if self._exceeded is not None:
                exceeded, self._exceeded = self._exceeded, None
                exceeded(reason)
            return
        if request.max_packet < self._least_packet:
            text = (
                f"the maximum packet size is too small: {request.max_packet} bytes, the minimum is"
                f" {self._least_packet}"
            )
            small = Reason(ReasonCode.PACKETS_DO_NOT_FIT, text)
            transport.sendPacket(
                m.CHANNEL_OPEN_FAILURE,
                m.open_failure(request.sender, m.RESOURCE_SHORTAGE, f"conchrec: {small}"),
            )
            return
        channel = self._new_channel(request.kind)
        channel.bind_peer(request.sender)
        self._handler.channel_requested(IncomingOpen(channel, request))

    def _handle_confirmation(self, channel: Channel, payload: bytes) -> None:
        r = Reader(payload)
        r.uint32()
        peer_number, window, max_packet, extra = r.uint32(), r.uint32(), r.uint32(), r.rest()
        if channel.peer_number is not None or channel.receiver is None:
            raise RemoteViolation("CHANNEL_OPEN_CONFIRMATION for a channel that is open")
        channel.bind_peer(peer_number)
        channel.receiver.opened(window, max_packet, extra)

    def _handle_open_failure(self, channel: Channel, payload: bytes) -> None:
        r = Reader(payload)
        r.uint32()
        code, text = r.uint32(), r.string()
        if channel.peer_number is not None or channel.receiver is None:
            raise RemoteViolation("CHANNEL_OPEN_FAILURE for a channel that is open")
        self.forget(channel)
        channel.receiver.refused(code, self._refusal_text(text))

    # --- book-keeping

    def flush_replies(self) -> None:
        """Send the replies whose turn has come."""
        queue = self._incoming_requests
        while queue and queue[0].reply_message is not None:
            message, extra = queue.popleft().reply_message or (m.REQUEST_FAILURE, b"")
            if self.transport is not None:
                self.transport.sendPacket(message, extra)

    def forget(self, channel: Channel) -> None:
        """Drop a channel whose CLOSE went both ways, or that never opened."""
        if self._channels.get(channel.number) is channel:
            del self._channels[channel.number]

    def _new_channel(self, kind: bytes) -> Channel:
        while self._next_number in self._channels:
            self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        channel = Channel(self, self._next_number, kind)
        self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        self._channels[channel.number] = channel
        return channel

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            _log.failure("internal error while a connection started or ended")
