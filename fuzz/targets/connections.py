"""Messages under good keys after the login, to our server and to our client: channels, requests, streams."""

from __future__ import annotations

from twisted.conch.ssh.service import SSHService

from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.ssh import messages as m
from conchrec.ssh import numbers as a
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import Connection, IncomingOpen, IncomingRequest
from conchrec.ssh.fair_turns import TurnScheduler
from conchrec.ssh.wire import string, uint32
from fuzz.limits import Broken
from fuzz.target import Target
from fuzz.targets.linked import Linked, message, packed
from fuzz.targets.parsers import EXIT_SIGNAL, FORWARDED, OPEN, PTY, proposal
from tests.support.now import Now
from tests.support.pair import Pair

#: Channels that a session may have made us keep.
CHANNELS = 64
WINDOW = uint32(2 << 20)


class Echo:
    """Sends back what it hears; the peer's window bounds how much of it waits."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.closed = 0

    def stream_opened(self) -> None:
        """Now it can be written to."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """The peer has refused the channel."""
        self.stream_closed()

    def stream_data(self, data: bytes) -> None:
        """Handle data of the channel."""
        if self.stream is not None and self.stream.pending < 1 << 20:
            self.stream.write(data)
            self.stream.write_error(data[:10])

    def stream_eof(self) -> None:
        """The peer sends no more: send EOF, too."""
        if self.stream is not None:
            self.stream.write_eof()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Answer a request on the channel."""
        if request.name == b"pty-req":
            m.PtyRequest.parse(request.extra)
        if request.name == b"close" and self.stream is not None:
            self.stream.request(b"exit-status", uint32(0))
            self.stream.close()
        return request.name != b"no"

    def stream_drained(self, pending: int) -> None:
        """Check the number of bytes that wait."""
        if pending < 0:
            raise Broken("less than nothing waits")

    def stream_closed(self) -> None:
        """The channel is closed."""
        self.closed += 1
        if self.closed > 1:
            raise Broken("it closes once")


class Host:
    """Accepts sessions and tunnels, refuses some, and leaves some without an answer."""

    def __init__(self) -> None:
        self.stopped = 0
        self._late: list[IncomingRequest] = []

    def connection_started(self, connection: Connection) -> None:
        """Whoever made this has it."""

    def channel_requested(self, opening: IncomingOpen) -> None:
        """Answer a channel open of the peer."""
        kind = opening.channel.kind
        if kind == b"session":
            echo = Echo()
            echo.stream = Stream.accept(opening, echo)
        elif kind == b"direct-tcpip":
            m.Forwarded.parse(opening.request.extra)
            tunnel = Tunnel(TurnScheduler(Now()))
            tunnel.attach(Stream.accept(opening, tunnel))
            # An SSH server inside the connection, as every target is.
            tunnel.start(Pair(connect=False).server)
        elif kind != b"never":
            opening.refuse(m.UNKNOWN_CHANNEL_TYPE, "no")

    def global_requested(self, request: IncomingRequest) -> None:
        """Answer a global request of the peer."""
        self._late.append(request)
        if request.name != b"later":
            for waiting in self._late:
                waiting.reply(waiting.name != b"no", b"")
            self._late.clear()

    def connection_stopped(self) -> None:
        """The connection layer has stopped."""
        self.stopped += 1


