"""One end of a relayed channel: the messages that are sent to it, and the replies that it owes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.proxy.held_bytes import ChannelHeldBytes
from conchrec.proxy.relay.admission import DATA_HEADER, Direction, MessageKind, Payload, StartPhase, Table
from conchrec.proxy.relay.control_hash import ControlHash
from conchrec.proxy.relay.lane import ReplyOrder
from conchrec.reasons import Reason, ReasonCode
from conchrec.slim_queue import SlimQueue
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string, uint32
from conchrec.text import one_line

#: The most packets into which one packet is split, in one turn of the reactor. Peers that respect the maximum
#: packet size need far fewer; a channel with packets of one byte would delay all other users.
PIECES_MOST = 256
#: Requests of one end that the other has not answered. PuTTY, which sends most, has a few hundred at once.
UNANSWERED_MOST = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FarReceiver:
    """The ChannelReceiver of the far channel, made of four methods of the relay.

    The relay is itself the ChannelReceiver of the near channel.
    """

    opened: Callable[[int, int, bytes], None]
    refused: Callable[[int, bytes], None]
    received: Callable[[int, bytes], None]
    lost: Callable[[], None]


class ChannelEnd:
    """The near or the far end of one relayed channel.

    ``channel`` is None until the far channel is requested, and again if it is refused. ``incoming`` admits
    the messages that this end sends. ``control`` covers the messages to this end that are not data; it stays
    empty unless ``is_session``. ``on_close`` is called when CLOSE was sent to this end.
    """

    __slots__ = (
        "_drop", "_is_session", "_on_close", "channel", "control", "incoming", "max_packet", "replies",
        "unanswered",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel | None,
        max_packet: int,
        table: Table,
        *,
        is_session: bool,
        admit: Callable[[MessageKind, int, Payload], None],
        drop: Callable[[int, bytes, Reason], None],
        on_close: Callable[[], None],
        held_bytes: ChannelHeldBytes,
    ) -> None:
        self.channel = channel
        self.max_packet = max_packet
        self._is_session = is_session
        self._drop = drop
        self._on_close = on_close
        self.control = ControlHash()
        #: Replies to the requests of this end.
        self.replies = ReplyOrder(self._send_reply)
        #: Requests that this end received and has not answered.
        self.unanswered: SlimQueue[m.ChannelRequest] = SlimQueue()
        self.incoming = Direction(
            table,
            StartPhase.NOT_STARTED if is_session else StartPhase.STARTED,
            deliver=admit,
            refund=self._refund,
            dropped=drop,
            refuse=self._refuse,
            held_bytes=held_bytes,
        )

    def release(self) -> None:
        """Drop the parts, which refer to this object."""
        del self.replies, self.incoming

    def expect_reply(self, request: m.ChannelRequest) -> None:
        """Note a request that this end has to answer. Raises RemoteViolation if there are too many."""
        if len(self.unanswered) >= UNANSWERED_MOST:
            raise RemoteViolation("too many unanswered requests", code=ReasonCode.TOO_MANY_MESSAGES)
        self.unanswered.append(request)

    def check_size(self, message: int, body: bytes) -> None:
        """Check data before it is observed. Raises ConchrecError if it needs too many packets."""
        if message in DATA_HEADER and len(body) > self.max_packet * PIECES_MOST:
            raise ConchrecError(
                "data packets are too large for the other side, "
                f"whose maximum packet size is {self.max_packet} bytes",
                code=ReasonCode.PACKETS_DO_NOT_FIT,
            )

    def forward(self, message: int, body: bytes) -> None:
        """Send a message that was observed: data in packets of the right size, replies in their order."""
        if message in DATA_HEADER:
            if self.channel is not None:
                send_data(self.channel, message, body, self.max_packet)
        elif message in (m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE):
            self.replies.accept_reply(message == m.CHANNEL_SUCCESS)
        else:
            if message == m.CHANNEL_WINDOW_ADJUST:
                self.incoming.add_granted(m.parse_uint32(body))
            self.send(message, body)
            if message == m.CHANNEL_CLOSE:
                self._on_close()

    def send(self, message: int, body: bytes = b"") -> None:
        """Send a message that is not data; without a channel nothing is sent."""
        channel = self.channel
        if channel is None:
            return
        if self._is_session and not channel.sent_close:
            self.control.add(message, body)
        channel.send(message, body)

    def send_end(self, outgoing: Direction, text: str, status: int) -> bool:
        """End the user's channel; a session first gets ``text`` on its stderr, and an exit status.

        ``outgoing`` is the direction to this end. Returns whether the window had room for ``text``.
        """
        was_sent = False
        if text and self._is_session:
            line = (text + "\r\n").encode("utf-8", "replace")
            # OpenSSH ends the whole connection for extended data after EOF.
            was_sent = len(line) <= outgoing.window and not outgoing.ended
            if was_sent and self.channel is not None:
                self.channel.send(m.CHANNEL_EXTENDED_DATA, uint32(m.STDERR) + string(line))
            self.send(m.CHANNEL_REQUEST, m.exit_status(status))
        if not outgoing.ended:
            self.send(m.CHANNEL_EOF)
        self.send(m.CHANNEL_CLOSE)
        return was_sent

    # --- inside

    def _send_reply(self, success: bool) -> None:
        self.send(m.CHANNEL_SUCCESS if success else m.CHANNEL_FAILURE)

    def _refund(self, size: int) -> None:
        self.send(m.CHANNEL_WINDOW_ADJUST, uint32(size))

    def _refuse(self, request: m.ChannelRequest, reason: Reason) -> None:
        """Answer a request of this end that the other end would not accept at this point."""
        name = one_line(request.name, 64)
        self._drop(m.CHANNEL_REQUEST, request.extra, Reason(reason.code, f"request {name}: {reason}"))
        if request.want_reply:
            self.replies.answer(False)


def send_data(channel: Channel, message: int, body: bytes, max_packet: int) -> None:
    """Send data in packets that do not exceed the maximum packet size (RFC 4254, 5.2)."""
    header = DATA_HEADER[message]
    if len(body) - header <= max_packet:
        channel.send(message, body)
        return
    prefix = body[: header - 4]
    for start in range(header, len(body), max_packet):
        channel.send(message, prefix + string(body[start : start + max_packet]))
