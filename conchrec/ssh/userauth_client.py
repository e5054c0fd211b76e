"""The client side of the authentication protocol (RFC 4252; keyboard-interactive: RFC 4256).

The first request is ``none``, which returns the server's banner and methods. Then keys are offered
(``key_login``), and then a person answers questions (``prompt_login``). The owner chooses the keys and their
order, and answers prompts. Answers and keys are never logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.coroutines import run_coroutine
from conchrec.errors import RemoteViolation, UpstreamError
from conchrec.reasons import ReasonCode
from conchrec.ssh import userauth as u
from conchrec.ssh.key_login import KeyLogin, Signers
from conchrec.ssh.login_exchange import LoginExchange, LoginProgress, LoginReply, StepOutcome
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.prompt_login import Prompter, PromptLogin
from conchrec.ssh.signers import Signer
from conchrec.ssh.wire import Reader

_log = Logger()

#: sshd's default MaxAuthTries: it ends the connection after this many refusals.
MAX_OFFERS = 6
#: The maximum number of successive methods.
MAX_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A successful login.

    ``signer`` is the key of the last step, or None if that used another method. ``steps`` are the methods
    that succeeded, in order; more than one if the server required several.
    """

    signer: Signer | None
    steps: tuple[bytes, ...]


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
        self._connection = connection
        self._on_banner = on_banner
        self._target = target
        self._exchange = LoginExchange(user)
        self._progress = LoginProgress()
        self._keys = KeyLogin(
            self._exchange,
            self._progress,
            signers=signers,
            peer_extensions=peer_extensions,
            host_key=host_key,
            on_offer=on_offer,
            on_signing=on_signing,
            max_offers=max_offers,
            sha1=sha1,
        )
        self._prompts = PromptLogin(self._exchange, self._progress, prompter=prompter, target=target)

    # --- life

    def serviceStarted(self) -> None:
        """Start the login. Called by the transport."""
        self._exchange.transport = self.transport
        run_coroutine(self._log_in()).addCallbacks(self._finish, self._fail)

    def serviceStopped(self) -> None:
        """Handle the end of the connection, or the start of the next service. Called by the transport."""
        self.transport = self._exchange.transport = None
        if not self._exchange.is_over:
            self._end(Failure(ConnectionLost("the connection ended during the login")))

    def _cancel(self, _: Deferred[Login]) -> None:
        """Handle the cancellation of ``done``."""
        self._end(None)

    def _finish(self, login: Login) -> None:
        """Fire ``done``."""
        self.done.callback(login)

    def _fail(self, failure: Failure) -> None:
        """Fail ``done``, unless the login is over."""
        if self._exchange.is_over:
            return
        error = failure.value
        if isinstance(error, RemoteViolation):
            self._fail_violation(error)
        else:
            self._end(failure)

    def _fail_violation(self, violation: RemoteViolation) -> None:
        """End the login because the server violated the protocol."""
        transport = self.transport
        is_first = not self._exchange.is_over
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
        self._exchange.end()
        if failure is not None:
            self.done.errback(failure)

    # --- messages in

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle one message of the server. Never raises."""
        if self._exchange.is_over or self.transport is None:
            return
        try:
            self._dispatch(self.transport, messageNum, packet)
        except RemoteViolation as violation:
            self._fail_violation(violation)
        except Exception:
            _log.failure("unexpected error during a login")
            if not self._exchange.is_over:
                self._end(Failure())

    def _dispatch(self, transport: u.AuthTransport, number: int, payload: bytes) -> None:
        """Handle one message. Raises RemoteViolation."""
        if number == u.BANNER:
            # ``string text, string language``; the language is not used, and some servers omit it.
            self._on_banner(Reader(payload).string())
        elif (request := self._exchange.take_request(number)) is not None:
            if number == u.SUCCESS:
                # Messages after SUCCESS in the same TCP packet are for the connection protocol.
                self._exchange.is_over = True
                transport.setService(self._connection)
            request.callback(LoginReply(number=number, payload=payload))
        elif (
            number in (u.REQUEST, u.FAILURE, u.SUCCESS, u.PK_OK, u.INFO_RESPONSE)
            or u.LAST_USERAUTH < number <= u.LAST_CONNECTION
        ):
            raise RemoteViolation(f"unexpected message {number}")
        else:
            transport.sendUnimplemented()

    # --- the sequence of methods

    async def _log_in(self) -> Login:
        """Log in with all methods that the server accepts."""
        exchange, progress = self._exchange, self._progress
        reply = await exchange.send(exchange.request(u.NONE), u.SUCCESS)
        outcome = progress.read_outcome(reply, u.NONE)
        for _ in range(MAX_STEPS):
            if outcome is StepOutcome.LOGGED_IN:
                return Login(signer=progress.signer, steps=tuple(progress.steps))
            outcome = await self._keys.run()
            if outcome is StepOutcome.REFUSED:
                outcome = await self._prompts.run()
            if outcome is StepOutcome.REFUSED:
                break
        raise progress.rejection(self._target, exchange.user)
