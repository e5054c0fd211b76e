"""The server side of the authentication protocol (RFC 4252; keyboard-interactive: RFC 4256).

Who may log in is the Authenticator's to say (``authenticator``); this module holds the order of messages.
Requests are answered strictly one after another, an offer of a key (no signature) changes nothing and is
only answered, a signature is checked with the algorithm that the request names, and nobody becomes another
user on the way. Nothing ever raises into the transport.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import AccessDenied, RemoteViolation
from conchrec.model import Identity
from conchrec.reasons import INTERNAL_ERROR, Reason, ReasonCode
from conchrec.ssh import userauth as u
from conchrec.ssh.authenticator import Authenticator, PartialSuccess
from conchrec.ssh.certificate import fingerprint
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.wire import Reader, Truncated, names, string
from conchrec.text import decode_text, one_line

_log = Logger()

#: Requests of all kinds, offers among them, that one login may take: an agent may hold many keys.
MAX_REQUESTS = 100
#: What may wait while a request is being decided.
MAX_WAITING = 64
MAX_WAITING_BYTES = 35_000
#: Longer than any account's name; what is longer is no name.
MAX_USER = 512


class _State(enum.Enum):
    IDLE = "no request is open"
    DECIDING = "the authenticator decides; what comes in waits"
    ASKING = "the client is to answer a challenge"
    OVER = "logged in, disconnected or stopped"


#: What each message does in each state; a number that is not here is unknown to the protocol.
#: While DECIDING nothing is looked at.
_ALLOWED_MESSAGES: dict[_State, frozenset[int]] = {
    _State.IDLE: frozenset({u.REQUEST}),
    _State.ASKING: frozenset({u.REQUEST, u.INFO_RESPONSE}),
}


class UserAuthServer(SSHService):
    """``ssh-userauth`` for one connection.

    ``connection`` makes the service that starts after the login. ``tries`` failures end the
    connection, and so does ``login_time`` from the service's start, of which only the client's turns
    count. ``banner`` is shown before the first answer. ``host_key`` is the key that this connection
    has shown to the client, for the host-bound method. ``on_refused(user, method, reason)`` hears of
    each try that failed, and once at the end of offers that led to nothing: it is for the audit and
    must not raise.
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
        self._clock = clock
        self._login_time = login_time
        self._tries = tries
        self._banner = banner
        self._host_key = host_key
        self._on_refused = on_refused
        self._state = _State.IDLE
        self._timer: DelayedCall | None = None
        self._time_left = login_time.total_seconds()
        self._turn_began = 0.0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._draining = False
        self._requests = 0
        self._failures = 0
        self._user: bytes | None = None
        self._user_text = ""
        self._deciding: Deferred[Identity] | None = None
        #: The conversation in hand; one that was abandoned can't go on.
        self._conversation: object | None = None
        self._answers: Deferred[tuple[str, ...]] | None = None
        self._prompt_count = 0
        #: Challenges that nobody wants answered any more; the answers may still come.
        self._withdrawn_questions = 0
        self._refused_offers: list[str] = []

    # --- life

    def serviceStarted(self) -> None:
        self._run_timer()

    def serviceStopped(self) -> None:
        """The connection is gone, or the next service takes over."""
        self._finish()
        self.transport = None

    def send_banner(self, text: str) -> None:
        """Show ``text`` to the user, at any time before the login has succeeded (RFC 4252 section 5.4)."""
        if self.transport is not None and self._state is not _State.OVER and text:
            line = text if text.endswith("\n") else text + "\n"
            self.transport.sendPacket(u.BANNER, string(line.encode("utf-8", "replace")) + string(b""))

    def _run_timer(self) -> None:
        """It is the client's turn."""
        if self._timer is None and self._state is not _State.OVER:
            self._turn_began = self._clock.seconds()
            self._timer = self._clock.callLater(max(0.0, self._time_left), self._time_out)

    def _pause_timer(self) -> None:
        """It is ours: a target that is slow to answer must not cost the user the login."""
        if self._timer is not None:
            self._time_left -= self._clock.seconds() - self._turn_began
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        seconds = round(self._login_time.total_seconds())
        self._audit_refusal(
            "login", Reason(ReasonCode.LOGIN_TIMEOUT, f"not logged in within {seconds} seconds")
        )
        text = Reason(ReasonCode.LOGIN_TIMEOUT, f"not logged in within {seconds} seconds")
        self._disconnect(DisconnectReason.BY_APPLICATION, f"conchrec: {text}")

    def _finish(self) -> None:
        if self._state is _State.OVER:
            return
        self._state = _State.OVER
        self._pause_timer()
        self._waiting.clear()
        if self._refused_offers and not self._failures:
            shown = ", ".join(self._refused_offers[:4])
            reason = Reason(ReasonCode.OFFERS_NOT_ACCEPTED, f"no offered key is accepted: {shown}")
            self._audit_refusal("publickey", reason)
        self._abandon()

    def _abandon(self) -> None:
        """Forget the attempt in hand: whatever comes of it now reaches nobody."""
        self._conversation = None
        deciding, self._deciding = self._deciding, None
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.errback(_abandoned_error())
        if deciding is not None:
            deciding.cancel()

    def _disconnect(self, reason: int, text: str) -> None:
        transport = self.transport
        self._finish()
        if transport is not None:
            transport.sendDisconnect(reason, text.encode("utf-8", "replace"))

    # --- messages in

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """One message of the client. Everything goes through one queue, so order is kept."""
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
            _log.failure("internal error during the login of a client")
            self._disconnect(DisconnectReason.BY_APPLICATION, INTERNAL_ERROR)
        finally:
            self._draining = False

    def _dispatch(self, number: int, payload: bytes) -> None:
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
        self._requests += 1
        if self._requests > MAX_REQUESTS:
            raise RemoteViolation(
                f"too many requests in one login: the limit is {MAX_REQUESTS}",
                code=ReasonCode.TOO_MANY_MESSAGES,
            )

    def _handle_request(self, payload: bytes) -> None:
        """``string user, string service, string method``, and what the method says."""
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
            self._user_text = _parse_user_name(user)
            self._user = user
            self.send_banner(self._banner)
        elif user != self._user:
            # Whatever was proved was proved for the first name (RFC 4252 section 5).
            raise RemoteViolation("the user name changed during the login")
        if method == u.NONE:
            r.end()
            # Nearly every client begins with it, to learn which methods there are.
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
        acceptable = (host_key is None or host_key == self._host_key()) and self._authenticator.offered(
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
                lambda: self._authenticator.proved(self._user_text, algorithm, blob),
                counts=True,
            )

    def _is_signature_valid(
        self, transport: u.AuthTransport, algorithm: bytes, blob: bytes, covered: bytes, signature: bytes
    ) -> bool:
        session_id = transport.sessionID
        if not session_id:
            return False
        return verify_signature(algorithm, blob, u.signed_data(session_id, covered), signature)

    # --- keyboard-interactive

    def _handle_keyboard_interactive(self, submethods: str) -> None:
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
        if self.transport is None:
            return fail(_abandoned_error())
        answers: Deferred[tuple[str, ...]] = Deferred(self._withdraw_question)
        self._answers = answers
        self._prompt_count = len(challenge.prompts)
        self._state = _State.ASKING
        self._run_timer()
        self.transport.sendPacket(u.INFO_REQUEST, u.info_request(challenge))
        # What the client has pipelined is either a new request, or out of place.
        self._drain()
        return answers

    def _withdraw_question(self, answers: Deferred[tuple[str, ...]]) -> None:
        """The authenticator waits no longer for the answers; they may be on their way."""
        if self._answers is answers:
            self._answers = None
            self._withdrawn_questions += 1
            self._state = _State.DECIDING
            self._pause_timer()

    def _handle_response(self, payload: bytes) -> None:
        """``uint32 count``, then as many answers (RFC 4256 section 3.4)."""
        self._count_request()
        r = Reader(payload)
        count = r.uint32()
        if count > len(payload) // 4:
            raise Truncated("the message is truncated")
        raw = tuple(r.string() for _ in range(count))
        r.end()
        waiting, self._answers = self._answers, None
        if waiting is None:
            raise RemoteViolation("INFO_RESPONSE without a question")
        if count != self._prompt_count:
            waiting.errback(
                AccessDenied(
                    "Permission denied",
                    f"{count} answers to {self._prompt_count} questions",
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
        self._pause_timer()
        waiting.callback(answers)

    # --- answers

    def _decide(self, method: bytes, attempt: Callable[[], Deferred[Identity]], *, counts: bool) -> None:
        """Make an attempt and answer when it is decided. A failure that ``counts`` is a try."""
        self._state = _State.DECIDING
        self._pause_timer()
        # A conversation may begin at once, so the state can be another one after this.
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
        if self._deciding is deciding:
            self._deciding = None
            self._succeed(identity)

    def _attempt_failed(
        self, failure: Failure, deciding: Deferred[Identity], method: str, counts: bool
    ) -> None:
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
            _log.failure("internal error while a login by {method} was decided", failure, method=method)
            self._fail_attempt(method, INTERNAL_ERROR)
        self._drain()

    def _report_bug(self, failure: Failure) -> None:
        _log.failure("internal error while a login was answered", failure)
        self._disconnect(DisconnectReason.BY_APPLICATION, INTERNAL_ERROR)

    def _fail_attempt(self, method: str, reason: Reason) -> None:
        """A try that counts."""
        self._failures += 1
        self._audit_refusal(method, reason)
        if self._failures >= self._tries:
            text = Reason(ReasonCode.TOO_MANY_FAILURES, "too many authentication failures")
            self._disconnect(DisconnectReason.NO_MORE_AUTH_METHODS_AVAILABLE, f"conchrec: {text}")
        else:
            self._send_failure()

    def _send_failure(self, methods: tuple[bytes, ...] | None = None, *, partial: bool = False) -> None:
        """``name-list methods that can go on, boolean partial success`` (RFC 4252 section 5.1)."""
        if methods is None:
            methods = self._authenticator.methods(self._user_text)
        if self._state is _State.OVER or self.transport is None:
            return
        self._state = _State.IDLE
        self._run_timer()
        self.transport.sendPacket(u.FAILURE, names(methods) + bytes((partial,)))

    def _succeed(self, identity: Identity) -> None:
        transport = self.transport
        if transport is None:
            return
        connection = self._connection(identity)
        self._refused_offers.clear()
        # Requests that were pipelined behind the one that succeeded are ignored (RFC 4252 section
        # 5.1); what follows them is for the next protocol.
        early = [message for message in self._waiting if message[0] > u.LAST_USERAUTH]
        self._finish()
        transport.sendPacket(u.SUCCESS, b"")
        transport.setService(connection)
        for number, payload in early:
            connection.packetReceived(number, payload)

    def _audit_refusal(self, method: str, reason: Reason) -> None:
        self._on_refused(self._user_text, method, reason)


def _abandoned_error() -> AccessDenied:
    return AccessDenied(
        "Permission denied", "the login attempt was abandoned", code=ReasonCode.QUESTIONS_ABANDONED
    )


def _parse_single_string(data: bytes) -> bytes:
    r = Reader(data)
    value = r.string()
    r.end()
    return value


def _parse_user_name(raw: bytes) -> str:
    """It goes into the audit, and to targets: no control characters, no novels, not two spellings of one."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RemoteViolation(
            "invalid user name: must be UTF-8", code=ReasonCode.INVALID_USER_NAME
        ) from error
    if not 0 < len(raw) <= MAX_USER or not name.isprintable():
        raise RemoteViolation(
            f"invalid user name: must be printable, with 1 to {MAX_USER} bytes",
            code=ReasonCode.INVALID_USER_NAME,
        )
    return name
