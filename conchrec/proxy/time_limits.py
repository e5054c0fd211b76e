"""Ends a connection to a target after ``max_session_ttl`` or ``client_idle_timeout``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from conchrec.access.options import SessionOptions
from conchrec.clock import DelayedCall
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.yaml_cursor import as_written

#: The time between the reason in a session's output and the DISCONNECT. OpenSSH's client drops output that it
#: has not printed when it gets a DISCONNECT, and ``ssh -q`` does not print the text of that.
LAST_WORDS_SECONDS = 0.3


class TimeLimits:
    """The two timers of one connection. ``end`` is called with the reason when a limit is reached.

    Both run from ``begin``. A client is idle while it sends no message on a channel
    (``ConnectionActivity.last``).
    """

    __slots__ = (
        "_access", "_began", "_clock", "_end", "_idle", "_ttl",
    )  # fmt: skip

    def __init__(self, access: TargetAccess, end: Callable[[str], None]) -> None:
        self._access = access
        self._clock = access.services.clock
        self._end = end
        self._began: float | None = None
        self._ttl: DelayedCall | None = None
        self._idle: DelayedCall | None = None

    def begin(self) -> None:
        """Start both timers, with the options that the policy allows."""
        self._access.activity.touch()
        self._began = self._access.activity.last
        if self._access.options is not None:
            self.apply(self._access.options)

    def apply(self, options: SessionOptions) -> None:
        """Use these limits from now on; the time since ``begin`` counts. Does nothing before ``begin``."""
        if self._began is None:
            return
        self._drop()
        if options.max_session_ttl is not None:
            remaining = self._began + options.max_session_ttl.total_seconds() - self._clock.seconds()
            limit = as_written(options.max_session_ttl)
            text = f"your connection reached its time limit of {limit} (max_session_ttl). Connect again"
            reason = Reason(ReasonCode.SESSION_TIME_OVER, text)
            self._ttl = self._clock.callLater(max(0.0, remaining), self._end, reason)
        if options.client_idle_timeout is not None:
            self._watch_idle(options.client_idle_timeout)

    def stop(self) -> None:
        """Stop both timers: the connection has ended."""
        self._began = None
        self._drop()

    def _drop(self) -> None:
        for timer in (self._ttl, self._idle):
            if timer is not None and timer.active():
                timer.cancel()
        self._ttl = self._idle = None

    def _watch_idle(self, limit: timedelta) -> None:
        remaining = self._access.activity.last + limit.total_seconds() - self._clock.seconds()
        if remaining > 0:
            self._idle = self._clock.callLater(remaining, self._watch_idle, limit)
        else:
            idle = f"nothing was received from your client for {as_written(limit)}"
            text = f"{idle} (client_idle_timeout). Connect again"
            self._end(Reason(ReasonCode.CLIENT_IDLE, text))
