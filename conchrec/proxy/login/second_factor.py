"""The second factor that a role requires (``require_mfa``): a code (TOTP), or the touch of a hardware key.

With ``login`` the outer login requires one. With ``session`` it does too, and this second factor is valid
once: for the first connection to a target, or for the first command to the proxy. Each further one needs its
own.

A signature by a hardware key (type ``sk-…``) is accepted only with the flag for user presence (PROTOCOL.u2f),
so such a key is a second factor by itself, if an administrator has seen it. A code is valid once
(``access.passwords``).
"""

from __future__ import annotations

from conchrec.access.certificate_permits import SELF_SERVICE
from conchrec.access.options import Mfa
from conchrec.access.policy import active
from conchrec.errors import AccessDenied, without_traceback
from conchrec.model import Identity
from conchrec.proxy.authorization import REQUIRE_MFA as RULE
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.password_login import PasswordLogin
from conchrec.proxy.target_access import OneTimeProof, TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.certificate import decode, is_hardware

TOUCH, CODE = "sk", "totp"
#: Wrong codes in one inner login before it fails.
TRIES = 3
NO_SECOND_FACTOR = Reason(
    ReasonCode.SECOND_FACTOR_UNAVAILABLE,
    "your roles require a second factor, and you have none. Use a hardware key (ssh-keygen -t ed25519-sk), "
    "or ask your administrator for codes (conchrec passwd --totp-only)",
)


def required_mfa(context: ProxyContext, identity: Identity, source: str) -> Mfa:
    """The strictest ``require_mfa`` of all roles of this user that apply now.

    It is for the outer login, which does not know yet which target, and so which role, it is for.
    """
    roles = active(context.settings.policy, identity, source, context.services.now())
    return max((role.options.require_mfa for role in roles), key=lambda mfa: mfa.level, default=Mfa.NO)


def is_touched(context: ProxyContext, identity: Identity) -> bool:
    """Whether the key of this login is a hardware key that was touched.

    Software can create a key of type ``sk-…``. So the key counts only if an administrator has seen it: it is
    in the user's ``authorized_keys``, or it has a certificate that the user did not get by ``sign``.
    """
    if not identity.key or not is_hardware(identity.key):
        return False
    if identity.certificate is None or SELF_SERVICE not in decode(identity.certificate).extensions:
        return True
    return context.settings.credentials.lists(identity.user, identity.key)


def check_proof(mfa: Mfa, identity: Identity, proofs: OneTimeProof, what: str) -> None:
    """Raise AccessDenied where ``mfa`` requires a second factor and none is left to use.

    For a ``what`` (``command``, ``connection``) that cannot ask for a code.
    """
    if mfa is Mfa.NO:
        return
    if not identity.second_factor:
        raise AccessDenied(
            "your roles require a second factor (require_mfa). Log in again",
            rule=RULE,
            code=ReasonCode.SECOND_FACTOR_REQUIRED,
        )
    if mfa is Mfa.SESSION and not proofs.take():
        raise AccessDenied(
            f"each {what} requires its own second factor (require_mfa). Connect again",
            rule=RULE,
            code=ReasonCode.SECOND_FACTOR_REQUIRED,
        )


def check_unchanged(context: ProxyContext, passwords: PasswordLogin, user: str) -> None:
    """Raise AccessDenied where the password or the secret has changed since the answer was checked."""
    current = context.settings.passwords
    if current is None or current.secrets_of(user) != passwords.secrets_of(user):
        raise AccessDenied(
            "Permission denied",
            "the password or the code's secret changed during the login",
            code=ReasonCode.PASSWORD_CHANGED,
        )


class _AskForCode:
    """A Step of the inner login: ask for a code."""

    why = "each session requires a second factor. Enter a code"

    def __init__(self, access: TargetAccess) -> None:
        self._access = access

    async def pass_(self, ask: Ask, say: object) -> None:
        access = self._access
        user = access.identity.user
        for tries_left in reversed(range(TRIES)):
            passwords = access.settings.passwords
            if passwords is None or not passwords.has_code(user):
                raise AccessDenied(NO_SECOND_FACTOR, rule=RULE, code=ReasonCode.SECOND_FACTOR_UNAVAILABLE)
            try:
                await passwords.ask_code(user, access.origin.source, ask)
                check_unchanged(access.context, passwords, user)
                break
            except AccessDenied as error:
                access.context.emit(access.refused_login(without_traceback(error)))
                if error.code is ReasonCode.QUESTIONS_ABANDONED:
                    # Nobody will answer, and no code was wrong.
                    raise AccessDenied(error.detail, rule=RULE, code=error.code) from error
                if not tries_left:
                    raise AccessDenied(
                        "wrong code. Connect again", error.detail, RULE, code=error.code
                    ) from error
        access.record_second_factor(CODE)


def take_step(access: TargetAccess) -> _AskForCode | None:
    """Return the step that asks for a code; None where no second factor is required, or there is one.

    A second factor that is there is recorded and used up: that of the outer login, if nothing has used it, or
    the touch of a hardware key in the inner login.
    """
    if access.options is None or access.options.require_mfa is not Mfa.SESSION or access.second_factor:
        return None
    if access.origin.proofs.take():
        access.record_second_factor(access.identity.second_factor)
    elif access.inner is not None and is_touched(access.context, access.inner):
        access.record_second_factor(TOUCH)
    return None if access.second_factor else _AskForCode(access)
