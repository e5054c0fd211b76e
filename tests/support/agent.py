"""A stock ssh-agent."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from tests.support.keys import Key
from tests.support.process import Process, Result, environment, run


@dataclass(kw_only=True)
class Agent:
    """A running agent; ``socket`` is for SSH_AUTH_SOCK."""

    socket: Path
    process: Process

    async def add(self, key: Key, *options: str) -> None:
        """Load a key, and the certificate beside it; options as of ssh-add."""
        (await self._add(*options, str(key.path))).check()

    async def forget(self) -> None:
        """It holds nothing any more."""
        (await self._add("-D")).check()

    async def lines(self) -> list[str]:
        """What it holds, as of ``ssh-add -L``."""
        result = await self._add("-L")
        return result.check().text.splitlines() if result.code != 1 else []

    async def stop(self) -> None:
        """End the agent."""
        await self.process.stop()

    async def _add(self, *arguments: str) -> Result:
        return await run("ssh-add", *arguments, env=environment(SSH_AUTH_SOCK=str(self.socket)))


async def start_agent(socket: Path, *keys: Key) -> Agent:
    """Start one that holds ``keys``; the path of the socket has to be a short one."""
    process = Process(["ssh-agent", "-D", "-a", socket])
    agent = Agent(socket=socket, process=process)
    try:
        # The socket is there a moment before anybody listens on it; it says so when it does.
        await process.says("SSH_AUTH_SOCK")
        for key in keys:
            await agent.add(key)
    except BaseException:
        await process.stop(signal.SIGKILL)
        raise
    return agent
