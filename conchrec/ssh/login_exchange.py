"""The requests and replies of a login at a server, and what has been achieved so far. The client's side."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from conchrec.errors import LocalViolation, LoginRejected
from conchrec.reasons import ReasonCode
from conchrec.ssh import userauth as u
from conchrec.ssh.signers import Signer
from conchrec.ssh.wire import Reader, string
from conchrec.text import one_line

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginReply:
    """A message that answers our request."""

    number: int
    payload: bytes


class LoginExchange:
    """Sends one request at a time for ``user``, and waits for its reply.

    The owner sets ``transport``, passes the replies to it, and calls ``end`` at the end of the login.
    """

    def __init__(self, user: bytes) -> None:
        self.user = user
        self.transport: u.AuthTransport | None = None
        self.is_over = False
        self._awaited: Deferred[Any] | None = None
        #: The open request, and the message numbers that answer it.
        self._reply: Deferred[LoginReply] | None = None
        self._reply_numbers: frozenset[int] = frozenset()

    @property
    def session_id(self) -> bytes:
        """The session identifier. Raises LocalViolation before the key exchange."""
        session_id = self.transport.sessionID if self.transport is not None else None
        if not session_id:
            raise LocalViolation("a login before the key exchange")
        return session_id

    def request(self, method: bytes, rest: bytes = b"") -> bytes:
        """Encode a request: ``string user, string service, string method``, then method-specific data."""
        return string(self.user) + string(u.CONNECTION) + string(method) + rest

    async def send(self, payload: bytes, *answers: int, number: int = u.REQUEST) -> LoginReply:
        """Send a message and wait for a reply: one of ``answers``, or FAILURE."""
        if self.transport is None or self.is_over:
            raise CancelledError
        self._reply_numbers = frozenset({u.FAILURE, *answers})
        reply: Deferred[LoginReply] = Deferred()
        self._reply = reply
        self.transport.sendPacket(number, payload)
        return await self.wait(reply)

    async def wait(self, waiting: Deferred[T]) -> T:
        """Wait for a Deferred. The end of the login cancels it."""
        if self.is_over:
            waiting.addErrback(lambda _: None)
            waiting.cancel()
            raise CancelledError
        self._awaited = waiting
        try:
            return await waiting
        finally:
            self._awaited = None

    def take_request(self, number: int) -> Deferred[LoginReply] | None:
        """Return the open request if a message with this number answers it. The caller fires it."""
        if number not in self._reply_numbers:
            return None
        request, self._reply = self._reply, None
        return request

    def end(self) -> None:
        """Cancel what is waited for. Nothing can be sent afterwards."""
        self.is_over = True
        self._reply = None
        if self._awaited is not None:
            self._awaited.cancel()


class StepOutcome(enum.Enum):
    """The server's answer to one method."""

    LOGGED_IN = "logged in"
    PARTIAL = "accepted, but not sufficient"
    REFUSED = "not accepted"


class LoginProgress:
    """What the server has accepted, what it still accepts, and what was tried without success."""

    def __init__(self) -> None:
        #: The methods that the server accepts now.
        self.methods: frozenset[bytes] = frozenset()
        #: The methods that succeeded, in order, and the key of the last one.
        self.steps: list[bytes] = []
        self.signer: Signer | None = None
        #: For messages: what was tried without success.
        self.failed_attempts: list[str] = []

    def read_outcome(self, reply: LoginReply, method: bytes, signer: Signer | None = None) -> StepOutcome:
        """Read SUCCESS, or FAILURE: ``name-list methods that can continue, boolean partial success``"""
        if reply.number != u.SUCCESS:
            r = Reader(reply.payload)
            self.methods = frozenset(r.names())
            partial = r.boolean()
            r.end()
            if not partial:
                return StepOutcome.REFUSED
        self.steps.append(method)
        self.signer = signer
        return StepOutcome.LOGGED_IN if reply.number == u.SUCCESS else StepOutcome.PARTIAL

    def rejection(self, target: str, user: bytes) -> LoginRejected:
        """Return the error for a login that the server has rejected."""
        methods = ",".join(sorted(one_line(name, 64) for name in self.methods)) or "nothing"
        steps = ", ".join(one_line(name, 64) for name in self.steps)
        tried = ", ".join(self.failed_attempts)
        return LoginRejected(
            f"{target} rejected the login as {one_line(user)}: "
            + (f"{steps} succeeded but was not sufficient; " if steps else "")
            + (f"tried {tried}; " if tried else "no usable credential; ")
            + f"it accepts {methods}",
            code=ReasonCode.LOGIN_REJECTED,
        )