class Connected(Linked):
    """A connection that has channels of both sides; what goes on in it is the peer's."""

    def __init__(self, *, to_server: bool) -> None:
        self._host = Host()
        self._connection = Connection(self._host, max_channels=CHANNELS)
        self._replies = 0
        super().__init__(to_server=to_server, service=self._service, on_open=self._open)

    def _service(self) -> SSHService:
        return self._connection

    def _open(self) -> None:
        """Channels 0 and 1 of ours, and a request that waits for its answer."""
        for kind in (b"auth-agent@openssh.com", b"forwarded-tcpip"):
            echo = Echo()
            echo.stream = Stream.open(self._connection, kind, echo)
            echo.stream.write(b"early")
        self._connection.request(b"keepalive@openssh.com", b"", self._replied)

    def _replied(self, success: bool, extra: bytes) -> None:
        self._replies += 1

    def feed(self, data: bytes) -> bool:
        """Give one input; return whether the session goes on."""
        goes_on = super().feed(data)
        if self._connection.channel_count > CHANNELS + 2:
            raise Broken(f"{self._connection.channel_count} channels")
        return goes_on

    def end(self) -> None:
        """End the session, and check what must hold at its end."""
        super().end()
        if (self._replies, self._host.stopped, self._connection.channel_count) != (1, 1, 0):
            raise Broken(f"{self._replies} replies, stopped {self._host.stopped} times")


def on(number: int, channel: int, body: bytes = b"") -> bytes:
    """A message of a channel, by our number for it."""
    return message(number, uint32(channel) + body)


def request(channel: int, name: bytes, extra: bytes = b"", want_reply: bool = True) -> bytes:
    """Return a CHANNEL_REQUEST."""
    body = m.ChannelRequest(name=name, want_reply=want_reply, extra=extra).encode()
    return on(m.CHANNEL_REQUEST, channel, body)


def opening(kind: bytes, extra: bytes = b"", window: int = 2 << 20) -> bytes:
    """Return a CHANNEL_OPEN."""
    value = m.ChannelOpen(kind=kind, sender=7, window=window, max_packet=32768, extra=extra)
    return message(m.CHANNEL_OPEN, value.encode())


def _corpus() -> list[bytes]:
    """Ours are the channels 0 and 1, so what the peer opens first is 2."""
    granted = uint32(7) + WINDOW + uint32(32768)
    data = string(b"hello\r\n")
    return packed(
        (message(m.CHANNEL_OPEN, OPEN), request(2, b"pty-req", PTY), request(2, b"shell"), on(94, 2, data)),
        (on(94, 2, data), on(95, 2, uint32(1) + data), on(93, 2, WINDOW), on(96, 2), on(97, 2)),
        (opening(b"direct-tcpip", FORWARDED), on(94, 2, string(b"SSH-2.0-x\r\n")), on(97, 2)),
        (opening(b"direct-tcpip", FORWARDED), on(94, 3, string(b"SSH-2.0-x\r\n\0\0\0\x0c\x0a")), on(96, 3)),
        (opening(b"session", window=3), on(94, 2, string(b"x" * 100)), on(93, 2, uint32(5))),
        (opening(b"never"), opening(b"x11", FORWARDED), request(2, b"close"), on(97, 2)),
        (on(91, 0, granted), on(94, 0, data), request(0, b"exit-signal", EXIT_SIGNAL, False), on(97, 0)),
        (on(92, 1, uint32(2) + string(b"no") + string(b"")), on(91, 0, granted), on(93, 0, WINDOW)),
        (message(80, string(b"later") + b"\1"), message(80, string(b"no") + b"\1"), message(81, uint32(22))),
        (message(80, string(b"tcpip-forward") + b"\1" + string(b"") + uint32(0)), message(82)),
        (request(2, b"exec", string(b"id")), on(99, 2), on(100, 2), request(2, b"no"), on(94, 0, data)),
        (message(a.PING, string(b"x")), message(a.KEXINIT, proposal((b"curve25519-sha256",)))),
        (message(a.DISCONNECT, uint32(11) + string(b"bye") + string(b"")),),
    )


def _target(to_server: bool) -> Target:
    side = "server" if to_server else "client"
    return Target(
        name=side,
        about=f"a {side} after the login: ssh/connection.py, channel_stream.py, proxy/relay/tunnel.py",
        corpus=_corpus,
        begin=lambda: Connected(to_server=to_server),
        packed=True,
        length=50,
    )


SERVER, CLIENT = _target(True), _target(False)
