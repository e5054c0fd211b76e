"""Limits the sessions that a user opens: how many, how fast, and none after no-more-sessions.

The limits are ``max_sessions`` of the roles (one inner connection), ``limits.sessions_per_user`` (all
connections) and ``session_rate``. The limits of tunnels and connections are in ``connection_counts``.
"""

from __future__ import annotations

from collections.abc import Callable

from conchrec.errors import AccessDenied
from conchrec.proxy import refusals
from conchrec.proxy.target_access import TargetAccess
from conchrec.proxy.upstream.connection import Upstream
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.connection import IncomingOpen

NO_MORE_SESSIONS = b"no-more-sessions@openssh.com"


class SessionLimits:
    """Refuses, delays or begins the sessions that the user opens on one inner connection.

    ``is_over`` is asked when the delay of a session has ended.
    """

    __slots__ = (
        "_access", "_context", "_has_no_more", "_is_over", "_may_forward", "_services", "_upstream",
        "delayed_count",
    )  # fmt: skip

    def __init__(
        self,
        access: TargetAccess,
        upstream: Upstream,
        *,
        is_over: Callable[[], bool],
    ) -> None:
        self._access = access
        self._context = access.context
        self._services = access.services
        self._upstream = upstream
        self._is_over = is_over
        #: How many sessions are delayed.
        self.delayed_count = 0
        self._has_no_more = False
        self._may_forward = False

    def admit(self, opening: IncomingOpen, open_count: int, begin: Callable[[IncomingOpen], None]) -> None:
        """Let ``begin`` begin the session of ``opening`` now or later, or refuse it.

        ``open_count`` is the number of open sessions.
        """
        access, user = self._access, self._access.identity.user
        reason = self._reason_to_refuse()
        if reason is not None:
            code, text = reason
            opening.refuse(code, refusals.reason_line(text))
            return
        error = self._exceeded_limit(open_count)
        delay = None if error is not None else self._services.session_rate.delay(user)
        if delay is None:
            error = error or AccessDenied(
                f"{user} opens sessions too fast: wait some seconds and try again",
                rule="sessions a second",
                code=ReasonCode.SESSION_RATE_EXCEEDED,
            )
            self._context.emit(refusals.failure_event(error, access.who()))
            opening.refuse(m.RESOURCE_SHORTAGE, refusals.error_line(error))
        elif delay:
            self._context.session_delayed(user, access.who(), delay)
            self._context.registry.add_session(user)
            self.delayed_count += 1
            self._services.clock.callLater(delay, self._begin_delayed, opening, begin)
        else:
            begin(opening)

    def stop(self) -> None:
        """Refuse all further sessions, because the client sent no-more-sessions@openssh.com."""
        self._has_no_more = True
        self._forward_no_more()

    def session_granted(self) -> None:
        """Take note that the target granted a session: no-more-sessions may be forwarded now."""
        self._may_forward = True
        self._forward_no_more()

    # --- inside

    def _reason_to_refuse(self) -> tuple[int, Reason] | None:
        if self._has_no_more:
            return m.ADMINISTRATIVELY_PROHIBITED, refusals.NO_MORE_SESSIONS
        if self._context.registry.is_stopping:
            return m.RESOURCE_SHORTAGE, refusals.PROXY_STOPPING
        return None

    def _exceeded_limit(self, open_count: int) -> AccessDenied | None:
        access, user = self._access, self._access.identity.user
        limit = access.options.max_sessions if access.options is not None else None
        if limit is not None and open_count + self.delayed_count >= limit:
            text = (
                f"too many sessions: {user} has {limit} open in this connection, which is the limit "
                "(max_sessions). Close one, then try again"
            )
            return AccessDenied(text, rule="max_sessions", code=ReasonCode.TOO_MANY_SESSIONS)
        most = self._context.settings.config.limits.sessions_per_user
        if self._context.registry.session_count(user) >= most:
            return AccessDenied(
                f"too many sessions: {user} has {most} open, which is the limit (sessions_per_user). "
                "Close one, then try again",
                rule="sessions_per_user",
                code=ReasonCode.TOO_MANY_SESSIONS_OF_USER,
            )
        return None

    def _begin_delayed(self, opening: IncomingOpen, begin: Callable[[IncomingOpen], None]) -> None:
        self.delayed_count -= 1
        self._context.registry.remove_session(self._access.identity.user)
        if self._is_over():
            opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(refusals.CONNECTION_ENDING))
        else:
            begin(opening)

    def _forward_no_more(self) -> None:
        """Forward no-more-sessions once, after the first session: ``ssh -N`` sends it before there is one."""
        connection = self._upstream.connection
        if self._has_no_more and self._may_forward and connection is not None:
            self._may_forward = False
            connection.request(NO_MORE_SESSIONS)
