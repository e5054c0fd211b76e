"""The login of the inner connection: the very user of the outer one, and nobody else.

The policy is asked when the client names the login, and the target is dialled at once, unless there are
steps to be passed before: a second factor, somebody's approval. They are questions of keyboard-interactive,
after the key; a client that can't be asked reads in a banner what is wanted. Who does not pass is let in all
the same, and reads why in the session.
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
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy import refusals
from conchrec.proxy.authorization import access_denied, check_connections, check_steps, decide_access
from conchrec.proxy.login import approval_step, second_factor
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.reasons import ReasonCode
from conchrec.ssh.authenticator import Ask, PartialSuccess
from conchrec.ssh.userauth import KEYBOARD_INTERACTIVE, PUBLICKEY

Say = Callable[[str], None]


class LoginStep(Protocol):
    """What has to be passed before the target is dialled. ``why`` is one line for the user."""

    @property
    def why(self) -> str: ...

    async def pass_(self, ask: Ask, say: Say) -> None:
        """Ask, and wait. Raises AccessDenied, whose text the user reads."""


Needs = Callable[[TargetAccess], LoginStep | None]

STEPS: tuple[Needs, ...] = (second_factor.step, approval_step.step)
"""In this order. Asked of each login that the policy allows: None where it needs no such step."""


def may_need_steps(options: SessionOptions) -> bool:
    return bool(options.approval) or options.require_mfa is Mfa.SESSION


class InnerLogin:
    """See the module; the Authenticator of the inner connection. ``begin`` dials the target, ``say`` shows a
    banner."""

    def __init__(self, access: TargetAccess, begin: Callable[[], None], *, say: Say) -> None:
        self._access = access
        self._context = access.context
        self._begin = begin
        self._say = say
        self.upstream: Upstream | None = None
        self._begun = False
        #: The user has proved who it is; what is still to come are steps, and the target's questions.
        self._welcomed = False

    def methods(self, user: str) -> tuple[bytes, ...]:
        return (KEYBOARD_INTERACTIVE,) if self._welcomed else (PUBLICKEY,)

    def none(self, user: str) -> Deferred[Identity]:
        access = self._access
        self._named(user)
        inner_auth = self._context.settings.config.inner_auth
        if inner_auth is InnerAuth.TUNNEL or access.identity.method != "publickey":
            return self._welcome("none", None)
        return fail(
            AccessDenied("Permission denied", "the user must prove a key", code=ReasonCode.KEY_REQUIRED)
        )

    def offered(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        return self._own(algorithm, blob) is not None

    def _own(self, algorithm: bytes, blob: bytes) -> Identity | None:
        access, now = self._access, self._context.services.now()
        credentials = self._context.settings.credentials
        return credentials.own(access.identity, algorithm, blob, access.origin.source, now)

    def proved(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        self._named(user)
        inner = self._own(algorithm, blob)
        if inner is None:
            return fail(
                AccessDenied(
                    "Permission denied",
                    "the key is not one of the user of the outer connection",
                    code=ReasonCode.KEY_OF_OTHER_USER,
                )
            )
        return self._welcome("publickey", inner)

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """The steps, then the target's questions, which become the inner login's."""
        return Deferred.fromCoroutine(self._answer(ask))

    async def _answer(self, ask: Ask) -> Identity:
        access, upstream = self._access, self.upstream
        if not self._welcomed or upstream is None:
            raise AccessDenied(
                "Permission denied", "keyboard-interactive before a key", code=ReasonCode.KEY_REQUIRED
            )
        while not self._begun and access.denied is None:
            step = self._needed()
            if step is None:
                self._dial()
                break
            try:
                await step.pass_(ask, self._say)
            except AccessDenied as error:
                self._deny(error)
            else:
                # What was allowed before the questions may not be any more, or ask for other steps.
                self._judge()
        if access.denied is not None:
            return access.identity
        while True:
            await upstream.when_settled()
            challenge = upstream.questions.open
            if challenge is None:
                return access.identity
            upstream.questions.answer(challenge, await ask(challenge))

    # --- what is allowed

    def _named(self, login: str) -> None:
        """The client has named the login: ask the policy, and dial where it allows."""
        access = self._access
        if access.login:
            return
        access.set_login(login)
        self._judge()
        # What a step would use up is not touched before the user has proved who it is.
        if access.options is not None and not may_need_steps(access.options):
            self._dial()

    def _judge(self) -> None:
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
            if self._begun:
                check_steps(access)
            else:
                # Later it would be counted itself.
                check_connections(access)
        except AccessDenied as error:
            self._deny(error)

    def _deny(self, error: AccessDenied) -> None:
        access = self._access
        if access.denied is not None:
            return
        access.set_denied(error)
        self._context.emit(refusals.event(error, access.who()))

    def _needed(self) -> LoginStep | None:
        """The next step. Uses what there is in its place: a proof, what was approved in advance."""
        return next((step for needs in STEPS if (step := needs(self._access)) is not None), None)

    def _dial(self) -> None:
        if not self._begun and self._access.denied is None:
            self._begun = True
            self._begin()

    # --- the welcome

    def _welcome(self, method: str, inner: Identity | None) -> Deferred[Identity]:
        """Logged in, once the steps are passed and the target has been heard."""
        access = self._access
        access.set_inner_identity(inner)
        self._judge()
        step = self._needed() if access.denied is None and not self._begun else None
        blob = (inner.certificate or inner.key) if inner is not None else b""
        self._context.emit(
            events.UserLogin(
                **access.who(),
                method=method,
                key=fingerprint(blob) if blob else "",
                stage="inner",
                roles=access.identity.roles,
                second_factor=access.second_factor,
            )
        )
        welcome: Deferred[Identity] = Deferred()
        if access.denied is not None or self.upstream is None:
            welcome.callback(access.identity)
        elif step is not None:
            self._say(f"conchrec: {step.why}")
            self._go_on_with_questions(method, welcome)
        else:
            self._dial()
            self.upstream.when_settled().addCallback(lambda _: self._settled(method, welcome))
        return welcome

    def _settled(self, method: str, welcome: Deferred[Identity]) -> None:
        if welcome.called:
            return
        assert self.upstream is not None
        if self.upstream.questions.open is None:
            welcome.callback(self._access.identity)
        else:
            self._go_on_with_questions(method, welcome)

    def _go_on_with_questions(self, method: str, welcome: Deferred[Identity]) -> None:
        self._welcomed = True
        if method == "none":
            # It proves nothing, so it is no part of a success.
            welcome.errback(
                AccessDenied(
                    "Permission denied", "the user must answer questions", code=ReasonCode.QUESTIONS_PENDING
                )
            )
        else:
            welcome.errback(PartialSuccess((KEYBOARD_INTERACTIVE,)))

    def refused(self, user: str, method: str, reason: str) -> None:
        self._context.emit(
            events.AuthRefused(**self._access.who(), reason=reason, method=method, stage="inner")
        )
