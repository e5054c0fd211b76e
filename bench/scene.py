"""A target and two routes to it: through conchrec, which records, and through a stock sshd, which does not.

Both are ``ssh -J`` with the same client, key and agent. Each server in the middle is a process of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bench.meter import cpu_of_family, resident
from tests.support.client import AccessMethod, Person
from tests.support.house import House, build
from tests.support.process import Process, Result, descendants, environment, run
from tests.support.proxy import Settings
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage
from tests.support.wait import fact, reactor

HOST = "web1"
PROMPT = "bench> "
CURVE25519 = "curve25519-sha256"
SNTRUP761 = "sntrup761x25519-sha512@openssh.com"
#: Seconds that one transfer may take.
PATIENCE = 3600.0
#: A server that used no CPU for this many seconds is idle.
CALM = 0.3

R = TypeVar("R", bound="Route")


class Route(ABC):
    """One route to the target. ``options`` are arguments of ssh, scp and sftp."""

    def __init__(
        self, name: str, stage: Stage, options: Sequence[str], env: dict[str, str], middle: Process
    ) -> None:
        self.name = name
        self.options = tuple(options)
        self.env = env
        self._stage = stage
        self._middle = middle
        self._master: Process | None = None

    @property
    def pid(self) -> int:
        """Return the process id of the server in the middle."""
        return self._middle.pid

    @property
    def cpu(self) -> float:
        """Return the CPU seconds of the server in the middle, with those of its child processes."""
        return cpu_of_family(self.pid)

    @property
    def memory(self) -> int:
        """Return the resident memory of the process in the middle, in bytes."""
        return resident(self.pid)

    def command(self, *words: str) -> list[str]:
        """Return the command ``ssh OPTIONS WORDS``; the host is a word: ``command("-tt", HOST)``."""
        return ["ssh", *self.options, *words]

    async def ssh(
        self, *words: str, stdin: bytes | Path = b"", stdout: Path | None = None, well: bool = True
    ) -> Result:
        """Run ssh to its end; ``well``: raise AssertionError unless it exits with 0."""
        return await self.program("ssh", *words, stdin=stdin, stdout=stdout, well=well)

    async def program(
        self,
        name: str,
        *words: str | Path,
        stdin: bytes | Path = b"",
        stdout: Path | None = None,
        well: bool = True,
    ) -> Result:
        """Run a program through this route."""
        done = await run(
            name, *self.options, *words, env=self.env, stdin=stdin, stdout=stdout, within=PATIENCE
        )
        return done.check() if well else done

    def start(self, *words: str, stdout: Path | None = None, stdin: bytes | None = b"") -> Process:
        """Start ssh; the stage ends it."""
        process = Process(self.command(*words), env=self.env, stdin=stdin, stdout=stdout)
        self._stage.at_end(process.stop)
        return process

    async def keep_open(self) -> None:
        """Log in; from now on all commands use this connection (ControlMaster), until ``close``."""
        control = self._stage.short / self._stage.unique("control")
        shared = ("-o", f"ControlPath={control}")
        master = self.start("-N", "-M", *shared, HOST)
        await fact(lambda: control.is_socket() or not master.is_running, lambda: f"no login:\n{master}")
        assert master.is_running, f"no login:\n{master}"
        self._master = master
        self.options = (*self.options, *shared)

    async def close(self) -> None:
        """Close the connection that ``keep_open`` opened."""
        assert self._master is not None, "keep_open was not called"
        await self._master.stop()
        self._master = None
        self.options = self.options[:-2]

    def with_client(self: R, line: str) -> R:
        """Return a route whose client has a line of ssh_config for all its connections, before the others.

        An option of the command line would not reach the ssh that ``-J`` starts.
        """
        flag, config, *options = self.options
        assert flag == "-F"
        text = f"Host *\n    {line}\n{Path(config).read_text()}"
        route = copy(self)
        path = self._stage.file(f"{self._stage.unique('ssh_config')}/config", text)
        route.options = (flag, str(path), *options)
        return route

    @abstractmethod
    async def settled(self) -> None:
        """Wait until no connection is left, and no work for former ones."""

    @abstractmethod
    async def tidy(self) -> None:
        """Wait until all recordings are complete, and remove them, so that all rounds start alike."""

    async def calm(self) -> None:
        """Wait until the server in the middle is idle; clients may be connected."""
        before = -1.0
        while (now := self.cpu) != before:
            before = now
            await deferLater(cast(IReactorTime, reactor), CALM)


class Tunnel(Route):
    """The yardstick, through a stock sshd. It does not record."""

    async def settled(self) -> None:
        """Wait until no connection is left."""
        await fact(lambda: not descendants(self.pid), "connections are left on the sshd in the middle")

    async def tidy(self) -> None:
        """Do nothing: there are no recordings."""


class Recorded(Route):
    """The route through conchrec; ``person``: the user, if not the house's joe."""

    def __init__(self, name: str, house: House, method: AccessMethod, person: Person | None = None) -> None:
        client = house.client(method, person=person)
        assert house.proxy.process is not None
        super().__init__(name, house.stage, client.options, client.env, house.proxy.process)
        self._house = house

    async def settled(self) -> None:
        """Wait until no connection and no unfinished recording is left."""
        proxy = self._house.proxy

        def done() -> bool:
            return len(proxy.audit("client.disconnect")) >= len(proxy.audit("user.login", stage="outer"))

        await fact(done, lambda: f"connections are left on the proxy:\n{proxy.log}")
        await self._finished()

    async def tidy(self) -> None:
        """Wait for the manifest of each recording, and remove both."""
        for path in await self._finished():
            path.with_suffix(".json").unlink()
            path.unlink()

    async def _finished(self) -> list[Path]:
        """Wait for the manifest of each recording. Return the recordings."""
        casts = self._house.proxy.casts()
        for path in casts:
            await fact(path.with_suffix(".json").exists, f"{path} is not finished", PATIENCE)
        return casts


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Both routes."""

    house: House
    ours: Recorded
    yardstick: Tunnel
    jump: Sshd
    """The yardstick's server in the middle."""

    @property
    def routes(self) -> tuple[Route, Route]:
        """Return both routes, in the order of the first round."""
        return (self.yardstick, self.ours)

    def turn(self, number: int) -> tuple[Route, Route]:
        """Return both routes in the order of a round; it changes, as the first route warms caches."""
        first, second = self.routes
        return (first, second) if number % 2 == 0 else (second, first)

    def ours_by(self, method: AccessMethod) -> Recorded:
        """Return another route through the same proxy."""
        return Recorded(f"conchrec, {method.value}", self.house, method)

    def with_client(self, line: str) -> Scene:
        """Return a scene whose clients have a line of ssh_config for all their connections."""
        return replace(self, ours=self.ours.with_client(line), yardstick=self.yardstick.with_client(line))


