"""The login of the outer connection: by a key or a certificate, by a password, and by a code after either.

The user reads why a login fails only after the proof of a key or a password (``_show_once``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from twisted.internet.defer import Deferred, fail, succeed

from conchrec.access.credentials import Locked, fingerprint
from conchrec.access.options import Mfa
from conchrec.audit import events
from conchrec.coroutines import run_coroutine
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.login.second_factor import (
    CODE,
    NO_SECOND_FACTOR,
    TOUCH,
    check_unchanged,
    is_touched,
    required_mfa,
)
from conchrec.proxy.outer.user import OuterUser
from conchrec.proxy.password_login import PasswordLogin
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.authenticator import Ask, PartialSuccess
from conchrec.ssh.transport import ServerTransport
from conchrec.ssh.userauth import KEYBOARD_INTERACTIVE, PUBLICKEY
from conchrec.text import one_line


class OuterLogin:
    """The Authenticator of the outer connection. It stores whom the login has proved in ``user``.

    ``say`` shows a banner, ``transport`` is that of the connection. Nothing refers to it after the login.
    """

    __slots__ = ("_context", "_first", "_say", "_shown", "_transport", "_user")

    def __init__(
        self,
        context: ProxyContext,
        user: OuterUser,
        *,
        say: Callable[[str], None],
        transport: ServerTransport,
    ) -> None:
        self._context = context
        self._user = user
        self._say = say
        self._transport = transport
        #: The user who has proved a key, where a code must follow.
        self._first: Identity | None = None
        #: The reasons that the user has read already.
        self._shown: set[str] = set()

    def methods(self, user: str) -> tuple[bytes, ...]:
        """The methods that may continue the login: a code alone after a key that requires one."""
        if self._first is not None:
            return (KEYBOARD_INTERACTIVE,)
        passwords = self._context.settings.passwords
        offered = passwords is not None and passwords.has_passwords
        return (PUBLICKEY, KEYBOARD_INTERACTIVE) if offered else (PUBLICKEY,)

    def none(self, user: str) -> Deferred[Identity]:
        """Reject the method *none*."""
        return fail(
            AccessDenied("Permission denied", "a public key is required", code=ReasonCode.KEY_REQUIRED)
        )

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Whether a signature by this key would be accepted."""
        credentials, now = self._context.settings.credentials, self._context.services.now()
        return credentials.acceptable(user, algorithm, blob, self._user.source, now)

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """Accept a login whose key has signed; PartialSuccess where a code must follow."""
        context, now = self._context, self._context.services.now()
        try:
            identity = context.settings.credentials.identity(user, algorithm, blob, self._user.source, now)
            if is_touched(context, identity):
                identity = replace(identity, second_factor=TOUCH)
            elif required_mfa(context, identity, self._user.source) is not Mfa.NO:
                self._require_code(identity)
            return succeed(self._accept(identity))
        except Locked as locked:
            self._show_once(Reason(locked.code, locked.detail))
            return fail()
        except (AccessDenied, PartialSuccess):
            return fail()

    def _require_code(self, identity: Identity) -> NoReturn:
        """End the first of two steps. Raises PartialSuccess, or AccessDenied where the user has no codes."""
        passwords = self._context.settings.passwords
        if passwords is None or not passwords.has_code(identity.user):
            self._show_once(NO_SECOND_FACTOR)
            raise AccessDenied(
                "Permission denied",
                "a second factor is required, and the user has none",
                code=ReasonCode.SECOND_FACTOR_UNAVAILABLE,
            )
        self._first = identity
        raise PartialSuccess((KEYBOARD_INTERACTIVE,))

    def _show_once(self, reason: Reason) -> None:
        """Show as a banner why the login fails although its key or password is right.

        Only to a user who has proved one; once, because each further key of the user would repeat it.
        """
        if reason not in self._shown:
            self._shown.add(reason)
            self._say(f"conchrec: {reason}")

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Log in by a password, or by a code after a key."""
        passwords = self._context.settings.passwords
        if passwords is None:
            # A reload has removed the last password since the method was offered.
            return fail(
                AccessDenied(
                    "Permission denied",
                    "the configuration changed: no user has a password or a code now",
                    code=ReasonCode.PASSWORDS_DISABLED,
                )
            )
        if self._first is not None:
            return run_coroutine(self._second_step(self._first, passwords, ask))
        return run_coroutine(self._by_password(user, passwords, ask))

    async def _by_password(self, user: str, passwords: PasswordLogin, ask: Ask) -> Identity:
        try:
            identity = await passwords.log_in(user, self._user.source, ask)
            check_unchanged(self._context, passwords, user)
        except Locked as locked:
            self._show_once(Reason(locked.code, locked.detail))
            raise
        identity = replace(identity, second_factor=passwords.second_factor(user))
        required = required_mfa(self._context, identity, self._user.source)
        if not identity.second_factor and required is not Mfa.NO:
            self._require_code(identity)
        return self._accept(identity)

    async def _second_step(self, first: Identity, passwords: PasswordLogin, ask: Ask) -> Identity:
        """Log in by a code after a key. The restrictions of the key apply to the login."""
        await passwords.ask_code(first.user, self._user.source, ask)
        check_unchanged(self._context, passwords, first.user)
        try:
            identity = self._context.settings.credentials.renewed_identity(
                first, self._user.source, self._context.services.now()
            )
        except AccessDenied as error:
            self._show_once(error.public)
            raise
        return self._accept(replace(identity, second_factor=CODE))

    def _accept(self, identity: Identity) -> Identity:
        """Store and audit the user of a login that has succeeded."""
        user, transport = self._user, self._transport
        user.set_identity(identity)
        if identity.second_factor:
            user.proofs.give()
        self._context.emit(
            events.UserLogin(
                **user.who(),
                method=identity.method,
                key=fingerprint(identity.key) if identity.key else "",
                certificate=fingerprint(identity.certificate) if identity.certificate else "",
                roles=identity.roles,
                client=one_line(transport.peer_identification or b"", 255),
                second_factor=identity.second_factor,
                algorithms=tuple(name.decode() for name in transport.agreed_names),
            )
        )
        return identity

    def refused(self, user: str, method: str, reason: str) -> None:
        """Audit that a login was refused."""
        self._context.emit(
            events.AuthRefused(
                user=user, addr=self._user.address, cid=self._user.cid, reason=reason, method=method
            )
        )
