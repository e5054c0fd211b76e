"""The server side of the authentication protocol (RFC 4252; keyboard-interactive: RFC 4256).

The Authenticator (``authenticator``) decides who may log in; this module handles the messages and their
order. Requests are answered one after another. An offer of a key (without a signature) changes nothing. A
signature is verified with the algorithm that the request names. The user name cannot change. No method
raises into the transport.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import timedelta

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, fail, maybeDeferred
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
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.timers import PausableTimer
from conchrec.ssh.wire import Reader, names, string
from conchrec.text import decode_text, one_line

_log = Logger()

#: The maximum number of requests in one login, including offers: an agent may hold many keys.
MAX_REQUESTS = 100
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
        self._login_time = login_time
        self._tries = tries
        self._banner = banner
        self._host_key = host_key
        self._on_refused = on_refused
        self._state = _State.IDLE
        #: Runs while the client has to act. A slow target must not cost the user the login.
        self._login_timer = PausableTimer(clock, login_time.total_seconds(), self._time_out)
        self._waiting: SlimQueue[tuple[int, bytes]] = SlimQueue()
        self._waiting_bytes = 0
        self._draining = False
        self._requests = 0
        self._failures = 0
        self._user: bytes | None = None
        self._user_text = ""
        self._deciding: Deferred[Identity] | None = None
        #: Identifies the current keyboard-interactive attempt; earlier ones can no longer ask.
        self._conversation: object | None = None
        self._answers: Deferred[tuple[str, ...]] | None = None
        self._prompt_count = 0
        #: The number of withdrawn questions whose answers may still arrive.
        self._withdrawn_questions = 0
        self._refused_offers: list[str] = []

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

    def _time_out(self) -> None:
        """Disconnect the client after the login time."""
        seconds = round(self._login_time.total_seconds())
        reason = Reason(ReasonCode.LOGIN_TIMEOUT, f"not logged in within {seconds} seconds")
        self._audit_refusal("login", reason)
        self._disconnect(DisconnectReason.BY_APPLICATION, f"conchrec: {reason}")

    def _finish(self) -> None:
        """End the login. Further messages are ignored."""
        if self._state is _State.OVER:
            return
        self._state = _State.OVER
        self._login_timer.stop()
        self._waiting.take()
        if self._refused_offers and not self._failures:
            shown = ", ".join(self._refused_offers[:4])
            reason = Reason(ReasonCode.OFFERS_NOT_ACCEPTED, f"no offered key is accepted: {shown}")
            self._audit_refusal("publickey", reason)
        self._abandon()

    def _abandon(self) -> None:
        """Cancel the current attempt; its result is ignored."""
        self._conversation = None
        deciding, self._deciding = self._deciding, None
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.errback(_abandoned_error())
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
        self._waiting.append((messageNum, packet))
        self._waiting_bytes += len(packet)
        if len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            too_much = Reason(ReasonCode.TOO_MANY_MESSAGES, "too much was sent without waiting for a reply")
            self._disconnect(DisconnectReason.PROTOCOL_ERROR, too_much)
            return
        self._drain()

    def _drain(self) -> None:
        """Handle messages of the queue until one has to wait."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._waiting and self._state in (_State.IDLE, _State.ASKING):
                number, payload = self._waiting.popleft()
                self._waiting_bytes -= len(payload)
                self._dispatch(number, payload)
        except RemoteViolation as violation:
            self._disconnect(DisconnectReason.PROTOCOL_ERROR, violation.public)
        except Exception:
            _log.failure("unexpected error during the login of a client")
            self._disconnect(DisconnectReason.BY_APPLICATION, INTERNAL_ERROR)
        finally:
            self._draining = False

    def _dispatch(self, number: int, payload: bytes) -> None:
        """Handle one message. Raises RemoteViolation."""
        if number in _ALLOWED_MESSAGES[self._state]:
            if number == u.REQUEST:
                self._handle_request(payload)
            else:
                self._handle_response(payload)
        elif u.LAST_USERAUTH < number <= u.LAST_CONNECTION:
            raise RemoteViolation(f"message {number} before the login")
        elif number == u.INFO_RESPONSE and self._withdrawn_questions:
            self._withdrawn_questions -= 1
        elif number in (u.FAILURE, u.SUCCESS, u.BANNER, u.PK_OK, u.INFO_RESPONSE):
            raise RemoteViolation(f"unexpected message {number}")
        else:
            self._count_request()
            if self.transport is not None:
                self.transport.sendUnimplemented()

    def _count_request(self) -> None:
        """Count a request. Raises RemoteViolation if there are too many."""
        self._requests += 1
        if self._requests > MAX_REQUESTS:
            raise RemoteViolation(
                f"too many requests in one login: the limit is {MAX_REQUESTS}",
                code=ReasonCode.TOO_MANY_MESSAGES,
            )

    def _handle_request(self, payload: bytes) -> None:
        """``string user, string service, string method``, then method-specific data"""
        self._abandon()
        self._state = _State.IDLE
        self._count_request()
        r = Reader(payload)
        user, service, method = r.string(), r.string(), r.string()
        if service != u.CONNECTION:
            text = "only the service ssh-connection is available"
            self._disconnect(
                DisconnectReason.SERVICE_NOT_AVAILABLE, Reason(ReasonCode.SERVICE_UNAVAILABLE, text)
            )
            return
        if self._user is None:
            self._user_text = u.parse_user_name(user)
            self._user = user
            self.send_banner(self._banner)
        elif user != self._user:
            # The authentication so far is for the first name (RFC 4252 section 5).
            raise RemoteViolation("the user name changed during the login")
        if method == u.NONE:
            r.end()
            # Most clients start with ``none`` to get the list of methods, so the first one does not count.
            free = self._requests == 1
            self._decide(u.NONE, lambda: self._authenticator.none(self._user_text), counts=not free)
        elif method in (u.PUBLICKEY, u.HOSTBOUND) and self._is_available(u.PUBLICKEY):
            self._handle_publickey(payload, r, method)
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
        return method in self._authenticator.methods(self._user_text)

    # --- public keys

    def _handle_publickey(self, payload: bytes, r: Reader, method: bytes) -> None:
        """``boolean signed, string algorithm, string blob[, string host key][, string signature]``"""
        signed, algorithm, blob = r.boolean(), r.string(), r.string()
        host_key = r.string() if method == u.HOSTBOUND else None
        covered = payload[: len(payload) - len(r.rest())] if signed else b""
        signature = _parse_single_string(payload[len(covered) :]) if signed else b""
        if not signed:
            r.end()
        acceptable = (host_key is None or host_key == self._host_key()) and self._authenticator.accepts_key(
            self._user_text, algorithm, blob
        )
        transport = self.transport
        if transport is None:
            return
        if not signed:
            if acceptable:
                transport.sendPacket(u.PK_OK, string(algorithm) + string(blob))
            else:
                self._refused_offers.append(fingerprint(blob))
                self._send_failure()
        elif not acceptable:
            text = f"the key {fingerprint(blob)} is not accepted"
            self._fail_attempt("publickey", Reason(ReasonCode.OFFERS_NOT_ACCEPTED, text))
        elif not self._is_signature_valid(transport, algorithm, blob, covered, signature):
            text = f"signature verification failed for the key {fingerprint(blob)}"
            self._fail_attempt("publickey", Reason(ReasonCode.SIGNATURE_INVALID, text))
        else:
            self._decide(
                u.PUBLICKEY,
                lambda: self._authenticator.log_in_by_key(self._user_text, algorithm, blob),
                counts=True,
            )

    def _is_signature_valid(
        self, transport: u.AuthTransport, algorithm: bytes, blob: bytes, covered: bytes, signature: bytes
    ) -> bool:
        """Return whether the signature of a public key request is valid for this connection."""
        session_id = transport.sessionID
        if not session_id:
            return False
        return verify_signature(algorithm, blob, u.signed_data(session_id, covered), signature)

    # --- keyboard-interactive

    def _handle_keyboard_interactive(self, submethods: str) -> None:
        """Start a keyboard-interactive attempt."""
        conversation = self._conversation = object()

        def ask(challenge: u.Challenge) -> Deferred[tuple[str, ...]]:
            if self._conversation is not conversation or self._answers is not None:
                return fail(_abandoned_error())
            return self._ask_client(challenge)

        self._decide(
            u.KEYBOARD_INTERACTIVE,
            lambda: self._authenticator.keyboard_interactive(self._user_text, submethods, ask),
            counts=True,
        )

    def _ask_client(self, challenge: u.Challenge) -> Deferred[tuple[str, ...]]:
        """Send questions. The result fires with the answers."""
        if self.transport is None:
            return fail(_abandoned_error())
        answers: Deferred[tuple[str, ...]] = Deferred(self._withdraw_question)
        self._answers = answers
        self._prompt_count = len(challenge.prompts)
        self._state = _State.ASKING
        self._login_timer.run()
        self.transport.sendPacket(u.INFO_REQUEST, u.info_request(challenge))
        # A pipelined message is either a new request, or a violation.
        self._drain()
        return answers

    def _withdraw_question(self, answers: Deferred[tuple[str, ...]]) -> None:
        """Handle an authenticator that no longer waits for the answers, which may still arrive."""
        if self._answers is answers:
            self._answers = None
            self._withdrawn_questions += 1
            self._state = _State.DECIDING
            self._login_timer.pause()

    def _handle_response(self, payload: bytes) -> None:
        """Handle INFO_RESPONSE (RFC 4256 section 3.4)."""
        self._count_request()
        raw = u.parse_info_response(payload)
        waiting, self._answers = self._answers, None
        if waiting is None:
            raise RemoteViolation("INFO_RESPONSE without a question")
        if len(raw) != self._prompt_count:
            waiting.errback(
                AccessDenied(
                    "Permission denied",
                    f"{len(raw)} answers to {self._prompt_count} questions",
                    code=ReasonCode.ANSWERS_MALFORMED,
                )
            )
            return
        try:
            answers = tuple(answer.decode("utf-8") for answer in raw)
        except UnicodeDecodeError:
            waiting.errback(
                AccessDenied("Permission denied", "an answer is not UTF-8", code=ReasonCode.ANSWERS_MALFORMED)
            )
            return
        self._state = _State.DECIDING
        self._login_timer.pause()
        waiting.callback(answers)

    # --- answers

    def _decide(self, method: bytes, attempt: Callable[[], Deferred[Identity]], *, counts: bool) -> None:
        """Make an attempt, and answer when it is decided. ``counts`` is whether a failure counts."""
        self._state = _State.DECIDING
        self._login_timer.pause()
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
        self._failures += 1
        self._audit_refusal(method, reason)
        if self._failures >= self._tries:
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
            methods = self._authenticator.methods(self._user_text)
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
        self._refused_offers.clear()
        # Requests after the successful one are ignored (RFC 4252 section 5.1); later messages are for the
        # connection protocol.
        early = [message for message in self._waiting if message[0] > u.LAST_USERAUTH]
        self._finish()
        transport.sendPacket(u.SUCCESS, b"")
        transport.setService(connection)
        for number, payload in early:
            connection.packetReceived(number, payload)

    def _audit_refusal(self, method: str, reason: Reason) -> None:
        """Report a refused attempt to the audit log."""
        self._on_refused(self._user_text, method, reason)


def _abandoned_error() -> AccessDenied:
    """Return the error for questions that the client abandoned."""
    return AccessDenied(
        "Permission denied", "the login attempt was abandoned", code=ReasonCode.QUESTIONS_ABANDONED
    )


def _parse_single_string(data: bytes) -> bytes:
    """Parse a payload of one string."""
    r = Reader(data)
    value = r.string()
    r.end()
    return value
