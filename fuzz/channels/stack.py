"""The whole proxy between a raw client and an instrumented server, in memory.

Everything between the two is the real thing: the service made from a configuration file, its listener's
factory, the login, the tunnel, the inner server, sessions, relays, the recording store, the audit log and
the connection to the target. Only sockets, threads and processes are replaced (``memory``).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from conchrec.config.loader import load
from conchrec.service.pools import Pools
from conchrec.service.proxy import Proxy
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.transport import ClientTransport, ServerTransport
from fuzz.channels.ends import Login, Raw, Received, Tunnel, Welcome, must_succeed
from fuzz.channels.memory import PROXY, TARGET, USER, InlinePool, Line, Reactor
from fuzz.limits import Broken
from fuzz.targets.linked import FAST
from tests.support.powers import at_once

#: Deliveries without an end are a fault. 100 kB to a server that takes 7 bytes in a packet are 15,000
#: messages, of which a turn handles some.
ROUNDS = 200_000


class Stack:
    """A running proxy. ``settings`` go into its configuration, ``options`` into the role of its user.

    ``connect`` makes a connection of the user to the target: what the client receives goes to
    ``client_received``, what the server receives to ``server_received``, and what the client receives on the
    outer connection besides the tunnel to ``outer_received``. ``come``, ``enter`` and ``log_in`` are its
    steps.
    """

    def __init__(
        self,
        *,
        settings: dict[str, object],
        options: dict[str, object],
        rekey_bytes: int = 1 << 30,
        users: tuple[str, ...] = ("joe",),
    ) -> None:
        self._rekey_bytes = rekey_bytes
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="conchrec-channels-", dir=base))
        key = self.user_key = ed25519.Ed25519PrivateKey.generate()
        self._host_keys = ServerHostKeys(ed25519.Ed25519PrivateKey.generate(), None)
        self.recordings = self.directory / "recordings"
        self.audit = self.directory / "audit.jsonl"
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        recordings: dict[str, object] = {"directory": str(self.recordings), "min_free": 0, "fsync": "never"}
        config: dict[str, object] = {
            "cluster_name": "example.com",
            "state_dir": str(self.directory / "state"),
            "listen": [f"tcp:{PROXY.port}:interface={PROXY.host}"],
            "notice": "",
            "public_address": f"{PROXY.host}:{PROXY.port}",
            "proxy_checks_host_keys": False,
            "inner_auth": "tunnel",
            "upstream_auth": ["certificate"],
            "recordings": recordings,
            "audit": {"file": str(self.audit)},
            "users": {name: {"authorized_keys": [line], "roles": ["all"]} for name in users},
            "roles": {"all": {"logins": ["root"], "hosts": ["127.0.0.0/8"], "options": options}},
        }
        for name, value in settings.items():
            known = config.get(name)
            config[name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
        file = self.directory / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        self.reactor = Reactor(self._accept)
        self.server_received: Received = lambda number, payload: None
        self.client_received: Received = lambda number, payload: None
        self.outer_received: Received = lambda number, payload: None
        self.proxy = self._proxy(file)
        self.proxy.privilegedStartService()
        self.client: Raw | None = None
        self.server: Raw | None = None
        self.outer: Raw | None = None
        #: What is neither a success nor a banner, in the outer and the inner login.
        self.otherwise: Callable[[Login, int, bytes], None] = must_succeed
        self.transports: tuple[Any, Any] | None = None
        self.tunnel: Tunnel | None = None
        self._audited = 0
        #: Sessions have ids that sort as they were opened.
        self._now = datetime.now(timezone.utc)

    def _proxy(self, file: Path) -> Any:
        """The service, with our threads and our clock."""
        pools = Pools(self.reactor, cast(Any, InlinePool))
        return Proxy(load(file), self.reactor, pools=pools, now=self._tick)

    def _tick(self) -> datetime:
        self._now = getattr(self, "_now", datetime.now(timezone.utc)) + timedelta(microseconds=1)
        return self._now

    @property
    def now(self) -> datetime:
        """The time that the proxy last read. It goes on by a microsecond at each look."""
        return self._now

    # --- connections

    @property
    def connected(self) -> bool:
        """Tell whether both inner connections run."""
        ends = (self.client, self.server)
        return all(end is not None and end.transport is not None for end in ends)

    @property
    def alive(self) -> bool:
        """Neither end has begun to leave."""
        return self.connected and not any(end is None or end.is_over for end in self.transports or (None,))

    def connect(self) -> None:
        """Log in, through the proxy, at the target."""
        self.come()
        self.enter(TARGET.host, TARGET.port)
        if self.tunnel is None or self.tunnel.refused is not None:
            raise Broken(f"the proxy refused the tunnel: {self.tunnel and self.tunnel.refused!r}")
        self.log_in(b"root")
        if not self.connected:
            raise Broken(f"no connection: {self.events()}")

    def come(self, user: bytes = b"joe") -> None:
        """Connect to the proxy, and log in there."""
        self.disconnect()
        self.reactor.lines.clear()
        self.tunnel = None
        outer = self.outer = Raw(self._outer_received)
        line = Line(USER, PROXY)
        self.reactor.lines.append(line)
        transport = self.make_client("outer", b"SSH-2.0-outer")
        line.connect(transport, self.reactor.factories[0].buildProtocol(USER))
        self.pump()
        transport.request_service(Login(user, self.user_key, outer, self.otherwise))
        self.pump()

    def _outer_received(self, number: int, payload: bytes) -> None:
        if self.tunnel is None or not self.tunnel.takes(number, payload):
            self.outer_received(number, payload)

    def enter(self, host: str, port: int) -> None:
        """Ask for the target, as ``ssh -J`` does."""
        assert self.outer is not None
        if self.tunnel is not None:
            self.tunnel.cut()
        tunnel = self.tunnel = Tunnel(self.outer)
        tunnel.protocol = self.make_client("inner", b"SSH-2.0-OpenSSH_inner")
        tunnel.open(host, port)
        self.pump()

    def log_in(self, login: bytes) -> None:
        """The inner login, and the target's."""
        assert self.tunnel is not None
        client = self.client = Raw(lambda number, payload: self.client_received(number, payload))
        inner = self.tunnel.protocol
        inner.request_service(Login(login, None, client, self.otherwise))
        for _ in range(20):
            self.pump()
            self.reactor.advance(0.05)
            if self.connected:
                break
        self.transports = (inner, self.server.transport if self.server else None)

    def make_client(self, leg: str, version: bytes) -> ClientTransport:
        """The user's end of the outer or the inner connection."""
        return ClientTransport(**self.client_settings(version))

    def make_server(self, server: Raw) -> Any:
        """The target's end of its connection with the proxy: a protocol."""
        return ServerTransport(**self.server_settings(server))

    def client_settings(self, version: bytes) -> dict[str, Any]:
        """Return the arguments of a client transport."""
        return {
            "algorithms": FAST,
            "powers": at_once,
            "verify_host_key": lambda blob: None,
            "host_key_algorithms": (b"ssh-ed25519-cert-v01@openssh.com", b"ssh-ed25519"),
            "identification": version,
            "clock": self.reactor,
            "rekey_bytes": self._rekey_bytes,
        }

    def server_settings(self, server: Raw) -> dict[str, Any]:
        """Return the arguments of a server transport."""
        return {
            "identification": b"SSH-2.0-OpenSSH_9.2p1",
            "host_keys": self._host_keys,
            "algorithms": FAST,
            "powers": at_once,
            "userauth": lambda: Welcome(server),
            "clock": self.reactor,
            "rekey_bytes": self._rekey_bytes,
        }

    def _accept(self) -> Any:
        server = self.server = Raw(lambda number, payload: self.server_received(number, payload))
        return self.make_server(server)

    def disconnect(self) -> None:
        """The user is gone."""
        for line in self.reactor.lines:
            line.cut()
        if self.tunnel is not None:
            self.tunnel.cut()
        self.settle()
        self.client = self.server = self.transports = None

    # --- time

    def pump(self) -> None:
        """Deliver until nobody has anything to say."""
        for _ in range(ROUNDS):
            moved = False
            for line in tuple(self.reactor.lines):
                for end in (line.near, line.far):
                    moved |= line.deliver(end)
                moved |= line.close_finished()
            if self.reactor.due:
                self.reactor.advance(0)
                moved = True
            if not moved:
                return
        raise Broken("deliveries do not come to an end")

    def up(self, most: int = 0) -> None:
        """Deliver what the client has sent to the proxy, and no more; ``most`` bytes of it."""
        line = self.reactor.lines[0]
        line.deliver(line.near, most)

    def down(self, most: int = 0) -> None:
        """Deliver what the server has sent to the proxy, and no more."""
        for line in self.reactor.lines[1:]:
            line.deliver(line.far, most)

    def settle(self, seconds: float = 0.2) -> None:
        """Let time pass, and deliver."""
        self.pump()
        for _ in range(4):
            self.reactor.advance(seconds / 4)
            self.pump()

    # --- what the proxy leaves behind

    def events(self) -> list[dict[str, Any]]:
        """What was audited since the last call."""
        if not self.audit.exists():
            return []
        with self.audit.open("rb") as file:
            file.seek(self._audited)
            data = file.read()
        self._audited += len(data)
        return [json.loads(line) for line in data.splitlines()]

    def sids(self) -> list[str]:
        """The recordings that are there, the oldest first."""
        return sorted(path.stem for path in self.recordings.rglob("*.cast"))

    def recording(self, sid: str) -> tuple[list[Any], dict[str, Any] | None]:
        """The lines of a cast, and its manifest if it is sealed."""
        (path,) = self.recordings.rglob(f"{sid}.cast")
        sealed = path.with_suffix(".json")
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return lines, json.loads(sealed.read_bytes()) if sealed.exists() else None

    def forget(self) -> None:
        """Remove the recordings, and the audit log that was read."""
        for path in self.recordings.rglob("*.*"):
            if path.suffix in (".cast", ".json"):
                path.unlink()

    def close(self) -> None:
        """Disconnect, and remove the directory."""
        self.disconnect()
        shutil.rmtree(self.directory, ignore_errors=True)
