"""A session channel of the outer connection: a command for the proxy, or a way to a target."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.options import Sees
from conchrec.audit import events
from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Identity
from conchrec.proxy import refusals
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.commands import catalogue
from conchrec.proxy.commands.output import Console
from conchrec.proxy.commands.recordings import whose as looking_sees
from conchrec.proxy.commands.request import CommandRequest, Stdin, UsageError
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.login.second_factor import check as check_second_factor
from conchrec.proxy.login.second_factor import required
from conchrec.proxy.outer.targets import TargetConnections
from conchrec.proxy.relay.tunnel import Tunnel
from conchrec.proxy.target_access import OneTimeProof
from conchrec.proxy.target_names import SUBSYSTEM, subsystem_target
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import Stream
from conchrec.ssh.connection import IncomingOpen
from conchrec.ssh.transport import ServerTransport
from conchrec.text import one_line

_log = Logger()
T = TypeVar("T")

#: Of a command's stdin, and of keys.
COMMAND_WINDOW = 128 * 1024
#: sysexits.h: the command line is wrong.
USAGE = 64
#: A command was understood, and could not be done.
REFUSED = 1
#: What ssh itself exits with where it is ssh that failed.
FAILED = 255


class Outside(Protocol):
    """The user's connection, as its session channels see it."""

    transport: ServerTransport
    agent: AgentSource
    cid: str
    source: str
    address: str
    proofs: OneTimeProof
    sessions: set[OuterSession]
    ways: TargetConnections

    @property
    def identity(self) -> Identity: ...


