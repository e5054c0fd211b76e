"""Requests to go somewhere, and what others say to them. In memory: with the process they are forgotten.

A request is made for one user, one login and one target. Approved while its maker waits, it is good for the
connection that waits; approved in advance, for one that begins within an hour. Nobody decides on their own.
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

#: How long what was approved in advance is good.
GOOD = timedelta(hours=1)
PENDING_OF_USER, PENDING = 10, 1000
#: Of a reason and of a note, in characters.
LONGEST = 200
# Crockford's: no letter looks like a digit.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 6


class ApprovalState(enum.Enum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    OVER = "over"
    """Used, withdrawn, or too old."""
    CHANGED = "changed"
    """Somebody else has to approve now."""


@dataclass(slots=True, kw_only=True, eq=False)
class ApprovalRequest:
    """``needed`` are sets of roles: who approves has one of each. ``by`` decided, and said ``note``."""

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
    #: Somebody waits for the decision, and uses it at once.
    waited_for: bool = False
    decided: Deferred[None] = field(default_factory=Deferred)
    timer: DelayedCall | None = None

    @property
    def approvers(self) -> str:
        return " and ".join(" or ".join(sorted(roles)) for roles in self.needed)

    def may_be_decided_by(self, user: str, roles: Collection[str]) -> bool:
        return user != self.user and all(not some.isdisjoint(roles) for some in self.needed)


class Approvals:
    """All requests of one process that are not over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: dict[str, ApprovalRequest] = {}

    def __iter__(self) -> Iterator[ApprovalRequest]:
        """Those that wait for a decision, oldest first."""
        return iter([one for one in self._requests.values() if one.state is ApprovalState.PENDING])

    def get(self, name: str) -> ApprovalRequest | None:
        """The one by that id, as somebody may have typed it, if it waits for a decision, or to be used."""
        return self._requests.get(name.upper().replace("O", "0").replace("I", "1").replace("L", "1"))

    def ask(
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
        """One that is over after ``wait`` if nobody decides. AccessDenied where there are too many."""
        pending = list(self)
        if sum(one.user == user for one in pending) >= PENDING_OF_USER or len(pending) >= PENDING:
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
        self._decide(request, ApprovalState.APPROVED, by, note)
        if not request.waited_for:
            request.timer = self._clock.callLater(GOOD.total_seconds(), self.end, request)

    def deny(self, request: ApprovalRequest, by: str, note: str) -> None:
        """Also what was approved in advance, as long as it is not used."""
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
        stands: Callable[[str], bool],
    ) -> ApprovalRequest | None:
        """What was approved in advance for this, by who has to, used now; ``login`` is None where it is not
        known. ``stands`` says whether the word of a user still does."""
        for request in tuple(self._requests.values()):
            is_theirs = request.user == user and request.target == target and login in (None, request.login)
            is_good = request.state is ApprovalState.APPROVED and set(needed) <= set(request.needed)
            if is_theirs and is_good and not request.waited_for and stands(request.by):
                self.end(request)
                return request
        return None

    def end(self, request: ApprovalRequest, state: ApprovalState = ApprovalState.OVER) -> None:
        """It is used, withdrawn, or too old; or somebody else has to decide."""
        self._requests.pop(request.id, None)
        self._stop(request)
        if request.state in (ApprovalState.PENDING, ApprovalState.APPROVED):
            pending, request.state = request.state is ApprovalState.PENDING, state
            if pending:
                request.decided.callback(None)

    def _decide(self, request: ApprovalRequest, state: ApprovalState, by: str, note: str) -> None:
        assert request.state is ApprovalState.PENDING, "it is decided once"
        self._stop(request)
        request.state, request.by, request.note = state, by, note
        if state is ApprovalState.DENIED or request.waited_for:
            self._requests.pop(request.id, None)
        request.decided.callback(None)

    @staticmethod
    def _stop(request: ApprovalRequest) -> None:
        if request.timer is not None and request.timer.active():
            request.timer.cancel()
