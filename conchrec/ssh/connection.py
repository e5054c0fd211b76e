"""The connection protocol for a relay: messages 80 to 100 (RFC 4254 sections 4 and 5).

Twisted's ``SSHConnection`` confirms a channel at once, answers a request before the other side has
answered, and returns windows when bytes arrive. A relay must wait for the other side instead. Here a
channel open and a global request are objects that are answered later, each channel's owner controls its
windows, and payloads are not parsed.

Messages for an unknown channel are dropped, because its CLOSE and ours may have crossed. A malformed
message ends this connection with PROTOCOL_ERROR. No method raises into the transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.conch.ssh.service import SSHService
from twisted.logger import Logger

from conchrec.errors import LocalViolation, RemoteViolation
from conchrec.reasons import INTERNAL_ERROR, Reason, ReasonCode
from conchrec.slim_queue import SlimQueue
from conchrec.ssh import messages as m
from conchrec.ssh.fair_turns import Share
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.wire import Reader, uint32

_log = Logger()


#: The default limit of channels in one connection. sshd's MaxSessions is 10; forwards are added to that.
MAX_CHANNELS = 1024


class ConnectionTransport(Protocol):
    """The part of an SSH transport that a connection needs."""

    @property
    def share(self) -> Share | None:
        """The share that is charged for the work of the connection."""

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send one message."""

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Send DISCONNECT and close the connection."""


class ChannelReceiver(Protocol):
    """Handles the messages that the peer sends on one channel."""

    def opened(self, window: int, max_packet: int, extra: bytes) -> None:
        """The peer confirmed the channel that we opened."""

    def refused(self, code: int, text: bytes) -> None:
        """The peer refused the channel that we opened. This is the last event."""

    def received(self, message: int, body: bytes) -> None:
        """The peer sent a message with a number from 93 to 100; ``body`` follows the channel number."""

    def lost(self) -> None:
        """The connection has ended. This is the last event."""


class Channel:
    """Our end of one channel of one connection.

    ``number`` is our channel number. ``peer_number`` is the peer's number, which our messages contain; it
    is ``None`` until the channel is open. The connection forgets the channel after CLOSE in both
    directions.
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
        """Set the peer's channel number; the channel is open."""
        self.peer_number = number
        self._peer = uint32(number)

    def send(self, message: int, body: bytes = b"") -> None:
        """Send a message with a number from 93 to 100. Messages after our CLOSE are dropped."""
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
    """A channel that the peer wants to open. Its owner answers once, at any time.

    The peer may not send data before the answer. ``request.window`` and ``request.max_packet`` limit what
    we may send.
    """

    __slots__ = ("_answered", "channel", "request")

    def __init__(self, channel: Channel, request: m.ChannelOpen) -> None:
        self.channel = channel
        self.request = request
        self._answered = False

    def confirm(self, receiver: ChannelReceiver, window: int, max_packet: int, extra: bytes = b"") -> None:
        """Open the channel: the peer may send ``window`` bytes, in packets up to ``max_packet`` bytes."""
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
        """Refuse the channel with a reason code (RFC 4254 section 5.1) and one line of text for the user."""
        transport = self._answer()
        self.channel.connection.forget(self.channel)
        if transport is not None:
            transport.sendPacket(m.CHANNEL_OPEN_FAILURE, m.open_failure(self.request.sender, code, text))

    @property
    def answered(self) -> bool:
        """Whether the channel was confirmed or refused."""
        return self._answered

    def _answer(self) -> ConnectionTransport | None:
        if self._answered:
            raise LocalViolation("a channel open was answered twice")
        self._answered = True
        return self.channel.connection.transport


class IncomingRequest:
    """A global request of the peer. Replies are sent in the order of the requests (RFC 4254 section 4)."""

    __slots__ = ("_connection", "extra", "name", "reply_message", "want_reply")

    def __init__(self, connection: Connection, request: m.GlobalRequest) -> None:
        self._connection = connection
        self.name = request.name
        self.extra = request.extra
        self.want_reply = request.want_reply
        self.reply_message: tuple[int, bytes] | None = None

    def reply(self, success: bool, extra: bytes = b"") -> None:
        """Answer the request, if a reply is wanted. Only the first call has an effect."""
        if self.reply_message is None:
            self.reply_message = (m.REQUEST_SUCCESS, extra) if success else (m.REQUEST_FAILURE, b"")
            self._connection.flush_replies()


