"""Requests for approval, and the decisions on them. They are in memory: a restart forgets them.

A request is for one user, one login and one target. If it is approved while the user waits, it is valid for
the connection that waits; if it is approved in advance, for one connection that begins within an hour. No
user can decide on their own request.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from twisted.internet.defer import Deferred

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import AccessDenied
from conchrec.model import Target
from conchrec.reasons import ReasonCode

#: How long an approval in advance is valid.
VALIDITY = timedelta(hours=1)
#: The most pending requests of one user, and of all users.
MAX_PENDING_OF_USER, MAX_PENDING = 10, 1000
#: The longest reason, and the longest note, in characters.
MAX_TEXT = 200
# Crockford's base 32: no letter looks like a digit.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 6


class ApprovalState(enum.Enum):
    """What has become of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    OVER = "over"
    """Used, withdrawn, or too old."""
    CHANGED = "changed"
    """The policy has changed: other roles must approve now."""


@dataclass(slots=True, kw_only=True, eq=False)
class ApprovalRequest:
    """One request. ``needed`` has sets of roles: an approver has at least one role of each set.

    The user ``by`` has decided it, and wrote ``note``.
    """

    id: str
    user: str
    login: str
    target: Target
    reason: str
    needed: tuple[frozenset[str], ...]
    since: datetime
    state: ApprovalState = ApprovalState.PENDING
    by: str = ""
    note: str = ""
    #: A login waits for the decision, and uses it at once.
    waited_for: bool = False
    decided: Deferred[None] = field(default_factory=Deferred)
    timer: DelayedCall | None = None

    @property
    def approvers(self) -> str:
        """The roles that can approve it: ``lead or security and boss``."""
        return " and ".join(" or ".join(sorted(roles)) for roles in self.needed)

    def may_be_decided_by(self, user: str, roles: Collection[str]) -> bool:
        """Whether a user with these roles may approve or deny it."""
        return user != self.user and all(not required.isdisjoint(roles) for required in self.needed)


class Approvals:
    """All requests of this process that are pending, or approved and not used."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: dict[str, ApprovalRequest] = {}

    def __iter__(self) -> Iterator[ApprovalRequest]:
        """The pending requests, oldest first."""
        pending = [request for request in self._requests.values() if request.state is ApprovalState.PENDING]
        return iter(pending)

    def get(self, name: str) -> ApprovalRequest | None:
        """Find a request by its id, as a person types it (Crockford's base 32); None if it is unknown."""
        return self._requests.get(name.upper().replace("O", "0").replace("I", "1").replace("L", "1"))

    def add(
        self,
        *,
        user: str,
        login: str,
        target: Target,
        reason: str,
        needed: tuple[frozenset[str], ...],
        now: datetime,
        wait: timedelta,
    ) -> ApprovalRequest:
        """Add a request, which is over after ``wait`` without a decision.

        Raises AccessDenied where too many are pending.
        """
        pending = list(self)
        of_user = sum(request.user == user for request in pending)
        if of_user >= MAX_PENDING_OF_USER or len(pending) >= MAX_PENDING:
            raise AccessDenied(
                "cannot request approval: too many requests are pending. Try again when some are decided",
                rule="approval",
                code=ReasonCode.TOO_MANY_APPROVAL_REQUESTS,
            )
        request = ApprovalRequest(
            id=self._new_id(), user=user, login=login, target=target, reason=reason, needed=needed, since=now
        )
        self._requests[request.id] = request
        request.timer = self._clock.callLater(wait.total_seconds(), self.end, request)
        return request

    def _new_id(self) -> str:
        while (name := "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))) in self._requests:
            pass
        return name

    def approve(self, request: ApprovalRequest, by: str, note: str) -> None:
        """Approve a pending request: for the login that waits for it, else for one connection later."""
        self._decide(request, ApprovalState.APPROVED, by, note)
        if not request.waited_for:
            request.timer = self._clock.callLater(VALIDITY.total_seconds(), self.end, request)

    def deny(self, request: ApprovalRequest, by: str, note: str) -> None:
        """Deny a pending request, or withdraw an approval that is not used yet."""
        if request.state is ApprovalState.APPROVED:
            self.end(request)
        else:
            self._decide(request, ApprovalState.DENIED, by, note)

    def take(
        self,
        user: str,
        login: str | None,
        target: Target,
        needed: tuple[frozenset[str], ...],
        is_valid_approver: Callable[[str], bool],
    ) -> ApprovalRequest | None:
        """Use up an approval that was given in advance, and return it; None without one.

        ``login`` is None where it is not known. ``is_valid_approver`` says whether approvals by a user
        still count.
        """
        for request in tuple(self._requests.values()):
            matches = request.user == user and request.target == target and login in (None, request.login)
            approved = request.state is ApprovalState.APPROVED and set(needed) <= set(request.needed)
            if matches and approved and not request.waited_for and is_valid_approver(request.by):
                self.end(request)
                return request
        return None

    def end(self, request: ApprovalRequest, state: ApprovalState = ApprovalState.OVER) -> None:
        """End a request that is used, withdrawn or too old; or CHANGED, where other roles must decide."""
        self._requests.pop(request.id, None)
        self._stop_timer(request)
        if request.state in (ApprovalState.PENDING, ApprovalState.APPROVED):
            pending, request.state = request.state is ApprovalState.PENDING, state
            if pending:
                request.decided.callback(None)

    def _decide(self, request: ApprovalRequest, state: ApprovalState, by: str, note: str) -> None:
        assert request.state is ApprovalState.PENDING, "a request is decided once"
        self._stop_timer(request)
        request.state, request.by, request.note = state, by, note
        if state is ApprovalState.DENIED or request.waited_for:
            self._requests.pop(request.id, None)
        request.decided.callback(None)

    @staticmethod
    def _stop_timer(request: ApprovalRequest) -> None:
        timer, request.timer = request.timer, None
        if timer is not None and timer.active():
            timer.cancel()
