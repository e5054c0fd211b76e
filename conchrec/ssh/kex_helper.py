"""The proxy's side of the helper process for slow key exchanges: its queue and its supervision.

The process computes modular powers for finite-field Diffie-Hellman, and makes key pairs of sntrup761 for the
connections to targets. It handles one request at a time. Other requests wait here in one queue for each peer,
and the peers take turns. A peer with many key exchanges therefore delays mostly its own. The queue of each
peer and the total are limited.

While nobody waits, the process makes key pairs ahead, so that most connections need not wait for theirs. Each
key pair is used for one key exchange.

The process is started with the proxy and restarted when it ends. Its current request is then sent once
more, because requests have no side effects; a request that ends two processes fails. A process that was
killed by somebody else (an administrator, or the kernel because memory is short) was not ended by its
request. Requests have no timeout here; the handshake timeout of their connection limits them.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import ConchrecError
from conchrec.fair_queue import FairQueue
from conchrec.reasons import ReasonCode
from conchrec.ssh import kex_worker
from conchrec.ssh.kems import SNTRUP761, KemKeyPair
from conchrec.ssh.kex_methods import ModularPowers, SntrupKeyPairs
from conchrec.ssh.kex_worker import KEY_PAIR, MAX_FRAME, POWERS, encode_numbers, frame, parse_strings
from conchrec.text import decode_text, one_line

_log = Logger()

#: The maximum number of waiting requests, for one peer and in total. A connection has one request at a
#: time.
MAX_OF_PEER = 256
MAX_WAITING = 1024
#: The number of key pairs that are made ahead. Each takes 20 ms of the process, and one waiting connection
#: needs one: together 20 ms after a burst.
KEY_PAIRS_AHEAD = 4
#: sntrup761 is not offered while this many peers wait: each has a turn of about 20 ms, so a key pair would
#: take most of a second.
MAX_WAITING_FOR_KEY_PAIR = 32
#: If a request takes longer than this, the process hangs and is killed.
ANSWER_SECONDS = 20.0
#: A process that fails earlier than this is restarted with a growing delay.
STABLE_SECONDS = 10.0
FIRST_BACKOFF = 0.5
LAST_BACKOFF = 30.0
#: A connection waits for a process that is restarted within this time.
RESTART_WAIT = 1.0
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
class _Request:
    """One request to the process; ``answer`` has the strings of its answer."""

    peer: str
    data: bytes
    answer: Deferred[tuple[bytes, ...]]
    #: The number of processes that failed while they worked on the request.
    ended: int = 0
    abandoned: bool = False


class KeyExchangeHelper:
    """Computes powers and makes key pairs in a separate process. Call ``start`` and ``stop`` once each."""

    def __init__(
        self,
        reactor: Reactor,
        *,
        max_of_peer: int = MAX_OF_PEER,
        max_waiting: int = MAX_WAITING,
        key_pairs_ahead: int = KEY_PAIRS_AHEAD,
    ) -> None:
        self._reactor = reactor
        self._max_of_peer = max_of_peer
        self._max_waiting = max_waiting
        self._key_pairs_ahead = key_pairs_ahead
        self._key_pairs: deque[KemKeyPair] = deque()
        #: Whether the process can make key pairs, as far as known.
        self._makes_key_pairs = SNTRUP761.is_available()
        self._queue: FairQueue[_Request] = FairQueue()
        self._current: _Request | None = None
        self._process: HelperProcess | None = None
        #: Whether we have killed the process.
        self._has_killed = False
        self._started_at = 0.0
        self._backoff = FIRST_BACKOFF
        self._restart: DelayedCall | None = None
        self._restarts_at = 0.0
        self._deadline: DelayedCall | None = None
        self._stopped = False
        self._refused = 0
        self._refusals_logged_at: float | None = None

    # --- life

    def start(self) -> None:
        """Start the process. If that fails, it is tried again later."""
        self._restart = None
        self._has_killed = False
        self._started_at = self._reactor.seconds()
        command = [sys.executable, "-I", "-S", str(Path(kex_worker.__file__).resolve())]
        if self._makes_key_pairs:
            command.append(_directory_of_pqcrypto())
        # The interpreter may need this to find its libraries. The helper needs no other variable.
        env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        try:
            # Twisted closes all file descriptors in the child except for the three pipes.
            self._process = self._reactor.spawnProcess(_Pipe(self), sys.executable, command, env)
        except OSError as error:
            _log.error("cannot start the helper process for key exchanges: {reason}", reason=error.strerror)
            self._schedule_restart(is_failure=True)
        else:
            self._send_next()
            self._make_key_pair_ahead()

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
        self._key_pairs.clear()
        for request in waiting:
            self._refuse(request, "the proxy is being stopped")

    def _schedule_restart(self, *, is_failure: bool) -> None:
        """Restart the process later; the delay doubles while the process keeps failing."""
        if not is_failure or self._reactor.seconds() - self._started_at >= STABLE_SECONDS:
            self._backoff = FIRST_BACKOFF
        self._restart = self._reactor.callLater(self._backoff, self.start)
        self._restarts_at = self._reactor.seconds() + self._backoff
        if is_failure:
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
        answer = self._request(peer, POWERS + encode_numbers((modulus, exponent, *bases)))
        return answer.addCallback(lambda powers: tuple(int.from_bytes(power, "big") for power in powers))

    def key_pairs_of_peer(self, peer: Callable[[], str]) -> SntrupKeyPairs:
        """Return the key pairs of sntrup761 for the connections to one peer; see ``powers_of_peer``."""
        return _KeyPairs(self, peer)

    @property
    def key_pairs_made(self) -> int:
        """For tests: the number of key pairs that were made ahead and wait for a connection."""
        return len(self._key_pairs)

    def has_key_pairs(self) -> bool:
        """Return whether ``key_pair`` would not take long."""
        if self._key_pairs:
            return True
        if self._stopped or not self._makes_key_pairs or self._queue.name_count >= MAX_WAITING_FOR_KEY_PAIR:
            return False
        if self._process is not None:
            return True
        return self._restart is not None and self._restarts_at - self._reactor.seconds() <= RESTART_WAIT

    def key_pair(self, peer: str) -> Deferred[KemKeyPair]:
        """Return a key pair of sntrup761 that was never returned before. Fails as ``powers`` does."""
        if self._key_pairs:
            pair = self._key_pairs.popleft()
            self._make_key_pair_ahead()
            return succeed(pair)
        return self._request(peer, KEY_PAIR).addCallback(_parse_key_pair)

    def _request(self, peer: str, body: bytes) -> Deferred[tuple[bytes, ...]]:
        """Queue a request, and return the strings of its answer."""
        if self._stopped:
            return fail(KeyExchangeRefused("the proxy is being stopped", code=ReasonCode.PROXY_STOPPING))
        if self._queue.count(peer) >= self._max_of_peer or not self._make_room(peer):
            self._log_refusal(peer)
            return fail(_queue_full())
        request = _Request(peer=peer, data=frame(body), answer=Deferred(lambda _: self._abandon(request)))
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

    def _abandon(self, request: _Request) -> None:
        """Handle the cancellation of a request."""
        request.abandoned = True
        self._queue.discard(request.peer, request)

    def _send_next(self) -> None:
        """Send the next request to the process, if it is idle."""
        if self._is_idle and (item := self._queue.take()) is not None:
            self._send(item[1])

    def _make_key_pair_ahead(self) -> None:
        """Let the process make a key pair, if it is idle and some are missing."""
        if self._is_idle and self._makes_key_pairs and len(self._key_pairs) < self._key_pairs_ahead:
            answer: Deferred[tuple[bytes, ...]] = Deferred()
            self._send(_Request(peer="", data=frame(KEY_PAIR), answer=answer))
            answer.addCallback(_parse_key_pair).addCallbacks(self._key_pairs.append, self._stop_key_pairs)

    @property
    def _is_idle(self) -> bool:
        """Whether the process can get a request."""
        return self._current is None and self._process is not None and not self._stopped

    def _send(self, request: _Request) -> None:
        """Send a request to the process, which is idle."""
        assert self._process is not None
        self._current = request
        self._deadline = self._reactor.callLater(ANSWER_SECONDS, self._kill_unresponsive)
        self._process.write(request.data)

    def _stop_key_pairs(self, failure: Failure) -> None:
        """Make no more key pairs: two processes ended while they made one."""
        self._makes_key_pairs = False
        if not self._stopped:
            _log.error(
                "the helper process cannot make key pairs of sntrup761: it is not offered to targets until "
                "the proxy is restarted. Is pqcrypto installed correctly?"
            )

    def _refuse(self, request: _Request, reason: str) -> None:
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
            self._has_killed = True
            self._process.signalProcess("KILL")

    def answered(self, strings: tuple[bytes, ...]) -> None:
        """Handle the result of the current request. Called by the pipe."""
        if self._deadline is None or not self._deadline.active():
            return  # too late: the process was killed, and ``ended`` handles the request
        request, self._current = self._current, None
        self._deadline.cancel()
        self._deadline = None
        # Let the process compute the next request while this result is used.
        self._send_next()
        if request is not None and not request.abandoned:
            request.answer.callback(strings)
        self._make_key_pair_ahead()

    def malformed(self) -> None:
        """Handle an invalid answer of the process. Called by the pipe."""
        _log.error("malformed answer from the helper process for key exchanges; it is killed and restarted")
        self._kill()

    def ended(self, reason: str, *, by_kill: bool) -> None:
        """Handle the end of the process, which SIGKILL ended or something else. Called by the pipe."""
        self._process = None
        is_failure = self._has_killed or not by_kill
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if self._stopped:
            return
        _log.error("the helper process for key exchanges ended ({reason}); it is restarted", reason=reason)
        request, self._current = self._current, None
        if request is not None and not request.abandoned:
            request.ended += is_failure
            if request.ended < 2:
                self._queue.add_first(request.peer, request)
            else:
                self._refuse(request, "the proxy could not compute the key exchange; try again")
        self._schedule_restart(is_failure=is_failure)


def _queue_full() -> KeyExchangeRefused:
    """Return the error for a request that cannot wait."""
    return KeyExchangeRefused(
        "too many key exchanges are waiting; try again later", code=ReasonCode.KEY_EXCHANGE_BUSY
    )


def _directory_of_pqcrypto() -> str:
    """Return the directory that the process needs in its search path."""
    spec = importlib.util.find_spec("pqcrypto")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).resolve().parent.parent)


def _parse_key_pair(strings: tuple[bytes, ...]) -> KemKeyPair:
    """Return the key pair in an answer."""
    public, private = strings
    return SNTRUP761.key_pair(public, private)


@dataclass(frozen=True, slots=True)
class _KeyPairs:
    """The key pairs for one peer (SntrupKeyPairs)."""

    helper: KeyExchangeHelper
    peer: Callable[[], str]

    def are_available(self) -> bool:
        """Return whether a key pair is available now or soon."""
        return self.helper.has_key_pairs()

    def take(self) -> Deferred[KemKeyPair]:
        """Return a key pair that nobody else gets."""
        return self.helper.key_pair(self.peer())


class _Pipe(ProcessProtocol):
    """Splits the output of the process into frames."""

    def __init__(self, helper: KeyExchangeHelper) -> None:
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
                strings = parse_strings(body)
            except ValueError:
                strings = ()
            if strings:
                self._helper.answered(strings)
            else:
                self._is_broken = True
                self._helper.malformed()

    def errReceived(self, data: bytes) -> None:
        """Log what the process prints to its standard error."""
        for line in decode_text(data).splitlines():
            _log.error("helper process for key exchanges: {line}", line=one_line(line, 200))

    def processEnded(self, reason: Failure) -> None:
        """Handle the end of the process."""
        by_kill = isinstance(reason.value, ProcessTerminated) and reason.value.signal == signal.SIGKILL
        self._helper.ended(reason.getErrorMessage(), by_kill=by_kill)
