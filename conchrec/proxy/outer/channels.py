"""The channels that a user opens on the outer connection: to a target, or a session with the proxy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from conchrec.coroutines import run_coroutine
from conchrec.proxy import refusals
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.outer.internal_error import as_error
from conchrec.proxy.outer.session import OuterSession
from conchrec.proxy.outer.targets import TargetConnections
from conchrec.proxy.outer.user import OuterUser
from conchrec.proxy.target_names import parse_target
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import IncomingOpen
from conchrec.text import one_line


class OuterChannels:
    """The channels of one outer connection, and what they lead to.

    ``end`` ends the connection with a reason. It is called when the last channel was a connection that
    nothing records: the DISCONNECT of the outer connection is all that can show the reason then.
    """

    __slots__ = ("_context", "_end", "_is_ending", "_no_more_sessions", "_sessions", "_user", "targets")

    def __init__(self, user: OuterUser, context: ProxyContext, *, end: Callable[[str], None]) -> None:
        self._user = user
        self._context = context
        self._end = end
        self.targets = TargetConnections(user, context, on_passthrough_end=self._passthrough_ended)
        self._sessions: set[OuterSession] = set()
        self._no_more_sessions = False
        #: The connection is ending: nothing new begins.
        self._is_ending = False

    def open(self, opening: IncomingOpen) -> None:
        """Open a channel to a target, or a session with the proxy; refuse every other type."""
        kind = opening.channel.kind
        if self._is_ending:
            _refuse(opening, refusals.CONNECTION_ENDING)
        elif kind == b"direct-tcpip":
            self._open_direct(opening)
        elif kind != b"session":
            shown = one_line(kind, 40)
            reason = Reason(
                ReasonCode.OUTER_CHANNEL_TYPE,
                f"the proxy itself opens no channel of type {shown}. Connect to a target through it (ssh -J)",
            )
            _refuse(opening, reason)
        elif self._no_more_sessions:
            _refuse(opening, refusals.NO_MORE_SESSIONS)
        else:
            session = OuterSession(
                self._user, self.targets, self._context, opening, on_end=self._sessions.discard
            )
            self._sessions.add(session)

    def refuse_sessions(self) -> None:
        """Open no further session with the proxy (``no-more-sessions@openssh.com``)."""
        self._no_more_sessions = True

    def recheck(self) -> None:
        """Decide again about all channels; what is not allowed any more ends."""
        self.targets.recheck()
        for session in tuple(self._sessions):
            session.recheck()

    def recheck_expired(self, now: datetime) -> None:
        """Decide again about each channel that was allowed until a time that has passed at ``now``."""
        self.targets.recheck_expired(now)
        for session in tuple(self._sessions):
            if session.until is not None and now >= session.until:
                session.recheck()

    def end_with_reason(self, reason: str) -> bool:
        """Show the reason in every session at a target, and cancel commands. Return whether there are any."""
        self._is_ending = True
        has_sessions = self.targets.end_with_reason(reason)
        commands = [session for session in tuple(self._sessions) if session.cancel()]
        return has_sessions or bool(commands)

    def _passthrough_ended(self, reason: str) -> None:
        if not self.targets.count and not self._sessions:
            self._end(reason)

    # --- ssh -J

    def _open_direct(self, opening: IncomingOpen) -> None:
        """Open a channel of ``ssh -J``: confirmed when the target has sent its identification string."""
        forward = m.Forwarded.parse(opening.request.extra)
        run_coroutine(self._connect(opening, forward)).addErrback(self._not_connected, opening)

    async def _connect(self, opening: IncomingOpen, forward: m.Forwarded) -> None:
        target = await self.targets.connect_to(parse_target(forward.host, str(forward.port)))
        if opening.channel.connection.stopped:
            target.drop()
            return
        tunnel = self.targets.new_tunnel()
        # ``attach_tunnel`` gives it its window.
        tunnel.attach(Stream.accept(opening, tunnel, window=0))
        self.targets.attach_tunnel(target, tunnel)

    def _not_connected(self, failure: Failure, opening: IncomingOpen) -> None:
        is_over = opening.channel.connection.stopped
        if not failure.check(CancelledError) and not is_over and not opening.answered:
            opening.refuse(*refusals.open_failure(as_error(failure)))


def _refuse(opening: IncomingOpen, reason: Reason) -> None:
    opening.refuse(m.ADMINISTRATIVELY_PROHIBITED, refusals.reason_line(reason))
