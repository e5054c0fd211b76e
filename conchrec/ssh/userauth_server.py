"""The server side of the authentication protocol (RFC 4252; keyboard-interactive: RFC 4256).

The Authenticator (``authenticator``) decides who may log in; this module handles the messages and their
order. Requests are answered one after another. An offer of a key (without a signature) changes nothing. A
signature is verified with the algorithm that the request names. The user name cannot change. No method
raises into the transport.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import AccessDenied, RemoteViolation
from conchrec.model import Identity
from conchrec.reasons import INTERNAL_ERROR, Reason, ReasonCode
from conchrec.slim_queue import SlimQueue
from conchrec.ssh import userauth as u
from conchrec.ssh.authenticator import Authenticator, PartialSuccess
from conchrec.ssh.certificate import fingerprint
from conchrec.ssh.login_attempts import LoginAttempts
from conchrec.ssh.login_questions import LoginQuestions
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.timers import PausableTimer
from conchrec.ssh.wire import Reader, names, string
from conchrec.text import decode_text, one_line

_log = Logger()

#: The maximum number of messages, and of bytes, that wait for a decision.
MAX_WAITING = 64
MAX_WAITING_BYTES = 35_000


class _State(enum.Enum):
    """The state of the login."""

    IDLE = "no request is open"
    DECIDING = "the authenticator decides; messages of the client wait"
    ASKING = "the client has to answer a challenge"
    OVER = "logged in, disconnected or stopped"


#: The messages that each state accepts. In the state DECIDING all messages wait.
_ALLOWED_MESSAGES: dict[_State, frozenset[int]] = {
    _State.IDLE: frozenset({u.REQUEST}),
    _State.ASKING: frozenset({u.REQUEST, u.INFO_RESPONSE}),
}


class UserAuthServer(SSHService):
    """The service ``ssh-userauth`` of a server, for one connection.

    ``connection`` creates the service that starts after the login. The connection ends after ``tries``
    failures, or after ``login_time``, of which only the time in which the client has to act counts.
    ``banner`` is sent before the first answer. ``host_key`` returns the host key of this connection, for
    the host-bound method. ``on_refused(user, method, reason)`` is called for each failed attempt, and at
    the end for offers without success; it writes the audit log and must not raise.
    """

    name = b"ssh-userauth"
    transport: u.AuthTransport | None  # type: ignore[assignment]  # Conch declares its own concrete class

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        connection: Callable[[Identity], SSHService],
        clock: Clock,
        login_time: timedelta = timedelta(minutes=2),
        tries: int = 6,
        banner: str = "",
        host_key: Callable[[], bytes | None] = lambda: None,
        on_refused: Callable[[str, str, Reason], None] = lambda user, method, reason: None,
    ) -> None:
        self.transport = None
        self._authenticator = authenticator
        self._connection = connection
        self._banner = banner
        self._host_key = host_key
        self._state = _State.IDLE
        seconds = login_time.total_seconds()
        #: Runs while the client has to act. A slow target must not cost the user the login.
        self._login_timer = PausableTimer(clock, seconds, partial(self._time_out, seconds))
        self._waiting = _WaitingMessages()
        self._attempts = LoginAttempts(tries, on_refused)
        self._questions = LoginQuestions(self._send_questions, self._await_decision)
        self._deciding: Deferred[Identity] | None = None

    # --- life

    def serviceStarted(self) -> None:
        """Start the login time. Called by the transport."""
        self._login_timer.run()

    def serviceStopped(self) -> None:
        """Handle the end of the connection, or the start of the next service. Called by the transport."""
        self._finish()
        self.transport = None

    def send_banner(self, text: str) -> None:
        """Send a banner with ``text``; possible until the login has succeeded (RFC 4252 section 5.4)."""
        if self.transport is not None and self._state is not _State.OVER and text:
            line = text if text.endswith("\n") else text + "\n"
            self.transport.sendPacket(u.BANNER, string(line.encode("utf-8", "replace")) + string(b""))

    def _time_out(self, seconds: float) -> None:
        """Disconnect the client after the login time."""
        reason = Reason(ReasonCode.LOGIN_TIMEOUT, f"not logged in within {round(seconds)} seconds")
        self._attempts.report("login", reason)
        self._disconnect(DisconnectReason.BY_APPLICATION, f"conchrec: {reason}")

    def _finish(self) -> None:
        """End the login. Further messages are ignored."""
        if self._state is _State.OVER:
            return
        self._state = _State.OVER
        self._login_timer.stop()
        self._waiting.take()
        self._attempts.end()
        self._abandon()
        self._questions.end()

    def _abandon(self) -> None:
        """Cancel the current attempt; its result is ignored."""
        deciding, self._deciding = self._deciding, None
        self._questions.abandon()
        if deciding is not None:
            deciding.cancel()

    def _disconnect(self, reason: int, text: str) -> None:
        """End the login and the connection."""
        transport = self.transport
        self._finish()
        if transport is not None:
            transport.sendDisconnect(reason, text.encode("utf-8", "replace"))

    # --- messages in

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle one message of the client. All messages pass one queue, so that they stay in order."""
        if self._state is _State.OVER:
            return
        if not self._waiting.add(messageNum, packet):
            too_much = Reason(ReasonCode.TOO_MANY_MESSAGES, "too much was sent without waiting for a reply")
            self._disconnect(DisconnectReason.PROTOCOL_ERROR, too_much)
            return
        self._drain()

    def _drain(self) -> None:
        """Handle messages of the queue until one has to wait."""
        self._waiting.drain(self._handle, lambda: self._state in _ALLOWED_MESSAGES)

    def _handle(self, number: int, payload: bytes) -> None:
        """Handle one message. Never raises."""
        try:
            self._dispatch(number, payload)
        except RemoteViolation as violation:
            self._disconnect(DisconnectReason.PROTOCOL_ERROR, violation.public)
        except Exception:
            _log.failure("unexpected error during the login of a client")
            self._disconnect(DisconnectReason.BY_APPLICATION, INTERNAL_ERROR)

    def _dispatch(self, number: int, payload: bytes) -> None:
        """Handle one message. Raises RemoteViolation."""
        if number in _ALLOWED_MESSAGES[self._state]:
            if number == u.REQUEST:
                self._handle_request(payload)
            else:
                self._attempts.count_request()
                self._questions.answer(payload)
        elif u.LAST_USERAUTH < number <= u.LAST_CONNECTION:
            raise RemoteViolation(f"message {number} before the login")
        elif number == u.INFO_RESPONSE and self._questions.drop_late_answer():
            pass  # it was sent before the question was withdrawn
        elif number in (u.FAILURE, u.SUCCESS, u.BANNER, u.PK_OK, u.INFO_RESPONSE):
            raise RemoteViolation(f"unexpected message {number}")
        else:
            self._attempts.count_request()
            if self.transport is not None:
                self.transport.sendUnimplemented()

    def _handle_request(self, payload: bytes) -> None:
        """``string user, string service, string method``, then method-specific data"""
        self._abandon()
        self._state = _State.IDLE
        self._attempts.count_request()
        r = Reader(payload)
        user, service, method = r.string(), r.string(), r.string()
        if service != u.CONNECTION:
            text = "only the service ssh-connection is available"
            self._disconnect(
                DisconnectReason.SERVICE_NOT_AVAILABLE, Reason(ReasonCode.SERVICE_UNAVAILABLE, text)
            )
            return
        if not self._attempts.user:
            self._attempts.user = u.parse_user_name(user)
            self.send_banner(self._banner)
        elif user != self._attempts.user.encode():
            # The authentication so far is for the first name (RFC 4252 section 5).
            raise RemoteViolation("the user name changed during the login")
        if method == u.NONE:
            r.end()
            # Most clients start with ``none`` to get the list of methods, so the first one does not count.
            free = self._attempts.requests == 1
            self._decide(u.NONE, lambda: self._authenticator.none(self._attempts.user), counts=not free)
        elif method in (u.PUBLICKEY, u.HOSTBOUND) and self._is_available(u.PUBLICKEY):
            self._handle_publickey(u.parse_publickey_request(payload, r, method))
        elif method == u.KEYBOARD_INTERACTIVE and self._is_available(u.KEYBOARD_INTERACTIVE):
            r.string()
            submethods = decode_text(r.string())
            r.end()
            self._handle_keyboard_interactive(submethods)
        else:
            reason = Reason(ReasonCode.METHOD_UNAVAILABLE, "the authentication method is not available")
            self._fail_attempt(one_line(method, 64), reason)

    def _is_available(self, method: bytes) -> bool:
        """Return whether the user may use a method."""
        return method in self._authenticator.methods(self._attempts.user)

    # --- public keys

    def _handle_publickey(self, request: u.PublicKeyRequest) -> None:
        """Handle an offer of a key, or a signature by a key."""
        algorithm, blob = request.algorithm, request.blob
        acceptable = (
            request.host_key is None or request.host_key == self._host_key()
        ) and self._authenticator.accepts_key(self._attempts.user, algorithm, blob)
        transport = self.transport
        if transport is None:
            return
        if request.signature is None:
            if acceptable:
                transport.sendPacket(u.PK_OK, string(algorithm) + string(blob))
            else:
                self._attempts.add_refused_offer(blob)
                self._send_failure()
        elif not acceptable:
            text = f"the key {fingerprint(blob)} is not accepted"
            self._fail_attempt("publickey", Reason(ReasonCode.OFFERS_NOT_ACCEPTED, text))
        elif not transport.sessionID or not verify_signature(
            algorithm, blob, u.signed_data(transport.sessionID, request.covered), request.signature
        ):
            text = f"signature verification failed for the key {fingerprint(blob)}"
            self._fail_attempt("publickey", Reason(ReasonCode.SIGNATURE_INVALID, text))
        else:
            self._decide(
                u.PUBLICKEY,
                lambda: self._authenticator.log_in_by_key(self._attempts.user, algorithm, blob),
                counts=True,
            )

    # --- keyboard-interactive

    def _handle_keyboard_interactive(self, submethods: str) -> None:
        """Start a keyboard-interactive attempt."""
        ask = self._questions.begin()
        self._decide(
            u.KEYBOARD_INTERACTIVE,
            lambda: self._authenticator.keyboard_interactive(self._attempts.user, submethods, ask),
            counts=True,
        )

    def _send_questions(self, challenge: u.Challenge) -> None:
        """Send questions to the client, which has to act now."""
        self._state = _State.ASKING
        self._login_timer.run()
        if self.transport is not None:
            self.transport.sendPacket(u.INFO_REQUEST, u.info_request(challenge))
        # A pipelined message is either a new request, or a violation.
        self._drain()

    def _await_decision(self) -> None:
        """Let the client's messages and the login time wait for the authenticator."""
        self._state = _State.DECIDING
        self._login_timer.pause()

    # --- answers

    def _decide(self, method: bytes, attempt: Callable[[], Deferred[Identity]], *, counts: bool) -> None:
        """Make an attempt, and answer when it is decided. ``counts`` is whether a failure counts."""
        self._await_decision()
        # The attempt may ask a question at once, so the state may have changed after this call.
        deciding = maybeDeferred(attempt)
        self._deciding = deciding
        deciding.addCallbacks(
            self._attempt_succeeded,
            self._attempt_failed,
            callbackArgs=(deciding,),
            errbackArgs=(deciding, method.decode(), counts),
        )
        deciding.addErrback(self._report_bug)
        if self._state is _State.OVER:
            self._abandon()

    def _attempt_succeeded(self, identity: Identity, deciding: Deferred[Identity]) -> None:
        """Handle the success of an attempt."""
        if self._deciding is deciding:
            self._deciding = None
            self._succeed(identity)

    def _attempt_failed(
        self, failure: Failure, deciding: Deferred[Identity], method: str, counts: bool
    ) -> None:
        """Handle the failure of an attempt."""
        if self._deciding is not deciding:
            return
        self._deciding = None
        self._abandon()
        error = failure.value
        if isinstance(error, PartialSuccess):
            self._send_failure(error.methods, partial=True)
        elif isinstance(error, AccessDenied):
            if counts:
                self._fail_attempt(method, Reason(error.code, error.detail or error.public))
            else:
                self._send_failure()
        else:
            _log.failure("unexpected error while a login by {method} was decided", failure, method=method)
            self._fail_attempt(method, INTERNAL_ERROR)
        self._drain()

    def _report_bug(self, failure: Failure) -> None:
        """Log an unexpected error, and disconnect."""
        _log.failure("unexpected error while a login was answered", failure)
        self._disconnect(DisconnectReason.BY_APPLICATION, INTERNAL_ERROR)

    def _fail_attempt(self, method: str, reason: Reason) -> None:
        """Refuse an attempt that counts. After too many the client is disconnected."""
        if self._attempts.add_failure(method, reason):
            text = Reason(
                ReasonCode.TOO_MANY_FAILURES,
                "too many authentication failures. Check your key or password, then connect again",
            )
            self._disconnect(DisconnectReason.NO_MORE_AUTH_METHODS_AVAILABLE, f"conchrec: {text}")
        else:
            self._send_failure()

    def _send_failure(self, methods: tuple[bytes, ...] | None = None, *, partial: bool = False) -> None:
        """Send FAILURE: ``name-list methods that can continue, boolean partial success``."""
        if methods is None:
            methods = self._authenticator.methods(self._attempts.user)
        if self._state is _State.OVER or self.transport is None:
            return
        self._state = _State.IDLE
        self._login_timer.run()
        self.transport.sendPacket(u.FAILURE, names(methods) + bytes((partial,)))

    def _succeed(self, identity: Identity) -> None:
        """Send SUCCESS and start the connection protocol."""
        transport = self.transport
        if transport is None:
            return
        connection = self._connection(identity)
        self._attempts.succeed()
        # Requests after the successful one are ignored (RFC 4252 section 5.1); later messages are for the
        # connection protocol.
        early = [message for message in self._waiting.take() if message[0] > u.LAST_USERAUTH]
        self._finish()
        transport.sendPacket(u.SUCCESS, b"")
        transport.setService(connection)
        for number, payload in early:
            connection.packetReceived(number, payload)


class _WaitingMessages:
    """The client's messages that wait for a decision, in order."""

    def __init__(self) -> None:
        self._messages: SlimQueue[tuple[int, bytes]] = SlimQueue()
        self._size = 0
        self._is_draining = False

    def add(self, number: int, payload: bytes) -> bool:
        """Add a message. Return whether that was within the limits."""
        self._messages.append((number, payload))
        self._size += len(payload)
        return len(self._messages) <= MAX_WAITING and self._size <= MAX_WAITING_BYTES

    def drain(self, handle: Callable[[int, bytes], None], is_ready: Callable[[], bool]) -> None:
        """Pass messages to ``handle``, which must not raise, while ``is_ready()``."""
        if self._is_draining:
            return  # called by ``handle``: the loop there continues
        self._is_draining = True
        try:
            while self._messages and is_ready():
                number, payload = self._messages.popleft()
                self._size -= len(payload)
                handle(number, payload)
        finally:
            self._is_draining = False

    def take(self) -> Iterable[tuple[int, bytes]]:
        """Remove and return all messages."""
        self._size = 0
        return self._messages.take()
