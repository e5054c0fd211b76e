"""The second factor that a role requires (``require_mfa``): a code, or the touch of a hardware key.

*login*: the outer login succeeds with one only. *session*: so it does, and what it proved is good for one
thing, the first connection to a target, or the first command of the proxy; each other one in the same
connection of the user needs its own.

A signature by a key of the type sk-… is taken only with the flag that says that somebody was there
(``ssh.certificate``, PROTOCOL.u2f), so such a key that an administrator knows is a second factor by itself.
Codes are those of ``access.passwords``: each is good once, wherever it is asked for.
"""

from __future__ import annotations

from conchrec.access.certificate_permits import SELF_SERVICE
from conchrec.access.options import Mfa
from conchrec.access.policy import active
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy.authorization import REQUIRE_MFA as RULE
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.password_login import PasswordLogin
from conchrec.proxy.target_access import OneTimeProof, TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.certificate import decode, is_hardware

TOUCH, CODE = "sk", "totp"
#: Codes that one may get wrong in an inner login, before it is told so and has to begin again.
TRIES = 3
NONE_THERE = Reason(
    ReasonCode.SECOND_FACTOR_UNAVAILABLE,
    "your roles require a second factor, and you have none. Use a hardware key (ssh-keygen -t ed25519-sk), "
    "or ask your administrator for codes (conchrec passwd --totp-only)",
)


def required(context: ProxyContext, identity: Identity, source: str) -> Mfa:
    """The most that any role of this user requires, here and now; what the outer connection is for is not
    known before it is there."""
    roles = active(context.settings.policy, identity, source, context.services.now())
    return max((role.options.require_mfa for role in roles), key=lambda mfa: mfa.level, default=Mfa.NO)


def is_touched(context: ProxyContext, identity: Identity) -> bool:
    """Was what this user proved also somebody's touch?

    Software can call itself a hardware key. So it counts where an administrator has seen the key: it is in
    the user's ``authorized_keys``, or a certificate for it was not made by the user (``sign``).
    """
    if not identity.key or not is_hardware(identity.key):
        return False
    if identity.certificate is None or SELF_SERVICE not in decode(identity.certificate).extensions:
        return True
    return context.settings.credentials.lists(identity.user, identity.key)


def check(mfa: Mfa, identity: Identity, proofs: OneTimeProof, what: str) -> None:
    """For what cannot ask: AccessDenied where it needs a proof and there is none (left)."""
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
    """AccessDenied where an answer was compared with a password or a secret that is another one by now."""
    current = context.settings.passwords
    if current is None or current.secrets_of(user) != passwords.secrets_of(user):
        raise AccessDenied(
            "Permission denied",
            "the password or the code's secret changed during the login",
            code=ReasonCode.PASSWORD_CHANGED,
        )


class _AskForCode:
    """A Step of the inner login."""

    why = "each session requires a second factor. Enter a code"

    def __init__(self, access: TargetAccess) -> None:
        self._access = access

    async def pass_(self, ask: Ask, say: object) -> None:
        access = self._access
        user = access.identity.user
        for left in reversed(range(TRIES)):
            passwords = access.settings.passwords
            if passwords is None or not passwords.has_code(user):
                raise AccessDenied(NONE_THERE, rule=RULE, code=ReasonCode.SECOND_FACTOR_UNAVAILABLE)
            try:
                await passwords.ask_code(user, access.origin.source, ask)
                check_unchanged(access.context, passwords, user)
                break
            except AccessDenied as error:
                access.context.emit(access.refused_login(error))
                if not left:
                    raise AccessDenied(
                        "wrong code. Connect again", error.detail, RULE, code=error.code
                    ) from error
        access.record_second_factor(CODE)


def step(access: TargetAccess) -> _AskForCode | None:
    """None where none is needed, or there is one: that of the outer login if nothing has used it, or the
    touch that has come with the inner one."""
    if access.options is None or access.options.require_mfa is not Mfa.SESSION or access.second_factor:
        return None
    if access.proofs.take():
        access.record_second_factor(access.identity.second_factor)
    elif access.inner is not None and is_touched(access.context, access.inner):
        access.record_second_factor(TOUCH)
    return None if access.second_factor else _AskForCode(access)
