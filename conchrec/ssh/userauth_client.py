"""The client side of the authentication protocol (RFC 4252; keyboard-interactive: RFC 4256).

The first request is ``none``, which returns the server's banner and methods. Then keys are offered one
after another, first without a signature, so that a refused key does not need a touch or a confirmation. The
owner chooses the keys and their order, and answers prompts. Answers and keys are never logged.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError, LocalViolation, LoginRejected, RemoteViolation, UpstreamError
from conchrec.reasons import ReasonCode
from conchrec.ssh import userauth as u
from conchrec.ssh.certificate import decode, key_type_of, plain_type
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.signers import Accepted, Signer
from conchrec.ssh.wire import Reader, string
from conchrec.text import one_line

_log = Logger()
T = TypeVar("T")

#: sshd's default MaxAuthTries: it ends the connection after this many refusals.
MAX_OFFERS = 6
#: The maximum number of signers, including those that the server cannot use.
MAX_SIGNERS = 100
#: The maximum number of successive methods, and of messages with questions.
MAX_STEPS = 10
MAX_CHALLENGES = 50
#: The number of attempts that a person has (OpenSSH's NumberOfPasswordPrompts).
MAX_PROMPTS = 3

Signers = Callable[[frozenset[bytes]], Deferred[Signer | None]]
_RSA_SHA2 = frozenset({b"rsa-sha2-512", b"rsa-sha2-256"})

Prompter = Callable[[u.Challenge], Deferred[tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A successful login.

    ``signer`` is the key of the last step, or None if that used another method. ``steps`` are the methods
    that succeeded, in order; more than one if the server required several.
    """

    signer: Signer | None
    steps: tuple[bytes, ...]


class _Outcome(enum.Enum):
    """The server's answer to one method."""

    IN = "logged in"
    PARTIAL = "good, but not enough"
    REFUSED = "not good"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """A message that answers our request."""

    number: int
    payload: bytes


