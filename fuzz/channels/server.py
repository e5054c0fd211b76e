"""The instrumented server: behaves as sshd does, and keeps an account of what it was given.

As sshd it ignores data before a start and after EOF, data beyond its window or its maximum packet, extended
data, and every start after one that it accepted. What it ignores is in the account, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.channels import wire as w
from fuzz.channels.client import BACK
from fuzz.channels.programs import Program, make_program

Send = Callable[[int, bytes], None]
STARTS = (b"shell", b"exec", b"subsystem")
#: Requests to which sshd listens only until a start was accepted.
BEFORE_START = (*STARTS, b"pty-req", b"env", b"x11-req", b"auth-agent-req@openssh.com")


@dataclass(frozen=True, slots=True)
class Manners:
    """How the server treats one channel; drawn by the script."""

    window: int = 0
    """What it grants when it confirms; sshd: nothing."""
    later: int = 1 << 21
    """What it grants when a start is accepted."""
    packet: int = 32768
    accepts: tuple[bool, ...] = (True,)
    """Its answers to starts, one after the other; the last one for all that follow."""
    refuses: tuple[bytes, ...] = ()
    """Requests that it refuses."""
    prompt: bool = True
    """It replies at once, and not when the script says so."""
    silent: bool = False
    """It never replies to a start."""
    stingy: bool = False
    """It grants again what was consumed only at the end of the case."""
    opens: bool = True
    extra: bytes = b""
    program: str = "echo"


@dataclass(slots=True)
class ServerRequest:
    """A request of the client, and the answer to it."""

    request: w.Request
    accepted: bool


@dataclass(slots=True)
class ServerChannel:
    """One channel. ``granted`` is what it may still get, ``window`` what the server may still send."""

    number: int
    peer: int
    kind: bytes
    window: int
    packet: int
    manners: Manners
    extra: bytes = b""
    granted: int = 0
    opened: bool = False
    start: w.Request | None = None
    starts: list[ServerRequest] = field(default_factory=list)
    received: list[ServerRequest] = field(default_factory=list)
    env: list[tuple[bytes, bytes]] = field(default_factory=list)
    pty: list[bytes | int | bool] | None = None
    stdin: bytearray = field(default_factory=bytearray)
    ignored: list[tuple[str, bytes]] = field(default_factory=list)
    got_eof: bool = False
    got_close: bool = False
    sent_eof: bool = False
    sent_close: bool = False
    replies: deque[bool] = field(default_factory=deque)
    to_send: deque[tuple[bool, bytes]] = field(default_factory=deque)
    eof_after: bool = False
    #: What it sent, in order: (is it standard error?, bytes).
    output: list[tuple[bool, bytes]] = field(default_factory=list)
    #: It sent something that no honest server sends.
    rude: bool = False
    #: It sent a reply to nothing. The proxy takes it for that to a request which is under way.
    has_lied: bool = False
    requests: list[w.Request] = field(default_factory=list)
    #: Its own requests that want a reply, and the replies that came.
    wanted: int = 0
    got_replies: int = 0
    #: All that came on it but data.
    control: w.Control = field(default_factory=w.Control)
    exit_status: int | None = None
    exit_signal: bytes = b""
    program: Program | None = None
    #: The server opened it.
    is_back: bool = False


def _bytes(field: object) -> bytes:
    assert isinstance(field, bytes)
    return field


class Server:
    """The instrumented server. ``violations`` are what the proxy must never do to a server."""

    def __init__(self, send: Send, manners: tuple[Manners, ...]) -> None:
        self._send = send
        self._manners = manners
        self.channels: list[ServerChannel] = []
        self.violations: list[str] = []
        self.payloads: list[tuple[str, bytes]] = []
        self.global_waiting: deque[w.Request] = deque()
        self.global_wanted = 0
        self.global_replies = 0
        #: New channels are treated as by an honest server.
        self.honest = False

    # --- what a script does

    def reply(self, index: int, count: int = 1000) -> None:
        """Send replies that are due."""
        channel = self._at(index)
        if channel is not None:
            self._reply(channel, count)

    def _reply(self, channel: ServerChannel, count: int = 1000) -> None:
        for _ in range(count):
            if not channel.replies or not self._may(channel):
                return
            self._say(channel, w.SUCCESS if channel.replies.popleft() else w.FAILURE)

    def output(self, index: int, error: bool, data: bytes) -> None:
        """As an honest server: as soon as the window allows, and not before a start."""
        channel = self._at(index)
        if channel is not None and data and (channel.start is not None or channel.kind != b"session"):
            self._put(channel, error, data)

    def early_output(self, index: int, error: bool, data: bytes) -> None:
        """Within the window, and before a start was accepted."""
        channel = self._at(index)
        if channel is not None and self._may(channel) and data and not channel.eof_after:
            size = min(len(data), channel.window, channel.packet)
            error = error and channel.kind == b"session"
            if size and not channel.to_send:
                self._emit(channel, error, data[:size])

    def rude_output(self, index: int, kind: int, data: bytes) -> None:
        """Whatever was granted, and of any type."""
        channel = self._at(index)
        if channel is not None and self._may(channel):
            channel.rude = True
            channel.window -= len(data)
            body = w.text(data) if not kind else w.u32(kind) + w.text(data)
            self._say(channel, w.EXTENDED if kind else w.DATA, body)

    def request(self, index: int, request: w.Request) -> None:
        """Send a request on a channel."""
        channel = self._at(index)
        if channel is None or not self._may(channel):
            return
        channel.wanted += request.want_reply
        channel.requests.append(request)
        parsed = w.fields(w.LAYOUTS.get(request.name, ""), request.extra)
        if parsed is not None and not parsed[1]:
            if request.name == b"exit-status":
                channel.exit_status = int(parsed[0][0])
            elif request.name == b"exit-signal":
                channel.exit_signal = _bytes(parsed[0][0])
        self._say(channel, w.REQUEST, request.encode())

    def say(self, index: int, number: int, body: bytes) -> None:
        """A message that no honest server sends here."""
        channel = self._at(index)
        if channel is None or not self._may(channel):
            return
        if number in (w.SUCCESS, w.FAILURE) and (channel.replies or channel.manners.silent):
            # It would be the reply to something else, whatever the server thinks of it.
            return
        channel.rude = True
        channel.has_lied |= number in (w.SUCCESS, w.FAILURE)
        self._say(channel, number, body)

    def adjust(self, index: int, size: int) -> None:
        """Send a window adjust."""
        channel = self._at(index)
        if channel is not None:
            self._adjust(channel, size)

    def _adjust(self, channel: ServerChannel, size: int) -> None:
        if self._may(channel) and channel.granted + size < 1 << 32:
            channel.granted += size
            self._say(channel, w.ADJUST, w.u32(size))

    def eof(self, index: int, body: bytes = b"") -> None:
        """Send EOF on a channel."""
        channel = self._at(index)
        if channel is not None and self._may(channel) and not channel.eof_after:
            channel.eof_after = True
            if body:
                channel.rude = True
                channel.to_send.clear()
                channel.sent_eof = True
                self._say(channel, w.EOF, body)
            self._flush(channel)

    def close(self, index: int, body: bytes = b"") -> None:
        """Close a channel."""
        channel = self._at(index)
        if channel is not None and self._may(channel):
            channel.sent_close = True
            self._say(channel, w.CLOSE, body)

    def open(self, kind: bytes, window: int, packet: int, extra: bytes) -> None:
        """Open a channel to the client; ``BACK`` and more are the indexes of these."""
        number = len(self.channels)
        manners = Manners(window=window, later=window, packet=packet)
        channel = ServerChannel(number, 0, kind, 0, 0, manners, granted=window, is_back=True)
        self.channels.append(channel)
        self._send(w.OPEN, w.text(kind) + w.u32(number) + w.u32(window) + w.u32(packet) + extra)

    def ask(self, request: w.Request) -> None:
        """A global request."""
        self.global_wanted += request.want_reply
        self._send(w.GLOBAL_REQUEST, request.encode())

    def answer(self, success: bool, body: bytes = b"") -> None:
        """The oldest global request that wants a reply."""
        if self.global_waiting:
            self.global_waiting.popleft()
            self._send(w.REQUEST_SUCCESS if success else w.REQUEST_FAILURE, body if success else b"")

    def relax(self) -> None:
        """Reply to everything, and grant what was consumed."""
        while self.global_waiting:
            self.answer(False)
        for channel in self.channels:
            if not channel.manners.silent:
                self._reply(channel)
            self._grant(channel, relaxed=True)
            self._flush(channel)

    # --- inside

    def _at(self, index: int) -> ServerChannel | None:
        """The channel with this index, counted by the end that opened it, in their order."""
        back = index >= BACK
        there = [channel for channel in self.channels if channel.is_back is back]
        index -= BACK * back
        return there[index] if index < len(there) else None

    def _may(self, channel: ServerChannel) -> bool:
        return channel.opened and not channel.sent_close

    def _say(self, channel: ServerChannel, number: int, body: bytes = b"") -> None:
        self._send(number, w.u32(channel.peer) + body)

    def _put(self, channel: ServerChannel, error: bool, data: bytes) -> None:
        # A forward has no standard error.
        error = error and channel.kind == b"session"
        if self._may(channel) and not channel.eof_after and data:
            channel.to_send.append((error, data))
            self._flush(channel)

    def _flush(self, channel: ServerChannel) -> None:
        while channel.to_send and channel.window > 0 and self._may(channel) and not channel.sent_eof:
            error, data = channel.to_send.popleft()
            size = min(len(data), channel.window, channel.packet)
            self._emit(channel, error, data[:size])
            if data[size:]:
                channel.to_send.appendleft((error, data[size:]))
        if channel.eof_after and not channel.to_send and not channel.sent_eof and self._may(channel):
            channel.sent_eof = True
            self._say(channel, w.EOF)

    def _emit(self, channel: ServerChannel, error: bool, data: bytes) -> None:
        channel.window -= len(data)
        channel.output.append((error, data))
        body = w.u32(1) + w.text(data) if error else w.text(data)
        self._say(channel, w.EXTENDED if error else w.DATA, body)

    def _grant(self, channel: ServerChannel, *, relaxed: bool = False) -> None:
        running = channel.start is not None or channel.kind != b"session"
        if running and self._may(channel) and (relaxed or not channel.manners.stingy):
            wanted = max(channel.manners.later, channel.manners.window, 1 << 17 if relaxed else 0)
            if channel.granted < wanted // 2 + 1:
                self._adjust(channel, wanted - channel.granted)

    # --- what comes

    def received(self, number: int, payload: bytes) -> None:
        """Handle a message of the proxy, and check that it is allowed now."""
        if number == w.GLOBAL_REQUEST:
            request = w.Request.parse(payload)
            self.payloads.append((f"global request {request.name!r}", request.extra))
            if request.want_reply:
                self.global_waiting.append(request)
            return
        if number in (w.REQUEST_SUCCESS, w.REQUEST_FAILURE):
            self.global_replies += 1
            self.payloads.append(("global reply", payload))
            if self.global_replies > self.global_wanted:
                self.violations.append("a global reply that nobody asked for")
            return
        if number == w.OPEN:
            self._opening(payload)
            return
        index = int.from_bytes(payload[:4], "big")
        if index < len(self.channels) and self.channels[index].is_back and not self.channels[index].opened:
            self._answered(self.channels[index], number, payload[4:])
            return
        if index >= len(self.channels) or not self.channels[index].opened:
            self.violations.append(f"{w.NAMES.get(number, number)} on a channel that is not open")
            return
        channel = self.channels[index]
        if channel.got_close:
            self.violations.append(f"{w.NAMES.get(number, number)} after CLOSE")
            return
        self._channel_message(channel, number, payload[4:])

    def _answered(self, channel: ServerChannel, number: int, body: bytes) -> None:
        """The client's answer to a channel that the server opens."""
        cursor = w.Cursor(body)
        if number == w.OPEN_CONFIRMATION:
            channel.peer, channel.window, channel.packet = cursor.u32(), cursor.u32(), cursor.u32()
            channel.opened = True
            self.payloads.append(("open confirmation", cursor.left))
        elif number == w.OPEN_FAILURE:
            channel.got_close = channel.sent_close = True
        else:
            self.violations.append(f"{w.NAMES.get(number, number)} on a channel that is not open")

    def _opening(self, payload: bytes) -> None:
        cursor = w.Cursor(payload)
        kind, peer, window, packet = cursor.text(), cursor.u32(), cursor.u32(), cursor.u32()
        index = len(self.channels)
        count = sum(not channel.is_back for channel in self.channels)
        manners = Manners() if self.honest else self._manners[min(count, len(self._manners) - 1)]
        channel = ServerChannel(index, peer, kind, window, packet, manners, cursor.left)
        self.channels.append(channel)
        self.payloads.append((f"open {kind.decode('latin-1')}", cursor.left))
        if not manners.opens:
            channel.sent_close = channel.got_close = True
            self._send(w.OPEN_FAILURE, w.u32(peer) + w.u32(2) + w.text(b"refused") + w.text(b""))
            return
        channel.opened = True
        channel.granted = manners.window
        forwards = kind != b"session"
        if forwards:
            channel.granted = max(manners.window, manners.later)
            channel.program = make_program(manners.program, b"forward", b"")
        body = w.u32(index) + w.u32(channel.granted) + w.u32(manners.packet) + manners.extra
        self._say(channel, w.OPEN_CONFIRMATION, body)

    def _channel_message(self, channel: ServerChannel, number: int, body: bytes) -> None:
        channel.control.add(number, body)
        if number == w.ADJUST:
            channel.window += w.Cursor(body).u32()
            self.payloads.append(("surplus of adjust", body[4:]))
            if channel.window >= 1 << 32:
                self.violations.append("a window beyond 2^32 - 1")
            self._flush(channel)
        elif number == w.DATA:
            self._data(channel, body)
        elif number == w.EXTENDED:
            self.violations.append("extended data from a client")
            channel.ignored.append(("extended data", body[8:]))
        elif number == w.EOF:
            channel.got_eof = True
            self.payloads.append(("eof", body))
            if channel.program is not None:
                self._put_all(channel, channel.program.ended())
        elif number == w.CLOSE:
            channel.got_close = True
            self.payloads.append(("close", body))
            if not channel.sent_close:
                channel.sent_close = True
                self._say(channel, w.CLOSE)
        elif number == w.REQUEST:
            self._request(channel, w.Request.parse(body))
        elif number in (w.SUCCESS, w.FAILURE):
            channel.got_replies += 1
            self.payloads.append(("reply", body))
            if channel.got_replies > channel.wanted:
                self.violations.append("a reply that nobody asked for")

    def _data(self, channel: ServerChannel, body: bytes) -> None:
        cursor = w.Cursor(body)
        data = cursor.text()
        if cursor.left:
            self.violations.append("surplus bytes behind data")
        running = channel.start is not None or channel.kind != b"session"
        why = ""
        if len(data) > channel.manners.packet:
            why = f"{len(data)} bytes in a packet, the maximum is {channel.manners.packet}"
        elif len(data) > channel.granted:
            why = f"{len(data)} bytes, and the window is {channel.granted}"
        if why:
            self.violations.append(why)
        why = why or (not running and "before a start") or (channel.got_eof and "after EOF") or ""
        if why:
            channel.ignored.append((why, data))
            return
        channel.granted -= len(data)
        channel.stdin += data
        if channel.program is not None:
            self._put_all(channel, channel.program.read(data))
        self._grant(channel)

    def _put_all(self, channel: ServerChannel, output: list[tuple[bool, bytes]]) -> None:
        for error, data in output:
            self._put(channel, error, data)

    def _request(self, channel: ServerChannel, request: w.Request) -> None:
        name = request.name
        accepted = self._judge(channel, request)
        channel.received.append(ServerRequest(request, accepted))
        if request.want_reply and not (channel.manners.silent and name in STARTS):
            channel.replies.append(accepted)
            if channel.manners.prompt:
                self._reply(channel)
        if accepted and name in STARTS and channel.start is request:
            channel.program = make_program(channel.manners.program, name, request.extra)
            if channel.granted < channel.manners.later:
                self._adjust(channel, channel.manners.later - channel.granted)
            self._put_all(channel, channel.program.began())

    def _judge(self, channel: ServerChannel, request: w.Request) -> bool:
        """As sshd: what comes too late, or is broken, is refused."""
        name = request.name
        if channel.kind != b"session" or (name in BEFORE_START and channel.start is not None):
            return False
        parsed = w.fields(w.LAYOUTS.get(name, ""), request.extra)
        if parsed is None:
            return False
        if name in STARTS:
            answers = channel.manners.accepts
            accepted = answers[min(len(channel.starts), len(answers) - 1)]
            channel.starts.append(ServerRequest(request, accepted))
            if accepted:
                channel.start = request
            return accepted
        if name in channel.manners.refuses or name not in w.LAYOUTS:
            return False
        if name == b"env":
            channel.env.append((_bytes(parsed[0][0]), _bytes(parsed[0][1])))
        elif name == b"pty-req":
            if channel.pty is not None:
                return False
            channel.pty = parsed[0]
        return True