class ConnectionHandler(Protocol):
    """Decides about the channels and global requests of the peer."""

    def connection_started(self, connection: Connection) -> None:
        """The connection protocol has started."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """The peer wants to open a channel."""

    def global_requested(self, request: IncomingRequest) -> None:
        """The peer sent a global request."""

    def connection_stopped(self) -> None:
        """The connection has ended. This is the last event."""


ReplyCallback = Callable[[bool, bytes], None]


class Connection(SSHService):
    """The service ``ssh-connection`` over one transport, for a client or a server."""

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
        """Create the service.

        ``exceeded`` gets the reason when the peer opens more than ``max_channels`` channels; it is called
        once. ``refusal_text`` makes the peer's text in CHANNEL_OPEN_FAILURE safe to show to a user. A
        channel whose peer accepts packets of less than ``least_packet`` bytes is refused.
        """
        self.transport = None
        self._exceeded = exceeded
        self._refusal_text = refusal_text
        self._handler = handler
        self._max_channels = max_channels
        self._least_packet = least_packet
        self._channels: dict[int, Channel] = {}
        self._next_number = 0
        self._incoming_requests: SlimQueue[IncomingRequest] = SlimQueue()
        self._outgoing_replies: SlimQueue[ReplyCallback] = SlimQueue()
        self._stopped = False
        #: DISCONNECT was sent: later messages of the peer are ignored.
        self._disconnecting = False

    # --- life

    def serviceStarted(self) -> None:
        """Start the service. Called by the transport after the login."""
        self._guard(lambda: self._handler.connection_started(self))

    def serviceStopped(self) -> None:
        """End all channels and open requests. Called by the transport."""
        if self._stopped:
            return
        self._stopped = True
        channels, self._channels = self._channels, {}
        replies = self._outgoing_replies.take()
        self._incoming_requests.take()
        for channel in channels.values():
            receiver, channel.receiver = channel.receiver, None
            if receiver is not None:
                self._guard(receiver.lost)
        for callback in replies:
            self._guard(lambda callback=callback: callback(False, b""))  # type: ignore[misc]
        self._guard(self._handler.connection_stopped)
        self.transport = self._exceeded = None
        # It refers to this connection.
        del self._handler

    @property
    def stopped(self) -> bool:
        """Whether the connection has ended."""
        return self._stopped

    @property
    def channel_count(self) -> int:
        """The number of channels that are open or being opened."""
        return len(self._channels)

    def disconnect(self, text: str, reason: int = DisconnectReason.BY_APPLICATION) -> None:
        """End the connection with DISCONNECT. Further messages of the peer are ignored."""
        self._disconnecting = True
        if self.transport is not None:
            self.transport.sendDisconnect(reason, text.encode("utf-8", "replace"))

    # --- our requests

    def open(
        self, kind: bytes, receiver: ChannelReceiver, *, window: int, max_packet: int, extra: bytes = b""
    ) -> Channel:
        """Open a channel to the peer. ``receiver`` gets ``opened``, ``refused`` or ``lost``."""
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
        """Send a global request.

        With ``on_reply`` a reply is wanted, and ``on_reply`` is called exactly once.
        """
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
        """Handle a message with a number above 49. Called by the transport. Never raises."""
        if self._stopped or self._disconnecting:
            return
        try:
            self._dispatch(messageNum, packet)
        except RemoteViolation as error:
            _log.info("protocol violation of the peer: {text}", text=str(error))
            self.disconnect(error.public, DisconnectReason.PROTOCOL_ERROR)
        except Exception:
            _log.failure("unexpected error while message {number} was handled", number=messageNum)
            self.disconnect(INTERNAL_ERROR, DisconnectReason.BY_APPLICATION)

    def _dispatch(self, number: int, payload: bytes) -> None:
        """Handle one message. Raises RemoteViolation."""
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
            # A reply without a request is dropped.
            if self._outgoing_replies:
                self._outgoing_replies.popleft()(number == m.REQUEST_SUCCESS, payload)
        else:
            send_unimplemented = getattr(self.transport, "sendUnimplemented", None)
            if send_unimplemented is not None:
                send_unimplemented()

    def _handle_open(self, request: m.ChannelOpen) -> None:
        """Give a channel open to the handler, or refuse it because of a limit."""
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
        """Handle CHANNEL_OPEN_CONFIRMATION.

        ``uint32 recipient, uint32 sender, uint32 window, uint32 maximum packet``, then type-specific data
        """
        r = Reader(payload)
        r.uint32()
        peer_number, window, max_packet, extra = r.uint32(), r.uint32(), r.uint32(), r.rest()
        if channel.peer_number is not None or channel.receiver is None:
            raise RemoteViolation("CHANNEL_OPEN_CONFIRMATION for a channel that is open")
        channel.bind_peer(peer_number)
        channel.receiver.opened(window, max_packet, extra)

    def _handle_open_failure(self, channel: Channel, payload: bytes) -> None:
        """Handle CHANNEL_OPEN_FAILURE: ``uint32 recipient, uint32 reason code, string text, string
        language``.
        """
        r = Reader(payload)
        r.uint32()
        code, text = r.uint32(), r.string()
        receiver = channel.receiver
        if channel.peer_number is not None or receiver is None:
            raise RemoteViolation("CHANNEL_OPEN_FAILURE for a channel that is open")
        self.forget(channel)
        receiver.refused(code, self._refusal_text(text))

    # --- book-keeping

    def flush_replies(self) -> None:
        """Send the replies at the head of the queue that have been answered."""
        queue = self._incoming_requests
        while queue and queue[0].reply_message is not None:
            message, extra = queue.popleft().reply_message or (m.REQUEST_FAILURE, b"")
            if self.transport is not None:
                self.transport.sendPacket(message, extra)

    def forget(self, channel: Channel) -> None:
        """Remove a channel whose CLOSE was sent in both directions, or that was not opened."""
        if self._channels.get(channel.number) is channel:
            del self._channels[channel.number]
            channel.receiver = None

    def _new_channel(self, kind: bytes) -> Channel:
        """Return a new channel with the next free number."""
        while self._next_number in self._channels:
            self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        channel = Channel(self, self._next_number, kind)
        self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        self._channels[channel.number] = channel
        return channel

    def _guard(self, call: Callable[[], None]) -> None:
        """Call ``call``; an exception is logged and not raised."""
        try:
            call()
        except Exception:
            _log.failure("unexpected error while a connection started or ended")