class OuterSession:
    """A session channel of the outer connection: a command for the proxy, or a way to a target."""

    def __init__(self, jump: Outside, context: ProxyContext, opening: IncomingOpen) -> None:
        self._jump = jump
        self._context = context
        self._services = context.services
        self._newline = "\n"
        self._console = Console(context.services.clock)
        self._started = False
        self._tunnel: Tunnel | None = None
        self._stdin = Stdin()
        self._running: Deferred[None] | None = None
        self._leaving = False
        self._asking: CommandRequest | None = None
        self._sees: Sees | None = None
        #: When it has to be judged again; None: not by itself.
        self.until: datetime | None = None
        # What is sent before it is known what this session is would wait here: there is no window for it.
        self._stream = Stream.accept(opening, self, window=0)
        self._console.attach(self._stream)
        jump.sessions.add(self)

    # --- StreamUser

    def stream_opened(self) -> None:
        """The channel is the client's own; it was open from the start."""

    def stream_refused(self, code: int, text: bytes) -> None:
        """The channel is the client's own; it was open from the start."""

    def stream_data(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.stream_data(data)
        else:
            self._stdin.data(data)
            self._console.keys(data)

    def stream_eof(self) -> None:
        if self._tunnel is not None:
            self._tunnel.stream_eof()
        else:
            self._stdin.eof()

    def stream_drained(self, pending: int) -> None:
        if self._tunnel is not None:
            self._tunnel.stream_drained(pending)
        else:
            self._console.drained(pending)

    def stream_closed(self) -> None:
        if self._tunnel is not None:
            self._tunnel.stream_closed()
        self._jump.sessions.discard(self)
        self.leave()

    def stream_request(self, request: m.ChannelRequest) -> bool:
        name = request.name
        if name in m.AGENT_REQUESTS:
            if not self._jump.agent.announced:
                self._jump.agent.announced = True
                self._context.emit(
                    events.Agent(
                        user=self._jump.identity.user,
                        addr=self._jump.address,
                        cid=self._jump.cid,
                        action="announced",
                        path="outer",
                    )
                )
            return True
        if name == b"pty-req" and "permit-pty" in self._jump.identity.withheld:
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
            # A certificate may say what runs, here, too, whatever is asked for.
            self._stream.widen(COMMAND_WINDOW)
            forced = self._jump.identity.force_command
            self._command(forced or argument.decode("utf-8", "replace"))
        return True

    def recheck(self) -> None:
        """A command that shows recordings ends where its user may not see as much any more."""
        asking, order = self._asking, list(Sees)
        if asking is None or self._sees is None or self._leaving:
            return
        self._note_end()
        if order.index(looking_sees(asking)) < order.index(self._sees):
            self.leave()
            why = Reason(ReasonCode.ROLES_CHANGED, "your roles no longer allow you to view these recordings")
            self._say_error(refusals.sentence(why))
            self._exit(REFUSED)

    def _note_end(self) -> None:
        context, jump = self._context, self._jump
        self.until = context.settings.policy.changes(jump.identity, self._services.now())

    def leave(self) -> bool:
        """The connection ends: so does a command, and the user's terminal is as it was. Was there one?"""
        self._leaving = True
        running = self._running
        if running is None or running.called:
            return False
        running.cancel()
        return True

    # --- a way to a target

    def _start_tunnel(self, place: bytes) -> None:
        transport = self._jump.transport
        clock = self._services.clock
        tunnel = self._tunnel = Tunnel(clock, peer=transport.getPeer(), host=transport.getHost())
        tunnel.attach(self._stream)
        Deferred.fromCoroutine(self._enter(place, tunnel)).addErrback(self._not_entered)

    async def _enter(self, place: bytes, tunnel: Tunnel) -> None:
        target = subsystem_target(place, self._context.settings.config.cluster_name)
        found = await self._jump.ways.approach(target)
        if tunnel.closed or self._stream.closed:
            found.drop()
            return
        self._jump.ways.enter(found, tunnel)

    def _not_entered(self, failure: Failure) -> None:
        if failure.check(CancelledError) or self._stream.closed:
            return
        self._say_error(refusals.line(as_error(failure)))
        self._exit(FAILED)

    # --- a command

    def _command(self, text: str) -> None:
        jump = self._jump
        asking = CommandRequest(
            context=self._context,
            who=lambda: jump.identity,
            source=jump.source,
            address=jump.address,
            cid=jump.cid,
            agent=jump.agent,
            stdin=self._stdin,
            console=self._console,
        )
        try:
            mfa = required(self._context, jump.identity, jump.source)
            check_second_factor(mfa, jump.identity, jump.proofs, "command")
            self._count_command()
        except AccessDenied as error:
            self._rejected(error.public, error.rule)
            self._say_error(refusals.line(error))
            self._exit(REFUSED)
            return
        self._asking, self._sees = asking, looking_sees(asking)
        self._note_end()
        running = Deferred.fromCoroutine(catalogue.answer(asking, text))
        running.addBoth(self._uncount)
        self._running = running.addCallbacks(self._answered, self._not_answered)

    def _rejected(self, reason: str, rule: str) -> None:
        jump = self._jump
        self._context.emit(
            events.SessionRejected(
                user=jump.identity.user, addr=jump.address, cid=jump.cid, reason=reason, rule=rule
            )
        )

    def _count_command(self) -> None:
        """AccessDenied where as many run for this user as there may be."""
        registry, user = self._context.registry, self._jump.identity.user
        most = self._context.settings.config.limits.commands
        if registry.command_count(user) >= most:
            raise AccessDenied(
                f"too many commands: {user} runs {most}, the limit (commands). Wait until one ends",
                rule="commands",
                code=ReasonCode.TOO_MANY_COMMANDS,
            )
        registry.add_command(user)

    def _uncount(self, result: T) -> T:
        self._context.registry.remove_command(self._jump.identity.user)
        return result

    def _answered(self, answer: str) -> None:
        self._stream.write(answer.replace("\n", self._newline).encode())
        self._exit(0)

    def _not_answered(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self._leaving:
            return
        if failure.check(UsageError):
            text = one_line(failure.getErrorMessage())
            self._say_error(refusals.sentence(Reason(ReasonCode.COMMAND_INVALID, text)))
            self._exit(USAGE)
        else:
            self._say_error(refusals.line(as_error(failure)))
            self._exit(REFUSED)

    def _say_error(self, text: str) -> None:
        self._stream.write_error((text + self._newline).encode("utf-8", "replace"))

    def _exit(self, status: int) -> None:
        # After the reply to the request that is being handled right now.
        self._services.clock.callLater(0, self._finish, status)

    def _finish(self, status: int) -> None:
        if self._stream.closed:
            return
        self._stream.request(b"exit-status", status.to_bytes(4, "big"))
        self._stream.write_eof()
        self._stream.close()


def as_error(failure: Failure) -> ConchrecError:
    error = failure.value
    if isinstance(error, ConchrecError):
        return error
    _log.failure("internal error in a channel of the outer connection", failure=failure)
    return ConchrecError(
        "internal error in the proxy. Ask your administrator to look into its log",
        code=ReasonCode.INTERNAL_ERROR,
    )