async def make_scene(
    stage: Stage,
    *,
    sshd: Sequence[str] = (),
    crowd: bool = False,
    settings: Settings | None = None,
    listen: Sequence[str] = (),
    exchange: str = CURVE25519,
) -> Scene:
    """Start the servers.

    ``settings``: added to the proxy's configuration. ``listen``: further endpoints of the proxy. ``sshd``:
    lines for the target and for the sshd in the middle. ``crowd``: the yardstick's sshds accept more
    handshakes at once (MaxStartups) than a stock one, which would drop some. ``exchange``: the key exchange
    that the target offers. Its default is the same with every version of OpenSSH; sntrup761 is measured
    apart.
    """
    of_target = [*sshd, f"KexAlgorithms {exchange}"]
    house = await build(stage, sshd=of_target, settings=settings, listen=listen)
    many = ["MaxStartups 1000"] if crowd else []
    joe = house.joe
    jump = await stage.sshd(users=[joe.key], more=[*sshd, *many])
    target = await stage.sshd(users=[joe.key], more=[*of_target, *many]) if crowd else house.target
    for server in {house.target.directory, target.directory}:
        server.joinpath("home", ".profile").write_text(f"PS1='{PROMPT}'\n")
    known = stage.file("yardstick/known_hosts", jump.known_as() + target.known_as())
    config = stage.file(
        "yardstick/ssh_config",
        f"""Host jump
    HostName 127.0.0.1
    Port {jump.port}
Host {HOST}
    HostName localhost
    Port {target.port}
    ProxyJump jump
Host *
    User {LOGIN}
    IdentityFile none
    UserKnownHostsFile {known}
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    BatchMode yes
    ServerAliveInterval 0
""",
    )
    assert joe.agent is not None
    env = environment(SSH_AUTH_SOCK=str(joe.agent.socket))
    yardstick = Tunnel("ssh -J sshd", stage, ("-F", str(config)), env, jump.process)
    return Scene(
        house=house,
        ours=Recorded("conchrec", house, AccessMethod.INNER_AGENT),
        yardstick=yardstick,
        jump=jump,
    )
