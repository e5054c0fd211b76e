"""The raw client: sends what a script says, and keeps an account of what it was granted and given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.channels import wire as w

Send = Callable[[int, bytes], None]
#: The index of the first channel that the target opens, at both ends.
BACK = 200


@dataclass(slots=True)
class ClientChannel:
    """One channel, as the client sees it. ``window`` is what it may still send, ``granted`` what it may
    still get."""

    index: int
    kind: bytes
    granted: int
    max_packet: int
    #: Granted again as it is consumed, or only at the end of the case.
    generous: bool
    number: int | None = None
    window: int = 0
    packet: int = 0
    opened: bool = False
    refused: bool = False
    closed: bool = False
    sent_close: bool = False
    sent_eof: bool = False
    got_eof: bool = False
    #: It sent something that an honest client does not.
    rude: bool = False
    #: It sent more than it was granted.
    overdrawn: bool = False
    to_send: bytearray = field(default_factory=bytearray)
    eof_after: bool = False
    sent: bytearray = field(default_factory=bytearray)
    wanted: int = 0
    replies: list[bool] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    requests: list[w.Request] = field(default_factory=list)
    #: All that came on it but data.
    control: w.Control = field(default_factory=w.Control)


class Client:
    """The raw client. ``violations`` are what the proxy must never do to a client; ``payloads`` are bytes of
    any meaning that reached the client, with where they stood."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.channels: dict[int, ClientChannel] = {}
        self.violations: list[str] = []
        self.payloads: list[tuple[str, bytes]] = []
        self.global_wanted = 0
        self.global_replies: list[tuple[bool, bytes]] = []
        #: Requests of the target that want a reply, by channel (None: global), not answered yet.
        self.unanswered: deque[int | None] = deque()

    # --- what a script does

    def open(
        self, index: int, kind: bytes, window: int, packet: int, extra: bytes, *, generous: bool
    ) -> None:
        """Open a channel."""
        if index in self.channels:
            return
        channel = ClientChannel(index, kind, window, packet, generous)
        self.channels[index] = channel
        self._send(w.OPEN, w.text(kind) + w.u32(index) + w.u32(window) + w.u32(packet) + extra)

    def request(self, index: int, request: w.Request) -> None:
        """Send a channel request."""
        channel = self._ready(index)
        if channel is not None:
            channel.wanted += request.want_reply
            self._say(channel, w.REQUEST, request.encode())

    def data(self, index: int, data: bytes) -> None:
        """As an honest client: as soon as the window allows."""
        channel = self._ready(index)
        if channel is not None and not channel.eof_after and not channel.sent_eof:
            channel.to_send += data
            self._flush(channel)

    def eof_when_sent(self, index: int) -> None:
        """As an honest client: behind its data."""
        channel = self._ready(index)
        if channel is not None:
            channel.eof_after = True
            self._flush(channel)

    def rude_data(self, index: int, data: bytes) -> None:
        """Whatever was granted, and in one packet."""
        channel = self._ready(index)
        if channel is not None:
            channel.rude = True
            channel.window -= len(data)
            channel.overdrawn |= channel.window < 0
            self._say(channel, w.DATA, w.text(data))

    def oversized(self, index: int, data: bytes) -> None:
        """In one packet, and within the window."""
        channel = self._ready(index)
        if channel is not None and data and len(data) <= channel.window and not channel.sent_eof:
            channel.rude |= len(data) > channel.packet
            channel.window -= len(data)
            channel.sent += data
            self._say(channel, w.DATA, w.text(data))

    def say(self, index: int, number: int, body: bytes) -> None:
        """A message that no honest client sends here."""
        channel = self._ready(index)
        if channel is not None:
            channel.rude = True
            if number in (w.DATA, w.EXTENDED):
                cursor = w.Cursor(body if number == w.DATA else body[4:])
                channel.window -= len(cursor.text())
                channel.overdrawn |= channel.window < 0
            elif number == w.EOF:
                channel.sent_eof = True
            elif number == w.ADJUST:
                channel.granted += w.Cursor(body).u32()
            self._say(channel, number, body)

    def adjust(self, index: int, size: int) -> None:
        """Send a window adjust."""
        channel = self._ready(index)
        if channel is not None and channel.granted + size < 1 << 32:
            channel.granted += size
            self._say(channel, w.ADJUST, w.u32(size))

    def close(self, index: int, body: bytes = b"") -> None:
        """Close a channel."""
        channel = self._ready(index)
        if channel is not None:
            self._say(channel, w.CLOSE, body)
            channel.sent_close = True

    def ask(self, request: w.Request) -> None:
        """A global request."""
        self.global_wanted += request.want_reply
        self._send(w.GLOBAL_REQUEST, request.encode())

    def answer(self, success: bool, body: bytes = b"") -> None:
        """The oldest request of the target that wants a reply."""
        if not self.unanswered:
            return
        index = self.unanswered.popleft()
        if index is None:
            self._send(w.REQUEST_SUCCESS if success else w.REQUEST_FAILURE, body if success else b"")
            return
        channel = self._ready(index)
        if channel is not None:
            self._say(channel, w.SUCCESS if success else w.FAILURE, body)

    def raw(self, number: int, payload: bytes) -> None:
        """Send any message."""
        self._send(number, payload)

    def relax(self) -> None:
        """Grant what was consumed, and answer what was asked."""
        while self.unanswered:
            self.answer(False)
        for channel in self.channels.values():
            channel.generous = True
            self._grant(channel)

    # --- inside

    def _opening(self, payload: bytes) -> None:
        """The target opens a channel."""
        cursor = w.Cursor(payload)
        kind, number, window, packet = cursor.text(), cursor.u32(), cursor.u32(), cursor.u32()
        self.payloads.append((f"open {kind.decode('latin-1')}", cursor.left))
        index = BACK + sum(known >= BACK for known in self.channels)
        channel = ClientChannel(index, kind, 50_000, 20_000, True, number, window, packet, opened=True)
        self.channels[index] = channel
        self._say(channel, w.OPEN_CONFIRMATION, w.u32(index) + w.u32(50_000) + w.u32(20_000))

    def _ready(self, index: int) -> ClientChannel | None:
        channel = self.channels.get(index)
        return channel if channel is not None and channel.opened and not channel.sent_close else None

    def _say(self, channel: ClientChannel, number: int, body: bytes = b"") -> None:
        assert channel.number is not None
        self._send(number, w.u32(channel.number) + body)

    def _flush(self, channel: ClientChannel) -> None:
        if channel.sent_close or channel.sent_eof:
            return
        while channel.to_send and channel.window > 0:
            size = min(len(channel.to_send), channel.window, channel.packet)
            if not size:
                return
            data = bytes(channel.to_send[:size])
            del channel.to_send[:size]
            channel.window -= size
            channel.sent += data
            self._say(channel, w.DATA, w.text(data))
        if channel.eof_after and not channel.to_send:
            channel.sent_eof = True
            self._say(channel, w.EOF)

    def _grant(self, channel: ClientChannel) -> None:
        least = 1 << 16
        if channel.generous and channel.granted < least and self._ready(channel.index) is channel:
            self.adjust(channel.index, 2 * least)

    # --- what comes

    def received(self, number: int, payload: bytes) -> None:
        """Handle a message of the proxy, and check that it is allowed now."""
        if number == w.GLOBAL_REQUEST:
            request = w.Request.parse(payload)
            self.payloads.append((f"global request {request.name!r}", request.extra))
            if request.want_reply:
                self.unanswered.append(None)
            return
        if number in (w.REQUEST_SUCCESS, w.REQUEST_FAILURE):
            self.global_replies.append((number == w.REQUEST_SUCCESS, payload))
            self.payloads.append(("global reply", payload))
            return
        if number == w.OPEN:
            self._opening(payload)
            return
        channel = self.channels.get(int.from_bytes(payload[:4], "big"))
        if channel is None:
            self.violations.append(f"{w.NAMES.get(number, number)} for an unknown channel")
            return
        self._channel_message(channel, number, payload[4:])

    def _channel_message(self, channel: ClientChannel, number: int, body: bytes) -> None:
        name = w.NAMES.get(number, str(number))
        channel.control.add(number, body)
        if channel.closed or (not channel.opened and number not in (w.OPEN_CONFIRMATION, w.OPEN_FAILURE)):
            self.violations.append(f"{name} on a channel that is not open")
            return
        if number == w.OPEN_CONFIRMATION:
            cursor = w.Cursor(body)
            channel.number, channel.window, channel.packet = cursor.u32(), cursor.u32(), cursor.u32()
            channel.opened = True
            self.payloads.append(("open confirmation", cursor.left))
        elif number == w.OPEN_FAILURE:
            channel.refused = channel.closed = True
            cursor = w.Cursor(body)
            cursor.u32()
            self.payloads.append(("open failure", cursor.text()))
            self.payloads.append(("open failure, language", cursor.text() + cursor.left))
        elif number == w.ADJUST:
            channel.window += w.Cursor(body).u32()
            self.payloads.append(("surplus of adjust", body[4:]))
            if channel.window >= 1 << 32:
                self.violations.append("a window beyond 2^32 - 1")
            self._flush(channel)
        elif number in (w.DATA, w.EXTENDED):
            self._data(channel, number, body)
        elif number == w.EOF:
            channel.got_eof = True
            self.payloads.append(("eof", body))
        elif number == w.CLOSE:
            channel.closed = True
            self.payloads.append(("close", body))
            if not channel.sent_close:
                self._say(channel, w.CLOSE)
                channel.sent_close = True
        elif number == w.REQUEST:
            request = w.Request.parse(body)
            channel.requests.append(request)
            if request.want_reply:
                self.unanswered.append(channel.index)
        elif number in (w.SUCCESS, w.FAILURE):
            channel.replies.append(number == w.SUCCESS)
            self.payloads.append(("reply", body))
            if len(channel.replies) > channel.wanted:
                self.violations.append(f"{name} that nobody asked for")

    def _data(self, channel: ClientChannel, number: int, body: bytes) -> None:
        cursor = w.Cursor(body)
        kind = cursor.u32() if number == w.EXTENDED else 0
        data = cursor.text()
        if cursor.left:
            self.violations.append("surplus bytes behind data")
        if channel.got_eof:
            self.violations.append("data after EOF")
        if len(data) > channel.max_packet:
            self.violations.append(f"{len(data)} bytes in a packet, the maximum is {channel.max_packet}")
        if len(data) > channel.granted:
            self.violations.append(f"{len(data)} bytes, and the window is {channel.granted}")
        if kind > 1:
            self.violations.append(f"extended data of type {kind}")
        channel.granted -= len(data)
        (channel.stderr if kind else channel.stdout).extend(data)
        self._grant(channel)
