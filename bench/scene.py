"""A target and the two ways to it: through conchrec, which records, and a stock sshd, which does not.

Both are ``ssh -J`` with the same client, key and agent; both servers in the middle are their own processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bench.meter import cpu_of_family, resident
from tests.support.client import AccessMethod
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
#: The longest that one transfer may take.
PATIENCE = 3600.0
#: A server that has used no CPU for so long has nothing to do.
CALM = 0.3


class Route:
    """One way to the target. ``options`` are words of ssh, scp and sftp alike."""

    def __init__(
        self, name: str, stage: Stage, options: Sequence[str], env: dict[str, str], middle: Process
    ) -> None:
        self.name = name
        self.options = tuple(options)
        self.env = env
        self._stage = stage
        self._middle = middle

    @property
    def pid(self) -> int:
        """Of the server in the middle."""
        return self._middle.pid

    @property
    def cpu(self) -> float:
        """Seconds that the server in the middle has used, with the processes that it has for its users."""
        return cpu_of_family(self.pid)

    @property
    def memory(self) -> int:
        """Return the resident memory of the process in the middle, in bytes."""
        return resident(self.pid)

    def command(self, *words: str) -> list[str]:
        """``ssh HOST WORDS``; options may come before the host's name: ``command("-tt", HOST)``."""
        return ["ssh", *self.options, *words]

    async def ssh(
        self, *words: str, stdin: bytes | Path = b"", stdout: Path | None = None, well: bool = True
    ) -> Result:
        """Run it to its end; with ``well`` anything but exit 0 is an AssertionError."""
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
        """An ssh that goes on; ended with the stage."""
        process = Process(self.command(*words), env=self.env, stdin=stdin, stdout=stdout)
        self._stage.at_end(process.stop)
        return process

    async def keep_open(self) -> None:
        """Log in once; all that follows goes through that connection (ControlMaster)."""
        control = self._stage.short / self._stage.unique("control")
        shared = ("-o", f"ControlPath={control}")
        master = self.start("-N", "-M", *shared, HOST)
        await fact(lambda: control.is_socket() or not master.is_running, lambda: f"no login:\n{master}")
        assert master.is_running, f"no login:\n{master}"
        self.options = (*self.options, *shared)

    async def settled(self) -> None:
        """Wait until everybody has gone, and nothing is left to be done for them."""
        raise NotImplementedError

    async def tidy(self) -> None:
        """Wait until all that was done is written down, and remove that: the next one finds the same."""
        raise NotImplementedError

    async def calm(self) -> None:
        """Wait until it does nothing, though somebody may be connected."""
        before = -1.0
        while (now := self.cpu) != before:
            before = now
            await deferLater(cast(IReactorTime, reactor), CALM)


class Tunnel(Route):
    """The yardstick: nothing is recorded, nothing is asked."""

    async def settled(self) -> None:
        """Wait until no connection is left."""
        await fact(lambda: not descendants(self.pid), "connections are left on the sshd in the middle")

    async def tidy(self) -> None:
        """Nothing is written."""


class Recorded(Route):
    """Through conchrec."""

    def __init__(self, name: str, house: House, method: AccessMethod) -> None:
        client = house.client(method)
        assert house.proxy.process is not None
        super().__init__(name, house.stage, client.options, client.env, house.proxy.process)
        self._house = house

    async def settled(self) -> None:
        """Wait until no connection and no unfinished recording is left."""
        proxy = self._house.proxy

        def done() -> bool:
            return len(proxy.audit("client.disconnect")) >= len(proxy.audit("user.login", stage="outer"))

        await fact(done, lambda: f"connections are left on the proxy:\n{proxy.log}")
        await self.tidy()

    async def tidy(self) -> None:
        """A recording is complete when it has its manifest."""
        casts = self._house.proxy.casts()
        for path in casts:
            await fact(path.with_suffix(".json").exists, f"{path} is not finished", PATIENCE)
        for path in casts:
            path.with_suffix(".json").unlink()
            path.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Both ways, ready to be used."""

    house: House
    ours: Recorded
    yardstick: Tunnel
    jump: Sshd
    """The yardstick's server in the middle."""

    @property
    def routes(self) -> tuple[Route, Route]:
        """In the order in which they are measured; rounds turn it around."""
        return (self.yardstick, self.ours)

    def turn(self, number: int) -> tuple[Route, Route]:
        """For round ``number``: who is first changes, for the first one warms what the second one uses."""
        first, second = self.routes
        return (first, second) if number % 2 == 0 else (second, first)

    def ours_by(self, method: AccessMethod) -> Recorded:
        """Another way in through the same proxy."""
        return Recorded(f"conchrec, {method.value}", self.house, method)


async def make_scene(
    stage: Stage,
    *,
    sshd: Sequence[str] = (),
    crowd: bool = False,
    settings: Settings | None = None,
    listen: Sequence[str] = (),
    exchange: str = CURVE25519,
) -> Scene:
    """``settings``: of the proxy, on top of its configuration; ``listen``: its further endpoints. ``sshd``:
    lines for the target and for the one in the middle. ``crowd``: the yardstick's sshds take more handshakes
    at once than a stock one does (MaxStartups), which would drop some of them. ``exchange``: the key exchange
    that the target offers. Its default is the same with every version of OpenSSH; sntrup761 is measured
    apart."""
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
