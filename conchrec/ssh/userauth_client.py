"""The client side of the authentication protocol (RFC 4252; keyboard-interactive: RFC 4256).

It begins with ``none``, which brings the server's banner and its methods, then offers one key after
the other: without a signature first, for a refused offer costs the user neither a touch nor a
confirmation. Which keys, and in which order, is the owner's; so is who answers prompts. No answer and
no key ever goes into a log.
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
from conchrec.text import decode_text, one_line

_log = Logger()
T = TypeVar("T")

#: sshd's MaxAuthTries: after as many refusals it ends the connection.
MAX_OFFERS = 6
#: Signers that are asked for in one go, those that this server has no use for among them.
MAX_SIGNERS = 100
#: As many methods after one another no server wants; nor as many questions.
MAX_STEPS = 10
MAX_CHALLENGES = 50
#: Questions in one message: more than anybody asks.
MAX_QUESTIONS = 32
#: How often a person may mistype (NumberOfPasswordPrompts).
MAX_PROMPTS = 3

Signers = Callable[[frozenset[bytes]], Deferred[Signer | None]]
_RSA_SHA2 = frozenset({b"rsa-sha2-512", b"rsa-sha2-256"})

Prompter = Callable[[u.Challenge], Deferred[tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How it came about. ``signer`` is the key that the last step took, None where that was another
    method; ``steps`` are the methods that succeeded, in order: ``(b"none",)`` or ``(b"publickey",)``,
    and more than one where the server wanted several."""

    signer: Signer | None
    steps: tuple[bytes, ...]


class _Outcome(enum.Enum):
    IN = "logged in"
    PARTIAL = "good, but not enough"
    REFUSED = "not good"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    number: int
    payload: bytes


class UserAuthClient(SSHService):
    """``ssh-userauth`` for one connection, as the client.

    ``signers(methods)`` fires with the next key to offer, or with None when there is none that could
    go on by one of ``methods``; then ``prompter``, where there is one, is asked for what the server
    wants to know. ``connection`` is started when the login has succeeded. ``peer_extensions`` and
    ``host_key`` are the transport's, asked again for each offer, for EXT_INFO may come late.
    ``on_banner`` gets the text of each banner as it came. ``on_offer(signer)`` is called before each
    offer, ``on_signing(signer)`` before each signature, which may wait for a person. ``target`` is how
    texts for people name the server.

    ``done`` fires once: with the Login; with LoginRejected, which says what was tried and what the
    server takes; with UpstreamError, where the server breaks the protocol (it is disconnected then);
    with whatever ``signers`` fails with; with ConnectionLost, where the connection ended and its
    transport knows why. Its owner may cancel it; the connection is then the owner's to end.
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
        #: The request that waits for its answer, and which answers there are to it.
        self._reply: Deferred[_Reply] | None = None
        self._reply_numbers: frozenset[int] = frozenset()
        self._methods: frozenset[bytes] = frozenset()
        self._steps: list[bytes] = []
        self._signer: Signer | None = None
        self._offers = 0
        self._challenges = 0
        self._tried: list[str] = []
        #: Plain keys that the server has taken as a part of what it wants.
        self._accepted_keys: set[bytes] = set()

    # --- life

    def serviceStarted(self) -> None:
        Deferred.fromCoroutine(self._log_in()).addCallbacks(self._finish, self._fail)

    def serviceStopped(self) -> None:
        """The connection is gone, or the next service takes over."""
        self.transport = None
        if not self._is_over:
            self._end(Failure(ConnectionLost("the connection ended during the login")))

    def _cancel(self, _: Deferred[Login]) -> None:
        """Nobody waits for ``done`` any more."""
        self._end(None)

    def _finish(self, login: Login) -> None:
        self.done.callback(login)

    def _fail(self, failure: Failure) -> None:
        if self._is_over:
            return
        error = failure.value
        if isinstance(error, RemoteViolation):
            self._fail_violation(error)
        else:
            self._end(failure)

    def _fail_violation(self, violation: RemoteViolation) -> None:
        """Say so to both sides."""
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
        """Whatever is going on ends here, and nothing comes of it."""
        self._is_over = True
        self._reply = None
        if self._awaited is not None:
            self._awaited.cancel()
        if failure is not None:
            self.done.errback(failure)

    # --- messages in

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """One message of the server. Never raises."""
        if self._is_over or self.transport is None:
            return
        try:
            self._dispatch(self.transport, messageNum, packet)
        except RemoteViolation as violation:
            self._fail_violation(violation)
        except Exception:
            _log.failure("internal error during a login")
            if not self._is_over:
                self._end(Failure())

    def _dispatch(self, transport: u.AuthTransport, number: int, payload: bytes) -> None:
        if number == u.BANNER:
            # ``string text, string language``; the second one nobody needs, and some leave it out.
            self._on_banner(Reader(payload).string())
        elif number in self._reply_numbers and self._reply is not None:
            answer, self._reply = self._reply, None
            if number == u.SUCCESS:
                # What follows in the same packet of TCP is for the connection already.
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
        """Send a message, and wait for one of ``answers``, SUCCESS or FAILURE."""
        transport = self.transport
        if transport is None or self._is_over:
            raise CancelledError
        self._reply_numbers = frozenset({u.FAILURE, *answers})
        answer: Deferred[_Reply] = Deferred()
        self._reply = answer
        transport.sendPacket(number, payload)
        return await self._await(answer)

    async def _await(self, waiting: Deferred[T]) -> T:
        """All that is waited for is waited for here, so that the end of the login ends it."""
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
        return string(self._user) + string(u.CONNECTION) + string(method) + rest

    # --- the order of things

    async def _log_in(self) -> Login:
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
        """``name-list methods that can go on, boolean partial success`` in a FAILURE."""
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
        methods = ",".join(sorted(one_line(name, 64) for name in self._methods)) or "nothing"
        steps = ", ".join(one_line(name, 64) for name in self._steps)
        user = one_line(self._user)
        tried = ", ".join(self._tried)
        return LoginRejected(
            f"{self._target} rejected the login as {user}: "
            + (f"{steps} succeeded but was not sufficient; " if steps else "")
            + (f"tried {tried}; " if tried else "there was nothing to try; ")
            + f"it accepts {methods}",
            code=ReasonCode.LOGIN_REJECTED,
        )

    # --- public keys

    async def _try_keys(self) -> _Outcome:
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
        """Offer a key, and sign where it is welcome (RFC 4252 section 7)."""
        key = _plain_key(signer.blob)
        if key in self._accepted_keys or u.PUBLICKEY not in self._methods:
            return _Outcome.REFUSED
        extensions = self._peer_extensions()
        accepted = _accepted_algorithms(extensions)
        algorithm = signer.algorithm(accepted)
        if self._sha1 and _is_rsa(signer.blob) and not (accepted and accepted & _RSA_SHA2):
            # It is older than RFC 8332.
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
            _log.failure("internal error while {label} signed a login", label=signer.label)
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
        """An offer proves nothing, whatever the server says of it."""
        if self._read_outcome(reply, u.PUBLICKEY) is _Outcome.PARTIAL:
            raise RemoteViolation("a key was accepted without a signature")
        return _Outcome.REFUSED

    def _key_request(
        self, signer: Signer, algorithm: bytes, host_key: bytes | None, *, signed: bool
    ) -> bytes:
        return u.publickey_request(
            user=self._user, algorithm=algorithm, blob=signer.blob, host_key=host_key, signed=signed
        )

    def _session_id(self) -> bytes:
        session_id = self.transport.sessionID if self.transport is not None else None
        if not session_id:
            raise LocalViolation("a login before the key exchange")
        return session_id

    # --- prompts

    async def _try_prompts(self) -> _Outcome:
        """What a person can answer; the server's own questions before our question for a password."""
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
        request = self._request(u.KEYBOARD_INTERACTIVE, string(b"") + string(b""))
        reply = await self._send(request, u.SUCCESS, u.INFO_REQUEST)
        while reply.number == u.INFO_REQUEST:
            self._challenges += 1
            if self._challenges > MAX_CHALLENGES:
                raise RemoteViolation(
                    f"too many questions in one login: the limit is {MAX_CHALLENGES} messages",
                    code=ReasonCode.TOO_MANY_MESSAGES,
                )
            answers = await self._ask_user(prompter, _parse_challenge(reply.payload))
            reply = await self._send(
                u.info_response(answers), u.SUCCESS, u.INFO_REQUEST, number=u.INFO_RESPONSE
            )
        return self._read_outcome(reply, u.KEYBOARD_INTERACTIVE)

    async def _send_password(self, prompter: Prompter) -> _Outcome:
        user = one_line(self._user)
        prompt = u.Prompt(text=f"{user}@{self._target}'s password: ")
        (password,) = await self._ask_user(prompter, u.Challenge(prompts=(prompt,)))
        request = self._request(u.PASSWORD, b"\0" + string(password.encode()))
        reply = await self._send(request, u.SUCCESS, u.PASSWD_CHANGEREQ)
        if reply.number == u.PASSWD_CHANGEREQ:
            raise _NoAnswer("it has expired: set a new one at the target")
        return self._read_outcome(reply, u.PASSWORD)

    async def _ask_user(self, prompter: Prompter, challenge: u.Challenge) -> tuple[str, ...]:
        try:
            answers = await self._await(prompter(challenge))
        except ConchrecError as error:
            raise _NoAnswer(error.public) from error
        if len(answers) != len(challenge.prompts):
            raise LocalViolation(f"{len(answers)} answers to {len(challenge.prompts)} questions")
        return answers


