"""The end of the certificate or key that an outer connection was logged in with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from conchrec.clock import Clock, DelayedCall
from conchrec.proxy.outer.user import OuterUser
from conchrec.reasons import Reason, ReasonCode

#: The longest time between two checks whether the user's certificate has expired, in seconds.
EXPIRY_CHECK_SECONDS = 60.0


class LoginExpiry:
    """Calls ``end`` with the reason when the credential of the login expires. ``now`` is the wall clock."""

    def __init__(
        self, user: OuterUser, clock: Clock, *, now: Callable[[], datetime], end: Callable[[str], None]
    ) -> None:
        self._user = user
        self._clock = clock
        self._now = now
        self._end = end
        self._timer: DelayedCall | None = None

    def start(self) -> None:
        """Begin to check, now and then by a timer."""
        expires = self._user.identity.expires
        if expires is None:
            return
        remaining = (expires - self._now()).total_seconds()
        if remaining <= 0:
            what = "certificate" if self._user.identity.by_certificate else "key"
            text = f"your {what} has expired. Connect again with a valid one"
            self._end(Reason(ReasonCode.LOGIN_EXPIRED, text))
        else:
            # A timer runs by the monotonic clock, a certificate ends by the system's: check in between.
            self._timer = self._clock.callLater(min(remaining, EXPIRY_CHECK_SECONDS), self.start)

    def is_reached(self, now: datetime) -> bool:
        """Whether the credential has expired at ``now``."""
        expires = self._user.identity.expires
        return expires is not None and now >= expires

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
