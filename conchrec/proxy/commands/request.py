"""A user who asks the proxy itself for something: who, from where, and what comes in on stdin."""

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
    """It can't be done, or was done wrongly; one line for the user."""

    default_code = ReasonCode.COMMAND_REFUSED


class UsageError(Exception):
    """Not a command, or not used like that; one line for the user."""


class Stdin:
    """What the user's client sends to a command. Nothing is kept but for a command that reads."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._limit = 0
        self._reader: Deferred[bytes] | None = None
        self._ended = False

    def read(self, limit: int) -> Deferred[bytes]:
        """All of it, up to its end. Fails with Refused as soon as there is more than ``limit``.

        For one reader, who asks at once: what came before is gone.
        """
        reader: Deferred[bytes] = Deferred(lambda _: self._finish())
        self._reader, self._limit = reader, limit
        if self._ended:
            self.eof()
        return reader

    def data(self, data: bytes) -> None:
        if self._reader is None:
            return
        self._kept += data
        if len(self._kept) > self._limit:
            reader = self._reader
            self._finish()
            reader.errback(CommandRefused(f"standard input is too long: at most {self._limit // 1024} KiB"))

    def eof(self) -> None:
        self._ended = True
        if self._reader is not None:
            reader, read = self._reader, bytes(self._kept)
            self._finish()
            reader.callback(read)

    def _finish(self) -> None:
        self._reader = None
        self._kept.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """Who asks, and from where. ``words`` follow the command; ``ttl`` was asked for with ``--ttl``.

    ``who`` gives the user as of now: a command may take long, and the user's roles change meanwhile.
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
        """Those of now."""
        return self.context.settings

    @property
    def services(self) -> Services:
        """What the command works with."""
        return self.context.services