class _NoAnswer(Exception):
    """A person can't, or does not want to, go on."""


def _accepted_algorithms(extensions: Mapping[bytes, bytes]) -> Accepted:
    """RFC 8308 section 3.1."""
    names = extensions.get(b"server-sig-algs")
    return None if names is None else frozenset(names.split(b","))


def _is_rsa(blob: bytes) -> bool:
    try:
        return key_type_of(blob) == b"ssh-rsa"
    except RemoteViolation:
        return False


def _plain_key(blob: bytes) -> bytes:
    """sshd takes a key and its certificate for one and the same, where it wants two."""
    try:
        key_type = key_type_of(blob)
        return blob if plain_type(key_type) == key_type else decode(blob).public_key
    except RemoteViolation:
        return blob


def _check_pk_ok(payload: bytes, blob: bytes) -> None:
    """``string algorithm, string blob``. Servers are not agreed on the algorithm's name."""
    r = Reader(payload)
    r.string()
    if r.string() != blob:
        raise RemoteViolation("PK_OK for a key that was not offered")
    r.end()


def _parse_challenge(payload: bytes) -> u.Challenge:
    """``string name, string instruction, string language, uint32 count, (string prompt, boolean echo)…``"""
    r = Reader(payload)
    name, instruction = decode_text(r.string()), decode_text(r.string())
    r.string()
    count = r.uint32()
    if count > MAX_QUESTIONS:
        raise RemoteViolation(f"too many questions in one message: the limit is {MAX_QUESTIONS}")
    prompts = tuple(u.Prompt(text=decode_text(r.string()), echo=r.boolean()) for _ in range(count))
    r.end()
    return u.Challenge(name=name, instruction=instruction, prompts=prompts)