class UserAuthClient(SSHService):
    """The service ``ssh-userauth`` of a client, for one connection.

    ``signers(methods)`` fires with the next key to offer, or None if no key is left for ``methods``. Then
    ``prompter``, if given, answers the server's questions. ``connection`` is started after the login.
    ``peer_extensions`` and ``host_key`` return the transport's values; they are called for each offer,
    because EXT_INFO may arrive late. ``on_banner`` gets the text of each banner, not escaped.
    ``on_offer(signer)`` is called before each offer, and ``on_signing(signer)`` before each signature,
    which may wait for a person. ``target`` is the server's name in texts for people.

    ``done`` fires once with the Login, or fails:

    - LoginRejected: what was tried, and which methods the server accepts
    - UpstreamError: the server violated the protocol, and was disconnected
    - ConnectionLost: the connection ended; the transport has the reason
    - any error of ``signers``

    The owner may cancel ``done``, and then ends the connection itself.
    """

    name = b"ssh-userauth"
    transport: u.AuthTransport | None  # type: ignore[assignment]  # Conch declares its own concrete class

    def __init__(
        self,
        user: bytes,
        signers: Signers,
        connection: SSHService,
        *,
        on_banner: Callable[[bytes], None],
        peer_extensions: Callable[[], Mapping[bytes, bytes]],
        host_key: Callable[[], bytes],
        on_offer: Callable[[Signer], None] = lambda signer: None,
        on_signing: Callable[[Signer], None] = lambda signer: None,
        prompter: Prompter | None = None,
        max_offers: int = MAX_OFFERS,
        sha1: bool = False,
        target: str = "the target",
    ) -> None:
        self.transport = None
        self.done: Deferred[Login] = Deferred(self._cancel)
        self._user = user
        self._signers = signers
        self._connection = connection
        self._on_banner = on_banner
        self._peer_extensions = peer_extensions
        self._host_key = host_key
        self._on_offer = on_offer
        self._on_signing = on_signing
        self._prompter = prompter
        self._max_offers = max_offers
        self._sha1 = sha1
        self._target = target
        self._is_over = False
        self._awaited: Deferred[Any] | None = None
        #: The open request, and the message numbers that answer it.
        self._reply: Deferred[_Reply] | None = None
        self._reply_numbers: frozenset[int] = frozenset()
        self._methods: frozenset[bytes] = frozenset()
        self._steps: list[bytes] = []
        self._signer: Signer | None = None
        self._offers = 0
        self._challenges = 0
        self._tried: list[str] = []
        #: Plain keys that were accepted as one step of the login.
        self._accepted_keys: set[bytes] = set()

    # --- life

    def serviceStarted(self) -> None:
        """Start the login. Called by the transport."""
        Deferred.fromCoroutine(self._log_in()).addCallbacks(self._finish, self._fail)

    def serviceStopped(self) -> None:
        """Handle the end of the connection, or the start of the next service. Called by the transport."""
        self.transport = None
        if not self._is_over:
            self._end(Failure(ConnectionLost("the connection ended during the login")))

    def _cancel(self, _: Deferred[Login]) -> None:
        """Handle the cancellation of ``done``."""
        self._end(None)

    def _finish(self, login: Login) -> None:
        """Fire ``done``."""
        self.done.callback(login)

    def _fail(self, failure: Failure) -> None:
        """Fail ``done``, unless the login is over."""
        if self._is_over:
            return
        error = failure.value
        if isinstance(error, RemoteViolation):
            self._fail_violation(error)
        else:
            self._end(failure)

    def _fail_violation(self, violation: RemoteViolation) -> None:
        """End the login because the server violated the protocol."""
        transport = self.transport
        is_first = not self._is_over
        self._end(None)
        if transport is not None:
            transport.sendDisconnect(DisconnectReason.PROTOCOL_ERROR, violation.public.encode())
        if is_first and not self.done.called:
            text = f"{self._target} violated the SSH protocol during the login: {violation.public}"
            self.done.errback(
                Failure(UpstreamError(text, violation.detail, code=ReasonCode.TARGET_PROTOCOL_ERROR))
            )

    def _end(self, failure: Failure | None) -> None:
        """End the login. Further messages are ignored."""
        self._is_over = True
        self._reply = None
        if self._awaited is not None:
            self._awaited.cancel()
        if failure is not None:
            self.done.errback(failure)

    # --- messages in

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle one message of the server. Never raises."""
        if self._is_over or self.transport is None:
            return
        try:
            self._dispatch(self.transport, messageNum, packet)
        except RemoteViolation as violation:
            self._fail_violation(violation)
        except Exception:
            _log.failure("unexpected error during a login")
            if not self._is_over:
                self._end(Failure())

    def _dispatch(self, transport: u.AuthTransport, number: int, payload: bytes) -> None:
        """Handle one message. Raises RemoteViolation."""
        if number == u.BANNER:
            # ``string text, string language``; the language is not used, and some servers omit it.
            self._on_banner(Reader(payload).string())
        elif number in self._reply_numbers and self._reply is not None:
            answer, self._reply = self._reply, None
            if number == u.SUCCESS:
                # Messages after SUCCESS in the same TCP packet are for the connection protocol.
                self._is_over = True
                transport.setService(self._connection)
            answer.callback(_Reply(number=number, payload=payload))
        elif (
            number in (u.REQUEST, u.FAILURE, u.SUCCESS, u.PK_OK, u.INFO_RESPONSE)
            or u.LAST_USERAUTH < number <= u.LAST_CONNECTION
        ):
            raise RemoteViolation(f"unexpected message {number}")
        else:
            transport.sendUnimplemented()

    # --- messages out

    async def _send(self, payload: bytes, *answers: int, number: int = u.REQUEST) -> _Reply:
        """Send a message and wait for a reply: one of ``answers``, or FAILURE."""
        transport = self.transport
        if transport is None or self._is_over:
            raise CancelledError
        self._reply_numbers = frozenset({u.FAILURE, *answers})
        answer: Deferred[_Reply] = Deferred()
        self._reply = answer
        transport.sendPacket(number, payload)
        return await self._await(answer)

    async def _await(self, waiting: Deferred[T]) -> T:
        """Wait for a Deferred. The end of the login cancels it."""
        if self._is_over:
            waiting.addErrback(lambda _: None)
            waiting.cancel()
            raise CancelledError
        self._awaited = waiting
        try:
            return await waiting
        finally:
            self._awaited = None

    def _request(self, method: bytes, rest: bytes = b"") -> bytes:
        """Encode a request: ``string user, string service, string method``, then method-specific data."""
        return string(self._user) + string(u.CONNECTION) + string(method) + rest

    # --- the order of things

    async def _log_in(self) -> Login:
        """Log in with all methods that the server accepts."""
        reply = await self._send(self._request(u.NONE), u.SUCCESS)
        outcome = self._read_outcome(reply, u.NONE)
        for _ in range(MAX_STEPS):
            if outcome is _Outcome.IN:
                return Login(signer=self._signer, steps=tuple(self._steps))
            outcome = await self._try_keys()
            if outcome is _Outcome.REFUSED:
                outcome = await self._try_prompts()
            if outcome is _Outcome.REFUSED:
                break
        raise self._rejection()

    def _read_outcome(self, reply: _Reply, method: bytes, signer: Signer | None = None) -> _Outcome:
        """Read SUCCESS, or FAILURE: ``name-list methods that can continue, boolean partial success``"""
        if reply.number != u.SUCCESS:
            r = Reader(reply.payload)
            self._methods = frozenset(r.names())
            partial = r.boolean()
            r.end()
            if not partial:
                return _Outcome.REFUSED
        self._steps.append(method)
        self._signer = signer
        return _Outcome.IN if reply.number == u.SUCCESS else _Outcome.PARTIAL

    def _rejection(self) -> LoginRejected:
        """Return the error for a login that the server rejected."""
        methods = ",".join(sorted(one_line(name, 64) for name in self._methods)) or "nothing"
        steps = ", ".join(one_line(name, 64) for name in self._steps)
        user = one_line(self._user)
        tried = ", ".join(self._tried)
        return LoginRejected(
            f"{self._target} rejected the login as {user}: "
            + (f"{steps} succeeded but was not sufficient; " if steps else "")
            + (f"tried {tried}; " if tried else "no usable credential; ")
            + f"it accepts {methods}",
            code=ReasonCode.LOGIN_REJECTED,
        )

    # --- public keys

    async def _try_keys(self) -> _Outcome:
        """Offer keys until one succeeds or none is left."""
        for _ in range(MAX_SIGNERS):
            if self._offers >= self._max_offers:
                break
            signer = await self._await(self._signers(self._methods))
            if signer is None:
                break
            outcome = await self._try_key(signer)
            if outcome is not _Outcome.REFUSED:
                return outcome
        return _Outcome.REFUSED

    async def _try_key(self, signer: Signer) -> _Outcome:
        """Offer a key, and sign if the server accepts the offer (RFC 4252 section 7)."""
        key = _plain_key(signer.blob)
        if key in self._accepted_keys or u.PUBLICKEY not in self._methods:
            return _Outcome.REFUSED
        extensions = self._peer_extensions()
        accepted = _accepted_algorithms(extensions)
        algorithm = signer.algorithm(accepted)
        if self._sha1 and _is_rsa(signer.blob) and not (accepted and accepted & _RSA_SHA2):
            # The server is older than RFC 8332.
            algorithm = b"ssh-rsa"
        if algorithm is None:
            self._tried.append(f"{signer.label} (the target does not accept its algorithm)")
            return _Outcome.REFUSED
        host_key = self._host_key() if u.HOSTBOUND_EXTENSION in extensions else None
        self._offers += 1
        self._on_offer(signer)
        reply = await self._send(self._key_request(signer, algorithm, host_key, signed=False), u.PK_OK)
        if reply.number == u.FAILURE:
            self._tried.append(signer.label)
            return self._read_offer_outcome(reply)
        _check_pk_ok(reply.payload, signer.blob)
        request = self._key_request(signer, algorithm, host_key, signed=True)
        data = u.signed_data(self._session_id(), request)
        self._on_signing(signer)
        try:
            signature = await self._await(signer.sign(data, algorithm))
        except CancelledError:
            raise
        except ConchrecError as error:
            self._tried.append(f"{signer.label} ({error.public})")
            return _Outcome.REFUSED
        except Exception:
            _log.failure("unexpected error while {label} signed a login", label=signer.label)
            self._tried.append(f"{signer.label} (signing failed)")
            return _Outcome.REFUSED
        reply = await self._send(request + string(signature), u.SUCCESS)
        outcome = self._read_outcome(reply, u.PUBLICKEY, signer)
        if outcome is _Outcome.PARTIAL:
            self._accepted_keys.add(key)
        elif outcome is _Outcome.REFUSED:
            self._tried.append(f"{signer.label} (the target rejected its signature)")
        return outcome

    def _read_offer_outcome(self, reply: _Reply) -> _Outcome:
        """Read the FAILURE after an offer. An offer proves nothing, so partial success is a violation."""
        if self._read_outcome(reply, u.PUBLICKEY) is _Outcome.PARTIAL:
            raise RemoteViolation("a key was accepted without a signature")
        return _Outcome.REFUSED

    def _key_request(
        self, signer: Signer, algorithm: bytes, host_key: bytes | None, *, signed: bool
    ) -> bytes:
        """Encode a public key request."""
        return u.publickey_request(
            user=self._user, algorithm=algorithm, blob=signer.blob, host_key=host_key, signed=signed
        )

    def _session_id(self) -> bytes:
        """Return the session identifier. Raises LocalViolation before the key exchange."""
        session_id = self.transport.sessionID if self.transport is not None else None
        if not session_id:
            raise LocalViolation("a login before the key exchange")
        return session_id

    # --- prompts

    async def _try_prompts(self) -> _Outcome:
        """Try the methods that a person can answer: first the server's questions, then a password."""
        prompter = self._prompter
        if prompter is None:
            return _Outcome.REFUSED
        attempts = ((u.KEYBOARD_INTERACTIVE, self._answer_questions), (u.PASSWORD, self._send_password))
        for method, attempt in attempts:
            for _ in range(MAX_PROMPTS):
                if method not in self._methods:
                    break
                try:
                    outcome = await attempt(prompter)
                except _NoAnswer as error:
                    self._tried.append(f"{one_line(method, 64)} ({error})")
                    return _Outcome.REFUSED
                if outcome is not _Outcome.REFUSED:
                    return outcome
                if one_line(method, 64) not in self._tried:
                    self._tried.append(one_line(method, 64))
        return _Outcome.REFUSED

    async def _answer_questions(self, prompter: Prompter) -> _Outcome:
        """Log in with keyboard-interactive (RFC 4256)."""
        request = self._request(u.KEYBOARD_INTERACTIVE, string(b"") + string(b""))
        reply = await self._send(request, u.SUCCESS, u.INFO_REQUEST)
        while reply.number == u.INFO_REQUEST:
            self._challenges += 1
            if self._challenges > MAX_CHALLENGES:
                raise RemoteViolation(
                    f"too many questions in one login: the limit is {MAX_CHALLENGES} messages",
                    code=ReasonCode.TOO_MANY_MESSAGES,
                )
            answers = await self._ask_user(prompter, u.parse_info_request(reply.payload))
            reply = await self._send(
                u.info_response(answers), u.SUCCESS, u.INFO_REQUEST, number=u.INFO_RESPONSE
            )
        return self._read_outcome(reply, u.KEYBOARD_INTERACTIVE)

    async def _send_password(self, prompter: Prompter) -> _Outcome:
        """Log in with a password (RFC 4252 section 8)."""
        user = one_line(self._user)
        prompt = u.Prompt(text=f"{user}@{self._target}'s password: ")
        (password,) = await self._ask_user(prompter, u.Challenge(prompts=(prompt,)))
        request = self._request(u.PASSWORD, b"\0" + string(password.encode()))
        reply = await self._send(request, u.SUCCESS, u.PASSWD_CHANGEREQ)
        if reply.number == u.PASSWD_CHANGEREQ:
            raise _NoAnswer("it has expired: set a new one at the target")
        return self._read_outcome(reply, u.PASSWORD)

    async def _ask_user(self, prompter: Prompter, challenge: u.Challenge) -> tuple[str, ...]:
        """Return the answers of a person. Raises _NoAnswer."""
        try:
            answers = await self._await(prompter(challenge))
        except ConchrecError as error:
            raise _NoAnswer(error.public) from error
        if len(answers) != len(challenge.prompts):
            detail = f"{len(answers)} answers to {len(challenge.prompts)} questions"
            raise LocalViolation(detail)
        return answers


class _NoAnswer(Exception):
    """A person cannot or does not want to answer."""


def _accepted_algorithms(extensions: Mapping[bytes, bytes]) -> Accepted:
    """Return the algorithms in ``server-sig-algs`` (RFC 8308 section 3.1), or None without that extension."""
    names = extensions.get(b"server-sig-algs")
    return None if names is None else frozenset(names.split(b","))


def _is_rsa(blob: bytes) -> bool:
    """Return whether a blob is a plain RSA key."""
    try:
        return key_type_of(blob) == b"ssh-rsa"
    except RemoteViolation:
        return False


def _plain_key(blob: bytes) -> bytes:
    """Return the plain key of a blob. sshd treats a key and its certificate as the same key."""
    try:
        key_type = key_type_of(blob)
        return blob if plain_type(key_type) == key_type else decode(blob).public_key
    except RemoteViolation:
        return blob


def _check_pk_ok(payload: bytes, blob: bytes) -> None:
    """Check PK_OK: ``string algorithm, string blob``. Servers differ in the name of the algorithm."""
    r = Reader(payload)
    r.string()
    if r.string() != blob:
        raise RemoteViolation("PK_OK for a key that was not offered")
    r.end()
