"""Programs, started on the reactor, with all that they say kept and an end by their own process id."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.process import Process as Piped
from twisted.internet.process import PTYProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.support.wait import LONG, TookTooLong, fact, in_time, reactor

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
PATH = os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), *SBIN])


def environment(**more: str) -> dict[str, str]:
    """What every program of the tests gets: no agent, no language and no configuration of the caller's."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"PATH": PATH, "LC_ALL": "C.UTF-8", "TERM": "xterm", **more}


def program(name: str) -> str:
    """The absolute path of a program; AssertionError tells how to get it."""
    for directory in PATH.split(os.pathsep):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise AssertionError(f"no {name} on this machine: run tests/prepare")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a program ended. ``code`` is None where a signal ended it."""

    command: tuple[str, ...]
    stdout: bytes
    stderr: bytes
    code: int | None
    signal: int | None

    def check(self) -> Result:
        """Itself, where it ended well; AssertionError with all that it said otherwise."""
        assert self.code == 0, str(self)
        return self

    @property
    def text(self) -> str:
        """Return the standard output as text."""
        return self.stdout.decode()

    @property
    def errors(self) -> str:
        """Return the standard error as text."""
        return self.stderr.decode(errors="replace")

    def __str__(self) -> str:
        ended = f"exit {self.code}" if self.signal is None else f"signal {self.signal}"
        output = self.stdout[-2000:].decode(errors="replace")
        return f"{' '.join(self.command)}\n-- {ended}\n-- stdout: {output}\n-- stderr: {self.errors[-8000:]}"


class _Listener(ProcessProtocol):
    def __init__(self, process: Process) -> None:
        self._process = process

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._process.heard(childFD, data)

    def processExited(self, reason: Failure) -> None:
        self._process.exited = True

    def processEnded(self, reason: Failure) -> None:
        self._process.ended(reason)


class Process:
    """A running program. Its output is in ``stdout`` and ``stderr`` (on a terminal all is in ``stdout``)."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stdin: bytes | Path | None = b"",
        stdout: Path | None = None,
        terminal: tuple[int, int] | None = None,
        raw: bool = False,
    ) -> None:
        """``stdin``: bytes and then EOF; a file; or None, and then ``write`` and ``close_input`` are used.
        ``terminal``: columns and rows of one that the program gets as its own; ``raw``: bytes go through it
        as they are, from the start."""
        words = [str(word) for word in command]
        self.command = (program(words[0]) if "/" not in words[0] else words[0], *words[1:])
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.exited = False
        """It runs no more; its output may still be open, where something that it started has that."""
        self._failure: Failure | None = None
        self._waiting: list[Deferred[None]] = []
        self._main = -1
        with ExitStack() as files:
            children: dict[int, int | str] | None = None
            terminals: bool | tuple[int, int, str] = False
            if terminal is None:
                children = {0: "w", 1: "r", 2: "r"}
                if isinstance(stdin, Path):
                    children[0] = files.enter_context(stdin.open("rb")).fileno()
                if stdout is not None:
                    children[1] = files.enter_context(stdout.open("wb")).fileno()
            else:
                self._main, secondary = os.openpty()
                if raw:
                    tty.setraw(secondary)
                _size(self._main, *terminal)
                terminals = (self._main, secondary, os.ttyname(secondary))
            transport = reactor.spawnProcess(
                _Listener(self),
                self.command[0],
                list(self.command),
                env=dict(environment() if env is None else env),
                path=str(directory) if directory else None,
                usePTY=cast(bool, terminals),
                childFDs=children,
            )
        self._transport = cast("Piped | PTYProcess", transport)
        self.pid = int(transport.pid or 0)
        if isinstance(stdin, bytes) and terminal is None:
            if stdin:
                self.write(stdin)
            self.close_input()

    # -- what the program says

    def heard(self, descriptor: int, data: bytes) -> None:
        """Keep output."""
        (self.stderr if descriptor == 2 else self.stdout).extend(data)

    def ended(self, reason: Failure) -> None:
        """Keep how the process ended, and tell everyone who waits."""
        self._failure = reason
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    # -- what we do with it

    @property
    def is_running(self) -> bool:
        """Tell whether the process, or something that has its output, still runs."""
        return self._failure is None

    def write(self, data: bytes) -> None:
        """To its standard input, or typed at its terminal."""
        self._transport.write(data)

    def close_input(self) -> None:
        """Close its standard input."""
        self._transport.closeStdin()  # type: ignore[no-untyped-call]

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's window has another size now; the kernel tells the program."""
        _size(self._main, columns, rows)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this one process; nothing where it has ended."""
        try:
            self._transport.signalProcess(int(number))  # type: ignore[no-untyped-call]
        except ProcessExitedAlready:
            pass

    async def says(self, text: bytes | str, *, after: int = 0, within: float = LONG) -> int:
        """Wait until ``text`` stands on stdout or stderr; the offset behind it in the one that has it."""
        wanted = text.encode() if isinstance(text, str) else text

        def look() -> int | None:
            for stream in (self.stdout, self.stderr):
                at = stream.find(wanted, after)
                if at >= 0:
                    return at + len(wanted)
            if not self.is_running:
                raise AssertionError(f"it ended without saying {wanted!r}:\n{self._result()}")
            return None

        return await fact(look, lambda: f"it does not say {wanted!r}:\n{self}", within)

    async def takes_keys(self) -> None:
        """Wait until it has made its terminal raw: from now on what is typed is not echoed on the way."""

        def look() -> bool:
            assert self.is_running, f"it ended:\n{self._result()}"
            return not termios.tcgetattr(self._main)[3] & termios.ICANON

        await fact(look, lambda: f"its terminal is not raw:\n{self}")

    async def wait(self, within: float = LONG) -> Result:
        """How it ended."""
        if self.is_running:
            done: Deferred[None] = Deferred()
            self._waiting.append(done)
            try:
                await in_time(done, lambda: f"it does not end:\n{self}", within)
            finally:
                if done in self._waiting:
                    self._waiting.remove(done)
        return self._result()

    async def stop(self, number: int = signal.SIGTERM, within: float = 20.0) -> None:
        """End it and everything that it started, by process id: gently first, then not."""
        family = [] if self.exited else descendants(self.pid)
        self.kill(number)
        try:
            await fact(lambda: self.exited, lambda: f"it does not end:\n{self}", within)
        except TookTooLong:
            self.kill(signal.SIGKILL)
            await fact(lambda: self.exited, lambda: f"it cannot be ended:\n{self}", within)
        finally:
            send(family, signal.SIGKILL)
            self._transport.loseConnection()  # type: ignore[no-untyped-call]

    def _result(self) -> Result:
        assert self._failure is not None
        end = self._failure.value
        return Result(
            command=self.command,
            stdout=bytes(self.stdout),
            stderr=bytes(self.stderr),
            code=getattr(end, "exitCode", None),
            signal=getattr(end, "signal", None),
        )

    def __str__(self) -> str:
        output = bytes(self.stdout[-4000:]).decode(errors="replace")
        errors = bytes(self.stderr[-8000:]).decode(errors="replace")
        return f"{' '.join(self.command)}\n-- stdout: {output}\n-- stderr: {errors}"


async def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stdin: bytes | Path = b"",
    stdout: Path | None = None,
    within: float = LONG,
) -> Result:
    """Start a program, wait for its end, and end it in any case."""
    process = Process(command, env=env, directory=directory, stdin=stdin, stdout=stdout)
    try:
        return await process.wait(within)
    finally:
        await process.stop()


def descendants(pid: int) -> list[tuple[int, str]]:
    """All processes below one, each with its start time (which tells a reused number apart)."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    pids: list[tuple[int, str]] = []
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            pids.append((child, _started(child)))
            todo.append(child)
    return pids


def send(processes: Iterable[tuple[int, str]], number: int) -> None:
    """Send a signal to processes from ``descendants``, except those that have ended since."""
    for pid, started in processes:
        if _started(pid) == started:  # not another process that got its number meanwhile
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return "ended"


def _size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
