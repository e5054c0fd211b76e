"""A session channel of the outer connection: a command to the proxy, or a tunnel to a target."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.coroutines import run_coroutine
from conchrec.errors import AccessDenied
from conchrec.proxy import refusals
from conchrec.proxy.commands.command_request import CommandRequest, Stdin
from conchrec.proxy.commands.output import Console
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.outer.command_run import REFUSED, CommandRun
from conchrec.proxy.outer.internal_error import as_error
from conchrec.proxy.outer.targets import TargetConnections
from conchrec.proxy.outer.user import OuterUser
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_names import SUBSYSTEM, parse_subsystem
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import IncomingOpen

#: The window for a command's standard input and for keystrokes, in bytes.
COMMAND_WINDOW = 128 * 1024
#: The exit status of ssh itself where it cannot connect.
FAILED = 255


class OuterSession:
    """One session channel (a ``StreamHandler``). Its first request decides what it is.

    ``on_end`` is called when the channel is closed.
    """

    def __init__(
        self,
        user: OuterUser,
        targets: TargetConnections,
        context: ProxyContext,
        opening: IncomingOpen,
        *,
        on_end: Callable[[OuterSession], None],
    ) -> None:
        self._user = user
        self._targets = targets
        self._context = context
        self._on_end = on_end
        self._newline = "\n"
        self._console = Console(context.services.clock)
        self._started = False
        self._tunnel: Tunnel | None = None
        self._stdin = Stdin()
        self._command: CommandRun | None = None
        # Without a window the client sends no data before this is a tunnel or a command.
        self._stream = Stream.accept(opening, self, window=0)
        self._console.attach(self._stream)

    # --- StreamHandler

    def stream_opened(self) -> None:
        """Do nothing: the client opened the channel, so it is open from the start."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """Do nothing: the client opened the channel."""

    def stream_data(self, data: bytes) -> None:
        """Pass data to the target, or to the command."""
        if self._tunnel is not None:
            self._tunnel.stream_data(data)
        else:
            self._stdin.data(data)
            self._console.keys(data)

    def stream_eof(self) -> None:
        """Pass the end of the input to the target, or to the command."""
        if self._tunnel is not None:
            self._tunnel.stream_eof()
        else:
            self._stdin.eof()

    def stream_drained(self, pending: int) -> None:
        """Let the target, or the command, write more."""
        if self._tunnel is not None:
            self._tunnel.stream_drained(pending)
        else:
            self._console.drained(pending)

    def stream_closed(self) -> None:
        """End the tunnel, or the command."""
        if self._tunnel is not None:
            self._tunnel.stream_closed()
        self._on_end(self)
        self.cancel()
        # It refers to this session.
        self._command = None

    def stream_request(self, request: m.ChannelRequest) -> bool:
        """Handle a channel request, and return whether it succeeds."""
        name = request.name
        if name in m.AGENT_REQUESTS:
            if not self._user.agent.announced:
                self._user.agent.announced = True
                self._context.emit(events.Agent(**self._user.who(), action="announced", path="outer"))
            return True
        if name == b"pty-req" and "permit-pty" in self._user.identity.withheld:
            why = Reason(
                ReasonCode.PTY_NOT_ALLOWED, "your certificate does not allow a terminal (permit-pty)"
            )
            self._rejected(why, "certificate: no permit-pty")
            return False
        if name == b"pty-req":
            self._newline = "\r\n"
            pty = m.PtyRequest.parse(request.extra)
            self._console.resize(pty.columns, pty.rows)
            return True
        if name == b"window-change":
            change = m.WindowChange.parse(request.extra)
            self._console.resize(change.columns, change.rows)
            return True
        if name in (b"env", b"signal"):
            return True
        if self._started or name not in (b"shell", b"exec", b"subsystem"):
            return False
        self._started = True
        argument = b"" if name == b"shell" else m.parse_string(request.extra)
        if name == b"subsystem":
            if not argument.startswith(SUBSYSTEM):
                return False
            self._start_tunnel(argument[len(SUBSYSTEM) :])
        else:
            # A force-command in the user's certificate replaces any command, as sshd does it.
            self._stream.widen(COMMAND_WINDOW)
            forced = self._user.identity.force_command
            self._start_command(forced or argument.decode("utf-8", "replace"))
        return True

    @property
    def until(self) -> datetime | None:
        """When the policy must decide about a command again; None if time changes nothing."""
        return self._command.until if self._command is not None else None

    def recheck(self) -> None:
        """Check a command again, after a change of the policy or the time."""
        if self._command is not None:
            self._command.recheck()

    def cancel(self) -> bool:
        """Cancel a command, which restores the user's terminal. Return whether one was running."""
        return self._command is not None and self._command.cancel()

    # --- a tunnel to a target

    def _start_tunnel(self, name: bytes) -> None:
        tunnel = self._tunnel = self._targets.new_tunnel()
        tunnel.attach(self._stream)
        run_coroutine(self._connect(name, tunnel)).addErrback(self._not_connected)

    async def _connect(self, name: bytes, tunnel: Tunnel) -> None:
        cluster = self._context.settings.config.cluster_name
        target = await self._targets.connect_to(parse_subsystem(name, cluster))
        if tunnel.closed or self._stream.closed:
            target.drop()
            return
        self._targets.attach_tunnel(target, tunnel)

    def _not_connected(self, failure: Failure) -> None:
        if failure.check(CancelledError) or self._stream.closed:
            return
        self._fail(refusals.error_line(as_error(failure)), FAILED)

    # --- a command

    def _start_command(self, text: str) -> None:
        user = self._user
        request = CommandRequest(
            context=self._context,
            who=lambda: user.identity,
            source=user.source,
            address=user.address,
            cid=user.cid,
            agent=user.agent,
            stdin=self._stdin,
            console=self._console,
        )
        self._command = CommandRun(
            user, self._context, request, on_answer=self._answer, on_error=self._fail
        )
        try:
            self._command.start(text)
        except AccessDenied as error:
            self._rejected(error.public, error.rule)
            self._fail(refusals.error_line(error), REFUSED)

    def _rejected(self, reason: str, rule: str) -> None:
        self._context.emit(events.SessionRejected(**self._user.who(), reason=reason, rule=rule))

    def _answer(self, answer: str) -> None:
        self._stream.write(answer.replace("\n", self._newline).encode())
        self._exit(0)

    def _fail(self, text: str, status: int) -> None:
        """Show an error, and end the channel with this exit status."""
        self._stream.write_error((text + self._newline).encode("utf-8", "replace"))
        self._exit(status)

    def _exit(self, status: int) -> None:
        # The reply to the current request must come first.
        self._context.services.clock.callLater(0, self._finish, status)

    def _finish(self, status: int) -> None:
        if self._stream.closed:
            return
        self._stream.request(b"exit-status", status.to_bytes(4, "big"))
        self._stream.write_eof()
        self._stream.close()
