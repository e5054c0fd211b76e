"""conchrec itself, as its users start it: a process of twistd, and its command."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml

from tests.support.cast import Cast, read_cast
from tests.support.ports import free_port
from tests.support.process import Process, Result, environment, run
from tests.support.wait import LONG, fact

ROOT = Path(__file__).resolve().parents[2]
Settings = Mapping[str, object]
Event = dict[str, object]

_COMMAND = "from conchrec.cli.main import run; run()"


def merged(settings: Settings, more: Settings) -> dict[str, object]:
    """``more`` on top of ``settings``, mapping by mapping; a None takes the key away."""
    result = dict(settings)
    for key, value in more.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(cast(Settings, below), cast(Settings, value))
        else:
            result[key] = value
    return result


def our_environment() -> dict[str, str]:
    """For programs that import conchrec from this clone, installed or not."""
    return environment(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")


async def conchrec(
    *arguments: str | Path, directory: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Result:
    """The console script."""
    command = (sys.executable, "-c", _COMMAND, *arguments)
    return await run(*command, env=env or our_environment(), directory=directory, stdin=stdin)


class Proxy:
    """One proxy with a directory of its own. Not running until ``start``; the same one after a restart."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        """``settings`` go on top of a configuration in which only the addresses and paths are filled in."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.host = "127.0.0.1"
        self.port = free_port()
        self.recordings_directory = directory / "recordings"
        self.audit_file = directory / "audit.jsonl"
        self.known_hosts = directory / "target_known_hosts"
        self.known_hosts.touch()
        self.config = directory / "config.yaml"
        self.settings: dict[str, object] = {}
        self.process: Process | None = None
        self.env = our_environment()
        #: What stands before its command: unshare, and the like.
        self.wrapper: tuple[str, ...] = ()
        self.configure(
            merged(
                {
                    "cluster_name": "example.com",
                    "state_dir": str(directory / "state"),
                    "listen": [f"tcp:{self.port}:interface={self.host}"],
                    "notice": "",  # stderr is compared to the byte
                    "public_address": f"{self.host}:{self.port}",
                    "trusted_hosts": {"known_hosts": [str(self.known_hosts)]},
                    "recordings": {"directory": str(self.recordings_directory), "min_free": "1MiB"},
                    "audit": {"file": str(self.audit_file)},
                    "users": {},
                    "roles": {},
                },
                settings,
            )
        )

    def configure(self, more: Settings) -> None:
        """Change the file; a running proxy is not told."""
        self.settings = merged(self.settings, more)
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def trust(self, lines: str) -> None:
        """Add known_hosts lines of targets; before the start."""
        with self.known_hosts.open("a") as file:
            file.write(lines)

    # -- the process

    @property
    def log(self) -> str:
        """Return what the process has printed."""
        assert self.process is not None
        return self.process.stdout.decode(errors="replace") + self.process.stderr.decode(errors="replace")

    async def start(self) -> None:
        """Start it, and wait until it listens. AssertionError with its log where it does not."""
        process = self.launch()

        def listens() -> bool:
            assert process.is_running, f"the proxy ended:\n{self.log}"
            with socket.socket() as probe:
                probe.settimeout(5)
                return probe.connect_ex((self.host, self.port)) == 0

        await fact(listens, lambda: f"the proxy does not listen:\n{self.log}")

    def launch(self) -> Process:
        """Start it, and do not wait."""
        twistd = Path(sys.executable).with_name("twistd")
        command = (twistd, "--nodaemon", "--pidfile=", "conchrec", "-c", self.config)
        self.process = Process((*self.wrapper, *command), env=self.env, directory=self.directory)
        return self.process

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, gently by default; nothing where it does not run."""
        if self.process is not None:
            await self.process.stop(number)

    async def restart(self, number: int = signal.SIGTERM) -> None:
        """Stop it, then start it."""
        await self.stop(number)
        await self.start()

    async def command(self, *arguments: str | Path, stdin: bytes = b"") -> Result:
        """``conchrec …`` with this configuration."""
        return await conchrec(
            *arguments, "-c", self.config, directory=self.directory, stdin=stdin, env=self.env
        )

    async def authority(self, kind: str) -> str:
        """The line that ``conchrec ca export`` gives for the user CA or the host CA."""
        return (await self.command("ca", "export", "--type", kind)).check().text

    def new_authority(self, kind: str) -> str:
        """The same, as long as there is one key of each; from the state directory, which costs nothing."""
        key = (self.directory / "state" / f"{kind}_ca.pub").read_text()
        return f"@cert-authority * {key}" if kind == "host" else key

    # -- what it leaves behind

    def casts(self) -> list[Path]:
        """All recordings, the oldest first."""
        return sorted(self.recordings_directory.rglob("*.cast"), key=lambda path: path.stem)

    def sids(self) -> frozenset[str]:
        """Return the session identifiers of all recordings."""
        return frozenset(path.stem for path in self.casts())

    async def finished(
        self, count: int, *, after: frozenset[str] = frozenset(), within: float = LONG
    ) -> list[Cast]:
        """Wait until ``count`` recordings (those of ``after`` not counted) have their manifest."""

        def look() -> list[Cast] | None:
            paths = [path for path in self.casts() if path.stem not in after]
            ready = [path for path in paths if path.with_suffix(".json").exists()]
            return [read_cast(path) for path in ready] if len(ready) == len(paths) == count else None

        return await fact(
            look, lambda: f"not {count} recordings but {self.casts()} without {after}\n{self.log}", within
        )

    async def finished_one(self, *, after: frozenset[str] = frozenset()) -> Cast:
        """Wait until one recording has its manifest."""
        (recording,) = await self.finished(1, after=after)
        return recording

    def audit(self, event: str | None = None, **fields: object) -> list[Event]:
        """All events with this name and these fields, in order."""
        if not self.audit_file.exists():
            return []
        raw = self.audit_file.read_bytes()
        events = [cast(Event, json.loads(line)) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]
        return [
            entry
            for entry in events
            if (event is None or entry["event"] == event)
            and all(entry.get(name) == value for name, value in fields.items())
        ]

    async def logged(self, *texts: str) -> None:
        """Wait until the log has all of these: it comes through a pipe, later than an audit event."""
        await fact(
            lambda: all(text in self.log for text in texts), lambda: f"not logged: {texts}:\n{self.log}"
        )

    async def audited(self, event: str, *, count: int = 1, **fields: object) -> list[Event]:
        """Wait until there are at least ``count`` such events."""

        def look() -> list[Event] | None:
            events = self.audit(event, **fields)
            return events if len(events) >= count else None

        return await fact(look, lambda: f"no {event} with {fields} in {self.audit()[-20:]}\n{self.log}")

    async def deserted(self) -> None:
        """Wait until everybody who has logged in is gone."""
        await fact(
            lambda: len(self.audit("client.disconnect")) >= len(self.audit("user.login", stage="outer")),
            lambda: f"connections are left:\n{self.log}",
        )

    def open_files(self) -> int:
        """How many descriptors the process holds."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Bytes of it that are in memory."""
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def key_exchange_helper(self) -> int:
        """The pid of its helper process for key exchanges, which it has soon after it listens."""
        return await fact(self._key_exchange_helper, lambda: f"it has no helper:\n{self.log}")

    def _key_exchange_helper(self) -> int:
        assert self.process is not None
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                if b"kex_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
            except FileNotFoundError:
                continue
        return 0
