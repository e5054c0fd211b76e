"""Processes for ``conchrec.ssh.kex_helper``: the real one, and a fake that works in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Protocol

from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.ssh.kex_worker import serve


class Process(Protocol):
    """What a test does to a helper process."""

    def freeze(self) -> None:
        """It answers nothing until it thaws."""

    def thaw(self) -> None:
        """Let a frozen process go on."""

    def kill(self) -> None:
        """Kill the process, as an administrator does."""

    def crash(self) -> None:
        """Let the process end by a fault of its own."""

    @property
    def is_alive(self) -> bool:
        """Tell whether the process runs."""


class FakeProcess:
    """Answers in the turn of the reactor that follows the request."""

    def __init__(self, protocol: ProcessProtocol, clock: Clock) -> None:
        self._protocol = protocol
        self._clock = clock
        self._requests = b""
        self._frozen = False
        self.is_alive = True

    def write(self, data: bytes) -> None:
        """Write bytes (ITransport)."""
        self._requests += data
        self._clock.callLater(0, self._work)

    def closeStdin(self) -> None:
        """Close the standard input of the process (IProcessTransport)."""
        self._clock.callLater(0, self.kill)

    def signalProcess(self, signalID: str) -> None:
        """Send a signal to the process (IProcessTransport)."""
        assert signalID == "KILL"
        self._clock.callLater(0, self.kill)

    def _work(self) -> None:
        if self._frozen or not self.is_alive:
            return
        requests, self._requests = self._requests, b""
        answers = BytesIO()
        serve(BytesIO(requests), answers)
        # A pipe may cut what is written anywhere.
        for byte in answers.getvalue():
            self.answer(bytes((byte,)))

    def answer(self, data: bytes) -> None:
        """Write to the standard output of the process."""
        self._protocol.outReceived(data)

    def freeze(self) -> None:
        """Stop the process without ending it."""
        self._frozen = True

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._frozen = False
        self._clock.callLater(0, self._work)

    def kill(self) -> None:
        """Kill the process."""
        self._end(signal.SIGKILL)

    def crash(self) -> None:
        """Let the process end by a fault of its own."""
        self._end(signal.SIGSEGV)

    def _end(self, number: int) -> None:
        if self.is_alive:
            self.is_alive = False
            self._protocol.processEnded(Failure(ProcessTerminated(signal=number)))


class RealProcess:
    """The program ``conchrec.ssh.kex_worker``."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.pid: int = transport.pid

    def freeze(self) -> None:
        """Stop the process without ending it."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process."""
        os.kill(self.pid, signal.SIGKILL)

    def crash(self) -> None:
        """Let the process end by a fault of its own."""
        os.kill(self.pid, signal.SIGSEGV)
        self.thaw()

    @property
    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._transport.pid is not None


class Processes:
    """A reactor for the helper that keeps the processes it starts. ``refuses``: so many starts fail;
    ``freezes``: those that start are frozen."""

    def __init__(self, clock: Clock, spawn: Callable[..., Any] | None = None) -> None:
        self._clock = clock
        self._spawn = spawn
        self.started: list[Process] = []
        self.refuses = 0
        self.freezes = False

    def seconds(self) -> float:
        """Return the time (IReactorTime)."""
        return self._clock.seconds()

    def callLater(self, delay: float, what: Callable[..., object], /, *args: object) -> DelayedCall:
        """Schedule a call (IReactorTime)."""
        return self._clock.callLater(delay, what, *args)

    def spawnProcess(
        self,
        processProtocol: ProcessProtocol,
        executable: str,
        args: list[str],
        env: Mapping[str, str],
    ) -> Any:
        """Start a process (IReactorProcess)."""
        if self.refuses:
            self.refuses -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        if self._spawn is None:
            transport: Any = FakeProcess(processProtocol, self._clock)
            process: Process = transport
        else:
            transport = self._spawn(processProtocol, executable, args, env)
            process = RealProcess(transport)
        self.started.append(process)
        if self.freezes:
            process.freeze()
        return transport
