"""One scenario through the whole proxy: a user's client, the target's server, and a transcript of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import bcrypt
import yaml

from conchrec.ssh.transport import ClientTransport, ServerTransport
from conchrec.ssh.transport_base import SSHTransport
from fuzz.channels import wire as w
from fuzz.channels.client import Client
from fuzz.channels.ends import Login, Raw
from fuzz.channels.memory import PROXY, TARGET, USER, Line
from fuzz.channels.server import Manners, Server
from fuzz.channels.stack import Stack
from tests.golden.codes import Codes
from tests.golden.heard import Heard, heard
from tests.golden.normal import Normaliser
from tests.golden.wire_text import Describer

WINDOW, PACKET = 1 << 20, 1 << 15
Tap = Callable[[str, str, int, bytes], None]
DISCONNECT, KEXINIT, FAILURE, QUESTIONS = 1, 20, 51, 60
#: Stands for the peer's first line (RFC 4253 section 4.2).
IDENTIFICATION = 0


class _Noted(SSHTransport):
    """A transport whose messages are noted."""

    tap: Tap
    leg: str
    greeted = False

    def send_now(self, number: int, payload: bytes) -> None:
        self.tap(self.leg, "->", number, payload)
        super().send_now(number, payload)

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        if messageNum == KEXINIT and not self.greeted:
            self.greeted = True
            self.tap(self.leg, "<-", IDENTIFICATION, self.peer_identification or b"")
        self.tap(self.leg, "<-", messageNum, payload)
        super().dispatchMessage(messageNum, payload)


class _Client(_Noted, ClientTransport):
    """The client of the user, on one of the two legs."""


class _Server(_Noted, ServerTransport):
    """The server of the target."""


class Scene(Stack):
    """A proxy, a user and a target. ``->`` in the transcript goes to the proxy, ``<-`` comes from it.

    ``shows`` is the first message number that is shown: the login, or (50 and 80) less of it. ``manners`` are
    those of the target, for each channel.
    """

    def __init__(
        self,
        codes: Codes,
        *,
        settings: dict[str, object] | None = None,
        options: dict[str, object] | None = None,
        manners: tuple[Manners, ...] = (Manners(program="sink"),),
        shows: int = 80,
        rekey_bytes: int = 1 << 30,
        password: bytes = b"",
        more_users: tuple[str, ...] = (),
    ) -> None:
        self._codes = codes
        self._shows = shows
        self._wire: list[str] = []
        #: What the user read, in order.
        self.read: list[Heard] = []
        #: Ids of requests for approval.
        self.requests: list[str] = []
        self._hidden: set[bytes] = set()
        self._describers = {
            "outer": Describer(codes.replace, hides_data=True),
            "inner": Describer(codes.replace),
            "target": Describer(codes.replace, asks=False),
            "other": Describer(codes.replace, hides_data=True),
        }
        #: Answers of the target to logins; None: as it is.
        self.target_login: Callable[[Raw], Any] | None = None
        #: Of the target's transport, in place of the usual ones.
        self.target_settings: dict[str, Any] = {}
        #: A target that is no SSH server.
        self.target_protocol: Callable[[], Any] | None = None
        settings = dict(settings or {})
        if password:
            hashed = bcrypt.hashpw(password, bcrypt.gensalt(10)).decode()
            settings["users"] = {"joe": {"password": hashed, "roles": ["all"]}}
        with codes.record_codes():
            super().__init__(
                settings=settings, options=options or {}, rekey_bytes=rekey_bytes, users=("joe", *more_users)
            )
        self._manners = manners
        self.otherwise = self._login_goes_on
        #: Answers to questions of logins, in their order; a refusal with none left ends the login.
        self.answers: list[bytes] = []
        self.user = Client(lambda number, payload: None)
        self.target = Server(lambda number, payload: None, manners)
        self.jump = Client(lambda number, payload: None)

    # --- the transcript

    def _tap(self, leg: str, arrow: str, number: int, payload: bytes) -> None:
        is_tunnel = leg == "outer" and self.tunnel is not None and number in (w.DATA, w.ADJUST, w.EOF)
        is_hidden = number == w.DATA and arrow == "<-" and payload[:4] in self._hidden
        if number == IDENTIFICATION:
            shown = f"identification {payload.decode('ascii')}"
        elif is_hidden:
            shown = f"CHANNEL_DATA channel={int.from_bytes(payload[:4], 'big')} <random>"
        else:
            shown = self._describers[leg].line(number, payload)
        is_read = arrow == "<-" and leg != "target" and not is_hidden
        if is_read and not (is_tunnel and self._is_tunnel(arrow, payload)):
            self.read += heard(leg, number, payload)
        is_shown = number >= self._shows or number == DISCONNECT
        if is_shown and not (is_tunnel and self._is_tunnel(arrow, payload)):
            self._wire.append(f"{leg:<6} {arrow} {shown}")

    def _is_tunnel(self, arrow: str, payload: bytes) -> bool:
        number = 0 if arrow == "<-" else self.tunnel.channel if self.tunnel is not None else None
        return number is not None and payload[:4] == w.u32(number)

    def show_from(self, number: int) -> None:
        """Show messages from this number on, from here on."""
        self._shows = number

    def hides(self, channel: int) -> None:
        """What the user gets on this channel has keys or signatures in it."""
        self._hidden.add(w.u32(channel))

    def note(self, text: str) -> None:
        """A line between the messages, for the reader."""
        self._wire.append(f"# {text}")

    def make_client(self, leg: str, version: bytes) -> ClientTransport:
        client = _Client(**self.client_settings(version))
        client.tap, client.leg = self._tap, leg
        return client

    def make_server(self, server: Raw) -> Any:
        if self.target_protocol is not None:
            return self.target_protocol()
        settings = self.server_settings(server) | self.target_settings
        if self.target_login is not None:
            login = self.target_login
            settings["userauth"] = lambda: login(server)
        transport = _Server(**settings)
        transport.tap, transport.leg = self._tap, "target"
        self.target = Server(server.send, self._manners)
        self.server_received = self.target.received
        return transport

    # --- steps

    def reconfigure(self, **settings: object) -> None:
        """Reload with other settings."""
        file = self.directory / "config.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))
        self.proxy.reload()
        self.settle(3)

    def set_options(self, **options: object) -> None:
        """Reload with other options of the user's role."""
        roles = {"all": {"logins": ["root"], "hosts": ["127.0.0.0/8"], "options": options}}
        self.reconfigure(roles=roles)

    def come(self, user: bytes = b"joe") -> None:
        """Connect to the proxy, and log in there."""
        super().come(user)
        assert self.outer is not None
        self.jump = Client(self.outer.send)
        self.outer_received = self.jump.received

    def log_in(self, login: bytes = b"root") -> None:
        super().log_in(login)
        if self.client is not None:
            self.user = Client(self.client.send)
            self.client_received = self.user.received

    def begin(self, host: str = TARGET.host, port: int = TARGET.port, login: bytes = b"root") -> None:
        """All that comes before the first channel of the inner connection."""
        self.come()
        self.enter(host, port)
        self.log_in(login)

    def _login_goes_on(self, login: Login, number: int, payload: bytes) -> None:
        if number == FAILURE and b"keyboard-interactive" in payload and self.answers:
            login.ask_questions()
        elif number == QUESTIONS:
            count = int.from_bytes(payload[-4:], "big") if payload.endswith(bytes(4)) else 1
            answers = [self.answers.pop(0) for _ in range(count)]
            login.transport.sendPacket(61, w.u32(count) + b"".join(map(w.text, answers)))

    def session(self, channel: int = 0) -> None:
        """The user opens a session channel."""
        self.user.open(channel, b"session", WINDOW, PACKET, b"", generous=True)
        self.settle()

    def ask(self, name: bytes, extra: bytes = b"", *, reply: bool = True, channel: int = 0) -> None:
        """A channel request of the user."""
        self.user.request(channel, w.Request(name, reply, extra))
        self.settle()

    def say(self, data: bytes, channel: int = 0) -> None:
        """Data of the user."""
        self.user.data(channel, data)
        self.settle()

    def out(self, data: bytes, *, error: bool = False, channel: int = 0) -> None:
        """Output of the target."""
        self.target.output(channel, error, data)
        self.settle()

    def exit(self, status: int = 0, channel: int = 0) -> None:
        """The target's program ends."""
        self.target.request(channel, w.Request(b"exit-status", False, w.u32(status)))
        self.target.eof(channel)
        self.target.close(channel)
        self.settle()

    def another_target(self) -> None:
        """Ask for the target again, on the same outer connection."""
        payload = w.text(TARGET.host.encode()) + w.u32(TARGET.port) + w.text(b"") + w.u32(0)
        self.jump.open(30, b"direct-tcpip", WINDOW, PACKET, payload, generous=True)
        self.settle(1)

    def command(self, line: bytes, stdin: bytes | None = None) -> None:
        """A command for the proxy itself, on the outer connection."""
        kind, extra = (b"exec", w.text(line)) if line else (b"shell", b"")
        number = self._jump_session(w.Request(kind, True, extra))
        if stdin is not None:
            self.jump.data(number, stdin)
            self.jump.eof_when_sent(number)
            self.settle(1)

    def command_of_other(self, user: bytes, command: bytes) -> None:
        """A command for the proxy by somebody else, on a connection of their own, meanwhile."""
        self.read.append(("ran", f"by {user.decode()}: {command.decode()}"))
        received: list[Client] = []
        outer = Raw(lambda number, payload: received[0].received(number, payload))
        received.append(Client(outer.send))
        line = Line(USER, PROXY)
        self.reactor.lines.append(line)
        transport = self.make_client("other", b"SSH-2.0-other")
        line.connect(transport, self.reactor.factories[0].buildProtocol(USER))
        self.pump()
        transport.request_service(Login(user, self.user_key, outer, self.otherwise))
        self.pump()
        (client,) = received
        client.open(1, b"session", WINDOW, PACKET, b"", generous=True)
        self.settle()
        client.request(1, w.Request(b"exec", True, w.text(command)))
        self.settle(1)

    def subsystem(self, name: bytes) -> None:
        """A subsystem of the outer connection."""
        self._jump_session(w.Request(b"subsystem", True, w.text(name)))

    def _jump_session(self, request: w.Request) -> int:
        argument = request.extra[4:].decode("utf-8", "backslashreplace")[:100]
        self.read.append(("ran", f"{request.name.decode('ascii')} {argument}".rstrip()))
        number = 1 + len(self.jump.channels)
        self.jump.open(number, b"session", WINDOW, PACKET, b"", generous=True)
        self.settle()
        self.jump.request(number, request)
        self.settle(1)
        return number

    def request_id(self) -> bytes:
        """Of the request for approval that the user was told of last."""
        texts = "\n".join(text for _, text in self.read)
        requests = re.findall(r"[Rr]equest ([0-9A-Z]{6}) is pending", texts)
        self.requests.append(requests[-1])
        return bytes(requests[-1], "ascii")

    # --- the golden text

    def transcript(self) -> str:
        """All that this scenario left, as one text. Ends it."""
        self.disconnect()
        self.settle(2)
        normal = Normaliser(self._codes, str(self.directory), self.requests)
        wire = [normal.wire(line) for line in self._wire]
        audit = [normal.audit(entry) for entry in self.events()]
        sealed = sorted(self.recordings.rglob("*.json"), key=lambda path: path.name)
        manifests = [normal.manifest(json.loads(path.read_bytes())) for path in sealed]
        sections = (("wire", wire), ("audit", audit), ("manifests", manifests))
        return "\n".join("\n".join((f"== {name}", *lines, "")) for name, lines in sections)
