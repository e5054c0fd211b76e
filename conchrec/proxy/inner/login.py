"""The login of the inner connection, for the user of the outer connection only.

When the client names the login, the policy decides, and the target is dialled at once, unless the user must
pass steps before: a second factor, or an approval. The steps are keyboard-interactive questions after the
key; a client that does not support them shows a banner that says what is required. A user who fails a step is
logged in anyway, and reads the reason in the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, fail

from conchrec.access import policy
from conchrec.access.credentials import fingerprint
from conchrec.access.options import Mfa, SessionOptions
from conchrec.audit import events
from conchrec.config.model import InnerAuth
from conchrec.coroutines import run_coroutine
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy import refusals
from conchrec.proxy.authorization import access_denied, check_steps, decide_access
from conchrec.proxy.connection_counts import check_connections
from conchrec.proxy.login import approval_step, second_factor
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.reasons import ReasonCode
from conchrec.ssh.authenticator import Ask, PartialSuccess
from conchrec.ssh.userauth import KEYBOARD_INTERACTIVE, PUBLICKEY

Say = Callable[[str], None]


class LoginStep(Protocol):
    """A step that a user must pass before the target is dialled."""

    @property
    def why(self) -> str:
        """What the user must do, in one line."""

    async def pass_(self, ask: Ask, say: Say) -> None:
        """Ask the user, and wait for the answer. Raises AccessDenied, whose text the user reads."""


#: Returns the step that a login needs; None if it needs none.
StepFactory = Callable[[TargetAccess], LoginStep | None]

#: The steps, in the order in which a user passes them.
STEPS: tuple[StepFactory, ...] = (second_factor.take_step, approval_step.take_step)


def may_need_steps(options: SessionOptions) -> bool:
    """Whether a login with these options may need a step."""
    return bool(options.approval) or options.require_mfa is Mfa.SESSION


class InnerLogin:
    """The Authenticator of the inner connection.

    ``begin`` dials the target, ``say`` shows a banner, ``algorithms`` returns the agreed ones.
    """

    def __init__(
        self,
        access: TargetAccess,
        upstream: Upstream,
        begin: Callable[[], None],
        *,
        say: Say,
        algorithms: Callable[[], tuple[bytes, ...]],
    ) -> None:
        self._access = access
        self._context = access.context
        self._begin = begin
        self._say = say
        self._algorithms = algorithms
        self._upstream = upstream
        self._has_begun = False
        #: The user has proved a key (or needs none); steps or the target's questions remain.
        self._has_questions = False

    def methods(self, user: str) -> tuple[bytes, ...]:
        """Return the methods that can continue."""
        return (KEYBOARD_INTERACTIVE,) if self._has_questions else (PUBLICKEY,)

    def none(self, user: str) -> Deferred[Identity]:
        """Log the user in without a key, if the configuration or the outer login allows it."""
        access = self._access
        self._name_login(user)
        inner_auth = self._context.settings.config.inner_auth
        if inner_auth is InnerAuth.TUNNEL or access.identity.method != "publickey":
            return self._succeed("none", None)
        return fail(
            AccessDenied("Permission denied", "the user must prove a key", code=ReasonCode.KEY_REQUIRED)
        )

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Whether the user may prove this key: it is one of the user of the outer connection."""
        return self._identity_of(algorithm, blob) is not None

    def _identity_of(self, algorithm: bytes, blob: bytes) -> Identity | None:
        access, now = self._access, self._context.services.now()
        credentials = self._context.settings.credentials
        return credentials.identity_of_inner_login(
            access.identity, algorithm, blob, access.origin.source, now
        )

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """Log the user in with a key that was proved."""
        self._name_login(user)
        inner = self._identity_of(algorithm, blob)
        if inner is None:
            return fail(
                AccessDenied(
                    "Permission denied",
                    "the key is not one of the user of the outer connection",
                    code=ReasonCode.KEY_OF_OTHER_USER,
                )
            )
        return self._succeed("publickey", inner)

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Ask the questions of the steps, and then those of the target."""
        return run_coroutine(self._ask_questions(ask))

    async def _ask_questions(self, ask: Ask) -> Identity:
        access, upstream = self._access, self._upstream
        if not self._has_questions:
            raise AccessDenied(
                "Permission denied",
                "the client requested keyboard-interactive before it proved a key",
                code=ReasonCode.KEY_REQUIRED,
            )
        while not self._has_begun and access.denied is None:
            step = self._take_next_step()
            if step is None:
                self._dial()
                break
            try:
                await step.pass_(ask, self._say)
            except AccessDenied as error:
                self._deny(error)
            else:
                # The policy may have changed while the user answered: it may deny now, or need other steps.
                self._ask_policy()
        if access.denied is not None:
            return access.identity
        while True:
            await upstream.when_settled()
            challenge = upstream.questions.open
            if challenge is None:
                return access.identity
            upstream.questions.answer(challenge, await ask(challenge))

    # --- the policy

    def _name_login(self, login: str) -> None:
        """Ask the policy about the login that the client names first, and dial if no step is needed."""
        access = self._access
        if access.login:
            return
        access.set_login(login)
        self._ask_policy()
        # A step may use up a proof, so it begins only after the user has proved a key.
        if access.options is not None and not may_need_steps(access.options):
            self._dial()

    def _ask_policy(self) -> None:
        access = self._access
        if access.denied is not None:
            return
        answer = decide_access(access)
        if isinstance(answer, policy.Deny):
            self._deny(access_denied(answer))
            return
        access.set_allowed(answer)
        access.set_permitted_addresses(answer.addresses)
        try:
            if self._has_begun:
                check_steps(access)
            else:
                # Once begun, this connection would be counted, too.
                check_connections(access)
        except AccessDenied as error:
            self._deny(error)

    def _deny(self, error: AccessDenied) -> None:
        access = self._access
        if access.denied is not None:
            return
        access.set_denied(error)
        self._context.emit(refusals.failure_event(error, access.who()))

    def _take_next_step(self) -> LoginStep | None:
        """Return the next step, if one is needed. Uses up a proof or an approval that exists already."""
        return next((step for make in STEPS if (step := make(self._access)) is not None), None)

    def _dial(self) -> None:
        if not self._has_begun and self._access.denied is None:
            self._has_begun = True
            self._begin()

    # --- the success

    def _succeed(self, method: str, inner: Identity | None) -> Deferred[Identity]:
        """Return a Deferred that fires when the steps are passed and the target has accepted or refused."""
        access = self._access
        access.set_inner_identity(inner)
        self._ask_policy()
        step = self._take_next_step() if access.denied is None and not self._has_begun else None
        blob = (inner.certificate or inner.key) if inner is not None else b""
        self._context.emit(
            events.UserLogin(
                **access.who(),
                method=method,
                key=fingerprint(blob) if blob else "",
                stage="inner",
                roles=access.identity.roles,
                second_factor=access.second_factor,
                algorithms=tuple(name.decode() for name in self._algorithms()),
            )
        )
        result: Deferred[Identity] = Deferred()
        if access.denied is not None:
            result.callback(access.identity)
        elif step is not None:
            self._say(f"conchrec: {step.why}")
            self._continue_with_questions(method, result)
        else:
            self._dial()
            self._upstream.when_settled().addCallback(lambda _: self._settle(method, result))
        return result

    def _settle(self, method: str, result: Deferred[Identity]) -> None:
        if result.called:
            return
        if self._upstream.questions.open is None:
            result.callback(self._access.identity)
        else:
            self._continue_with_questions(method, result)

    def _continue_with_questions(self, method: str, result: Deferred[Identity]) -> None:
        self._has_questions = True
        if method == "none":
            # It proves nothing, so it is no partial success.
            result.errback(
                AccessDenied(
                    "Permission denied", "the user must answer questions", code=ReasonCode.QUESTIONS_PENDING
                )
            )
        else:
            result.errback(PartialSuccess((KEYBOARD_INTERACTIVE,)))

    def refused(self, user: str, method: str, reason: str) -> None:
        """Audit that a login was refused."""
        self._context.emit(
            events.AuthRefused(**self._access.who(), reason=reason, method=method, stage="inner")
        )
