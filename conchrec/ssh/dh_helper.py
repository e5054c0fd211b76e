"""The proxy's side of the helper process for finite-field Diffie-Hellman: its queue and its supervision.

The process computes one request at a time. Other requests wait here in one queue for each peer, and the
peers take turns. A peer with many key exchanges therefore delays mostly its own. The queue of each peer and
the total are limited.

The process is started with the proxy and restarted when it ends. Its current request is then sent once
more, because requests have no side effects; a request that ends two processes fails. Requests have no
timeout here; the handshake timeout of their connection limits them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import ConchrecError
from conchrec.fair_queue import FairQueue
from conchrec.reasons import ReasonCode
from conchrec.ssh import dh_worker
from conchrec.ssh.dh_worker import MAX_FRAME, frame, parse_numbers
from conchrec.ssh.kex_methods import ModularPowers
from conchrec.text import decode_text, one_line

_log = Logger()

#: The maximum number of waiting requests, for one peer and in total. A connection has one request at a
#: time.
MAX_OF_PEER = 256
MAX_WAITING = 1024
#: If a request takes longer than this, the process hangs and is killed.
ANSWER_SECONDS = 20.0
#: A process that ends earlier than this is restarted with a growing delay.
STABLE_SECONDS = 10.0
FIRST_BACKOFF = 0.5
LAST_BACKOFF = 30.0
#: Refused requests are logged together, at most once in this time.
LOG_SECONDS = 10.0


class KeyExchangeRefused(ConchrecError):
    """The key exchange cannot be computed. The connection ends with this text."""

    default_code = ReasonCode.KEY_EXCHANGE_FAILED


class HelperProcess(Protocol):
    """The part of IProcessTransport that is used here."""

    def write(self, data: bytes, /) -> object:
        """Write to the standard input of the process."""

    def closeStdin(self) -> object:
        """Close the standard input; the process then ends."""

    def signalProcess(self, signalID: str, /) -> object:
        """Send a signal to the process."""


class Reactor(Clock, Protocol):
    """The part of a reactor that is used here."""

    def spawnProcess(
        self,
        processProtocol: ProcessProtocol,
        executable: str,
        args: list[str],
        env: Mapping[str, str],
    ) -> HelperProcess:
        """Start a process with pipes for its standard streams."""


@dataclass(slots=True, eq=False, kw_only=True)
class _PowerRequest:
    """One call of ``powers``."""

    peer: str
    data: bytes
    answer: Deferred[tuple[int, ...]]
    #: The number of processes that ended while they worked on the request.
    ended: int = 0
    abandoned: bool = False


class DiffieHellmanHelper:
    """Computes modular powers in a separate process. Call ``start`` and ``stop`` once each."""

    def __init__(
        self, reactor: Reactor, *, max_of_peer: int = MAX_OF_PEER, max_waiting: int = MAX_WAITING
    ) -> None:
        self._reactor = reactor
        self._max_of_peer = max_of_peer
        self._max_waiting = max_waiting
        self._queue: FairQueue[_PowerRequest] = FairQueue()
        self._current: _PowerRequest | None = None
        self._process: HelperProcess | None = None
        self._started_at = 0.0
        self._backoff = FIRST_BACKOFF
        self._restart: DelayedCall | None = None
        self._deadline: DelayedCall | None = None
        self._stopped = False
        self._refused = 0
        self._refusals_logged_at: float | None = None

    # --- life

    def start(self) -> None:
        """Start the process. If that fails, it is tried again later."""
        self._restart = None
        self._started_at = self._reactor.seconds()
        command = [sys.executable, "-I", "-S", str(Path(dh_worker.__file__).resolve())]
        # The interpreter may need this to find its libraries. The helper needs no other variable.
        env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        try:
            # Twisted closes all file descriptors in the child except for the three pipes.
            self._process = self._reactor.spawnProcess(_Pipe(self), sys.executable, command, env)
        except OSError as error:
            _log.error("cannot start the helper process for key exchanges: {reason}", reason=error.strerror)
            self._schedule_restart()
        else:
            self._send_next()

    def stop(self) -> None:
        """End the process and refuse the requests that wait."""
        self._stopped = True
        for call in (self._restart, self._deadline):
            if call is not None and call.active():
                call.cancel()
        if self._process is not None:
            self._process.closeStdin()
        waiting = [self._current] if self._current is not None else []
        while (item := self._queue.take()) is not None:
            waiting.append(item[1])
        self._current = None
        for request in waiting:
            self._refuse(request, "the proxy is being stopped")

    def _schedule_restart(self) -> None:
        """Restart the process later; the delay doubles while the process keeps ending."""
        if self._reactor.seconds() - self._started_at >= STABLE_SECONDS:
            self._backoff = FIRST_BACKOFF
        self._restart = self._reactor.callLater(self._backoff, self.start)
        self._backoff = min(self._backoff * 2, LAST_BACKOFF)

    # --- requests

    def powers_of_peer(self, peer: Callable[[], str]) -> ModularPowers:
        """Return ``powers`` for the connections of one peer.

        ``peer`` returns the peer's name at each request: an address, a user or a target. Connections with
        the same name share one queue.
        """
        return lambda modulus, exponent, bases: self.powers(peer(), modulus, exponent, bases)

    def powers(
        self, peer: str, modulus: int, exponent: int, bases: tuple[int, ...]
    ) -> Deferred[tuple[int, ...]]:
        """Return ``base ** exponent`` modulo ``modulus`` for each base.

        Fails with KeyExchangeRefused if too many requests wait. A cancelled request leaves the queue; if it
        is being computed, its result is ignored.
        """
        if self._stopped:
            return fail(KeyExchangeRefused("the proxy is being stopped", code=ReasonCode.PROXY_STOPPING))
        if self._queue.count(peer) >= self._max_of_peer or not self._make_room(peer):
            self._log_refusal(peer)
            return fail(_queue_full())
        request = _PowerRequest(
            peer=peer,
            data=frame((modulus, exponent, *bases)),
            answer=Deferred(lambda _: self._abandon(request)),
        )
        self._queue.add(peer, request)
        self._send_next()
        return request.answer

    def _make_room(self, peer: str) -> bool:
        """Return whether one more request of ``peer`` can wait.

        If the total is at its limit, the last request of the longest queue is refused instead, unless that
        queue is the peer's own or not longer. So one peer cannot fill the queue for all.
        """
        if len(self._queue) < self._max_waiting:
            return True
        name, last = self._queue.longest()
        if self._queue.count(name) <= self._queue.count(peer) + 1:
            return False
        self._queue.discard(name, last)
        self._log_refusal(name)
        last.answer.errback(Failure(_queue_full()))
        return True

    def _abandon(self, request: _PowerRequest) -> None:
        """Handle the cancellation of a request."""
        request.abandoned = True
        self._queue.discard(request.peer, request)

    def _send_next(self) -> None:
        """Send the next request to the process, if it is idle."""
        if self._current is not None or self._process is None or self._stopped:
            return
        item = self._queue.take()
        if item is None:
            return
        self._current = item[1]
        self._deadline = self._reactor.callLater(ANSWER_SECONDS, self._kill_unresponsive)
        self._process.write(item[1].data)

    def _refuse(self, request: _PowerRequest, reason: str) -> None:
        """Fail a request, unless it was cancelled."""
        if not request.abandoned:
            request.answer.errback(Failure(KeyExchangeRefused(reason)))

    def _log_refusal(self, peer: str) -> None:
        """Log refused requests, at most once in LOG_SECONDS."""
        self._refused += 1
        now = self._reactor.seconds()
        if self._refusals_logged_at is None or now - self._refusals_logged_at >= LOG_SECONDS:
            _log.warn(
                "refused {count} key exchanges, because too many are waiting; the last one was of {peer}",
                count=self._refused,
                peer=peer,
            )
            self._refused, self._refusals_logged_at = 0, now

    # --- the process

    def _kill_unresponsive(self) -> None:
        """Kill a process that has not answered in time."""
        _log.error("the helper process for key exchanges does not answer; it is killed and restarted")
        self._kill()

    def _kill(self) -> None:
        """Kill the process; ``ended`` is called afterwards."""
        if self._process is not None:
            self._process.signalProcess("KILL")

    def answered(self, numbers: tuple[int, ...]) -> None:
        """Handle the result of the current request. Called by the pipe."""
        request, self._current = self._current, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        # Let the process compute the next request while this result is used.
        self._send_next()
        if request is not None and not request.abandoned:
            request.answer.callback(numbers)

    def malformed(self) -> None:
        """Handle an invalid answer of the process. Called by the pipe."""
        _log.error("malformed answer from the helper process for key exchanges; it is killed and restarted")
        self._kill()

    def ended(self, reason: str) -> None:
        """Handle the end of the process. Called by the pipe."""
        self._process = None
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if self._stopped:
            return
        _log.error("the helper process for key exchanges ended ({reason}); it is restarted", reason=reason)
        request, self._current = self._current, None
        if request is not None and not request.abandoned:
            request.ended += 1
            if request.ended < 2:
                self._queue.add_first(request.peer, request)
            else:
                self._refuse(request, "the proxy could not compute the key exchange; try again")
        self._schedule_restart()


def _queue_full() -> KeyExchangeRefused:
    """Return the error for a request that cannot wait."""
    return KeyExchangeRefused(
        "too many key exchanges are waiting; try again later", code=ReasonCode.KEY_EXCHANGE_BUSY
    )


class _Pipe(ProcessProtocol):
    """Splits the output of the process into frames."""

    def __init__(self, helper: DiffieHellmanHelper) -> None:
        self._helper = helper
        self._buffer = b""
        self._is_broken = False

    def outReceived(self, data: bytes) -> None:
        """Handle bytes from the standard output of the process."""
        if self._is_broken:
            return
        self._buffer += data
        while len(self._buffer) >= 4 and not self._is_broken:
            length = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < 4 + length and length <= MAX_FRAME:
                return
            body, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
            try:
                numbers = parse_numbers(body)
            except ValueError:
                numbers = ()
            if numbers:
                self._helper.answered(numbers)
            else:
                self._is_broken = True
                self._helper.malformed()

    def errReceived(self, data: bytes) -> None:
        """Log what the process prints to its standard error."""
        for line in decode_text(data).splitlines():
            _log.error("helper process for key exchanges: {line}", line=one_line(line, 200))

    def processEnded(self, reason: Failure) -> None:
        """Handle the end of the process."""
        self._helper.ended(reason.getErrorMessage())
