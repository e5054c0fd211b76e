"""The attempts of one login at a server: how many there were, and what the audit log reads about them."""

from __future__ import annotations

from collections.abc import Callable

from conchrec.errors import RemoteViolation
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.certificate import fingerprint

#: The maximum number of requests in one login, including offers: an agent may hold many keys.
MAX_REQUESTS = 100
#: The maximum number of offered keys that a report names.
_OFFERS_SHOWN = 4


class LoginAttempts:
    """Counts the attempts of one connection.

    ``tries`` is the number of failures after which the connection ends. ``on_refused(user, method, reason)``
    is called for each failed attempt, and at the end for offers without success.
    """

    def __init__(self, tries: int, on_refused: Callable[[str, str, Reason], None]) -> None:
        #: The name of the user; empty before the first request.
        self.user = ""
        self.requests = 0
        self._tries = tries
        self._on_refused = on_refused
        self._failures = 0
        self._refused_offers: list[str] = []

    def count_request(self) -> None:
        """Count a request. Raises RemoteViolation if there are too many."""
        self.requests += 1
        if self.requests > MAX_REQUESTS:
            raise RemoteViolation(
                f"too many requests in one login: the limit is {MAX_REQUESTS}",
                code=ReasonCode.TOO_MANY_MESSAGES,
            )

    def add_refused_offer(self, blob: bytes) -> None:
        """Note a key that was offered and is not accepted: the client may offer a better one."""
        self._refused_offers.append(fingerprint(blob))

    def add_failure(self, method: str, reason: Reason) -> bool:
        """Count and report an attempt that has failed. Return whether there were too many."""
        self._failures += 1
        self.report(method, reason)
        return self._failures >= self._tries

    def report(self, method: str, reason: Reason) -> None:
        """Report a refusal to the audit log."""
        self._on_refused(self.user, method, reason)

    def succeed(self) -> None:
        """Note the success: keys that were offered before do not matter."""
        self._refused_offers.clear()

    def end(self) -> None:
        """Report offers, if there were no other attempts."""
        if self._refused_offers and not self._failures:
            shown = ", ".join(self._refused_offers[:_OFFERS_SHOWN])
            reason = Reason(ReasonCode.OFFERS_NOT_ACCEPTED, f"no offered key is accepted: {shown}")
            self.report("publickey", reason)
