"""The sessions of one inner connection: they are admitted, begun, checked again, and ended."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError
from conchrec.proxy.inner.session import Session
from conchrec.proxy.inner.session_limits import SessionLimits
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.proxy.upstream.lifecycle import UpstreamState
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.connection import IncomingOpen

_log = Logger()


class OpenSessions:
    """The open and the delayed sessions.

    ``wait_for_agent`` is called when a session has begun before the target is connected. ``on_session_end``
    is called after each session. ``is_over`` returns whether the connection is ending: nothing begins then.
    """

    __slots__ = (
        "_access", "_limits", "_on_session_end", "_sessions", "_upstream", "_wait_for_agent",
    )  # fmt: skip

    def __init__(
        self,
        access: TargetAccess,
        upstream: Upstream,
        *,
        wait_for_agent: Callable[[], None],
        on_session_end: Callable[[], None],
        is_over: Callable[[], bool],
    ) -> None:
        self._access = access
        self._upstream = upstream
        self._wait_for_agent = wait_for_agent
        self._on_session_end = on_session_end
        self._sessions: set[Session] = set()
        self._limits = SessionLimits(access, upstream, is_over=is_over)

    @property
    def count(self) -> int:
        """The number of open and of delayed sessions."""
        return len(self._sessions) + self._limits.delayed_count

    def admit(self, opening: IncomingOpen) -> None:
        """Begin the session of ``opening`` now or later, or refuse it."""
        self._limits.admit(opening, len(self._sessions), self._begin)

    def refuse_more(self) -> None:
        """Refuse all further sessions (``no-more-sessions@openssh.com``)."""
        self._limits.stop()

    def recheck(self) -> None:
        """End the sessions that are no longer allowed, each with a line that says why."""
        policy, now = self._access.context.settings.policy, self._access.services.now()
        for session in tuple(self._sessions):
            locked = policy.lock_on(now, lambda lock: lock.is_of_session(session.sid))  # noqa: B023
            if locked is not None:
                text = f"an administrator ended this session: {locked}. Ask your administrator"
                session.end(Reason(ReasonCode.SESSION_LOCKED, text))
            else:
                session.recheck()

    def end_with_reason(self, text: str) -> bool:
        """End all sessions, with ``text`` as the reason. Returns whether a client shows the reason."""
        informed = [session for session in tuple(self._sessions) if session.end(text)]
        return bool(informed)

    def _begin(self, opening: IncomingOpen) -> None:
        access, upstream = self._access, self._upstream
        session = Session(
            access,
            opening,
            inner_settled=upstream.inner_settled,
            on_end=self._ended,
            on_granted=self._limits.session_granted,
        )
        self._sessions.add(session)
        if access.denied is not None:
            session.fail(access.denied)
        elif upstream.connection is not None and upstream.state is UpstreamState.READY:
            session.open_target(upstream.connection)
        else:
            session.confirm_early()
            self._wait_for_agent()
            upstream.when_ready().addCallbacks(
                session.open_target, lambda failure: session.fail(_error(failure))
            )

    def _ended(self, session: Session) -> None:
        self._sessions.discard(session)
        self._on_session_end()


def _error(failure: Failure) -> ConchrecError:
    """Return why the target could not be reached; an unexpected error is logged, and reported as internal."""
    error = failure.value
    if isinstance(error, ConchrecError):
        return error
    _log.failure("unexpected error in the connection to a target", failure=failure)
    return ConchrecError("internal error", code=ReasonCode.INTERNAL_ERROR)
