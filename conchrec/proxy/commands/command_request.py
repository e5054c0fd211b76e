"""What a command gets: the user, the words, standard input and the console; and how it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from twisted.internet.defer import Deferred

from conchrec.errors import ConchrecError
from conchrec.model import Identity
from conchrec.proxy.agents import AgentSource
from conchrec.proxy.commands.output import Console
from conchrec.proxy.context import ProxyContext, Services, Settings
from conchrec.reasons import ReasonCode


class CommandRefused(ConchrecError):
    """A valid command that cannot be done; one line for the user."""

    default_code = ReasonCode.COMMAND_REFUSED


class UsageError(Exception):
    """An unknown command, or invalid arguments; one line for the user."""


class Stdin:
    """The standard input of a command. Data is dropped unless the command reads."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._limit = 0
        self._reader: Deferred[bytes] | None = None
        self._ended = False

    def read(self, limit: int) -> Deferred[bytes]:
        """Fires with all input, at its end. Fails with CommandRefused when it exceeds ``limit`` bytes.

        For one reader, which calls this at once: input that came before is lost.
        """
        reader: Deferred[bytes] = Deferred(lambda _: self._finish())
        self._reader, self._limit = reader, limit
        if self._ended:
            self.eof()
        return reader

    def data(self, data: bytes) -> None:
        """Add input from the client."""
        if self._reader is None:
            return
        self._kept += data
        if len(self._kept) > self._limit:
            reader = self._reader
            self._finish()
            reader.errback(CommandRefused(f"standard input is too long: at most {self._limit // 1024} KiB"))

    def eof(self) -> None:
        """Handle the end of the input."""
        self._ended = True
        if self._reader is not None:
            reader, data = self._reader, bytes(self._kept)
            self._finish()
            reader.callback(data)

    def _finish(self) -> None:
        self._reader = None
        self._kept.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """One command of a user. ``words`` follow the command's name; ``ttl`` is that of ``--ttl``.

    ``who`` returns the user as of now: the user's roles may change while a command runs.
    """

    context: ProxyContext
    who: Callable[[], Identity]
    source: str
    address: str
    cid: str
    agent: AgentSource
    console: Console
    stdin: Stdin = field(default_factory=Stdin)
    words: tuple[str, ...] = ()
    ttl: timedelta | None = None

    @property
    def identity(self) -> Identity:
        """The user, as of now."""
        return self.who()

    @property
    def settings(self) -> Settings:
        """The settings in effect now."""
        return self.context.settings

    @property
    def services(self) -> Services:
        """The services of this process."""
        return self.context.services
