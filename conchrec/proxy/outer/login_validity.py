"""Whether the login of an outer connection is still valid: its certificate or key, and its user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from conchrec.audit import events
from conchrec.clock import DelayedCall
from conchrec.errors import AccessDenied
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.outer.user import OuterUser
from conchrec.reasons import Reason, ReasonCode

#: The longest time between two checks whether the user's certificate has expired, in seconds.
EXPIRY_CHECK_SECONDS = 60.0


class LoginValidity:
    """Checks the login of ``user`` again. ``end`` is called with the reason when it is no longer valid."""

    __slots__ = ("_context", "_end", "_timer", "_user")

    def __init__(self, context: ProxyContext, user: OuterUser, *, end: Callable[[str], None]) -> None:
        self._context = context
        self._user = user
        self._end = end
        self._timer: DelayedCall | None = None

    def check_expiry(self) -> None:
        """Check whether the certificate or key has expired, now and then by a timer."""
        services, identity = self._context.services, self._user.identity
        if identity.expires is None:
            return
        remaining = (identity.expires - services.now()).total_seconds()
        if remaining <= 0:
            what = "certificate" if identity.by_certificate else "key"
            text = f"your {what} has expired. Connect again with a valid one"
            self._end(Reason(ReasonCode.LOGIN_EXPIRED, text))
        else:
            # A timer runs by the monotonic clock, a certificate ends by the system's: check in between.
            delay = min(remaining, EXPIRY_CHECK_SECONDS)
            self._timer = services.clock.callLater(delay, self.check_expiry)

    def is_expired(self, now: datetime) -> bool:
        """Whether the certificate or key has expired at ``now``."""
        expires = self._user.identity.expires
        return expires is not None and now >= expires

    def check_user(self) -> bool:
        """Check the user again, after a change of the users or the locks. Returns whether it is still valid.

        A user who is no longer valid has no roles from now on: what is in progress, and asks the policy
        later, is denied.
        """
        context, user = self._context, self._user
        credentials, now = context.settings.credentials, context.services.now()
        try:
            user.set_identity(credentials.renewed_identity(user.identity, user.source, now))
        except AccessDenied as error:
            context.emit(events.SessionRejected(**user.who(), reason=error.public, rule="login"))
            user.set_identity(replace(user.identity, roles=()))
            self._end(error.public)
            return False
        return True

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
