"""A stock OpenSSH user who goes through the proxy, in each of the ways that the README names."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.support.agent import Agent
from tests.support.keys import Key
from tests.support.process import Process, Result, environment, run
from tests.support.proxy import Proxy
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage
from tests.support.wait import LONG


class AccessMethod(Enum):
    """How the user reaches the target, and whose credentials the proxy uses there."""

    INNER_AGENT = "ssh -A -J proxy"
    OUTER_AGENT = "ssh -J proxy, ForwardAgent yes for the proxy"
    SUBSYSTEM = "ProxyCommand ssh -s proxy:%h:%p"
    CERTIFICATE = "ssh -J proxy, no agent, the target trusts the user CA"

    @property
    def agent(self) -> bool:
        """Tell whether the user has an agent."""
        return self is not AccessMethod.CERTIFICATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a key; with an agent that holds it, or without."""

    name: str
    key: Key
    agent: Agent | None = None


@dataclass(kw_only=True)
class Client:
    """An ssh_config in which ``web1`` is the target and ``proxy`` the proxy, and the programs that use it."""

    stage: Stage
    config: Path
    env: dict[str, str]
    forward: bool
    """The agent comes with the inner connection: ``-A`` at each program."""

    @property
    def options(self) -> tuple[str, ...]:
        """Of ssh, scp and sftp."""
        return ("-F", str(self.config), *(["-A"] if self.forward else []))

    @property
    def shell_command(self) -> str:
        """``ssh`` with these options, for rsync and git."""
        return " ".join(("ssh", *self.options))

    async def ssh(
        self,
        *arguments: str,
        stdin: bytes | Path = b"",
        stdout: Path | None = None,
        within: float = LONG,
    ) -> Result:
        """``ssh ARGUMENTS``, the host among them."""
        return await self.program("ssh", *self.options, *arguments, stdin=stdin, stdout=stdout, within=within)

    async def time_of_session(self) -> int:
        """Whole seconds in which a session certainly starts, as slow as this machine is now."""
        start = time.monotonic()
        (await self.ssh("web1", "true")).check()
        return math.ceil(1 + 2 * (time.monotonic() - start))

    async def program(
        self,
        name: str,
        *arguments: str | Path,
        stdin: bytes | Path = b"",
        stdout: Path | None = None,
        within: float = LONG,
    ) -> Result:
        """Any program in this user's environment."""
        return await run(name, *arguments, env=self.env, stdin=stdin, stdout=stdout, within=within)

    def start(
        self, *arguments: str, stdin: bytes | Path | None = None, terminal: tuple[int, int] | None = None
    ) -> Process:
        """``ssh ARGUMENTS`` that goes on; ended with the stage."""
        return self.stage.process(
            "ssh", *self.options, *arguments, env=self.env, stdin=stdin, terminal=terminal
        )


def make_client(
    stage: Stage,
    proxy: Proxy,
    target: Sshd,
    person: Person,
    method: AccessMethod,
    *,
    authority: str = "",
    host: str = "localhost",
    port: int | None = None,
    login: str = LOGIN,
    more: str = "",
    inner: str = "",
    inner_person: Person | None = None,
) -> Client:
    """``authority``: the @cert-authority line of the proxy. ``host`` and ``port`` of the target as the user
    asks for it. ``more``: lines for every host, which win; ``inner``: lines for the target alone;
    ``inner_person``: whose key file is used there, where it is not the same person's."""
    name = stage.unique("client")
    config = stage.path(f"{name}/ssh_config")
    known = stage.file(f"{name}/known_hosts", authority)
    if method is AccessMethod.SUBSYSTEM:
        through = f"ProxyCommand ssh -F {config} -o ForwardAgent=yes proxy -s proxy:%h:%p"
    else:
        through = "ProxyJump proxy"
    config.write_text(
        f"""{more}
Host proxy
    HostName {proxy.host}
    Port {proxy.port}
    User {person.name}
    IdentityFile {_identity(person)}
    ForwardAgent {"yes" if method is AccessMethod.OUTER_AGENT else "no"}
Host web1
    HostName {host}
    Port {port or target.port}
    User {login}
    IdentityFile {_identity(inner_person or person)}
    {through}
{inner}
Host *
    UserKnownHostsFile {known}
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    BatchMode yes
    ServerAliveInterval 0
"""
    )
    agent = {"SSH_AUTH_SOCK": str(person.agent.socket)} if person.agent is not None else {}
    return Client(
        stage=stage, config=config, env=environment(**agent), forward=method is AccessMethod.INNER_AGENT
    )


def _identity(person: Person) -> str:
    return "none" if person.agent is not None else str(person.key.path)
