"""One run of a command to the proxy: it is admitted and counted, checked again, and cancelled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from conchrec.access.options import VisibleRecordings
from conchrec.coroutines import run_coroutine
from conchrec.errors import AccessDenied
from conchrec.proxy import refusals
from conchrec.proxy.commands import command_table
from conchrec.proxy.commands.command_request import CommandRequest, UsageError
from conchrec.proxy.commands.recordings import viewable_recordings
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.login.second_factor import check_proof, required_mfa
from conchrec.proxy.outer.internal_error import as_error
from conchrec.proxy.outer.user import OuterUser
from conchrec.reasons import Reason, ReasonCode
from conchrec.text import one_line

T = TypeVar("T")

#: The exit status of a command with invalid words (EX_USAGE of sysexits.h).
USAGE = 64
#: The exit status of a valid command that was refused or failed.
REFUSED = 1


class CommandRun:
    """Runs the command ``request`` of a user. The policy may end it while it runs.

    ``on_answer`` is called with the answer, or ``on_error`` with a line for the user and the exit status.
    """

    __slots__ = (
        "_context", "_is_cancelled", "_on_answer", "_on_error", "_request", "_running", "_sees", "_user",
        "until",
    )  # fmt: skip

    def __init__(
        self,
        user: OuterUser,
        context: ProxyContext,
        request: CommandRequest,
        *,
        on_answer: Callable[[str], None],
        on_error: Callable[[str, int], None],
    ) -> None:
        self._user = user
        self._context = context
        self._request = request
        self._on_answer = on_answer
        self._on_error = on_error
        self._running: Deferred[None] | None = None
        self._is_cancelled = False
        #: Whose recordings the command could show at its start; None before it.
        self._sees: VisibleRecordings | None = None
        #: When the policy must decide again; None if time changes nothing.
        self.until: datetime | None = None

    def start(self, text: str) -> None:
        """Start the command. Raises AccessDenied where the user may not run one now."""
        context, user = self._context, self._user
        mfa = required_mfa(context, user.identity, user.source)
        check_proof(mfa, user.identity, user.proofs, "command")
        self._count()
        self._sees = viewable_recordings(self._request)
        self._update_until()
        running = run_coroutine(command_table.run_command(self._request, text))
        running.addBoth(self._uncount)
        self._running = running.addCallbacks(self._on_answer, self._failed)

    def recheck(self) -> None:
        """End the command if its user may no longer view the recordings that it could show at its start."""
        if self._sees is None or self._is_cancelled:
            return
        self._update_until()
        order = list(VisibleRecordings)
        if order.index(viewable_recordings(self._request)) < order.index(self._sees):
            self.cancel()
            text = "your roles no longer allow you to view these recordings"
            self._on_error(refusals.reason_line(Reason(ReasonCode.ROLES_CHANGED, text)), REFUSED)

    def cancel(self) -> bool:
        """Cancel the command, which restores the user's terminal. Return whether it was running."""
        self._is_cancelled = True
        running = self._running
        if running is None or running.called:
            return False
        running.cancel()
        return True

    def _update_until(self) -> None:
        policy, now = self._context.settings.policy, self._context.services.now()
        self.until = policy.changes(self._user.identity, now)

    def _count(self) -> None:
        """Count the command. Raises AccessDenied where the user runs as many as ``limits.commands`` says."""
        registry, user = self._context.registry, self._user.identity.user
        most = self._context.settings.config.limits.commands
        if registry.command_count(user) >= most:
            raise AccessDenied(
                f"too many commands: {user} has {most} open, which is the limit (commands). "
                "Wait until one ends, then try again",
                rule="commands",
                code=ReasonCode.TOO_MANY_COMMANDS,
            )
        registry.add_command(user)

    def _uncount(self, result: T) -> T:
        self._context.registry.remove_command(self._user.identity.user)
        return result

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self._is_cancelled:
            return
        if failure.check(UsageError):
            text = one_line(failure.getErrorMessage())
            self._on_error(refusals.reason_line(Reason(ReasonCode.COMMAND_INVALID, text)), USAGE)
        else:
            self._on_error(refusals.error_line(as_error(failure)), REFUSED)
