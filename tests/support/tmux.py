"""A real terminal, for programs that paint: tmux, with what is on it and who typed what."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from tests.support.process import environment, run
from tests.support.stage import Stage
from tests.support.wait import LONG, fact


class Tmux:
    """One window. A shell runs in it, which shows everything that anybody types."""

    def __init__(self, socket: Path, columns: int, rows: int) -> None:
        self._socket = socket
        self.columns, self.rows = columns, rows

    async def command(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        """``tmux WORDS``; what it says."""
        result = await run(
            "tmux", "-f", "/dev/null", "-S", str(self._socket), *words, env=dict(env or environment())
        )
        return result.check().text

    async def begin(self, directory: Path, env: Mapping[str, str]) -> None:
        """Start a shell in a new terminal."""
        size = ("-x", str(self.columns), "-y", str(self.rows))
        # A prompt, and no more: no history, no files of the user's.
        shell = "exec env PS1='ready$ ' sh"
        await self.command("new-session", "-d", *size, "-c", str(directory), shell, env=env)
        await self.command("set", "-g", "status", "off")
        await self.command("resize-window", *size)
        await self.shows("ready$")

    async def types(self, *keys: str) -> None:
        """Keys, as tmux names them; or words, letter by letter."""
        await self.command("send-keys", *keys)

    async def runs(self, *words: str | Path) -> None:
        """A command line of the shell."""
        await self.command("send-keys", "-l", shlex.join(str(word) for word in words))
        await self.command("send-keys", "Enter")

    async def screen(self) -> list[str]:
        """What is on it, row by row."""
        result = await self.command("capture-pane", "-p")
        return [line.rstrip() for line in result.split("\n")[: self.rows]]

    async def shows(self, text: str, *, row: int | None = None, within: float = LONG) -> list[str]:
        """Wait until it stands somewhere, or in that row; the whole screen."""
        seen: list[str] = []

        def there() -> bool:
            return any(text in line for line in (seen if row is None else seen[row:][:1]))

        end = 0
        while not there():
            seen = await self.screen()
            end += 1
            assert end < within * 10, f"it does not show {text!r}:\n" + "\n".join(seen)
            if not there():
                await pause()
        return seen


async def pause() -> None:
    """Between two looks."""
    turns = iter((False, True))
    await fact(lambda: next(turns), "time goes on")


async def start_tmux(
    stage: Stage,
    directory: Path,
    *,
    columns: int = 100,
    rows: int = 30,
    env: Mapping[str, str] | None = None,
) -> Tmux:
    """A terminal of this test's own, ended with the stage."""
    tmux = Tmux(stage.short / stage.unique("tmux"), columns, rows)

    async def end() -> None:
        await tmux.command("kill-server")

    await tmux.begin(directory, env or environment())
    stage.at_end(end)
    return tmux
