"""What one test has started, all of it ended in the reverse order whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.support.agent import Agent, start_agent
from tests.support.keys import Key, make_key
from tests.support.process import Process
from tests.support.sshd import Sshd, start_sshd


class Stage:
    """Starts programs and ends them. ``short`` is a directory for sockets, whose paths must be short."""

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory
        self.short = Path(tempfile.mkdtemp(prefix="cr-"))
        self._ends: list[Callable[[], Awaitable[None]]] = []
        self._count = 0

    def path(self, name: str) -> Path:
        """A path of this test's own; the directory exists."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def file(self, name: str, contents: str | bytes) -> Path:
        """A file with these contents."""
        path = self.path(name)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        return path

    def at_end(self, end: Callable[[], Awaitable[None]]) -> None:
        """Call this when the test has ended; what came last is called first."""
        self._ends.append(end)

    def unique(self, name: str) -> str:
        """Return the name with the next number."""
        self._count += 1
        return f"{name}{self._count}"

    def process(
        self,
        *command: str | Path,
        env: dict[str, str] | None = None,
        stdin: bytes | Path | None = b"",
        terminal: tuple[int, int] | None = None,
    ) -> Process:
        """A program of this test's; see Process."""
        process = Process(command, env=env, stdin=stdin, terminal=terminal)
        self.at_end(process.stop)
        return process

    async def key(self, name: str = "key", kind: str = "ed25519") -> Key:
        """Make a key pair."""
        return await make_key(self.path(f"keys/{self.unique(name)}"), kind)

    async def sshd(
        self,
        *,
        users: Sequence[Key] = (),
        host_keys: Sequence[Key] = (),
        user_authority: Path | None = None,
        port: int | None = None,
        more: Sequence[str] = (),
        sftp: bool = True,
    ) -> Sshd:
        """A target; with an ed25519 host key of its own where none is given."""
        sshd = await start_sshd(
            self.path(self.unique("sshd")),
            host_keys=host_keys or [await self.key("host")],
            users=users,
            user_authority=user_authority,
            port=port,
            more=more,
            sftp=sftp,
        )
        self.at_end(sshd.stop)
        return sshd

    async def agent(self, *keys: Key) -> Agent:
        """Start an agent with these keys."""
        agent = await start_agent(self.short / self.unique("agent"), *keys)
        self.at_end(agent.stop)
        return agent

    async def close(self) -> None:
        """End everything; the first failure is raised after that."""
        failures: list[BaseException] = []
        while self._ends:
            try:
                await self._ends.pop()()
            except Exception as error:
                failures.append(error)
        shutil.rmtree(self.short, ignore_errors=True)
        if failures:
            raise failures[0]
